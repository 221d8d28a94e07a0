"""The world around the core: one loop, one shape.

    inbox ──▶ core ──▶ log (fsync) ──▶ links          decided ──▶ whoever acts on final blocks
      ▲                                                  │
      └── links, gossip, the node (Retry, Close, Jump) ◀─┘

What waits in the inbox is handled in one go, so that one fsync serves it all. The inbox is bounded
by whoever fills it; `decided` is bounded by back-pressure: a node that cannot act on final blocks
must not agree on more of them.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from keeper.reasons import Reason
from p2p.agreement.core import Agreement
from p2p.agreement.effects import (
    Broadcast,
    Effect,
    Equivocated,
    Finalized,
    Jumped,
    Noted,
    Persist,
    Refused,
    Send,
)
from p2p.agreement.inputs import Input, Started, Stepped, Ticked, apply
from p2p.agreement.journal import Journal
from p2p.agreement.log import Log, Record
from p2p.agreement.record import Recorder
from p2p.types import Member
from p2p.wire import encode

INPUTS_AT_ONCE = 64
"""Inputs handled between two writes of the log: at n = 31 one kind of vote of a view, twice."""
NOTES_AT_ONCE = 256
"""Notes held before they are written: a few views' worth, lost with a crash at worst."""
CLOCK_STEP_S = 0.5
"""A wall clock that is off by more than this was set; less is the drift of two clocks."""

Decided = Finalized | Jumped | Equivocated


class Links(Protocol):
    """What the agreement needs of a network; neither call waits or raises."""

    def send(self, member: Member, frame: bytes) -> None:
        """Queue a frame for one member."""
        ...

    def broadcast(self, frame: bytes) -> None:
        """Queue a frame for every other member."""
        ...

    def refused(self, member: Member, reason: Reason, detail: str) -> None:
        """Count a message of a member against it."""
        ...


class SteadyClock:
    """Unix time that does not jump: the monotonic clock, moved once to wall time."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic, self._wall = monotonic, wall
        self._offset = wall() - monotonic()

    def now(self) -> float:
        """Return unix time in seconds."""
        return self._monotonic() + self._offset

    def step(self) -> float:
        """Follow a wall clock that was set; return by how much, 0.0 nearly always."""
        by_s = self._wall() - self.now()
        if abs(by_s) <= CLOCK_STEP_S:
            return 0.0
        self._offset += by_s
        return by_s


class AgreementService:
    """Drives one core for one epoch. Safe to cancel at any point: the log is ahead of the links."""

    def __init__(
        self,
        core: Agreement,
        log: Log,
        links: Links,
        inbox: trio.MemoryReceiveChannel[Input],
        decided: trio.MemorySendChannel[Decided],
        clock: SteadyClock,
        *,
        journal: Journal | None = None,
        recorder: Recorder | None = None,
        in_thread: bool = True,
    ) -> None:
        """Wire up a loop that has not started.

        Args:
            core: has not started.
            log: the same one the core reads.
            links: to the other members.
            inbox: everything that happens to the core; the network drops when it is full.
            decided: final blocks, jumps and evidence, with back-pressure.
            clock: a simulation gives one over virtual time.
            journal: where `keeper explain` reads; None keeps nothing.
            recorder: where `keeper replay` reads; the core must then use recording parts.
            in_thread: write the log in a worker thread; virtual time needs False.
        """
        self.core = core
        self._log, self._links, self._inbox, self._decided = log, links, inbox, decided
        self._clock, self._journal, self._recorder = clock, journal, recorder
        self._in_thread = in_thread
        self._notes: list[tuple[float, Noted]] = []

    async def run(self) -> None:
        """Run until cancelled or until every sender has closed the inbox."""
        async with self._inbox, self._decided:
            await self._perform(self._apply(Started()))
            while True:
                wait = math.inf
                if self.core.deadline is not None:
                    wait = max(0.0, self.core.deadline - self._clock.now())
                with trio.move_on_after(wait) as scope:
                    try:
                        first = await self._inbox.receive()
                    except trio.EndOfChannel:
                        break
                if scope.cancelled_caught:
                    await self._perform(self._apply(Ticked()))
                else:
                    await self._perform(self._drain(first))
            self._flush_notes()

    def _drain(self, first: Input) -> list[Effect]:
        effects = list(self._apply(first))
        for _ in range(INPUTS_AT_ONCE - 1):
            try:
                effects.extend(self._apply(self._inbox.receive_nowait()))
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        return effects

    def _apply(self, happened: Input) -> Sequence[Effect]:
        by_s = self._clock.step()
        if by_s:
            self._record_and_apply(Stepped(by_s))
        return self._record_and_apply(happened)

    def _record_and_apply(self, happened: Input) -> Sequence[Effect]:
        now = self._clock.now()
        if self._recorder is None:
            return apply(self.core, happened, now)
        self._recorder.input(happened, now)
        effects = apply(self.core, happened, now)
        self._recorder.output(effects)
        return effects

    async def _perform(self, effects: Sequence[Effect]) -> None:
        records: list[Record] = []
        for effect in effects:
            if isinstance(effect, Persist):
                records.extend(effect.records)
        if records:
            await self._write(records)
        for effect in effects:
            match effect:
                case Persist():
                    pass  # written above, before everything else
                case Broadcast(message):
                    self._links.broadcast(encode(message))
                case Send(member, message):
                    self._links.send(self.core.committee.members[member], encode(message))
                case Finalized() | Jumped() | Equivocated():
                    await self._decided.send(effect)
                case Refused(member, reason, detail):
                    self._links.refused(self.core.committee.members[member], reason, detail)
                case Noted():
                    self._notes.append((self._clock.now(), effect))
        if len(self._notes) >= NOTES_AT_ONCE:
            self._flush_notes()

    async def _write(self, records: Sequence[Record]) -> None:
        if self._in_thread:
            await trio.to_thread.run_sync(self._log.write, tuple(records))
        else:
            self._log.write(records)
            await trio.lowlevel.checkpoint()

    def _flush_notes(self) -> None:
        if self._journal is not None:
            self._journal.write(self.core.committee.epoch, self._notes)
        self._notes.clear()
