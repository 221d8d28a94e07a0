"""Runs one member's `Signer` on trio: one loop, one shape.

    inbox ─ frames from members, views that became final ─▶ Signer ─▶ effects in order
    PersistLock   the database, before anything later        Sealed ─▶ on_seal

Knows frames and members, no peers: who carries the frames is a `Road`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog
import trio

from keeper.errors import RemoteFault
from keeper.reasons import Reason
from keeper.units import Instant
from p2p.frost import messages
from p2p.frost.signer import (
    Broadcast,
    Effect,
    PersistLock,
    Refused,
    Sealed,
    Send,
    Signer,
)
from p2p.frost.signlock import SignLock
from p2p.frost.suite import Suite

log = structlog.get_logger(__name__)

INBOX = 512
"""Frames and views waiting: a few views' worth at 31 members; above it the oldest work is late."""


class Road(Protocol):
    """Carries frames to members of the committee; never blocks."""

    def send(self, member: int, frame: bytes) -> None:
        """Queue a frame to one member."""
        ...

    def broadcast(self, frame: bytes) -> None:
        """Queue a frame to every other member."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame from a member, authenticated by its link."""

    member: int
    raw: bytes


@dataclass(frozen=True, slots=True)
class Final:
    """A view became final here with this decision root."""

    view: int
    root: bytes


class SealService:
    """Seals every final view it is told of."""

    def __init__(
        self,
        signer: Signer,
        suite: Suite,
        lock: SignLock,
        road: Road,
        on_seal: Callable[[Sealed], None],
        on_fault: Callable[[int, Reason], None],
    ) -> None:
        self._signer, self._suite, self._lock, self._road = signer, suite, lock, road
        self._on_seal, self._on_fault = on_seal, on_fault
        self._put, self._take = trio.open_memory_channel[Frame | Final](INBOX)

    def offer(self, item: Frame | Final) -> bool:
        """Hand over a frame or a final view; False when the inbox is full and it was dropped."""
        try:
            self._put.send_nowait(item)
        except trio.WouldBlock:
            return False
        return True

    async def run(self) -> None:
        """Work until cancelled."""
        self._perform(self._signer.start(_now()))
        while True:
            deadline = self._signer.deadline
            with trio.move_on_at(math.inf if deadline is None else deadline) as scope:
                item = await self._take.receive()
                self._perform(self._handle(item))
            if scope.cancelled_caught:
                self._perform(self._signer.tick(_now()))

    def _handle(self, item: Frame | Final) -> tuple[Effect, ...]:
        match item:
            case Final(view, root):
                return self._signer.sign_request(_now(), view, root)
            case Frame(member, raw):
                try:
                    message = messages.decode(self._suite, raw, f"member {member}")
                except RemoteFault as fault:
                    self._on_fault(member, fault.reason)
                    return ()
                return self._signer.receive(member, message, _now())

    def _perform(self, effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            match effect:
                case PersistLock(epoch, view, digest):
                    self._lock.acquire(epoch, view, digest)
                case Send(member, message):
                    self._road.send(member, messages.encode(self._suite, message))
                case Broadcast(message):
                    self._road.broadcast(messages.encode(self._suite, message))
                case Sealed():
                    self._on_seal(effect)
                case Refused(member, reason, detail):
                    log.debug("seal_refused", member=member, reason=reason, detail=detail)
                    self._on_fault(member, reason)


def _now() -> Instant:
    return Instant(trio.current_time())
