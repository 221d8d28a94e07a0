"""The backtest's market is exact, conserves money, and never shows the future."""

import hashlib
import random
from pathlib import Path

import msgspec
import pytest

from keeper.units import PPM
from policies import convert
from policies.api import Account, Act, Leg, MarketView, legs_of, pack_legs
from policies.backtest import MAX_POINTS, Score, Settings, load
from policies.convert import ETH, PERPS, POOL, PRICE_UNIT, USDC, bars_of, book_of, path_of
from policies.liquidation import Liquidation
from policies.market import World
from policies.record import Book, Market, RecordWriter, decisions_bytes
from policies.report import as_json, money, page, plot
from tests.support.shared import shared_path

GOLDEN = "20dea6d709fb1a499c757688a4f3bb44"
"""Changes only with the policy's behaviour, in a commit that says so."""


def prices_at(dollars: int) -> tuple[tuple[bytes, int], ...]:
    return ((ETH, dollars * PRICE_UNIT), (USDC, PRICE_UNIT))


def fall(world: World, start: int = 2_000, ticks: int = 30, step: int = 20) -> list[MarketView]:
    return [world.tick(n * 1_000, prices_at(start - step * n)) for n in range(1, ticks + 1)]


def test_columns_equal_python_integers_to_the_bit() -> None:
    chance = random.Random(3)
    for seed in range(20):
        world = World(book_of(chance.randrange(10**8, 10**12), 0, 60, seed))
        world.prices.update({ETH: chance.randrange(1, 10**13)})
        assert world.margins_now() == [world.margin(holder) for holder in world.holders]


def test_extreme_legs_are_exact_too() -> None:
    legs = [
        Leg(137, PERPS, ETH, 2, -(4 * 10**21) - 1, 7 * 10**12 + 1, 0),
        Leg(137, PERPS, USDC, 0, 1, 0, 0),
    ]
    start = book_of(1_999 * PRICE_UNIT + 7, 0, 1, 1)
    row = Account(b"a" * 32, 0, 0, 0, 0, 0, pack_legs(legs))
    world = World(msgspec.structs.replace(start, accounts=(row,)))
    assert world.margins_now() == [world.margin(world.holders[0])]


def test_a_view_shows_who_is_near_and_opens_tasks_below() -> None:
    world = World(book_of(2_000 * PRICE_UNIT, 0, 200, 1))
    view = fall(world)[-1]
    shown = {row.account for row in view.accounts}
    for holder in world.holders:
        margin = world.margin(holder)
        near = 5 * (margin.equity - margin.requirement) < margin.requirement + margin.debt
        assert (
            near == (holder.id in shown)
            or holder.broken_ticks
            or not any(leg.size for leg in holder.legs.values())
        )
    short = {row.account for row in view.accounts if row.equity < row.requirement}
    assert {task.account for task in view.tasks} == short
    assert short


def test_a_close_moves_only_what_it_says() -> None:
    world = World(book_of(2_000 * PRICE_UNIT, 0, 300, 1))
    view = fall(world)[-1]
    total = world.worth()
    for task in view.tasks:
        holder = next(one for one in world.holders if one.id == task.account)
        before = world.margin(holder)
        row = next(one for one in view.accounts if one.account == task.account)
        held = {leg.market: leg.size for leg in legs_of(row)}
        settled = world.settle(task, int(task.max_size))
        assert settled is not None
        after = world.margin(holder)
        lost = before.worth - after.worth
        if task.venue == PERPS:
            assert settled.profit + world.gas_cost(task) == pytest.approx(lost, abs=2)
        else:
            assert task.venue == POOL
            assert 0 <= lost <= settled.volume * 60_000 // PPM
            assert held[ETH] > holder.legs[POOL, ETH, 0].size
    assert world.worth() < total


def test_the_insurance_fund_takes_over_what_stays_broken() -> None:
    world = World(book_of(2_000 * PRICE_UNIT, 0, 100, 1))
    for n in range(1, 60):
        world.tick(n * 1_000, prices_at(700))
    assert world.insured > 0
    assert world.bad_debt == world.insured


def test_views_do_not_depend_on_what_comes_later(tmp_path: Path) -> None:
    market = [Market(n * 1_000, prices_at(2_000 - 15 * n)) for n in range(1, 40)]

    def views(count: int, name: str) -> list[MarketView]:
        with RecordWriter(tmp_path / name) as record:
            record.append(Book(book_of(2_000 * PRICE_UNIT, 0, 50, 1)))
            for tick in market[:count]:
                record.append(tick)
        start, ticks = load(tmp_path / name)
        world = World(start)
        return [world.tick(one.at_ms, one.prices) for one in ticks]

    assert views(39, "whole")[:20] == views(20, "cut")


def test_decisions_on_a_seeded_fall_are_the_same_on_every_machine() -> None:
    world, policy, state = World(book_of(2_000 * PRICE_UNIT, 0, 150, 11)), Liquidation(), b""
    digest, acts = hashlib.blake2b(digest_size=16), 0
    for view in fall(world):
        decisions, state = policy.decide(view, state)
        acts += sum(isinstance(one, Act) for one in decisions)
        digest.update(decisions_bytes(tuple(decisions)))
    assert acts > 100
    assert digest.hexdigest() == GOLDEN


def test_the_flash_crash_is_kept_in_the_path() -> None:
    series = shared_path("data/univ3-usdc-weth-polygon-2023-08-17.minute.csv.xz")
    bars = list(bars_of(series))
    assert len(bars) == 1_440
    prices = [price for _, price in path_of(bars, 1_000)]
    assert len(prices) == 86_400
    assert min(prices) < 1_600 * PRICE_UNIT < 1_800 * PRICE_UNIT < max(prices)


@pytest.mark.parametrize(
    "name", ["gmxv2-eth-usd-arbitrum-2025-11-11.minute.csv.xz", "btc_coinbase_1h_2024.csv.xz"]
)
def test_the_other_series_convert(name: str, tmp_path: Path) -> None:
    out = tmp_path / "a.fkrec"
    assert convert.convert(shared_path(f"data/{name}"), out, 5, 1, 600_000) > 100
    start, ticks = load(out)
    assert len(start.accounts) == 5
    assert all(price > 0 for one in ticks for _, price in one.prices)


def test_reports_are_whole() -> None:
    curves = {name: [0, 5, -3] for name in ("profit", "bad_debt", "regret", "equity")}
    score = Score("<b>", ticks=3, curves=curves)
    text = page([score, score], Settings(), "a&b")
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert text.count("<polyline") == 8
    assert as_json([score], Settings(), "a")["policies"][0]["ticks"] == 3
    assert money(-1_234_567_890) == "-1,234.56"
    assert "NaN" not in plot("empty", [("x", [])])
    assert MAX_POINTS <= 1_000
