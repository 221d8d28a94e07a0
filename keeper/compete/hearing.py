"""Bids as they come in by gossip: what this keeper can report, and the bodies it can attach.

    "C" ‖ commit ──▶ signature, bonded? ──▶ commitments by (view, bidder)   first one wins
    "R" ‖ reveal ──▶ one of the commitments we hold? ──▶ body by hash
    final state ──▶ what is still to be frozen, what is still to be opened ──▶ seen, reported

Bounded by rounds and by bonded bidders; a second, different commitment of a bidder for one view is
kept out and named. Only what a rule may still use is reported, and of one round only the bidders
with most at stake: an observation of every member has to fit into one proposal. Knows no sockets: a
node feeds it frames.
"""

from collections.abc import Callable

from keeper.compete.auction import MAX_BIDDERS
from keeper.compete.bids import decode_commit, decode_reveal, verify_commit
from keeper.compete.state import AwardState
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
        self, network: bytes, epoch: int, config: bytes, stake: Callable[[bytes], int]
    ) -> None:
        """Begin an epoch.

        Args:
            network: its id.
            epoch: of the committee that bids are signed for.
            config: the same.
            stake: the bond of a keeper that may compete, in its smallest unit; 0 for all others.
        """
        self._network, self._epoch, self._config = network, epoch, config
        self._stake = stake
        self._commitments: dict[tuple[int, bytes], bytes] = {}
        self._bodies: dict[bytes, tuple[int, bytes]] = {}
        self._to_freeze = self._to_open = 0
        self._opened: frozenset[bytes] = frozenset()
        self.view = 0

    def advance(self, view: int, state: AwardState) -> None:
        """Forget rounds that a final view has left behind.

        Args:
            view: the final view.
            state: the competition's state after it.
        """
        if view < self.view:
            return
        self.view = view
        waiting = [one for one in (*state.late, state.collecting) if one]
        self._to_freeze = min(waiting, default=view)
        self._to_open = min((one.view for one in state.revealing), default=self._to_freeze)
        self._opened = frozenset(
            commitment
            for one in state.revealing
            for bidder, commitment in one.frozen
            if bidder in dict(one.opened)
        )
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
        if not self._stake(commit.bidder):
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
        """Return what an observation reports: commitments to freeze, hashes of bodies to open."""
        rounds: dict[int, list[SeenCommitment]] = {}
        for (view, bidder), commitment in self._commitments.items():
            if view >= self._to_freeze:
                rounds.setdefault(view, []).append(SeenCommitment(view, bidder, commitment))
        commitments: list[SeenCommitment] = []
        for view in sorted(rounds):
            largest = sorted(rounds[view], key=lambda one: (-self._stake(one.bidder), one.bidder))
            commitments += sorted(largest[:MAX_BIDDERS])
        reveals = sorted(
            (view, digest)
            for digest, (view, _) in self._bodies.items()
            if view >= self._to_open and digest not in self._opened
        )
        newest = sorted(digest for _, digest in reveals[-MAX_SEEN:])
        return tuple(commitments[-MAX_SEEN:]), tuple(newest)

    def body(self, digest: bytes) -> bytes | None:
        """Return a revealed body by its hash."""
        found = self._bodies.get(digest)
        return None if found is None else found[1]
