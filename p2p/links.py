"""The consensus road: one stream to each peer we keep a link with, alive or known to be dead.

    queue (newest win) ─► one writer ─► stream ─► their reader ─► gate
        ping every 0.5 s ─────────────►        ◄───────────── pong on the same stream
                     no pong for 2 s: dead, close, dial again after 0.1 … 5 s

A frame is 4 bytes of length, big endian, then one byte of kind, then the body. One writer task per
stream, because two writers of more than 64 KiB interleave (guard 6). The lower peer id dials, the
other gives it a head start, so a pair ends up with one connection (guard 8).
"""

import random
import struct
from collections import deque
from collections.abc import Callable
from typing import Protocol

import trio
from libp2p.abc import INetStream

from keeper.errors import RemoteFault
from keeper.reasons import Reason
from p2p.gate import Gate
from p2p.guards import NETWORK_FAULTS, reset
from p2p.identity import peer_id_text
from p2p.port import Limits
from p2p.verdicts import Reject

PING, PONG, MESSAGE = 0, 1, 2
LENGTH_BYTES = 4
READ_BYTES = 65536
WRITE_BYTES = 60_000
"""Frames written in one go; below the muxer's largest frame."""
PING_BYTES = 8
HEAD_START_S = 1.0
"""How long the higher peer id waits for the lower one to dial."""
FRAMES_IN_A_ROW = 32
"""Frames handled before other tasks get their turn."""
FLOOD_S = 0.05
"""How long we do not read from a peer that went over its rate."""
OVERHEAD = LENGTH_BYTES + 1


class Dialler(Protocol):
    """What a link needs of its host."""

    def is_connected(self, peer: bytes) -> bool:
        """Return whether a live connection exists."""
        ...

    async def connected(self, peer: bytes) -> None:
        """Return once a live connection exists."""
        ...

    async def dial(self, peer: bytes) -> None:
        """Connect, or raise `LinkDown`."""
        ...

    async def open_link(self, peer: bytes) -> INetStream:
        """Open a stream of the consensus road, or raise `LinkDown`."""
        ...

    def dropped(self, peer: bytes) -> None:
        """A link went down: what is left of its connections is dead or useless."""
        ...


class LinkDown(Exception):
    """The link cannot be made or went away; nobody's fault."""


def first_fault(group: BaseExceptionGroup[RemoteFault]) -> RemoteFault:
    """Return one fault of a group."""
    inner = group.exceptions[0]
    return inner if isinstance(inner, RemoteFault) else first_fault(inner)


def frame(kind: int, body: bytes) -> bytes:
    """Return the bytes of one frame."""
    return struct.pack(">IB", len(body) + 1, kind) + body


class FrameReader:
    """Cuts a stream into frames; holds at most one frame and one read."""

    def __init__(self, limit: int) -> None:
        """Create a reader; `limit` is the largest body in bytes."""
        self.limit, self._buffer = limit, bytearray()

    def feed(self, chunk: bytes) -> list[tuple[int, bytes]]:
        """Return the frames completed by these bytes.

        Raises:
            ValueError: a length is zero or above the limit.
        """
        buffer = self._buffer
        buffer += chunk
        frames, at = [], 0
        while len(buffer) - at >= LENGTH_BYTES:
            size = int.from_bytes(buffer[at : at + LENGTH_BYTES], "big")
            if not 1 <= size <= self.limit + 1:
                raise ValueError(f"a frame of {size} bytes")
            if len(buffer) - at < LENGTH_BYTES + size:
                break
            body = bytes(buffer[at + OVERHEAD : at + LENGTH_BYTES + size])
            frames.append((buffer[at + LENGTH_BYTES], body))
            at += LENGTH_BYTES + size
        del buffer[:at]
        return frames


class Link:
    """Our stream to one peer.

    Invariants: at most `queue_frames` frames wait; only `_write` writes to the stream.
    """

    def __init__(self, peer: bytes, gate: Gate, limits: Limits) -> None:
        self.peer, self._gate, self._limits = peer, gate, limits
        self._queue: deque[bytes] = deque()
        self._wake = trio.Event()
        self._pinged: deque[tuple[bytes, float]] = deque(maxlen=8)
        self._heard = 0.0
        self.up = False
        self.went_up = trio.Event()
        self._kicked = trio.Event()

    def put(self, body: bytes) -> None:
        """Queue a message; drops the oldest when full."""
        if not self.up:
            return
        if len(self._queue) >= self._limits.queue_frames:
            self._queue.popleft()
            self._gate.overflowed(self.peer)
        self._queue.append(frame(MESSAGE, body))
        self._gate.traffic(self.peer).queued = len(self._queue)
        self._wake.set()

    def kick(self) -> None:
        """Try at once: an address was learned, or the peer connected to us."""
        self._kicked.set()

    async def keep(self, dialler: Dialler, dials_first: bool) -> None:
        """Keep the link up until cancelled."""
        back_off = self._limits.back_off_s
        while True:
            began = trio.current_time()
            try:
                await self._connect(dialler, dials_first)
                await self._carry(await dialler.open_link(self.peer))
            except* (LinkDown, *NETWORK_FAULTS):
                dialler.dropped(self.peer)
            except* RemoteFault as faults:
                self._gate.report(self.peer, Reject(first_fault(faults).reason))
            finally:
                self.up = False
                if self.went_up.is_set():  # else somebody still waits for this very event
                    self.went_up = trio.Event()
                self._queue.clear()
            if trio.current_time() - began > self._limits.dead_s:
                back_off = self._limits.back_off_s
            self._kicked = trio.Event()
            with trio.move_on_after(back_off * random.uniform(0.8, 1.2)) as waited:
                await self._kicked.wait()
            back_off = min(2 * back_off, self._limits.back_off_max_s)
            if not waited.cancelled_caught:
                back_off = self._limits.back_off_s

    async def _connect(self, dialler: Dialler, dials_first: bool) -> None:
        if not dials_first:
            with trio.move_on_after(HEAD_START_S):
                await dialler.connected(self.peer)
        if not dialler.is_connected(self.peer):
            with trio.fail_after(3.0):
                await dialler.dial(self.peer)

    async def _carry(self, stream: INetStream) -> None:
        self._heard = trio.current_time()
        self._wake = trio.Event()
        self.up = True
        self.went_up.set()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, stream)
                await self._write(stream)
        finally:
            await reset(stream)

    async def _write(self, stream: INetStream) -> None:
        next_ping, count = trio.current_time(), random.getrandbits(32)
        while True:
            now = trio.current_time()
            if now - self._heard > self._limits.dead_s:
                raise LinkDown("no pong")
            out = bytearray()
            if now >= next_ping:
                count += 1
                token = struct.pack(">Q", count)
                self._pinged.append((token, now))
                out += frame(PING, token)
                next_ping = now + self._limits.keep_alive_s
            while self._queue and len(out) < WRITE_BYTES:
                out += self._queue.popleft()
            if out:
                with trio.fail_after(self._limits.dead_s):
                    await stream.write(bytes(out))
                self._gate.sent(self.peer, len(out))
                self._gate.traffic(self.peer).queued = len(self._queue)
                continue
            self._wake = trio.Event()
            with trio.move_on_at(next_ping):
                await self._wake.wait()

    async def _read(self, stream: INetStream) -> None:
        reader = FrameReader(PING_BYTES)
        while True:
            chunk = await stream.read(READ_BYTES)
            if not chunk:
                raise LinkDown("stream ended")
            try:
                frames = reader.feed(chunk)
            except ValueError as error:
                raise RemoteFault(peer_id_text(self.peer), Reason.OVERSIZE, str(error)) from error
            for kind, token in frames:
                if kind == PONG:
                    self._ponged(token)

    def _ponged(self, token: bytes) -> None:
        now = trio.current_time()
        for sent, at in self._pinged:
            if sent == token:
                self._heard = now
                self._gate.round_trip(self.peer, now - at)
                return


async def serve_link(stream: INetStream, gate: Gate, take: Callable[[bytes, bytes], bool]) -> None:
    """Read a peer's link: answer pings, hand messages to `take(peer, body)`.

    `take` returns whether the peer kept to its rate. Once it has not, the rest of what was read is
    dropped in one go, and we read on later: its window fills, and the flood waits at its source.

    Raises:
        RemoteFault: a frame broke the rules.
    """
    peer = stream.muxed_conn.peer_id.to_bytes()
    limits = gate.limits
    reader = FrameReader(limits.frame_bytes)
    while True:
        chunk = await stream.read(READ_BYTES)
        if not chunk:
            return
        reader.limit = gate.frame_limit(peer)
        try:
            frames = reader.feed(chunk)
        except ValueError as error:
            raise RemoteFault(peer_id_text(peer), Reason.OVERSIZE, str(error)) from error
        pongs = bytearray()
        for at, (kind, body) in enumerate(frames):
            if kind == MESSAGE:
                kept = take(peer, body)
            elif kind == PING and len(body) == PING_BYTES:
                kept = gate.may_speak(peer, PING_BYTES, PING_BYTES)
                pongs += frame(PONG, body) if kept else b""
            else:
                raise RemoteFault(peer_id_text(peer), Reason.MALFORMED, f"frame kind {kind}")
            if not kept:
                gate.flooded(peer, len(frames) - at - 1)
                await trio.sleep(FLOOD_S)
                break
            if at % FRAMES_IN_A_ROW == FRAMES_IN_A_ROW - 1:
                await trio.lowlevel.checkpoint()
        if pongs:
            with trio.fail_after(limits.dead_s):
                await stream.write(bytes(pongs))
