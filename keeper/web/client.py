"""The smallest HTTP client: one GET, one JSON value, for asking a node on this machine."""

import json
from typing import Any

import h11
import trio

ANSWER_S = 3.0
MAX_BODY = 4 * 1024 * 1024


async def get_json(host: str, port: int, path: str) -> Any:
    """Return the JSON a node serves at a path, or None when it does not answer in time."""
    with trio.move_on_after(ANSWER_S):
        try:
            return json.loads(await _get(host, port, path))
        except (OSError, trio.BrokenResourceError, h11.ProtocolError, ValueError):
            return None
    return None


async def _get(host: str, port: int, path: str) -> bytes:
    connection = h11.Connection(h11.CLIENT)
    async with await trio.open_tcp_stream(host, port) as stream:
        request = h11.Request(method="GET", target=path, headers=[("host", f"{host}:{port}")])
        await stream.send_all(connection.send(request) + connection.send(h11.EndOfMessage()))
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
                if len(body) > MAX_BODY:
                    raise ValueError("the answer is too large")
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                return body
