"""The gossip road: gossipsub 1.2 on the wire, lean and guarded inside.

    bytes ─► buffered varint cut ─► size ─► parse guard ─► per message, in order, no task spawned:
       topic known? ─► rate of the forwarder ─► origin a keeper? ─► seen? ─► signature ─► inbox
                                                                                   └─► relay

The origin signs (StrictSign); it answers for the content, the forwarder for what it should not have
forwarded. Stock reads a length one byte at a time, acknowledges every read, re-verifies a signed
record in every message and tells every peer not to send what it has: 3.7 ms a delivery, here 0.7.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import trio
from libp2p.abc import IHost, INetStream
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, PROTOCOL_ID_V12, GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.validators import PUBSUB_SIGNING_PREFIX

from keeper.errors import RemoteFault
from keeper.reasons import Reason
from keeper.units import Instant
from p2p.control import TOPICS, lean
from p2p.gate import Gate
from p2p.identity import is_peer_id, is_signed_by, peer_id_text
from p2p.links import FLOOD_S
from p2p.port import Role
from p2p.verdicts import Ignore, Reject, TokenBucket

PROTOCOLS = [TProtocol(PROTOCOL_ID_V12), TProtocol(PROTOCOL_ID_V11)]
DEGREE = 64
"""At least every keeper of a committee: a smaller degree with back-off partitions the mesh."""
IDONTWANT_BYTES = 4096
"""Below this a duplicate is cheaper than the message that avoids it."""
SEEN_PER_ORIGIN = 2048
ORIGINS_HELD = 512
ORIGIN_FRAMES_PER_S, ORIGIN_FRAMES_BURST = 100.0, 400.0
ORIGIN_BYTES_PER_S, ORIGIN_BYTES_BURST = 1024.0 * 1024, 4.0 * 1024 * 1024
RPC_OVERHEAD = 8192
"""Room for control messages and the signed record of a hello beside one message."""
SEQNO_BYTES = 8


class Seen:
    """Message ids seen, bounded per origin, so a flood of one cannot push out another's."""

    def __init__(self) -> None:
        self._origins: OrderedDict[bytes, OrderedDict[bytes, None]] = OrderedDict()

    def has(self, message_id: bytes) -> bool:
        """Return whether an id (origin ‖ sequence number) was seen."""
        return message_id[-SEQNO_BYTES:] in self._origins.get(message_id[:-SEQNO_BYTES], ())

    def add(self, message_id: bytes) -> bool:
        """Note an id; returns whether it was new."""
        origin, number = message_id[:-SEQNO_BYTES], message_id[-SEQNO_BYTES:]
        numbers = self._origins.setdefault(origin, OrderedDict())
        self._origins.move_to_end(origin)
        if number in numbers:
            return False
        numbers[number] = None
        if len(numbers) > SEEN_PER_ORIGIN:
            numbers.popitem(last=False)
        if len(self._origins) > ORIGINS_HELD:
            self._origins.popitem(last=False)
        return True


class LeanGossipSub(GossipSub):
    """Guard 9: the router with every trap of its defaults turned off.

    A keeper sends its messages to every keeper itself, so what came from one is relayed to
    followers only: a seventh of the traffic at n = 7.
    """

    def __init__(self, gate: Gate) -> None:
        super().__init__(
            PROTOCOLS,
            degree=DEGREE,
            degree_low=DEGREE,
            degree_high=2 * DEGREE,
            heartbeat_interval=1,
            prune_back_off=1,
            unsubscribe_back_off=1,
            adaptive_gossip_enabled=False,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
        )

        self._gate = gate

    def _get_peers_to_send(
        self,
        topic_ids: Iterable[str],
        msg_forwarder: ID,
        origin: ID,
        msg_id: bytes | None = None,
    ) -> Iterable[ID]:
        ours = msg_forwarder.to_bytes() == self._gate.me
        for peer in super()._get_peers_to_send(topic_ids, msg_forwarder, origin, msg_id):
            if ours or self._gate.role(peer.to_bytes()) is Role.FOLLOWER:
                yield peer

    async def _emit_idontwant_for_message(self, msg_id: bytes, topic_ids: Any) -> None:
        held = self.mcache.get(msg_id)
        if held is not None and len(held.data) >= IDONTWANT_BYTES:
            await super()._emit_idontwant_for_message(msg_id, topic_ids)

    def send_rpc(self, peer_id: ID, rpc: rpc_pb2.RPC, priority: bool = False) -> None:
        """Send without the signed record: the hello carried it."""
        if rpc.HasField("senderRecord"):
            rpc.ClearField("senderRecord")
        super().send_rpc(peer_id, rpc, priority)

    def remove_peer(self, peer_id: ID) -> None:
        """Forget a peer that went, its back-off too: stock keeps every stranger's for ever."""
        super().remove_peer(peer_id)
        for peers in self.back_off.values():
            peers.pop(peer_id, None)

    def _check_equivocation(self, msg: rpc_pb2.Message) -> bool:
        return True  # ids are checked in `Seen`; stock keeps 1,000 full messages for this

    async def publish(self, msg_forwarder: ID, pubsub_msg: rpc_pb2.Message) -> None:
        """Relay, and drop the delivery times stock keeps for ever."""
        await super().publish(msg_forwarder, pubsub_msg)
        self.recent_message_deliveries.clear()


class GuardedPubsub(Pubsub):
    """Guards 1, 4, 7: our own read loop; starts counting where no earlier run has been."""

    def __init__(self, host: IHost, router: LeanGossipSub, gate: Gate) -> None:
        super().__init__(host, router, allowed_topics=TOPICS, max_subscriptions_per_peer=16)
        self._gate = gate
        self._seen = Seen()
        self.seen_messages = self._seen  # type: ignore[assignment]  # the router only calls `has`
        self.counter = time.time_ns()
        self._origins: dict[bytes, tuple[TokenBucket, TokenBucket]] = {}

    async def stream_handler(self, stream: INetStream) -> None:
        """Read one peer's gossip until it ends or breaks a rule."""
        await self.event_handle_peer_queue_started.wait()
        try:
            await self._read(stream)
        finally:
            peer = stream.muxed_conn.peer_id
            self._handle_dead_peer(peer)
            if peer not in self.peers:  # it may never have taken a stream of ours
                self.router.remove_peer(peer)

    async def _read(self, stream: INetStream) -> None:
        limit = self._gate.limits.gossip_bytes + RPC_OVERHEAD
        peer = stream.muxed_conn.peer_id.to_bytes()
        buffer = bytearray()
        while True:
            chunk = await stream.read(65536)
            if not chunk:
                return
            buffer += chunk
            at, dropped, kept = 0, 0, True
            while (cut := cut_varint(buffer, at)) is not None:
                size, start = cut
                if size > limit:
                    raise RemoteFault(peer_id_text(peer), Reason.OVERSIZE)
                if len(buffer) - start < size:
                    break
                at = start + size
                kept = kept and self._gate.may_speak(peer, size, limit)
                dropped += not kept
                if kept:
                    await self._handle(stream.muxed_conn.peer_id, bytes(buffer[start:at]))
                    await trio.lowlevel.checkpoint()
            del buffer[:at]
            if dropped:  # the first was counted when it was refused
                self._gate.flooded(peer, dropped - 1)
                await trio.sleep(FLOOD_S)

    async def _handle(self, forwarder: ID, raw: bytes) -> None:
        peer = forwarder.to_bytes()
        rpc = rpc_pb2.RPC()
        rpc.ParseFromString(raw)  # junk raises; the guard around the handler counts it
        rpc.ClearField("senderRecord")  # guard 13: addresses are not learned from gossip
        for index, message in enumerate(rpc.publish):
            if index == 0 or self._gate.may_speak(peer, 0, 0):
                await self._take(forwarder, message)
        for subscription in rpc.subscriptions[:64]:
            self.handle_subscription(forwarder, subscription)
        if len(rpc.subscriptions) > 64:
            raise RemoteFault(peer_id_text(peer), Reason.OVERSIZE, "subscriptions")
        if rpc.HasField("control"):
            try:
                rpc.control.CopyFrom(lean(rpc.control))
            except ValueError as error:
                raise RemoteFault(peer_id_text(peer), Reason.OVERSIZE, str(error)) from error
            await self.router.handle_rpc(rpc, forwarder)

    async def _take(self, forwarder: ID, message: rpc_pb2.Message) -> None:
        peer, origin = forwarder.to_bytes(), bytes(message.from_id)
        gate = self._gate
        if len(message.topicIDs) != 1 or message.topicIDs[0] not in TOPICS:
            gate.report(peer, Reject(Reason.MALFORMED))
            return
        if len(message.seqno) != SEQNO_BYTES or not is_peer_id(origin):
            gate.report(peer, Reject(Reason.MALFORMED))
            return
        if origin == gate.me or self._seen.has(origin + message.seqno):
            return
        if len(message.data) > gate.limits.gossip_bytes:
            gate.report(peer, Reject(Reason.OVERSIZE))
            return
        if gate.role(origin) is Role.FOLLOWER:
            own = origin == peer
            gate.report(peer, gate.not_a_member(peer) if own else Ignore(Reason.NOT_A_MEMBER))
            return
        if not is_signed_by(origin, signed_bytes(message), message.signature):
            gate.report(peer, Reject(Reason.BAD_SIGNATURE))
            return
        self._seen.add(origin + message.seqno)
        if not self._may_originate(origin, len(message.data)):
            gate.report(origin, Ignore(Reason.RATE_LIMITED))
            return
        gate.enter(origin, message.topicIDs[0], message.data, Instant(trio.current_time()))
        if not gate.is_muted(origin) and not gate.is_muted(peer):
            await self.router.publish(forwarder, message)

    def _may_originate(self, origin: bytes, size: int) -> bool:
        now = self._gate.clock()
        buckets = self._origins.get(origin)
        if buckets is None:
            if len(self._origins) >= ORIGINS_HELD:
                del self._origins[next(iter(self._origins))]
            buckets = self._origins[origin] = (
                TokenBucket(ORIGIN_FRAMES_PER_S, ORIGIN_FRAMES_BURST),
                TokenBucket(ORIGIN_BYTES_PER_S, ORIGIN_BYTES_BURST),
            )
        return buckets[0].take(now) and buckets[1].take(now, size)

    async def announce(self, topic: str, data: bytes) -> None:
        """Sign and publish one message of ours; not delivered to ourselves."""
        message = rpc_pb2.Message(
            data=data, topicIDs=[topic], from_id=self._gate.me, seqno=self._next_seqno()
        )
        assert self.sign_key is not None
        message.signature = self.sign_key.sign(signed_bytes(message))
        self._seen.add(self._gate.me + message.seqno)
        await self.router.publish(self.my_id, message)

    async def join(self) -> None:
        """Subscribe to every topic; deliveries go to the inbox, so nothing is queued here."""
        for topic in sorted(TOPICS):
            subscription = await self.subscribe(topic)
            self.subscribed_topics_send[topic].close()
            del subscription


def signed_bytes(message: rpc_pb2.Message) -> bytes:
    """Return what the origin of a message signs (libp2p pubsub StrictSign)."""
    bare = rpc_pb2.Message(
        data=message.data,
        topicIDs=message.topicIDs,
        from_id=message.from_id,
        seqno=message.seqno,
    )
    return PUBSUB_SIGNING_PREFIX.encode() + bare.SerializeToString()


def cut_varint(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """Return (value, offset after it) of an unsigned varint, or None if it is incomplete.

    Raises:
        ValueError: it is longer than five bytes: no length we accept needs more.
    """
    value = 0
    for index in range(5):
        if at + index >= len(buffer):
            return None
        byte = buffer[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("a varint of more than five bytes")
