"""A drill over a whole network: every position of a copy closed through a certified award."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio

from keeper.clear.transfer import TransferRule
from keeper.compete.award import AwardRule
from keeper.drill.copies import copies_of, feed_code
from keeper.drill.council import Council
from keeper.drill.network import drill, newest_of
from keeper.hashing import keccak
from keeper.network import NetworkSpec
from keeper.parameters import Parameters
from keeper.snapshot.archive import Archive
from keeper.snapshot.derive import Setting, Snapshot, genesis
from keeper.store import Store
from keeper.units import PPM, ChainId
from policies.child import PolicySpec
from tests.support.anvil import CACHE, anvil_binary, chain_of
from tests.support.policy_network import (
    HUB,
    PRICE,
    VENUE,
    deploy,
    open_positions,
)

pytestmark = [pytest.mark.anvil]
__all__ = ["anvil_binary"]
PEOPLE = 50


async def test_every_position_of_a_copied_network_is_closed(anvil_binary: Path) -> None:
    async with (
        chain_of(anvil_binary, HUB, accounts=PEOPLE + 10) as hub,
        chain_of(anvil_binary, VENUE, accounts=PEOPLE + 10) as venue,
    ):
        anvils = {HUB: hub, VENUE: venue}
        spec = await deploy(anvils)
        accounts = await open_positions(spec, anvils, PEOPLE)
        before = [await one.rpc.call("eth_blockNumber") for one in anvils.values()]
        urls = {chain: one.url for chain, one in anvils.items()}
        policy = PolicySpec("liquidation", "policies.liquidation:Liquidation", budget_ms=5_000)
        with trio.fail_after(200):
            report = await drill(spec, urls, policy, CACHE)
        assert report.accounts == PEOPLE
        assert report.complete, [line for line in report.lines if not line.liquidated]
        assert {line.account for line in report.lines} == {"0x" + one.hex() for one in accounts}
        for line in report.lines:
            assert line.closes > 0
            assert line.health_before_ppm < PPM, line
            assert line.health_after_ppm >= PPM or line.health_after_ppm == 0, line
        totals = [sum(x.realised for x in report.lines), sum(x.predicted for x in report.lines)]
        assert abs(totals[0] - totals[1]) * 50 <= totals[1], totals
        assert json.loads(json.dumps(report.as_json()))["complete"]
        after = [await one.rpc.call("eth_blockNumber") for one in anvils.values()]
        assert before == after, "what was copied is untouched"


async def kept(spec: NetworkSpec, urls: Mapping[ChainId, str], file: Path) -> Snapshot:
    """Return a node's newest snapshot, as its database gives it back."""
    assert newest_of(file) is None
    rules = (TransferRule(), AwardRule())
    parameters = Parameters.decode(spec.parameters)
    setting = Setting(spec, parameters, b"d" * 32, 1, b"c" * 32, (b"m" * 20,), 0, 1, rules)
    async with copies_of(spec, urls, CACHE) as copies:
        council = Council(copies, setting, genesis(setting))
        made = [await council.derive() for _ in range(3)][-1]
    store = Store(file)
    Archive(store).add(b"d" * 32, made, 1)
    store.close()
    found = newest_of(file)
    assert found is not None
    assert (found.header, found.book) == (made.header, made.book)
    assert found.header.view == 3
    return found


async def test_a_policy_that_skips_leaves_everybody_and_the_report_says_so(
    anvil_binary: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("keeper.drill.network.DOWN", 12)
    monkeypatch.setattr("keeper.drill.network.UP", 1)
    monkeypatch.setattr("keeper.drill.network.VIEWS", 2)
    async with chain_of(anvil_binary, HUB) as hub, chain_of(anvil_binary, VENUE) as venue:
        anvils = {HUB: hub, VENUE: venue}
        spec = await deploy(anvils)
        await open_positions(spec, anvils, 2)
        urls = {chain: one.url for chain, one in anvils.items()}
        parent = await kept(spec, urls, tmp_path / "keeper.db")
        observer = PolicySpec("x", "policies.observer:Observer")
        report = await drill(spec, urls, observer, CACHE, parent)
        assert not report.complete
        assert report.liquidated == 0
        assert any("observing" in line.why for line in report.lines)


async def test_a_moved_feed_answers_price_decimals_and_now(anvil_binary: Path) -> None:
    async with chain_of(anvil_binary, HUB) as anvil:
        where = "0x" + "77" * 20
        await anvil.rpc.call("anvil_setCode", [where, feed_code(PRICE)])
        await anvil.mine()

        async def ask(name: str) -> bytes:
            call = {"to": where, "data": "0x" + keccak(name.encode())[:4].hex()}
            answer = await anvil.rpc.call("eth_call", [call, "latest"])
            return bytes.fromhex(answer[2:])

        assert int.from_bytes(await ask("decimals()"), "big") == 8
        words = await ask("latestRoundData()")
        numbers = [int.from_bytes(words[at : at + 32], "big") for at in range(0, 160, 32)]
        block = await anvil.rpc.call("eth_getBlockByNumber", ["latest", False])
        now = int(block["timestamp"], 16)
        assert numbers[:2] == [1, PRICE]
        assert numbers[2] == numbers[3] >= now
        assert numbers[4] == 1
