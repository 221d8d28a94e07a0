"""How much to close: least amounts that reach a target health, and what selling them costs.

    HF = Σ C·LT / Σ D          k = LT·(1 + bonus)
    least repay for HF ≥ h:    r = (h·ΣD − ΣC·LT) / (h − k)        only if HF > k; else all of it
    perp: closing a share f of a leg with notional N and margin m moves
          equity by −f·N·bonus and the requirement by −f·m

The same arithmetic as keeper/margin/liquidation.py, which would cost a child process 100 ms to
import; a property test holds the two equal. A lending position at or below k is toxic: a partial
close makes it worse, so it is closed whole. Amounts to close are rounded up (an account never gets
less relief than asked for), proceeds down.
"""

from collections.abc import Sequence

from keeper.units import PPM, ceil_div


def _unit(decimals: int) -> int:
    """Return what a size times a 10**-8 USD price is divided by for µUSD."""
    unit: int = 10 ** (decimals + 2)
    return unit


def value_floor(size: int, price: int, decimals: int) -> int:
    """Return µUSD of a size at a price, rounded towards minus infinity."""
    return size * price // _unit(decimals)


def value_ceil(size: int, price: int, decimals: int) -> int:
    """Return µUSD of a size at a price, rounded towards plus infinity."""
    return ceil_div(size * price, _unit(decimals))


def size_within(value: int, price: int, decimals: int) -> int:
    """Return the largest size worth at most `value` µUSD (price > 0)."""
    return value * _unit(decimals) // price


def size_for(value: int, price: int, decimals: int) -> int:
    """Return the least size worth at least `value` µUSD (price > 0)."""
    return ceil_div(value * _unit(decimals), price)


def least_repay(debt: int, weighted: int, threshold_ppm: int, bonus_ppm: int, target: int) -> int:
    """Return the least µUSD to repay so that health reaches `target` ppm, at most the debt.

    Args:
        debt: Σ D in µUSD.
        weighted: Σ C·LT in µUSD · ppm, not divided.
        threshold_ppm: LT of the collateral that is seized.
        bonus_ppm: its liquidation bonus.
        target: wanted health factor in ppm.
    """
    factor = threshold_ppm * (PPM + bonus_ppm)
    if weighted * PPM <= debt * factor or target * PPM <= factor:
        return debt
    missing = (target * debt - weighted) * PPM
    return min(debt, max(0, ceil_div(missing, target * PPM - factor)))


def least_close(
    equity: int, requirement: int, notional: int, margin_ppm: int, bonus_ppm: int, target: int
) -> int:
    """Return the least µUSD of a perp's notional to close for equity ≥ target · requirement.

    Args:
        equity: of the account, µUSD.
        requirement: of the account, µUSD.
        notional: of the leg, µUSD.
        margin_ppm: requirement that a unit of the leg's notional adds.
        bonus_ppm: what the closer is paid of the closed notional.
        target: wanted equity / requirement in ppm.
    """
    missing = target * requirement - equity * PPM
    if missing <= 0:
        return 0
    relief = target * margin_ppm - bonus_ppm * PPM
    if relief <= 0:
        return notional
    return min(notional, ceil_div(missing * PPM, relief))


def impact_ppm(points: Sequence[tuple[int, int]], size: int) -> int | None:
    """Return the price impact of selling `size`, linear between points; None beyond the last."""
    below_size, below_impact = 0, 0
    for at, impact in points:
        if size <= at:
            span = at - below_size
            return below_impact + ceil_div((impact - below_impact) * (size - below_size), span or 1)
        below_size, below_impact = at, impact
    return None


def largest_within(points: Sequence[tuple[int, int]], limit_ppm: int) -> int:
    """Return the largest size whose impact stays within a limit."""
    best, below_size, below_impact = 0, 0, 0
    for at, impact in points:
        if impact <= limit_ppm:
            best = at
        elif impact > below_impact:
            room = (at - below_size) * (limit_ppm - below_impact) // (impact - below_impact)
            return max(best, below_size + max(0, room))
        below_size, below_impact = at, impact
    return best


def whole_if_dust(size: int, held: int, min_left: int, allowed: int) -> int:
    """Return `size`, or a size that leaves nothing or at least `min_left` of what is held.

    Args:
        size: wanted.
        held: what is there.
        min_left: smallest remainder the venue accepts.
        allowed: the most one call may close.
    """
    left = held - size
    if left <= 0:
        return min(held, allowed)
    if left >= min_left:
        return size
    if held <= allowed:
        return held
    return max(0, held - min_left)
