"""The agreement on a network: frames in, effects out, one task, one clock.

    inbox ─► decode ─► core.receive ─┐
    timer ───────────► core.tick ────┼─► effects, in order: persist, then send, then tell
    own observation ─► core.observe ─┘

A frame of the consensus road starts with one byte that says for whom it is, so sealing shares the
links with voting. This shell decides nothing: what a message is worth, the core says.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from typing import Any

import trio

from keeper.errors import RemoteFault
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
from p2p.agreement.log import Log
from p2p.identity import peer_id_text
from p2p.port import Inbound, Network, Road, Topic
from p2p.types import Certificate, SignedObservation, Vote
from p2p.verdicts import ACCEPT, Ignore, Reject, Verdict
from p2p.wire import decode, encode

INNOCENT = frozenset(
    {
        Reason.STALE,
        Reason.DUPLICATE,
        Reason.TOO_FAR_AHEAD,
        Reason.UNKNOWN_PARENT,
        Reason.MISSING_BLOCK,
        Reason.MISSING_PARENT,
        Reason.MISSING_BODY,
        Reason.RATE_LIMITED,
    }
)
"""Reasons an honest keeper may cause (one that restarts asks a lot): ignored, hardly counted."""
PUBLISHERS = 2
"""Members that publish each certificate for followers; one may be down."""
FIRSTS_HELD = 64
"""(view, kind) pairs whose first vote is remembered, to tell how late the others came."""


class Channel(IntEnum):
    """First byte of a frame on the consensus road."""

    AGREEMENT = 1
    SEALING = 2
    CEREMONY = 3


Act = Callable[[], Sequence[Effect]]
Take = Callable[[bytes, bytes], Verdict]
"""take(peer, frame) -> what it was worth."""


def verdict_of(reason: Reason) -> Verdict:
    """Return how a refusal by the core counts against the sender."""
    return Ignore(reason) if reason in INNOCENT else Reject(reason)


class AgreementService:
    """Runs one `Agreement` on a `Network` and hands other frames to whoever takes them.

    Invariants: effects are performed in order, and nothing is sent before what precedes it is
    durable; only this task calls the core.
    """

    def __init__(
        self,
        core: Agreement,
        network: Network,
        log: Log,
        tell: Callable[[Effect], None],
        accept: Callable[[SignedObservation], bool],
        others: Mapping[str | Channel, Take] | None = None,
        clock: Callable[[], float] = time.time,
        in_thread: bool = True,
    ) -> None:
        """Create a service; nothing happens before `run`.

        Args:
            core: the machine, not started.
            network: carries frames; its `run` is somebody else's task.
            log: the core's log.
            tell: gets every `Finalized`, `Jumped`, `Equivocated`, `Refused` and `Noted`.
            accept: whether the application takes an observation's body.
            others: who takes frames of other topics (by topic) and channels.
            clock: unix time in seconds; being set costs views, not safety.
            in_thread: write the log in a thread; False on virtual time.
        """
        self._core, self._network, self._log = core, network, log
        self._tell, self._accept = tell, accept
        self._others = dict(others or {})
        self._clock, self._in_thread = clock, in_thread
        # capacity 0: frames wait in the inbox, where they are bounded and fair
        self._in, self._out = trio.open_memory_channel[Inbound | Act](0)
        self._firsts: OrderedDict[tuple[int, int], float] = OrderedDict()

    # what the node calls, from any task of this thread

    async def observe(self, observation: SignedObservation) -> None:
        """Publish this keeper's observation and count it."""
        self._network.publish(Topic.OBSERVATIONS, encode(observation))
        await self.call(lambda: self._core.observe(observation, self._clock()))

    async def retry(self) -> None:
        """Let the core ask its application again: something it waited for has come."""
        await self.call(lambda: self._core.retry(self._clock()))

    async def call(self, act: Act) -> None:
        """Run `act` between two messages and perform the effects it returns."""
        await self._in.send(act)

    # the shell

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Take part until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._forward)
            await self._perform(self._core.start(self._clock()))
            task_status.started()
            while True:
                due = self._core.deadline
                wait = float("inf") if due is None else max(0.0, due - self._clock())
                with trio.move_on_after(wait) as scope:
                    item = await self._out.receive()
                    effects = self._taken(item) if isinstance(item, Inbound) else item()
                if scope.cancelled_caught:
                    effects = self._core.tick(self._clock())
                await self._perform(effects)

    async def _forward(self) -> None:
        while True:
            await self._in.send(await self._network.inbox.receive())

    def _taken(self, item: Inbound) -> Sequence[Effect]:
        try:
            match item.road:
                case Road.CONSENSUS:
                    return self._on_link(item)
                case Topic.OBSERVATIONS:
                    return self._on_observation(item)
                case _:
                    self._network.report(item.peer, self._other(item.road, item.peer, item.frame))
        except RemoteFault as fault:
            self._network.report(item.peer, verdict_of(fault.reason))
        return ()

    def _other(self, key: str | Channel, peer: bytes, frame: bytes) -> Verdict:
        take = self._others.get(key)
        return ACCEPT if take is None else take(peer, frame)

    def _on_link(self, item: Inbound) -> Sequence[Effect]:
        channel, body = item.frame[:1], item.frame[1:]
        for other in (Channel.SEALING, Channel.CEREMONY):
            if channel == bytes((other,)):
                self._network.report(item.peer, self._other(other, item.peer, body))
                return ()
        text = peer_id_text(item.peer)
        if channel != bytes((Channel.AGREEMENT,)):
            raise RemoteFault(text, Reason.MALFORMED, "unknown channel")
        message = decode(body, text)
        sender = self._core.committee.index_of_peer(item.peer)
        if sender is None:  # the gate let it in: a member of the epoch before or after
            return self._ignored(item.peer)
        if isinstance(message, Vote) and message.signer == sender:
            self._note_lateness(item, message)
        return self._core.receive(sender, message, self._clock())

    def _on_observation(self, item: Inbound) -> Sequence[Effect]:
        text = peer_id_text(item.peer)
        message = decode(item.frame, text)
        committee = self._core.committee
        if not isinstance(message, SignedObservation):
            raise RemoteFault(text, Reason.MALFORMED, "not an observation")
        sender = committee.index_of_peer(item.peer)
        if sender is None:
            return self._ignored(item.peer)
        if message.signer != sender:
            raise RemoteFault(text, Reason.NOT_A_MEMBER, "another keeper's observation")
        if not self._accept(message):
            raise RemoteFault(text, Reason.WRONG_OBSERVATIONS)
        return self._core.observe(message, self._clock())

    def _ignored(self, peer: bytes) -> Sequence[Effect]:
        self._network.report(peer, Ignore(Reason.NOT_A_MEMBER))
        return ()

    def _note_lateness(self, item: Inbound, vote: Vote) -> None:
        key = (vote.view, int(vote.kind))
        first = self._firsts.setdefault(key, item.received_at)
        self._network.late(item.peer, max(0.0, item.received_at - first))
        if len(self._firsts) > FIRSTS_HELD:
            self._firsts.popitem(last=False)

    async def _perform(self, effects: Sequence[Effect]) -> None:
        members = self._core.committee.members
        for effect in effects:
            match effect:
                case Persist(records):
                    if self._in_thread:
                        await trio.to_thread.run_sync(self._log.write, records)
                    else:
                        self._log.write(records)
                case Broadcast(message):
                    self._network.broadcast(bytes((Channel.AGREEMENT,)) + encode(message))
                case Send(member, message):
                    frame = bytes((Channel.AGREEMENT,)) + encode(message)
                    self._network.send(members[member].peer_id, frame)
                case Refused(member, reason):
                    self._network.report(members[member].peer_id, verdict_of(reason))
                    self._tell(effect)
                case Finalized():
                    self._publish(effect.certificate)
                    self._tell(effect)
                case Jumped() | Equivocated() | Noted():
                    self._tell(effect)

    def _publish(self, certificate: Certificate) -> None:
        leader, size = self._core.leader(certificate.view), self._core.committee.size
        if (self._core.me - leader) % size < PUBLISHERS:
            self._network.publish(Topic.CERTIFICATES, encode(certificate))
