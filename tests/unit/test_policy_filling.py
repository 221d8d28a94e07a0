"""The filling policy, by example: what it takes, in which order, and why it leaves the rest."""

from typing import Any

import msgspec
import pytest

from keeper.units import symbol
from policies.api import (
    Act,
    Breaker,
    BridgeQuote,
    Defer,
    Gas,
    Holding,
    MarketView,
    Order,
    Price,
    Skip,
    Wide,
    plan_of,
)
from policies.filling import Filling, FillingConfig

USDC, WETH = symbol("USDC"), symbol("WETH")
USD = 10**6
NOW = 1_700_000_000_000
FREE = FillingConfig(return_ppm=0, holding_ppm_per_day=0, least_profit=0, least_profit_ppm=0)


def order(number: int = 1, **changes: Any) -> Order:
    """100 given on chain 1 for 99 on chain 2, within a minute."""
    made = Order(
        order=bytes([number]) * 32,
        origin=1,
        destination=2,
        settler=b"\x05" * 20,
        given=USDC,
        given_amount=Wide(100 * USD),
        asked=USDC,
        asked_amount=Wide(99 * USD),
        deadline_ms=NOW + 60_000,
    )
    return msgspec.structs.replace(made, **changes)


def view(*orders: Order, **changes: Any) -> MarketView:
    made = MarketView(
        view=7,
        now_ms=NOW,
        seed=1,
        prices=(Price(USDC, 10**8, 6, 0), Price(WETH, 2_000 * 10**8, 18, 0)),
        gas=tuple(Gas(chain, 10**9, 2_000 * 10**8) for chain in (1, 2)),
        inventory=(Holding(2, USDC, Wide(1_000 * USD)),),
        orders=orders,
    )
    return msgspec.structs.replace(made, **changes)


def decide(seen: MarketView, config: FillingConfig = FREE) -> list[Any]:
    decisions, state = Filling(config).decide(seen, b"")
    assert state == b""
    return list(decisions)


def test_an_order_that_pays_is_delivered_by_one_step() -> None:
    (act,) = decide(view(order()))
    assert isinstance(act, Act)
    assert act.profit == USD - 500_000  # gas: 250,000 units at a gwei, a coin at 2,000
    assert act.size == 99 * USD
    plan = plan_of(7, act)
    (step,) = plan.steps
    assert (step.chain, step.venue, step.arg("order")) == (2, b"\x05" * 20, bytes([1]) * 32)


@pytest.mark.parametrize(
    ("config", "profit"),
    [
        ({"return_ppm": 1_000}, 400_000),
        ({"holding_ppm_per_day": 1_000, "settle_ms": 86_400_000}, 401_000),
        ({"gas_units": 500_000}, 0),
    ],
)
def test_every_cost_is_counted_against_it(config: dict[str, int], profit: int) -> None:
    (act,) = decide(view(order()), msgspec.structs.replace(FREE, **config))
    assert (type(act), act.profit) == (Act, profit)


def test_the_cheapest_lane_that_is_wide_enough_brings_funds_back() -> None:
    def lane(fee_ppm: int, capacity: int, origin: int = 1) -> BridgeQuote:
        ends = (origin, 3 - origin)
        return BridgeQuote(b"\1" * 20, *ends, USDC, fee_ppm, 0, 1, 1, 0, Wide(capacity))

    lanes = (lane(100, 99 * USD), lane(2_000, 100 * USD), lane(3_000, 10**12), lane(1, 10**12, 2))
    (act,) = decide(view(order(), bridges=lanes))
    assert act.profit == 500_000 - 200_000


@pytest.mark.parametrize(
    ("changes", "seen", "config", "why"),
    [
        ({"asked_amount": Wide(100 * USD)}, {}, {}, "would bring -500000"),
        ({}, {}, {"least_profit": 600_000}, "less than 600000"),
        ({}, {}, {"least_profit_ppm": 10_000}, "less than 990000"),
        ({}, {}, {"most_value": 98 * USD}, "more than one order may take"),
        ({"deadline_ms": NOW + 9_999}, {}, {}, "too few to deliver"),
        ({"given": symbol("EUR")}, {}, {}, "no price"),
        ({}, {"gas": ()}, {}, "no price"),
        ({"asked": WETH, "asked_amount": Wide(10**15)}, {}, {}, "more than the 0 held"),
        ({}, {"inventory": (Holding(2, USDC, Wide(98 * USD)),)}, {}, "more than the 98000000"),
        (
            {},
            {"inventory": (Holding(2, USDC, Wide(99 * USD), Wide(0), Wide(1)),)},
            {},
            "more than the 98999999 held",
        ),
        ({}, {"breakers": (Breaker(bytes(32), 2, 2),)}, {}, "stops everything"),
    ],
)
def test_what_it_leaves_and_why(
    changes: dict[str, Any], seen: dict[str, Any], config: dict[str, int], why: str
) -> None:
    (skip,) = decide(view(order(**changes), **seen), msgspec.structs.replace(FREE, **config))
    assert isinstance(skip, Skip)
    assert why in skip.why


def test_it_waits_for_its_turn() -> None:
    (defer,) = decide(view(order(turn_ms=NOW + 1)))
    assert (type(defer), defer.until_ms) == (Defer, NOW + 1)
    (act,) = decide(view(order(turn_ms=NOW)))
    assert isinstance(act, Act)


def test_what_an_account_needs_comes_first_and_for_less() -> None:
    poor = {"asked_amount": Wide(99_500_000)}  # no profit at all
    orders = (
        order(1, asked_amount=Wide(98 * USD)),
        order(2, **poor, needed_ms=NOW + 60_000),
        order(3, **poor, needed_ms=NOW + 50_000),
        order(4, **poor),
    )
    strict = msgspec.structs.replace(FREE, least_profit=1)
    decisions = decide(view(*orders), strict)
    assert [one.task[0] for one in decisions] == [3, 2, 1, 4]
    assert [type(one) for one in decisions] == [Act, Act, Act, Skip]
    # a rescue is no gift: below cost it is left too
    (skip,) = decide(view(order(asked_amount=Wide(99_500_001), needed_ms=NOW + 1)), strict)
    assert isinstance(skip, Skip)


def test_funds_are_spent_once_whatever_the_order_of_the_list() -> None:
    orders = [order(at, asked_amount=Wide((90 + at) * USD)) for at in range(1, 6)]
    held = {"inventory": (Holding(2, USDC, Wide(190 * USD)),)}
    one, other = decide(view(*orders, **held)), decide(view(*reversed(orders), **held))
    assert one == other
    taken = [act.task[0] for act in one if isinstance(act, Act)]
    assert taken == [1, 2]  # the two that bring most, and no third
