"""Positions at several venues are reduced by one flow, all or none, within governance's limit."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from keeper.parameters import Parameters
from keeper.settle.flow import ABORT, COMMIT, FlowState
from keeper.settle.lanes import owed
from keeper.settle.payments import payments
from keeper.units import ChainId
from keeper.venue.escrow import NOWHERE, Flow, Leg, Terms
from keeper.venue.perps import legs
from keeper.venue.records import word
from tests.support.contracts import (
    E8,
    EPOCH,
    ETH_USD,
    NETWORK,
    USD,
    Reverted,
    World,
    account_id,
    give_credit,
)
from tests.support.flow_net import ESCAPE, FIRST, LAG, PURSE, Net, rolled_back, small_world

LOCK_S = 600
SIZES = (10 * E8, -4 * E8)
"""Alice is long on the first chain and short on the second, at 2,000 dollars."""
CLOSES = (5 * E8, 2 * E8)


@pytest.fixture(scope="module")
def deployed() -> list[World]:
    return [small_world(FIRST + at) for at in range(3)]


@pytest.fixture
def net(deployed: list[World]) -> Iterator[Net]:
    with rolled_back(deployed):
        yield opened(deployed)


def opened(deployed: Sequence[World], **settings: Any) -> Net:
    """Return a net on which alice holds her positions."""
    made = Net(deployed, **settings)
    for at, size in enumerate(SIZES):
        give_credit(made.worlds[at], "alice", 100_000 * USD)
        made.send(at, "Perps", "increase", 0, ETH_USD, size, 0, sender="alice")
    made.settle_down()
    return made


def size_of(net: Net, at: int) -> int:
    """Return alice's position on a chain, as its venue says."""
    world = net.worlds[at]
    found = world.call("Perps", "position", account_id(world.actor("alice")), ETH_USD).value
    return int(found[0])


def reduction(net: Net, at: int, size: int, who: str = "alice", **changes: Any) -> Leg:
    world = net.worlds[at]
    leg = Leg(
        chain=ChainId(world.chain),
        escrow=world.at["Escrow"],
        payer=world.actor(who),
        token=NOWHERE,
        amount=size,
        receiver=bytes(32),
        vault=world.at["Perps"],
        market=ETH_USD,
    )
    return replace(leg, **changes)


def payment(net: Net, at: int, amount: int) -> Leg:
    world = net.worlds[at]
    return Leg(
        chain=ChainId(world.chain),
        escrow=world.at["Escrow"],
        payer=world.actor("bob"),
        token=world.at["DevToken"],
        amount=amount,
        receiver=word(world.actor("alice")),
    )


@dataclass
class Deal:
    """A flow on a net, and what its parties do."""

    net: Net
    asked: Sequence[Leg]
    number: int = 0

    def __post_init__(self) -> None:
        now = max(world.now for world in self.net.worlds)
        arm_by = (now + 200) * any(leg.deposit for leg in self.asked)
        terms = Terms(EPOCH, self.number, arm_by, now + LOCK_S)
        self.flow = Flow.of(NETWORK, terms, self.asked)

    def enter(self, index: int, function: str = "prepare") -> None:
        leg = self.flow.legs[index]
        at = leg.chain - FIRST
        world = self.net.worlds[at]
        who = next(name for name in ("alice", "bob") if world.actor(name) == leg.payer)
        self.net.send(at, "Escrow", function, *self.flow.entry(index), sender=who)

    def lock(self) -> None:
        for index in range(len(self.flow.legs)):
            self.enter(index)
        self.net.settle_down()

    def pay(self, index: int) -> None:
        leg = self.flow.legs[index]
        at = leg.chain - FIRST
        self.net.send(at, "Escrow", "pay", self.flow.id, leg.struct, sender="anyone")

    def bring(self) -> None:
        for decision in self.net.outstanding():
            self.net.bring(decision)
        self.net.settle_down()

    def finish(self) -> None:
        """Anyone brings what is outstanding and pays what is settled."""
        for _ in range(2):
            self.net.settle_down()
            self.bring()
        for call in payments(self.net.spec, self.net.records(), self.flow.id):
            self.net.do(call)
        assert payments(self.net.spec, self.net.records(), self.flow.id) == []

    def outcomes(self) -> set[object]:
        return {d.fields[1] for d in self.net.decided if d.fields[0] == self.flow.id}


def pair(net: Net) -> Deal:
    """Both positions are halved, and bob pays alice on the third chain."""
    legs = [reduction(net, at, size) for at, size in enumerate(CLOSES)]
    return Deal(net, [*legs, payment(net, 2, 30)])


def steps(deal: Deal) -> list[Callable[[], None]]:
    def bring(at: int) -> Callable[[], None]:
        def step() -> None:
            for decision in deal.net.outstanding():
                if decision.chain == FIRST + at:
                    deal.net.bring(decision)
            deal.net.settle_down()

        return step

    def locked(index: int) -> Callable[[], None]:
        def step() -> None:
            deal.enter(index)
            deal.net.settle_down()

        return step

    return [
        *(locked(index) for index in range(3)),
        *(bring(at) for at in range(3)),
        *((lambda at=index: deal.pay(at)) for index in range(3)),
    ]


def refresh(net: Net) -> None:
    """The feeds publish again, as they do: a price of yesterday closes nothing."""
    for at in range(3):
        net.send(at, "ETH feed", "set_answer", 2_000 * E8, sender="deployer")


def result(net: Net) -> str:
    """Return what became of the legs: "done", "none", or a split."""
    state = (size_of(net, 0), size_of(net, 1), net.held(2, "alice"))
    halved = (SIZES[0] - CLOSES[0], SIZES[1] + CLOSES[1], PURSE + 30)
    return {halved: "done", (*SIZES, PURSE): "none"}.get(state, f"split: {state}")


def test_positions_on_two_chains_are_reduced_together(net: Net) -> None:
    deal = pair(net)
    deal.lock()
    before = net.worlds[0].call("DevToken", "balanceOf", net.worlds[0].actor("alice")).value
    deal.finish()
    assert (result(net), deal.outcomes()) == ("done", {COMMIT})
    assert net.held(0, "alice") == before  # a reduction moves no token
    assert net.conserved()
    (leg,) = legs(net.spec.chains[0], net.tables[0])[account_id(net.worlds[0].actor("alice"))]
    assert leg.size == SIZES[0] - CLOSES[0]


def test_whoever_stops_at_whichever_step_for_a_day_both_are_reduced_or_none(
    deployed: list[World],
) -> None:
    outcomes = []
    for stop in range(10):
        with rolled_back(deployed):
            net = opened(deployed)
            deal = pair(net)
            for step in steps(deal)[:stop]:
                step()
            net.day()
            refresh(net)
            deal.finish()
            outcomes.append(result(net))
            assert net.conserved()
    assert outcomes == ["none"] * 3 + ["done"] * 7


def test_a_reorg_of_one_lock_reduces_nothing(net: Net) -> None:
    deal = pair(net)
    deal.enter(0)
    deal.enter(2)
    with net.fork(1):
        deal.enter(1)
        net.mine(LAG)
        assert net.view() == ()
    net.day()
    refresh(net)
    deal.finish()
    assert (result(net), deal.outcomes()) == ("none", {ABORT})


def test_nobody_reduces_what_is_not_its_own(net: Net) -> None:
    world = net.worlds[0]
    with pytest.raises(Reverted, match="not that much open"):
        Deal(net, [reduction(net, 0, CLOSES[0], who="bob")]).enter(0)
    with pytest.raises(Reverted, match="not that much open"):
        Deal(net, [reduction(net, 0, CLOSES[0], receiver=word(b"\x01" * 20))]).enter(0)
    with pytest.raises(Reverted, match="not that much open"):
        Deal(net, [reduction(net, 0, SIZES[0] + 1)]).enter(0)
    deal = Deal(net, [reduction(net, 0, CLOSES[0])])
    with pytest.raises(Reverted, match="another leg"):  # alice's leg, brought by bob
        net.send(0, "Escrow", "prepare", *deal.flow.entry(0), sender="bob")
    for who in ("alice", "bob", "deployer"):
        with world.reverts("perps: only the escrow"):
            args = (world.actor("alice"), 0, ETH_USD, 1)
            world.call("Perps", "reduce_for", *args, sender=who)
    assert size_of(net, 0) == SIZES[0]


def test_what_is_left_of_a_position_is_closed_and_the_leg_ends(net: Net) -> None:
    deal = pair(net)
    deal.lock()
    net.send(0, "Perps", "reduce", 0, ETH_USD, 8 * E8, 0, sender="alice")  # always allowed
    net.send(1, "Perps", "reduce", 0, ETH_USD, 4 * E8, 0, sender="alice")
    deal.finish()
    assert (size_of(net, 0), size_of(net, 1)) == (0, 0)
    assert deal.outcomes() == {COMMIT}
    assert net.held(2, "alice") == PURSE + 30
    with pytest.raises(Reverted, match="nothing locked"):
        deal.pay(0)


def test_a_stale_price_delays_a_reduction_and_nothing_else(net: Net) -> None:
    deal = pair(net)
    deal.lock()
    deal.bring()
    for world in net.worlds:
        world.mine(1, 4_000)
    with pytest.raises(Reverted, match="stale price"):
        deal.pay(0)
    deal.pay(2)
    refresh(net)
    deal.finish()
    assert result(net) == "done"


def test_a_deposit_of_a_reduction_comes_back(net: Net) -> None:
    world = net.worlds[0]
    deal = Deal(net, [reduction(net, 0, CLOSES[0], token=world.at["DevToken"], deposit=7)])
    deal.enter(0, "pledge")
    assert owed(net.spec, net.records()) == {}  # a size is no amount of its deposit's token
    deal.lock()
    assert net.held(0, "alice") == PURSE - 7
    deal.finish()
    assert (size_of(net, 0), net.held(0, "alice")) == (SIZES[0] - CLOSES[0], PURSE)


def test_an_aborted_or_escaped_reduction_pays_nothing_out(net: Net) -> None:
    deal = Deal(net, [reduction(net, 0, CLOSES[0]), reduction(net, 1, CLOSES[1])])
    deal.enter(0)
    net.day()
    refresh(net)
    deal.finish()
    assert deal.outcomes() == {ABORT}
    again = Deal(net, deal.asked, 1)
    again.enter(0)
    net.worlds[0].mine(ESCAPE)
    leg = again.flow.legs[0]
    net.send(0, "Escrow", "escape", again.flow.id, leg.struct, sender="alice")
    assert (size_of(net, 0), net.held(0, "alice")) == (SIZES[0], PURSE)


# --- governance's limit


def with_window(net: Net, dollars: int, blocks: int = 100) -> None:
    """Let governance allow so much per market and window."""
    made: Parameters = net.parameters
    limits = replace(made.liquidation, window_value=dollars * USD, window_blocks=blocks)
    net.parameters = replace(made, liquidation=limits)


def test_a_flow_above_the_limit_aborts_at_once(net: Net) -> None:
    with_window(net, 9_999)
    deal = pair(net)  # 10,000 dollars on the first chain
    deal.lock()
    assert deal.outcomes() == {ABORT}
    deal.finish()
    assert result(net) == "none"


def test_a_flow_waits_for_room_in_the_next_window(net: Net) -> None:
    with_window(net, 10_000)
    first = Deal(net, [reduction(net, 0, 4 * E8)], 1)
    first.lock()
    assert first.outcomes() == {COMMIT}
    deal = pair(net)
    deal.lock()
    assert deal.outcomes() == set()  # 2,000 dollars are left of this window
    chain, _, _, used = FlowState.decode(net.snapshot.book.rules["flow"]).windows[0]
    assert (chain, used) == (FIRST, 8_000 * USD)
    for _ in range(40):
        net.mine(LAG + 1)
    net.view()
    assert deal.outcomes() == {COMMIT}
    first.finish()
    deal.finish()
    assert size_of(net, 0) == SIZES[0] - 4 * E8 - CLOSES[0]


def test_without_room_until_the_last_second_to_lock_it_aborts(net: Net) -> None:
    with_window(net, 10_000, blocks=10**6)
    Deal(net, [reduction(net, 0, 4 * E8)], 1).lock()
    deal = pair(net)
    deal.lock()
    assert deal.outcomes() == set()
    net.mine(LAG + 1, LOCK_S)
    net.mine(LAG + 1)
    net.view()
    assert deal.outcomes() == {ABORT}


def test_what_is_no_longer_open_takes_no_room(net: Net) -> None:
    with_window(net, 10_000, blocks=10**6)
    empty = Deal(net, [reduction(net, 1, 4 * E8)], 1)
    empty.enter(0)
    net.send(1, "Perps", "reduce", 0, ETH_USD, 4 * E8, 0, sender="alice")
    net.settle_down()
    assert empty.outcomes() == {COMMIT}
    windows = FlowState.decode(net.snapshot.book.rules["flow"]).windows
    assert [used for *_, used in windows] == [0]


def test_a_reduction_without_a_price_waits_for_one(net: Net) -> None:
    prices, net.prices = net.prices, {}
    deal = pair(net)
    deal.lock()
    assert deal.outcomes() == set()
    net.prices = prices
    net.settle_down()
    assert deal.outcomes() == {COMMIT}


def test_a_venue_of_nobodys_commits_nothing(net: Net) -> None:
    """A contract that only says it has a position would be taken for done, and never be."""
    world = net.worlds[0]
    fake = world.deploy(
        *("Perps", world.at["Snapshots"], world.at["Awards"], world.at["Escrow"]),
        *(bytes(32), [bytes(32)] * 4, 20),
        [(ETH_USD, world.at["ETH feed"], 3600, 8, 100_000, 50_000, 500, 25_000, 10_000, E8)],
        alias="Fake",
    )
    give_credit_at(world, "Fake")
    world.call("Fake", "increase", 0, ETH_USD, CLOSES[0], 0, sender="alice")
    deal = Deal(net, [reduction(net, 0, CLOSES[0], vault=fake), payment(net, 2, 30)])
    deal.lock()
    assert deal.outcomes() == {ABORT}


def give_credit_at(world: World, alias: str) -> None:
    """Give alice credit at another venue."""
    at, world.at["Perps"] = world.at["Perps"], world.at[alias]
    give_credit(world, "alice", 100_000 * USD)
    world.at["Perps"] = at
