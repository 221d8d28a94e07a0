"""Whole amounts along flows: edge by edge in integers, and nothing that cannot go on.

    shares at a place ─▶ its funds are split ─▶ what each edge exactly gives ─▶ the next place
    more comes to a place than leaves it ─▶ the dearest edges into it carry less, and again

Flows come from an optimiser: they say in which proportions a place's funds are split, and where
funds are worth nothing, since more is held than fits through, they say nothing at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keeper.route.graph import Edge, Lane, Place, free, gives
from keeper.units import PPM

CRUMBS = 10**6
"""A place on the way may keep this part of what comes there, or what one unit more brought."""
_TRIES = 64
"""Each makes some edge carry less; a way of so many bottlenecks is no way."""


@dataclass(frozen=True, slots=True)
class Hop:
    """An amount through one edge, and the least that comes out."""

    edge: Edge
    amount: int
    least_out: int
    done_ms: int


@dataclass(frozen=True, slots=True)
class Found:
    """Hops in an order in which funds are there when they are needed, and their two ends."""

    delivered: int = 0
    sent: int = 0
    hops: tuple[Hop, ...] = ()


def amounts(
    flows: Mapping[Edge, float],
    ends: tuple[Place, Place],
    amount: int,
    exposure: Sequence[tuple[bytes, int]],
) -> Found:
    """Return whole amounts along flows without cycles; nothing where too much would strand.

    Args:
        flows: what each edge takes, in proportion.
        ends: origin and destination.
        amount: what is at the origin.
        exposure: most that the lanes of a verifier may carry.
    """
    most: dict[Edge, int] = {}
    for _ in range(_TRIES):
        found = _filled(flows, ends, amount, dict(exposure), most)
        less = _cut(found.hops, ends[1])
        if not less:
            return found
        most |= less
    return Found()


def stranded(hops: Sequence[Hop], destination: Place) -> dict[Place, int]:
    """Return what stays at places on the way, where it is more than crumbs."""
    came: dict[Place, int] = {}
    used: dict[Place, int] = {}
    for hop in hops:
        at, origin = hop.edge.destination, hop.edge.origin
        came[at] = came.get(at, 0) + hop.least_out
        used[origin] = used.get(origin, 0) + hop.amount
    rest = {at: total - used.get(at, 0) for at, total in came.items() if at != destination}
    return {
        at: left
        for at, left in rest.items()
        if left > came[at] // CRUMBS and left > max(_unit(hop) for hop in _into(hops, at))
    }


def _into(hops: Sequence[Hop], place: Place) -> list[Hop]:
    return [hop for hop in hops if hop.edge.destination == place]


def _unit(hop: Hop) -> int:
    """Return what the last unit that goes in brings: less than that cannot be kept from coming."""
    return hop.least_out - gives(hop.edge, hop.amount - 1)


def _cut(hops: Sequence[Hop], destination: Place) -> dict[Edge, int]:
    """Return new bounds of edges into places where something would strand, the dearest first."""
    most: dict[Edge, int] = {}
    for at, left in stranded(hops, destination).items():
        for hop in sorted(_into(hops, at), key=_dearest):
            part = min(left, hop.least_out)
            left -= part
            if part:
                most[hop.edge] = _least(hop.edge, hop.least_out - part, hop.amount)
    return most


def _dearest(hop: Hop) -> tuple[int, int, tuple[object, ...]]:
    """Return an order of edges into one place: what gives least for one unit more comes first."""
    way = hop.edge.way
    rate = hop.least_out * PPM // hop.amount
    if isinstance(way, Lane):  # its fixed fee is paid whatever it carries
        rate = PPM - way.fee_ppm - (hop.amount * PPM // way.curvature if way.curvature else 0)
    return rate, -hop.edge.latency_ms, hop.edge.key()


def _least(edge: Edge, wanted: int, most: int) -> int:
    """Return the least amount up to `most`, which gives enough, that gives what is wanted."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        if gives(edge, middle) >= wanted:
            high = middle
        else:
            low = middle + 1
    return low


def _filled(
    flows: Mapping[Edge, float],
    ends: tuple[Place, Place],
    amount: int,
    groups: dict[bytes, int],
    most: Mapping[Edge, int],
) -> Found:
    """Return amounts place by place in the order of the flow."""
    origin, destination = ends
    have: dict[Place, int] = {origin: amount}
    ready: dict[Place, int] = {}
    hops: list[Hop] = []
    sent = 0
    for place in _order(flows, origin):
        out = sorted(
            ((share, edge) for edge, share in flows.items() if edge.origin == place),
            key=lambda pair: (pair[0], pair[1].key()),
        )
        rest, total = have.get(place, 0), sum(share for share, _ in out)
        for share, edge in out:
            part = rest if share >= total else min(rest, int(rest * (share / total)))
            part = min(part, free(edge, groups), most.get(edge, part))
            total -= share
            least = gives(edge, part)
            if least <= 0:
                continue
            if isinstance(edge.way, Lane) and edge.way.verifier in groups:
                groups[edge.way.verifier] -= part
            rest -= part
            sent += part if place == origin else 0
            done = ready.get(place, 0) + edge.latency_ms
            hops.append(Hop(edge, part, least, done))
            have[edge.destination] = have.get(edge.destination, 0) + least
            ready[edge.destination] = max(ready.get(edge.destination, 0), done)
    return Found(have.get(destination, 0), sent, tuple(hops))


def _order(flows: Mapping[Edge, float], origin: Place) -> list[Place]:
    """Return places so that all that flows into one comes before it."""
    waiting: dict[Place, int] = {}
    for edge in flows:
        waiting[edge.destination] = waiting.get(edge.destination, 0) + 1
    order, fresh = [], [origin]
    while fresh:
        place = min(fresh)
        fresh.remove(place)
        order.append(place)
        for edge in flows:
            if edge.origin == place:
                waiting[edge.destination] -= 1
                if not waiting[edge.destination]:
                    fresh.append(edge.destination)
    return order
