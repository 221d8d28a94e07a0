"""The least part of one position to close, found on the model itself.

    |── toxic? ── whole enough? ── bisect: equity(x) ≥ target · R(x) ──▶ close factor, dust, window

The requirement of a portfolio is not linear in one leg (offsets, concentration, scenarios), so a
formula can miss the target; a bisection over the exact model cannot. Closing is at the mark, with
funding settled first, and the bonus is paid from the account.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keeper.legs import LegKind
from keeper.margin.engine import FUNDING_UNIT, AccountMargin, Engine, Row
from keeper.margin.liquidation import Bound, Size, bonus_ppm, close_limit
from keeper.parameters import LiquidationParameters
from keeper.units import PPM, ceil_div, ppm_ceil


@dataclass(frozen=True, slots=True)
class Close:
    """What to close of one perp.

    Args:
        size: in the market's units, unsigned.
        sized: its value, its bonus, and what set it.
        after: the account's margin afterwards.
    """

    size: int
    sized: Size
    after: AccountMargin


def closed_row(row: Row, size: int, bonus: int) -> tuple[Row, int]:
    """Return a perp's row with `size` units closed at the mark, and the notional closed in µUSD.

    The freed value goes into the quote, less the bonus rounded up: both against the account.
    """
    rate, held, quote, paid = row
    signed = size if held > 0 else -size
    notional = ceil_div(size * rate.price, rate.divisor)
    got = signed * rate.price // rate.divisor
    moved = -held * (rate.funding - paid) // FUNDING_UNIT
    left = quote + moved + got - ppm_ceil(notional, bonus)
    return (rate, held - signed, left, rate.funding), notional


def size_close(
    engine: Engine,
    rows: Sequence[Row],
    at: int,
    parameters: LiquidationParameters,
    window_left: int | None = None,
) -> Close | None:
    """Return how much of the perp `rows[at]` to close, or None when the account is healthy.

    Args:
        engine: of the tick.
        rows: the account's legs.
        at: which of them.
        parameters: the epoch's.
        window_left: what the market's window still allows, µUSD.

    Raises:
        ValueError: the leg is no perp, or has no size.
    """
    rate, held, _, _ = rows[at]
    if rate.kind != LegKind.PERP or held == 0:
        raise ValueError("only a perp with a size can be closed")
    before = engine.margin(rows)
    if before.healthy_global:
        return None
    bonus = bonus_ppm(before.equity, before.requirement, parameters)
    target = parameters.target_health_ppm

    def after(size: int) -> AccountMargin:
        changed, _ = closed_row(rows[at], size, bonus)
        return engine.margin([*rows[:at], changed, *rows[at + 1 :]])

    def reached(margin: AccountMargin) -> bool:
        return margin.equity * PPM >= target * margin.requirement

    whole = abs(held)
    value = ceil_div(whole * rate.price, rate.divisor)
    size, bound = whole, Bound.WHOLE
    if not reached(after(whole)):
        if after(whole).health_ppm < before.health_ppm:
            bound = Bound.TOXIC
    else:
        low, size, bound = 0, whole, Bound.TARGET
        while size - low > 1:
            middle = (low + size) // 2
            low, size = (low, middle) if reached(after(middle)) else (middle, size)
        bound = Bound.TARGET if size < whole else Bound.WHOLE
    limit = close_limit(value, before.equity, before.requirement, parameters)
    if bound is not Bound.TOXIC:
        size, bound = _limited(size, bound, whole, value, limit, parameters)
    if window_left is not None and ceil_div(size * rate.price, rate.divisor) > window_left:
        size, bound = max(0, window_left) * rate.divisor // rate.price, Bound.WINDOW
    _, notional = closed_row(rows[at], size, bonus)
    return Close(size, Size(notional, bonus, bound), after(size))


def _limited(
    size: int, bound: Bound, whole: int, value: int, limit: int, parameters: LiquidationParameters
) -> tuple[int, Bound]:
    """Return a size within the close factor that leaves no dust."""
    most = ceil_div(whole * limit, value)
    if size > most:
        size, bound = most, Bound.CLOSE_FACTOR
    rest = value * (whole - size) // whole
    if size < whole and rest < parameters.dust_value:
        size, bound = whole, Bound.SMALL
    return size, bound
