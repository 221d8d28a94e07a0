"""Slots of a real Vyper contract, and an index checked against the state root."""

from pathlib import Path

import pytest
import trio
from eth_abi.abi import encode
from vyper.compiler import compile_code

from keeper.chain import codec
from keeper.chain.storage import Mismatch, audit, solidity_slot, vyper_slot
from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.reasons import Reason
from tests.support.chains import evm_knobs

pytestmark = pytest.mark.anvil

SOURCE = """
count: public(uint256)
balances: HashMap[bytes32, HashMap[address, uint256]]

@external
def put(account: bytes32, token: address, amount: uint256):
    self.count += 1
    self.balances[account][token] = amount
"""
TOKEN = b"\x70" * 20


async def test_an_index_is_audited_by_proofs(anvil_binary: Path) -> None:
    code = compile_code(SOURCE, output_formats=["bytecode"])["bytecode"]
    async with evm_knobs(anvil_binary) as at:
        with trio.fail_after(20):
            rpc = at.anvil.rpc
            sender = (await rpc.call("eth_accounts"))[0]
            sent = await rpc.call("eth_sendTransaction", [{"from": sender, "data": code}])
            await at.mine()
            made = await rpc.call("eth_getTransactionReceipt", [sent])
            contract = codec.data(made["contractAddress"])
            expected = {0: 6}
            for index, amount in enumerate((1000, 2000, 3000, 4000, 5000, 0), 1):
                account = bytes([min(index, 5)]) * 32  # the last one takes a balance to zero again
                data = keccak(b"put(bytes32,address,uint256)")[:4] + encode(
                    ("bytes32", "address", "uint256"), (account, TOKEN, amount)
                )
                call = {"from": sender, "to": made["contractAddress"], "data": codec.to_hex(data)}
                await rpc.call("eth_sendTransaction", [{**call, "nonce": hex(index)}])
                expected[vyper_slot(1, account, TOKEN)] = amount
            await at.mine()
            header = await at.chain.head()
            assert await audit(at.chain, contract, expected, header) == ()
            absent = vyper_slot(1, b"\x09" * 32, TOKEN)
            lied = {**expected, 0: 7, absent: 1}
            assert set(await audit(at.chain, contract, lied, header)) == {
                Mismatch(0, 7, 6),
                Mismatch(absent, 1, 0),
            }
            slot = f"0x{vyper_slot(1, bytes([1]) * 32, TOKEN):064x}"
            forged = "0x" + "00" * 31 + "07"
            await rpc.call("anvil_setStorageAt", [made["contractAddress"], slot, forged])
            with pytest.raises(RemoteFault) as caught:
                await audit(at.chain, contract, expected, header)
            assert caught.value.reason is Reason.BAD_PROOF


def test_solidity_slots() -> None:
    """balanceOf of a holder in the mapping at slot 3, as published for USDT-like tokens."""
    holder = bytes.fromhex("11" * 20)
    inner = keccak(holder.rjust(32, b"\0") + (3).to_bytes(32, "big"))
    assert solidity_slot(3, holder) == int.from_bytes(inner, "big")
    outer = keccak((7).to_bytes(32, "big") + inner)
    assert solidity_slot(3, holder, 7) == int.from_bytes(outer, "big")
