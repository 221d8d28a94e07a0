"""Copies of a network's chains: local forks whose prices we move and whose seals we make.

    chain ──fork──▶ anvil ─▶ feeds answer what we say    committee takes every seal
                          ─▶ a keeper with coin and a bond

Nobody can sign for the real committee, so on the copy its contract is replaced by one that says
yes; every other contract is the network's own. Nothing is ever sent to the chains that were copied.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.contracts import encode_call
from keeper.devnet.chains import Anvil, AnvilSpec, ensure_anvil, run_anvil
from keeper.devnet.wallet import Send, Wallet
from keeper.errors import LocalError
from keeper.network import ChainSpec, NetworkSpec
from keeper.observe.observation import SeenPrice
from keeper.observe.service import Watcher
from keeper.units import ChainId

FUNDS_WEI = 10**26
BOND_WEI = 10**25
"""More than the locks of every award that may be open at once."""
INDEX_S = 60.0
DECIMALS = 8


def constant_code(answer: int) -> str:
    """Return code that answers every call with one number: PUSH32 n, MSTORE, RETURN."""
    return f"0x7f{answer:064x}60005260206000f3"


def feed_code(price_e8: int) -> str:
    """Return code of an aggregator whose round is always new.

    selector == decimals()? ─▶ 8        else ─▶ (1, price, now, now, 1)
    """
    head = "60003560e01c63313ce56714" + "604f57"
    words = "6001600052" + f"7f{price_e8:064x}602052" + "42604052" + "42606052" + "6001608052"
    body = words + "60a06000f3"
    tail = "5b6008600052" + "60206000f3"
    code = bytes.fromhex(head + body)
    return "0x" + head.replace("604f57", f"60{len(code):02x}57") + body + tail


@dataclass(frozen=True, slots=True)
class Copy:
    """One copied chain."""

    spec: ChainSpec
    anvil: Anvil
    chain: EvmChain
    watcher: Watcher

    async def set_code(self, address: bytes, code: str) -> None:
        """Replace a contract."""
        await self.anvil.rpc.call("anvil_setCode", ["0x" + address.hex(), code])

    async def publish(self, prices: Mapping[bytes, int]) -> None:
        """Let every feed of these markets answer a price, from the next block on."""
        for feed in self.spec.feeds:
            if feed.market in prices:
                await self.set_code(feed.address, feed_code(prices[feed.market]))

    async def mine_to(self, number: int) -> None:
        """Mine until the newest block has at least this number."""
        head = (await self.chain.head()).ref.number
        if head < number:
            await self.anvil.mine(number - head)

    async def indexed(self) -> None:
        """Mine until everything so far is final, and wait until the watcher holds it."""
        head = (await self.chain.head()).ref.number
        await self.anvil.mine(self.spec.finality_depth + 1)
        self.chain.poke()
        with trio.move_on_after(INDEX_S):
            while True:
                newest = self.watcher.index.newest
                if newest is not None and newest.number > head:
                    return
                await self.watcher.moved.wait()
        raise LocalError(
            f"the copy of chain {self.spec.id} was not read within {INDEX_S:g} s",
            where=self.watcher.trouble or self.anvil.url,
            remedy="check that the endpoint that was copied still answers",
        )


@dataclass(frozen=True, slots=True)
class Copies:
    """All chains of one network."""

    network: NetworkSpec
    by_chain: Mapping[ChainId, Copy]

    async def indexed(self) -> None:
        """Let every chain's watcher catch up with every chain."""
        async with trio.open_nursery() as nursery:
            for copy in self.by_chain.values():
                nursery.start_soon(copy.indexed)

    async def prices(self) -> tuple[SeenPrice, ...]:
        """Return what all feeds say."""
        found: list[SeenPrice] = []
        for copy in self.by_chain.values():
            found += await copy.watcher.prices()
        return tuple(sorted(found))

    async def publish(self, prices: Mapping[bytes, int]) -> None:
        """Let the feeds of every chain answer these prices."""
        for copy in self.by_chain.values():
            await copy.publish(prices)

    async def hire(self, secret: bytes) -> None:
        """Give a keeper coin on every chain, and a bond on the hub.

        From then on blocks are mined by hand, so that all awards of a view fit into one.
        """
        for copy in self.by_chain.values():
            wallet = Wallet(copy.anvil.rpc, copy.spec.id, secret)
            where = "0x" + wallet.address.hex()
            await copy.anvil.rpc.call("anvil_setBalance", [where, hex(FUNDS_WEI)])
            await copy.anvil.mine()
        hub = self.by_chain[self.network.hub]
        wallet = Wallet(hub.anvil.rpc, hub.spec.id, secret)
        data = encode_call("Bonds", "join", b"\x01" * 20, b"drill")
        await wallet.send(Send(hub.spec.contract("Bonds"), data, BOND_WEI, gas=1_000_000))
        for copy in self.by_chain.values():
            await copy.anvil.rpc.call("evm_setAutomine", [False])


@asynccontextmanager
async def copies_of(
    network: NetworkSpec, endpoints: Mapping[ChainId, str], cache: Path
) -> AsyncIterator[Copies]:
    """Fork every chain of a network for the length of the block, its committee replaced."""
    binary = await trio.to_thread.run_sync(ensure_anvil, cache)
    made: dict[ChainId, Copy] = {}
    async with AsyncExitStack() as stack:
        for spec in network.chains:
            fork = ("--fork-url", endpoints[spec.id], "--no-rate-limit")
            anvil = await stack.enter_async_context(
                run_anvil(binary, AnvilSpec(spec.id, block_time_s=None, extra=fork))
            )
            depth = Depth(spec.finality_depth)
            chain = EvmChain(spec.id, [anvil.url], depth, poll_s=0.05, attempt_s=20)
            stack.push_async_callback(chain.aclose)
            copy = made[spec.id] = Copy(spec, anvil, chain, Watcher(spec, chain))
            committee = spec.contract("Committee")
            assert committee is not None, f"chain {spec.id} has no committee"
            await copy.set_code(committee, constant_code(1))
        async with trio.open_nursery() as nursery:
            for copy in made.values():
                nursery.start_soon(copy.watcher.run)
            yield Copies(network, made)
            nursery.cancel_scope.cancel()
