"""SIGKILL at every step between plan and final: after the restart, exactly one effect."""

import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from keeper.execute.intent import State
from keeper.execute.ledger import Ledger
from keeper.store import Store
from tests.support.anvil import chain_of
from tests.support.execute_crash import key_of, recipient_of

pytestmark = pytest.mark.anvil

ROOT = Path(__file__).resolve().parents[2]
NEVER = 10**6


class Crasher:
    """The forking server, spoken to line by line."""

    def __init__(self, process: trio.Process) -> None:
        self._process, self._buffer = process, b""

    async def run(self, database: Path, url: str, number: int, step: int) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        await self._process.stdin.send_all(f"{database} {url} {number} {step}\n".encode())
        with trio.fail_after(30):
            while b"\n" not in self._buffer:
                self._buffer += await self._process.stdout.receive_some()
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()


@pytest.mark.parametrize("reorg", [0, 4], ids=["quiet", "reorg"])
async def test_sigkill_at_every_step(anvil_binary: Path, tmp_path: Path, reorg: int) -> None:
    command = [sys.executable, "-m", "tests.support.execute_crash"]
    async with chain_of(anvil_binary, no_mining=True) as anvil, trio.open_nursery() as nursery:
        serve = partial(trio.run_process, command, cwd=ROOT, stdin=-1, stdout=-1)
        process = await nursery.start(serve)
        crasher = Crasher(process)
        names: list[str] = []
        for step in range(40):
            database = tmp_path / f"{step}.sqlite"
            await anvil.mine(4)
            told = await crasher.run(database, anvil.url, step, step)
            if told.startswith("done"):
                break
            names.append(told)
            if reorg:
                await anvil.rpc.call("anvil_reorg", [2, []])
            if step % 3 == 0:
                again = await crasher.run(database, anvil.url, step, 2)
                assert again.startswith(("killed", "done")), again
            assert await crasher.run(database, anvil.url, step, NEVER) == "done succeeded"
            store = Store(database)
            task = Ledger(store).task(key_of(step))
            store.close()
            assert task is not None
            assert (task.state, task.outcome.succeeded) == (State.FINAL, True)
            assert task.nonce == step
        else:
            pytest.fail("it never finished")
        expected = ["planned", "signed", "broadcast", "sent", "mined", "final"]
        for when in ("before", "after"):
            assert [name for name in names if f"killed {when} " in name] == [
                f"killed {when} {state}" for state in expected
            ]
        balances = await anvil.rpc.batch(
            [
                ("eth_getBalance", ["0x" + recipient_of(number).hex(), "latest"])
                for number in range(len(names) + 1)
            ]
        )
        assert balances == ["0x1"] * (len(names) + 1)
        nursery.cancel_scope.cancel()
