"""JSON-RPC over HTTP/1.1 on trio: a keep-alive pool of h11 connections, TLS for https.

    call ─▶ free connection? ─▶ send, receive ─▶ back to the pool
                 └ none: connect              └ anything odd: the connection is thrown away

A kept connection may have been closed by the server meanwhile; then the request goes once more on
a fresh one, if asking twice is harmless. Deadlines belong to the caller.
"""

import base64
import itertools
import ssl
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

import h11
import trio

from keeper.chain import rpc
from keeper.chain.rpc import Request
from keeper.errors import ConfigError

_JSON = "application/json"
_CONNECTIONS = 16
"""Per endpoint: enough to hide latency, few enough for public providers' limits."""

_Connection = tuple[trio.abc.Stream, h11.Connection]


class _Stale(Exception):
    """The connection died before a byte of an answer came."""


class HttpRpc:
    """One HTTP endpoint."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        """Remember where to connect; nothing is opened yet.

        Args:
            url: http or https, with user and password if the provider wants them.
            tls: trusted certificates; the system's by default.

        Raises:
            ConfigError: the address is no http(s) one.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("endpoint must be an http(s) URL", where=url.split("@")[-1])
        self._host = parts.hostname
        self._tls = None
        if parts.scheme == "https":
            self._tls = tls or ssl.create_default_context()
        self._port = parts.port or (443 if self._tls else 80)
        self.name = f"{parts.scheme}://{self._host}:{self._port}"
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._headers = [("Host", parts.netloc.rpartition("@")[2]), ("Content-Type", _JSON)]
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            token = base64.b64encode(pair.encode()).decode()
            self._headers.append(("Authorization", f"Basic {token}"))
        self._free: list[_Connection] = []
        self._limit = trio.CapacityLimiter(_CONNECTIONS)
        self._ids = itertools.count(1)

    async def run(self) -> None:
        """Return: nothing to keep alive."""

    async def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        """Return the result of one call."""
        body = rpc.encode(rpc.frame(next(self._ids), method, params))
        answer = await self._exchange(body, again=rpc.retryable(method))
        return rpc.result(self.name, rpc.decode(self.name, answer))

    async def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Return results in order; a failed one is its RpcError."""
        if not requests:
            return []
        frames = [
            rpc.frame(index, method, params) for index, (method, params) in enumerate(requests)
        ]
        again = all(rpc.retryable(method) for method, _ in requests)
        answer = await self._exchange(rpc.encode(frames), again)
        return rpc.outcomes(self.name, rpc.decode(self.name, answer), 0, len(requests))

    async def aclose(self) -> None:
        """Close idle connections."""
        with trio.CancelScope(shield=True):
            while self._free:
                stream, _ = self._free.pop()
                await trio.aclose_forcefully(stream)

    async def _exchange(self, body: bytes, again: bool) -> bytes:
        async with self._limit:
            if self._free:
                try:
                    return await self._use(self._free.pop(), body, kept=True)
                except _Stale as error:
                    if not again:
                        raise rpc.down(self.name, "connection closed") from error
            return await self._use(await self._connect(), body, kept=False)

    async def _connect(self) -> _Connection:
        stream: trio.abc.Stream
        try:
            stream = await trio.open_tcp_stream(self._host, self._port)
            if self._tls is not None:
                tls = trio.SSLStream(
                    stream, self._tls, server_hostname=self._host, https_compatible=True
                )
                try:
                    await tls.do_handshake()
                except BaseException:
                    await trio.aclose_forcefully(stream)
                    raise
                stream = tls
        except (OSError, trio.BrokenResourceError, ssl.SSLError) as error:
            raise rpc.down(self.name, str(error)) from error
        return stream, h11.Connection(h11.CLIENT)

    async def _use(self, connection: _Connection, body: bytes, kept: bool) -> bytes:
        stream, http = connection
        reusable = False
        try:
            status, answer = await self._talk(stream, http, body)
            reusable = http.our_state is h11.DONE and http.their_state is h11.DONE
        except _Stale as error:
            if kept:
                raise
            raise rpc.down(self.name, "connection closed") from error
        except (trio.BrokenResourceError, OSError, h11.RemoteProtocolError) as error:
            raise rpc.down(self.name, str(error) or type(error).__name__) from error
        finally:
            if reusable:
                http.start_next_cycle()
                self._free.append(connection)
            else:
                await trio.aclose_forcefully(stream)
        if status != 200 and not answer.startswith((b"{", b"[")):
            raise rpc.down(self.name, f"HTTP status {status}")
        return answer

    async def _talk(
        self, stream: trio.abc.Stream, http: h11.Connection, body: bytes
    ) -> tuple[int, bytes]:
        headers = [*self._headers, ("Content-Length", str(len(body)))]
        request = h11.Request(method="POST", target=self._target, headers=headers)
        out = [http.send(request), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())]
        try:
            await stream.send_all(b"".join([piece for piece in out if piece]))
            received = await stream.receive_some(65536)
        except trio.BrokenResourceError as error:
            raise _Stale from error
        if not received:
            raise _Stale
        http.receive_data(received)
        status, size, pieces = 0, 0, []
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > rpc.MAX_BODY:
                    raise rpc.malformed(self.name, f"answer is larger than {rpc.MAX_BODY} bytes")
                pieces.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                return status, b"".join(pieces)
            elif isinstance(event, h11.ConnectionClosed):
                raise trio.BrokenResourceError("connection closed")
