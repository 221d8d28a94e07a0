"""What the agreement asks its driver to do, in this order, and the timing it is given.

Persist   must be durable before anything after it is performed
Broadcast, Send                  messages to members (by index)
Finalized, Jumped, Equivocated   what a keeper learns
Refused, Noted                   who broke a rule; what `keeper explain` tells
"""

from dataclasses import dataclass

from keeper.reasons import Reason
from p2p.agreement.evidence import Evidence
from p2p.agreement.log import Record
from p2p.types import Certificate, Message, SignedObservation

_ROUNDING = 1e-6
"""Of a tick: `tick_at(start_of(k))` is k although unix time in a float is 0.2 µs coarse."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Every duration in seconds; `genesis` is unix time at which tick 0 starts."""

    genesis: float
    tick_s: float = 1.0
    bound_s: float = 0.4
    """D: a message usually arrives within it."""
    grace_s: float = 0.05
    """How long a leader with a quorum of observations waits for the rest."""
    skip_s: float = 3.0
    """A leader silent for so long is not waited for."""
    heartbeat_s: float = 1.0

    def tick_at(self, now: float) -> int:
        """Return the number of the tick that `now` is in; 0 before the genesis."""
        return max(0, int((now - self.genesis) / self.tick_s + _ROUNDING))

    def start_of(self, tick: int) -> float:
        """Return when a tick starts."""
        return self.genesis + tick * self.tick_s


@dataclass(frozen=True, slots=True)
class Persist:
    """Write these to the log, durably, before any later effect."""

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send to every other member."""

    message: Message


@dataclass(frozen=True, slots=True)
class Send:
    """Send to one member."""

    member: int
    message: Message


@dataclass(frozen=True, slots=True)
class Finalized:
    """A block that can never be undone; blocks come in chain order, each once.

    `certificate` is of this view, or of the descendant that carried it to finality.
    """

    epoch: int
    view: int
    digest: bytes
    parent: bytes
    tick: int
    root: bytes
    payload: bytes
    observations: tuple[SignedObservation, ...]
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Jumped:
    """The final block moved over blocks this keeper never saw, up to `digest`."""

    from_view: int
    view: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Equivocated:
    """A member signed two votes that exclude each other; both signatures were checked."""

    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Refused:
    """A member's message was not taken."""

    member: int
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Noted:
    """Something happened in a view; `members` are those whose messages show it."""

    view: int
    event: str
    members: tuple[int, ...] = ()
    detail: str = ""


Effect = Persist | Broadcast | Send | Finalized | Jumped | Equivocated | Refused | Noted
