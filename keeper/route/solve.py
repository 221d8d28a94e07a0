"""Which router solves a problem: the dual for pools, the conic one where the dual has kinks.

    linear lanes, constant sums, or many lanes ──▶ conic
    otherwise ──▶ dual ──▶ gap ≤ 1e-7 ? take it : conic trades, the tighter bound of the two
                           still more than 1e-7 ? the best mixture of all trades found

Every answer carries prices whose dual value bounds every other answer (`keeper.route.bound`).
"""

from keeper.route.banks import Floats
from keeper.route.cfmm import GAP, Market, Solution, judge, market_of, solve_dual
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
    answers: list[Solution] = []
    if not (heavy or is_kinked(problem)):
        answers.append(solve_dual(market))
        if abs(answers[0].gap) <= GAP:
            return answers[0]
    # the solvers are loaded where they are needed: 40 MB that a keeper may do without
    from keeper.route.blend import blend
    from keeper.route.conic import REGULARISATIONS, solve_conic

    for regularisation in REGULARISATIONS:
        try:
            answers.append(solve_conic(market, regularisation))
        except ArithmeticError:  # another regularisation may do
            continue
        best = _joined(market, answers, answers[-1].flows)
        if abs(best.gap) <= GAP:
            return best
    if not answers:
        raise ArithmeticError("no router found an answer")
    responses = [market.respond(one.prices, one.loads) for one in answers]
    mixed = blend(market, [*(one.flows for one in answers), *responses])
    candidates = [one.flows for one in answers] + ([mixed] if mixed is not None else [])
    joined = [_joined(market, answers, flows) for flows in candidates]
    return min(joined, key=lambda answer: abs(answer.gap))


def _joined(market: Market, answers: list[Solution], flows: tuple[Floats, ...]) -> Solution:
    """Return trades under the tightest bound of some answers."""
    tight = min(answers, key=lambda answer: answer.bound)
    return judge(market, tight.prices, tight.loads, flows, "conic")
