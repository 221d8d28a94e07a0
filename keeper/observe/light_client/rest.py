"""A beacon node's REST interface, as far as a light client needs it: four GETs that answer SSZ.

    /eth/v1/beacon/light_client/bootstrap/{root}   updates   finality_update   optimistic_update

One request a connection: a light client asks a few times an epoch. Nothing here is believed.
Source: ethereum/beacon-APIs, light client. TLS for https; deadlines belong to the caller.
"""

import ssl
from urllib.parse import urlsplit

import h11
import trio

from keeper.errors import ConfigError, RemoteFault
from keeper.observe.light_client.ssz import (
    Bootstrap,
    Update,
    decode_bootstrap,
    decode_finality_update,
    decode_optimistic_update,
    decode_update,
)
from keeper.reasons import Reason

SSZ = "application/octet-stream"
MAX_BODY = 4 << 20
"""128 updates, the most a node answers, are 3.5 MiB."""
_LIGHT = "/eth/v1/beacon/light_client"
_CONTEXT = 4
"""Bytes of fork digest before each update; the signature's domain is what counts."""


class BeaconRest:
    """One beacon node.

    Raises:
        ConfigError: the address is no http(s) one.
    """

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError("a beacon endpoint must be an http(s) URL", where=url)
        self._host, self._base = parts.hostname, parts.path.rstrip("/")
        self._authority = parts.netloc.rpartition("@")[2]
        secure = parts.scheme == "https"
        self._tls = (tls or ssl.create_default_context()) if secure else None
        self._port = parts.port or (443 if secure else 80)
        self.name = f"{parts.scheme}://{self._host}:{self._port}"

    async def bootstrap(self, root: bytes, size: int) -> Bootstrap:
        """Return the bootstrap of a block.

        Raises:
            RemoteFault: the node does not answer, does not have it, or answers nonsense.
        """
        body = await self._get(f"{_LIGHT}/bootstrap/0x{root.hex()}")
        try:
            return decode_bootstrap(body, size)
        except ValueError as error:
            raise self._malformed(error) from error

    async def updates(self, first: int, count: int, size: int) -> list[Update]:
        """Return the updates of periods from `first` on, as many as the node has.

        Raises:
            RemoteFault: the node does not answer, or answers nonsense.
        """
        body = await self._get(f"{_LIGHT}/updates?start_period={first}&count={count}")
        found: list[Update] = []
        try:
            while body:
                end = 8 + int.from_bytes(body[:8], "little")
                if len(body) < end or len(found) >= count:
                    raise ValueError("updates: length")
                found.append(decode_update(body[8 + _CONTEXT : end], size))
                body = body[end:]
        except ValueError as error:
            raise self._malformed(error) from error
        return found

    async def finality_update(self, size: int) -> Update:
        """Return the newest finality update.

        Raises:
            RemoteFault: the node does not answer, has none, or answers nonsense.
        """
        body = await self._get(f"{_LIGHT}/finality_update")
        try:
            return decode_finality_update(body, size)
        except ValueError as error:
            raise self._malformed(error) from error

    async def optimistic_update(self, size: int) -> Update:
        """Return the newest optimistic update.

        Raises:
            RemoteFault: the node does not answer, has none, or answers nonsense.
        """
        body = await self._get(f"{_LIGHT}/optimistic_update")
        try:
            return decode_optimistic_update(body, size)
        except ValueError as error:
            raise self._malformed(error) from error

    def _malformed(self, error: ValueError) -> RemoteFault:
        return RemoteFault(self.name, Reason.MALFORMED, str(error))

    async def _get(self, path: str) -> bytes:
        try:
            async with await self._connect() as stream:
                return await self._exchange(stream, self._base + path)
        except (OSError, trio.BrokenResourceError, h11.ProtocolError) as error:
            raise RemoteFault(self.name, Reason.ENDPOINT_DOWN, str(error)) from error

    async def _connect(self) -> trio.abc.Stream:
        stream = await trio.open_tcp_stream(self._host, self._port)
        if self._tls is None:
            return stream
        return trio.SSLStream(stream, self._tls, server_hostname=self._host, https_compatible=True)

    async def _exchange(self, stream: trio.abc.Stream, target: str) -> bytes:
        connection = h11.Connection(h11.CLIENT)
        headers = [("Host", self._authority), ("Accept", SSZ), ("Connection", "close")]
        request = h11.Request(method="GET", target=target, headers=headers)
        await stream.send_all(connection.send(request) + connection.send(h11.EndOfMessage()))
        body, status, kind = b"", 0, ""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Response):
                status = event.status_code
                kind = dict(event.headers).get(b"content-type", b"").decode("ascii", "replace")
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
                if len(body) > MAX_BODY:
                    raise RemoteFault(self.name, Reason.OVERSIZE, f"more than {MAX_BODY} bytes")
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                break
        if status != 200:
            raise RemoteFault(self.name, Reason.ENDPOINT_DOWN, f"HTTP status {status} for {target}")
        if not kind.startswith(SSZ):
            raise RemoteFault(self.name, Reason.MALFORMED, f"answers {kind or 'nothing'}, not SSZ")
        return body
