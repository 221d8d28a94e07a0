"""The built-in routing policy: keep this keeper's own funds where they will be needed.

    inventory ─▶ (s, S) per place, in flight counted ─▶ short and spare places ─▶ the best lanes
    outflow remembered from view to view               cost ≤ max_cost_ppm? p95 ≤ deadline?

It bids for nothing: its steps move the keeper's own funds over bridges. In flight counted, an order
is placed once and not again in every view until it arrives. What its own moves take from a place or
bring there is no demand: forecasts that counted it would chase themselves. Where the view does not
tell, it is guessed from what is in flight.
"""

import hashlib
from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from keeper.route.forecast import Demand, Levels, Stock, levels, order, spare
from keeper.units import PPM, ceil_div, symbol_text
from policies.api import (
    Act,
    BridgeQuote,
    Decision,
    Holding,
    Kind,
    Manifest,
    MarketView,
    PlanStep,
    Skip,
    Wide,
    decoder,
    encoder,
)

Key = tuple[int, bytes]
_MOST = (1 << 126) - 1


class RoutingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator may set."""

    floor: Annotated[
        int, msgspec.Meta(ge=0, description="Least to keep of every asset at every place.")
    ] = 0
    weight_ppm: Annotated[
        int, msgspec.Meta(ge=1, le=PPM, description="Weight of the newest outflow.")
    ] = 200_000
    holding_ppm_per_day: Annotated[
        int, msgspec.Meta(ge=1, le=PPM, description="Cost of idle funds per day.")
    ] = 200
    max_cost_ppm: Annotated[
        int, msgspec.Meta(ge=0, le=PPM, description="Most to pay for a transfer.")
    ] = 3_000
    deadline_ms: Annotated[
        int, msgspec.Meta(ge=1_000, description="Slowest lane to use, 95th percentile.")
    ] = 3_600_000
    max_security: Annotated[
        int, msgspec.Meta(ge=0, le=3, description="Worst class to use: 3 is a multisig.")
    ] = 2


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """One place in the view before: what was there, and the outflow estimated until then."""

    chain: int
    asset: bytes
    held: Wide
    in_flight: Wide
    mean: Wide
    deviation: Wide


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """A move proposed in the view before."""

    origin: int
    destination: int
    asset: bytes
    amount: Wide


class Memory(msgspec.Struct, frozen=True, array_like=True):
    """What is remembered from view to view."""

    now_ms: int
    seen: tuple[Seen, ...]
    sent: tuple[Sent, ...]


class Routing:
    """Moves inventory from where it is spare to where it runs short."""

    manifest: ClassVar[Manifest] = Manifest(
        kind=Kind.ROUTING, config=RoutingConfig, wants=("inventory", "bridges")
    )

    def __init__(self, config: RoutingConfig | None = None) -> None:
        self.config = config or RoutingConfig()

    def decide(self, view: MarketView, state: bytes) -> tuple[Sequence[Decision], bytes]:
        """Return one move per place that runs short, and the outflow seen so far."""
        holdings = {(row.chain, row.asset): row for row in view.inventory}
        demand = self._demand(view, holdings, _remembered(state))
        rules = {key: self._levels(key, demand[key], view) for key in holdings}
        left = {key: spare(_stock(row), rules[key]) for key, row in holdings.items()}
        decisions: list[Decision] = []
        for key in sorted(holdings):
            wanted = order(_stock(holdings[key]), rules[key])
            if wanted > 0:
                decisions.append(self._fill(key, wanted, view, left))
        return decisions, _pack(view, demand, holdings, decisions)

    def _levels(self, key: Key, demand: Demand, view: MarketView) -> Levels:
        lanes = [lane for lane in self._lanes(view) if (lane.destination, lane.asset) == key]
        lead = min((lane.p95_ms for lane in lanes), default=0)
        fixed = min((lane.fee_fixed + lane.coin_cost for lane in lanes), default=0)
        found = levels(demand, lead, fixed, self.config.holding_ppm_per_day)
        lift = max(self.config.floor - found.low, 0)
        return Levels(found.low + lift, found.high + lift)

    def _lanes(self, view: MarketView) -> list[BridgeQuote]:
        """Return the lanes to count on; one that is full now still says how long it takes."""
        stopped = {row.scope for row in view.breakers if row.level >= 2}
        return [
            lane
            for lane in view.bridges
            if lane.p95_ms <= self.config.deadline_ms
            and lane.security <= self.config.max_security
            and bytes(32) not in stopped
            and lane.bridge.ljust(32, b"\0") not in stopped
        ]

    def _fill(self, key: Key, wanted: int, view: MarketView, left: dict[Key, int]) -> Decision:
        """Return the cheapest transfer towards a short place; the rest waits for the next view."""
        best: tuple[int, int, bytes, int, BridgeQuote] | None = None
        for lane in self._lanes(view):
            if (lane.destination, lane.asset) != key:
                continue
            free = min(left.get((lane.origin, lane.asset), 0), int(lane.capacity))
            amount = min(ceil_div((wanted + lane.fee_fixed) * PPM, PPM - lane.fee_ppm), free)
            if lane.fee_ppm >= PPM or amount <= lane.fee_fixed:
                continue
            cost = ceil_div(amount * lane.fee_ppm, PPM) + lane.fee_fixed + lane.coin_cost
            rate = ceil_div(cost * PPM, amount)
            if rate > self.config.max_cost_ppm:
                continue
            offer = (rate, lane.p95_ms, lane.bridge, amount, lane)
            best = offer if best is None or offer[:3] < best[:3] else best
        name = f"{symbol_text(key[1])} on chain {key[0]}"
        mark = hashlib.sha256(b"routing" + key[0].to_bytes(8, "big") + key[1]).digest()
        if best is None:
            return Skip(mark, f"{name} is {wanted} short and no lane brings it within the limits")
        rate, _, _, amount, lane = best
        left[(lane.origin, lane.asset)] -= amount
        least = amount - ceil_div(amount * lane.fee_ppm, PPM) - lane.fee_fixed
        step = PlanStep(
            "move",
            lane.origin,
            "bridge",
            lane.bridge,
            (
                ("amount", Wide(amount)),
                ("destination", Wide(lane.destination)),
                ("least_out", Wide(least)),
            ),
            (("asset", lane.asset),),
        )
        why = f"{name} is {wanted} short; {amount} from chain {lane.origin} at {rate} ppm"
        return Act(mark, 0, Wide(amount), self.config.deadline_ms, why, 0, (step,))

    def _demand(
        self, view: MarketView, holdings: dict[Key, Holding], memory: Memory | None
    ) -> dict[Key, Demand]:
        demand = {key: Demand() for key in holdings}
        if memory is None:
            return demand
        moved = _own_moves(memory, holdings)
        for before in memory.seen:
            key = (before.chain, before.asset)
            row = holdings.get(key)
            if row is not None:
                arrived = max(int(before.in_flight) - int(row.in_flight), 0)
                own = arrived - moved.get(key, 0) if row.own is None else int(row.own)
                out = int(before.held) + own - int(row.available)
                known = Demand(int(before.mean), int(before.deviation))
                span = view.now_ms - memory.now_ms
                demand[key] = known.after(out, span, self.config.weight_ppm)
        return demand


def _own_moves(memory: Memory, holdings: dict[Key, Holding]) -> dict[Key, int]:
    """Return what this keeper's own moves took from places: those whose target has more coming."""
    coming = {(one.chain, one.asset): int(one.in_flight) for one in memory.seen}
    moved: dict[Key, int] = {}
    for one in memory.sent:
        target = (one.destination, one.asset)
        row = holdings.get(target)
        if row is not None and int(row.in_flight) > coming.get(target, 0):
            origin = (one.origin, one.asset)
            moved[origin] = moved.get(origin, 0) + int(one.amount)
    return moved


def _remembered(state: bytes) -> Memory | None:
    """Return what was packed, or nothing: an older version's memory is worth no fault."""
    if not state:
        return None
    try:
        memory: Memory = decoder(Memory)(state)
    except (msgspec.MsgspecError, ValueError):
        return None
    return memory


def _pack(
    view: MarketView,
    demand: dict[Key, Demand],
    holdings: dict[Key, Holding],
    decisions: Sequence[Decision],
) -> bytes:
    seen = tuple(
        Seen(
            *key,
            holdings[key].available,
            holdings[key].in_flight,
            _kept(known.mean),
            _kept(known.deviation),
        )
        for key, known in sorted(demand.items())
    )
    sent = []
    for one in decisions:
        if isinstance(one, Act):
            (step,) = one.steps
            numbers, blobs = dict(step.numbers), dict(step.blobs)
            target = int(numbers["destination"])
            sent.append(Sent(step.chain, target, blobs["asset"], numbers["amount"]))
    return encoder().encode(Memory(view.now_ms, seen, tuple(sent)))


def _kept(rate: int) -> Wide:
    """Return a rate as it fits into memory: what is larger has no meaning as money."""
    return Wide(max(min(rate, _MOST), -_MOST))


def _stock(row: Holding) -> Stock:
    return Stock(int(row.available), int(row.in_flight), int(row.reserved))
