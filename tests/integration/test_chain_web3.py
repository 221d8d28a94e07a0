"""web3 on trio: contract calls, batches, transactions, receipts, over one endpoint or several."""

from pathlib import Path
from typing import Any

import pytest
import trio
from eth_typing import ChecksumAddress
from web3 import Web3
from web3.exceptions import ContractLogicError, TimeExhausted

from keeper.chain.endpoints import Endpoints
from keeper.chain.http import HttpRpc
from keeper.chain.trio_web3 import trio_web3
from keeper.errors import RemoteFault
from tests.support.chains import ECHO, evm_knobs

pytestmark = pytest.mark.anvil

ABI: list[dict[str, Any]] = [
    {
        "name": "f",
        "type": "function",
        "stateMutability": "view",
        "inputs": [{"name": "a", "type": "uint224"}],
        "outputs": [{"name": "", "type": "bytes4"}],
    }
]


async def test_web3_works_on_trio(anvil_binary: Path) -> None:
    async with evm_knobs(anvil_binary) as at:
        with trio.fail_after(10):
            dead = HttpRpc("http://127.0.0.1:9")
            endpoints = Endpoints([dead, at.anvil.rpc], quorum=1)
            for rpc in (at.anvil.rpc, endpoints):
                w3 = trio_web3(rpc)
                assert await w3.is_connected()
                assert await w3.eth.block_number == 2
                to: ChecksumAddress = Web3.to_checksum_address(ECHO)
                sender = (await w3.eth.accounts)[0]
                with pytest.raises(ContractLogicError):
                    await w3.eth.call({"to": to})
                async with w3.batch_requests() as batch:
                    batch.add(w3.eth.get_balance(sender))
                    batch.add(w3.eth.get_block(1))
                    found: Any = await batch.async_execute()
                balance, block = found
                assert balance > 0
                assert block["number"] == 1
                sent = await w3.eth.send_transaction({"from": sender, "to": to, "data": b"x" * 32})
                with pytest.raises(TimeExhausted):
                    await w3.eth.wait_for_transaction_receipt(sent, timeout=0.05, poll_latency=0.01)
                await at.mine()
                receipt = await w3.eth.wait_for_transaction_receipt(sent, poll_latency=0.01)
                assert receipt["status"] == 1
                await at.anvil.rpc.call("anvil_rollback", [1])
            with pytest.raises(RemoteFault):
                await trio_web3(dead).eth.block_number
