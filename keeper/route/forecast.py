"""When to move inventory, and how much: an (s, S) rule that counts what is already on its way.

    position = held + in flight − promised          what will be there without doing anything
    s = need over the lead time + safety            below s: order up to S
    S = s + what one fixed fee justifies            S − s = √(2·K·D/h), the economic lot size

    demand per second: an exponentially weighted mean and deviation of what left the place

In flight counted, an order is placed once, not once per tick until it arrives; that is what the
published rebalancers miss (they re-order through the delay, or thrash between two targets).
"""

from dataclasses import dataclass
from math import isqrt

from keeper.units import PPM, ceil_div

SECOND_MS = 1000


@dataclass(frozen=True, slots=True)
class Demand:
    """Net outflow of a place.

    Args:
        mean: amount per 1000 s (more digits than per second).
        deviation: mean absolute deviation of it, the same unit.
    """

    mean: int = 0
    deviation: int = 0

    def after(self, left: int, span_ms: int, weight_ppm: int) -> "Demand":
        """Return the estimate after `left` went out (less what came in) in a span."""
        if span_ms <= 0:
            return self
        rate = left * 1000 * SECOND_MS // span_ms
        mean = self.mean + (rate - self.mean) * weight_ppm // PPM
        away = abs(rate - self.mean)
        return Demand(mean, self.deviation + (away - self.deviation) * weight_ppm // PPM)


@dataclass(frozen=True, slots=True)
class Stock:
    """One asset at one place."""

    held: int
    in_flight: int = 0
    promised: int = 0

    @property
    def position(self) -> int:
        """Return what will be there if nothing is done."""
        return self.held + self.in_flight - self.promised


@dataclass(frozen=True, slots=True)
class Levels:
    """The two levels of the rule: order below `low`, up to `high`."""

    low: int
    high: int


def levels(
    demand: Demand, lead_ms: int, fixed_cost: int, holding_ppm_per_day: int, safety: int = 3
) -> Levels:
    """Return s and S for a lead time.

    Args:
        demand: expected net outflow.
        lead_ms: 95th percentile of the lane that would refill the place.
        fixed_cost: fee and gas of one transfer, in the asset's unit.
        holding_ppm_per_day: cost of funds that lie idle.
        safety: mean absolute deviations to cover, scaled by the root of the lead time.
    """
    drift = max(demand.mean, 0)
    need = ceil_div(drift * lead_ms, 1000 * SECOND_MS)
    swing = ceil_div(safety * demand.deviation * isqrt(lead_ms * 1000), 1000 * SECOND_MS)
    low = need + swing
    per_day = drift * 86_400 // 1000
    lot = isqrt(2 * fixed_cost * per_day * PPM // max(holding_ppm_per_day, 1))
    return Levels(low, low + max(lot, low // 2))


def order(stock: Stock, at: Levels) -> int:
    """Return how much to bring in: nothing while the position is at `low` or above."""
    return at.high - stock.position if stock.position < at.low else 0


def spare(stock: Stock, at: Levels) -> int:
    """Return how much may leave without going below `high`; funds in flight cannot leave."""
    return max(min(stock.held, stock.position - at.high), 0)
