"""Every hole of stock py-libp2p 0.8.1 that we know, held open for stock and found shut for us.

Each test attacks both. If stock survived one day, its guard could go; if ours does not, it went.
"""

import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from libp2p import new_host
from libp2p.abc import INetConn, INetwork
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.peer.peerstore import create_signed_peer_record
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from multiaddr import Multiaddr  # type: ignore[import-untyped]  # ships no types

from keeper.errors import LocalError
from keeper.reasons import Reason
from p2p.control import ENTRIES_MAX, TOPICS
from p2p.gossip import DEGREE, IDONTWANT_BYTES, GuardedPubsub, LeanGossipSub
from p2p.guards import HANDSHAKES_AT_ONCE, NETWORK_FAULTS, HalfOpen, NoDialler, Watch
from p2p.host import Libp2pNetwork, _close
from p2p.identity import peer_id_text
from p2p.muxer import STREAMS_INBOUND, Muxer
from p2p.port import Limits, Road, Topic
from tests.support.p2p_attacker import MESHSUB, Attacker, prefixed, rpc
from tests.support.p2p_contract import PATIENCE_S, eventually, gossiping, id_of, ids, seed_of, take
from tests.support.p2p_ports import free_ports
from tests.support.p2p_stock import attacked, stock

pytestmark = pytest.mark.libp2p
ROOT = Path(__file__).resolve().parents[2]
VICTIM, ATTACKER = 0, 9


@asynccontextmanager
async def ours(limits: Limits | None = None) -> AsyncIterator[tuple[Libp2pNetwork, Attacker]]:
    address = f"/ip4/127.0.0.1/tcp/{free_ports(1)[0]}"
    network = Libp2pNetwork(seed_of(VICTIM), address, (), limits)
    network.allow(ids(VICTIM), ids(ATTACKER))
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        async with Attacker(seed_of(ATTACKER), address, id_of(VICTIM)).running() as attacker:
            yield network, attacker
        nursery.cancel_scope.cancel()


def crashes(network: Libp2pNetwork) -> float:
    text = network._metrics.exposition().decode()
    (line,) = [row for row in text.splitlines() if row.startswith("keeper_p2p_restarts_total ")]
    return float(line.split(" ")[1])


def drops(network: Libp2pNetwork) -> dict[Reason, int]:
    return dict(network.gate.scores.drops(id_of(ATTACKER)))


def dies(name: str) -> bool:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.p2p_stock", name],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return ended.returncode != 0 and "survived" not in ended.stdout


async def send(attacker: Attacker, protocol: str, raw: bytes) -> None:
    stream = await attacker.stream(protocol)
    await stream.write(raw)


async def garbage(attacker: Attacker) -> None:
    await send(attacker, MESHSUB, prefixed(b"\xff" * 50))


async def bad_key(attacker: Attacker) -> None:
    message = rpc_pb2.Message(
        data=b"x", topicIDs=[Topic.BIDS], from_id=b"\x12\x20" + bytes(32), seqno=bytes(8),
        signature=bytes(64), key=b"\xff" * 20,
    )  # fmt: skip
    await send(attacker, MESHSUB, rpc(rpc_pb2.RPC(publish=[message])))


async def handler_bug(attacker: Attacker) -> None:
    await send(attacker, Road.SYNC, b"\0\0\0\1x")


@pytest.mark.parametrize(
    ("attack", "name"),
    [(garbage, "garbage_gossip"), (bad_key, "bad_key_gossip"), (handler_bug, "handler_raises")],
)
async def test_1_what_a_peer_sends_never_ends_the_process(
    attack: Callable[[Attacker], Awaitable[None]], name: str
) -> None:
    async with ours() as (network, attacker):

        def handler(_peer: bytes, _frame: bytes) -> bytes:
            raise KeyError("a bug of ours that a peer's bytes found")

        network.serve(Road.SYNC, handler)
        await attack(attacker)
        await eventually(lambda: drops(network).get(Reason.MALFORMED))
        assert crashes(network) == 0
        await send(attacker, Road.CONSENSUS, b"")
    assert await trio.to_thread.run_sync(dies, name)


class Plain(InsecureTransport):
    """PLAINTEXT with a key pair whose public half is somebody else's."""


async def dial_in_plaintext(address: str, victim: bytes) -> bool:
    keys = create_new_key_pair(seed_of(ATTACKER))
    host = new_host(key_pair=keys, sec_opt={PLAINTEXT_PROTOCOL_ID: Plain(keys)})
    async with host.run([]):
        try:
            with trio.fail_after(5):
                await host.connect(PeerInfo(ID(victim), [Multiaddr(address)]))
        except (*NETWORK_FAULTS, trio.TooSlowError):
            return False
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await host.close()
        return True


async def test_2_only_noise_is_spoken() -> None:
    async with stock() as (_, address, _pubsub):
        assert await dial_in_plaintext(address, id_of(0)), "stock takes unencrypted peers"
    async with ours() as (network, _):
        assert not await dial_in_plaintext(network.addresses[0], id_of(VICTIM))


async def test_3_a_place_is_free_again_when_a_connection_ends() -> None:
    limits = Limits(connections=8, connects_burst=100.0)
    async with ours(limits) as (network, attacker):
        for _ in range(12):
            await (await attacker.connect()).close()
        await eventually(lambda: not network.is_connected(id_of(ATTACKER)))
        await attacker.connect()
        await eventually(lambda: network.is_connected(id_of(ATTACKER)))
    async with stock() as (host, address, _), attacked(address) as attacker:
        for _ in range(3):
            await (await attacker.connect()).close()
        with trio.move_on_after(2):
            while host.get_network().get_connections():  # noqa: ASYNC110  # stock tells nobody
                await trio.sleep(0.02)
        assert host.get_network()._inbound_limiter.borrowed_tokens == 3, "stock never frees them"


class Ended:
    """A socket that a stranger opened and dropped."""

    def __init__(self) -> None:
        self.reads = 0

    async def read(self, n: int | None = None) -> bytes:
        del n
        self.reads += 1
        return b""

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...

    def get_remote_address(self) -> tuple[str, int] | None:
        return ("127.0.0.1", 1)


async def test_3_an_ended_socket_is_believed_at_once() -> None:
    ended, address = Ended(), Multiaddr("/ip4/127.0.0.1/tcp/1")
    async with ours() as (network, _):
        assert network._host is not None
        await network._host.get_network()._handle_inbound_connection(ended, address)
    assert ended.reads == 1
    ended = Ended()
    async with stock() as (host, _, _pubsub):
        with pytest.raises(SwarmException):
            await host.get_network().upgrade_inbound_raw_conn(RawConnection(ended, False), address)
    assert ended.reads > 50, "stock asks again and again"


async def test_4_listening_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    ready, listen = GuardedPubsub.wait_until_ready, Swarm.listen

    async def ready_first(self: GuardedPubsub) -> None:
        await ready(self)
        order.append("services")

    async def then_listen(self: Swarm, *addresses: Multiaddr) -> bool:
        order.extend("listen" for _ in addresses)
        return await listen(self, *addresses)

    monkeypatch.setattr(GuardedPubsub, "wait_until_ready", ready_first)
    monkeypatch.setattr(Swarm, "listen", then_listen)
    async with ours():
        assert order == ["services", "listen"]


async def test_4_gossip_that_comes_too_early_waits() -> None:
    network = Libp2pNetwork(seed_of(VICTIM), "/ip4/127.0.0.1/tcp/0")
    host = new_host(key_pair=create_new_key_pair(seed_of(VICTIM)))
    pubsub = GuardedPubsub(host, LeanGossipSub(network.gate), network.gate)
    with trio.move_on_after(0.05) as scope:
        await pubsub.stream_handler(None)  # type: ignore[arg-type]  # never looked at
    assert scope.cancelled_caught


async def test_4_services_run_before_anybody_can_connect() -> None:
    address = f"/ip4/127.0.0.1/tcp/{free_ports(1)[0]}"
    network = Libp2pNetwork(seed_of(VICTIM), address)
    network.allow(ids(VICTIM), ids(ATTACKER))
    async with Attacker(seed_of(ATTACKER), address, id_of(VICTIM)).running() as attacker:

        async def hammer(*, task_status: Any) -> None:
            task_status.started()
            while True:
                try:
                    await send(attacker, MESHSUB, rpc(rpc_pb2.RPC()))
                    return
                except NETWORK_FAULTS:
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            await nursery.start(hammer)
            await nursery.start(network.run)
            await eventually(lambda: network.is_connected(id_of(ATTACKER)))
            assert crashes(network) == 0
            nursery.cancel_scope.cancel()
    assert await trio.to_thread.run_sync(dies, "gossip_before_service")


async def overrun(attacker: Attacker, protocol: str) -> int:
    stream = await attacker.stream(protocol)
    stream.muxed_stream.send_window = 1 << 30  # as if we had been given room
    sent = 0
    try:
        for _ in range(32):
            await stream.write(bytes(64 * 1024))
            sent += 64 * 1024
    except NETWORK_FAULTS:
        return sent
    return sent


async def test_5_windows_are_enforced() -> None:
    async with ours() as (network, attacker):
        network.serve(Road.SYNC, lambda _peer, _frame: b"")
        await overrun(attacker, Road.SYNC)
        await eventually(lambda: drops(network).get(Reason.OVERSIZE))
    held = []

    async def never_reads(stream: Any) -> None:
        held.append(stream.muxed_stream)
        await trio.sleep_forever()

    async with stock() as (host, address, _), attacked(address) as attacker:
        host.set_stream_handler(TProtocol("/stock/1"), never_reads)
        sent = await overrun(attacker, "/stock/1")
        buffers = held[0].conn.stream_buffers
        await eventually(lambda: len(buffers[held[0].stream_id]) == sent)
        assert sent > 1 << 20, "stock holds whatever it is sent"


async def test_5_streams_are_bounded() -> None:
    async with ours() as (network, attacker):
        await attacker.connect()
        await eventually(lambda: network.is_connected(attacker.me))
        assert network._host is not None
        (connection,) = network._host.get_network().get_connections(ID(attacker.me))
        muxer = connection.muxed_conn
        assert isinstance(muxer, Muxer)
        theirs = attacker.connections()[0].muxed_conn
        opened = [await theirs.open_stream() for _ in range(STREAMS_INBOUND + 8)]
        await eventually(lambda: sum(stream.reset_received for stream in opened) >= 8)
        assert muxer._inbound <= STREAMS_INBOUND


async def test_5_connections_of_a_peer_are_bounded() -> None:
    async with ours() as (network, attacker):
        async with trio.open_nursery() as nursery:
            for _ in range(8):  # all admitted before the first is there
                nursery.start_soon(attacker.connect)
        limit = network.limits.connections_per_peer
        await eventually(lambda: len(network._connections(attacker.me)) <= limit)
        await eventually(lambda: len(attacker.connections()) == limit)


async def test_5_who_was_cut_off_meanwhile_does_not_get_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ours() as (network, attacker):
        monkeypatch.setattr(network.gate, "may_connect", lambda _peer: None)  # an earlier answer
        network.allow(ids(VICTIM), frozenset())
        monkeypatch.setattr(network.gate, "limits", Limits(followers=0))
        with suppress(*NETWORK_FAULTS):
            await attacker.connect()
        await eventually(lambda: not network.is_connected(attacker.me))
        assert not network.gate.traffic(attacker.me).connected
        assert await attacker.cut_off()


async def test_5_half_open_places_are_bounded_and_fair() -> None:
    half_open = HalfOpen(lambda: 0.0)
    honest = half_open.enter("honest")
    scopes = [half_open.enter("busy") for _ in range(HANDSHAKES_AT_ONCE + 10)]
    assert len(half_open) == HANDSHAKES_AT_ONCE
    assert not honest.cancel_called
    assert [scope.cancel_called for scope in scopes] == [True] * 11 + [False] * (len(scopes) - 11)
    assert scopes[-1].deadline < trio.current_time() + 10


async def test_5_strangers_give_way_before_keepers() -> None:
    half_open = HalfOpen(lambda: 0.0, lambda source: source == "keeper")
    keepers = [half_open.enter("keeper") for _ in range(3)]
    for number in range(10 * HANDSHAKES_AT_ONCE):
        half_open.enter(f"stranger {number}")
    assert len(half_open) == HANDSHAKES_AT_ONCE
    assert not any(scope.cancel_called for scope in keepers)


async def test_5_a_port_is_taken_once() -> None:
    async with ours() as (network, _):
        again = Libp2pNetwork(seed_of(1), network.addresses[0])
        with pytest.raises(LocalError, match="in use"), trio.fail_after(PATIENCE_S):
            await again.run()


async def test_6_frames_of_two_senders_do_not_interleave() -> None:
    ports = free_ports(2)
    addresses = [f"/ip4/127.0.0.1/tcp/{port}" for port in ports]
    known = (f"{addresses[0]}/p2p/{peer_id_text(id_of(0))}",)
    nodes = [Libp2pNetwork(seed_of(i), addresses[i], known if i else ()) for i in range(2)]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            node.allow(ids(0, 1), frozenset())
            await nursery.start(node.run)
        await eventually(lambda: all(node.is_linked(id_of(1 - i)) for i, node in enumerate(nodes)))

        async def say(letter: bytes) -> None:
            for _ in range(8):
                nodes[0].send(id_of(1), letter * 200_000)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as senders:
            senders.start_soon(say, b"a")
            senders.start_soon(say, b"b")
        items = await take(nodes[1], 16)
        assert all(len(set(item.frame)) == 1 for item in items)
        nursery.cancel_scope.cancel()


async def test_7_sequence_numbers_go_on_after_a_restart() -> None:
    address = Multiaddr("/ip4/127.0.0.1/tcp/0")
    keys = create_new_key_pair(seed_of(0))
    network = Libp2pNetwork(seed_of(0), str(address))

    def counters(kind: str) -> tuple[int, int]:
        found = []
        for _ in range(2):
            host = new_host(key_pair=keys, listen_addrs=[address])
            pubsub: Pubsub = (
                GuardedPubsub(host, LeanGossipSub(network.gate), network.gate)
                if kind == "ours"
                else Pubsub(host, GossipSub([TProtocol(MESHSUB)], 4, 3, 6))
            )
            first = int.from_bytes(pubsub._next_seqno(), "big")
            numbers = [int.from_bytes(pubsub._next_seqno(), "big") for _ in range(1000)]
            found += [first, numbers[-1]]
        return found[1], found[2]

    before, after = counters("ours")
    assert after > before
    before, after = counters("stock")
    assert after <= before, "stock says the same numbers again"


async def test_8_a_failed_dial_is_tried_again_at_once() -> None:
    ports = free_ports(2)
    addresses = [f"/ip4/127.0.0.1/tcp/{port}" for port in ports]
    known = (f"{addresses[1]}/p2p/{peer_id_text(id_of(1))}",)
    dialler = Libp2pNetwork(seed_of(0), addresses[0], known)
    listener = Libp2pNetwork(seed_of(1), addresses[1])
    for network in (dialler, listener):
        network.allow(ids(0, 1), frozenset())
    host = new_host(key_pair=create_new_key_pair(seed_of(ATTACKER)))
    peer = PeerInfo(ID(id_of(1)), [Multiaddr(addresses[1])])
    async with trio.open_nursery() as nursery, host.run([]):
        await nursery.start(dialler.run)
        with pytest.raises(SwarmException):
            await host.connect(peer)
        await nursery.start(listener.run)
        await eventually(lambda: dialler.is_linked(id_of(1)))
        with pytest.raises(SwarmException, match="negative cache"):
            await host.connect(peer)
        await host.close()
        nursery.cancel_scope.cancel()


def test_9_the_traps_of_gossip_are_off() -> None:
    network = Libp2pNetwork(seed_of(0), "/ip4/127.0.0.1/tcp/0")
    lean, plain = LeanGossipSub(network.gate), GossipSub([TProtocol(MESHSUB)], 4, 3, 6)
    assert (plain.spam_protection_enabled, lean.spam_protection_enabled) == (True, False)
    assert (plain.adaptive_gossip_enabled, lean.adaptive_gossip_enabled) == (True, False)
    assert (plain.heartbeat_interval, lean.heartbeat_interval) == (120, 1)
    assert (plain.prune_back_off, lean.prune_back_off) == (60, 1)
    assert lean.degree == lean.degree_low == DEGREE >= 31
    message = rpc_pb2.Message(data=bytes(1000), from_id=b"a", seqno=bytes(8))
    for router in (plain, lean):
        router._check_equivocation(message)
    assert len(plain.equivocation_detection) == 1, "stock keeps whole messages"
    assert len(lean.equivocation_detection) == 0


async def test_9_the_router_says_no_more_than_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Libp2pNetwork(seed_of(0), "/ip4/127.0.0.1/tcp/0")
    lean, told = LeanGossipSub(network.gate), []
    monkeypatch.setattr(GossipSub, "send_rpc", lambda _self, _peer, sent, _first: told.append(sent))
    lean.send_rpc(ID(b"a"), rpc_pb2.RPC(senderRecord=b"signed"))
    assert [one.HasField("senderRecord") for one in told] == [False]

    async def unwanted(_self: GossipSub, msg_id: bytes, _topics: Any) -> None:
        told.append(msg_id)

    async def published(_self: GossipSub, _forwarder: ID, _message: rpc_pb2.Message) -> None: ...

    monkeypatch.setattr(GossipSub, "_emit_idontwant_for_message", unwanted)
    monkeypatch.setattr(GossipSub, "publish", published)
    told.clear()
    for size in (IDONTWANT_BYTES - 1, IDONTWANT_BYTES):
        message = rpc_pb2.Message(data=bytes(size), from_id=b"a", seqno=size.to_bytes(8, "big"))
        lean.mcache.put(message)
        await lean._emit_idontwant_for_message(b"a" + message.seqno, [Topic.BIDS])
    assert told == [b"a" + IDONTWANT_BYTES.to_bytes(8, "big")]
    lean.recent_message_deliveries["topic"] = {b"id": 0.0}
    await lean.publish(ID(b"a"), message)
    assert not lean.recent_message_deliveries


async def test_9_a_burst_of_gossip_arrives_whole() -> None:
    ports = free_ports(2)
    addresses = [f"/ip4/127.0.0.1/tcp/{port}" for port in ports]
    known = (f"{addresses[0]}/p2p/{peer_id_text(id_of(0))}",)
    nodes = [Libp2pNetwork(seed_of(i), addresses[i], known if i else ()) for i in range(2)]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            node.allow(ids(0, 1), frozenset())
            await nursery.start(node.run)
        await eventually(lambda: all(node.is_linked(id_of(1 - i)) for i, node in enumerate(nodes)))
        await gossiping(nodes[1], nodes[0])
        for number in range(200):
            nodes[1].publish(Topic.BIDS, number.to_bytes(2, "big"))
        items = await take(nodes[0], 200)  # stock loses all beyond 16
        assert len({item.frame for item in items}) == 200
        nursery.cancel_scope.cancel()


async def test_10_dialling_does_not_wait_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ours() as (network, _):
        host = new_host(key_pair=create_new_key_pair(seed_of(ATTACKER)))
        peer = PeerInfo(ID(id_of(VICTIM)), [Multiaddr(network.addresses[0])])
        async with host.run([]):
            began = trio.current_time()
            with trio.move_on_after(5):
                await host.connect(peer)
            assert trio.current_time() - began >= 0.25, "stock waits even when the first answers"
            await host.close()

        async def connect(_self: BasicHost, _peer: PeerInfo) -> None:
            raise AssertionError("a dial of ours went the slow way")

        monkeypatch.setattr(BasicHost, "connect", connect)
        known = (f"{network.addresses[0]}/p2p/{peer_id_text(id_of(VICTIM))}",)
        dialler = Libp2pNetwork(seed_of(ATTACKER), "/ip4/127.0.0.1/tcp/0", known)
        dialler.allow(ids(VICTIM), frozenset())
        async with trio.open_nursery() as nursery:
            await nursery.start(dialler.run)
            await eventually(lambda: dialler.is_connected(id_of(VICTIM)))
            nursery.cancel_scope.cancel()


async def test_11_identify_is_answered_but_never_believed() -> None:
    async with ours() as (network, attacker):
        await attacker.connect()
        with pytest.raises(NETWORK_FAULTS):
            await attacker.stream("/ipfs/id/push/1.0.0")
        stream = await attacker.stream("/ipfs/id/1.0.0")
        assert await stream.read(10)
        assert crashes(network) == 0


class HeldOpen(Watch):
    """Lets nobody finish closing before something has happened."""

    def __init__(self, happened: trio.Event) -> None:
        super().__init__(lambda _peer: None)
        self._happened = happened

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        await self._happened.wait()


async def comes_back_while_closed(
    swarm: INetwork, attacker: Attacker, close: Callable[[], Awaitable[None]]
) -> int:
    """Return how many connections a host knows of a peer that came back during `close`."""
    back = trio.Event()
    await attacker.connect()
    await eventually(lambda: len(swarm.get_connections(ID(attacker.me))))
    swarm.register_notifee(HeldOpen(back))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(close)
        assert await attacker.cut_off()
        await attacker.connect()
        await eventually(lambda: len(swarm.get_connections(ID(attacker.me))))
        back.set()
    return len(swarm.get_connections(ID(attacker.me)))


async def test_12_who_comes_back_while_we_hang_up_is_not_forgotten() -> None:
    peer = id_of(ATTACKER)
    async with ours() as (network, attacker):
        assert network._host is not None
        swarm = network._host.get_network()
        held = network._connections
        known = await comes_back_while_closed(swarm, attacker, lambda: _close(held(peer)))
        assert known == 1
        assert network.is_connected(peer)
        network._hang_up(peer)
        assert await attacker.cut_off()
    async with stock() as (host, address, _), attacked(address) as attacker:
        swarm = host.get_network()
        known = await comes_back_while_closed(swarm, attacker, lambda: host.disconnect(ID(peer)))
        assert known == 0, "stock keeps the connection and forgets it"
        assert attacker.connections()


STRANGER = 8


async def hears_of(attacker: Attacker, where: str) -> None:
    """Tell a host where others can be dialled: by a record, and by a prune that names a peer."""
    own = create_signed_peer_record(
        ID(attacker.me), [Multiaddr(where)], create_new_key_pair(attacker.seed).private_key
    ).marshal_envelope()
    stranger = create_new_key_pair(seed_of(STRANGER))
    other = create_signed_peer_record(
        ID(id_of(STRANGER)), [Multiaddr(where)], stranger.private_key
    ).marshal_envelope()
    told = rpc_pb2.RPC(senderRecord=own)
    prune = told.control.prune.add(topicID=Topic.BIDS, backoff=1)
    prune.peers.add(peerID=id_of(STRANGER), signedPeerRecord=other)
    stream = await attacker.stream(MESHSUB)
    await stream.write(rpc(told))
    flood = rpc_pb2.RPC()
    for _ in range(ENTRIES_MAX + 1):
        flood.control.graft.add(topicID=Topic.BIDS)
    await stream.write(rpc(flood))  # refused, after what came before was handled


async def test_13_nobody_is_dialled_because_a_stranger_says_so() -> None:
    dialled = trio.Event()

    async def trap(stream: trio.SocketStream) -> None:
        dialled.set()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, trap, 0, host="127.0.0.1"))
        where = f"/ip4/127.0.0.1/tcp/{listeners[0].socket.getsockname()[1]}"
        async with ours() as (network, attacker):
            await hears_of(attacker, where)
            await eventually(lambda: drops(network).get(Reason.OVERSIZE))
            assert network._host is not None
            known = set(network._host.get_peerstore().peer_ids())
            assert known == {ID(network.me)}
            assert isinstance(network._host.get_network().auto_connector, NoDialler)
        assert not dialled.is_set()
        async with stock() as (host, address, _), attacked(address) as attacker:
            await hears_of(attacker, where)
            with trio.fail_after(PATIENCE_S):
                await dialled.wait()
            assert ID(attacker.me) in host.get_peerstore().peer_ids(), "and will dial it too"
        nursery.cancel_scope.cancel()


async def prunes(attacker: Attacker, topics: int) -> None:
    stream = await attacker.stream(MESHSUB)
    for number in range(topics):
        said = rpc_pb2.RPC()
        said.control.prune.add(topicID=f"invented {number}", backoff=1 << 30)
        await stream.write(rpc(said))


async def test_14_what_a_stranger_invents_is_not_remembered() -> None:
    async with ours() as (network, attacker):
        await prunes(attacker, 50)
        await eventually(lambda: network.gate.traffic(attacker.me).received_bytes > 50 * 20)
        router = next(
            one
            for one in gc.get_objects()
            if isinstance(one, LeanGossipSub) and one.pubsub and one.pubsub.host is network._host
        )
        assert set(router.back_off) <= TOPICS
        assert not router.graft_flood_tracking
        router._add_back_off(ID(attacker.me), Topic.BIDS, False)
        await attacker.host.close()
        await eventually(lambda: not any(router.back_off.values()))
    async with stock() as (_, address, pubsub), attacked(address) as attacker:
        await prunes(attacker, 50)
        await eventually(lambda: len(pubsub.router.back_off) == 50)
