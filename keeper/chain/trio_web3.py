"""web3.py 8 on trio, for plug-in authors and tools; keepers themselves use the chain port.

    w3 = trio_web3(endpoint)          an `Rpc`, or the `Endpoints` of a chain
    await w3.eth.contract(address, abi=abi).functions.f(7).call()

AsyncWeb3 needs asyncio in three places, and each is overridden here: gathering a batch, waiting for
a receipt, and the HTTP provider. CCIP-read is off: it fetches what a contract tells it to.
"""

from collections.abc import Sequence
from typing import Any, cast

import trio
from eth_typing import HexStr
from hexbytes import HexBytes
from web3 import AsyncWeb3
from web3._utils.validation import raise_error_for_batch_response
from web3.eth import AsyncEth
from web3.exceptions import TimeExhausted, TransactionIndexingInProgress, TransactionNotFound
from web3.main import get_async_default_modules
from web3.manager import RequestManager
from web3.providers.async_base import AsyncJSONBaseProvider
from web3.types import RPCEndpoint, RPCResponse, TxReceipt

from keeper.chain.endpoints import Endpoints
from keeper.chain.rpc import Rpc, RpcError


def _response(found: Any) -> RPCResponse:
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": 1}
    if isinstance(found, RpcError):
        answer["error"] = {"code": found.code, "message": found.message, "data": found.data}
    else:
        answer["result"] = found
    return cast(RPCResponse, answer)


class TrioProvider(AsyncJSONBaseProvider):
    """web3's provider over one of our endpoints, or several with failover."""

    global_ccip_read_enabled = False

    def __init__(self, rpc: Rpc | Endpoints) -> None:
        super().__init__()
        self._rpc = rpc

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        """Return the answer; an error is part of it."""
        try:
            return _response(await self._rpc.call(method, params))
        except RpcError as error:
            return _response(error)

    async def make_batch_request(
        self, requests: list[tuple[RPCEndpoint, Any]]
    ) -> list[RPCResponse] | RPCResponse:
        """Return the answers in order."""
        return [_response(found) for found in await self._rpc.batch(requests)]

    async def is_connected(self, show_traceback: bool = False) -> bool:
        """Return whether somebody answers."""
        return "result" in await self.make_request(RPCEndpoint("web3_clientVersion"), [])


class TrioRequestManager(RequestManager):
    """Batches without asyncio.gather: while batching, the coroutines do no I/O."""

    async def _async_make_batch_request(self, requests_info: Sequence[Any]) -> list[Any]:
        provider = cast(TrioProvider, self.provider)
        request = await provider.batch_request_func(self.w3, self.middleware_onion)  # type: ignore[arg-type]  # web3 types the sync class
        unpacked = [await info for info in requests_info]
        response = await request([(method, params) for (method, params), _ in unpacked])
        if not isinstance(response, list):
            raise_error_for_batch_response(response, self.logger)
            return []
        pairs = zip(unpacked, response, strict=True)
        return [self._format_batched_response(info, answer) for info, answer in pairs]


class TrioEth(AsyncEth):
    """The eth module, whose wait for a receipt sleeps on trio."""

    async def wait_for_transaction_receipt(
        self,
        transaction_hash: HexBytes | bytes | HexStr,
        timeout: float | None = 120,
        poll_latency: float = 0.1,
    ) -> TxReceipt:
        """Return the receipt once there is one; web3's own signature.

        Raises:
            TimeExhausted: not mined in time.
        """
        limit = float("inf") if timeout is None else timeout
        with trio.move_on_after(limit):
            while True:
                try:
                    found: TxReceipt | None = await self._transaction_receipt(transaction_hash)  # type: ignore[arg-type]  # web3 narrows the union
                    if found is not None:
                        return found
                except (TransactionNotFound, TransactionIndexingInProgress):
                    found = None
                await trio.sleep(poll_latency)
        raise TimeExhausted(f"{transaction_hash!r} is not mined after {timeout} s")


class TrioWeb3(AsyncWeb3[TrioProvider]):
    """AsyncWeb3 that runs under trio."""

    RequestManager = TrioRequestManager


def trio_web3(rpc: Rpc | Endpoints) -> TrioWeb3:
    """Return web3 over an endpoint."""
    modules = get_async_default_modules()
    modules["eth"] = TrioEth
    return TrioWeb3(TrioProvider(rpc), modules=modules)
