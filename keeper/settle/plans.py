"""A plan as a file, and what whoever is asked to pay a part of it checks before it does.

    quote ─▶ plan.json ─▶ read_plan ─▶ over the lanes as they are here ─▶ check_quote ─┐
    flow.json ─▶ legs ─────────────────▶ every payment of the plan is there? ──────────┴▶ faults

The file is somebody else's. It says which lanes carry how much, and prices that bound what any
plan could deliver; what lanes cost, take and last is read here, never from it. What it leaves out
cannot make its bound look tight: no lane may be excluded, its deadline may shut out no lane that is
in time by this node's own view of the account, and deposits are those that the reader expects. Its
certificate has no loads, since no verifier is limited, and its value is what the plan delivers.
A route's plan (keeper/route/plans.py) is for readers of one and the same graph; two readers of
makers' lanes see them a moment apart: prices are named by their places here, and times left out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keeper.errors import ConfigError
from keeper.network import NetworkSpec
from keeper.route.amounts import Hop
from keeper.route.bound import Certificate
from keeper.route.files import place_of
from keeper.route.graph import Edge, Graph, Lane, Place, edges_of
from keeper.route.plans import place_text
from keeper.route.quote import Quote, Request, check_quote, name_of, usable
from keeper.settle.lanes import MAX_OFFERS
from keeper.settle.migration import legs_of
from keeper.settle.terms import MAX_LEGS, read_address
from keeper.units import PPM, ChainId, symbol, symbol_text
from keeper.venue.escrow import Leg

MAX_PRICES = 2 * MAX_OFFERS + 2
"""Places a certificate prices: the ends of the most lanes there can be, and of the plan."""
_MOST = 1 << 256

Way = tuple[bytes, ChainId, ChainId, bytes]
"""What names a lane: bridge, origin, destination, asset."""


@dataclass(frozen=True, slots=True)
class Step:
    """One lane of a plan: what goes in, and the least that comes out."""

    way: Way
    amount: int
    least_out: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a file claims; nothing of it is checked yet.

    Args:
        request: what was asked; it excludes nothing and limits no verifier.
        steps: in an order in which funds are there when they are needed.
        sent, delivered: what leaves the origin and what arrives.
        prices, bound: of the certificate, by place; 2**-96 units.
        owner: who pays at the origin.
        account: margin account at the destination.
        deposit_ppm: of every payment.
    """

    request: Request
    steps: tuple[Step, ...]
    sent: int
    delivered: int
    prices: tuple[tuple[Place, int], ...]
    bound: int
    owner: bytes
    account: bytes
    deposit_ppm: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What is wrong with a plan or the flow that is to carry it out, and the flow's other legs."""

    faults: tuple[str, ...]
    beyond: tuple[Leg, ...]


def plan_of(graph: Graph, found: Quote, owner: bytes, account: bytes, deposit_ppm: int) -> Plan:
    """Return the plan of a quote over lanes."""
    steps = tuple(
        Step(_way(hop.edge.way), hop.amount, hop.least_out)
        for hop in found.hops
        if isinstance(hop.edge.way, Lane)
    )
    certificate = found.certificate
    prices = tuple(zip(_places(graph, found.request), certificate.prices, strict=True))
    return Plan(
        found.request,
        steps,
        found.sent,
        found.delivered,
        prices,
        certificate.bound,
        owner,
        account,
        deposit_ppm,
    )


def _way(lane: Lane) -> Way:
    return lane.bridge, lane.origin, lane.destination, lane.asset


def _places(graph: Graph, request: Request) -> tuple[Place, ...]:
    """Return the places that a certificate prices, in its order."""
    fit, _ = usable(graph, request)
    return tuple(sorted({*fit.places(), request.origin, request.destination}))


# as a file


def plain_plan(plan: Plan) -> dict[str, Any]:
    """Return what `read_plan` reads. Prices are text: they do not fit a JSON number."""
    return {
        "from": place_text(plan.request.origin),
        "to": place_text(plan.request.destination),
        "amount": plan.request.amount,
        "deadline_ms": plan.request.deadline_ms,
        "payer": "0x" + plan.owner.hex(),
        "account": "0x" + plan.account.hex(),
        "deposit_ppm": plan.deposit_ppm,
        "hops": [
            {
                "bridge": "0x" + bridge.hex(),
                "origin": origin,
                "destination": destination,
                "asset": symbol_text(asset),
                "amount": step.amount,
                "least_out": step.least_out,
            }
            for step in plan.steps
            for bridge, origin, destination, asset in (step.way,)
        ],
        "sent": plan.sent,
        "delivered": plan.delivered,
        "certificate": {
            "prices": {place_text(place): str(price) for place, price in plan.prices},
            "bound": plan.bound,
        },
    }


def read_plan(value: object, where: str) -> Plan:
    """Return the plan of a JSON object.

    Raises:
        ConfigError: it is no such object, or has a field too many.
    """
    try:
        row = _only(
            value,
            "from to amount deadline_ms payer account deposit_ppm hops sent delivered certificate",
        )
        certificate = _only(row["certificate"], "prices bound")
        prices, account = certificate["prices"], bytes.fromhex(row["account"].removeprefix("0x"))
        if len(account) != 32:
            raise ValueError("account is not 32 bytes")
        if not isinstance(row["hops"], list) or not 0 < len(row["hops"]) < MAX_LEGS:
            raise ValueError(f"1 to {MAX_LEGS - 1} hops")
        if not isinstance(prices, dict) or len(prices) > MAX_PRICES:
            raise ValueError(f"at most {MAX_PRICES} prices")
        ends = place_of(row["from"]), place_of(row["to"])
        request = Request(*ends, _number(row["amount"]), _number(row["deadline_ms"], 0))
        if request.origin == request.destination:
            raise ValueError("it moves nothing")
        return Plan(
            request,
            tuple(map(_step, row["hops"])),
            _number(row["sent"]),
            _number(row["delivered"]),
            tuple((place_of(place), _price(price)) for place, price in prices.items()),
            _number(certificate["bound"]),
            read_address(row["payer"]),
            account,
            _number(row["deposit_ppm"], 0, PPM + 1),
        )
    except (AttributeError, KeyError, TypeError, ValueError, ConfigError) as error:
        raise ConfigError(
            f"cannot read the plan: {type(error).__name__} {error}",
            where=where,
            remedy="keeper flow plan --plan writes such a file",
        ) from error


def _only(value: object, names: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names.split()):
        raise ValueError(f"an object of exactly {names}")
    return value


def _number(value: object, least: int = 1, most: int = _MOST) -> int:
    if type(value) is not int or not least <= value < most:
        raise ValueError(f"{str(value)[:80]!r} is no amount")
    return value


def _price(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(_MOST)):
        raise ValueError(f"{text[:80]!r} is no price")
    return int(text)


def _step(value: object) -> Step:
    row = _only(value, "bridge origin destination asset amount least_out")
    ends = ChainId(_number(row["origin"])), ChainId(_number(row["destination"]))
    way = (read_address(row["bridge"]), *ends, symbol(row["asset"]))
    return Step(way, _number(row["amount"]), _number(row["least_out"]))


# as a second payer sees it


def check_plan(
    network: NetworkSpec,
    graph: Graph,
    plan: Plan,
    legs: Sequence[Leg],
    *,
    deadline_ms: int,
    allowed_ppb: int,
) -> Checked:
    """Return what is wrong with a plan, and with the flow that is to carry it out.

    Args:
        network: the descriptor.
        graph: the lanes as this node sees them.
        plan: as somebody wrote it.
        legs: of the flow.
        deadline_ms: how long the account surely holds by this node's view, 0: long enough.
        allowed_ppb: largest gap to accept.
    """
    faults = [*_untimely(graph, plan, deadline_ms), *overdrawn(graph, plan)]
    answer = _answer(graph, plan)
    if isinstance(answer, str):
        return Checked((*faults, answer), ())
    wrong = check_quote(graph, plan.request, answer, allowed_ppb)
    if wrong is not None:
        taken = {name_of(hop.edge.way) for hop in answer.hops}
        faults += [wrong, *(f"{name}: {why}" for name, why in answer.left_out if name in taken)]
    if 0 < deadline_ms < answer.latency_ms:
        late = f"{answer.latency_ms} ms on the way, and the account surely holds {deadline_ms} ms"
        faults.append(late)
    try:
        planned = legs_of(
            network, answer, owner=plan.owner, account=plan.account, deposit_ppm=plan.deposit_ppm
        )
    except (KeyError, ValueError) as error:
        return Checked((*faults, f"the plan cannot be paid: {error}"), ())
    lacking = Counter(map(_bare, planned)) - Counter(map(_bare, legs))
    faults += [f"the flow lacks a payment of the plan: {_said(leg)}" for leg in lacking.elements()]
    rest = Counter(map(_bare, planned))
    beyond = []
    for leg in legs:
        if rest[_bare(leg)]:
            rest[_bare(leg)] -= 1
        else:
            beyond.append(leg)
    return Checked(tuple(faults), tuple(beyond))


def overdrawn(graph: Graph, plan: Plan) -> list[str]:
    """Return a fault for every maker that pays at one place for several lanes more than it has.

    The room of each of its lanes there is all that it has, and an optimiser fills every one.
    """
    room: dict[tuple[bytes, Place], int] = {}
    for lane in graph.lanes:
        key = lane.bridge, Place(lane.destination, lane.asset)
        room[key] = max(room.get(key, 0), lane.room)
    taken: dict[tuple[bytes, Place], list[int]] = {}
    for step in plan.steps:
        bridge, _, destination, asset = step.way
        taken.setdefault((bridge, Place(destination, asset)), []).append(step.amount)
    return [
        f"the lanes of 0x{bridge.hex()} to {place_text(place)} are to bring {sum(amounts)}, "
        f"and it has enough for {room.get((bridge, place), 0)}"
        for (bridge, place), amounts in taken.items()
        if len(amounts) > 1 and sum(amounts) > room.get((bridge, place), 0)
    ]


def _bare(leg: Leg) -> Leg:
    """Return a leg without what the plan leaves open: its deposit and its place in the flow."""
    return replace(leg, deposit=0, index=0)


def _said(leg: Leg) -> str:
    return f"{leg.amount} on chain {leg.chain} by 0x{leg.payer.hex()} for 0x{leg.receiver.hex()}"


def _untimely(graph: Graph, plan: Plan, deadline_ms: int) -> list[str]:
    """Return a fault for every lane that the plan's deadline shuts out and this node's does not."""
    ours, _ = usable(graph, replace(plan.request, deadline_ms=deadline_ms))
    theirs, _ = usable(graph, plan.request)
    shut = sorted(_way(lane) for lane in set(ours.lanes) - set(theirs.lanes))
    return [
        f"its deadline of {plan.request.deadline_ms} ms shuts out the lane of 0x{bridge.hex()}"
        f" {origin}→{destination}, which is in time"
        for bridge, origin, destination, _ in shut
    ]


def _answer(graph: Graph, plan: Plan) -> Quote | str:
    """Return the plan over this node's lanes, or what it names that is not there."""
    lanes = {_way(lane): lane for lane in graph.lanes}
    ready: dict[Place, int] = {}
    hops = []
    for step in plan.steps:
        lane = lanes.get(step.way)
        if lane is None:
            bridge, origin, destination, _ = step.way
            return f"no offer is for the lane of 0x{bridge.hex()} {origin}→{destination}"
        edge: Edge = edges_of(lane)[0]
        done = ready.get(edge.origin, 0) + edge.latency_ms
        ready[edge.destination] = max(ready.get(edge.destination, 0), done)
        hops.append(Hop(edge, step.amount, step.least_out, done))
    prices = dict(plan.prices)
    places = _places(graph, plan.request)
    unpriced = [place_text(place) for place in places if place not in prices]
    if unpriced:
        return f"its certificate has no price for {', '.join(unpriced)}"
    certificate = Certificate(
        tuple(prices[place] for place in places), (), plan.delivered, plan.bound
    )
    _, left_out = usable(graph, plan.request)
    return Quote(plan.request, tuple(hops), plan.sent, plan.delivered, certificate, "", left_out)
