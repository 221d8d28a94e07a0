"""What a keeper signs for: the configured bridges' origins, of every kind.

warp routes ─▶ WarpOrigin a chain, for all of them       frames of multisig.py
tokens ──────▶ Signer a chain, committee and on-ramp     frames of ccip_committee.py
"""

from collections.abc import Sequence

from keeper.keys import address_of
from keeper.route.bridges.ccip_committee import CCIP_FRAME, Signer
from keeper.route.bridges.ccip_facts import Committee
from keeper.route.bridges.ccip_lane import Ccip
from keeper.route.bridges.hyperlane import Hyperlane
from keeper.route.bridges.multisig import FRAME
from keeper.route.bridges.origin import Origin
from keeper.route.bridges.port import Bridge
from keeper.route.bridges.warp_origin import WarpOrigin
from keeper.units import ChainId

FRAMES = frozenset({FRAME, CCIP_FRAME})
"""Sizes of frames: one of a kind that is not served here is others' business, and no fault."""


def signers_of(bridge: Bridge) -> tuple[bytes, ...]:
    """Return the addresses of those who sign a bridge's messages, or nothing if nobody does."""
    if isinstance(bridge, Hyperlane):
        return bridge.validators
    return bridge.committee.signers if isinstance(bridge, Ccip) else ()


def origins_of(bridges: Sequence[Bridge], key: bytes) -> tuple[Origin, ...]:
    """Return what is to be followed for the bridges that a key signs for.

    Args:
        bridges: warp routes among them fit together, as `settings.py` sees to.
        key: this keeper's.
    """
    mine = [one for one in bridges if address_of(key) in signers_of(one)]
    routes = [one for one in mine if isinstance(one, Hyperlane)]
    found: list[Origin] = []
    if routes:
        found += [WarpOrigin(routes, end.chain, key) for end in routes[0].ends]
    groups: dict[tuple[ChainId, Committee, bytes], list[Ccip]] = {}
    for token in mine:
        if isinstance(token, Ccip):
            for end in token.ends:
                name = (end.chain, token.committee, end.on_ramp)
                groups.setdefault(name, []).append(token)
    found += [Signer(tokens, chain, key) for (chain, _, _), tokens in groups.items()]
    return tuple(found)
