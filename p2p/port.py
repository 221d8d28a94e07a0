"""What a node needs of a network, whoever carries it: real libp2p or a simulation.

    consensus road   direct streams, full mesh of the committee      send, broadcast
    gossip road      topics, paced, relayed to followers             publish
    request road     one question, one answer, caller's deadline     request, serve
    everything that arrives and passed size, rate and admission ──►  inbox ──► report(verdict)

Two implementations from the first day, under one test suite: `p2p.host.Libp2pNetwork` and
`p2p.simulated.SimulatedNetwork`. A peer is the 38 bytes of its Ed25519 peer id (p2p.identity).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from keeper.errors import LocalError
from keeper.reasons import Reason
from keeper.units import Instant
from p2p.verdicts import Standing, Verdict


class Road(StrEnum):
    """Protocol ids of direct streams; the number at the end is the wire version."""

    CONSENSUS = "/flowkeeper/consensus/1"
    SYNC = "/flowkeeper/sync/1"
    NEED = "/flowkeeper/need/1"
    STATE = "/flowkeeper/state/1"
    RECOVERY = "/flowkeeper/recovery/1"
    PEERS = "/flowkeeper/peers/1"


class Topic(StrEnum):
    """Gossip topics: a closed list, so nobody can make us hold state for a name they invented."""

    OBSERVATIONS = "flowkeeper/observations/1"
    BIDS = "flowkeeper/bids/1"
    CERTIFICATES = "flowkeeper/certificates/1"
    SEALS = "flowkeeper/seals/1"
    MESSAGES = "flowkeeper/messages/1"


class Role(StrEnum):
    """What a peer is to us: a member of this epoch, bonded but not seated, or only reading."""

    COMMITTEE = "committee"
    BONDED = "bonded"
    FOLLOWER = "follower"


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound a peer can push against, with its reason.

    A frame on the consensus road is at most 512 KiB (a usual proposal at n = 31 is 90 KiB); a
    gossip message 64 KiB. A peer may send 500 frames/s (a keeper at n = 31 sends under 100) after
    a burst of 1,000, and 8 MiB/s. Queues are in frames for one peer; the newest win.

    A follower gets a quarter of every rate: it says little but what it wants to hear, anybody may
    be one, and `followers` of them together must leave a node time for its committee.
    """

    frame_bytes: int = 512 * 1024 + 1
    gossip_bytes: int = 64 * 1024
    request_bytes: int = 64 * 1024
    response_bytes: int = 1024 * 1024
    frames_per_s: float = 500.0
    frames_burst: float = 1000.0
    bytes_per_s: float = 8.0 * 1024 * 1024
    bytes_burst: float = 16.0 * 1024 * 1024
    requests_per_s: float = 20.0
    requests_burst: float = 40.0
    requests_at_once: int = 4
    connects_per_s: float = 0.5
    connects_burst: float = 8.0
    queue_frames: int = 256
    inbox_frames: int = 1024
    inbox_bytes: int = 4 * 1024 * 1024
    followers: int = 32
    follower_share: float = 0.25
    follower_requests_at_once: int = 16
    connections: int = 128
    connections_per_peer: int = 3
    publish_gap_s: float = 0.005
    publish_queue: int = 256
    keep_alive_s: float = 0.5
    dead_s: float = 2.0
    back_off_s: float = 0.1
    back_off_max_s: float = 5.0
    request_read_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Inbound:
    """One frame that passed size, rate and admission; its content is not yet judged.

    `peer` is who is answerable: the sender on a direct road, the signing origin on a topic.
    """

    peer: bytes
    road: str
    frame: bytes
    received_at: Instant


@dataclass(frozen=True, slots=True)
class PeerView:
    """One row of `keeper peers`. Times in seconds; None means not measured."""

    peer: bytes
    role: Role
    connected: bool
    standing: Standing
    score: float
    round_trip_s: float | None
    lateness_s: float | None
    queued: int
    sent_bytes: int
    received_bytes: int
    drops: tuple[tuple[Reason, int], ...]
    addresses: tuple[str, ...]


class Inbox(Protocol):
    """Bounded per peer, fair between peers, newest wins."""

    async def receive(self) -> Inbound:
        """Return the next frame, taking peers in turn; waits for one."""
        ...

    def receive_nowait(self) -> Inbound | None:
        """Return the next frame, or None."""
        ...


Handler = Callable[[bytes, bytes], bytes | Awaitable[bytes]]
"""handler(peer, frame) -> answer. May raise `RemoteFault`, which is counted against the peer."""


class Network(Protocol):
    """What a node uses. Only `run` and `request` wait; nothing else blocks or raises."""

    @property
    def me(self) -> bytes:
        """Return our own peer id."""
        ...

    @property
    def inbox(self) -> Inbox:
        """Return where frames that passed wait."""
        ...

    async def run(self, *, task_status: Any) -> None:
        """Carry traffic until cancelled; leaves no task. Started once listening."""
        ...

    def send(self, peer: bytes, frame: bytes) -> None:
        """Queue a frame on the consensus road; the newest win when the queue is full."""
        ...

    def broadcast(self, frame: bytes) -> None:
        """Queue a frame to every other committee member."""
        ...

    def publish(self, topic: Topic, frame: bytes) -> None:
        """Queue a frame on a topic; it leaves at the pace gossip bears. Not delivered to us."""
        ...

    async def request(self, peer: bytes, road: Road, frame: bytes) -> bytes:
        """Return a peer's answer; the deadline is the caller's cancel scope.

        Raises:
            RemoteFault: the peer refused, broke the rules of the road, or went away.
        """
        ...

    def serve(self, road: Road, handler: Handler) -> None:
        """Answer requests of a road; size, rate and concurrency limits apply before `handler`."""
        ...

    def allow(self, committee: frozenset[bytes], bonded: frozenset[bytes]) -> None:
        """Set who may connect as what; a peer taken out is cut off at once."""
        ...

    def report(self, peer: bytes, verdict: Verdict) -> None:
        """Tell what a frame of this peer was worth; feeds score, mute, disconnect, refusal."""
        ...

    def late(self, peer: bytes, seconds: float) -> None:
        """Tell how late a vote of this peer came, for its row of `keeper peers`."""
        ...

    def peers(self) -> tuple[PeerView, ...]:
        """Return one row per peer known, by peer id."""
        ...


def check_size(size: int, limit: int) -> None:
    """Refuse to send what every peer would refuse to take.

    Raises:
        LocalError: the frame is over the limit.
    """
    if size > limit:
        raise LocalError(
            f"a message of {size} bytes is over the limit of {limit}",
            remedy="this is a bug: the sender must split or shrink it",
        )
