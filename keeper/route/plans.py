"""A plan as JSON: what one keeper or payer shows another, read back against the reader's own graph.

    Quote ─▶ plan_of ─▶ Plan ─▶ {request, hops, sent, delivered, certificate}
                                    ─▶ read_plan ─▶ Plan ─▶ quote_of(own graph) ─▶ check_quote

Two readers' graphs differ, so a hop is named by its venue or bridge and its ends, a price by its
place, a load by its verifier. What a way costs, takes and lasts is the reader's own: times are not
in the plan. Reading believes nothing; whether a plan keeps what it says is for `check_quote`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from keeper.errors import ConfigError
from keeper.route.amounts import Hop
from keeper.route.bound import Certificate
from keeper.route.files import bytes_of, place_of, place_text
from keeper.route.graph import Edge, Graph, Lane, Place, edges_of
from keeper.route.quote import Quote, Request, limits_of, priced, usable

MAX_ROWS = 4_096
"""Hops, prices, loads of a plan that is read, each: far more than any route has."""
_MOST = 1 << 256
Name = TypeVar("Name", bytes, Place)
Ends = tuple[bytes, Place, Place]
"""What names a way in one direction: venue or bridge, origin, destination."""


@dataclass(frozen=True, slots=True)
class Step:
    """One way of a plan: what goes in, and the least that comes out."""

    ends: Ends
    amount: int
    least_out: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a file claims; nothing of it is checked yet.

    Args:
        request: what was asked.
        steps: in an order in which funds are there when they are needed.
        sent, delivered: what leaves the origin and what arrives.
        prices, loads: of the certificate, by place and by limited verifier; 2**-96 units.
        bound: what no plan can exceed.
    """

    request: Request
    steps: tuple[Step, ...]
    sent: int
    delivered: int
    prices: tuple[tuple[Place, int], ...]
    loads: tuple[tuple[bytes, int], ...]
    bound: int


def plan_of(graph: Graph, found: Quote) -> Plan:
    """Return the plan of a quote over this graph."""
    request, sealed = found.request, found.certificate
    fit, _ = usable(graph, request)
    verifiers = (verifier for verifier, _ in limits_of(request))
    return Plan(
        request,
        tuple(Step(_ends(hop.edge), hop.amount, hop.least_out) for hop in found.hops),
        found.sent,
        found.delivered,
        tuple(zip(priced(fit, request), sealed.prices, strict=True)),
        tuple(zip(verifiers, sealed.loads, strict=True)),
        sealed.bound,
    )


def quote_of(graph: Graph, plan: Plan) -> Quote | str:
    """Return the plan over the reader's own graph, or what it names or lacks that is there not."""
    ways = (*graph.swaps, *graph.lanes)
    edges = {_ends(edge): edge for way in ways for edge in edges_of(way)}
    ready: dict[Place, int] = {}
    hops = []
    for step in plan.steps:
        edge = edges.get(step.ends)
        if edge is None:
            venue, start, end = step.ends
            return f"no way through 0x{venue.hex()} from {place_text(start)} to {place_text(end)}"
        done = ready.get(edge.origin, 0) + edge.latency_ms
        ready[edge.destination] = max(ready.get(edge.destination, 0), done)
        hops.append(Hop(edge, step.amount, step.least_out, done))
    fit, left_out = usable(graph, plan.request)
    prices, places = dict(plan.prices), priced(fit, plan.request)
    lacking = [place_text(place) for place in places if place not in prices]
    if lacking:
        return f"its certificate has no price for {', '.join(lacking)}"
    ours, loads = tuple(prices[place] for place in places), tuple(load for _, load in plan.loads)
    sealed = Certificate(ours, loads, plan.delivered, plan.bound)
    return Quote(plan.request, tuple(hops), plan.sent, plan.delivered, sealed, "", left_out)


def _ends(edge: Edge) -> Ends:
    venue = edge.way.bridge if isinstance(edge.way, Lane) else edge.way.venue
    return venue, edge.origin, edge.destination


# as a file


def plain_plan(plan: Plan) -> dict[str, Any]:
    """Return what `read_plan` reads. Prices and loads are text: they do not fit a JSON number."""
    request = plan.request
    return {
        "request": {
            "from": place_text(request.origin),
            "to": place_text(request.destination),
            "amount": request.amount,
            "deadline_ms": request.deadline_ms,
            "limits": {"0x" + name.hex(): limit for name, limit in request.exposure},
            "exclude": ["0x" + bridge.hex() for bridge in sorted(request.exclude)],
        },
        "hops": [
            {
                "venue": "0x" + venue.hex(),
                "from": place_text(start),
                "to": place_text(end),
                "amount": step.amount,
                "least_out": step.least_out,
            }
            for step in plan.steps
            for venue, start, end in (step.ends,)
        ],
        "sent": plan.sent,
        "delivered": plan.delivered,
        "certificate": {
            "prices": {place_text(place): str(price) for place, price in plan.prices},
            "loads": {"0x" + name.hex(): str(load) for name, load in plan.loads},
            "bound": plan.bound,
        },
    }


def read_plan(value: object, where: str) -> Plan:
    """Return the plan of a JSON object.

    Raises:
        ConfigError: it is no such object, or has a field too many.
    """
    try:
        row = only(value, "request hops sent delivered certificate")
        request = _request(row["request"])
        sealed = only(row["certificate"], "prices loads bound")
        loads = _named(sealed["loads"], _verifier, _fraction)
        if [name for name, _ in loads] != [name for name, _ in limits_of(request)]:
            raise ValueError("loads of other verifiers than are limited")
        return Plan(
            request,
            tuple(map(_step, _rows(row["hops"]))),
            amount(row["sent"], 0),
            amount(row["delivered"], 0),
            _named(sealed["prices"], place_of, _fraction),
            loads,
            amount(sealed["bound"]),
        )
    except (AttributeError, TypeError, ValueError, ConfigError) as error:
        raise ConfigError(
            f"cannot read the plan: {type(error).__name__} {error}",
            where=where,
            remedy="keeper route quote --json and keeper flow plan --plan write one",
        ) from error


def only(value: object, names: str) -> Mapping[str, Any]:
    """Return an object of exactly these fields.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, dict) or set(value) != set(names.split()):
        raise ValueError(f"an object of exactly {names}")
    return value


def amount(value: object, least: int = 1, most: int = _MOST) -> int:
    """Return an integer from `least` to below `most`.

    Raises:
        ValueError: it is something else.
    """
    if type(value) is not int or not least <= value < most:
        raise ValueError(f"{str(value)[:80]!r} is no amount")
    return value


def _request(value: object) -> Request:
    row = only(value, "from to amount deadline_ms limits exclude")
    origin, destination = place_of(row["from"]), place_of(row["to"])
    if origin == destination:
        raise ValueError("it moves nothing")
    return Request(
        origin,
        destination,
        amount(row["amount"]),
        amount(row["deadline_ms"], 0),
        _named(row["limits"], _verifier, lambda limit: amount(limit, 0)),
        frozenset(bytes_of(bridge, 20) for bridge in _rows(row["exclude"])),
    )


def _step(value: object) -> Step:
    row = only(value, "venue from to amount least_out")
    ends = bytes_of(row["venue"], 20), place_of(row["from"]), place_of(row["to"])
    return Step(ends, amount(row["amount"]), amount(row["least_out"]))


def _rows(value: object) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_ROWS:
        raise ValueError(f"a list of at most {MAX_ROWS}")
    return value


def _named(
    value: object, name: Callable[[str], Name], number: Callable[[Any], int]
) -> tuple[tuple[Name, int], ...]:
    if not isinstance(value, dict) or len(value) > MAX_ROWS:
        raise ValueError(f"an object of at most {MAX_ROWS}")
    found = {name(key): number(entry) for key, entry in value.items()}
    if len(found) < len(value):
        raise ValueError("something is named twice")
    return tuple(sorted(found.items()))


def _verifier(text: str) -> bytes:
    return bytes_of(text, 32)


def _fraction(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > len(str(_MOST)):
        raise ValueError(f"{text[:80]!r} is no price or load")
    return int(text)
