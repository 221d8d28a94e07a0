"""JSON-RPC 2.0 frames: what every transport shares.

    call ──▶ {"id": 7, "method", "params"} ──▶ transport ──▶ {"id": 7, "result" | "error"}

A transport that does not answer raises RemoteFault(ENDPOINT_DOWN); an answer that is no JSON-RPC
raises RemoteFault(MALFORMED); an error the endpoint reports raises `RpcError`.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from keeper.errors import RemoteFault
from keeper.reasons import Reason

Request = tuple[str, Sequence[Any]]

MAX_BODY = 64 << 20
"""Bytes of one answer: a full block of logs is a few MiB; more is an attack on memory."""

_REVERTED = 3
"""The JSON-RPC code geth, reth and anvil give an execution that reverted."""


class RpcError(RemoteFault):
    """The endpoint answered with an error object."""

    def __init__(self, endpoint: str, code: int, message: str, data: Any = None) -> None:
        reverted = code == _REVERTED or "revert" in message.lower()
        reason = Reason.REVERTED if reverted else Reason.RPC_ERROR
        super().__init__(endpoint, reason, f"{code}: {message}")
        self.code, self.message, self.data = code, message, data


class Rpc(Protocol):
    """One endpoint."""

    @property
    def name(self) -> str:
        """The address without credentials: fit for a log line."""
        ...

    async def run(self) -> None:
        """Keep the connection alive where the transport has one; otherwise return at once."""
        ...

    async def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        """Return the result of one call."""
        ...

    async def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Return results in order; a failed one is its `RpcError`, as a value."""
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


class Subscriber(Protocol):
    """An endpoint that can push: a mere hint that something happened."""

    async def follow_heads(self, poke: "Poke") -> None:
        """Call `poke` for every new head until the connection ends."""
        ...


class Poke(Protocol):
    """Wakes whoever polls."""

    def __call__(self) -> None:
        """Wake it."""
        ...


def down(endpoint: str, why: str) -> RemoteFault:
    """Return the fault of an endpoint that does not answer."""
    return RemoteFault(endpoint, Reason.ENDPOINT_DOWN, why)


def malformed(endpoint: str, why: str) -> RemoteFault:
    """Return the fault of an endpoint that answers nonsense."""
    return RemoteFault(endpoint, Reason.MALFORMED, why)


def frame(number: int, method: str, params: Sequence[Any]) -> dict[str, Any]:
    """Return one request object."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


encode = msgspec.json.encode


def decode(endpoint: str, raw: bytes | str) -> Any:
    """Return the JSON value.

    Raises:
        RemoteFault: it is no JSON, or nested so deeply that it can only be an attack.
    """
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise malformed(endpoint, f"no JSON: {error}") from error


def outcome(endpoint: str, answer: Any) -> Any:
    """Return the result of an answer, or its RpcError as a value.

    Raises:
        RemoteFault: it is no JSON-RPC answer.
    """
    if not isinstance(answer, dict):
        raise malformed(endpoint, "the answer is no object")
    error = answer.get("error")
    if error is not None:
        if not isinstance(error, dict):
            raise malformed(endpoint, "the error is no object")
        code, message = error.get("code"), error.get("message")
        return RpcError(
            endpoint, code if isinstance(code, int) else 0, str(message)[:500], error.get("data")
        )
    if "result" not in answer:
        raise malformed(endpoint, "neither result nor error")
    return answer["result"]


def result(endpoint: str, answer: Any) -> Any:
    """Return the result of an answer.

    Raises:
        RpcError: the endpoint reports an error.
        RemoteFault: it is no JSON-RPC answer.
    """
    found = outcome(endpoint, answer)
    if isinstance(found, RpcError):
        raise found
    return found


def outcomes(endpoint: str, answers: Any, first: int, count: int) -> list[Any]:
    """Return a batch's outcomes in order of their ids `first`..`first + count − 1`.

    Raises:
        RemoteFault: answers are missing, doubled or malformed.
    """
    if isinstance(answers, dict):
        result(endpoint, answers)
    if not isinstance(answers, list) or len(answers) != count:
        raise malformed(endpoint, "the batch's answers do not match its requests")
    found: dict[int, Any] = {}
    for answer in answers:
        value = outcome(endpoint, answer)
        number = answer.get("id")
        if not isinstance(number, int) or number in found:
            raise malformed(endpoint, f"unexpected answer id {number!r}")
        found[number] = value
    try:
        return [found[first + index] for index in range(count)]
    except KeyError as error:
        raise malformed(endpoint, f"no answer with id {error}") from error


def retryable(method: str) -> bool:
    """Return whether asking again cannot do it twice (a signed transaction counts by its hash)."""
    return method.startswith(("eth_", "net_", "web3_", "debug_trace"))
