"""Everything that can happen to the core, as values: what a service queues and a recorder keeps.

Received  Observed  Retry  Close  Jump  Shown   ── from others
Started   Ticked                                ── made by the loop itself
"""

from dataclasses import dataclass

from p2p.agreement.core import Agreement
from p2p.agreement.effects import Effect
from p2p.types import History, Message, SignedObservation


@dataclass(frozen=True, slots=True)
class Started:
    """The machine starts."""


@dataclass(frozen=True, slots=True)
class Received:
    """A member's message came over its authenticated link."""

    member: int
    message: Message


@dataclass(frozen=True, slots=True)
class Observed:
    """An observation came: this keeper's own, or from gossip."""

    observation: SignedObservation


@dataclass(frozen=True, slots=True)
class Ticked:
    """The core's deadline passed."""


@dataclass(frozen=True, slots=True)
class Retry:
    """What the application waited for may have come."""


@dataclass(frozen=True, slots=True)
class Close:
    """The epoch ended at a final view."""

    view: int


@dataclass(frozen=True, slots=True)
class Jump:
    """A certified tail of the chain for a keeper that is too late for the whole of it."""

    history: History


@dataclass(frozen=True, slots=True)
class Shown:
    """The driver set what heartbeats carry: (chain, height) pairs."""

    heads: tuple[tuple[int, int], ...]


Input = Started | Received | Observed | Ticked | Retry | Close | Jump | Shown


def apply(core: Agreement, happened: Input, now: float) -> tuple[Effect, ...]:
    """Let the core handle one input."""
    match happened:
        case Started():
            return core.start(now)
        case Received(member, message):
            return core.receive(member, message, now)
        case Observed(observation):
            return core.observe(observation, now)
        case Ticked():
            return core.tick(now)
        case Retry():
            return core.retry(now)
        case Close(view):
            return core.close(view, now)
        case Jump(history):
            return core.jump(history, now)
        case Shown(heads):
            core.show(heads, now)
            return ()
