"""What a lane is like for this keeper: how long its transfers took, and what is under way. Pure.

    own shipments: left the origin ─▶ final at the destination ─┐
    others' messages that its courier saw arrive ───────────────┼─▶ Seen ─▶ live lane
    own ones that are overdue: so long at least ────────────────┘

What is under way takes room, and no time: these bridges carry messages side by side. A stranger's
message that nobody can deliver counts for nothing, or anybody could close a lane by sending dust.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from keeper.route.bridges.port import Bridge, Crossing, Terms, lane_of
from keeper.route.congestion import WINDOW, Delivery, Seen, live
from keeper.route.graph import Lane
from keeper.route.shipments import Shipment, State
from keeper.units import PPM, ceil_div


@dataclass(slots=True)
class Traffic:
    """Deliveries of others that a courier saw, per kind and crossing; at most `WINDOW` of each."""

    heard: dict[tuple[str, Crossing], deque[int]] = field(default_factory=dict)

    def hear(self, kind: str, crossing: Crossing, latency_ms: int) -> None:
        """Take one delivery by a kind of bridge; crossings are those of configured ones."""
        self.heard.setdefault((kind, crossing), deque(maxlen=WINDOW)).append(latency_ms)

    def of(self, kind: str, crossing: Crossing) -> tuple[int, ...]:
        """Return the latencies heard of a kind's crossing, oldest first."""
        return tuple(self.heard.get((kind, crossing), ()))


def seen_of(shipments: Iterable[Shipment], terms: Terms, heard: Sequence[int], now_ms: int) -> Seen:
    """Return what was observed of a lane.

    Args:
        shipments: those of the lane that are kept, in the order they were decided.
        terms: as they are now: what its fixed fee took is no rate.
        heard: latencies of others' transfers, ms.
        now_ms: the node's clock.
    """
    deliveries = [Delivery(terms.fee_ppm, latency) for latency in heard]
    waiting = 0
    for one in shipments:
        if one.open:
            waiting += one.amount
        took = (one.ended_ms or now_ms) - one.left_ms
        arrived = one.state is State.ARRIVED and one.timed
        overdue = one.open and one.left_ms > 0 and took > one.p95_ms
        if arrived or overdue:
            fee = max(one.amount - one.arrives - terms.fee_fixed, 0)
            deliveries.append(Delivery(ceil_div(fee * PPM, one.amount), max(took, 0)))
    return Seen(tuple(deliveries[-WINDOW:]), waiting)


def lane_now(bridge: Bridge, crossing: Crossing, terms: Terms, seen: Seen) -> Lane:
    """Return a lane as it is now: its fee is never below what the bridge asks at this moment."""
    now = live(lane_of(bridge, crossing, terms), replace(seen, queue=0))
    return replace(now, fee_ppm=max(now.fee_ppm, terms.fee_ppm), queue=seen.queue)
