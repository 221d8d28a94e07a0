"""A rebalancing is as cheap as trying every set of lanes, and the same however it is asked."""

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keeper.parameters import BridgeClass
from keeper.route import programme
from keeper.route.graph import Lane
from keeper.route.rebalance import Rebalance, Task, exposure_of, rebalance
from keeper.route.risk import cvar, failure_ppm, hazards_of, scenarios
from keeper.units import PPM, ChainId
from scripts.benches.route import lanes
from tests.support.route_markets import AWAY, HOME, lane

AMOUNT = 10**11
GAS = 3 * 10**7
OTHER, LAST = ChainId(7), ChainId(8)


@st.composite
def parallel(draw: st.DrawFn) -> tuple[Lane, ...]:
    """Lanes from home to away with costs of the order in which they really differ."""
    return tuple(
        lane(
            number,
            fee_ppm=draw(st.integers(0, 400)),
            fee_fixed=draw(st.integers(0, 60)) * 10**6,
            capacity=draw(st.integers(5, 90)) * 10**9,
            p95_ms=draw(st.integers(1, 60)) * 60_000,
        )
        for number in range(1, draw(st.integers(2, 7)) + 1)
    )


def cheapest(offered: tuple[Lane, ...], need: int) -> float | None:
    """Return the least cost over every set of lanes, each filled in the order of its rate."""
    best: float | None = None
    for many in range(1, len(offered) + 1):
        for chosen in combinations(offered, many):
            cost = float(sum(one.fee_fixed + GAS for one in chosen))
            left = float(need)
            for one in sorted(chosen, key=lambda one: (one.fee_ppm + failure_ppm(one), one.bridge)):
                keeps = (PPM - one.fee_ppm) / PPM
                part = min(left, (one.room - one.fee_fixed) * keeps)
                left -= part
                cost += part / keeps * (one.fee_ppm + failure_ppm(one)) / PPM
            if left <= 0 and (best is None or cost < best):
                best = cost
    return best


@settings(max_examples=80, deadline=None)
@given(parallel(), st.integers(5, 95))
def test_no_set_of_lanes_is_cheaper(offered: tuple[Lane, ...], share: int) -> None:
    need = AMOUNT * share // 100
    task = Task(((HOME, 2 * AMOUNT),), ((AWAY, need),), gas=((HOME, GAS),))
    best, found = cheapest(offered, need), rebalance(offered, task)
    if best is None:
        assert found.status == "infeasible"
        return
    if found.status == "infeasible":  # by less than what rounding and fees take
        assert cheapest(offered, need + 100 * len(offered)) is None
        return
    assert found.status == "optimal"
    assert found.bound <= best * 1.000001 + 2
    assert found.cost <= best * 1.001 + 1000  # fixed fees are worth a little more than they cost
    assert found.cost >= best * 0.9999 - 1000


def ring(bent: int = 0) -> tuple[tuple[Lane, ...], Task]:
    ends = ((HOME, AWAY), (HOME, OTHER), (OTHER, AWAY), (LAST, AWAY), (HOME, LAST), (LAST, OTHER))
    ways = tuple(
        lane(
            number,
            origin=origin,
            destination=other,
            fee_ppm=100 + 37 * number % 90 + bent,
            fee_fixed=number * 3 * 10**6,
            capacity=6 * 10**10,
            verifier=bytes([number % 3]) * 32,
        )
        for number, (origin, other) in enumerate(ends * 2, start=1)
    )
    cases = scenarios(hazards_of(ways))
    surplus = ((HOME, AMOUNT), (LAST, AMOUNT))
    need = ((AWAY, AMOUNT), (OTHER, AMOUNT // 3))
    task = Task(surplus, need, 0, ((HOME, GAS),), (), cases, 950_000, 0, 50_000)
    return ways, task


def test_the_plan_does_not_depend_on_the_order_or_on_the_clock() -> None:
    ways, task = ring()
    found = rebalance(ways, task)
    assert found.status == "optimal"
    assert found == rebalance(ways[::-1], task) == rebalance(ways, task)
    assert found != rebalance(ring(200)[0], task)


def test_a_search_cut_short_says_so() -> None:
    ways, task = ring()
    assert rebalance(ways, task, nodes=0) == Rebalance((), 0, 0, "limit")
    cut, whole = rebalance(ways, task, nodes=1), rebalance(ways, task)
    assert cut.bound <= whole.cost
    assert not cut.moves or cut.cost >= whole.bound


def test_a_limit_on_the_tail_is_kept_where_it_binds() -> None:
    tight, task = ring()
    sure = BridgeClass.CANONICAL
    ways = tuple(  # six cheap ones behind multisigs, and six dear ones that nobody can break
        replace(one, capacity=2 * AMOUNT, security=BridgeClass.MULTISIG)
        if place < 6
        else replace(one, capacity=2 * AMOUNT, security=sure, fee_ppm=700, verifier=b"c" * 32)
        for place, one in enumerate(tight)
    )
    task = replace(task, cvar_ppm=0, cases=scenarios(hazards_of(ways)))
    free = rebalance(ways, task)
    tail = cvar(exposure_of(free.moves), task.cases, task.alpha_ppm)
    costs = [free.cost]
    for share in (95, 85, 75):
        limit = tail * share // 100
        found = rebalance(ways, replace(task, cvar_limit=limit))
        assert found.status == "optimal"
        assert cvar(exposure_of(found.moves), task.cases, task.alpha_ppm) <= limit
        assert found.bound <= found.cost
        costs.append(found.cost)
    assert costs[-1] > costs[0], "the limit bound"
    nothing = rebalance(ways, replace(task, cvar_limit=1))
    assert nothing == Rebalance((), 0, 0, "infeasible")


def test_a_plan_called_optimal_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unscaled, HiGHS proves a bound that a cheaper plan refutes: its tolerances are absolute."""
    found = rebalance(*lanes(4, 4, seed=11))
    assert found.status == "optimal"
    monkeypatch.setattr(programme, "_SCALE", 1.0)
    unscaled = rebalance(*lanes(4, 4, seed=11))
    assert unscaled.bound > found.cost >= found.bound
