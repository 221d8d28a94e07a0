"""The built-in policies: what they bid, what they refuse, and what they remember."""

import msgspec
import pytest

from keeper.margin.breaker import chain_scope
from keeper.plan import StepKind, check_plan
from keeper.units import PPM, ChainId, symbol
from policies.api import (
    Account,
    Act,
    Breaker,
    Decision,
    Depth,
    Gas,
    Holding,
    Leg,
    MarketView,
    Price,
    Skip,
    Task,
    Term,
    Wide,
    legs_of,
    pack_legs,
    plan_of,
)
from policies.deleverage import Deleverage, DeleverageConfig
from policies.liquidation import Liquidation, LiquidationConfig
from policies.observer import Observer

WETH, WBTC, USDC = symbol("WETH"), symbol("WBTC"), symbol("USDC")
CHAIN, POOL, PERPS, DEX = 10, b"\xaa" * 20, b"\xbb" * 20, b"\xcc" * 20
ALICE, TASK = b"\x01" * 32, b"\x02" * 32
change = msgspec.structs.replace


def lending_view(price: int = 1700) -> MarketView:
    """10 WETH against 15,000 USDC, as on Aave: health 0.935 at 1,700."""
    legs = pack_legs(
        [
            Leg(CHAIN, POOL, WETH, 0, 10 * 10**18, 0, 0),
            Leg(CHAIN, POOL, USDC, 1, 15_000 * 10**6, 0, 0),
        ]
    )
    equity = price * 10 * 825 // 1000 * 10**6 - 15_000 * 10**6
    return MarketView(
        1,
        1_000,
        7,
        (Account(ALICE, equity, 0, 0, 0, price * 8_250_000 // 15_000, legs),),
        (Price(WETH, price * 10**8, 18, 100), Price(USDC, 10**8, 6, 100)),
        (),
        (Gas(CHAIN, 10**9, 2000 * 10**8),),
        (Holding(CHAIN, USDC, Wide(20_000 * 10**6)),),
        (
            Task(
                TASK,
                ALICE,
                CHAIN,
                POOL,
                USDC,
                Wide(2**100),
                (Term(WETH, 50_000, 825_000),),
                0,
                10**6,
                300_000,
            ),
        ),
        bond_free=10**9,
    )


def perp_view(equity: int = 80_000_000) -> MarketView:
    legs = pack_legs([Leg(CHAIN, PERPS, WETH, 2, 10**18, -2_050_000_000, 0)])
    return MarketView(
        1,
        1_000,
        7,
        (Account(ALICE, equity, 200_000_000, 100_000_000, 100_000_000, equity // 100, legs),),
        (Price(WETH, 2000 * 10**8, 18, 100),),
        (),
        (Gas(CHAIN, 10**9, 2000 * 10**8),),
        (),
        (Task(TASK, ALICE, CHAIN, PERPS, WETH, Wide(10**18), (Term(WETH, 20_000, 50_000),), 0, 0),),
    )


def decide(view: MarketView, **config: int | bool) -> Decision:
    raw = msgspec.json.encode(config)
    policy = Liquidation(msgspec.json.decode(raw, type=LiquidationConfig))
    (decision,), _ = policy.decide(view, b"")
    return decision


def act(view: MarketView, **config: int | bool) -> Act:
    decision = decide(view, **config)
    assert isinstance(decision, Act), decision
    return decision


def skip(view: MarketView, **config: int | bool) -> str:
    decision = decide(view, **config)
    assert isinstance(decision, Skip), decision
    return decision.why


def test_a_perp_is_closed_as_little_as_restores_the_target() -> None:
    view = perp_view()
    found = act(view)
    closed = int(found.size) * 2000 // 10**12
    equity = 80_000_000 - closed * 2 // 100
    requirement = 100_000_000 - closed * 5 // 100
    assert equity * PPM >= 1_020_000 * requirement
    assert closed < 2_000_000_000
    less = closed - 1_000
    assert (80_000_000 - less * 2 // 100) * PPM < 1_020_000 * (100_000_000 - less * 5 // 100)
    assert found.profit == closed * 2 // 100 - 800_000  # gas: 400,000 at 1 gwei, ETH at 2,000


def test_a_task_that_was_sized_by_agreement_is_closed_in_full() -> None:
    view = perp_view(equity=150_000_000)  # above its requirement: short only at the venue
    task = change(view.tasks[0], terms=(Term(WETH, 20_000),), max_size=Wide(3 * 10**17))
    found = act(change(view, tasks=(task,)))
    assert found.size == 3 * 10**17
    assert found.profit == 600_000_000 * 2 // 100 - 800_000


def test_lending_repays_to_the_target_and_names_the_collateral() -> None:
    found = act(lending_view(1_800))
    repaid = int(found.size)
    assert 0 < repaid < 15_000 * 10**6
    debt = 15_000 * 10**6 - repaid
    collateral = 18_000 * 10**6 - repaid * 105 // 100
    assert collateral * 825_000 >= 1_019_999 * debt
    (step,) = found.steps
    assert dict(step.blobs)["collateral"] == WETH
    plan = plan_of(1, found)
    assert check_plan(plan) is None
    assert plan.steps[0].kind is StepKind.LIQUIDATE
    assert plan.steps[0].arg("size") == repaid


def test_the_best_collateral_after_its_sale_is_chosen() -> None:
    view = lending_view(1_750)
    legs = legs_of(view.accounts[0])
    more = pack_legs([*legs, Leg(CHAIN, POOL, WBTC, 0, 10**6, 0, 0)])
    thin = Depth(CHAIN, DEX, WETH, ((Wide(10**17), 40_000), (Wide(10**19), 60_000)))
    deep = Depth(CHAIN, DEX, WBTC, ((Wide(10**9), 3_000),))
    view = change(
        view,
        accounts=(change(view.accounts[0], legs=more),),
        prices=(*view.prices, Price(WBTC, 40_000 * 10**8, 8, 100)),
        depth=(thin, deep),
        tasks=(
            change(view.tasks[0], terms=(Term(WETH, 50_000, 825_000), Term(WBTC, 50_000, 780_000))),
        ),
    )
    found = act(view)
    assert dict(found.steps[0].blobs)["collateral"] == WBTC
    assert [step.kind for step in found.steps] == ["liquidate", "swap"]
    assert found.steps[1].needs == ("liquidate",)


def test_a_sale_is_no_larger_than_its_depth_pays_for() -> None:
    view = lending_view(1_700)
    curve = Depth(CHAIN, DEX, WETH, ((Wide(10**18), 5_000), (Wide(4 * 10**18), 45_000)))
    capped = act(change(view, depth=(curve,)), max_impact_ppm=10_000)
    assert int(capped.size) <= 1_700 * 10**6 * 1_375 // 1_000
    assert int(act(view).size) > int(capped.size)


@pytest.mark.parametrize(
    ("bend", "why"),
    [
        (lambda v: change(v, prices=v.prices[:1]), "no price for USDC"),
        (lambda v: change(v, prices=()), "no price for USDC"),
        (
            lambda v: change(v, prices=tuple(change(p, age_ms=61_000) for p in v.prices)),
            "61000 ms old",
        ),
        (lambda v: change(v, gas=()), "no gas price"),
        (lambda v: change(v, accounts=()), "not in the view"),
        (lambda v: change(v, inventory=()), "no free USDC"),
        (lambda v: change(v, bond_free=0), "bond lock"),
        (lambda v: change(v, breakers=(Breaker(bytes(32), 4, 2),)), "breaker"),
        (lambda v: change(v, breakers=(Breaker(USDC, 4, 2, 2_000),)), "breaker"),
        (lambda v: change(v, breakers=(Breaker(chain_scope(ChainId(CHAIN)), 4, 3),)), "breaker"),
        (lambda v: change(v, tasks=(change(v.tasks[0], deadline_ms=999),)), "deadline"),
        (lambda v: change(v, tasks=(change(v.tasks[0], reserve=10**12),)), "does not pay"),
        (lambda v: change(v, tasks=(change(v.tasks[0], terms=()),)), "no terms"),
        (lambda v: lending_view(2_000), "healthy"),
    ],
)
def test_a_guard_refuses_and_says_why(bend, why: str) -> None:  # type: ignore[no-untyped-def]  # table of lambdas
    assert why in skip(bend(lending_view()))


def test_guards_do_not_refuse_what_is_over_or_elsewhere() -> None:
    view = lending_view()
    act(change(view, breakers=(Breaker(USDC, 4, 2, 999), Breaker(WBTC, 4, 2))))
    act(change(view, breakers=(Breaker(chain_scope(ChainId(CHAIN + 1)), 4, 3),)))
    act(change(view, breakers=(Breaker(bytes(32), 2, 2), Breaker(bytes(32), 4, 1))))


def test_a_sale_is_planned_only_where_it_pays_what_was_repaid() -> None:
    view = lending_view()
    points = ((Wide(10**18), 1_000), (Wide(20 * 10**18), 2_000))
    into = change(view, depth=(Depth(CHAIN, DEX, WETH, points, USDC),))
    assert [step.kind for step in act(into).steps] == ["liquidate", "swap"]
    elsewhere = change(view, depth=(Depth(CHAIN, DEX, WETH, points, WBTC),))
    assert [step.kind for step in act(elsewhere).steps] == ["liquidate"]


def test_reserved_funds_are_not_spent() -> None:
    view = lending_view()
    held = Holding(CHAIN, USDC, Wide(20_000 * 10**6), Wide(0), Wide(19_000 * 10**6))
    assert int(act(change(view, inventory=(held,))).size) <= 1_000 * 10**6


def test_bonds_and_funds_are_spent_once_over_tasks() -> None:
    view = lending_view()
    twin = change(view.tasks[0], task=b"\x03" * 32)
    both = change(view, tasks=(*view.tasks, twin), bond_free=1_500_000)
    decisions, _ = Liquidation().decide(both, b"")
    assert [type(one) for one in decisions] == [Act, Skip]
    rich = change(view, tasks=(*view.tasks, twin))
    decisions, _ = Liquidation().decide(rich, b"")
    total = sum(int(one.size) for one in decisions if isinstance(one, Act))
    assert total <= 20_000 * 10**6


def test_a_volume_cap_holds_over_views_and_then_opens() -> None:
    view = perp_view()
    config = LiquidationConfig(max_volume=700_000_000, window_ms=10_000)
    policy = Liquidation(config)
    (first,), state = policy.decide(view, b"")
    assert isinstance(first, Act)
    (second,), state = policy.decide(change(view, now_ms=2_000), state)
    assert isinstance(second, Act | Skip)
    spent = sum(int(x.size) * 2000 // 10**12 for x in (first, second) if isinstance(x, Act))
    assert spent <= 700_000_000
    (last,), _ = policy.decide(change(view, now_ms=13_000), state)
    assert isinstance(last, Act)
    assert last.size == first.size


def test_the_bid_is_a_share_of_what_is_above_the_least_profit() -> None:
    found = act(perp_view(), bid_share_ppm=500_000, min_profit=2_000_000)
    assert found.price == (found.profit - 2_000_000) // 2
    assert "leave" in skip(perp_view(), min_profit=10**12)


def test_dust_is_closed_whole() -> None:
    view = perp_view()
    task = change(view.tasks[0], min_left=Wide(9 * 10**17))
    assert act(change(view, tasks=(task,))).size == 10**18


def test_deleverage_touches_only_what_it_was_given() -> None:
    view = perp_view(101_000_000)
    assert Deleverage().decide(view, b"") == ([], b"")
    policy = Deleverage(DeleverageConfig(accounts=(ALICE.hex(),)))
    (found,), _ = policy.decide(view, b"")
    assert isinstance(found, Act)
    assert found.price == 0
    closed = int(found.size) * 2000 // 10**12
    assert (101_000_000 - closed // 1000) * PPM >= 1_149_999 * (100_000_000 - closed // 20)
    assert check_plan(plan_of(1, found)) is None
    (blind,), _ = policy.decide(change(view, prices=()), b"")
    assert isinstance(blind, Skip)
    assert policy.decide(perp_view(106_000_000), b"") == ([], b"")


def test_the_observer_skips_everything() -> None:
    (found,), state = Observer().decide(lending_view(), b"kept")
    assert isinstance(found, Skip)
    assert state == b"kept"
