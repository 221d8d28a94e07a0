"""What stock py-libp2p 0.8.1 lacks to be shown to strangers, one guard per hole.

    TCP accept ─► HalfOpen (newest win, per source) ─► GatedNoise (Noise only; admitted?) ─► yamux
               ─► guarded stream handler (an exception costs the peer, never the process)

Each guard has a regression test that runs the stock part without it and sees it fail. The numbers
in the docstrings are those of the list in docs/protocol.md.
"""

import errno
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee, IRawConnection, ISecureConn
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.host.basic_host import BasicHost
from libp2p.host.exceptions import HostException
from libp2p.identity.identify_push.identify_push import ID_PUSH
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError, IOException
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.exceptions import SwarmException
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.exceptions import MuxedConnError, MuxedStreamError
from libp2p.transport.exceptions import SecurityUpgradeFailure

from keeper.errors import LocalError, RemoteFault
from keeper.reasons import Reason
from p2p.muxer import Muxer
from p2p.verdicts import TokenBucket

HANDSHAKES_AT_ONCE = 32
"""Half-open connections held; an honest handshake takes tens of milliseconds."""
HANDSHAKES_PER_S = 10.0
HANDSHAKES_BURST = 40.0
"""Handshakes from one address; a whole committee behind one address restarts within the burst."""
SOURCES_HELD = 1024
"""Addresses whose handshake rate is remembered."""
HANDSHAKE_S = 3.0

NETWORK_FAULTS = (
    IOException,
    HostException,
    SwarmException,
    MuxedConnError,
    MuxedStreamError,
    OSError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)
"""Ways a connection ends that are nobody's fault, so they cost no points."""

Refuse = Callable[[bytes], Reason | None]
StreamHandler = Callable[[INetStream], Awaitable[None]]


class GatedNoise(Noise):
    """Guard 2: Noise, and nobody gets a muxer or a stream before admission by peer id.

    Stock offers PLAINTEXT and SECIO too, and PLAINTEXT lets anyone pose as anyone.
    """

    def __init__(self, key_pair: KeyPair, inbound: Refuse, outbound: Refuse) -> None:
        """Create the security transport; the two say why a peer may not connect, by who dials."""
        super().__init__(key_pair, noise_privkey=new_x25519_key_pair().private_key)
        self._inbound, self._outbound = inbound, outbound

    async def secure_inbound(self, conn: IRawConnection) -> ISecureConn:
        """Handshake, then admit or refuse."""
        return await self._admit(await super().secure_inbound(conn), self._inbound)

    async def secure_outbound(self, conn: IRawConnection, peer_id: ID) -> ISecureConn:
        """Handshake, then admit or refuse."""
        return await self._admit(await super().secure_outbound(conn, peer_id), self._outbound)

    async def _admit(self, conn: ISecureConn, refuse: Refuse) -> ISecureConn:
        reason = refuse(conn.get_remote_peer().to_bytes())
        if reason is not None:
            await conn.close()
            raise SecurityUpgradeFailure(reason.value)
        return conn


class Ending(ReadWriteCloser):
    """Guard 3: a socket whose end is an error, at once.

    Stock reads an ended socket a hundred times more before it believes it: 5 ms of our time for
    every connection that a stranger opens and drops.
    """

    def __init__(self, inner: ReadWriteCloser) -> None:
        self._inner = inner

    async def read(self, n: int | None = None) -> bytes:
        """Return data.

        Raises:
            ConnectionClosedError: there will be none.
        """
        data = await self._inner.read(n)
        if not data and n != 0:
            raise ConnectionClosedError("the connection ended")
        return data

    async def write(self, data: bytes) -> None:
        """Send data."""
        await self._inner.write(data)

    async def close(self) -> None:
        """Close the socket."""
        await self._inner.close()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the other end's address."""
        return self._inner.get_remote_address()


class HalfOpen:
    """Guards 3 and 5: connections that have not finished their handshake, bounded and fair.

    Stock holds one of 250 slots per inbound connection until the node ends, so 250 connections in a
    lifetime, or 250 idle sockets at once, lock everybody out. Here a slot is held for the handshake
    only; when all are taken, the oldest of the busiest source gives way, and sources where keepers
    live only after all others: strangers with many addresses do not keep a committee apart.
    """

    def __init__(
        self, clock: Callable[[], float], known: Callable[[str], bool] = lambda _source: False
    ) -> None:
        self._clock, self._known = clock, known
        self._open: dict[trio.CancelScope, str] = {}
        self._rates: dict[str, TokenBucket] = {}

    def __len__(self) -> int:
        return len(self._open)

    def may_try(self, source: str) -> bool:
        """Return whether this address may handshake once more now."""
        bucket = self._rates.pop(source, None) or TokenBucket(HANDSHAKES_PER_S, HANDSHAKES_BURST)
        self._rates[source] = bucket
        if len(self._rates) > SOURCES_HELD:
            del self._rates[next(iter(self._rates))]
        return bucket.take(self._clock())

    def enter(self, source: str) -> trio.CancelScope:
        """Return the scope of one more handshake; may cancel an older one."""
        if len(self._open) >= HANDSHAKES_AT_ONCE:
            strange = [other for other in self._open.values() if not self._known(other)]
            busiest = Counter(strange or self._open.values()).most_common(1)[0][0]
            oldest = next(scope for scope, other in self._open.items() if other == busiest)
            oldest.cancel()
            del self._open[oldest]
        scope = trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_S)
        self._open[scope] = source
        return scope

    def leave(self, scope: trio.CancelScope) -> None:
        """End a handshake; ending an evicted one does nothing."""
        self._open.pop(scope, None)


class Watch(INotifee):
    """Tells when a peer gains its first or loses its last connection."""

    def __init__(self, changed: Callable[[bytes], None]) -> None:
        """Create a watch; `changed(peer)` is called after each connection comes or goes."""
        self._changed = changed

    async def connected(self, network: INetwork, conn: INetConn) -> None:
        """A connection came."""
        self._changed(conn.muxed_conn.peer_id.to_bytes())

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        """A connection went."""
        self._changed(conn.muxed_conn.peer_id.to_bytes())

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None:
        """Nothing to tell."""

    async def closed_stream(self, network: INetwork, stream: INetStream) -> None:
        """Nothing to tell."""

    async def listen(self, network: INetwork, multiaddr: Any) -> None:
        """Nothing to tell."""

    async def listen_close(self, network: INetwork, multiaddr: Any) -> None:
        """Nothing to tell."""


def guard_inbound(swarm: Swarm, half_open: HalfOpen, denied: Callable[[Reason], None]) -> None:
    """Replace the swarm's inbound path by one that frees its slot when the handshake ends."""

    async def handle(socket_stream: ReadWriteCloser, listening: Any) -> None:
        remote = socket_stream.get_remote_address()
        source = remote[0] if remote is not None else ""
        if not half_open.may_try(source):
            denied(Reason.RATE_LIMITED)
            await socket_stream.close()
            return
        raw = RawConnection(Ending(socket_stream), False)
        scope = half_open.enter(source)
        muxed = None
        try:
            with scope:
                muxed = await swarm.upgrade_inbound_raw_conn(raw, listening)
        except Exception:  # noqa: BLE001  # one peer's handshake: any failure costs only its socket
            denied(Reason.MALFORMED)
        finally:
            half_open.leave(scope)
        if muxed is None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await raw.close()
        else:
            await muxed.event_closed.wait()  # type: ignore[attr-defined]  # yamux is our only muxer

    setattr(swarm, "_handle_inbound_connection", handle)  # noqa: B010  # no public hook exists


def guard_muxer(
    swarm: Swarm, fault: Callable[[bytes, Reason], None], cost: Callable[[bytes], float]
) -> None:
    """Guard 5: put our muxer on every connection; stock constructs its own whatever it is given."""
    upgrader = swarm.upgrader.muxer_multistream

    async def new_conn(conn: ISecureConn, peer_id: ID) -> Muxer:
        await upgrader.select_transport(conn)
        return Muxer(conn, peer_id, fault, partial(cost, peer_id.to_bytes()))

    setattr(upgrader, "new_conn", new_conn)  # noqa: B010  # no public hook exists


class NoDialler:
    """Guard 13: dials nobody and remembers nobody.

    Stock dials whom it has an address of, whenever there are fewer connections than it likes: the
    addresses that strangers told it, and our members a second time beside our own links.
    """

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def run_background_task(self, nursery: trio.Nursery) -> None:
        """Nothing to run."""

    async def maybe_connect(self) -> None:
        """Nobody to connect."""

    def record_disconnect(self, peer_id: ID) -> None:
        """Nothing to remember."""


def guard_dialling(swarm: Swarm) -> None:
    """Guard 13: whom we dial, our links decide."""
    setattr(swarm, "auto_connector", NoDialler())  # noqa: B010  # no public switch exists


def guard_identify(host: BasicHost) -> None:
    """Guard 11: answer identify, but neither ask nor take pushes.

    Stock asks every peer in tasks outside of any nursery, and lets a peer write what it likes of
    any size into our address store. We learn addresses from signed records instead.
    """
    host.multiselect.handlers.pop(ID_PUSH, None)

    def ask_nobody(peer_id: ID, *, reason: str) -> None:
        del peer_id, reason

    setattr(host, "_schedule_identify", ask_nobody)  # noqa: B010  # no public hook exists


def guarded(handler: StreamHandler, fault: Callable[[bytes, Reason], None]) -> StreamHandler:
    """Guard 1: an exception in a stream handler resets the stream and counts against the peer.

    Stock lets it end the swarm, and with it the process.
    """

    async def handle(stream: INetStream) -> None:
        try:
            await handler(stream)
        except RemoteFault as error:
            await reset(stream)
            fault(stream.muxed_conn.peer_id.to_bytes(), error.reason)
        except NETWORK_FAULTS:
            await reset(stream)
        except Exception:  # noqa: BLE001  # one peer's message: whatever it breaks, we live on
            await reset(stream)
            fault(stream.muxed_conn.peer_id.to_bytes(), Reason.MALFORMED)

    return handle


async def reset(stream: INetStream) -> None:
    """Reset a stream, whatever state it is in."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + 0.5):
        try:
            await stream.reset()
        except NETWORK_FAULTS:
            return


def check_port(host: str, port: int) -> None:
    """Guard 5: stock binds a port twice without a word; look first.

    Raises:
        LocalError: somebody listens there already.
    """
    if port == 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            what = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error}"
            raise LocalError(
                f"the peer-to-peer address {what}",
                where=f"{host}:{port}",
                remedy="stop the other keeper, or set another port in [p2p] listen",
            ) from error
