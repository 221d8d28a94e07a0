"""The voting rules and the counting of votes.

Per view a keeper signs at most one digest over {N, F}, and never Z together with F. What a keeper
may not do is what a contract slashes:

    conflict      N(d)       F(d)      N(d')     F(d')    Z
    N(d)          same       -         slash     slash    -
    F(d)          -          same      slash     slash    slash

A safety violation exposes at least f + 1 members by two messages each.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from p2p.types import NO_DIGEST, Committee, Kind, Vote

VOTES_PER_VIEW = 3
"""One of each kind: an honest member never has more to say about a view."""


def may_sign(mine: Mapping[Kind, bytes], kind: Kind, digest: bytes) -> bool:
    """Return whether a keeper that signed `mine` in a view may sign this as well (R2 to R5)."""
    if kind in mine:
        return False
    if kind is Kind.NULLIFY:
        return Kind.FINALIZE not in mine
    if kind is Kind.FINALIZE and Kind.NULLIFY in mine:
        return False
    other = Kind.FINALIZE if kind is Kind.NOTARIZE else Kind.NOTARIZE
    return mine.get(other, digest) == digest


def in_conflict(kind_a: Kind, digest_a: bytes, kind_b: Kind, digest_b: bytes) -> bool:
    """Return whether two votes of one member in one view exclude each other."""
    kinds = {kind_a, kind_b}
    if Kind.NULLIFY in kinds:
        return Kind.FINALIZE in kinds
    return digest_a != digest_b


@dataclass(frozen=True, slots=True)
class Counted:
    """What one vote did: the number of equal votes now, or the vote that it contradicts."""

    fresh: bool
    count: int
    contradicts: Vote | None


class Tally:
    """Votes of the recent views.

    Invariants: at most one vote of each kind per member and view; a second, different one is
    reported once per member and view, then dropped.
    """

    def __init__(self, committee: Committee) -> None:
        self._committee = committee
        self._views: dict[int, dict[tuple[int, Kind], Vote]] = {}
        self._counts: dict[int, dict[tuple[Kind, bytes], int]] = {}
        self._exposed: set[tuple[int, int]] = set()

    def add(self, vote: Vote) -> Counted:
        """Count a vote whose signature was checked."""
        held = self._views.setdefault(vote.view, {})
        contradicts = self._contradicted(held, vote)
        if contradicts is not None:
            self._exposed.add((vote.view, vote.signer))
        key = (vote.signer, vote.kind)
        fresh = key not in held
        if fresh:
            held[key] = vote
            counts = self._counts.setdefault(vote.view, {})
            counts[vote.kind, vote.digest] = counts.get((vote.kind, vote.digest), 0) + 1
        return Counted(fresh, self.count(vote.kind, vote.view, vote.digest), contradicts)

    def _contradicted(self, held: Mapping[tuple[int, Kind], Vote], vote: Vote) -> Vote | None:
        if (vote.view, vote.signer) in self._exposed:
            return None
        return next(
            (
                other
                for kind in Kind
                if (other := held.get((vote.signer, kind))) is not None
                and in_conflict(vote.kind, vote.digest, other.kind, other.digest)
            ),
            None,
        )

    def is_news(self, vote: Vote) -> bool:
        """Return whether a vote can still matter; asked before its signature is checked."""
        held = self._views.get(vote.view)
        if held is None:
            return True
        same = held.get((vote.signer, vote.kind))
        if same is None:
            return True
        return same.digest != vote.digest and (vote.view, vote.signer) not in self._exposed

    def holds(self, vote: Vote) -> bool:
        """Return whether exactly this vote was counted."""
        return self._views.get(vote.view, {}).get((vote.signer, vote.kind)) == vote

    def contradicts(self, vote: Vote) -> bool:
        """Return whether a vote would be evidence against its signer."""
        return self._contradicted(self._views.get(vote.view, {}), vote) is not None

    def count(self, kind: Kind, view: int, digest: bytes = NO_DIGEST) -> int:
        """Return how many members signed exactly this."""
        return self._counts.get(view, {}).get((kind, digest), 0)

    def votes(self, kind: Kind, view: int, digest: bytes = NO_DIGEST) -> tuple[Vote, ...]:
        """Return equal votes, by ascending signer."""
        held = self._views.get(view, {})
        found = (held.get((i, kind)) for i in range(self._committee.size))
        return tuple(vote for vote in found if vote is not None and vote.digest == digest)

    def of(self, signer: int, view: int) -> tuple[Vote, ...]:
        """Return what one member said about a view."""
        held = self._views.get(view, {})
        return tuple(held[signer, kind] for kind in Kind if (signer, kind) in held)

    def prune(self, below: int) -> None:
        """Forget views below `below`."""
        for view in [view for view in self._views if view < below]:
            del self._views[view]
            self._counts.pop(view, None)
        self._exposed = {pair for pair in self._exposed if pair[0] >= below}
