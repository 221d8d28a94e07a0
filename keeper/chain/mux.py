"""JSON-RPC over one connection, many calls at once: websocket, and IPC (a unix socket).

    call(7) call(8) ──▶ one stream ──▶ answers in any order, matched by id
                                  └──▶ eth_subscription: newHeads pokes the tracker

`run` connects, reads, and connects again after a pause; calls made meanwhile wait for it, as long
as their caller's deadline lets them. A subscription may be notified before its own reply arrives.
"""

import itertools
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

import trio
import trio_websocket

from keeper.chain import rpc
from keeper.chain.rpc import Poke, Request
from keeper.errors import ConfigError, RemoteFault
from keeper.reasons import Reason

_PAUSE_S = 0.2
_MAX_PAUSE_S = 5.0
_MESSAGES = 64
"""Messages the websocket library may queue before it stops reading from the network."""


class Link(Protocol):
    """A connection that carries whole messages."""

    async def send(self, message: bytes) -> None:
        """Send one message."""
        ...

    async def receive(self) -> bytes:
        """Return the next message."""
        ...


_BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError)


class WebsocketLink:
    """Messages over a websocket, as text because providers expect text."""

    def __init__(self, connection: trio_websocket.WebSocketConnection) -> None:
        self._connection = connection

    async def send(self, message: bytes) -> None:
        """Send one message."""
        try:
            await self._connection.send_message(message.decode())
        except trio_websocket.ConnectionClosed as error:
            raise trio.BrokenResourceError("websocket closed") from error

    async def receive(self) -> bytes:
        """Return the next message."""
        try:
            message = await self._connection.get_message()
        except trio_websocket.ConnectionClosed as error:
            raise trio.BrokenResourceError("websocket closed") from error
        return message.encode() if isinstance(message, str) else bytes(message)


class IpcLink:
    """Newline-delimited messages over a unix socket."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream, self._sending = stream, trio.Lock()
        self._buffer, self._scanned = bytearray(), 0

    async def send(self, message: bytes) -> None:
        """Send one message."""
        async with self._sending:
            await self._stream.send_all(message + b"\n")

    async def receive(self) -> bytes:
        """Return the next message."""
        while True:
            end = self._buffer.find(b"\n", self._scanned)
            if end >= 0:
                message = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                self._scanned = 0
                return message
            self._scanned = len(self._buffer)
            if self._scanned > rpc.MAX_BODY:
                raise trio.BrokenResourceError("message too large")
            chunk = await self._stream.receive_some(65536)
            if not chunk:
                raise trio.BrokenResourceError("socket closed")
            self._buffer += chunk


@asynccontextmanager
async def _websocket(url: str, tls: ssl.SSLContext | None) -> AsyncIterator[Link]:
    try:
        async with trio_websocket.open_websocket_url(
            url, ssl_context=tls, max_message_size=rpc.MAX_BODY, message_queue_size=_MESSAGES
        ) as connection:
            yield WebsocketLink(connection)
    except (trio_websocket.HandshakeError, trio_websocket.ConnectionClosed) as error:
        raise trio.BrokenResourceError(str(error) or "handshake failed") from error


@asynccontextmanager
async def _ipc(path: str) -> AsyncIterator[Link]:
    async with await trio.open_unix_socket(path) as stream:
        yield IpcLink(stream)


class MuxRpc:
    """One websocket (ws, wss) or IPC (a path, or ipc://path) endpoint."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        """Remember where to connect.

        Raises:
            ConfigError: the address is neither a websocket nor a path.
        """
        parts = urlsplit(url)
        if parts.scheme in ("ws", "wss"):
            default = {"ws": 80, "wss": 443}[parts.scheme]
            self.name = f"{parts.scheme}://{parts.hostname}:{parts.port or default}"
            context = (tls or ssl.create_default_context()) if parts.scheme == "wss" else None
            self._open: Callable[[], AbstractAsyncContextManager[Link]] = partial(
                _websocket, url, context
            )
        elif parts.scheme in ("", "ipc"):
            path = url.removeprefix("ipc://")
            self.name = f"ipc://{path}"
            self._open = partial(_ipc, path)
        else:
            raise ConfigError("endpoint must be a ws(s) URL or a socket path", where=parts.scheme)
        self._ids = itertools.count(1)
        self._link: Link | None = None
        self._connected, self._closed = trio.Event(), trio.Event()
        self._waiting: dict[int, tuple[trio.Event, list[Any]]] = {}
        self._pokes: dict[str, Poke] = {}
        self._early: set[str] = set()
        self._why = "not connected"

    async def run(self) -> None:
        """Stay connected until cancelled."""
        pause = _PAUSE_S
        while True:
            try:
                async with self._open() as link:
                    self._link, pause = link, _PAUSE_S
                    self._connected.set()
                    await self._read(link)
            except _BROKEN as error:
                self._why = str(error) or type(error).__name__
            except RemoteFault as fault:
                self._why = fault.detail
            finally:
                self._drop()
            await trio.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE_S)

    def _drop(self) -> None:
        """Fail whoever waits: the answers will not come any more."""
        self._link = None
        self._closed.set()
        self._connected, self._closed = trio.Event(), trio.Event()
        self._pokes.clear()
        self._early.clear()
        for event, _ in self._waiting.values():
            event.set()
        self._waiting.clear()

    async def _read(self, link: Link) -> None:
        while True:
            message = rpc.decode(self.name, await link.receive())
            if isinstance(message, list):
                numbers = [_number(each) for each in message if isinstance(each, dict)]
                waiter = next((self._waiting.pop(n) for n in numbers if n in self._waiting), None)
            elif not isinstance(message, dict):
                raise rpc.malformed(self.name, "message is neither an object nor a list")
            elif "id" in message:
                waiter = self._waiting.pop(_number(message), None)
            else:
                self._notified(message)
                continue
            if waiter is not None:
                waiter[1].append(message)
                waiter[0].set()

    def _notified(self, message: dict[str, Any]) -> None:
        parameters = message.get("params")
        key = parameters.get("subscription") if isinstance(parameters, dict) else None
        if not isinstance(key, str):
            return
        if key in self._pokes:
            self._pokes[key]()
        elif len(self._early) < _MESSAGES:
            self._early.add(key)

    async def _exchange(self, number: int, body: bytes) -> Any:
        while self._link is None:
            await self._connected.wait()
        event, box = trio.Event(), list[Any]()
        self._waiting[number] = (event, box)
        try:
            await self._link.send(body)
            await event.wait()
        except _BROKEN as error:
            raise rpc.down(self.name, str(error) or type(error).__name__) from error
        finally:
            self._waiting.pop(number, None)
        if not box:
            raise rpc.down(self.name, self._why)
        return box[0]

    async def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        """Return the result of one call."""
        number = next(self._ids)
        body = rpc.encode(rpc.frame(number, method, params))
        return rpc.result(self.name, await self._exchange(number, body))

    async def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Return results in order; a failed one is its RpcError."""
        if not requests:
            return []
        numbers = [next(self._ids) for _ in requests]
        frames = [rpc.frame(n, *request) for n, request in zip(numbers, requests, strict=True)]
        answers = await self._exchange(numbers[0], rpc.encode(frames))
        return rpc.outcomes(self.name, answers, numbers[0], len(requests))

    async def follow_heads(self, poke: Poke) -> None:
        """Call `poke` at every new head, through reconnections; return if it offers none."""
        while True:
            await self._connected.wait()
            closed = self._closed
            try:
                key = await self.call("eth_subscribe", ["newHeads"])
            except RemoteFault as fault:
                if fault.reason is not Reason.ENDPOINT_DOWN:
                    return
                await trio.sleep(_PAUSE_S)
                continue
            if not isinstance(key, str):
                return
            self._pokes[key] = poke
            if key in self._early:
                self._early.discard(key)
                poke()
            await closed.wait()

    async def aclose(self) -> None:
        """Nothing is open outside `run`."""


def _number(message: dict[str, Any]) -> int:
    """Return the id of an answer; no call of ours has the number of one that is no integer."""
    found = message.get("id")
    return found if isinstance(found, int) else -1


def is_mux(url: str) -> bool:
    """Return whether the address is one of this module's."""
    return urlsplit(url).scheme in ("ws", "wss", "ipc", "")
