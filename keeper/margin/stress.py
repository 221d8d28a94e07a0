"""Liquidation-at-Risk: how much is liquidated if prices fall by x, and whether that feeds itself.

    account i is liquidated above a fall of   x_i = (E − R) / (D − R)    D: what falls with prices
    account i is below zero above a fall of   y_i = E / D
    sorted once, with prefix sums:            LaR(x) and bad debt(x) are binary searches
    cascade:                                  x = 1 − (1 − s) · exp(−LaR(x) / depth)
    multiplier:                               LaR′(x) / depth, stable while below one

One factor moves everything but stable assets. For rising markets D turns its sign and R grows, so
the slope is −D + R. Thresholds, sums and the multiplier are integers, since breakers are agreed on
by them; cascades, VaR and ES are floats, for watching only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

import numpy as np
import numpy.typing as npt

from keeper.margin.columns import Ints, Margins
from keeper.margin.engine import HEALTH_LIMIT
from keeper.margin.marks import Marks
from keeper.margin.vector import health
from keeper.units import PPM

Floats = npt.NDArray[np.float64]
STEPS = 64
"""Iterations of a cascade before it is taken as total."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Prefix sums over accounts sorted by threshold; one direction of the market.

    Args:
        at: ppm of fall above which the next account is liquidated, ascending.
        notional: Σ gross notional of the accounts up to there, µUSD, one longer.
        zero: ppm of fall above which the next account is below zero, ascending.
        directions: Σ D of the accounts up to there, one longer.
        equities: Σ E of the accounts up to there, one longer.
    """

    at: Ints
    notional: Ints
    zero: Ints
    directions: Ints
    equities: Ints

    def liquidated(self, fall_ppm: int) -> int:
        """Return LaR: the notional liquidated by a fall, µUSD."""
        return int(self.notional[np.searchsorted(self.at, fall_ppm, side="right")])

    def bad_debt(self, fall_ppm: int) -> int:
        """Return what accounts are below zero by after a fall, µUSD."""
        count = np.searchsorted(self.zero, fall_ppm, side="right")
        lost = int(self.directions[count]) * fall_ppm // PPM
        return max(0, lost - int(self.equities[count]))

    def multiplier_ppm(self, fall_ppm: int, depth: int, width_ppm: int = 10_000) -> int:
        """Return LaR′ / depth after a fall, ppm: above one a cascade feeds itself."""
        more = self.liquidated(fall_ppm + width_ppm) - self.liquidated(fall_ppm)
        return more * PPM * PPM // (width_ppm * depth)

    def cascade_ppm(self, shock_ppm: int, depth: int) -> int:
        """Return where a shock ends after the liquidations that it sets off.

        Args:
            shock_ppm: the first fall.
            depth: µUSD that moves the price by a factor e.
        """
        fall = shock_ppm
        for _ in range(STEPS):
            left = (PPM - shock_ppm) * exp(-self.liquidated(fall) / depth)
            further = PPM - int(left)
            if further <= fall:
                return fall
            fall = further
        return PPM


def curve(margins: Margins, falling: bool = True) -> Curve:
    """Return the curve of falling or of rising prices; the requirement moves with them."""
    equity, requirement, gross = margins.equity, margins.requirement, margins.gross
    directions = margins.direction if falling else -margins.direction
    slack = equity - requirement
    steep = directions - requirement if falling else directions + requirement
    sick = slack < 0
    at = np.where(sick, 0, health(slack, np.maximum(steep, 1)))
    reached = np.flatnonzero((gross > 0) & (sick | ((steep > 0) & (at < PPM))))
    reached = reached[np.argsort(at[reached])]
    zero = np.where(equity < 0, 0, health(equity, np.maximum(directions, 1)))
    broke = np.flatnonzero((equity < 0) | ((directions > 0) & (zero < PPM)))
    broke = broke[np.argsort(zero[broke])]
    return Curve(
        at=at[reached],
        notional=_sums(gross[reached]),
        zero=zero[broke],
        directions=_sums(np.maximum(directions[broke], 0)),
        equities=_sums(equity[broke]),
    )


def _sums(values: Ints) -> Ints:
    """Return prefix sums, in Python's integers where 64 bits might not hold them."""
    wide = float(np.abs(values.astype(np.float64)).sum()) >= HEALTH_LIMIT
    column = values.astype(object) if wide else values
    return np.concatenate([np.zeros(1, column.dtype), np.cumsum(column)])


def worst_multiplier_ppm(found: Curve, depth: int, to_ppm: int, steps: int = 60) -> int:
    """Return the largest cascade multiplier up to a fall."""
    return max(found.multiplier_ppm(to_ppm * i // steps, depth) for i in range(steps))


def value_at_risk(losses: Floats, level: float) -> tuple[float, float]:
    """Return (VaR, expected shortfall) of losses at a level such as 0.99; for watching only.

    Raises:
        ValueError: there are no losses, or the level is not inside 0 … 1.
    """
    if not len(losses) or not 0 < level < 1:
        raise ValueError("value at risk needs losses, and a level between 0 and 1")
    ordered = np.sort(losses)
    first = min(len(ordered) - 1, int(np.ceil(level * len(ordered))) - 1)
    return float(ordered[first]), float(ordered[first:].mean())


def concentration(values: Ints | Floats) -> int:
    """Return the Herfindahl-Hirschman index of positive values: 10,000 for a single holder."""
    held = np.maximum(values, 0).astype(np.float64)
    total = held.sum()
    return round(float(((held / total) ** 2).sum()) * 10_000) if total > 0 else 0


def shocked(marks: Marks, shocks: Mapping[int, int]) -> Marks:
    """Return the tick with prices moved by ppm per risk group."""
    parameters = marks.parameters
    groups = {u.symbol: u.group for u in parameters.underlyings}
    known = {one.symbol: groups[one.underlying] for one in parameters.assets}
    known |= {one.symbol: groups[one.underlying] for one in parameters.markets}
    prices = {
        market: max(1, price * (PPM + shocks.get(known[market], 0)) // PPM)
        for market, price in marks.prices.items()
        if market in known
    }
    return Marks(prices, marks.funding, parameters, marks.ages)
