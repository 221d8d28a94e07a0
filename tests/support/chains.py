"""The two implementations of the chain port behind one set of knobs, for tests that run on both.

`ECHO` is one contract on both: it emits its call data under the topic of the first word, stores
that word in slot 0, returns the call data, and reverts when called without data.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import trio

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.chain.port import Advance, Chain, ChainEvent, Retract
from keeper.chain.simulated import Frame, Reverted, SimulatedChain
from keeper.devnet.chains import Anvil, mnemonic_key
from keeper.execute.signer import Signer
from keeper.units import ChainId
from tests.support.anvil import chain_of

CHAIN = ChainId(31501)
ECHO = bytes.fromhex("ec" * 20)
ECHO_CODE = "0x3660095760006000fd5b366000600037600035600055600035366000a1366000f3"
ETH = 10**18
ACCOUNTS = 4


def echo(frame: Frame) -> bytes:
    """The contract in Python."""
    data = frame.call.data
    if not data:
        raise Reverted
    word = data[:32].ljust(32, b"\0")
    frame.world.storage[frame.address, 0] = int.from_bytes(word, "big")
    frame.logs.append((frame.address, (word,), data))
    return data


class Knobs(Protocol):
    """What a test may do to the chain, whichever it is."""

    chain: Chain

    async def mine(self, blocks: int = 1) -> None: ...

    async def reorg(self, depth: int) -> None: ...

    async def rollback(self, depth: int) -> None: ...

    async def balance(self, address: bytes) -> int: ...


@dataclass
class SimulatedKnobs:
    chain: SimulatedChain

    async def mine(self, blocks: int = 1) -> None:
        self.chain.mine(blocks)

    async def reorg(self, depth: int) -> None:
        self.chain.reorg(depth)

    async def rollback(self, depth: int) -> None:
        self.chain.reorg(depth, blocks=0)

    async def balance(self, address: bytes) -> int:
        return (await self.chain.proof(address, [], await self.chain.head())).balance


@dataclass
class EvmKnobs:
    chain: EvmChain
    anvil: Anvil

    async def mine(self, blocks: int = 1) -> None:
        await self.anvil.mine(blocks)
        self.chain.poke()

    async def reorg(self, depth: int) -> None:
        await self.anvil.rpc.call("anvil_reorg", [depth, []])
        self.chain.poke()

    async def rollback(self, depth: int) -> None:
        await self.anvil.rpc.call("anvil_rollback", [depth])
        self.chain.poke()

    async def balance(self, address: bytes) -> int:
        return int(
            await self.anvil.rpc.call("eth_getBalance", ["0x" + address.hex(), "latest"]), 16
        )


@asynccontextmanager
async def evm_knobs(
    binary: Path, *, depth: int = 2, window: int = 256, prove_logs: bool = False
) -> AsyncIterator[EvmKnobs]:
    """A real chain that mines when told, with ECHO, at block 2."""
    async with chain_of(binary, CHAIN, no_mining=True) as anvil:
        await anvil.rpc.call("anvil_setCode", ["0x" + ECHO.hex(), ECHO_CODE])
        await anvil.mine()
        chain = EvmChain(
            CHAIN,
            [anvil.url],
            Depth(depth),
            poll_s=0.02,
            window=window,
            prove_logs=prove_logs,
        )
        try:
            yield EvmKnobs(chain, anvil)
        finally:
            await chain.aclose()


@asynccontextmanager
async def simulated_knobs(*, depth: int = 2, window: int = 256) -> AsyncIterator[SimulatedKnobs]:
    """The same chain in memory."""
    owners = [Signer(mnemonic_key(index)).address for index in range(ACCOUNTS)]
    chain = SimulatedChain(
        CHAIN,
        Depth(depth),
        balances=dict.fromkeys(owners, 10000 * ETH),
        contracts={ECHO: echo},
        window=window,
    )
    chain.mine(2)
    yield SimulatedKnobs(chain)


class Watcher:
    """Collects a chain's events, and checks that they are always one linear story."""

    def __init__(self) -> None:
        self.events: list[ChainEvent] = []
        self.story: list[bytes] = []
        self._moved = trio.Event()

    async def emit(self, event: ChainEvent) -> None:
        self.events.append(event)
        if isinstance(event, Advance):
            assert not self.story or event.header.parent == self.story[-1]
            self.story.append(event.ref.hash)
        elif isinstance(event, Retract):
            assert self.story.pop() == event.ref.hash
        self._moved.set()
        self._moved = trio.Event()

    async def until_head(self, chain: Chain) -> None:
        """Wait until the newest event leads to the chain's head."""
        want = (await chain.head()).ref.hash
        while not self.story or self.story[-1] != want:
            await self._moved.wait()

    async def until(self, kind: type[ChainEvent]) -> ChainEvent:
        """Wait for an event of a kind."""
        while True:
            found = next((event for event in self.events if isinstance(event, kind)), None)
            if found is not None:
                return found
            await self._moved.wait()
