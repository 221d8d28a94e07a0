"""A routing graph as JSON, the form in which operators keep and exchange one.

    {"swaps": [{"chain", "venue", "assets", "reserves", "fee_ppm", "weights"?, "latency_ms"?},
               {"chain", "venue", "assets", "fee_ppm", "spacing", "sqrt_price", "tick",
                "liquidity", "ticks": [[tick, net], …], "words": [first, last], "latency_ms"?}],
     "lanes": [{"bridge", "origin", "destination", "asset", "fee_fixed", "fee_ppm", "p50_ms",
                "p95_ms", "capacity", "security", "verifier", "queue"?, "curvature"?, "cursed"?}]}

Addresses and verifiers are 0x text, assets are symbols, `security` is a class's name.
"""

import json
from typing import Any

from keeper.errors import ConfigError
from keeper.parameters import BridgeClass
from keeper.route.graph import Graph, Lane, Place, Swap, TickSwap
from keeper.route.ticks import TickBook
from keeper.units import ChainId, symbol, symbol_text


def graph_of(text: str, where: str) -> Graph:
    """Return the graph of a JSON text.

    Raises:
        ConfigError: the text is not a graph.
    """
    try:
        raw = json.loads(text)
        return Graph(
            tuple(_swap(row) for row in raw.get("swaps", ())),
            tuple(_lane(row) for row in raw.get("lanes", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"not a routing graph: {type(error).__name__} {error}",
            where=where,
            remedy="see docs/routing.md for the fields",
        ) from error


def plain_lane(lane: Lane) -> dict[str, Any]:
    """Return a lane as `graph_of` reads it."""
    return {
        "bridge": "0x" + lane.bridge.hex(),
        "origin": lane.origin,
        "destination": lane.destination,
        "asset": symbol_text(lane.asset),
        "fee_fixed": lane.fee_fixed,
        "fee_ppm": lane.fee_ppm,
        "p50_ms": lane.p50_ms,
        "p95_ms": lane.p95_ms,
        "capacity": str(lane.capacity),
        "security": lane.security.name.lower(),
        "verifier": "0x" + lane.verifier.hex(),
        "queue": str(lane.queue),
        "curvature": str(lane.curvature),
        "cursed": lane.cursed,
    }


def plain_swap(swap: Swap | TickSwap) -> dict[str, Any]:
    """Return a pool as `graph_of` reads it."""
    first, second = (symbol_text(asset) for asset in swap.assets)
    row: dict[str, Any] = {
        "chain": swap.chain,
        "venue": "0x" + swap.venue.hex(),
        "assets": [first, second],
        "fee_ppm": swap.fee_ppm,
        "latency_ms": swap.latency_ms,
    }
    if isinstance(swap, Swap):
        weights = [str(one) for one in swap.weights]
        return row | {"reserves": [str(one) for one in swap.reserves], "weights": weights}
    book = swap.book
    return row | {
        "spacing": book.spacing,
        "sqrt_price": str(book.sqrt_price),
        "tick": book.tick,
        "liquidity": str(book.liquidity),
        "ticks": [[tick, str(net)] for tick, net in book.crossings],
        "words": [book.first, book.last],
    }


def place_of(text: str) -> Place:
    """Return the place written as chain:SYMBOL.

    Raises:
        ConfigError: the text is something else.
    """
    chain, _, asset = text.partition(":")
    try:
        return Place(ChainId(int(chain)), symbol(asset))
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a place; write chain:SYMBOL, as 1:USDC") from error


def bytes_of(text: str, size: int) -> bytes:
    """Return so many bytes of 0x text.

    Raises:
        ValueError: the text is something else.
    """
    found = bytes.fromhex(text.removeprefix("0x"))
    if len(found) != size:
        raise ValueError(f"{text[:80]} is not {size} bytes")
    return found


def place_text(place: Place) -> str:
    """Return a place as `place_of` reads it."""
    return f"{place.chain}:{symbol_text(place.asset)}"


def _pair(row: dict[str, Any], name: str) -> tuple[int, int]:
    first, second = map(int, row[name])
    return first, second


def _swap(row: dict[str, Any]) -> Swap | TickSwap:
    first, second = row["assets"]
    place = ChainId(int(row["chain"])), bytes_of(row["venue"], 20), (symbol(first), symbol(second))
    if "ticks" in row:
        return TickSwap(*place, _book(row), int(row.get("latency_ms", 0)))
    return Swap(
        *place,
        _pair(row, "reserves"),
        int(row["fee_ppm"]),
        _pair(row, "weights") if "weights" in row else (1, 1),
        int(row.get("latency_ms", 0)),
    )


def _book(row: dict[str, Any]) -> TickBook:
    return TickBook(
        int(row["spacing"]),
        int(row["fee_ppm"]),
        int(row["sqrt_price"]),
        int(row["tick"]),
        int(row["liquidity"]),
        tuple((int(tick), int(net)) for tick, net in row["ticks"]),
        *_pair(row, "words"),
    )


def _lane(row: dict[str, Any]) -> Lane:
    return Lane(
        bytes_of(row["bridge"], 20),
        ChainId(int(row["origin"])),
        ChainId(int(row["destination"])),
        symbol(row["asset"]),
        int(row["fee_fixed"]),
        int(row["fee_ppm"]),
        int(row["p50_ms"]),
        int(row["p95_ms"]),
        int(row["capacity"]),
        BridgeClass[str(row["security"]).upper()],
        bytes_of(row["verifier"], 32),
        int(row.get("queue", 0)),
        int(row.get("curvature", 0)),
        bool(row.get("cursed", False)),
    )
