"""However much happens in one view, what all rules make together fits into one proposal."""

from keeper.clear import breakers, credit, release, stop, transfer
from keeper.compete import award, payout
from keeper.node.member import rules
from keeper.settle import attest, flow
from keeper.snapshot.derive import MAX_DECISIONS

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
