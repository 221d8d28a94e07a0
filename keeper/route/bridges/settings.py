"""`[bridges.NAME]` of `keeper.toml`: which warp routes this keeper validates and delivers.

    [bridges.usdc]
    kind = "hyperlane"
    asset = "USDC"
    validators = ["0x…", "0x…", "0x…", "0x…"]        # in the multisig's order
    threshold = 3
    p95_s = 60                                        # what a transfer takes; p50_s too, or half
    [bridges.usdc.chains.1]
    domain = 1                                        # the chain's number in Hyperlane
    router = "0x…"  mailbox = "0x…"  hook = "0x…"  module = "0x…"
    token = "0x…"                                     # where the router holds collateral
    first_block = 0                                   # from which the hook's leaves are read

All routes share validators, and on each chain mailbox, hook and module: one courier serves them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keeper.errors import ConfigError
from keeper.route.bridges.hyperlane import End, Hyperlane
from keeper.route.bridges.port import Timing
from keeper.units import BlockNumber, ChainId, symbol

_ROUTE = {"kind", "asset", "validators", "threshold", "p50_s", "p95_s", "chains"}
_END = {"domain", "router", "mailbox", "hook", "module", "token", "first_block"}


@dataclass(frozen=True, slots=True)
class Routes:
    """The configured routes, and from which block each chain's leaves are read."""

    routes: tuple[Hyperlane, ...]
    first_blocks: tuple[tuple[ChainId, BlockNumber], ...]


def routes_of(
    sections: Mapping[str, Mapping[str, Any]], verifier: bytes, where: str
) -> Routes | None:
    """Return the configured routes, or None if there are none.

    Args:
        sections: by name.
        verifier: who can break what keepers validate, 32 bytes.
        where: the file, for an error.

    Raises:
        ConfigError: a key is unknown or missing, a value is impossible, or routes do not fit.
    """
    routes: list[Hyperlane] = []
    starts: dict[ChainId, BlockNumber] = {}
    for name, row in sorted(sections.items()):
        try:
            route, first = _route(row, verifier)
            if routes and not _fits(routes[0], route):
                raise ValueError("it has other validators or contracts than the routes before")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            said = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise ConfigError(
                f"[bridges.{name}]: {said}", where=where, remedy="docs/routing.md shows a section"
            ) from error
        routes.append(route)
        starts |= {chain: min(number, starts.get(chain, number)) for chain, number in first.items()}
    return Routes(tuple(routes), tuple(sorted(starts.items()))) if routes else None


def _fits(one: Hyperlane, other: Hyperlane) -> bool:
    """Return whether one courier can serve both."""
    if (one.validators, one.threshold) != (other.validators, other.threshold):
        return False
    mine = {end.chain: (end.domain, end.mailbox, end.hook, end.ism) for end in one.ends}
    theirs = {end.chain: (end.domain, end.mailbox, end.hook, end.ism) for end in other.ends}
    return mine == theirs


def _route(row: Mapping[str, Any], verifier: bytes) -> tuple[Hyperlane, dict[ChainId, BlockNumber]]:
    _known(row, _ROUTE)
    if row["kind"] != "hyperlane":
        raise ValueError(f"kind {row['kind']!r} is not hyperlane")
    validators = [_address(text) for text in row["validators"]]
    threshold = int(row["threshold"])
    if len(set(validators)) != len(validators) or not 0 < threshold <= len(validators):
        raise ValueError("validators are different, and at least as many as the threshold")
    ends, first = [], {}
    for name, body in row["chains"].items():
        _known(body, _END)
        chain = ChainId(int(name))
        token = body.get("token", "")
        router, mailbox, hook, module = (
            _address(body[key]) for key in ("router", "mailbox", "hook", "module")
        )
        held = _address(token) if token else b""
        ends.append(End(chain, int(body["domain"]), router, mailbox, hook, module, held))
        first[chain] = BlockNumber(int(body.get("first_block", 0)))
    if len(ends) < 2 or len({end.domain for end in ends}) != len(ends):
        raise ValueError("a route joins at least two chains, each with a domain of its own")
    p95 = int(row["p95_s"]) * 1000
    timing = Timing(int(row.get("p50_s", row["p95_s"] / 2) * 1000), p95)
    if not 0 < timing.p50_ms <= p95:
        raise ValueError("p50_s is above 0 and at most p95_s")
    asset = symbol(row["asset"])
    return Hyperlane(asset, ends, validators, threshold, verifier=verifier, timing=timing), first


def _known(row: Mapping[str, Any], keys: set[str]) -> None:
    unknown = set(row) - keys
    if unknown:
        raise ValueError(f"unknown key {min(unknown)!r}")


def _address(text: str) -> bytes:
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 20:
        raise ValueError(f"{text!r} is no address")
    return raw
