"""The published examples to their printed digits, both routers against each other, and bounds."""

import math
from dataclasses import replace

import numpy as np
import pytest

from keeper.route.blend import blend
from keeper.route.bound import certify, check_bound
from keeper.route.cfmm import GAP, Market, Solution, judge, market_of, solve_dual
from keeper.route.conic import REGULARISATIONS, solve_conic
from keeper.route.pools import Concentrated, Problem, Product, Range, arbitrage
from keeper.route.solve import solve
from tests.support import route_markets as markets


@pytest.mark.parametrize(
    ("problem", "printed"),
    [
        (markets.two_pools(), "171.40"),
        (markets.three_pools(), "456.32"),
        (markets.basket(), "60.2689"),
        (markets.one_swap(), "697.9965"),
        (markets.five_markets(), "21.4998"),
        (markets.five_assets(), "15.8830"),
        (markets.two_assets(0.0), "6.233"),
        (markets.two_assets(50 / 7), "13.502"),
        (markets.two_assets(50.0), "44.182"),
    ],
)
def test_published_examples(problem: Problem, printed: str) -> None:
    found = solve(problem)
    digits = len(printed.split(".")[1])
    assert f"{found.value:.{digits}f}" == printed
    assert abs(found.gap) <= GAP
    assert found.shortfall <= 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_dual_gap_on_pools(seed: int) -> None:
    found = solve_dual(market_of(markets.network(300 * (seed + 1), 20 + 10 * seed, seed)))
    assert abs(found.gap) <= GAP
    assert found.shortfall <= 1e-6


def test_hundred_bridged_networks_equal_clarabel() -> None:
    duals = 0
    for seed in range(100):
        problem = markets.bridged(seed)
        found, other = solve(problem), solve_conic(market_of(problem))
        if abs(other.gap) > GAP:  # Clarabel stalled short of its own tolerance
            other = solve_conic(market_of(problem), REGULARISATIONS[1])
        assert found.value == pytest.approx(other.value, rel=1e-6, abs=1e-9), seed
        assert abs(found.gap) <= GAP, seed
        duals += found.solver == "dual"
    assert duals >= 20


def test_a_mixture_of_trades_is_better_than_each() -> None:
    market = market_of(markets.bridged(66))
    rough = [solve_conic(market, one) for one in REGULARISATIONS]
    mixed = blend(market, [one.flows for one in (*rough, solve_dual(market))])
    assert mixed is not None
    tight = min(rough, key=lambda one: one.bound)
    found = judge(market, tight.prices, tight.loads, mixed, "conic")
    assert found.shortfall <= 1e-9
    assert found.value > max(one.value for one in rough)
    nothing = tuple(np.zeros(bank.tokens.shape) for bank in market.banks)
    assert blend(market, [nothing]) is not None
    alone = blend(market, [nothing, mixed])
    assert alone is not None
    again = judge(market, tight.prices, tight.loads, alone, "conic")
    assert again.value == pytest.approx(found.value, rel=1e-9)


def test_one_failed_attempt_of_the_conic_router_is_not_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def stalls(market: Market, regularisation: float) -> Solution:
        tried.append(regularisation)
        if len(tried) % 3:
            raise ArithmeticError("stalled")
        return solve_conic(market, regularisation)

    monkeypatch.setattr("keeper.route.conic.solve_conic", stalls)
    assert f"{solve(markets.five_markets()).value:.4f}" == "21.4998"
    assert len(tried) == 3
    monkeypatch.setattr("keeper.route.conic.REGULARISATIONS", (1e-10, 1e-12))
    with pytest.raises(ArithmeticError, match="no router"):
        solve(markets.five_markets())


def test_tick_ranges_meet_the_target_price() -> None:
    """CFMMRouter.jl's fixture: price 15, ticks 30, 20, 10, 5, liquidity 1, 2, 1.5, 0."""
    ranges = (Range(20.0, 30.0, 1.0), Range(10.0, 20.0, 2.0), Range(5.0, 10.0, 1.5))
    pool = Concentrated((0, 1), 15.0, ranges, 0.997)
    market = market_of(arbitrage((25.0, 1.0), (pool,)))
    top = 25.0 * 0.997  # the fee is paid on what is tendered, so the price stops short of 25
    took = 2 * (1 / math.sqrt(15) - 1 / math.sqrt(20)) + 1 / math.sqrt(20) - 1 / math.sqrt(top)
    paid = (2 * (math.sqrt(20) - math.sqrt(15)) + math.sqrt(top) - math.sqrt(20)) / 0.997
    got = market.net(market.respond(market.worth, market.limits))
    assert got[0] == pytest.approx(took, rel=1e-12)
    assert -got[1] == pytest.approx(paid, rel=1e-12)


def test_one_range_without_ends_is_a_product() -> None:
    wide = Concentrated((0, 1), 4.0, (Range(1e-12, 1e12, 1000.0),), 0.997)
    same = Product((0, 1), (500.0, 2000.0), 0.997)
    prices = (3.0, 1.0)
    one, two = (market_of(arbitrage(prices, (pool,))) for pool in (wide, same))
    first, second = (
        market.net(market.respond(market.worth, market.limits)) for market in (one, two)
    )
    assert first == pytest.approx(second, rel=1e-5)
    assert first[0] < 0 < first[1]


def test_a_true_bound_passes_and_wrong_ones_do_not() -> None:
    raw = markets.one_swap()
    pools = tuple(
        Product(pool.tokens, (pool.reserves[0] * 1e6, pool.reserves[1] * 1e6), pool.gamma)
        for pool in raw.pools
        if isinstance(pool, Product)
    )
    problem = replace(raw, pools=pools, held=tuple(amount * 1e6 for amount in raw.held))
    found = solve(problem)
    sealed = certify(problem, found, int(found.value))
    assert check_bound(problem, sealed, 1000) is None
    wrong = [
        replace(sealed, bound=sealed.bound - 10),
        replace(sealed, value=sealed.bound + 1),
        replace(sealed, prices=(0, *sealed.prices[1:])),
        replace(sealed, prices=tuple(price // 2 for price in sealed.prices)),
        replace(sealed, prices=sealed.prices[1:]),
        replace(sealed, prices=(sealed.prices[0] * 2, *sealed.prices[1:])),
        replace(sealed, loads=(1,)),
        replace(sealed, value=sealed.value * 99 // 100),
    ]
    for forged in wrong:
        assert check_bound(problem, forged, 1000) is not None
    deeper = replace(problem, held=tuple(amount * 2 for amount in problem.held))
    assert check_bound(deeper, sealed, 1000) is not None


def test_impossible_pools_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot exist"):
        market_of(arbitrage((1.0, 1.0), (Product((0, 1), (0.0, 1.0), 0.997),)))
    with pytest.raises(ValueError, match="cannot exist"):
        market_of(arbitrage((1.0, 1.0), (Product((0, 0), (1.0, 1.0), 0.997),)))
