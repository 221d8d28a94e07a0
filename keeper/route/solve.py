"""Which router solves a problem: the dual for pools, the conic one where the dual has kinks.

    linear lanes, constant sums, or many lanes ──▶ conic
    otherwise ──▶ dual ──▶ gap ≤ 1e-7 ? take it : conic trades, the tighter bound of the two

Either answer carries prices whose dual value bounds every other answer (`keeper.route.bound`).
"""

from keeper.route.cfmm import GAP, Market, Solution, judge, market_of, solve_dual
from keeper.route.conic import REGULARISATIONS, solve_conic
from keeper.route.pools import Bridge, Problem, Total

_BRIDGE_SHARE = 4
"""From one lane in this many pools on, near-linear lanes slow the dual more than pools help it."""
_SMALL = 500
"""Below this size the conic router is quick whatever the shape."""


def is_kinked(problem: Problem) -> bool:
    """Return whether some best response jumps, so that the dual has no gradient there."""
    return any(
        isinstance(pool, Total) or (isinstance(pool, Bridge) and pool.linear)
        for pool in problem.pools
    )


def solve(problem: Problem) -> Solution:
    """Return the best trades found, with their bound.

    Raises:
        ValueError: a pool of the problem cannot exist.
        ArithmeticError: no router found an answer.
    """
    market = market_of(problem)
    lanes = sum(isinstance(pool, Bridge) for pool in problem.pools)
    heavy = lanes * _BRIDGE_SHARE > len(problem.pools) and len(problem.pools) > _SMALL
    first: Solution | None = None
    if not (heavy or is_kinked(problem)):
        first = solve_dual(market)
        if abs(first.gap) <= GAP:
            return first
    for regularisation in REGULARISATIONS:
        found = solve_conic(market, regularisation)
        first = found if first is None else _joined(market, found, first)
        if abs(first.gap) <= GAP:
            break
    assert first is not None
    return first


def _joined(market: Market, conic: Solution, other: Solution) -> Solution:
    """Return the conic trades under the tighter of both bounds, or the other if it is better."""
    tight = min(conic, other, key=lambda answer: answer.bound)
    joined = judge(market, tight.prices, tight.loads, conic.flows, "conic")
    return min(joined, other, key=lambda answer: abs(answer.gap))
