"""What one message says about its sender, and what a sender's messages add up to.

    ACCEPT ─ nothing        IGNORE(reason) ─ a little        REJECT(reason) ─ a lot
                         score, halved every minute
    good ──≥ 35──► muted ──≥ 50──► disconnected and refused, 10 s doubling to 10 min ──► good

Muted is: not relayed, not answered. What it says still reaches its judges, who believe nobody and
need everybody; so its mistakes still count, and the third strike ends it.

Faults of the network (time-outs, resets, full queues on our side) never cost points. Scores are by
peer id, kept across reconnects and restarts, so coming back does not wash a peer clean. Pure: time
is an argument, in seconds of one clock that survives restarts.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from keeper.reasons import Reason

MUTE_AT = 35.0
REFUSE_AT = 50.0
HALF_LIFE_S = 60.0
REFUSAL_S = 10.0
REFUSAL_MAX_S = 600.0
FORGIVEN_AFTER_S = 3600.0
"""A peer that behaved this long after a refusal starts again from the shortest one."""
PEERS_HELD = 4096
"""Bound on records of strangers; the one touched longest ago is dropped first."""

POINTS: dict[Reason, float] = {
    # three strikes: nobody honest produces these
    Reason.MALFORMED: 20.0,
    Reason.OVERSIZE: 20.0,
    Reason.BAD_SIGNATURE: 20.0,
    Reason.NOT_A_MEMBER: 20.0,
    Reason.BELOW_QUORUM: 20.0,
    Reason.WRONG_LEADER: 20.0,
    Reason.EQUIVOCATION: 20.0,
    # a flood of the muxer; a message over its rate is only ignored, and costs a tenth
    Reason.RATE_LIMITED: 20.0,
    Reason.WRONG_CONFIG: 2.0,
    # an honest keeper may be an epoch behind or ahead for a while
    Reason.OTHER_EPOCH: 0.02,
    # honest keepers resend; only a flood adds up
    Reason.STALE: 0.01,
    Reason.DUPLICATE: 0.02,
    Reason.TOO_FAR_AHEAD: 0.05,
    Reason.UNKNOWN_PARENT: 0.05,
    Reason.RECONNECTING: 10.0,
    # asking again after being told no
    Reason.REFUSED: 2.0,
    # our own queue: no fault of the peer
    Reason.QUEUE_FULL: 0.0,
}
REJECTED_POINTS = 5.0
"""A rejection for any reason not in the table (a wrong proposal content)."""

IGNORED_POINTS_MAX = 0.1
"""What is only ignored never costs more than this."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Valid, new, acted upon."""


@dataclass(frozen=True, slots=True)
class Ignore:
    """Of no use here and now; may be innocent."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Reject:
    """No honest keeper sends this."""

    reason: Reason


Verdict = Accept | Ignore | Reject
ACCEPT = Accept()


class Standing(StrEnum):
    """What a peer may do now."""

    GOOD = "good"
    MUTED = "muted"
    REFUSED = "refused"


@dataclass(slots=True)
class TokenBucket:
    """`rate` tokens a second up to `burst`; starts full."""

    rate: float
    burst: float
    tokens: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Take tokens if there are enough."""
        if now > self.at:
            self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
            self.at = now
        if self.tokens < amount:
            return False
        self.tokens -= amount
        return True


@dataclass(frozen=True, slots=True)
class Record:
    """One peer's persisted score."""

    peer: bytes
    score: float
    at: float
    refusals: int
    refused_until: float


@dataclass(slots=True)
class _Entry:
    score: float = 0.0
    at: float = 0.0
    refusals: int = 0
    refused_until: float = 0.0
    drops: Counter[Reason] = field(default_factory=Counter)

    def decayed(self, now: float) -> float:
        return self.score * math.pow(0.5, max(0.0, now - self.at) / HALF_LIFE_S)


class Scores:
    """Scores of every peer seen.

    Invariants: a score is never negative; at most `PEERS_HELD` entries; the refusal of a peer only
    ends by time.
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._entries: dict[bytes, _Entry] = {}
        for record in records:
            self._entries[record.peer] = _Entry(
                record.score, record.at, record.refusals, record.refused_until
            )

    def judge(self, peer: bytes, verdict: Verdict, now: float, times: int = 1) -> Standing:
        """Count a verdict, so many times, and return the peer's standing after it."""
        if isinstance(verdict, Accept):
            return self.standing(peer, now)
        points = POINTS.get(verdict.reason, REJECTED_POINTS)
        if isinstance(verdict, Ignore):
            points = min(points, IGNORED_POINTS_MAX)
        entry = self._entry(peer)
        entry.drops[verdict.reason] += times
        entry.score, entry.at = entry.decayed(now) + points * times, now
        if entry.score >= REFUSE_AT:
            if now - entry.refused_until > FORGIVEN_AFTER_S:
                entry.refusals = 0
            length = min(REFUSAL_S * 2**entry.refusals, REFUSAL_MAX_S)
            entry.refusals = min(entry.refusals + 1, 16)
            entry.refused_until = now + length
            entry.score = MUTE_AT / 2
        return self.standing(peer, now)

    def standing(self, peer: bytes, now: float) -> Standing:
        """Return what the peer may do."""
        entry = self._entries.get(peer)
        if entry is None:
            return Standing.GOOD
        if now < entry.refused_until:
            return Standing.REFUSED
        return Standing.MUTED if entry.decayed(now) >= MUTE_AT else Standing.GOOD

    def score(self, peer: bytes, now: float) -> float:
        """Return the decayed score; 0 is spotless."""
        entry = self._entries.get(peer)
        return 0.0 if entry is None else entry.decayed(now)

    def drops(self, peer: bytes) -> tuple[tuple[Reason, int], ...]:
        """Return how many messages were dropped for which reason, most first."""
        entry = self._entries.get(peer)
        return () if entry is None else tuple(entry.drops.most_common())

    def records(self) -> tuple[Record, ...]:
        """Return what must survive a restart."""
        return tuple(
            Record(peer, entry.score, entry.at, entry.refusals, entry.refused_until)
            for peer, entry in self._entries.items()
            if entry.score > 0 or entry.refusals
        )

    def _entry(self, peer: bytes) -> _Entry:
        entry = self._entries.pop(peer, None) or _Entry()
        self._entries[peer] = entry  # most recently touched last
        if len(self._entries) > PEERS_HELD:
            del self._entries[next(iter(self._entries))]
        return entry
