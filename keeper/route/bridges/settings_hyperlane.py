"""`[bridges.NAME]` of kind hyperlane: a warp route that this keeper validates and delivers.

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
from typing import Any

from keeper.route.bridges.hyperlane import End, Hyperlane
from keeper.route.bridges.settings_fields import address, known, signers, timing, whole
from keeper.units import ChainId, symbol

_ROUTE = {"kind", "asset", "validators", "threshold", "p50_s", "p95_s", "chains"}
_END = {"domain", "router", "mailbox", "hook", "module", "token", "first_block"}


def route_of(row: Mapping[str, Any], verifier: bytes) -> Hyperlane:
    """Return the route of a section.

    Args:
        row: the section.
        verifier: who can break what keepers validate, 32 bytes.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no such section.
    """
    known(row, _ROUTE)
    threshold = whole(row, "threshold")
    validators = signers(row["validators"], threshold, "validators")
    ends = []
    for name, body in row["chains"].items():
        known(body, _END)
        chain = ChainId(int(name))
        token = body.get("token", "")
        router, mailbox, hook, module = (
            address(body[key]) for key in ("router", "mailbox", "hook", "module")
        )
        held = address(token) if token else b""
        first, domain = whole(body, "first_block", 0), whole(body, "domain")
        ends.append(End(chain, domain, router, mailbox, hook, module, held, first))
    if len(ends) < 2 or len({end.domain for end in ends}) != len(ends):
        raise ValueError("a route joins at least two chains, each with a domain of its own")
    return Hyperlane(
        symbol(row["asset"]), ends, validators, threshold, verifier=verifier, timing=timing(row)
    )


def fits(one: Hyperlane, other: Hyperlane) -> bool:
    """Return whether one courier can serve both."""
    if (one.validators, one.threshold) != (other.validators, other.threshold):
        return False
    mine = {end.chain: (end.domain, end.mailbox, end.hook, end.ism) for end in one.ends}
    theirs = {end.chain: (end.domain, end.mailbox, end.hook, end.ism) for end in other.ends}
    return mine == theirs
