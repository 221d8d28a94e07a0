"""The request road: one stream, one question, one answer, then it is gone.

    asker ── 4 bytes length ‖ question ──►  rate, size, ≤ 4 at once per peer ─► handler
          ◄── 1 byte status ‖ 4 bytes length ‖ answer ──

Status 0 is an answer, 1 a refusal (no handler, too many, too fast). Both sides read under a size
limit; the server also under a deadline, so a slow writer holds a slot for five seconds at most.
"""

import inspect
from collections import Counter
from contextlib import suppress

import trio
from libp2p.abc import INetStream

from keeper.errors import RemoteFault
from keeper.reasons import Reason
from p2p.gate import Gate
from p2p.guards import NETWORK_FAULTS
from p2p.identity import peer_id_text
from p2p.port import Handler, Road, Role

ANSWER, REFUSAL = b"\x00", b"\x01"


async def read_exactly(stream: INetStream, buffer: bytearray, size: int) -> bytes:
    """Return the next `size` bytes; what was read beyond them stays in `buffer`.

    Raises:
        EOFError: the stream ended first.
    """
    while len(buffer) < size:
        chunk = await stream.read(65536)
        if not chunk:
            raise EOFError("the stream ended inside a message")
        buffer += chunk
    taken = bytes(buffer[:size])
    del buffer[:size]
    return taken


async def read_sized(stream: INetStream, buffer: bytearray, limit: int, culprit: bytes) -> bytes:
    """Return one length-prefixed message.

    Raises:
        RemoteFault: it is larger than `limit`.
        EOFError: the stream ended first.
    """
    size = int.from_bytes(await read_exactly(stream, buffer, 4), "big")
    if size > limit:
        raise RemoteFault(peer_id_text(culprit), Reason.OVERSIZE, f"{size} bytes")
    return await read_exactly(stream, buffer, size)


async def ask(stream: INetStream, peer: bytes, frame: bytes, limit: int) -> bytes:
    """Send a question on a fresh stream and return the answer.

    Raises:
        RemoteFault: refused, too large, or the peer went away.
    """
    buffer = bytearray()
    try:
        await stream.write(len(frame).to_bytes(4, "big") + frame)
        status = await read_exactly(stream, buffer, 1)
        answer = await read_sized(stream, buffer, limit, peer)
    except (EOFError, *NETWORK_FAULTS) as error:
        raise RemoteFault(peer_id_text(peer), Reason.UNREACHABLE, repr(error)) from error
    finally:
        scope = trio.CancelScope(shield=True, deadline=trio.current_time() + 0.5)
        with scope, suppress(*NETWORK_FAULTS):
            await stream.close()
    if status != ANSWER:
        raise RemoteFault(peer_id_text(peer), Reason.REFUSED, answer.decode("ascii", "replace"))
    return answer


class Answerer:
    """The serving side of every request road.

    Invariants: at most `requests_at_once` handlers run for one peer, and at most
    `follower_requests_at_once` for all followers: an answer may be 1 MiB that nobody reads.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._handlers: dict[Road, Handler] = {}
        self._running: Counter[bytes] = Counter()

    def serve(self, road: Road, handler: Handler) -> None:
        """Set the handler of a road."""
        self._handlers[road] = handler

    async def handle(self, road: Road, stream: INetStream) -> None:
        """Answer one question.

        Raises:
            RemoteFault: the question broke the rules of the road.
        """
        peer = stream.muxed_conn.peer_id.to_bytes()
        limits = self._gate.limits
        handler = self._handlers.get(road)
        if handler is None or self._is_busy(peer):
            await self._reply(stream, REFUSAL, b"busy")
            return
        if not self._gate.may_ask(peer):
            await self._reply(stream, REFUSAL, b"rate")
            return
        self._running[peer] += 1
        try:
            with trio.fail_after(limits.request_read_s):
                question = await read_sized(stream, bytearray(), limits.request_bytes, peer)
            result = handler(peer, question)
            answer = await result if inspect.isawaitable(result) else result
            if len(answer) > limits.response_bytes:
                await self._reply(stream, REFUSAL, b"large")
            else:
                await self._reply(stream, ANSWER, answer)
        finally:
            self._running[peer] -= 1
            if not self._running[peer]:
                del self._running[peer]

    def _is_busy(self, peer: bytes) -> bool:
        """Return whether a peer, or all followers together, have their share of handlers."""
        if self._running[peer] >= self._gate.limits.requests_at_once:
            return True
        if self._gate.role(peer) is not Role.FOLLOWER:
            return False
        strangers = (
            count
            for other, count in self._running.items()
            if self._gate.role(other) is Role.FOLLOWER
        )
        return sum(strangers) >= self._gate.limits.follower_requests_at_once

    async def _reply(self, stream: INetStream, status: bytes, body: bytes) -> None:
        with trio.fail_after(self._gate.limits.request_read_s):
            await stream.write(status + len(body).to_bytes(4, "big") + body)
            await stream.close()
