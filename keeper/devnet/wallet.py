"""A funded key on one chain: sends many transactions at once, waits for their receipts.

    calls ─▶ nonces in order ─▶ signed ─▶ one batch ─▶ receipts, polled once a quarter block

For deploying and for a scenario's traders. A keeper's own transactions go through keeper/execute,
which survives crashes; this does not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import rlp
import trio
from eth_abi.abi import decode
from eth_account import Account
from eth_utils.address import to_checksum_address

from keeper.chain.http import HttpRpc
from keeper.chain.rpc import RpcError
from keeper.errors import LocalError, RemoteFault
from keeper.hashing import keccak
from keeper.keys import address_of
from keeper.units import ChainId

POLL_S = 0.1
RECEIPT_S = 30.0
"""A local chain that mines nothing for so long is dead."""
GAS_LIMIT = 6_000_000
_ERROR = keccak(b"Error(string)")[:4]
"""How a contract's revert text begins."""


@dataclass(frozen=True, slots=True)
class Sent:
    """One mined transaction."""

    transaction: str
    succeeded: bool
    gas_used: int
    block: int
    contract: bytes | None


@dataclass(frozen=True, slots=True)
class Send:
    """One transaction wanted: recipient (None deploys), data, value, gas limit."""

    to: bytes | None
    data: bytes = b""
    value: int = 0
    gas: int = GAS_LIMIT


def created(deployer: bytes, nonce: int) -> bytes:
    """Return the address of the contract that a deployer's transaction `nonce` creates."""
    return keccak(rlp.encode([deployer, nonce]))[12:]


class Wallet:
    """One key on one chain; not shared between tasks."""

    def __init__(self, rpc: HttpRpc, chain: ChainId, secret: bytes) -> None:
        self.rpc, self.chain, self._secret = rpc, chain, secret
        self.address = address_of(secret)

    async def nonce(self) -> int:
        """Return the next nonce, pending transactions counted."""
        answer = await self.rpc.call(
            "eth_getTransactionCount", ["0x" + self.address.hex(), "pending"]
        )
        return int(answer, 16)

    async def sign(self, sends: Sequence[Send]) -> list[str]:
        """Return raw transactions in nonce order."""
        first = await self.nonce()
        price = int(await self.rpc.call("eth_gasPrice"), 16)
        return [self._sign(first + at, send, price) for at, send in enumerate(sends)]

    def _sign(self, nonce: int, send: Send, price: int) -> str:
        fields: dict[str, Any] = {
            "chainId": self.chain,
            "nonce": nonce,
            "gas": send.gas,
            "maxFeePerGas": 2 * price + 10**9,
            "maxPriorityFeePerGas": 10**9,
            "value": send.value,
            "data": "0x" + send.data.hex(),
            "type": 2,
        }
        if send.to is not None:
            fields["to"] = to_checksum_address(send.to)
        return "0x" + bytes(Account.sign_transaction(fields, self._secret).raw_transaction).hex()

    async def send(self, *sends: Send) -> list[Sent]:
        """Send and wait until all are mined.

        Raises:
            LocalError: one was refused, reverted, or is not mined in time.
        """
        return await broadcast(self.rpc, await self.sign(sends))


async def broadcast(rpc: HttpRpc, raws: Sequence[str], *, must_succeed: bool = True) -> list[Sent]:
    """Send raw transactions in one batch and wait for every receipt.

    Raises:
        LocalError: one was refused, is not mined in time, or reverted (if `must_succeed`).
    """
    hashes = await rpc.batch([("eth_sendRawTransaction", [raw]) for raw in raws])
    for answer in hashes:
        if isinstance(answer, RpcError):
            raise LocalError(f"a transaction was refused: {answer}", where=rpc.name)
    mined: dict[str, Sent] = {}
    with trio.move_on_after(RECEIPT_S):
        while len(mined) < len(hashes):
            missing = [each for each in hashes if each not in mined]
            receipts = await rpc.batch([("eth_getTransactionReceipt", [each]) for each in missing])
            for each, receipt in zip(missing, receipts, strict=True):
                if isinstance(receipt, dict):
                    mined[each] = _sent(each, receipt)
            if len(mined) < len(hashes):
                await trio.sleep(POLL_S)
    if len(mined) < len(hashes):
        raise LocalError(
            f"{len(hashes) - len(mined)} transactions were not mined in {RECEIPT_S:g} s",
            where=rpc.name,
            remedy="is the chain running?",
        )
    for sent in mined.values():
        if must_succeed and not sent.succeeded:
            why = await revert_reason(rpc, sent.transaction)
            raise LocalError(f"transaction {sent.transaction} reverted: {why}", where=rpc.name)
    return [mined[each] for each in hashes]


async def revert_reason(rpc: HttpRpc, transaction: str) -> str:
    """Return why a mined transaction failed, in the contract's words where it gives any."""
    try:
        trace = await rpc.call("debug_traceTransaction", [transaction, {"tracer": "callTracer"}])
        output = bytes.fromhex((trace.get("output") or "0x")[2:])
    except (RemoteFault, ValueError, AttributeError) as error:
        return f"cannot be traced: {error}"
    if output[:4] == _ERROR:
        (text,) = decode(("string",), output[4:])
        return str(text)
    return str(trace.get("error") or f"0x{output.hex()}")


def _sent(transaction: str, receipt: dict[str, Any]) -> Sent:
    contract = receipt.get("contractAddress")
    return Sent(
        transaction,
        int(receipt["status"], 16) == 1,
        int(receipt["gasUsed"], 16),
        int(receipt["blockNumber"], 16),
        bytes.fromhex(contract[2:]) if contract else None,
    )
