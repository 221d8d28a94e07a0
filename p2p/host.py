"""The real network: libp2p over TCP, Noise and yamux, with every guard of p2p.guards in place.

    run ─► supervisor ─► services first, then listen ─┬─ links      one task per member (p2p.links)
             ▲ restart, 0.2 … 5 s                     ├─ publisher  paced gossip (p2p.gossip)
             └── a crash inside ◄─────────────────────┼─ exchange   addresses (p2p.addresses)
                                                      └─ keeper     scores to disk

The agent does not fall with it: a crash of the library is counted and the host starts again.
"""

import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import structlog
import trio
from libp2p import new_host
from libp2p.abc import IHost, INetConn, INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr  # type: ignore[import-untyped]  # ships no types

from keeper.errors import LocalError, RemoteFault
from keeper.metrics import Metrics
from keeper.reasons import Reason
from keeper.units import Instant
from p2p.addresses import AddressBook, make_record, pack_records, unpack_records
from p2p.gate import Gate, ScoreBook
from p2p.gossip import PROTOCOLS, GuardedPubsub, LeanGossipSub
from p2p.guards import (
    NETWORK_FAULTS,
    GatedNoise,
    HalfOpen,
    Watch,
    check_port,
    guard_dialling,
    guard_identify,
    guard_inbound,
    guard_muxer,
    guarded,
)
from p2p.identity import peer_id_from_text, peer_id_of, peer_id_text
from p2p.links import Link, LinkDown, serve_link
from p2p.muxer import Muxer
from p2p.port import Handler, Limits, PeerView, Road, Role, Topic, check_size
from p2p.roads import Answerer, ask
from p2p.verdicts import Reject, Verdict

log = structlog.get_logger(__name__)

EXCHANGE_S = 15.0
"""How often addresses are exchanged with a linked peer …"""
EXCHANGE_FIRST_S = 1.0
"""… and how often while the address of some member is not known yet."""
SAVE_S = 10.0
RESTART_S, RESTART_MAX_S = 0.2, 5.0
CLOSE_S = 2.0


class Libp2pNetwork:
    """Implements `p2p.port.Network` on py-libp2p.

    Invariants: no stream or muxer exists for a peer that `Gate.admits` refused; every task lives in
    the nursery of `run`.
    """

    def __init__(
        self,
        seed: bytes,
        listen: str,
        known: tuple[str, ...] = (),
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        book: ScoreBook | None = None,
        announce: tuple[str, ...] = (),
    ) -> None:
        """Create a host; nothing starts before `run`.

        Args:
            seed: the 32-byte Ed25519 identity seed.
            listen: multiaddr to listen on, like `/ip4/127.0.0.1/tcp/4001`; port 0 picks one.
            known: bootstrap addresses with their peer, like `/ip4/…/tcp/…/p2p/12D3KooW…`.
            limits: bounds on peers.
            metrics: this node's instruments.
            book: where scores survive a restart.
            announce: addresses to tell others instead of the listening one.

        Raises:
            LocalError: an address cannot be read.
        """
        self.me = peer_id_of(seed)
        self._seed, self._listen, self._announce = seed, listen, announce
        self.limits = limits or Limits()
        self._metrics = metrics or Metrics()
        started, unix = time.monotonic(), time.time()
        self.gate = Gate(
            self.me,
            self.limits,
            self._metrics,
            lambda: unix + time.monotonic() - started,
            self._cut,
            book,
        )
        self.inbox = self.gate.inbox
        self.book = AddressBook(read_address(text) for text in known)
        self._answerer = Answerer(self.gate)
        self._answerer.serve(Road.PEERS, self._exchanged)
        self._links: dict[bytes, tuple[Link, trio.CancelScope]] = {}
        self._outbox: deque[tuple[str, bytes]] = deque()
        self._published = trio.Event()
        self._admission = trio.Event()
        self._changed = trio.Event()
        self._hang_ups: trio.MemorySendChannel[Sequence[INetConn]] | None = None
        self._awaited: dict[bytes, trio.Event] = {}
        self._host: IHost | None = None
        self.addresses: tuple[str, ...] = ()
        self._crashes = self._metrics.counter(
            "keeper_p2p_restarts_total", "Times the peer-to-peer host crashed and started again."
        )
        self._lost = self._metrics.counter(
            "keeper_p2p_publish_dropped_total", "Own gossip dropped because its queue was full."
        )

    # life

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Carry traffic until cancelled; restarts the host if the library crashes.

        Raises:
            LocalError: the listening address cannot be used (first start only).
        """
        # the library warns once per failed dial; our logs and metrics say it once per outcome
        logging.getLogger("libp2p").setLevel(logging.CRITICAL)
        wait, started = RESTART_S, False

        class Once:
            def started(self, value: object = None) -> None:
                nonlocal started
                if not started:
                    started = True
                    task_status.started(value)

        while True:
            began = trio.current_time()
            try:
                await self._run_once(Once())
            except BaseExceptionGroup as errors:
                if not started:
                    raise
                ours, others = errors.split(Exception)
                if others is not None:
                    raise
                self._crashed(ours)
            if trio.current_time() - began > 60:
                wait = RESTART_S
            await trio.sleep(wait)
            wait = min(2 * wait, RESTART_MAX_S)

    def _crashed(self, errors: BaseExceptionGroup[Exception] | None) -> None:
        self._crashes.inc()
        log.warning("p2p_host_crashed", error=repr(errors))

    async def _run_once(self, task_status: Any) -> None:
        async with self._hosted() as (host, pubsub), trio.open_nursery() as nursery:
            sender, receiver = trio.open_memory_channel[Sequence[INetConn]](256)
            self._host, self._hang_ups = host, sender
            try:
                await nursery.start(self._hang_up_all, receiver)
                nursery.start_soon(self._publish_all, pubsub)
                nursery.start_soon(self._keep_links)
                nursery.start_soon(self._keep_scores)
                task_status.started(self.addresses)
                await trio.sleep_forever()
            finally:
                self._host = self._hang_ups = None
                self._links.clear()
                self.gate.save()

    @asynccontextmanager
    async def _hosted(self) -> AsyncIterator[tuple[IHost, GuardedPubsub]]:
        host_text, port = endpoint(self._listen)
        check_port(host_text, port)
        host = self._new_host()
        swarm = host.get_network()
        assert isinstance(swarm, Swarm)
        assert isinstance(host, BasicHost)
        swarm.retry_config = RetryConfig(max_retries=0)  # links retry at their own pace
        swarm.register_notifee(Watch(self._connection_changed))
        half_open = HalfOpen(self.gate.clock, self.book.lives)
        guard_inbound(swarm, half_open, self.gate.denied)
        guard_muxer(swarm, self._fault, self.gate.cost)
        guard_dialling(swarm)
        guard_identify(host)
        router = LeanGossipSub(self.gate)
        pubsub = GuardedPubsub(host, router, self.gate)
        for protocol in PROTOCOLS:
            host.set_stream_handler(protocol, guarded(pubsub.stream_handler, self._fault))
        host.set_stream_handler(TProtocol(Road.CONSENSUS), guarded(self._serve_link, self._fault))
        for road in (Road.SYNC, Road.NEED, Road.STATE, Road.RECOVERY, Road.PEERS):
            answer = partial(self._answerer.handle, road)
            host.set_stream_handler(TProtocol(road), guarded(answer, self._fault))
        swarm.set_stream_handler(guarded(swarm.common_stream_handler, self._fault))
        # guard 4: services first, then listen
        async with (
            host.run([]),
            background_trio_service(pubsub),
            background_trio_service(router),
        ):
            await pubsub.wait_until_ready()
            await pubsub.join()
            if not await swarm.listen(Multiaddr(self._listen)):
                raise LocalError(
                    "cannot listen for peers", where=self._listen, remedy="check [p2p] listen"
                )
            self.addresses = self._announce or tuple(
                str(address).split("/p2p/")[0] for address in host.get_transport_addrs()
            )
            self._learn_own()
            try:
                yield host, pubsub
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                    await host.close()

    def _new_host(self) -> IHost:
        keys = create_new_key_pair(self._seed)
        limits = self.limits
        config = ConnectionConfig(
            min_connections=0,
            low_watermark=0,
            high_watermark=limits.connections,
            max_connections=limits.connections,
            max_connections_per_peer=limits.connections_per_peer,
            inbound_stream_protocol_negotiation_timeout=limits.request_read_s,
            outbound_stream_protocol_negotiation_timeout=limits.request_read_s,
        )
        return new_host(
            key_pair=keys,
            listen_addrs=[Multiaddr(self._listen)],
            sec_opt={NOISE: GatedNoise(keys, self.gate.may_connect, self.gate.admits)},
            muxer_opt={TProtocol(YAMUX): Muxer},
            connection_config=config,
        )

    def _learn_own(self, after: int = 0) -> None:
        counter = max(time.time_ns(), after + 1)
        self.book.learn(make_record(self._seed, self.me, counter, self.addresses))

    async def _keep_scores(self) -> None:
        while True:
            await trio.sleep(SAVE_S)
            await trio.to_thread.run_sync(self.gate.save)

    # admission

    def allow(self, committee: frozenset[bytes], bonded: frozenset[bytes]) -> None:
        """Set who may connect as what; a peer taken out is cut off at once."""
        for peer in self.gate.allow(committee, bonded):
            self._hang_up(peer)
        self.book.keep_only(self.gate.committee | self.gate.bonded | {self.me})
        self._admission.set()
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _cut(self, peer: bytes, reason: Reason) -> None:
        log.warning("peer_cut_off", peer=peer_id_text(peer), reason=reason.value)
        self._hang_up(peer)

    def _fault(self, peer: bytes, reason: Reason) -> None:
        self.gate.report(peer, Reject(reason))

    def _hang_up(self, peer: bytes) -> None:
        self._close_soon(self._connections(peer))

    def _close_soon(self, connections: Sequence[INetConn]) -> None:
        if self._hang_ups is not None and connections:
            try:
                self._hang_ups.send_nowait(connections)
            except trio.WouldBlock:
                peer = connections[0].muxed_conn.peer_id.to_bytes()
                log.warning("too_many_hang_ups", peer=peer_id_text(peer))

    async def _hang_up_all(
        self, due: trio.MemoryReceiveChannel[Sequence[INetConn]], *, task_status: Any
    ) -> None:
        async with trio.open_nursery() as nursery:
            task_status.started()
            async for connections in due:
                nursery.start_soon(_close, connections)

    def _connections(self, peer: bytes) -> Sequence[INetConn]:
        """Return the live connections of a peer, oldest first."""
        return [] if self._host is None else self._host.get_network().get_connections(ID(peer))

    # the consensus road

    def send(self, peer: bytes, frame: bytes) -> None:
        """Queue a frame on the consensus road; the newest win when the queue is full."""
        check_size(len(frame), self.limits.frame_bytes)
        held = self._links.get(peer)
        if held is not None and peer in self.gate.committee:
            held[0].put(frame)

    def broadcast(self, frame: bytes) -> None:
        """Queue a frame to every other committee member."""
        for peer in sorted(self.gate.committee):
            self.send(peer, frame)

    async def _serve_link(self, stream: INetStream) -> None:
        await serve_link(stream, self.gate, self._took)

    def _took(self, peer: bytes, body: bytes) -> bool:
        if self.gate.role(peer) is not Role.COMMITTEE:
            self.gate.report(peer, self.gate.not_a_member(peer))
            return self.gate.may_speak(peer, len(body), self.limits.frame_bytes)
        now = Instant(trio.current_time())
        return self.gate.take(peer, Road.CONSENSUS, body, now, self.limits.frame_bytes)

    def _wanted(self) -> frozenset[bytes]:
        return (self.gate.committee | frozenset(self.book.bootstrap())) - {self.me}

    async def _keep_links(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                self._admission = trio.Event()
                wanted = self._wanted()
                for peer in sorted(self._links.keys() - wanted):
                    self._links.pop(peer)[1].cancel()
                for peer in sorted(wanted - self._links.keys()):
                    link, scope = Link(peer, self.gate, self.limits), trio.CancelScope()
                    self._links[peer] = (link, scope)
                    nursery.start_soon(self._keep_link, link, scope)
                await self._admission.wait()

    async def _keep_link(self, link: Link, scope: trio.CancelScope) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._exchange_with, link)
                await link.keep(self, self._dials_first(link.peer))

    def _dials_first(self, peer: bytes) -> bool:
        # we are on the peer's list of links only if both are members
        return peer not in self.gate.committee or self.me < peer

    def is_linked(self, peer: bytes) -> bool:
        """Return whether our link to a peer is up."""
        held = self._links.get(peer)
        return held is not None and held[0].up

    def is_connected(self, peer: bytes) -> bool:
        """Return whether a live connection exists."""
        return bool(self._connections(peer))

    def _connection_changed(self, peer: bytes) -> None:
        held = self._connections(peer)
        # several may have been admitted at once, or admitted before the peer was cut off
        refused = bool(held) and self.gate.admits(peer) is not None
        self._close_soon(held if refused else held[: -self.limits.connections_per_peer])
        up = bool(held) and not refused
        self.gate.connected(peer, up)
        if up and peer in self._awaited:
            self._awaited.pop(peer).set()
        if up:
            self._kick(peer)

    def _kick(self, peer: bytes) -> None:
        held = self._links.get(peer)
        if held is not None:
            held[0].kick()

    async def connected(self, peer: bytes) -> None:
        """Return once a live connection exists."""
        if not self.is_connected(peer):
            await self._awaited.setdefault(peer, trio.Event()).wait()

    async def dial(self, peer: bytes) -> None:
        """Connect to a peer at any of its addresses.

        Raises:
            LinkDown: none of them answered as that peer.
        """
        if self._host is None:
            raise LinkDown("not running")
        swarm = self._host.get_network()
        assert isinstance(swarm, Swarm)
        for address in self.book.addresses(peer):
            try:
                # not `connect`: it waits 250 ms and refuses a peer for 60 s after one failure
                await swarm.dial_addr(Multiaddr(address), ID(peer))
            except NETWORK_FAULTS:
                continue
            return
        raise LinkDown("no address answers")

    async def open_link(self, peer: bytes) -> INetStream:
        """Open a stream of the consensus road."""
        return await self._open(peer, Road.CONSENSUS)

    async def _open(self, peer: bytes, road: Road) -> INetStream:
        if self._host is None or not self.is_connected(peer):
            raise LinkDown("not connected")
        return await self._host.new_stream(ID(peer), [TProtocol(road)])

    def dropped(self, peer: bytes) -> None:
        """A link went down: close what is left of its connections."""
        self._hang_up(peer)

    # the gossip road

    def publish(self, topic: Topic, frame: bytes) -> None:
        """Queue a frame on a topic; it leaves at the pace gossip bears."""
        check_size(len(frame), self.limits.gossip_bytes)
        if len(self._outbox) >= self.limits.publish_queue:
            self._outbox.popleft()
            self._lost.inc()
        self._outbox.append((topic.value, frame))
        self._published.set()

    async def _publish_all(self, pubsub: GuardedPubsub) -> None:
        while True:
            while self._outbox:
                await pubsub.announce(*self._outbox.popleft())
                await trio.sleep(self.limits.publish_gap_s)
            self._published = trio.Event()
            await self._published.wait()

    # the request road

    async def request(self, peer: bytes, road: Road, frame: bytes) -> bytes:
        """Return a peer's answer; the deadline is the caller's cancel scope.

        Raises:
            RemoteFault: the peer refused, broke the rules of the road, or went away.
        """
        try:
            stream = await self._open(peer, road)
        except (LinkDown, *NETWORK_FAULTS) as error:
            raise RemoteFault(peer_id_text(peer), Reason.UNREACHABLE, repr(error)) from error
        try:
            return await ask(stream, peer, frame, self.limits.response_bytes)
        except RemoteFault as fault:
            if fault.reason is Reason.OVERSIZE:
                self.gate.report(peer, Reject(fault.reason))
            raise

    def serve(self, road: Road, handler: Handler) -> None:
        """Answer requests of a road."""
        self._answerer.serve(road, handler)

    # addresses

    def _exchanged(self, peer: bytes, frame: bytes) -> bytes:
        self._learn(peer, frame)
        return pack_records(self.book.records())

    def _learn(self, source: bytes, frame: bytes) -> None:
        keepers = self.gate.committee | self.gate.bonded
        try:
            for record in unpack_records(frame):
                if record.peer == self.me and self.book.learn(record):
                    self._learn_own(record.counter)  # of an earlier life whose clock was ahead
                elif record.peer in keepers and self.book.learn(record):
                    self.gate.traffic(record.peer).addresses = record.addresses
                    self._kick(record.peer)
        except ValueError as error:
            raise RemoteFault(peer_id_text(source), Reason.MALFORMED, str(error)) from error

    def _knows_committee(self) -> bool:
        """Return whether an address of every member is known."""
        members = self.gate.committee - {self.me}
        return bool(members) and all(self.book.addresses(peer) for peer in members)

    async def _exchange_with(self, link: Link) -> None:
        while True:
            await link.went_up.wait()
            mine = pack_records(record for record in self.book.records() if record.peer == self.me)
            try:
                with trio.move_on_after(self.limits.request_read_s):
                    self._learn(link.peer, await self.request(link.peer, Road.PEERS, mine))
            except RemoteFault as fault:
                if fault.reason is Reason.MALFORMED:
                    self.gate.report(link.peer, Reject(fault.reason))
            pause = EXCHANGE_S if self._knows_committee() else EXCHANGE_FIRST_S
            with trio.move_on_after(pause):
                await self._changed.wait()  # there may be members whose address nobody told us

    # verdicts

    def report(self, peer: bytes, verdict: Verdict) -> None:
        """Tell what a frame of this peer was worth."""
        self.gate.report(peer, verdict)

    def late(self, peer: bytes, seconds: float) -> None:
        """Tell how late a vote of this peer came."""
        self.gate.late(peer, seconds)

    def peers(self) -> tuple[PeerView, ...]:
        """Return one row per peer known."""
        return self.gate.peers()


async def _close(connections: Sequence[INetConn]) -> None:
    # not `disconnect`: it forgets what the peer opened while we close (guard 12)
    for connection in connections:
        with trio.move_on_after(CLOSE_S):
            try:
                await connection.close()
            except NETWORK_FAULTS:
                continue


def endpoint(address: str) -> tuple[str, int]:
    """Return host and port of a TCP multiaddr.

    Raises:
        LocalError: it is not one.
    """
    match address.split("/"):
        case ["", "ip4" | "ip6", host, "tcp", port, *_] if port.isdigit():
            return host, int(port)
        case _:
            pass
    raise LocalError(
        "not a TCP multiaddr", where=address, remedy="write it like /ip4/127.0.0.1/tcp/4001"
    )


def read_address(text: str) -> tuple[bytes, str]:
    """Return peer and address of `/ip4/…/tcp/…/p2p/12D3KooW…`.

    Raises:
        LocalError: it is not one.
    """
    address, _, peer = text.partition("/p2p/")
    endpoint(address)
    try:
        return peer_id_from_text(peer), address
    except ValueError as error:
        raise LocalError(
            "a bootstrap address must end with the keeper's peer id",
            where=text,
            remedy="copy it from `keeper status` of a running keeper",
        ) from error
