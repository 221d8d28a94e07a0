"""The node's trader on snapshots of real chains: what it bids, reveals, wins, and writes down."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from keeper.clear.transfer import TransferRule
from keeper.compete.award import AwardRule
from keeper.compete.bids import decode_commit, decode_reveal
from keeper.compete.hearing import COMMIT, REVEAL
from keeper.compete.state import AwardState
from keeper.drill.copies import Copies, copies_of
from keeper.drill.council import Council
from keeper.execute.intent import Mode
from keeper.hashing import keccak
from keeper.keys import address_of
from keeper.metrics import Metrics
from keeper.node.parts import Parts
from keeper.node.trader import Trader
from keeper.parameters import Parameters
from keeper.snapshot.derive import Setting, genesis
from keeper.store import Store
from p2p.port import Topic
from policies.child import PolicySpec
from policies.record import Decided, Entry, Viewed
from tests.support.anvil import CACHE, anvil_binary, chain_of
from tests.support.policy_network import ETH, HUB, PRICE, VENUE, deploy, open_positions

pytestmark = [pytest.mark.anvil]
__all__ = ["anvil_binary"]


@dataclass
class Road:
    """What a keeper says to the others, and what it writes down."""

    frames: list[bytes] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    revealed: list[bytes] = field(default_factory=list)

    def publish(self, topic: Topic, frame: bytes) -> None:
        assert topic is Topic.BIDS
        self.frames.append(frame)

    def put(self, entry: Entry) -> None:
        self.entries.append(entry)

    def on_reveal(self, body: bytes) -> None:
        self.revealed.append(body)

    def said(self, kind: bytes) -> list[bytes]:
        return [frame[1:] for frame in self.frames if frame[:1] == kind]


def parts_of(copies: Copies, secret: bytes, road: Road, home: Path, mode: Mode) -> Parts:
    network = copies.network
    found = SimpleNamespace(
        home=home,
        network=network,
        parameters=Parameters.decode(network.parameters),
        keys=SimpleNamespace(operator=secret, address=address_of(secret)),
        store=Store(":memory:"),
        metrics=Metrics(),
        p2p=road,
        recorder=road,
        watchers={chain: copy.watcher for chain, copy in copies.by_chain.items()},
        executor=SimpleNamespace(mode=mode),
        random_bytes=lambda size: b"\x07" * size,
    )
    return cast(Parts, found)


async def until(what: Callable[[], Any]) -> None:
    """Return once it holds."""
    with trio.fail_after(20):
        while True:
            if what():
                return
            await trio.sleep(0.02)


async def ill(council: Council) -> AwardState:
    """Let the price fall until somebody has to be liquidated."""
    price = PRICE
    while True:
        price = price * 97 // 100
        await council.copies.publish({ETH: price})
        state = await council.view()
        if state.tasks:
            return state


@pytest.mark.parametrize("mode", [Mode.LIVE, Mode.SHADOW])
async def test_a_trader_bids_what_a_task_is_worth_and_wins_it(
    anvil_binary: Path, tmp_path: Path, mode: Mode
) -> None:
    async with chain_of(anvil_binary, HUB) as hub, chain_of(anvil_binary, VENUE) as venue:
        anvils = {HUB: hub, VENUE: venue}
        spec, secret = await deploy(anvils), keccak(b"trader")
        await open_positions(spec, anvils, 3)
        urls = {chain: one.url for chain, one in anvils.items()}
        async with copies_of(spec, urls, CACHE) as copies:
            await copies.hire(secret)
            parameters = Parameters.decode(spec.parameters)
            rules = (TransferRule(), AwardRule())
            me = address_of(secret)
            setting = Setting(
                spec, parameters, b"d" * 32, 1, b"c" * 32, (me,), faults=0, quorum=1, rules=rules
            )
            council, road = Council(copies, setting, genesis(setting)), Road()
            states: list[AwardState] = []
            trader = Trader(
                parts_of(copies, secret, road, tmp_path, mode),
                setting,
                PolicySpec("liquidation", "policies.liquidation:Liquidation", budget_ms=5_000),
                lambda body: body,
                states.append,
                dict.fromkeys(copies.by_chain, ETH),
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trader.run)
                await ill(council)
                await until(lambda: len(trader.costs.gas(council.snapshot)) == 2)
                await until(lambda: trader.costs.bonuses)
                trader.on_final(council.snapshot)
                await until(lambda: any(isinstance(one, Decided) for one in road.entries))
                if mode is Mode.SHADOW:
                    assert road.frames == [], "a shadow tells nobody"
                else:
                    await wins(council, trader, road, me)
                nursery.cancel_scope.cancel()
        (shown,) = [one.view for one in road.entries if isinstance(one, Viewed)][:1]
        assert {one.chain for one in shown.gas} == {HUB, VENUE}
        assert all(one.coin_price > 0 and one.price_wei > 0 for one in shown.gas)
        paid = parameters.liquidation.bonus_max_ppm
        assert all(one.terms[0].bonus_ppm == paid for one in shown.tasks), "what the venue pays"
        assert shown.bond_free > 0


async def wins(council: Council, trader: Trader, road: Road, me: bytes) -> None:
    """Follow one round to its award."""
    assert road.frames == [], "an earlier life may have bid in the round that was open at the start"
    state = await council.view()
    trader.on_final(council.snapshot)
    await until(lambda: road.said(COMMIT))
    commit = decode_commit(road.said(COMMIT)[0])
    assert commit is not None
    council.commits.append(commit)
    await council.view()
    trader.on_final(council.snapshot)
    await until(lambda: road.said(REVEAL))
    body = road.said(REVEAL)[0]
    vector = decode_reveal(body)
    assert vector is not None
    tasks = {task.target.subject: task for task in state.tasks}
    open_bids = [bid for bid in vector.bids if bid.subject in tasks]
    assert open_bids
    for bid in open_bids:
        assert tasks[bid.subject].reserve <= bid.price <= tasks[bid.subject].bonus
    assert road.revealed == [body]
    council.bodies[keccak(body)] = body
    after = await council.view()
    assert after.awards
    assert all(award.ranks[0] == me for award in after.awards)
    trader.on_final(council.snapshot)
