"""The liquidation policy on unmodified Aave v3 and Perpetual Protocol v2, live, on a real chain."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio
from eth_utils.address import to_checksum_address

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.cli.policy_desk import AaveVenue, Done, PerpVenue, Venue, execute
from keeper.cli.policy_drill import drill, target_of
from keeper.execute.intent import Lane, Mode, Status
from keeper.execute.ledger import Ledger
from keeper.execute.service import Executor
from keeper.store import Store
from keeper.units import PPM, ChainId, symbol
from keeper.venue import aave_v3, perp_v2, uniswap_v3
from policies.api import Act, MarketView
from policies.host import PolicyHost, PolicySpec
from tests.support.anvil import CACHE, anvil_binary, chain_of
from tests.support.policy_contracts import (
    LATER,
    MOST,
    Aave,
    Contract,
    Uniswap,
    Workshop,
    add_pool,
    deploy_aave,
    deploy_perpetual,
    deploy_uniswap,
    list_reserve,
    move_perpetual,
)

pytestmark = [pytest.mark.anvil, pytest.mark.npm]
__all__ = ["anvil_binary"]
CHAIN = ChainId(31777)
WETH, USDC = symbol("WETH"), symbol("USDC")
USD = 10**6
ETHER = 10**18


@dataclass
class Bench:
    shop: Workshop
    chain: EvmChain
    key: bytes
    keeper: str

    @asynccontextmanager
    async def executor(self, mode: Mode) -> AsyncIterator[Executor]:
        store = Store(":memory:")
        executor = Executor(
            Ledger(store),
            {CHAIN: self.chain},
            mode,
            {(CHAIN, Lane.URGENT): lambda: self.key},
            poll_s=0.02,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(executor.run)
            yield executor
            nursery.cancel_scope.cancel()
        store.close()

    async def run(self, venue: Venue, act: Act, mode: Mode = Mode.LIVE) -> Done:
        async with self.executor(mode) as executor:
            with trio.fail_after(30):
                return await execute(
                    executor, self.chain, venue, act, 1, bytes.fromhex(self.keeper[2:])
                )


@asynccontextmanager
async def bench_of(binary: Path, **changes: tuple[str, ...]) -> AsyncIterator[Bench]:
    async with chain_of(binary, CHAIN, **changes) as anvil:
        chain = EvmChain(CHAIN, [anvil.url], Depth(1), attempt_s=10)
        shop = Workshop(anvil)
        try:
            yield Bench(shop, chain, anvil.key(3), shop.people[3])
        finally:
            await chain.aclose()


async def decide(view: MarketView, **config: int | bool) -> tuple[Act, ...]:
    """Ask the installed policy in its child process."""
    spec = PolicySpec("liquidation", "policies.liquidation:Liquidation", config, budget_ms=5_000)
    host = PolicyHost(spec)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        outcome = await host.outcome(view)
        nursery.cancel_scope.cancel()
    assert outcome.source == "liquidation", outcome.fault
    return tuple(one for one in outcome.decisions if isinstance(one, Act))


@dataclass
class Lending:
    aave: Aave
    dex: Uniswap
    weth: Contract
    usdc: Contract
    feed: Contract
    venue: AaveVenue
    market: aave_v3.Market


async def borrow(pool: Contract, weth: Contract, usdc: Contract, person: str, debt: int) -> None:
    """Supply 10 WETH and borrow dollars on it."""
    await weth.tx("mint", 10 * ETHER, sender=person)
    await weth.tx("approve", pool.address, MOST, sender=person)
    await pool.tx("supply", weth.address, 10 * ETHER, person, 0, sender=person)
    await pool.tx("borrow", usdc.address, debt * USD, 2, 0, person, sender=person)


async def lending(bench: Bench, borrowers: int, price: int) -> Lending:
    """Aave with borrowers at 10 WETH against 15,000 USDC, then ETH at `price`."""
    shop = bench.shop
    weth, usdc = await shop.token("WETH", 18), await shop.token("USDC", 6)
    aave = await deploy_aave(shop)
    feed = await shop.feed(2000 * 10**8)
    await list_reserve(shop, aave, weth, 18, feed, (8000, 8250, 10500))
    await list_reserve(shop, aave, usdc, 6, await shop.feed(10**8), (7500, 8000, 10400))
    dex = await deploy_uniswap(shop, weth.address)
    pool = aave.pool
    lender, keeper = shop.people[1], bench.keeper
    await usdc.tx("mint", 50_000_000 * USD, sender=lender)
    await usdc.tx("approve", pool.address, MOST, sender=lender)
    await pool.tx("supply", usdc.address, 50_000_000 * USD, lender, 0, sender=lender)
    for person in shop.people[4 : 4 + borrowers]:
        await borrow(pool, weth, usdc, person, 15_000)
    await usdc.tx("mint", 100_000 * USD, sender=keeper)
    await usdc.tx("approve", pool.address, MOST, sender=keeper)
    await weth.tx("approve", dex.router.address, MOST, sender=keeper)
    await feed.tx("updateAnswer", price * 10**8)
    await add_pool(shop, dex, (weth, usdc), (20_000 * ETHER, 20_000 * price * USD))
    empty = aave_v3.Market(CHAIN, pool.raw, aave.data.raw, aave.oracle.raw)
    head = (await bench.chain.head()).ref
    reads = [aave_v3.reserve_read(empty, one.raw) for one in (usdc, weth)]
    found = await bench.chain.calls(reads, head)
    market = replace(
        empty,
        reserves=(
            aave_v3.reserve_of(USDC, usdc.raw, found[0].output),
            aave_v3.reserve_of(WETH, weth.raw, found[1].output),
        ),
    )
    pair = uniswap_v3.Pair(
        CHAIN, dex.router.raw, dex.quoter.raw, weth.raw, usdc.raw, WETH, USDC, 500, 18, 6
    )
    venue = AaveVenue(bench.chain, market, (pair,), bytes.fromhex(keeper[2:]), WETH)
    return Lending(aave, dex, weth, usdc, feed, venue, market)


def within(realised: int, predicted: int, ppm: int = 10_000) -> bool:
    return abs(realised - predicted) * PPM <= ppm * abs(predicted)


async def test_a_live_liquidation_on_aave_earns_what_was_predicted(anvil_binary: Path) -> None:
    async with bench_of(anvil_binary) as bench:
        made = await lending(bench, 1, 1_750)
        user = bench.shop.people[4]
        view = await made.venue.view([bytes.fromhex(user[2:])], 1, 1_000)
        (reserve,) = [one for one in made.market.reserves if one.asset == WETH]
        assert (reserve.threshold_ppm, reserve.bonus_ppm) == (825_000, 50_000)
        assert view.accounts[0].health_ppm == 962_500
        (act,) = await decide(view)
        assert [step.kind for step in act.steps] == ["liquidate", "swap"]
        before = await made.usdc.call("balanceOf", bench.keeper)
        done = await bench.run(made.venue, act)
        assert done.succeeded, done.outcomes
        assert done.predicted > 0
        assert within(done.realised, done.predicted), (done.realised, done.predicted)
        gained = await made.usdc.call("balanceOf", bench.keeper) - before
        assert gained > 0
        assert await made.weth.call("balanceOf", bench.keeper) == 0
        data = await made.aave.pool.call("getUserAccountData", user)
        assert data[5] >= ETHER, "one close restored the account"
        closed = aave_v3.closed(made.market, done.receipts[0].logs)
        assert closed is not None
        assert closed.repaid == int(act.size)


async def sent(bench: Bench) -> str:
    """Return how many transactions the keeper's account has sent."""
    count = await bench.shop.anvil.rpc.call("eth_getTransactionCount", [bench.keeper, "latest"])
    return str(count)


async def test_shadow_and_dry_mode_send_nothing(anvil_binary: Path) -> None:
    async with bench_of(anvil_binary) as bench:
        made = await lending(bench, 1, 1_750)
        view = await made.venue.view([bytes.fromhex(bench.shop.people[4][2:])], 1, 1_000)
        (act,) = await decide(view)
        before = await sent(bench)
        for mode, status in ((Mode.OFF, Status.REFUSED), (Mode.SHADOW, Status.RECORDED)):
            done = await bench.run(made.venue, act, mode)
            assert [one.status for one in done.outcomes] == [status]
        done = await bench.run(made.venue, act, Mode.DRY)
        assert done.outcomes[0].status in (Status.REHEARSED, Status.REFUSED)
        assert done.receipts == ()
        assert await sent(bench) == before


async def test_a_position_on_perpetual_protocol_is_liquidated_live(anvil_binary: Path) -> None:
    async with bench_of(anvil_binary) as bench:
        shop = bench.shop
        usdc = await shop.token("USDC", 6)
        perp = await deploy_perpetual(shop, usdc, 2000)
        maker, trader, short = shop.people[1], shop.people[2], shop.people[4]
        funds = ((maker, 50_000_000), (trader, 1_200), (short, 500_000), (bench.keeper, 100_000))
        for person, amount in funds:
            await usdc.tx("mint", amount * USD, sender=person)
            await usdc.tx("approve", perp.vault.address, MOST, sender=person)
            await perp.vault.tx("deposit", usdc.address, amount * USD, sender=person)
        tick = 76_020
        base = perp.base.address
        await perp.clearing.tx(
            "addLiquidity",
            (base, 5_000 * ETHER, 10_000_000 * ETHER, tick - 12_000, tick + 12_000, 0, 0, False, LATER),  # noqa: E501  one tuple
            sender=maker,
        )  # fmt: skip
        order = (base, False, False, 5 * ETHER, 0, LATER, 0, b"\0" * 32)
        await perp.clearing.tx("openPosition", order, sender=trader)
        for price in (1_920, 1_843, 1_770):
            await move_perpetual(shop, perp, price * 10**8)
            sale = (base, True, True, 180 * ETHER, 0, LATER, 0, b"\0" * 32)
            await perp.clearing.tx("openPosition", sale, sender=short)
            await move_perpetual(shop, perp, price * 10**8)
        market = perp_v2.Market(
            CHAIN, perp.clearing.raw, perp.balance.raw, perp.config.raw, perp.base.raw,
            symbol("ETH-USD"),
        )  # fmt: skip

        async def coin_price() -> int:
            return 1_770 * 10**8

        venue = PerpVenue(bench.chain, market, bytes.fromhex(bench.keeper[2:]), coin_price)
        view = await venue.view([bytes.fromhex(trader[2:])], 1, 1_000)
        assert view.accounts[0].equity < view.accounts[0].requirement
        (act,) = await decide(view)
        held = await perp.balance.call("getTakerPositionSize", trader, base)
        done = await bench.run(venue, act)
        assert done.succeeded, done.outcomes
        assert within(done.realised, done.predicted), (done.realised, done.predicted)
        assert await perp.balance.call("getTakerPositionSize", trader, base) == held - int(act.size)


async def test_a_drill_liquidates_all_fifty_accounts_of_a_copy(anvil_binary: Path) -> None:
    async with bench_of(anvil_binary, extra=("--auto-impersonate",)) as bench:
        shop = bench.shop
        made = await lending(bench, 0, 2_000)
        people = [
            to_checksum_address((0xD0000 + number).to_bytes(20, "big")) for number in range(50)
        ]
        for place, person in enumerate(people):
            await shop.anvil.rpc.call("anvil_setBalance", [person, hex(10 * ETHER)])
            await borrow(made.aave.pool, made.weth, made.usdc, person, 6_000 + 190 * place)
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
