"""How much is closed, for what bonus, how fast.

    health ≥ 1 ─▶ nothing      below ─▶ partial, to the target (1.02)
                               at or below the toxic bound ─▶ full close, insurance, ADL

For a pair (debt D repaid, collateral C seized at k = LT · (1 + bonus)) a repayment r gives health
LT·(C − r(1+bonus)) / (D − r): it rises only while health > k, so below k repaying makes things
worse ("toxic"). The least r that reaches health h solves LT·C − k·r = h·(D − r):

    r = (h·D − LT·C) / (h − k)

For a position of notional N whose closing costs bonus b per unit and frees r_m of requirement, the
least x with E − b·x ≥ h·(R − m·x) is (h·R − E) / (h·m − b); toxic once h·m ≤ b.
Sizes are rounded up (enough to reach the target), a seizure is rounded down by the venue.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import isqrt

from keeper.parameters import LiquidationParameters
from keeper.units import PPM, ceil_div, ppm_ceil


class Bound(StrEnum):
    """What limited a liquidation's size."""

    TARGET = "target"
    CLOSE_FACTOR = "close_factor"
    WINDOW = "window"
    SMALL = "small"
    TOXIC = "toxic"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Size:
    """How much value to close and what set it.

    Args:
        value: µUSD of debt repaid or of notional closed.
        bonus_ppm: what the liquidator gains on it.
        bound: why it is not more or less.
    """

    value: int
    bonus_ppm: int
    bound: Bound

    @property
    def reaches_target(self) -> bool:
        """Whether the account is at its target afterwards (or has nothing left to close)."""
        return self.bound in (Bound.TARGET, Bound.SMALL, Bound.WHOLE)


def bonus_ppm(equity: int, requirement: int, parameters: LiquidationParameters) -> int:
    """Return the bonus: it grows with the violation 1 − health, up to its cap."""
    if requirement <= 0 or equity >= requirement:
        return parameters.bonus_ppm
    shortfall = requirement - equity
    grown = parameters.bonus_ppm + parameters.bonus_slope_ppm * shortfall // requirement
    return min(parameters.bonus_max_ppm, grown)


def close_limit(
    value: int, equity: int, requirement: int, parameters: LiquidationParameters
) -> int:
    """Return the largest part of a position's value that may be closed at once."""
    small = value <= parameters.full_value
    deep = equity * PPM <= requirement * parameters.full_health_ppm
    return value if small or deep else ppm_ceil(value, parameters.close_factor_ppm)


def repay_to_target(
    debt: int, collateral: int, threshold_ppm: int, bonus: int, target_ppm: int
) -> int | None:
    """Return the least repayment in µUSD that brings a pair to the target, or None if toxic.

    Args:
        debt: µUSD at the mark.
        collateral: µUSD at the mark.
        threshold_ppm: LT, the collateral's weight.
        bonus: ppm.
        target_ppm: h.
    """
    factor = threshold_ppm * (PPM + bonus)  # k in 10^-12
    if collateral * threshold_ppm * PPM <= factor * debt:  # health ≤ k: repaying does not help
        return None
    if collateral * threshold_ppm >= target_ppm * debt:
        return 0
    missing = (target_ppm * debt - threshold_ppm * collateral) * PPM
    return ceil_div(missing, target_ppm * PPM - factor)


def close_to_target(
    equity: int, requirement: int, freed_ppm: int, bonus: int, target_ppm: int
) -> int | None:
    """Return the least notional in µUSD to close, or None when closing frees less than it costs.

    Args:
        equity: µUSD.
        requirement: R, µUSD.
        freed_ppm: requirement that one unit of notional frees.
        bonus: what closing one unit costs the account, ppm.
        target_ppm: h.
    """
    if equity * PPM >= target_ppm * requirement:
        return 0
    gain = target_ppm * freed_ppm - bonus * PPM
    if gain <= 0:
        return None
    return ceil_div((target_ppm * requirement - equity * PPM) * PPM, gain)


def size_position(
    value: int,
    equity: int,
    requirement: int,
    freed_ppm: int,
    parameters: LiquidationParameters,
    window_left: int | None = None,
) -> Size:
    """Return how much of a position's notional to close.

    Args:
        value: the position's notional, µUSD.
        equity: the account's, µUSD.
        requirement: the account's R, µUSD.
        freed_ppm: requirement one unit of its notional frees.
        parameters: the epoch's.
        window_left: what the market's window still allows, µUSD.
    """
    bonus = bonus_ppm(equity, requirement, parameters)
    wanted = close_to_target(equity, requirement, freed_ppm, bonus, parameters.target_health_ppm)
    if wanted == 0:
        return Size(0, bonus, Bound.TARGET)
    limit = close_limit(value, equity, requirement, parameters)
    if wanted is None:
        size = Size(value, bonus, Bound.TOXIC)
    elif wanted >= value:
        size = Size(value, bonus, Bound.WHOLE)
    else:
        size = Size(wanted, bonus, Bound.TARGET)
    if size.bound is not Bound.TOXIC and size.value > limit:
        size = Size(limit, bonus, Bound.CLOSE_FACTOR)
    if size.value < value and value - size.value < parameters.dust_value:
        size = Size(value, bonus, Bound.SMALL)
    if window_left is not None and size.value > window_left:
        size = Size(max(0, window_left), bonus, Bound.WINDOW)
    return size


def best_repay(depth: int, bonus: int, fee: int) -> int:
    """Return the repayment that gains most when the seizure is sold into a pool x·y = L².

    r* = L/a · (√a − 1) with a = (1 + bonus)(1 − fee); 0 when a ≤ 1. Rounded down.

    Args:
        depth: L in the debt's unit at the mark.
        bonus: ppm.
        fee: of the pool, ppm.
    """
    factor = (PPM + bonus) * (PPM - fee)  # a in 10^-12
    root = isqrt(factor * PPM * PPM)  # √a in 10^-12
    return max(0, depth * (root - PPM * PPM) // factor)


def window_left(
    parameters: LiquidationParameters, closed: Iterable[tuple[int, int]], block: int
) -> int:
    """Return what may still be closed in a market's window that ends at a block, µUSD.

    Args:
        parameters: the epoch's.
        closed: (block, µUSD) of liquidations so far.
        block: of the venue's chain.
    """
    first = block - parameters.window_blocks + 1
    used = sum(value for at, value in closed if first <= at <= block)
    return max(0, parameters.window_value - used)
