"""A process that forks executors and lets them kill themselves at a chosen step.

    stdin   "DATABASE URL NUMBER STEP"   →   stdout  "killed NAME" | "done STATUS"

A step is one moment before or after a ledger commit or a broadcast. The server imports everything
once and has no threads, so a fork is a fresh process in two milliseconds.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterable

import structlog
import trio

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.chain.http import HttpRpc
from keeper.devnet.chains import mnemonic_key
from keeper.execute.fees import Schedule
from keeper.execute.intent import Intent, Lane, Mode, Outcome
from keeper.execute.ledger import Change, Ledger
from keeper.execute.service import Executor
from keeper.store import Store
from keeper.units import BlockNumber, ChainId, Wei

CHAIN = ChainId(31501)
KEY = mnemonic_key(0)
PATIENT = Schedule(patience=10_000)
"""Blocks come as fast as they can: on a busy machine every other step would be an outbidding."""


def key_of(number: int) -> bytes:
    return number.to_bytes(32, "big")


def recipient_of(number: int) -> bytes:
    return (0xC0FFEE0000 + number).to_bytes(20, "big")


class Fuse:
    """Counts steps, and ends the process at one of them."""

    def __init__(self, step: int, tell: Callable[[str], None]) -> None:
        self._left, self._tell = step, tell

    def step(self, name: str) -> None:
        if self._left == 0:
            self._tell(f"killed {name}")
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1


class FusedLedger(Ledger):
    fuse: Fuse

    def apply(self, changes: Iterable[Change], at: int) -> None:
        listed = list(changes)
        name = ",".join(
            str(getattr(change, "state", type(change).__name__.lower())) for change in listed
        )
        self.fuse.step(f"before {name}")
        super().apply(listed, at)
        self.fuse.step(f"after {name}")


class FusedChain(EvmChain):
    fuse: Fuse

    async def submit(self, raw: bytes) -> bytes:
        self.fuse.step("before broadcast")
        transaction = await super().submit(raw)
        self.fuse.step("after broadcast")
        return transaction


async def _mine(url: str) -> None:
    rpc = HttpRpc(url)
    try:
        while True:
            await rpc.call("evm_mine")
            await trio.sleep(0.01)
    finally:
        await rpc.aclose()


async def _execute(database: str, url: str, number: int, fuse: Fuse) -> Outcome:
    store = Store(database)
    ledger, chain = FusedLedger(store), FusedChain(CHAIN, [url], Depth(2))
    ledger.fuse = chain.fuse = fuse
    executor = Executor(
        ledger,
        {CHAIN: chain},
        Mode.LIVE,
        {(CHAIN, Lane.URGENT): lambda: KEY},
        schedules={Lane.URGENT: PATIENT},
        poll_s=0.01,
    )
    intent = Intent(
        key_of(number), CHAIN, Lane.URGENT, recipient_of(number), b"", BlockNumber(10**6),
        Wei(10**18), 1,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.run)
        nursery.start_soon(_mine, url)
        outcome = await executor.submit(intent)
        nursery.cancel_scope.cancel()
    await chain.aclose()
    store.close()
    return outcome


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    for line in sys.stdin:
        database, url, number, step = line.split()
        child = os.fork()
        if child == 0:

            def tell(text: str) -> None:
                os.write(1, text.encode() + b"\n")

            outcome = trio.run(_execute, database, url, int(number), Fuse(int(step), tell))
            tell(f"done {outcome.status.value}")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status not in (0, signal.SIGKILL):
            os.write(1, f"failed {status}\n".encode())


if __name__ == "__main__":
    main()
