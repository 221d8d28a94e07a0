"""A small HTTP/1.1 server for health, metrics, status and the dashboard.

    GET path ─▶ route(path) ─▶ Response        one request a connection, bounded in size and time

Only GET and HEAD; loopback by default; h11 parses, so no byte of a client is ours to interpret.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import h11
import trio

from keeper.errors import ConfigError

REQUEST_S = 5.0
"""A client that takes longer to say what it wants is cut off."""
MAX_CLIENTS = 64
"""Connections served at once: scrapers and a few browsers."""


@dataclass(frozen=True, slots=True)
class Response:
    """What a route answers."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"


Route = Callable[[str], Response]
"""route(query) -> Response; must not block."""


class Server:
    """Serves routes on one address."""

    def __init__(self, host: str, port: int, routes: Mapping[str, Route]) -> None:
        self.host, self.port, self.routes = host, port, dict(routes)
        self._slots = trio.CapacityLimiter(MAX_CLIENTS)

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled.

        Raises:
            ConfigError: the address is in use or is not ours.
        """
        try:
            listeners = await trio.open_tcp_listeners(self.port, host=self.host)
        except OSError as error:
            raise ConfigError(
                f"cannot listen: {error.strerror or error}",
                where=f"{self.host}:{self.port}",
                remedy="choose another [http] port, or stop the program that uses it",
            ) from error
        task_status.started()
        await trio.serve_listeners(self._client, listeners)

    async def _client(self, stream: trio.SocketStream) -> None:
        async with self._slots:
            with trio.move_on_after(REQUEST_S):
                try:
                    await self._exchange(stream)
                except (trio.BrokenResourceError, h11.ProtocolError):
                    return  # the client went away or does not speak HTTP: nothing to tell it
            await trio.aclose_forcefully(stream)

    async def _exchange(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=16 * 1024)
        event: Any = None
        while not isinstance(event, h11.Request):
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(16 * 1024))
            elif isinstance(event, h11.ConnectionClosed):
                return
        response = self._answer(event.method.decode(), event.target.decode("ascii", "replace"))
        headers = [
            ("content-type", response.content_type),
            ("content-length", str(len(response.body))),
            ("cache-control", "no-store"),
            ("connection", "close"),
        ]
        send = partial(_send, stream, connection)
        await send(h11.Response(status_code=response.status, headers=headers))
        if event.method != b"HEAD":
            await send(h11.Data(data=response.body))
        await send(h11.EndOfMessage())
        await stream.send_eof()

    def _answer(self, method: str, target: str) -> Response:
        if method not in {"GET", "HEAD"}:
            return Response(b'{"error":"only GET"}', 405)
        parts = urlsplit(target)
        route = self.routes.get(parts.path)
        if route is None:
            known = " ".join(sorted(self.routes))
            return Response(f"no such page; there are: {known}\n".encode(), 404, "text/plain")
        return route(parts.query)


async def _send(stream: trio.SocketStream, connection: h11.Connection, event: Any) -> None:
    data = connection.send(event)
    if data:
        await stream.send_all(data)
