"""Everything between a byte that arrived and the inbox, the same for every carrier.

    admitted? ─────► not refused? ─────► size ─► token bucket ─► inbox ─► node ─► report(verdict)
        │               │                  │           │                              │
        └───────────────┴─── dropped, counted by peer and reason ─── score ──► cut off

Cheapest check first. The gate knows no socket: the carrier asks it who may connect, tells it what
arrived, and is told whom to cut off.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from keeper.metrics import Metrics
from keeper.reasons import Reason
from keeper.units import Instant
from p2p.identity import peer_id_text
from p2p.inbox import FairInbox
from p2p.port import Inbound, Limits, PeerView, Role
from p2p.verdicts import Ignore, Record, Reject, Scores, Standing, TokenBucket, Verdict

SMOOTHING = 0.2
"""Weight of a new round trip or lateness in the running mean."""

FOLLOWER_FRAME_BYTES = 1024
"""Of the consensus road: what a follower has begun to send must not wait in our memory."""


class ScoreBook(Protocol):
    """Where scores survive a restart."""

    def load(self) -> tuple[Record, ...]:
        """Return the saved records."""
        ...

    def save(self, records: Iterable[Record]) -> None:
        """Replace the saved records."""
        ...


@dataclass(slots=True)
class Traffic:
    """What we count about one peer."""

    frames: TokenBucket
    bytes: TokenBucket
    requests: TokenBucket
    connects: TokenBucket
    connected: bool = False
    round_trip_s: float | None = None
    lateness_s: float | None = None
    queued: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    addresses: tuple[str, ...] = field(default=())


class Gate:
    """Admission, limits, scores and counters of one node.

    Invariants: nothing of a peer that is not admitted reaches the inbox; `cut(peer, reason)` is
    called once per disconnection the carrier must make.
    """

    def __init__(
        self,
        me: bytes,
        limits: Limits,
        metrics: Metrics,
        clock: Callable[[], float],
        cut: Callable[[bytes, Reason], None],
        book: ScoreBook | None = None,
    ) -> None:
        """Create a gate.

        Args:
            me: our own peer id; never admitted as a peer.
            limits: the bounds.
            metrics: where drops are counted.
            clock: seconds that go on across restarts (unix time, steady within a process).
            cut: called when a peer must be disconnected now.
            book: where scores survive restarts; None keeps them in memory.
        """
        self.me, self.limits, self.clock = me, limits, clock
        self._cut, self._book = cut, book
        self.scores = Scores(book.load() if book is not None else ())
        self.committee: frozenset[bytes] = frozenset()
        self.former: frozenset[bytes] = frozenset()
        """Members of the committee before: they may not have heard that they are none now."""
        self.bonded: frozenset[bytes] = frozenset()
        self.inbox = FairInbox(limits, self._inbox_dropped)
        self._traffic: dict[bytes, Traffic] = {}
        self._drops = metrics.counter(
            "keeper_p2p_dropped_total", "Messages dropped, by peer and reason.", ["peer", "reason"]
        )
        self._frames = metrics.counter(
            "keeper_p2p_frames_total",
            "Frames that reached the inbox, by peer and road.",
            ["peer", "road"],
        )
        self._bytes = metrics.counter(
            "keeper_p2p_bytes_total", "Payload bytes, by peer and direction.", ["peer", "direction"]
        )
        self._cuts = metrics.counter(
            "keeper_p2p_cut_total", "Peers disconnected, by reason.", ["reason"]
        )
        self._denied = metrics.counter(
            "keeper_p2p_denied_total", "Handshakes refused, by reason.", ["reason"]
        )
        self._rtt = metrics.gauge(
            "keeper_p2p_round_trip_seconds", "Smoothed round trip of keep-alives.", ["peer"]
        )
        self._late = metrics.gauge(
            "keeper_p2p_lateness_seconds", "Smoothed lateness of a peer's votes.", ["peer"]
        )
        self._depth = metrics.gauge("keeper_p2p_inbox_frames", "Frames waiting to be judged.")

    # who may connect

    def allow(self, committee: frozenset[bytes], bonded: frozenset[bytes]) -> tuple[bytes, ...]:
        """Set the sets and return the peers that lost their place."""
        before = self.committee | self.bonded
        if committee - {self.me} != self.committee:
            self.former = self.committee - committee
        self.committee, self.bonded = committee - {self.me}, bonded - {self.me}
        return tuple(sorted(before - self.committee - self.bonded))

    def role(self, peer: bytes) -> Role:
        """Return what a peer is to us now."""
        if peer in self.committee:
            return Role.COMMITTEE
        return Role.BONDED if peer in self.bonded else Role.FOLLOWER

    def cost(self, peer: bytes) -> float:
        """Return how many tokens of its buckets one thing of this peer takes."""
        return 1 / self.limits.follower_share if self.role(peer) is Role.FOLLOWER else 1.0

    def admits(self, peer: bytes) -> Reason | None:
        """Return why a peer may not connect, or None if it may."""
        if peer == self.me:
            return Reason.DUPLICATE
        if self.scores.standing(peer, self.clock()) is Standing.REFUSED:
            return Reason.REFUSED
        if self.role(peer) is Role.FOLLOWER:
            others = sum(
                traffic.connected and other != peer and self.role(other) is Role.FOLLOWER
                for other, traffic in self._traffic.items()
            )
            if others >= self.limits.followers:
                return Reason.NOT_ADMITTED
        return None

    def may_connect(self, peer: bytes) -> Reason | None:
        """Count a peer's own handshake and return why it may not connect, or None if it may."""
        reason = self.admits(peer)
        if reason is None and not self.traffic(peer).connects.take(self.clock()):
            reason = Reason.RECONNECTING
            self.report(peer, Reject(Reason.RECONNECTING))
        if reason is not None:
            self.denied(reason)
        return reason

    def denied(self, reason: Reason) -> None:
        """Count a refused handshake."""
        self._denied.labels(reason.value).inc()

    def frame_limit(self, peer: bytes) -> int:
        """Return how long a frame of the consensus road may be: a follower has pings to send."""
        is_keeper = self.role(peer) is not Role.FOLLOWER or peer in self.former
        return self.limits.frame_bytes if is_keeper else FOLLOWER_FRAME_BYTES

    def not_a_member(self, peer: bytes) -> Verdict:
        """Return what it says about somebody that it speaks where only keepers may."""
        if peer in self.former:
            return Ignore(Reason.NOT_A_MEMBER)
        return Reject(Reason.NOT_A_MEMBER)

    # what arrives

    def take(self, peer: bytes, road: str, frame: bytes, at: Instant, limit: int) -> bool:
        """Put a frame into the inbox if it passes; `limit` is the road's size in bytes."""
        if not self.may_speak(peer, len(frame), limit):
            return False
        self.enter(peer, road, frame, at)
        return True

    def enter(self, peer: bytes, road: str, frame: bytes, at: Instant) -> None:
        """Put a frame that passed into the inbox."""
        self.inbox.put(Inbound(peer, road, frame, at))
        self._frames.labels(self._label(peer), road).inc()
        self._depth.set(len(self.inbox))

    def may_speak(self, peer: bytes, size: int, limit: int) -> bool:
        """Check standing, size and rate of one message, and count it."""
        now = self.clock()
        if self.scores.standing(peer, now) is Standing.REFUSED:
            self._drops.labels(self._label(peer), Reason.REFUSED.value).inc()
            return False
        if size > limit:
            self.report(peer, Reject(Reason.OVERSIZE))
            return False
        traffic = self.traffic(peer)
        traffic.received_bytes += size
        self._bytes.labels(self._label(peer), "received").inc(size)
        cost = self.cost(peer)
        if not (traffic.frames.take(now, cost) and traffic.bytes.take(now, cost * size)):
            self.report(peer, Ignore(Reason.RATE_LIMITED))
            return False
        return True

    def flooded(self, peer: bytes, more: int) -> None:
        """Count messages that were dropped unread behind one that was over the rate."""
        if more:
            self.report(peer, Ignore(Reason.RATE_LIMITED), more)

    def is_muted(self, peer: bytes) -> bool:
        """Return whether a peer is neither relayed nor answered for now."""
        return self.scores.standing(peer, self.clock()) is not Standing.GOOD

    def may_ask(self, peer: bytes) -> bool:
        """Check standing and request rate, and count the request."""
        now = self.clock()
        if self.is_muted(peer):
            self.report(peer, Reject(Reason.REFUSED))
            return False
        if not self.traffic(peer).requests.take(now, self.cost(peer)):
            self.report(peer, Ignore(Reason.RATE_LIMITED))
            return False
        return True

    def report(self, peer: bytes, verdict: Verdict, times: int = 1) -> None:
        """Count a verdict, so many times; cuts the peer off when its score says so."""
        now = self.clock()
        before = self.scores.standing(peer, now)
        after = self.scores.judge(peer, verdict, now, times)
        if isinstance(verdict, Ignore | Reject):
            self._drops.labels(self._label(peer), verdict.reason.value).inc(times)
            if after is Standing.REFUSED and before is not Standing.REFUSED:
                self._cuts.labels(verdict.reason.value).inc()
                self.inbox.forget(peer)
                self.save()
                self._cut(peer, verdict.reason)

    def save(self) -> None:
        """Write the scores to the book."""
        if self._book is not None:
            self._book.save(self.scores.records())

    def overflowed(self, peer: bytes) -> None:
        """Count a frame to a peer that its full queue lost; no fault of anybody."""
        self.report(peer, Ignore(Reason.QUEUE_FULL))

    def _inbox_dropped(self, peer: bytes) -> None:
        self.report(peer, Ignore(Reason.QUEUE_FULL))

    # counters

    def traffic(self, peer: bytes) -> Traffic:
        """Return the counters of a peer, making them if new; strangers gone are forgotten."""
        found = self._traffic.get(peer)
        if found is None:
            self._forget_strangers()
            limits = self.limits
            found = self._traffic[peer] = Traffic(
                TokenBucket(limits.frames_per_s, limits.frames_burst),
                TokenBucket(limits.bytes_per_s, limits.bytes_burst),
                TokenBucket(limits.requests_per_s, limits.requests_burst),
                TokenBucket(limits.connects_per_s, limits.connects_burst),
            )
        return found

    def connected(self, peer: bytes, up: bool) -> None:
        """Note that a peer has a live connection, or lost its last."""
        self.traffic(peer).connected = up

    def sent(self, peer: bytes, size: int) -> None:
        """Count bytes that left for a peer."""
        self.traffic(peer).sent_bytes += size
        self._bytes.labels(self._label(peer), "sent").inc(size)

    def round_trip(self, peer: bytes, seconds: float) -> None:
        """Note one measured round trip."""
        traffic = self.traffic(peer)
        traffic.round_trip_s = _smooth(traffic.round_trip_s, seconds)
        self._rtt.labels(self._label(peer)).set(traffic.round_trip_s)

    def late(self, peer: bytes, seconds: float) -> None:
        """Note how late a vote of a peer came."""
        traffic = self.traffic(peer)
        traffic.lateness_s = _smooth(traffic.lateness_s, seconds)
        self._late.labels(self._label(peer)).set(traffic.lateness_s)

    def _label(self, peer: bytes) -> str:
        """Return a peer's name in metrics: strangers share one, for they can be without number."""
        role = self.role(peer)
        return role.value if role is Role.FOLLOWER else peer_id_text(peer)

    def peers(self) -> tuple[PeerView, ...]:
        """Return one row per peer, by peer id."""
        now = self.clock()
        known = self.committee | self.bonded | set(self._traffic)
        rows = []
        for peer in sorted(known):
            traffic = self.traffic(peer)
            rows.append(
                PeerView(
                    peer,
                    self.role(peer),
                    traffic.connected,
                    self.scores.standing(peer, now),
                    self.scores.score(peer, now),
                    traffic.round_trip_s,
                    traffic.lateness_s,
                    traffic.queued,
                    traffic.sent_bytes,
                    traffic.received_bytes,
                    self.scores.drops(peer),
                    traffic.addresses,
                )
            )
        return tuple(rows)

    def _forget_strangers(self) -> None:
        if len(self._traffic) < 4 * self.limits.connections:
            return
        for peer in [
            peer
            for peer, traffic in self._traffic.items()
            if not traffic.connected and self.role(peer) is Role.FOLLOWER
        ]:
            del self._traffic[peer]


def _smooth(mean: float | None, value: float) -> float:
    return value if mean is None else mean + SMOOTHING * (value - mean)
