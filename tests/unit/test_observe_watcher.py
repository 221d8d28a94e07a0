"""The watcher of one chain: prices that outlive a slow read, an index that is not led astray."""

from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from keeper.chain.finality import Depth
from keeper.chain.port import BlockRef, Call, Header, Simulation
from keeper.chain.simulated import Frame, Reverted, SimulatedChain
from keeper.errors import RemoteFault
from keeper.network import ChainSpec, Feed, NetworkSpec
from keeper.node.observer import Observer
from keeper.observe.observation import ObservationBody, SeenPrice, decode
from keeper.observe.service import DECIMALS, LATEST_ROUND, Watcher
from keeper.reasons import Reason
from keeper.units import ChainId, symbol
from p2p.agreement.signing import EcdsaSigner
from p2p.types import SignedObservation
from tests.support.p2p_fleet import committee_of, seed_of

CHAIN = ChainId(7)
FEED = Feed(symbol("ETH-USD"), b"\xfe" * 20)
SPEC = ChainSpec(CHAIN, (("Vault", b"\xaa" * 20),), feeds=(FEED,))


class Chain(SimulatedChain):
    """A chain whose calls wait while `held` is set, and whose blocks a test may replace."""

    def __init__(self) -> None:
        self.answer, self.decimals = (3_000 * 10**8, 1_700_000_000), 8
        self.held: trio.Event | None = None
        self.forged: dict[bytes, Header] = {}
        super().__init__(CHAIN, Depth(2), contracts={FEED.address: self.feed})
        self.mine(4)

    def feed(self, frame: Frame) -> bytes:
        price, updated = self.answer
        if frame.call.data == DECIMALS and self.decimals >= 0:
            return self.decimals.to_bytes(32, "big")
        if frame.call.data == LATEST_ROUND:
            return b"".join(n.to_bytes(32, "big") for n in (1, price, updated, updated, 1))
        raise Reverted

    async def calls(self, calls: Sequence[Call], at: BlockRef) -> tuple[Simulation, ...]:
        if self.held is not None:
            await self.held.wait()
        return await super().calls(calls, at)

    async def block(self, block_hash: bytes) -> Header | None:
        return self.forged.get(block_hash) or await super().block(block_hash)


@asynccontextmanager
async def watched(chain: Chain) -> Any:
    watcher = Watcher(SPEC, chain)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watcher.run)
        with trio.fail_after(20):
            yield watcher
        nursery.cancel_scope.cancel()


def price(dollars: int, at: int) -> SeenPrice:
    return SeenPrice(FEED.market, dollars * 10**8, at)


async def test_a_read_that_is_late_is_not_lost() -> None:
    chain = Chain()
    async with watched(chain) as watcher:
        await watcher.refresh()
        assert watcher.prices == (price(3_000, 1_700_000_000),)
        chain.held, chain.answer = trio.Event(), (2_900 * 10**8, 1_700_000_015)
        with trio.move_on_after(0):
            await watcher.refresh()
        await trio.testing.wait_all_tasks_blocked()
        assert watcher.prices == (price(3_000, 1_700_000_000),), "what it said last"
        chain.held.set()
        await trio.testing.wait_all_tasks_blocked()
        assert watcher.prices == (price(2_900, 1_700_000_015),), "nobody waited, and it came"


async def test_a_chain_that_cannot_be_read_keeps_its_last_word() -> None:
    chain = Chain()
    async with watched(chain) as watcher:
        await watcher.refresh()
        chain.broken = RemoteFault("endpoints", Reason.NO_QUORUM, "two against one")
        await watcher.refresh()
        assert watcher.prices == (price(3_000, 1_700_000_000),)
        assert "two against one" in watcher.trouble


async def test_a_feed_that_is_none_is_said_and_ends_nothing() -> None:
    chain = Chain()
    chain.decimals = -1
    async with watched(chain) as watcher:
        await watcher.refresh()
        assert watcher.prices == ()
        assert "no decimals" in watcher.trouble
        chain.decimals = 6
        await watcher.refresh()
        assert watcher.prices == (price(3_000 * 100, 1_700_000_000),)


async def test_an_ancestor_with_another_number_is_refused() -> None:
    """Each header hashes to what was asked for, and still the walk back would never end."""
    chain = Chain()
    async with watched(chain) as watcher:
        while watcher.index.newest is None:
            await watcher.moved.wait()
        first = watcher.index.newest.number
        final = chain.mine(6)
        forged = await chain.block(final.hash)
        assert forged is not None
        chain.forged[final.hash] = replace(forged, ref=replace(forged.ref, number=2**40))
        with pytest.raises(RemoteFault) as caught:
            await watcher._ancestors(final, first)
        assert caught.value.reason is Reason.MALFORMED


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 virtual time
        await trio.sleep(0.1)


async def test_a_chain_that_breaks_its_finality_is_named_and_left(
    autojump_clock: trio.testing.MockClock,
) -> None:
    chain = Chain()
    chain.mine(6)
    async with watched(chain) as watcher:
        await until(lambda: watcher.index.newest is not None)
        chain.mine(4)
        await until(lambda: watcher.index.recent()[-1].number == 12)
        before = watcher.index.recent()
        assert watcher.trouble == ""
        chain.reorg(4)
        chain.mine(3)
        await until(lambda: "broke its finality" in watcher.trouble)
        after = watcher.index.recent()
        assert [head.number for head in after] == [11, 12], "block 10 is as it was"
        assert {head.hash for head in after}.isdisjoint({head.hash for head in before})
        assert after[-1].hash == chain._blocks[12].header.ref.hash
        chain.mine(5)
        await trio.sleep(5)
        assert watcher.index.recent() == after, "until a person has looked"
        assert "broke its finality" in watcher.trouble


async def test_a_final_block_that_vanishes_does_not_stop_the_watcher(
    autojump_clock: trio.testing.MockClock,
) -> None:
    chain = Chain()
    hidden: set[bytes] = set()
    plain = chain.block

    async def block(block_hash: bytes) -> Header | None:
        return None if block_hash in hidden else await plain(block_hash)

    chain.block = block  # type: ignore[method-assign]  # the endpoints' own forgetting
    async with watched(chain) as watcher:
        await until(lambda: watcher.index.newest is not None)
        ahead = chain.mine(1)
        hidden.add(chain._blocks[ahead.number - 2].header.ref.hash)
        await until(lambda: "missing_block" in watcher.trouble)
        hidden.clear()
        ahead = chain.mine(3)
        await until(lambda: watcher.index.recent()[-1].number == ahead.number - 2)
        assert watcher.trouble == ""


async def test_every_tick_has_a_price_however_slow_the_feeds_are(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A market without a price for one tick is stale in that view, and its breaker trips."""
    network = NetworkSpec(bytes(32), 1_700_000_000_000, 500, CHAIN, (SPEC,))
    chain, seen = Chain(), list[ObservationBody]()

    def emit(signed: SignedObservation) -> None:
        body = decode(signed.body)
        assert body is not None
        seen.append(body)

    async with watched(chain) as watcher, trio.open_nursery() as nursery:
        observer = Observer(
            network,
            committee_of(3),
            EcdsaSigner(seed_of(1)),
            {CHAIN: watcher},
            lambda: ((), ()),
            lambda: None,
            emit,
            clock=lambda: 1_700_000_000 + trio.current_time(),
        )
        nursery.start_soon(observer.run)
        await trio.sleep(2.2)
        chain.held = trio.Event()
        await trio.sleep(5)
        assert [body.tick for body in seen] == list(range(1, len(seen) + 1))
        assert len(seen) > 12
        assert {body.prices for body in seen} == {(price(3_000, 1_700_000_000),)}
        nursery.cancel_scope.cancel()
