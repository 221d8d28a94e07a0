"""Logs proven by the receipts root of a real block with transactions of every type."""

import copy
from pathlib import Path
from typing import Any

import pytest
import trio

from keeper.chain import codec, mpt
from keeper.chain.port import Header
from keeper.chain.receipts import proven_logs
from tests.support.chains import ECHO, evm_knobs

pytestmark = pytest.mark.anvil


async def test_no_endpoint_can_change_invent_or_hide_a_log(anvil_binary: Path) -> None:
    async with evm_knobs(anvil_binary) as at:
        with trio.fail_after(20):
            rpc = at.anvil.rpc
            senders = (await rpc.call("eth_accounts"))[:3]
            priced = {"gasPrice": hex(3 * 10**9)}
            kinds: list[dict[str, Any]] = [priced, {**priced, "accessList": []}, {}]
            for index in range(42):
                sent: dict[str, Any] = {
                    "from": senders[index % 3],
                    "to": codec.to_hex(ECHO),
                    "data": "0x" if index == 7 else codec.to_hex(bytes([index]) * (5 + index)),
                    "gas": hex(100_000),
                    "nonce": hex(index // 3),
                    **kinds[index % 3],
                }
                await rpc.call("eth_sendTransaction", [sent])
            await at.mine()
            header = await at.chain.head()
            found = await rpc.call("eth_getBlockReceipts", [codec.to_hex(header.ref.hash)])
        assert {entry["type"] for entry in found} == {"0x0", "0x1", "0x2"}
        logs = proven_logs(header, found)
        assert len(logs) == 41, "one transaction reverted"
        for forge in (_change, _invent, _hide, _move, _revive, _renumber):
            forged = copy.deepcopy(found)
            forge(forged)
            with pytest.raises(mpt.BadProof):
                proven_logs(header, forged)
        _refuses_nonsense(header, found)


def _refuses_nonsense(header: Header, found: list[dict[str, Any]]) -> None:
    bad: list[Any] = [None, {}, [{}], [None], [{**found[0], "logs": 5}]]
    for nonsense in bad:
        with pytest.raises(ValueError, match=r"."):
            proven_logs(header, nonsense)


def _change(found: list[dict[str, Any]]) -> None:
    found[3]["logs"][0]["data"] = "0x" + "ff" * 8


def _invent(found: list[dict[str, Any]]) -> None:
    found[3]["logs"].append(found[3]["logs"][0])


def _hide(found: list[dict[str, Any]]) -> None:
    found[3]["logs"].clear()


def _move(found: list[dict[str, Any]]) -> None:
    found[3]["logs"][0]["blockHash"] = "0x" + "11" * 32


def _revive(found: list[dict[str, Any]]) -> None:
    next(entry for entry in found if entry["status"] == "0x0")["status"] = "0x1"


def _renumber(found: list[dict[str, Any]]) -> None:
    found[3]["logs"][0]["logIndex"] = "0x77"
