"""The desk on unmodified Aave v3, Perpetual Protocol v2 and Uniswap v3, on real chains."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from eth_utils.address import to_checksum_address

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.chain.port import Receipt
from keeper.desk.service import Desk, Tools
from keeper.desk.settings import open_venue, venues_of
from keeper.devnet.chains import Anvil
from keeper.devnet.cluster import Cluster, KeeperProcess, run_cluster
from keeper.drill.aave import drill, target_of
from keeper.execute.intent import Lane, Mode
from keeper.execute.lane_keys import lane_address
from keeper.execute.ledger import Ledger
from keeper.execute.service import Executor
from keeper.metrics import Metrics
from keeper.plan import Step
from keeper.store import Store
from keeper.units import PPM, ChainId
from keeper.venue.port import Call
from policies.host import PolicySpec
from policies.record import Decided, Entry, Received, RecordReader, Sealed
from tests.support.anvil import CACHE, anvil_binary, chain_of
from tests.support.policy_contracts import (
    LATER,
    MOST,
    Aave,
    Contract,
    Perpetual,
    Uniswap,
    Workshop,
    add_pool,
    deploy_aave,
    deploy_perpetual,
    deploy_uniswap,
    list_reserve,
    move_perpetual,
)
from tests.support.policy_views import plugin

pytestmark = [pytest.mark.anvil, pytest.mark.npm]
__all__ = ["anvil_binary"]
CHAIN = ChainId(31777)
QUIET_BLOCKS = 12
"""Empty blocks after a burst of ours: the tip a keeper reckons with is then the one it pays."""
USD = 10**6
ETHER = 10**18


@dataclass
class Lending:
    """Aave with Uniswap beside it: ETH against dollars."""

    aave: Aave
    dex: Uniswap
    weth: Contract
    usdc: Contract
    feed: Contract

    def section(self) -> dict[str, Any]:
        """Return the section of keeper.toml."""
        return {
            "kind": "aave_v3",
            "chain": self.weth.chain.anvil.chain,
            "pool": self.aave.pool.address,
            "data": self.aave.data.address,
            "oracle": self.aave.oracle.address,
            "tokens": {"WETH": self.weth.address, "USDC": self.usdc.address},
            "coin": "WETH",
            "router": self.dex.router.address,
            "quoter": self.dex.quoter.address,
            "sales": ["WETH USDC 500"],
        }


async def borrow(made: Lending, person: str, debt: int) -> None:
    """Supply 10 WETH and borrow dollars on it."""
    pool, weth = made.aave.pool, made.weth
    await weth.tx("mint", 10 * ETHER, sender=person)
    await weth.tx("approve", pool.address, MOST, sender=person)
    await pool.tx("supply", weth.address, 10 * ETHER, person, 0, sender=person)
    await pool.tx("borrow", made.usdc.address, debt * USD, 2, 0, person, sender=person)


async def lending(shop: Workshop) -> Lending:
    """Deploy Aave with a lender, and Uniswap with a pool at 1,750 dollars; ETH is at 2,000."""
    weth, usdc = await shop.token("WETH", 18), await shop.token("USDC", 6)
    aave = await deploy_aave(shop)
    feed = await shop.feed(2000 * 10**8)
    await list_reserve(shop, aave, weth, 18, feed, (8000, 8250, 10500))
    await list_reserve(shop, aave, usdc, 6, await shop.feed(10**8), (7500, 8000, 10400))
    dex = await deploy_uniswap(shop, weth.address)
    lender = shop.people[1]
    await usdc.tx("mint", 50_000_000 * USD, sender=lender)
    await usdc.tx("approve", aave.pool.address, MOST, sender=lender)
    await aave.pool.tx("supply", usdc.address, 50_000_000 * USD, lender, 0, sender=lender)
    await add_pool(shop, dex, (weth, usdc), (20_000 * ETHER, 20_000 * 1_750 * USD))
    return Lending(aave, dex, weth, usdc, feed)


async def fund(made: Lending, keeper: str) -> None:
    """Give a keeper dollars to repay with."""
    shop = made.usdc.chain
    await made.usdc.tx("mint", 100_000 * USD)
    await made.usdc.tx("transfer", keeper, 100_000 * USD, sender=shop.me)


def within(realised: int, predicted: int, ppm: int = 10_000) -> bool:
    return abs(realised - predicted) * PPM <= ppm * abs(predicted)


@dataclass
class Bench:
    """A desk in this process, on one chain, for one keeper."""

    shop: Workshop
    chain: EvmChain
    key: bytes
    keeper: str
    entries: list[Entry]

    @asynccontextmanager
    async def desk(
        self, section: dict[str, Any], mode: Mode, store: Store, **config: Any
    ) -> AsyncIterator[Desk]:
        """Run a desk on the venue of a section."""
        (spec,) = venues_of({"one": section}, "keeper.toml")
        raw = bytes.fromhex(self.keeper[2:])
        keys = {(CHAIN, Lane.URGENT): lambda: self.key}
        executor = Executor(Ledger(store), {CHAIN: self.chain}, mode, keys, poll_s=0.02)
        home = Path("/nowhere")
        tools = Tools(
            home, store, executor, raw, self.entries.append, Metrics(), {CHAIN: trio.Lock()}
        )
        venue = await open_venue(spec, self.chain, raw)
        target = config.pop("target", "policies.liquidation:Liquidation")
        policy = PolicySpec("liquidation", target, config, budget_ms=5_000)
        desk = Desk("one", venue, 0, policy, tools)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(executor.run)
            nursery.start_soon(desk.run)
            yield desk
            nursery.cancel_scope.cancel()

    async def sent(self) -> int:
        """Return how many transactions the keeper's account has sent."""
        count = await self.shop.anvil.rpc.call("eth_getTransactionCount", [self.keeper, "latest"])
        return int(count, 16)

    async def blocks_until(self, what: Callable[[], bool]) -> None:
        """Mine blocks until it holds."""
        with trio.fail_after(60):
            while not what():
                await self.shop.anvil.mine()
                await trio.sleep(0.05)


@asynccontextmanager
async def bench_of(binary: Path, **changes: tuple[str, ...]) -> AsyncIterator[Bench]:
    async with chain_of(binary, CHAIN, **changes) as anvil:
        chain = EvmChain(CHAIN, [anvil.url], Depth(1), attempt_s=10)
        shop = Workshop(anvil)
        try:
            yield Bench(shop, chain, anvil.key(3), shop.people[3], [])
        finally:
            await chain.aclose()


async def test_only_live_mode_sends_and_a_sale_survives_a_crash(anvil_binary: Path) -> None:
    async with bench_of(anvil_binary) as bench:
        made = await lending(bench.shop)
        user = bench.shop.people[4]
        await borrow(made, user, 15_000)
        await fund(made, bench.keeper)
        await made.feed.tx("updateAnswer", 1_750 * 10**8)
        before, section = await bench.sent(), made.section()
        for mode, status in ((Mode.OFF, "refused"), (Mode.SHADOW, "recorded"), (Mode.DRY, "ref")):
            store = Store(":memory:")
            async with bench.desk(section, mode, store) as desk:
                await bench.blocks_until(lambda desk=desk: bool(desk.ended))
                assert all(status in one for one in desk.ended), (mode, desk.ended)
                assert desk.status()["near"] == desk.status()["tasks"] == 1
            assert await bench.sent() == before, mode
            assert store.read("SELECT count(*) FROM desk_acts") == [(0,)]
        await crash_between_liquidation_and_sale(bench, made, user)


async def crash_between_liquidation_and_sale(bench: Bench, made: Lending, user: str) -> None:
    """End the desk once it holds the collateral; the next one sells it, and liquidates nothing."""
    store, before = Store(":memory:"), await bench.sent()
    try:
        async with bench.desk(made.section(), Mode.LIVE, store) as desk:
            call = desk.venue.call

            def dying(step: Step, receipts: Sequence[Receipt]) -> Call:
                if receipts:
                    raise RuntimeError("power loss")
                return call(step, receipts)

            desk.venue.call = dying  # type: ignore[method-assign]  # the crash is the test
            await bench.blocks_until(lambda: False)
    except* RuntimeError:
        pass
    assert await made.weth.call("balanceOf", bench.keeper) > 0
    assert store.read("SELECT count(*) FROM desk_acts") == [(1,)]
    async with bench.desk(made.section(), Mode.LIVE, store) as desk:
        await bench.blocks_until(lambda: bool(desk.ended))
        assert desk.ended == {"succeeded": 1}
        assert within(desk.realised, desk.predicted), desk.status()
    assert await made.weth.call("balanceOf", bench.keeper) == 0
    assert await bench.sent() - before == 5, "three allowances, one liquidation, one sale"
    assert store.read("SELECT count(*) FROM desk_acts") == [(0,)]
    assert (await made.aave.pool.call("getUserAccountData", user))[5] >= ETHER


async def test_a_strangers_policy_cannot_spend_beyond_the_task(anvil_binary: Path) -> None:
    async with bench_of(anvil_binary) as bench:
        made = await lending(bench.shop)
        await borrow(made, bench.shop.people[4], 15_000)
        await fund(made, bench.keeper)
        await made.feed.tx("updateAnswer", 1_750 * 10**8)
        greedy = {"target": plugin("Giveaway")}
        async with bench.desk(made.section(), Mode.LIVE, Store(":memory:"), **greedy) as desk:
            await bench.blocks_until(lambda: desk.ended["refused"] > 1)
            assert set(desk.ended) == {"refused"}
        assert await made.usdc.call("balanceOf", bench.keeper) == 100_000 * USD


async def test_a_drill_liquidates_all_fifty_accounts_of_a_copy(anvil_binary: Path) -> None:
    async with bench_of(anvil_binary, extra=("--auto-impersonate",)) as bench:
        shop = bench.shop
        made = await lending(shop)
        people = [
            to_checksum_address((0xD0000 + number).to_bytes(20, "big")) for number in range(50)
        ]
        for place, person in enumerate(people):
            await shop.anvil.rpc.call("anvil_setBalance", [person, hex(10 * ETHER)])
            await borrow(made, person, 6_000 + 190 * place)
        here = await shop.anvil.rpc.call("eth_blockNumber")
        target = target_of(
            shop.anvil.url,
            CHAIN,
            (made.aave.pool.address, made.aave.data.address, made.aave.oracle.address),
            {"WETH": made.weth.address, "USDC": made.usdc.address},
            "WETH",
            0,
        )
        spec = PolicySpec("liquidation", "policies.liquidation:Liquidation", {}, budget_ms=5_000)
        with trio.fail_after(150):
            report = await drill(target, spec, CACHE)
        assert report.accounts == 50
        assert report.complete, [line for line in report.lines if not line.liquidated]
        assert {line.account for line in report.lines} == {person.lower() for person in people}
        totals = [sum(x.realised for x in report.lines), sum(x.predicted for x in report.lines)]
        assert within(*totals, ppm=20_000), totals
        assert all(line.health_before_ppm < PPM <= line.health_after_ppm for line in report.lines)
        assert json.loads(json.dumps(report.as_json()))["complete"]
        assert await shop.anvil.rpc.call("eth_blockNumber") == here, "the original is untouched"


# the whole node


@asynccontextmanager
async def mining_at_once(anvil: Anvil) -> AsyncIterator[None]:
    """Let a devnet's chain mine a block per transaction for the length of the block."""
    await anvil.rpc.call("evm_setIntervalMining", [0])
    await anvil.rpc.call("evm_setAutomine", [True])
    yield
    await anvil.rpc.call("evm_setAutomine", [False])
    await anvil.rpc.call("evm_setIntervalMining", [1])


async def perpetual(shop: Workshop, usdc: Contract, keeper: str) -> Perpetual:
    """Deploy Perpetual Protocol v2 with a trader who is long, and a keeper with collateral."""
    perp = await deploy_perpetual(shop, usdc, 2000)
    maker, trader, short = shop.people[1], shop.people[2], shop.people[4]
    for person, amount in ((maker, 50_000_000), (trader, 1_200), (short, 500_000)):
        await usdc.tx("mint", amount * USD, sender=person)
        await usdc.tx("approve", perp.vault.address, MOST, sender=person)
        await perp.vault.tx("deposit", usdc.address, amount * USD, sender=person)
    await usdc.tx("mint", 100_000 * USD, sender=maker)
    await perp.vault.tx("depositFor", keeper, usdc.address, 100_000 * USD, sender=maker)
    base, tick = perp.base.address, 76_020
    width = (5_000 * ETHER, 10_000_000 * ETHER, tick - 12_000, tick + 12_000)
    await perp.clearing.tx("addLiquidity", (base, *width, 0, 0, False, LATER), sender=maker)
    order = (base, False, False, 5 * ETHER, 0, LATER, 0, b"\0" * 32)
    await perp.clearing.tx("openPosition", order, sender=trader)
    return perp


async def fall(shop: Workshop, perp: Perpetual) -> None:
    """Sell until the trader is below its requirement."""
    for price in (1_920, 1_843, 1_770):
        await move_perpetual(shop, perp, price * 10**8)
        sale = (perp.base.address, True, True, 180 * ETHER, 0, LATER, 0, b"\0" * 32)
        await perp.clearing.tx("openPosition", sale, sender=shop.people[4])
        await move_perpetual(shop, perp, price * 10**8)


def toml(sections: dict[str, dict[str, Any]]) -> str:
    """Return sections of keeper.toml."""

    def value(one: Any) -> str:
        if isinstance(one, dict):
            return "{" + ", ".join(f"{key} = {value(item)}" for key, item in one.items()) + "}"
        return json.dumps(one)

    return "".join(
        f"\n[venues.{name}]\n" + "".join(f"{key} = {value(item)}\n" for key, item in row.items())
        for name, row in sections.items()
    )


async def desks_when(keeper: KeeperProcess, what: Callable[[dict[str, Any]], bool]) -> Any:
    """Return the node's two desks by venue once it holds of both."""
    desks: dict[str, Any] = {}
    with trio.move_on_after(60):
        while len(desks) < 2 or not all(what(desk) for desk in desks.values()):
            await trio.sleep(0.3)
            found = await keeper.status() or {}
            desks = {desk["venue"]: desk for desk in found.get("desks", ())}
        return desks
    log = (keeper.home / "keeper.log").read_text()[-3_000:]
    raise AssertionError(f"not reached: {desks}\n{log}")


def recorded(keeper: KeeperProcess) -> list[Entry]:
    """Return the node's record."""
    (file,) = (keeper.home / "records").glob("*.fkrec")
    return list(RecordReader(file))


async def test_the_node_liquidates_on_aave_and_perpetual_protocol_live(
    anvil_binary: Path, tmp_path: Path
) -> None:
    quiet: list[str] = []
    async with run_cluster(
        tmp_path, anvil_binary.parent, keepers=1, chains=2, say=quiet.append, accounts=12
    ) as cluster:
        await works_on_venues(cluster)


async def works_on_venues(cluster: Cluster) -> None:
    (keeper,) = cluster.keepers
    assert keeper.keys is not None
    me = to_checksum_address(lane_address(keeper.keys.operator, Lane.URGENT))
    anvil = cluster.chains[max(cluster.chains)]
    shop = Workshop(anvil)
    async with mining_at_once(anvil):
        made = await lending(shop)
        user = shop.people[5]
        await borrow(made, user, 15_000)
        await fund(made, me)
        perp = await perpetual(shop, made.usdc, me)
    perps = {
        "kind": "perp_v2",
        "chain": anvil.chain,
        "clearing": perp.clearing.address,
        "balance": perp.balance.address,
        "config": perp.config.address,
        "base": perp.base.address,
        "market": "ETH-USD",
        "coin_feed": perp.feed.address,
    }
    await keeper.stop()
    with (keeper.home / "keeper.toml").open("a") as file:
        file.write(toml({"aave": made.section(), "perp": perps}))
    async with mining_at_once(anvil):
        await made.feed.tx("updateAnswer", 1_750 * 10**8)
        await fall(shop, perp)
        await anvil.mine(QUIET_BLOCKS)
    await keeper.start()
    desks = await desks_when(keeper, lambda desk: desk.get("acts", {}).get("succeeded", 0) > 0)
    for desk in desks.values():
        assert within(desk["realised_uusd"], desk["predicted_uusd"]), json.dumps(desk)
        assert desk["realised_uusd"] > 0
    assert (await made.aave.pool.call("getUserAccountData", user))[5] >= ETHER
    assert await made.weth.call("balanceOf", me) == 0, "what was seized is sold"
    assert await made.usdc.call("balanceOf", me) > 100_000 * USD
    trader = shop.people[2]
    left = await perp.balance.call("getTakerPositionSize", trader, perp.base.address)
    assert left < await perp.balance.call("getTakerPositionSize", me, perp.base.address) * 2
    await keeper.stop()
    entries = recorded(keeper)
    last = [one for one in entries if isinstance(one, Received) and one.realised]
    assert len(last) >= 2
    assert all(one.status == 1 and within(one.realised, one.predicted) for one in last)
    assert {one.desk for one in entries if isinstance(one, Decided)} >= {"aave", "perp"}
    assert any(isinstance(one, Sealed) for one in entries)
