"""A bound that travels with a plan, and the one pass in which a peer checks it.

    certificate = prices ν, loads θ, value ≤ what the plan delivers, bound ≥ g(ν, θ)
    peer:  ν ≥ c?  ─▶  one best response per pool  ─▶  bound ≥ g?  ─▶  bound − value ≤ allowed?

Weak duality makes g(ν, θ) a bound for any prices, so the peer trusts neither the solver nor the
proposer: wrong prices only make the bound loose, and a bound below g is refused. Prices are
integers of 2**-96; evaluating g in floats errs by less than `ROUNDING` relative to its terms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite

import numpy as np

from keeper.route.banks import Floats
from keeper.route.cfmm import Market, Solution, market_of
from keeper.route.pools import Problem

ONE = 1 << 96
ROUNDING = 1e-11
PPB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a plan claims about its quality, in whole units of what it is worth in.

    Args:
        prices: ν of each token, 2**-96 units.
        loads: θ of each limit, 2**-96 units.
        value: what the plan brings, rounded down.
        bound: what no plan can exceed, rounded up.
    """

    prices: tuple[int, ...]
    loads: tuple[int, ...]
    value: int
    bound: int

    @property
    def gap_ppb(self) -> int:
        """Return how far the value may be below the best, in 10**-9 of the bound, rounded up."""
        if self.bound <= 0:
            return 0
        return -(-(self.bound - self.value) * PPB // self.bound)


def certify(problem: Problem, solution: Solution, value: int) -> Certificate:
    """Return the certificate of a plan that brings `value`, with the solution's prices."""
    prices = tuple(
        max(ceil(price * ONE), ceil(worth * ONE), 1)
        for price, worth in zip(solution.prices.tolist(), problem.worth, strict=True)
    )
    loads = tuple(max(ceil(load * ONE), 0) for load in solution.loads.tolist())
    bound = _dual(market_of(problem), prices, loads)
    return Certificate(prices, loads, value, max(ceil(bound[0] + bound[1]), value))


def check_bound(problem: Problem, certificate: Certificate, allowed_ppb: int = PPB) -> str | None:
    """Return what is wrong with a certificate, or None.

    Args:
        problem: as this peer sees it; never the proposer's copy.
        certificate: what came with the plan.
        allowed_ppb: largest gap to accept.
    """
    if len(certificate.prices) != len(problem.worth) or len(certificate.loads) != len(
        problem.limits
    ):
        return "the certificate has other tokens or limits than the problem"
    for place, (price, worth) in enumerate(zip(certificate.prices, problem.worth, strict=True)):
        if not floor(worth * ONE) <= price < 1 << 256 or price <= 0:
            return f"price of token {place} is below its worth or out of range"
    if any(not 0 <= load < 1 << 256 for load in certificate.loads):
        return "a load is negative or out of range"
    bound, error = _dual(market_of(problem), certificate.prices, certificate.loads)
    if not isfinite(bound + error):
        return "the prices are too far apart to bound anything"
    if certificate.bound < bound - error:
        return f"claimed bound {certificate.bound} is below {floor(bound)}, which its prices prove"
    if certificate.value > certificate.bound:
        return f"claimed value {certificate.value} is above its bound {certificate.bound}"
    if certificate.gap_ppb > allowed_ppb:
        return f"gap of {certificate.gap_ppb} ppb is above the {allowed_ppb} allowed"
    return None


def _dual(market: Market, prices: Sequence[int], loads: Sequence[int]) -> tuple[float, float]:
    """Return g and the most that floats may err in it."""
    nu: Floats = np.array([price / ONE for price in prices])
    theta: Floats = np.array([load / ONE for load in loads])
    value, *_ = market.dual(nu, theta)
    flows = market.respond(nu, theta)
    terms = float(nu @ np.abs(market.held)) + float(theta @ market.limits)
    for bank, flow in zip(market.banks, flows, strict=True):
        terms += float((nu[bank.tokens] * np.abs(flow)).sum())
    return value, terms * ROUNDING
