"""What a lane is like now: quantiles of fees and latencies seen, and the queue ahead.

    deliveries seen ──▶ the last `WINDOW` ──▶ nearest-rank quantiles ─┐
    queue ahead, cleared per second ──▶ waiting time ─────────────────┴─▶ the lane, updated

A lane not seen lately keeps its advertised figures. Quantiles are integers of what was observed,
so every keeper with the same observations has the same estimates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from keeper.route.graph import Lane
from keeper.units import PPM, ceil_div

WINDOW = 256
"""Deliveries remembered per lane: enough for a 95th percentile, young enough to follow a jam."""
FEWEST = 8
"""Below this many deliveries a quantile says nothing."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One transfer that arrived: what it cost and how long it took."""

    fee_ppm: int
    latency_ms: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What was observed of a lane, oldest first, and the load on it.

    Args:
        deliveries: at most `WINDOW`.
        queue: amount that waits.
        cleared_per_s: amount the lane lets through in a second; 0 while nothing moves.
        cursed: the bridge's own network stopped it.
    """

    deliveries: tuple[Delivery, ...] = ()
    queue: int = 0
    cleared_per_s: int = 0
    cursed: bool = False

    def with_delivery(self, delivery: Delivery) -> "Seen":
        """Return this with one more delivery, the oldest forgotten if there are too many."""
        return replace(self, deliveries=(*self.deliveries, delivery)[-WINDOW:])


def quantile(values: Sequence[int], ppm: int) -> int:
    """Return the nearest-rank quantile of values.

    Raises:
        ValueError: there are none.
    """
    if not values:
        raise ValueError("a quantile of nothing")
    rank = max(ceil_div(len(values) * ppm, PPM), 1)
    return sorted(values)[min(rank, len(values)) - 1]


def waiting_ms(seen: Seen) -> int:
    """Return how long the queue ahead takes, or 0 if there is none."""
    if seen.queue <= 0:
        return 0
    return ceil_div(seen.queue * 1000, max(seen.cleared_per_s, 1))


def live(lane: Lane, seen: Seen) -> Lane:
    """Return the lane as it is now: never better than its queue lets it be."""
    wait = waiting_ms(seen)
    fee, p50, p95 = lane.fee_ppm, lane.p50_ms, lane.p95_ms
    if len(seen.deliveries) >= FEWEST:
        latencies = [one.latency_ms for one in seen.deliveries]
        fee = quantile([one.fee_ppm for one in seen.deliveries], PPM // 2)
        p50, p95 = quantile(latencies, PPM // 2), quantile(latencies, 950_000)
    return replace(
        lane,
        fee_ppm=fee,
        p50_ms=p50 + wait,
        p95_ms=p95 + wait,
        queue=max(seen.queue, 0),
        cursed=lane.cursed or seen.cursed,
    )
