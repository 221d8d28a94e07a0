"""However much happens in one view, what all rules make together fits into one proposal."""

import msgpack

from keeper.clear import breakers, credit, release, stop, transfer
from keeper.compete import award, payout
from keeper.compete.auction import MAX_OPENED
from keeper.compete.bids import MAX_REVEAL_BYTES
from keeper.node.member import rules
from keeper.settle import attest, flow
from keeper.snapshot.book import decision_row
from keeper.snapshot.decisions import Decision
from keeper.snapshot.derive import MAX_DECISIONS
from keeper.units import ChainId
from p2p.wire import MAX_PAYLOAD

Holds = tuple[tuple[bytes, int], ...]

CHAINS = 16
"""One change of committee a chain: far more chains than a network has."""
MOST = {
    "breakers": breakers.MAX_PER_VIEW,
    "transfer": transfer.MAX_PER_VIEW,
    "payout": payout.MAX_PER_VIEW,
    "release": release.MAX_PER_VIEW,
    "credit": credit.MAX_PER_VIEW,
    "award": award.MAX_AWARDS_PER_VIEW + award.MAX_PENALTIES_PER_VIEW + award.MAX_VOIDS_PER_VIEW,
    "flow": flow.MAX_PER_VIEW,
    "intent": attest.MAX_PER_VIEW,
    "committee": CHAINS,
    "stop": stop.MAX_PER_VIEW,
}
"""Name of a rule → what it makes in one view at most."""


def test_no_view_can_make_more_than_a_proposal_carries() -> None:
    # more would be an assertion that every keeper runs into at once
    assert {rule.name for rule in rules()} == set(MOST)
    assert sum(MOST.values()) <= MAX_DECISIONS


WIDE, NARROW, WORD = 2**128 - 1, 2**64 - 1, bytes(32)
HELD = ((WORD, 2**63),)
WIDEST: dict[str, tuple[str, tuple[int | bytes | tuple[bytes, ...], ...], Holds]] = {
    "breakers": ("BreakerChange", (WORD, 5, 5, NARROW, NARROW), ()),
    "transfer": ("Transfer", (WORD, WORD, bytes(20), WIDE, NARROW, NARROW), HELD * 2),
    "payout": ("Transfer", (WORD, WORD, bytes(20), WIDE, NARROW, NARROW), HELD * 2),
    "release": ("Release", (WORD, bytes(20), WIDE, bytes(20), NARROW, NARROW), HELD),
    "credit": ("Credit", (WORD, WIDE, NARROW, NARROW), HELD),
    "award": (
        "Award",
        (
            *(WORD, WORD, bytes(20), WORD, WIDE, WIDE, (bytes(20),) * 4),
            *(NARROW, NARROW, NARROW, NARROW, WIDE),
        ),
        (),
    ),
    "flow": ("FlowOutcome", (WORD, 2), ()),
    "intent": ("Filled", (WORD, bytes(20)), ()),
    "committee": ("CommitteeChange", (NARROW, 2**256 - 1, WORD, WORD, NARROW), ()),
    "stop": ("Stop", (WORD, WORD, bytes(20), WIDE, NARROW, NARROW), ()),
}
"""Name of a rule → the decision of it that takes most bytes."""
KEYS = {"breakers": 49, "release": 60}
"""Bytes of a decision's key, where they are more than a chain and 32 bytes."""


def test_the_largest_payload_is_one_that_a_frame_carries() -> None:
    assert set(WIDEST) == set(MOST)
    rows = 0
    for name, (kind, values, holds) in WIDEST.items():
        key = bytes(KEYS.get(name, 40))
        widest = Decision(kind, ChainId(NARROW), bytes(20), key, WORD, values, NARROW, holds)
        rows += MOST[name] * len(msgpack.packb(decision_row(widest)))
    bodies = MAX_OPENED * MAX_REVEAL_BYTES
    header = 4_096  # sixteen chains in the cut
    assert rows + bodies + header <= MAX_PAYLOAD
