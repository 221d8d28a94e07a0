"""`[bridges.NAME]` of kind ccip: a token's pools on the chains of CCIP 2.0, signed for by keepers.

    [bridges.usdc_ccip]
    kind = "ccip"
    asset = "USDC"
    decimals = 6                                      # of the token, the same on all chains
    signers = ["0x…", "0x…", "0x…", "0x…"]            # of the committee verifier, in any order
    threshold = 3
    tag = "0x…"                                       # the verifier's version, 4 bytes
    p95_s = 1200                                      # what a transfer takes; p50_s too, or half
    [bridges.usdc_ccip.chains.1]
    selector = 5009297550715157269                    # the chain's number in CCIP
    router = "0x…"  on_ramp = "0x…"  off_ramp = "0x…"  registry = "0x…"  rmn = "0x…"
    resolver = "0x…"  verifier = "0x…"                # as the ramps name it, and what is behind it
    token = "0x…"  pool = "0x…"
    lock_box = "0x…"                                  # where the pool locks what leaves
    first_block = 0                                   # from which messages are read

What is written here is what a quote finds, or the lane is cursed.
"""

from collections.abc import Mapping
from typing import Any

from keeper.route.bridges.ccip_facts import CcipEnd, Committee
from keeper.route.bridges.ccip_lane import Ccip
from keeper.route.bridges.settings_fields import address, known, signers, timing, whole
from keeper.units import ChainId, symbol

MOST_DECIMALS = 36
"""No token has more; 10**36 of a unit is far above what a bucket of 128 bits could count."""
_TOKEN = {
    *("kind", "asset", "decimals", "signers", "threshold", "tag", "p50_s", "p95_s", "chains"),
}
_PLACES = (
    *("router", "on_ramp", "off_ramp", "registry", "rmn"),
    *("resolver", "verifier", "token", "pool"),
)
"""Fields of CcipEnd."""
_END = {"selector", "lock_box", "first_block", *_PLACES}


def token_of(row: Mapping[str, Any], verifier: bytes) -> Ccip:
    """Return the token of a section.

    Args:
        row: the section.
        verifier: who can break what keepers sign, 32 bytes.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is no such section.
    """
    known(row, _TOKEN)
    decimals, threshold = whole(row, "decimals"), whole(row, "threshold")
    if decimals > MOST_DECIMALS:
        raise ValueError(f"decimals is at most {MOST_DECIMALS}")
    tag = bytes.fromhex(row["tag"].removeprefix("0x"))
    if len(tag) != 4 or not any(tag):
        raise ValueError(f"tag {row['tag']!r} is not 4 bytes")
    who = signers(row["signers"], threshold, "signers")
    committee = Committee(tag, tuple(sorted(who)), threshold)
    ends = [_end(name, body) for name, body in row["chains"].items()]
    if len(ends) < 2 or len({end.selector for end in ends}) != len(ends):
        raise ValueError("a token is on at least two chains, each with a selector of its own")
    return Ccip(
        symbol(row["asset"]), decimals, ends, committee, verifier=verifier, timing=timing(row)
    )


def _end(name: str, body: Mapping[str, Any]) -> CcipEnd:
    known(body, _END)
    selector = whole(body, "selector")
    if not 0 < selector < 1 << 64:
        raise ValueError(f"selector {selector} is no number of a chain in CCIP")
    places = {key: address(body[key]) for key in _PLACES}
    if "lock_box" in body:
        places["lock_box"] = address(body["lock_box"])
    first = whole(body, "first_block", 0)
    return CcipEnd(ChainId(int(name)), selector, first_block=first, **places)
