"""Yamux that keeps its own rules: windows enforced, streams bounded, few frames.

    read loop ─┬─ DATA ─────► stream buffer, at most one window; beyond it the connection ends
               ├─ WINDOW ───► room to send; FIN and RST end a stream
               ├─ SYN ──────► a new stream, unless the peer has its share: then RST
               └─ PING ─────► answered

Stock buffers whatever a peer sends beyond its window (guard 5), opens streams without bound,
acknowledges every read with a window update, and polls for room. Here a window update goes out when
half the window was read, and writers wait for an event. Source: hashicorp/yamux spec.md.
"""

import itertools
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import trio
from libp2p.abc import IMuxedConn, IMuxedStream, ISecureConn
from libp2p.connection_types import ConnectionType
from libp2p.io.exceptions import IOException
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamReset,
)

from keeper.reasons import Reason
from p2p.verdicts import TokenBucket

DATA, WINDOW, PING, GO_AWAY = 0, 1, 2, 3
SYN, ACK, FIN, RST = 1, 2, 4, 8
HEADER = struct.Struct(">BBHII")
WINDOW_BYTES = 256 * 1024
"""The window the specification fixes for a fresh stream; we never grow it."""
FRAME_BYTES = 64 * 1024
STREAMS_INBOUND = 24
"""Streams a peer may have open to us: a few long ones and four requests at a time. Each may hold a
window, and its reader a frame: half a MiB."""
STREAMS_PER_S, STREAMS_BURST = 20.0, 64.0
"""Streams a peer may open: negotiating one costs milliseconds, a request takes one."""
FRAMES_PER_S, FRAMES_BURST = 2_000.0, 5_000.0
"""Frames of any type; a keeper at its message limit sends a tenth."""
PINGS_PER_S, PINGS_BURST = 5.0, 50.0
"""Pings of the muxer; an honest one comes every ten seconds or so."""
FRAMES_IN_A_ROW = 64
"""Frames handled before other tasks get their turn."""
IDLE_S = 10.0
"""After this much silence we ping; after three times as much the peer is gone."""
BODY_S = 10.0
"""A frame that began must end within this, or the peer is a slow writer holding our buffer."""
WRITE_S = 10.0
"""A write that the peer's TCP window does not take within this ends the connection."""
NORMAL, PROTOCOL_ERROR = 0, 1

CONNECTION_FAULTS = (
    IOException,
    MuxedStreamReset,
    OSError,
    EOFError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)


class Misbehaviour(Exception):
    """The peer broke the rules of yamux; ends the connection and counts against the peer."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Stream(IMuxedStream):
    """One stream of a `Muxer`.

    Invariants: `buffer` holds at most `WINDOW_BYTES`; one writer at a time.
    """

    def __init__(self, number: int, muxer: "Muxer") -> None:
        self.number, self.muxer, self.muxed_conn = number, muxer, muxer
        self.buffer = bytearray()
        self.room = WINDOW_BYTES
        self._unacknowledged = 0
        self.sent_fin = self.got_fin = self.was_reset = False
        self.changed = trio.Event()
        self._writing = trio.Lock()

    @property
    def is_closed(self) -> bool:
        """Return whether neither side will say more."""
        return self.was_reset or (self.sent_fin and self.got_fin)

    def wake(self) -> None:
        """Let whoever waits for data or room look again."""
        self.changed.set()
        self.changed = trio.Event()

    def fed(self, body: bytes) -> None:
        """Take data off the wire.

        Raises:
            Misbehaviour: it is more than the window we gave.
        """
        if len(self.buffer) + self._unacknowledged + len(body) > WINDOW_BYTES:
            raise Misbehaviour(Reason.OVERSIZE, "receive window exceeded")
        self.buffer += body
        self.wake()

    async def read(self, n: int | None = None) -> bytes:
        """Return up to `n` bytes as soon as there are any.

        Raises:
            MuxedStreamEOF: the peer said all it will say.
            MuxedStreamReset: the stream was reset.
        """
        while not self.buffer:
            if self.was_reset:
                raise MuxedStreamReset("stream was reset")
            if self.got_fin:
                raise MuxedStreamEOF("stream ended")
            await self.changed.wait()
        if n is None or n < 0 or n >= len(self.buffer):
            taken = bytes(self.buffer)
            self.buffer.clear()
        else:
            taken = bytes(self.buffer[:n])
            del self.buffer[:n]
        self._unacknowledged += len(taken)
        if self._unacknowledged >= WINDOW_BYTES // 2 and not self.got_fin:
            grown, self._unacknowledged = self._unacknowledged, 0
            await self.muxer.write_frame(WINDOW, 0, self.number, grown)
        return taken

    async def write(self, data: bytes) -> None:
        """Send all of it, as the peer's window allows.

        Raises:
            MuxedStreamClosed: we ended the stream.
            MuxedStreamReset: the stream was reset.
        """
        view = memoryview(data)
        async with self._writing:
            while view:
                if self.was_reset:
                    raise MuxedStreamReset("stream was reset")
                if self.sent_fin:
                    raise MuxedStreamClosed("stream is closed for writing")
                if not self.room:
                    await self.changed.wait()
                    continue
                part = view[: min(self.room, FRAME_BYTES)]
                self.room -= len(part)
                await self.muxer.write_frame(DATA, 0, self.number, len(part), part)
                view = view[len(part) :]

    async def close(self) -> None:
        """Say we have said all; the peer may still speak."""
        if not self.sent_fin and not self.was_reset:
            self.sent_fin = True
            await self.muxer.write_frame(WINDOW, FIN, self.number, 0)
        self.muxer.forget_closed(self)

    async def reset(self) -> None:
        """End both directions at once."""
        if not self.is_closed:
            self.was_reset = True
            self.wake()
            self.muxer.forget_closed(self)
            await self.muxer.write_frame(WINDOW, RST, self.number, 0)

    def set_deadline(self, ttl: int) -> None:
        """Deadlines are cancel scopes here."""
        raise NotImplementedError("use a cancel scope")

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the other end's address."""
        return self.muxer.get_remote_address()

    async def __aenter__(self) -> "Stream":
        """Enter a block that closes the stream at its end."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the stream."""
        await self.close()


class Muxer(IMuxedConn):
    """One connection's streams.

    Invariants: at most `STREAMS_INBOUND` over `cost` streams the peer opened; nothing is written
    after `event_closed`.
    """

    def __init__(
        self,
        conn: ISecureConn,
        peer_id: ID,
        fault: Callable[[bytes, Reason], None] = lambda _peer, _reason: None,
        cost: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """Take over a secured connection.

        Args:
            conn: the connection, handshake done.
            peer_id: who is at the other end.
            fault: told of the peer and the rule it broke.
            cost: tokens that a frame or a stream of this peer takes now; it has so many fewer
                streams.
        """
        self._cost = cost
        self.secured_conn, self.peer_id, self._fault = conn, peer_id, fault
        self.on_close: Callable[[], Awaitable[Any]] | None = None
        self._next = 1 if conn.is_initiator else 2
        self._streams: dict[int, Stream] = {}
        self._inbound = 0
        self._accepted, self._accepting = trio.open_memory_channel[Stream](STREAMS_INBOUND)
        self._writing = trio.Lock()
        self._buffer = bytearray()
        self._scope = trio.CancelScope()
        self._heard = trio.current_time()
        self._opens = TokenBucket(STREAMS_PER_S, STREAMS_BURST)
        self._frames = TokenBucket(FRAMES_PER_S, FRAMES_BURST)
        self._pings = TokenBucket(PINGS_PER_S, PINGS_BURST)
        self.event_started, self.event_closed = trio.Event(), trio.Event()

    # life

    async def start(self) -> None:
        """Carry streams until the connection ends; never raises for what the peer does."""
        self.event_started.set()
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ping_when_idle)
                    await self._read()
                    nursery.cancel_scope.cancel()
        except* Misbehaviour as errors:
            reason = _first(errors).reason
            self._fault(self.peer_id.to_bytes(), reason)
            await self._say_goodbye(PROTOCOL_ERROR)
        except* Exception:  # noqa: BLE001  # one connection's bytes: it ends, nothing else does
            self._scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._end()

    async def _ping_when_idle(self) -> None:
        while True:
            await trio.sleep(IDLE_S)
            silent = trio.current_time() - self._heard
            if silent > 3 * IDLE_S:
                raise EOFError("silent for too long")
            if silent > IDLE_S:
                await self.write_frame(PING, SYN, 0, 0)

    async def close(self) -> None:
        """End the connection."""
        await self._say_goodbye(NORMAL)
        await self._end()

    async def _say_goodbye(self, code: int) -> None:
        with trio.move_on_after(0.5), suppress(*CONNECTION_FAULTS):
            await self.write_frame(GO_AWAY, 0, 0, code)

    async def _end(self) -> None:
        if self.event_closed.is_set():
            return
        self.event_closed.set()
        self._accepted.close()
        for stream in list(self._streams.values()):
            stream.was_reset = True
            stream.wake()
        self._streams.clear()
        self._scope.cancel()
        with trio.move_on_after(1), suppress(*CONNECTION_FAULTS):
            await self.secured_conn.close()
        if self.on_close is not None:
            await self.on_close()

    @property
    def is_initiator(self) -> bool:
        """Return whether we dialled."""
        return self.secured_conn.is_initiator

    @property
    def is_established(self) -> bool:
        """Return whether streams can be opened."""
        return self.event_started.is_set() and not self.event_closed.is_set()

    @property
    def is_closed(self) -> bool:
        """Return whether the connection ended."""
        return self.event_closed.is_set()

    def get_transport_addresses(self) -> list[Any]:
        """Return the connection's multiaddrs."""
        return self.secured_conn.get_transport_addresses()

    def get_connection_type(self) -> ConnectionType:
        """Return direct or relayed."""
        return self.secured_conn.get_connection_type()

    def get_remote_address(self) -> tuple[str, int] | None:
        """Return the other end's address."""
        return self.secured_conn.get_remote_address()

    # streams

    async def open_stream(self) -> Stream:
        """Open a stream.

        Raises:
            MuxedConnUnavailable: the connection ended.
        """
        if self.event_closed.is_set():
            raise MuxedConnUnavailable("connection closed")
        stream = self._streams[self._next] = Stream(self._next, self)
        self._next += 2
        await self.write_frame(WINDOW, SYN, stream.number, 0)
        return stream

    async def accept_stream(self) -> Stream:
        """Return the next stream the peer opened.

        Raises:
            MuxedConnUnavailable: the connection ended.
        """
        try:
            return await self._accepting.receive()
        except trio.EndOfChannel as error:
            raise MuxedConnUnavailable("connection closed") from error

    def forget_closed(self, stream: Stream) -> None:
        """Drop the books of a stream that both sides ended."""
        if stream.is_closed and self._streams.pop(stream.number, None) is not None:
            self._inbound -= self._is_theirs(stream.number)

    def _is_theirs(self, number: int) -> bool:
        return number % 2 == (0 if self.is_initiator else 1)

    # wire

    async def write_frame(
        self, kind: int, flags: int, number: int, length: int, body: bytes | memoryview = b""
    ) -> None:
        """Write one frame; a peer that does not take it in time loses the connection.

        Raises:
            MuxedStreamReset: the connection ended.
        """
        if self.event_closed.is_set():
            raise MuxedStreamReset("connection closed")
        frame = HEADER.pack(0, kind, flags, number, length) + body
        async with self._writing:
            whole = False
            try:
                with trio.fail_after(WRITE_S):
                    await self.secured_conn.write(frame)
                whole = True
            except trio.TooSlowError:
                raise MuxedStreamReset("the peer does not read") from None
            finally:
                if not whole:  # half a frame may be on the wire: nothing can follow it
                    self._scope.cancel()

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            chunk = await self.secured_conn.read()
            if not chunk:
                raise EOFError("connection ended")
            self._buffer += chunk
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _read(self) -> None:
        for count in itertools.count(1):
            version, kind, flags, number, length = HEADER.unpack(await self._exactly(HEADER.size))
            self._heard = trio.current_time()
            if not self._frames.take(self._heard, self._cost()):
                raise Misbehaviour(Reason.RATE_LIMITED, "too many frames")
            if count % FRAMES_IN_A_ROW == 0:
                await trio.lowlevel.checkpoint()
            if version != 0:
                raise Misbehaviour(Reason.MALFORMED, "unknown version")
            if kind == DATA:
                if length > WINDOW_BYTES:
                    raise Misbehaviour(Reason.OVERSIZE, "receive window exceeded")
                with trio.fail_after(BODY_S):
                    body = await self._exactly(length)
                await self._on_stream(flags, number, body, 0)
            elif kind == WINDOW:
                await self._on_stream(flags, number, b"", length)
            elif kind == PING:
                if not self._pings.take(self._heard):
                    raise Misbehaviour(Reason.RATE_LIMITED, "too many pings")
                if flags & SYN:
                    await self.write_frame(PING, ACK, 0, length)
            elif kind == GO_AWAY:
                return
            else:
                raise Misbehaviour(Reason.MALFORMED, "unknown frame type")

    async def _on_stream(self, flags: int, number: int, body: bytes, room: int) -> None:
        stream = self._streams.get(number)
        if flags & SYN:
            if stream is not None or not self._is_theirs(number):
                raise Misbehaviour(Reason.MALFORMED, "stream number in use")
            stream = await self._opened(number)
        if stream is None:
            return  # late frames of a stream that was reset
        if body:
            stream.fed(body)
        stream.room += room
        if stream.room > 2**32:
            raise Misbehaviour(Reason.MALFORMED, "send window overflow")
        stream.got_fin |= bool(flags & FIN)
        stream.was_reset |= bool(flags & RST)
        if room or flags & (FIN | RST):
            stream.wake()
            self.forget_closed(stream)

    async def _opened(self, number: int) -> Stream | None:
        if not self._opens.take(trio.current_time(), self._cost()):
            raise Misbehaviour(Reason.RATE_LIMITED, "too many streams")
        if self._inbound >= int(STREAMS_INBOUND / self._cost()):
            await self.write_frame(WINDOW, RST, number, 0)
            return None
        stream = self._streams[number] = Stream(number, self)
        self._inbound += 1
        await self.write_frame(WINDOW, ACK, number, 0)
        try:
            self._accepted.send_nowait(stream)
        except trio.WouldBlock:
            await stream.reset()
            return None
        return stream


def _first(group: BaseExceptionGroup[Misbehaviour]) -> Misbehaviour:
    inner = group.exceptions[0]
    return inner if isinstance(inner, Misbehaviour) else _first(inner)
