"""Bids as they come in by gossip: what this keeper can report, and the bodies it can attach.

    "C" ‖ commit ──▶ signature, bonded? ──▶ commitments by (view, bidder)   first one wins
    "R" ‖ reveal ──▶ one of the commitments we hold? ──▶ body by hash

Bounded by rounds and by bonded bidders; a second, different commitment of a bidder for one view is
kept out and named. Knows no sockets: a node feeds it frames.
"""

from collections.abc import Callable

from keeper.compete.bids import decode_commit, decode_reveal, verify_commit
from keeper.hashing import keccak
from keeper.observe.observation import MAX_SEEN, SeenCommitment
from keeper.reasons import Reason

COMMIT, REVEAL = b"C", b"R"
ROUNDS_KEPT = 8
"""Views whose bids are remembered: two rounds are open at once, the rest is for late views."""
AHEAD = 4
"""Views ahead of ours whose bids are taken: others may be a little further."""


class Hearing:
    """What was heard of the rounds that are still open."""

    def __init__(
        self, network: bytes, epoch: int, config: bytes, is_bonded: Callable[[bytes], bool]
    ) -> None:
        self._network, self._epoch, self._config = network, epoch, config
        self._is_bonded = is_bonded
        self._commitments: dict[tuple[int, bytes], bytes] = {}
        self._bodies: dict[bytes, tuple[int, bytes]] = {}
        self.view = 0

    def advance(self, view: int) -> None:
        """Forget rounds that a final view has left behind."""
        self.view = max(self.view, view)
        oldest = self.view - ROUNDS_KEPT
        self._commitments = {k: v for k, v in self._commitments.items() if k[0] >= oldest}
        self._bodies = {k: v for k, v in self._bodies.items() if v[0] >= oldest}

    def take(self, frame: bytes) -> Reason | None:
        """Take a frame of the bids topic; return why it was not taken, or None."""
        match frame[:1]:
            case b"C":
                return self._commit(frame[1:])
            case b"R":
                return self._reveal(frame[1:])
            case _:
                return Reason.MALFORMED

    def _commit(self, raw: bytes) -> Reason | None:
        commit = decode_commit(raw)
        if commit is None:
            return Reason.MALFORMED
        if not self.view - ROUNDS_KEPT <= commit.view <= self.view + AHEAD:
            return Reason.STALE if commit.view <= self.view else Reason.TOO_FAR_AHEAD
        if commit.epoch != self._epoch:
            return Reason.OTHER_EPOCH
        if not self._is_bonded(commit.bidder):
            return Reason.NOT_A_MEMBER
        known = self._commitments.get((commit.view, commit.bidder))
        if known is not None:
            return Reason.DUPLICATE if known == commit.commitment else Reason.EQUIVOCATION
        if not verify_commit(self._network, self._epoch, self._config, commit):
            return Reason.BAD_SIGNATURE
        self._commitments[commit.view, commit.bidder] = commit.commitment
        return None

    def _reveal(self, body: bytes) -> Reason | None:
        vector = decode_reveal(body)
        if vector is None:
            return Reason.MALFORMED
        digest = keccak(body)
        if self._commitments.get((vector.view, vector.bidder)) != digest:
            return Reason.MISSING_BODY
        if digest in self._bodies:
            return Reason.DUPLICATE
        self._bodies[digest] = (vector.view, body)
        return None

    def seen(self) -> tuple[tuple[SeenCommitment, ...], tuple[bytes, ...]]:
        """Return what an observation reports: commitments and hashes of reveals, newest rounds."""
        commitments = [
            SeenCommitment(view, bidder, commitment)
            for (view, bidder), commitment in sorted(self._commitments.items())
        ]
        newest = sorted(self._bodies, key=lambda digest: self._bodies[digest][0])
        return tuple(commitments[-MAX_SEEN:]), tuple(sorted(newest[-MAX_SEEN:]))

    def body(self, digest: bytes) -> bytes | None:
        """Return a revealed body by its hash."""
        found = self._bodies.get(digest)
        return None if found is None else found[1]
