"""A network in one process on virtual time, from a seed: the verified fake of the port.

    node a ─ send ─► [partition? loss? ─► delay, maybe twice, maybe late] ─► gate of b ─► inbox
                                        one random stream for the whole world

Timers are trio sleeps, so under `MockClock(autojump_threshold=0)` hours pass in milliseconds. The
same gate as the real host judges what arrives: admission, size, rate, score.
"""

import inspect
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from typing import Any

import trio

from keeper.errors import LocalError, RemoteFault
from keeper.metrics import Metrics
from keeper.reasons import Reason
from keeper.units import Instant
from p2p.gate import Gate, ScoreBook
from p2p.identity import peer_id_of, peer_id_text
from p2p.port import Handler, Limits, PeerView, Road, Role, Topic, check_size
from p2p.verdicts import Reject, Verdict


@dataclass(frozen=True, slots=True)
class Weather:
    """What the world does to messages. Seconds and probabilities."""

    delay_s: tuple[float, float] = (0.02, 0.08)
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """Probability that a message takes ten times its delay, so later ones overtake it."""


class World:
    """The air between simulated nodes.

    Invariants: every choice comes from one seeded stream in the order of calls; delivery happens
    only while the receiver runs.
    """

    def __init__(self, seed: int, weather: Weather | None = None) -> None:
        self._random = random.Random(seed)
        self.weather = weather or Weather()
        self._nodes: dict[bytes, SimulatedNetwork] = {}
        self._sides: tuple[frozenset[bytes], ...] = ()
        self._count = 0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._changed = trio.Event()

    def partition(self, *sides: Iterable[bytes]) -> None:
        """Cut the world: only peers of the same side hear each other. No side heals it."""
        self._sides = tuple(frozenset(side) for side in sides)

    def set_weather(self, **changes: Any) -> None:
        """Change some of the conditions from now on."""
        self.weather = replace(self.weather, **changes)

    def hears(self, source: bytes, target: bytes) -> bool:
        """Return whether messages can pass now."""
        if target not in self._nodes or source not in self._nodes:
            return False
        return not self._sides or any(source in side and target in side for side in self._sides)

    def node(self, peer: bytes) -> "SimulatedNetwork | None":
        """Return a running node."""
        return self._nodes.get(peer)

    def running(self) -> tuple[bytes, ...]:
        """Return the peers that run, sorted."""
        return tuple(sorted(self._nodes))

    def enter(self, node: "SimulatedNetwork") -> None:
        """A node starts listening.

        Raises:
            LocalError: its identity is already in use.
        """
        if node.me in self._nodes:
            raise LocalError(
                "this identity is already running",
                where=peer_id_text(node.me),
                remedy="stop the other node first",
            )
        self._nodes[node.me] = node

    def leave(self, node: "SimulatedNetwork") -> None:
        """A node stops; what is under way to it is lost."""
        self._nodes.pop(node.me, None)

    def carry(self, source: bytes, target: bytes, deliver: Callable[[], None]) -> None:
        """Deliver once, never or twice, after a delay, unless a partition or a crash forbids."""
        if not self.hears(source, target):
            return
        if self._random.random() < self.weather.loss:
            return
        copies = 2 if self._random.random() < self.weather.duplicate else 1
        for _ in range(copies):
            delay = self._random.uniform(*self.weather.delay_s)
            if self._random.random() < self.weather.reorder:
                delay *= 10
            self._count += 1
            heappush(self._due, (trio.current_time() + delay, self._count, deliver))
        self._changed.set()

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Deliver what is due until cancelled; one such task for the whole world."""
        task_status.started()
        while True:
            self._changed = trio.Event()
            while self._due and self._due[0][0] <= trio.current_time():
                heappop(self._due)[2]()
            wait = self._due[0][0] - trio.current_time() if self._due else float("inf")
            with trio.move_on_after(wait):
                await self._changed.wait()


class SimulatedNetwork:
    """Implements `p2p.port.Network` in a `World`."""

    def __init__(
        self,
        world: World,
        seed: bytes,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        book: ScoreBook | None = None,
    ) -> None:
        """Create a node of the world; it takes part while `run` runs.

        Args:
            world: shared by all nodes.
            seed: the 32-byte identity seed.
            limits: as of a real node.
            metrics: this node's instruments.
            book: where its scores survive a restart.
        """
        self.me = peer_id_of(seed)
        self.limits = limits or Limits()
        self._world = world
        self.gate = Gate(
            self.me,
            self.limits,
            metrics or Metrics(),
            trio.current_time,
            lambda _peer, _reason: None,
            book,
        )
        self.inbox = self.gate.inbox
        self._handlers: dict[Road, Handler] = {}
        self._answers: trio.MemorySendChannel[Callable[[], Any]] | None = None

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Take part in the world until cancelled."""
        self._world.enter(self)
        try:
            async with trio.open_nursery() as nursery:
                sender, receiver = trio.open_memory_channel[Callable[[], Any]](256)
                self._answers = sender
                task_status.started()
                async for job in receiver:
                    nursery.start_soon(job)
        finally:
            self._answers = None
            self._world.leave(self)
            self.gate.save()

    def send(self, peer: bytes, frame: bytes) -> None:
        """Queue a frame to a committee member."""
        check_size(len(frame), self.limits.frame_bytes)
        if peer not in self.gate.committee or self._world.node(self.me) is not self:
            return
        self.gate.sent(peer, len(frame))
        self._world.carry(self.me, peer, lambda: self._deliver(peer, frame))

    def broadcast(self, frame: bytes) -> None:
        """Queue a frame to every other committee member."""
        for peer in sorted(self.gate.committee):
            self.send(peer, frame)

    def publish(self, topic: Topic, frame: bytes) -> None:
        """Queue a frame to everybody who listens."""
        check_size(len(frame), self.limits.gossip_bytes)
        for peer in self._world.running():
            if peer != self.me:
                self._world.carry(self.me, peer, self._delivery(peer, topic, frame))

    def _delivery(self, peer: bytes, topic: Topic, frame: bytes) -> Callable[[], None]:
        def deliver() -> None:
            node = self._world.node(peer)
            if node is None or not node.admitted(self.me):
                return
            if node.gate.role(self.me) is Role.FOLLOWER:
                node.gate.report(self.me, node.gate.not_a_member(self.me))
                return
            node.gate.take(
                self.me, topic, frame, Instant(trio.current_time()), node.limits.gossip_bytes
            )

        return deliver

    def _deliver(self, peer: bytes, frame: bytes) -> None:
        node = self._world.node(peer)
        if node is None or not node.admitted(self.me):
            return
        if self.me not in node.gate.committee:
            node.gate.report(self.me, node.gate.not_a_member(self.me))
            return
        node.gate.take(
            self.me, Road.CONSENSUS, frame, Instant(trio.current_time()), node.limits.frame_bytes
        )

    def admitted(self, peer: bytes) -> bool:
        """Return whether a connection with this peer would stand, counting a refusal."""
        reason = self.gate.admits(peer)
        if reason is not None:
            self.gate.denied(reason)
        self.gate.connected(peer, reason is None)
        return reason is None

    async def request(self, peer: bytes, road: Road, frame: bytes) -> bytes:
        """Return a peer's answer; a lost question or answer waits for the caller's deadline."""
        node = self._world.node(peer)
        if node is None or not self._world.hears(self.me, peer) or not node.admitted(self.me):
            await trio.lowlevel.checkpoint()
            raise RemoteFault(peer_id_text(peer), Reason.UNREACHABLE)
        answered = trio.Event()
        answers: list[bytes | RemoteFault] = []

        def back(answer: bytes | RemoteFault) -> None:
            answers.append(answer)
            answered.set()

        self._world.carry(self.me, peer, lambda: node.ask(self.me, road, frame, back))
        await answered.wait()
        answer = answers[0]
        if isinstance(answer, RemoteFault):
            raise answer
        if len(answer) > self.limits.response_bytes:
            self.gate.report(peer, Reject(Reason.OVERSIZE))
            raise RemoteFault(peer_id_text(peer), Reason.OVERSIZE)
        return answer

    def ask(
        self, peer: bytes, road: Road, frame: bytes, back: Callable[[bytes | RemoteFault], None]
    ) -> None:
        """Answer a question that arrived, through the air."""
        handler = self._handlers.get(road)

        def reply(answer: bytes | RemoteFault) -> None:
            self._world.carry(self.me, peer, lambda: back(answer))

        refused = RemoteFault(peer_id_text(self.me), Reason.REFUSED)
        if handler is None or not self.gate.may_ask(peer):
            reply(refused)
            return
        if len(frame) > self.limits.request_bytes:
            self.gate.report(peer, Reject(Reason.OVERSIZE))
            reply(refused)
            return

        async def job() -> None:
            try:
                result = handler(peer, frame)
                answer = await result if inspect.isawaitable(result) else result
            except RemoteFault as fault:
                self.gate.report(peer, Reject(fault.reason))
                reply(refused)
                return
            reply(answer)

        if self._answers is not None:
            try:
                self._answers.send_nowait(job)
            except trio.WouldBlock:
                reply(refused)

    def serve(self, road: Road, handler: Handler) -> None:
        """Answer requests of a road."""
        self._handlers[road] = handler

    def allow(self, committee: frozenset[bytes], bonded: frozenset[bytes]) -> None:
        """Set who may connect as what."""
        for peer in self.gate.allow(committee, bonded):
            self.gate.connected(peer, False)

    def report(self, peer: bytes, verdict: Verdict) -> None:
        """Tell what a frame of this peer was worth."""
        self.gate.report(peer, verdict)

    def late(self, peer: bytes, seconds: float) -> None:
        """Tell how late a vote of this peer came."""
        self.gate.late(peer, seconds)

    def peers(self) -> tuple[PeerView, ...]:
        """Return one row per peer known."""
        return self.gate.peers()
