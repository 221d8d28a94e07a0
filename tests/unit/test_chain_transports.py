"""HTTP, websocket and IPC against servers that fragment, hang up, babble and flood."""

import datetime
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trio_websocket
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keeper.chain import rpc as frames
from keeper.chain.http import HttpRpc
from keeper.chain.mux import MuxRpc
from keeper.chain.rpc import RpcError
from keeper.errors import ConfigError, RemoteFault
from keeper.reasons import Reason

Handler = Callable[[trio.abc.Stream], Awaitable[None]]


@asynccontextmanager
async def served(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve connections on a loopback port."""

    async def guarded(stream: trio.abc.Stream) -> None:
        try:
            await handler(stream)
        except trio.BrokenResourceError:
            return
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        if tls is None:
            serve = partial(trio.serve_tcp, guarded, 0, host="127.0.0.1")
        else:
            serve = partial(trio.serve_ssl_over_tcp, guarded, 0, tls, host="127.0.0.1")
        (listener, *_) = await nursery.start(serve)
        socket = (listener.transport_listener if tls else listener).socket
        with trio.fail_after(10):
            yield socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def read_request(stream: trio.abc.Stream) -> Any:
    """Return the JSON of one POST, or None at the end."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        chunk = await stream.receive_some()
        if not chunk:
            return None
        raw += bytes(chunk)
    head, _, body = raw.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += await stream.receive_some()
    return json.loads(body)


def response(body: bytes, status: str = "200 OK", extra: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n".encode()
    return head + extra + b"\r\n" + body


def answer(request: Any) -> bytes:
    if isinstance(request, list):
        found = [{"jsonrpc": "2.0", "id": r["id"], "result": r["method"]} for r in request]
        return json.dumps(found[::-1]).encode()
    return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": request["method"]}).encode()


async def echo(stream: trio.abc.Stream) -> None:
    while (request := await read_request(stream)) is not None:
        await stream.send_all(response(answer(request)))


@asynccontextmanager
async def client(port: int, **changes: Any) -> AsyncIterator[HttpRpc]:
    rpc = HttpRpc(f"http://127.0.0.1:{port}/path?key=1", **changes)
    try:
        yield rpc
    finally:
        await rpc.aclose()


async def test_calls_and_batches_in_any_order_of_answers() -> None:
    async with served(echo) as port, client(port) as rpc:
        assert await rpc.call("eth_x") == "eth_x"
        assert await rpc.batch([("a", []), ("b", []), ("c", [])]) == ["a", "b", "c"]
        assert await rpc.batch([]) == []


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://a.example/v3/key", "a.example"),
        ("http://user:secret@a.example:8545", "a.example:8545"),
        ("http://[::1]:8545", "[::1]:8545"),
    ],
)
def test_the_host_is_named_as_in_the_address(url: str, host: str) -> None:
    rpc = HttpRpc(url)
    assert dict(rpc._headers)["Host"] == host
    assert "secret" not in rpc.name + host


async def test_bytes_may_come_one_by_one() -> None:
    async def drip(stream: trio.abc.Stream) -> None:
        request = await read_request(stream)
        for byte in response(answer(request)):
            await stream.send_all(bytes([byte]))

    async with served(drip) as port, client(port) as rpc:
        assert await rpc.call("eth_x") == "eth_x"


async def test_a_kept_connection_that_died_is_replaced_once() -> None:
    seen: list[str] = []

    async def once(stream: trio.abc.Stream) -> None:
        request = await read_request(stream)
        if request is not None:
            seen.append(request["method"])
            await stream.send_all(response(answer(request)))

    async with served(once) as port, client(port) as rpc:
        for _ in range(3):
            assert await rpc.call("eth_x") == "eth_x"
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RemoteFault) as caught:
            await rpc.call("anvil_mine")
        assert caught.value.reason is Reason.ENDPOINT_DOWN
        assert seen == ["eth_x"] * 3, "what is not harmless twice is not sent twice"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (response(b"not json"), Reason.MALFORMED),
        (response(b"[]"), Reason.MALFORMED),
        (response(b'{"id": 1}'), Reason.MALFORMED),
        (response(b'{"id": 1, "error": 5}'), Reason.MALFORMED),
        (response(b"busy", "503 Service Unavailable"), Reason.ENDPOINT_DOWN),
        (b"garbage\r\n\r\n", Reason.ENDPOINT_DOWN),
        (b"", Reason.ENDPOINT_DOWN),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", Reason.ENDPOINT_DOWN),
        (response(b'{"id": 1, "error": {"code": -32000, "message": "no"}}'), Reason.RPC_ERROR),
        (response(b'{"id": 1, "error": {"code": 3, "message": "x"}}'), Reason.REVERTED),
    ],
)
async def test_every_bad_answer_is_the_endpoints_fault(body: bytes, reason: Reason) -> None:
    async def bad(stream: trio.abc.Stream) -> None:
        if await read_request(stream) is not None and body:
            await stream.send_all(body)

    async with served(bad) as port, client(port) as rpc:
        with pytest.raises(RemoteFault) as caught:
            await rpc.call("eth_x")
        assert caught.value.reason is reason
        assert caught.value.culprit == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "answers",
    [[{"id": "a", "result": 1}], [{"id": 0, "result": 1}] * 2, [{"id": 7, "result": 1}], 3],
)
async def test_batch_answers_must_match_their_requests(answers: Any) -> None:
    with pytest.raises(RemoteFault) as caught:
        frames.outcomes("x", answers, 0, len(answers) if isinstance(answers, list) else 1)
    assert caught.value.reason is Reason.MALFORMED


async def test_a_flood_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_BODY", 10_000)

    async def flood(stream: trio.abc.Stream) -> None:
        await read_request(stream)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await stream.send_all(b"1000\r\n" + b"x" * 4096 + b"\r\n")

    async with served(flood) as port, client(port) as rpc:
        with pytest.raises(RemoteFault) as caught:
            await rpc.call("eth_x")
        assert caught.value.reason is Reason.MALFORMED


async def test_nobody_there() -> None:
    async with client(9) as rpc:
        with pytest.raises(RemoteFault) as caught:
            await rpc.call("eth_x")
        assert caught.value.reason is Reason.ENDPOINT_DOWN
    for url in ("ftp://x", "http://", "x"):
        with pytest.raises(ConfigError):
            HttpRpc(url)
    with pytest.raises(ConfigError):
        MuxRpc("ftp://x")
    assert "secret" not in HttpRpc("https://user:secret@host/key").name


def self_signed(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return (server, client) contexts for a certificate of localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, secret = folder / "c.pem", folder / "k.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(chain, secret)
    return server, ssl.create_default_context(cafile=str(chain))


async def test_https_checks_the_certificate(tmp_path: Path) -> None:
    server, trusted = self_signed(tmp_path)
    async with served(echo, server) as port:
        rpc = HttpRpc(f"https://localhost:{port}", trusted)
        assert [await rpc.call("eth_x") for _ in range(3)] == ["eth_x"] * 3
        await rpc.aclose()
        for wrong in (
            HttpRpc(f"https://localhost:{port}"),
            HttpRpc(f"https://127.0.0.1:{port}", trusted),
        ):
            with pytest.raises(RemoteFault) as caught:
                await wrong.call("eth_x")
            assert caught.value.reason is Reason.ENDPOINT_DOWN


async def test_wss(tmp_path: Path) -> None:
    server, trusted = self_signed(tmp_path)

    async def talk(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        while True:
            try:
                message = json.loads(await connection.get_message())
            except trio_websocket.ConnectionClosed:
                return
            await connection.send_message(answer(message).decode())

    async with trio.open_nursery() as nursery:
        serve = partial(trio_websocket.serve_websocket, talk, "127.0.0.1", 0, server)
        listening = await nursery.start(serve)
        rpc = MuxRpc(f"wss://localhost:{listening.port}", trusted)
        nursery.start_soon(rpc.run)
        with trio.fail_after(10):
            assert await rpc.call("eth_x") == "eth_x"
            assert await rpc.batch([("a", []), ("b", [])]) == ["a", "b"]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def unix_served(path: Path, handler: Handler) -> AsyncIterator[MuxRpc]:
    socket = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await socket.bind(str(path))
    socket.listen()
    listener = trio.SocketListener(socket)

    async def guarded(stream: trio.abc.Stream) -> None:
        try:
            await handler(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, guarded, [listener])
        rpc = MuxRpc(f"ipc://{path}")
        nursery.start_soon(rpc.run)
        with trio.fail_after(10):
            yield rpc
        nursery.cancel_scope.cancel()


async def receive_lines(stream: trio.abc.Stream, count: int) -> list[Any]:
    raw = b""
    while raw.count(b"\n") < count:
        chunk = await stream.receive_some()
        if not chunk:
            raise trio.BrokenResourceError
        raw += bytes(chunk)
    return [json.loads(line) for line in raw.splitlines()]


async def test_ipc_frames_split_anywhere_and_come_in_any_order(tmp_path: Path) -> None:
    async def server(stream: trio.abc.Stream) -> None:
        requests = await receive_lines(stream, 3)
        out = b"".join(answer(request) + b"\n" for request in reversed(requests))
        for at in range(0, len(out), 5):
            await stream.send_all(out[at : at + 5])
        await trio.sleep_forever()

    found: dict[str, Any] = {}
    async with unix_served(tmp_path / "s", server) as rpc:

        async def ask(name: str) -> None:
            found[name] = await rpc.call(name)

        async with trio.open_nursery() as nursery:
            for name in ("a", "b", "c"):
                nursery.start_soon(ask, name)
    assert found == {"a": "a", "b": "b", "c": "c"}


async def test_ipc_reconnects_and_fails_what_was_open(tmp_path: Path) -> None:
    visits = 0

    async def server(stream: trio.abc.Stream) -> None:
        nonlocal visits
        visits += 1
        (request,) = await receive_lines(stream, 1)
        if visits == 2:
            await stream.send_all(b"garbage\n")
        if visits == 3:
            await stream.send_all(answer(request) + b"\n")
            await trio.sleep_forever()

    async with unix_served(tmp_path / "s", server) as rpc:
        for _ in range(2):
            with pytest.raises(RemoteFault) as caught:
                await rpc.call("eth_x")
            assert caught.value.reason is Reason.ENDPOINT_DOWN
        assert await rpc.call("eth_x") == "eth_x"


@pytest.mark.parametrize("number", [[], {}, None, "1", 1.5])
async def test_an_answer_with_an_impossible_number_is_nobodys(tmp_path: Path, number: Any) -> None:
    async def server(stream: trio.abc.Stream) -> None:
        while True:
            for request in await receive_lines(stream, 1):
                strange = json.dumps({"jsonrpc": "2.0", "id": number, "result": 0}).encode()
                batch = b"[" + strange + b"]"
                await stream.send_all(strange + b"\n" + batch + b"\n" + answer(request) + b"\n")

    async with unix_served(tmp_path / "s", server) as rpc:
        for _ in range(2):
            assert await rpc.call("eth_x") == "eth_x"


@pytest.mark.parametrize("key", [[], {}, 7, None])
async def test_a_subscription_without_a_name_is_none(tmp_path: Path, key: Any) -> None:
    async def server(stream: trio.abc.Stream) -> None:
        (request,) = await receive_lines(stream, 1)
        await stream.send_all(json.dumps({"id": request["id"], "result": key}).encode() + b"\n")
        await trio.sleep_forever()

    async with unix_served(tmp_path / "s", server) as rpc:
        await rpc.follow_heads(lambda: None)


async def test_a_notification_before_its_reply_is_not_lost(tmp_path: Path) -> None:
    async def server(stream: trio.abc.Stream) -> None:
        (request,) = await receive_lines(stream, 1)
        head = {"method": "eth_subscription", "params": {"subscription": "0x1", "result": {}}}
        reply = {"jsonrpc": "2.0", "id": request["id"], "result": "0x1"}
        odd = {"method": "eth_subscription", "params": 5}
        for message in (head, odd, reply):
            await stream.send_all(json.dumps(message).encode() + b"\n")
        await trio.sleep_forever()

    async with unix_served(tmp_path / "s", server) as rpc, trio.open_nursery() as nursery:
        poked = trio.Event()
        nursery.start_soon(rpc.follow_heads, poked.set)
        await poked.wait()
        nursery.cancel_scope.cancel()


async def test_an_endpoint_without_subscriptions_is_no_error(tmp_path: Path) -> None:
    async def server(stream: trio.abc.Stream) -> None:
        (request,) = await receive_lines(stream, 1)
        refusal = {"id": request["id"], "error": {"code": -32601, "message": "no such method"}}
        await stream.send_all(json.dumps(refusal).encode() + b"\n")
        await trio.sleep_forever()

    async with unix_served(tmp_path / "s", server) as rpc:
        await rpc.follow_heads(lambda: None)


def test_an_rpc_error_says_who_and_what() -> None:
    error = RpcError("http://x:1", -32000, "execution reverted: no", "0x")
    assert error.reason is Reason.REVERTED
    assert str(error) == "http://x:1: reverted: -32000: execution reverted: no"
