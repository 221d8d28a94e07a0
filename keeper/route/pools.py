"""What a router may trade through: the feasible trades of one pool or one bridge lane.

    a trade tenders Δ ≥ 0 and receives Λ ≥ 0; x = R + γΔ − Λ are the reserves after it

    Product        x₁x₂ ≥ R₁R₂                                     Uniswap v2
    Weighted       Π xᵢ^wᵢ ≥ Π Rᵢ^wᵢ                               Balancer, two or more tokens
    Concentrated   (x₁ + α)(x₂ + β) ≥ k in each tick range         Uniswap v3
    Total          Σ xᵢ ≥ Σ Rᵢ, x ≥ 0                              constant sum
    Bridge         0 ≤ Δ ≤ C,  Λ ≤ g·Δ − Δ²/(2κ)                   a lane; κ may be infinite

Tokens are positions in a problem's token list. Numbers are floats here and nowhere outside the
optimiser: what leaves the room is made of integers again (`keeper.route.quote`).
Source: Diamandis, Resnick, Chitra, Angeris, "An Efficient Algorithm for Optimal Routing Through
Constant Function Market Makers", arXiv 2302.04938.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Product:
    """A constant-product pool; `gamma` is one minus its fee."""

    tokens: tuple[int, int]
    reserves: tuple[float, float]
    gamma: float


@dataclass(frozen=True, slots=True)
class Weighted:
    """A weighted geometric-mean pool; weights need not add up to one."""

    tokens: tuple[int, ...]
    reserves: tuple[float, ...]
    weights: tuple[float, ...]
    gamma: float


@dataclass(frozen=True, slots=True)
class Range:
    """Liquidity between two prices of token 0 in token 1, `low` < `high`."""

    low: float
    high: float
    liquidity: float


@dataclass(frozen=True, slots=True)
class Concentrated:
    """A Uniswap v3 pool: ranges that do not overlap, and the price they meet at now."""

    tokens: tuple[int, int]
    price: float
    ranges: tuple[Range, ...]
    gamma: float


@dataclass(frozen=True, slots=True)
class Total:
    """A constant-sum pool of two tokens: one for one until it is empty."""

    tokens: tuple[int, int]
    reserves: tuple[float, float]
    gamma: float


@dataclass(frozen=True, slots=True)
class Bridge:
    """One direction of a bridge lane.

    Args:
        tokens: what goes in, what comes out.
        gain: out per in for the first unit.
        capacity: most that goes in.
        curvature: κ; the larger, the less a large transfer loses. Infinite: linear.
        group: which of the problem's limits it counts against, or -1.
        load: how much of that limit one unit in takes.
    """

    tokens: tuple[int, int]
    gain: float
    capacity: float
    curvature: float = math.inf
    group: int = -1
    load: float = 1.0

    @property
    def linear(self) -> bool:
        """Whether the dual has a kink at this lane."""
        return not math.isfinite(self.curvature)


Pool = Product | Weighted | Concentrated | Total | Bridge


@dataclass(frozen=True, slots=True)
class Problem:
    """Maximise c·Ψ over the net trade Ψ, with Ψ + h ≥ 0 and every limit held.

    Args:
        worth: c, what one unit of each token received counts.
        held: h, how much of each token there is to spend.
        pools: what may be traded through.
        limits: most that the lanes of each group may carry together.
    """

    worth: tuple[float, ...]
    held: tuple[float, ...]
    pools: tuple[Pool, ...]
    limits: tuple[float, ...] = ()


def arbitrage(prices: tuple[float, ...], pools: tuple[Pool, ...]) -> Problem:
    """Return the problem of the most valuable trade that costs nothing."""
    return Problem(prices, (0.0,) * len(prices), pools)


def liquidation(target: int, basket: tuple[float, ...], pools: tuple[Pool, ...]) -> Problem:
    """Return the problem of turning a basket into as much as possible of one token."""
    worth = tuple(float(token == target) for token in range(len(basket)))
    held = tuple(0.0 if token == target else amount for token, amount in enumerate(basket))
    return Problem(worth, held, pools)
