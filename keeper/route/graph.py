"""The map a route is drawn on: places (chain, asset), venues' pools and bridges' lanes, live.

    (1, USDC) ──pool──▶ (1, WETH)
        │ lane                 │ lane          a lane: fee, latency quantiles, queue, cap, curse,
        ▼                      ▼                       security class, who verifies it
    (10, USDC) ─pool──▶ (10, WETH)

All amounts are integers in 10**-decimals of their asset; what an edge gives for an amount is
floored exactly as its contract floors it, or below that, so a plan never promises more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import NamedTuple

from keeper.parameters import BridgeClass
from keeper.route import pools as shapes
from keeper.route.ticks import TickBook, sell
from keeper.units import PPM, ChainId, ceil_div

_EXACT = Context(prec=60)


class Place(NamedTuple):
    """An asset on a chain."""

    chain: ChainId
    asset: bytes


@dataclass(frozen=True, slots=True)
class Swap:
    """A pool of two assets on one chain; equal weights are a constant product.

    Args:
        chain, venue: where; the venue's address, 20 bytes.
        assets: 32-byte symbols.
        reserves: of each, both positive.
        fee_ppm: taken from what goes in.
        weights: relative, as integers.
        latency_ms: until the swap is final.
    """

    chain: ChainId
    venue: bytes
    assets: tuple[bytes, bytes]
    reserves: tuple[int, int]
    fee_ppm: int
    weights: tuple[int, int] = (1, 1)
    latency_ms: int = 0


@dataclass(frozen=True, slots=True)
class TickSwap:
    """A Uniswap v3 pool; `assets` are in the order of its tokens."""

    chain: ChainId
    venue: bytes
    assets: tuple[bytes, bytes]
    book: TickBook
    latency_ms: int = 0

    @property
    def fee_ppm(self) -> int:
        """Return what is taken from what goes in."""
        return self.book.fee_ppm


@dataclass(frozen=True, slots=True)
class Lane:
    """One direction of one bridge for one asset.

    Args:
        bridge: address on the origin, 20 bytes.
        fee_fixed, fee_ppm: taken from what goes in.
        p50_ms, p95_ms: send to final delivery, quantiles of late.
        capacity: most it takes now, the queue included.
        queue: what already waits; it takes from the capacity.
        security: how it is verified.
        verifier: who can break it; lanes that share a verifier fail together.
        curvature: x²/(2·curvature) is lost to a large transfer; 0 is none.
        cursed: stopped by its network or by a breaker.
    """

    bridge: bytes
    origin: ChainId
    destination: ChainId
    asset: bytes
    fee_fixed: int
    fee_ppm: int
    p50_ms: int
    p95_ms: int
    capacity: int
    security: BridgeClass
    verifier: bytes
    queue: int = 0
    curvature: int = 0
    cursed: bool = False

    @property
    def room(self) -> int:
        """Return what may still be sent."""
        return max(self.capacity - self.queue, 0)


Way = Swap | TickSwap | Lane


@dataclass(frozen=True, slots=True)
class Edge:
    """One usable direction of a swap or a lane."""

    origin: Place
    destination: Place
    way: Way

    @property
    def latency_ms(self) -> int:
        """Return the time to count on: the 95th percentile."""
        return self.way.p95_ms if isinstance(self.way, Lane) else self.way.latency_ms

    def key(self) -> tuple[object, ...]:
        """Return a sort key that all peers share."""
        kind = isinstance(self.way, Lane)
        name = self.way.bridge if isinstance(self.way, Lane) else self.way.venue
        return (self.origin, self.destination, kind, name)


@dataclass(frozen=True, slots=True)
class Graph:
    """What there is to route through."""

    swaps: tuple[Swap | TickSwap, ...] = ()
    lanes: tuple[Lane, ...] = ()

    def places(self) -> tuple[Place, ...]:
        """Return every place, sorted."""
        found = {Place(swap.chain, asset) for swap in self.swaps for asset in swap.assets}
        for lane in self.lanes:
            found |= {Place(lane.origin, lane.asset), Place(lane.destination, lane.asset)}
        return tuple(sorted(found))


def edges_of(way: Way) -> tuple[Edge, ...]:
    """Return the directions of a swap (two) or a lane (one)."""
    if isinstance(way, Lane):
        origin, destination = Place(way.origin, way.asset), Place(way.destination, way.asset)
        return (Edge(origin, destination, way),)
    first, second = (Place(way.chain, asset) for asset in way.assets)
    return Edge(first, second, way), Edge(second, first, way)


def fault_of(way: Way) -> str:
    """Return why a way cannot be as it says it is, or cannot be used by anyone, or nothing."""
    if not 0 <= way.fee_ppm < PPM:
        return "its fee takes all, or pays"
    if isinstance(way, Lane):
        if way.fee_fixed < 0 or way.curvature < 0:
            return "its fee pays, or it gains by size"
        return "no room left" if way.room <= way.fee_fixed else ""
    if isinstance(way, TickSwap):
        return "" if way.book.ranges() else "empty"
    return "" if min(*way.reserves, *way.weights) > 0 else "empty"


def free(edge: Edge, groups: Mapping[bytes, int]) -> int:
    """Return the most an edge takes, given what the verifiers' limits leave."""
    if not isinstance(edge.way, Lane):
        return (1 << 255) - 1
    return min(edge.way.room, groups.get(edge.way.verifier, 1 << 255))


def gives(edge: Edge, amount: int) -> int:
    """Return what an edge gives for an amount, rounded down, never more than its contract does."""
    if amount <= 0:
        return 0
    way = edge.way
    if isinstance(way, Lane):
        out = amount - ceil_div(amount * way.fee_ppm, PPM) - way.fee_fixed
        if way.curvature:
            out -= ceil_div(amount * amount, 2 * way.curvature)
        return max(out, 0)
    slot = 0 if edge.origin.asset == way.assets[0] else 1
    if isinstance(way, TickSwap):
        return sell(way.book, amount, down=slot == 0).brought
    into, out_of = way.reserves[slot], way.reserves[1 - slot]
    kept = amount * (PPM - way.fee_ppm)
    if way.weights[0] == way.weights[1]:
        return kept * out_of // (into * PPM + kept)
    power = _EXACT.divide(Decimal(way.weights[slot]), Decimal(way.weights[1 - slot]))
    ratio = _EXACT.divide(Decimal(into * PPM), Decimal(into * PPM + kept))
    left = _EXACT.power(ratio, power)
    return max(int(_EXACT.multiply(Decimal(out_of), _EXACT.subtract(Decimal(1), left))) - 1, 0)


def shape_of(way: Way, index: dict[Place, int], group: int, room: int) -> shapes.Pool:
    """Return the optimiser's form of a swap or a lane; a lane's fixed fee is left out.

    Leaving it out only raises the bound: a plan pays it when its amounts are worked out.
    """
    if isinstance(way, Lane):
        edge = edges_of(way)[0]
        return shapes.Bridge(
            (index[edge.origin], index[edge.destination]),
            (PPM - way.fee_ppm) / PPM,
            float(room),
            float(way.curvature) if way.curvature else float("inf"),
            group,
        )
    first, second = (index[Place(way.chain, asset)] for asset in way.assets)
    if isinstance(way, TickSwap):
        book = way.book
        gamma = (PPM - book.fee_ppm) / PPM
        return shapes.Concentrated((first, second), book.price, book.ranges(), gamma)
    reserves = (float(way.reserves[0]), float(way.reserves[1]))
    gamma = (PPM - way.fee_ppm) / PPM
    if way.weights[0] == way.weights[1]:
        return shapes.Product((first, second), reserves, gamma)
    weights = (float(way.weights[0]), float(way.weights[1]))
    return shapes.Weighted((first, second), reserves, weights, gamma)
