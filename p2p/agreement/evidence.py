"""Two signed votes of one member in one view that exclude each other.

    slash_conflict(epoch, config, view, (kind_a, digest_a, (r, vs)), (kind_b, digest_b, (r, vs)))

The signer is recovered from the signatures, so evidence convinces a contract, or anyone with the
committee, without trust in the accuser.
"""

from dataclasses import dataclass

from p2p.agreement.signing import Scheme, vote_hash
from p2p.agreement.votes import in_conflict
from p2p.types import Committee, Vote

SignedWord = tuple[int, bytes, tuple[bytes, bytes]]
"""A vote as a contract takes it: kind, digest, and the compact signature (r, vs)."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A claim of equivocation; `verify_evidence` says whether it holds."""

    config: bytes
    first: Vote
    second: Vote

    @property
    def culprit(self) -> int:
        """Return the accused member's index in its committee."""
        return self.first.signer

    @property
    def view(self) -> int:
        """Return the view of both votes."""
        return self.first.view


def verify_evidence(committee: Committee, scheme: Scheme, evidence: Evidence) -> bool:
    """Return whether both votes are the culprit's and exclude each other."""
    a, b = evidence.first, evidence.second
    if (
        evidence.config != committee.config
        or (a.epoch, a.view, a.signer) != (b.epoch, b.view, b.signer)
        or a.epoch != committee.epoch
        or a.signer >= committee.size
        or not in_conflict(a.kind, a.digest, b.kind, b.digest)
    ):
        return False
    address = committee.members[a.signer].address
    return all(
        scheme.verify(
            vote_hash(committee, vote.kind, vote.view, vote.digest), vote.signature, address
        )
        for vote in (a, b)
    )


def slash_arguments(evidence: Evidence) -> tuple[int, bytes, int, SignedWord, SignedWord]:
    """Return the arguments of the bonds contract's `slash_conflict`."""
    a, b = evidence.first, evidence.second
    return a.epoch, evidence.config, a.view, _word(a), _word(b)


def _word(vote: Vote) -> SignedWord:
    return int(vote.kind), vote.digest, (vote.signature[:32], vote.signature[32:])
