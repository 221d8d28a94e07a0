"""A plan as JSON: what one keeper or payer shows another, read back against the reader's own graph.

    Quote ─▶ {request, hops, sent, delivered, bound, prices, loads} ─▶ plan_of(own graph) ─▶ Quote
                                                                        ─▶ check_quote

Reading believes nothing: a hop is found among the reader's own ways or it is a fault, and whether
the plan keeps what it says is for `check_quote`.
"""

import json
from typing import Any

from keeper.errors import ConfigError
from keeper.route.amounts import Hop
from keeper.route.bound import Certificate
from keeper.route.files import place_of
from keeper.route.graph import Edge, Graph, Lane, Place, Way, edges_of
from keeper.route.quote import Quote, Request, name_of
from keeper.units import symbol_text

MAX_HOPS = 4_096
"""Hops, prices, limits of a plan that is read, each: far more than any route has."""


def plain_plan(found: Quote) -> dict[str, Any]:
    """Return a plan as `plan_of` reads it, and what is of use to a person beside it."""
    sealed, request = found.certificate, found.request
    return {
        "request": {
            "from": place_text(request.origin),
            "to": place_text(request.destination),
            "amount": request.amount,
            "deadline_ms": request.deadline_ms,
            "limits": {"0x" + name.hex(): limit for name, limit in request.exposure},
            "exclude": ["0x" + bridge.hex() for bridge in sorted(request.exclude)],
        },
        "sent": found.sent,
        "delivered": found.delivered,
        "bound": sealed.bound,
        "gap_ppb": sealed.gap_ppb,
        "prices_x96": [str(price) for price in sealed.prices],
        "loads_x96": [str(load) for load in sealed.loads],
        "latency_ms": found.latency_ms,
        "router": found.solver,
        "hops": [
            {
                "through": name_of(hop.edge.way),
                "venue": "0x" + _venue(hop.edge.way).hex(),
                "from": place_text(hop.edge.origin),
                "to": place_text(hop.edge.destination),
                "amount": hop.amount,
                "least_out": hop.least_out,
                "done_ms": hop.done_ms,
            }
            for hop in found.hops
        ],
        "left_out": [{"way": way, "why": why} for way, why in found.left_out],
    }


def place_text(place: Place) -> str:
    """Return a place as `place_of` reads it."""
    return f"{place.chain}:{symbol_text(place.asset)}"


def plan_of(text: str, graph: Graph, where: str) -> Quote:
    """Return the plan of a JSON text over the reader's own graph.

    Raises:
        ConfigError: the text is no plan, or it uses a way that is not in this graph.
    """
    edges = {
        (_venue(way), edge.origin, edge.destination): edge
        for way in (*graph.swaps, *graph.lanes)
        for edge in edges_of(way)
    }
    try:
        if text.count("[") + text.count("{") > 2 * MAX_HOPS:  # before the parser recurses into them
            raise ValueError("too many lists and objects")
        raw = json.loads(text)
        for name in ("hops", "prices_x96", "loads_x96"):
            if len(raw[name]) > MAX_HOPS:
                raise ValueError(f"{len(raw[name])} {name}")
        sealed = Certificate(
            tuple(int(price) for price in raw["prices_x96"]),
            tuple(int(load) for load in raw["loads_x96"]),
            _number(raw, "delivered"),
            _number(raw, "bound"),
        )
        hops = tuple(_hop(row, edges) for row in raw["hops"])
        request = _request(raw["request"])
        return Quote(request, hops, _number(raw, "sent"), sealed.value, sealed, "")
    except (
        ConfigError,
        AttributeError,
        KeyError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise ConfigError(
            f"not a plan over this graph: {type(error).__name__} {error}",
            where=where,
            remedy="keeper route quote --json writes one; does the graph have its ways?",
        ) from error


def _request(raw: dict[str, Any]) -> Request:
    limits = sorted((_raw(name), _number(raw["limits"], name)) for name in raw["limits"])
    start, end = place_of(raw["from"]), place_of(raw["to"])
    if start == end:
        raise ValueError(f"{raw['from']} is both ends")
    return Request(
        start,
        end,
        _number(raw, "amount"),
        _number(raw, "deadline_ms"),
        tuple(limits),
        frozenset(_raw(bridge) for bridge in raw["exclude"]),
    )


def _hop(row: dict[str, Any], edges: dict[tuple[bytes, Place, Place], Edge]) -> Hop:
    key = (_raw(row["venue"]), place_of(row["from"]), place_of(row["to"]))
    if key not in edges:
        raise ValueError(f"no way through {row['venue']} from {row['from']} to {row['to']}")
    amounts = (_number(row, name) for name in ("amount", "least_out", "done_ms"))
    return Hop(edges[key], *amounts)


def _number(row: dict[str, Any], name: str) -> int:
    number: int = row[name]
    if type(number) is not int or not 0 <= number < 1 << 256:
        raise ValueError(f"{name} is no amount")
    return number


def _raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _venue(way: Way) -> bytes:
    return way.bridge if isinstance(way, Lane) else way.venue
