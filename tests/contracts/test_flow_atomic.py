"""A flow commits everywhere or nowhere, whoever stops at whichever step; a hash lock does not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from keeper.hashing import keccak
from keeper.margin.breaker import Level
from keeper.settle.flow import ABORT, COMMIT, STALL_S, FlowRule, FlowState
from keeper.settle.payments import payments
from keeper.snapshot.decisions import Decision
from keeper.units import ChainId
from keeper.venue.escrow import Flow as EscrowFlow
from keeper.venue.escrow import Leg as EscrowLeg
from keeper.venue.escrow import Terms
from keeper.venue.records import word
from tests.support.contracts import EPOCH, NETWORK, Reverted, World
from tests.support.flow_net import (
    ACTORS,
    DAY_S,
    ESCAPE,
    FIRST,
    LAG,
    PURSE,
    TICKS_A_DAY,
    Net,
    rolled_back,
    small_world,
    tolerate,
)

Leg = tuple[int, str, str, int]
"""(chain, payer, receiver, amount)."""
TWO: tuple[Leg, ...] = ((0, "alice", "bob", 100), (1, "bob", "alice", 70))
FOUR: tuple[Leg, ...] = (
    *((0, "alice", "bob", 100), (1, "bob", "carol", 70)),
    *((2, "carol", "dave", 50), (0, "dave", "alice", 30)),
)
ARM_S, LOCK_S = 200, 600
"""Seconds from the opening of a flow to the last deposit, and to the last lock."""


@pytest.fixture(scope="module")
def deployed() -> list[World]:
    return [small_world(FIRST + at) for at in range(3)]


@pytest.fixture
def net(deployed: list[World]) -> Iterator[Net]:
    with rolled_back(deployed):
        yield Net(deployed)


@dataclass
class Flow:
    """A flow on a net, and what its parties do; with a deposit, every leg has the same."""

    net: Net
    legs: Sequence[Leg]
    number: int = 0
    deposit: int = 0
    epoch: int = EPOCH

    def __post_init__(self) -> None:
        now = max(world.now for world in self.net.worlds)
        self.terms = Terms(
            self.epoch, self.number, (now + ARM_S) * bool(self.deposit), now + LOCK_S
        )
        self.asked = [
            EscrowLeg(
                chain=ChainId(self.net.worlds[at].chain),
                escrow=self.net.worlds[at].at["Escrow"],
                payer=self.net.worlds[at].actor(payer),
                token=self.net.worlds[at].at["DevToken"],
                amount=amount,
                receiver=word(self.net.worlds[at].actor(receiver)),
                deposit=self.deposit,
            )
            for at, payer, receiver, amount in self.legs
        ]
        self.made = EscrowFlow.of(NETWORK, self.terms, self.asked)
        self.asked, self.id = list(self.made.legs), self.made.id

    @property
    def chains(self) -> list[int]:
        return sorted({leg[0] for leg in self.legs})

    def _enter(self, function: str, index: int) -> None:
        at, payer = self.legs[index][:2]
        self.net.send(at, "Escrow", function, *self.made.entry(index), sender=payer)

    def pledge(self, index: int) -> None:
        self._enter("pledge", index)

    def prepare(self, index: int) -> None:
        self._enter("prepare", index)

    def outcome(self, at: int) -> int:
        return int(self.net.worlds[at].call("Escrow", "outcome", self.id).value)

    def pay(self, index: int) -> None:
        at, struct = self.legs[index][0], self.asked[index].struct
        self.net.send(at, "Escrow", "pay", self.id, struct, sender="anyone")

    def pay_all(self) -> None:
        """Anyone sends what is settled to whom it belongs."""
        for call in payments(self.net.spec, self.net.records(), self.id):
            self.net.do(call)
        assert payments(self.net.spec, self.net.records(), self.id) == []

    def finish(self) -> None:
        """Anyone brings what is outstanding and pays what is settled, with nobody's help."""
        for _ in range(2):
            self.net.settle_down()
            for decision in self.net.outstanding():
                self.net.bring(decision)
            self.net.settle_down()
        self.pay_all()
        self.net.settle_down()

    def held(self) -> dict[tuple[int, str], int]:
        """Return what everybody holds everywhere."""
        return {(at, who): self.net.held(at, who) for at in range(3) for who in ACTORS}

    def due(self, outcome: int, late: int = 0) -> dict[tuple[int, str], int]:
        """Return what everybody must hold everywhere after an outcome, to the wei."""
        due = {(at, who): PURSE for at in range(3) for who in ACTORS}
        for index, (at, payer, receiver, amount) in enumerate(self.legs):
            if outcome == COMMIT:
                due[at, payer] -= amount
                due[at, receiver] += amount
            if late >> index & 1:
                heirs = [
                    other[1]
                    for place, other in enumerate(self.legs)
                    if not late >> place & 1 and other[1] != payer
                ]
                due[at, payer] -= self.deposit
                for rank, heir in enumerate(heirs):
                    upper, lower = self.deposit * (rank + 1), self.deposit * rank
                    due[at, heir] += upper // len(heirs) - lower // len(heirs)
        return due

    def result(self) -> set[str]:
        """Return what became of the legs: {"paid"}, {"back"}, or a split."""
        held = self.held()
        found = {"paid"} if held == self.due(COMMIT) else set[str]()
        found |= {"back"} if held == self.due(ABORT) else set()
        return found or {f"split: {held}"}


def steps(flow: Flow) -> list[Callable[[], None]]:
    """Return every step of a flow that goes well, keepers' and carriers' included."""

    def pledged(index: int) -> Callable[[], None]:
        def step() -> None:
            flow.pledge(index)
            flow.net.settle_down()

        return step

    def bring(at: int) -> Callable[[], None]:
        chain = flow.net.spec.chains[at].id

        def step() -> None:
            for decision in flow.net.outstanding():
                if decision.chain == chain:
                    flow.net.bring(decision)
            flow.net.settle_down()

        return step

    def locked(index: int) -> Callable[[], None]:
        def step() -> None:
            flow.prepare(index)
            flow.net.settle_down()

        return step

    def paid(index: int) -> Callable[[], None]:
        return lambda: flow.pay(index)

    legs = range(len(flow.legs))
    return [
        *(pledged(index) for index in legs if flow.deposit),
        *(locked(index) for index in legs),
        *(bring(at) for at in flow.chains),
        *(paid(index) for index in legs),
        *(paid(index) for index in legs if flow.deposit),
    ]


def test_a_flow_that_goes_well_pays_every_leg(net: Net) -> None:
    flow = Flow(net, FOUR)
    for step in steps(flow):
        step()
        assert net.conserved()
    assert flow.result() == {"paid"}
    assert [net.in_contract(at, "Escrow") for at in range(3)] == [0, 0, 0]
    net.settle_down()
    assert net.outstanding() == ()
    assert FlowState.decode(net.snapshot.book.rules["flow"]).rows == ()


@pytest.mark.parametrize("deposit", [0, 10], ids=["no deposits", "deposits"])
@pytest.mark.parametrize("legs", [TWO, FOUR], ids=["two legs", "four legs"])
def test_whoever_stops_at_whichever_step_for_a_day_there_is_no_split(
    deployed: list[World], legs: tuple[Leg, ...], deposit: int
) -> None:
    outcomes, blamed = [], set()
    first = len(legs) if deposit else 0
    for stop in range(len(steps(Flow(Net(deployed), legs, deposit=deposit))) + 1):
        with rolled_back(deployed):
            flow = Flow(Net(deployed), legs, deposit=deposit)
            for step in steps(flow)[:stop]:
                step()
            flow.net.day()  # nobody brings or pays anything for a day
            flow.finish()
            if not stop:
                assert (flow.net.decided, flow.held()) == ([], flow.due(ABORT))
                continue
            ((outcome, late),) = {decision.fields[1:] for decision in flow.net.decided}
            assert isinstance(outcome, int)
            assert isinstance(late, int)
            assert flow.held() == flow.due(outcome, late), f"split after step {stop}"
            assert flow.net.conserved()
            assert all(flow.net.in_contract(at, "Escrow") == 0 for at in range(3))
            outcomes.append(outcome)
            blamed |= {(stop - first, late)} if late else set()
    before = first + len(legs) - 1  # steps of which none makes the flow whole
    assert outcomes == [ABORT] * before + [COMMIT] * (len(outcomes) - before)
    # who had not locked when the others waited for it, and nobody else
    rest = [(1 << len(legs)) - (1 << locked) for locked in range(len(legs))]
    if deposit and legs is TWO:
        assert blamed == {(1, rest[1])}
    elif deposit:
        assert blamed == {(locked, rest[locked]) for locked in (1, 2, 3)}
    else:
        assert blamed == set()


def test_a_leg_that_nobody_locks_aborts_the_others(net: Net) -> None:
    flow = Flow(net, FOUR)
    for index in (0, 1, 3):
        flow.prepare(index)
    net.settle_down()
    assert net.decided == []
    net.mine(LOCK_S)
    net.mine(LAG + 1)
    made = net.view()
    assert [(d.chain - FIRST, d.fields[1]) for d in made] == [(0, ABORT), (1, ABORT)]
    with pytest.raises(Reverted, match="too late to lock"):
        flow.prepare(2)
    flow.finish()
    assert flow.result() == {"back"}
    assert {d.fields[1] for d in net.decided} == {ABORT}


def test_the_last_second_to_lock_commits(net: Net) -> None:
    flow = Flow(net, TWO)
    flow.prepare(0)
    net.mine(1, flow.terms.lock_by - net.worlds[1].now)
    flow.prepare(1)
    flow.finish()
    assert flow.result() == {"paid"}


def stand_still(net: Net, at: int, seconds: int) -> None:
    """Let time pass everywhere but on one chain, whose clock stands still."""
    patch = net.worlds[at].env.evm.patch
    before = patch.timestamp
    net.mine(LAG + 1, seconds)
    patch.timestamp = before
    net.mine(LAG + 1)
    patch.timestamp = before


def test_a_chain_that_stands_still_is_waited_for_and_nobody_is_blamed(net: Net) -> None:
    flow = Flow(net, TWO, deposit=10)
    for index in range(2):
        flow.pledge(index)
    flow.prepare(0)
    stand_still(net, 1, LOCK_S + 100)
    assert net.view() == ()  # leg 1 may be locked in time, for all that is known
    with net.fork(1):
        flow.prepare(1)
    stand_still(net, 1, STALL_S)
    made = net.view()
    assert {decision.fields[1:] for decision in made} == {(ABORT, 0)}
    assert [decision.chain - FIRST for decision in made] == [0, 1]
    flow.prepare(1)  # whole now by its own clock, and it gets what the others got
    net.settle_down(6)
    assert {d.fields[1] for d in net.decided} == {ABORT}
    flow.finish()
    assert flow.result() == {"back"}


def test_two_outcomes_are_never_sealed_and_the_first_is_the_last(net: Net) -> None:
    flow = Flow(net, TWO)
    flow.prepare(0)
    stand_still(net, 1, LOCK_S + STALL_S + 100)
    assert [d.fields[1] for d in net.view()] == [ABORT]
    flow.prepare(1)  # whole now, and too late
    net.settle_down(6)
    assert {d.fields[1] for d in net.decided} == {ABORT}
    (first, second) = net.outstanding()
    net.bring(first)
    with pytest.raises(Reverted, match="flow is settled"):
        net.bring(first)
    # no certificate of the other outcome could change what has come
    other = forged(net, first, COMMIT)
    with pytest.raises(Reverted, match="flow is settled"):
        net.bring(other)
    net.bring(second)
    assert flow.outcome(0) == flow.outcome(1) == ABORT


def forged(net: Net, decision: Decision, outcome: int) -> Decision:
    """Return a decision with another outcome under the proof of the given one."""
    fields = (decision.fields[0], outcome, 0)
    other = replace(decision, leaf=keccak(decision.leaf), fields=fields)
    net.sealed[other.leaf] = net.sealed[decision.leaf]
    return other


def committed(net: Net) -> tuple[Flow, list[Decision]]:
    flow = Flow(net, TWO)
    flow.prepare(0)
    flow.prepare(1)
    net.settle_down()
    return flow, list(net.outstanding())


def test_a_certificate_is_for_one_flow_one_outcome_and_one_chain(net: Net) -> None:
    flow, made = committed(net)
    rival = Flow(net, TWO, 1)
    rival.prepare(0)
    here, there = made
    for wrong in (
        forged(net, here, ABORT),
        replace(here, fields=(flow.id, COMMIT, 1)),
        replace(here, fields=(rival.id, COMMIT, 0)),
        replace(here, chain=there.chain, contract=there.contract),
    ):
        net.sealed[wrong.leaf] = net.sealed[here.leaf]
        with pytest.raises(Reverted, match="not in the root"):
            net.bring(wrong)
    net.bring(here)
    assert (flow.outcome(0), flow.outcome(1), rival.outcome(0)) == (COMMIT, 0, 0)


def test_a_certificate_is_for_one_epoch(net: Net) -> None:
    _, (here, _) = committed(net)
    seal, proof = net.sealed[here.leaf]
    net.sealed[here.leaf] = ((EPOCH + 1, *seal[1:]), proof)
    with pytest.raises(Reverted):
        net.bring(here)


def test_a_flow_of_another_epoch_never_commits(net: Net) -> None:
    flow = Flow(net, TWO, epoch=EPOCH + 1)
    flow.prepare(0)
    flow.prepare(1)
    flow.finish()
    assert flow.result() == {"back"}


def test_a_flow_opened_while_the_committee_changes_commits(net: Net) -> None:
    net.epoch = EPOCH + 1
    flow = Flow(net, TWO)
    flow.prepare(0)
    flow.prepare(1)
    net.settle_down()
    assert {decision.fields[1] for decision in net.decided} == {COMMIT}


def test_the_next_committee_seals_the_same_outcome_for_a_chain_that_was_cut_off(net: Net) -> None:
    _, (here, there) = committed(net)
    net.bring(here)
    net.settle_down()
    net.epoch = EPOCH + 1  # the key of the first committee expires before `there` is brought
    net.mine(DAY_S)
    net.settle_down()
    (again,) = (d for d in net.outstanding() if d.leaf != there.leaf)
    assert (again.chain, again.fields) == (there.chain, there.fields)


def test_a_reorg_before_finality_undoes_a_leg_and_nothing_is_decided(net: Net) -> None:
    flow = Flow(net, TWO)
    flow.prepare(0)
    net.settle_down()
    with net.fork(1):
        flow.prepare(1)
        net.mine(LAG)
        assert net.view() == ()
    net.settle_down()
    assert net.decided == []
    net.day()
    flow.finish()
    assert flow.result() == {"back"}


def test_a_leg_that_comes_again_after_a_reorg_commits(net: Net) -> None:
    flow = Flow(net, TWO)
    flow.prepare(0)
    with net.fork(1):
        flow.prepare(1)
        net.mine()
        net.view()
    flow.prepare(1)
    flow.finish()
    assert flow.result() == {"paid"}


def test_nothing_commits_on_the_word_of_a_chain_that_broke_its_finality(net: Net) -> None:
    flow, other = Flow(net, TWO), Flow(net, ((0, "alice", "bob", 5), (2, "bob", "alice", 4)))
    net.curse(1)
    for index in range(2):
        flow.prepare(index)
        other.prepare(index)
    net.settle_down()
    assert {d.fields[0] for d in net.decided} == {other.id}  # a flow over sound chains goes on
    net.mine(LAG + 1, LOCK_S)
    net.mine(LAG + 1)
    net.view()
    assert {d.fields[1] for d in net.decided if d.fields[0] == flow.id} == {ABORT}
    flow.finish()
    other.finish()
    assert flow.outcome(0) == flow.outcome(1) == ABORT


def test_a_flow_commits_when_governance_lifts_a_curse_in_time(net: Net) -> None:
    flow = Flow(net, TWO)
    net.curse(1)
    for index in range(2):
        flow.prepare(index)
    net.settle_down()
    assert net.decided == []
    net.curse(1, Level.CLOSED)
    flow.finish()
    assert flow.result() == {"paid"}


def test_a_leg_that_escaped_can_only_abort(net: Net) -> None:
    flow = Flow(net, TWO)
    flow.prepare(0)
    net.worlds[0].mine(ESCAPE)
    net.send(0, "Escrow", "escape", flow.id, flow.asked[0].struct, sender="alice")
    net.worlds[1].env.evm.patch.timestamp = flow.terms.lock_by  # a clock that is far behind
    flow.prepare(1)
    flow.finish()
    assert flow.result() == {"back"}


def test_junk_cannot_keep_a_whole_flow_from_its_outcome(net: Net) -> None:
    junk = [Flow(net, TWO, number) for number in range(1, 9)]
    for one in junk:
        one.prepare(0)
    flow = Flow(net, TWO)
    flow.prepare(0)
    flow.prepare(1)
    flow.finish()
    assert flow.outcome(0) == flow.outcome(1) == COMMIT
    assert FlowState.decode(net.snapshot.book.rules["flow"]).rows == ()
    net.mine(LOCK_S)
    net.settle_down()
    rows = FlowState.decode(net.snapshot.book.rules["flow"]).rows
    assert sorted(row.flow for row in rows) == sorted(one.id for one in junk)
    assert {row.outcome for row in rows} == {ABORT}


def test_aborts_never_crowd_out_a_commit(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keeper.settle.flow.MAX_FLOWS", 4)
    junk = [Flow(net, TWO, number) for number in range(1, 7)]
    for one in junk:
        one.prepare(0)
    net.mine(LOCK_S + 5)
    net.settle_down()
    rows = FlowState.decode(net.snapshot.book.rules["flow"]).rows
    assert [row.outcome for row in rows] == [ABORT] * 2  # half of the room, and no more
    flow = Flow(net, TWO)
    flow.prepare(0)
    flow.prepare(1)
    net.settle_down()
    made = {d.fields[0]: d.fields[1] for d in net.decided}
    assert made[flow.id] == COMMIT
    for _ in range(4):  # what is brought makes room for the rest
        for decision in net.outstanding():
            net.bring(decision)
        net.settle_down()
    made = {d.fields[0]: d.fields[1] for d in net.decided}
    assert made == {flow.id: COMMIT} | {one.id: ABORT for one in junk}


def test_a_late_lock_cannot_be_made_by_pledging_late(net: Net) -> None:
    flow = Flow(net, TWO, deposit=10)
    flow.pledge(0)
    net.mine(ARM_S + 1)
    for enter in (flow.pledge, flow.prepare):
        with pytest.raises(Reverted, match="too late for a deposit"):
            enter(1)
    # not all deposits were placed in time: nobody has to lock, and nobody is late
    flow.finish()
    assert {d.fields[1:] for d in net.decided} == {(ABORT, 0)}
    assert flow.result() == {"back"}


def test_who_locks_with_its_deposit_at_once_needs_no_pledge(net: Net) -> None:
    flow = Flow(net, TWO, deposit=10)
    flow.prepare(0)
    flow.prepare(1)
    flow.finish()
    assert flow.result() == {"paid"}


def test_a_payer_is_not_late_towards_itself(net: Net) -> None:
    own: tuple[Leg, ...] = ((0, "alice", "bob", 100), (1, "alice", "bob", 70))
    flow = Flow(net, own, deposit=10)
    for index in range(2):
        flow.pledge(index)
    flow.prepare(0)
    net.day()
    flow.finish()
    assert {d.fields[1:] for d in net.decided} == {(ABORT, 0)}
    assert flow.result() == {"back"}


def test_an_outcome_that_nobody_brings_is_sealed_again(net: Net) -> None:
    flow, (here, there) = committed(net)
    for world in net.worlds:
        world.mine(700)
    net.mine(LAG + 1)
    assert {d.leaf for d in net.view()} == {here.leaf, there.leaf}
    flow.finish()
    assert flow.result() == {"paid"}


@pytest.mark.parametrize(
    "raw", [b"", b"\xc1", b"\x90", b"\x92\x01\x90", b"\x92\x90\x91\x90", b"\x92\x90\x90\x90"]
)
def test_rows_that_are_not_canonical_are_refused(raw: bytes) -> None:
    assert FlowState.decode(FlowRule().initial()) == FlowState()
    with pytest.raises(ValueError, match="flows"):
        FlowState.decode(raw)


# --- the control: the same swap by hash locks


def htlc_steps(net: Net) -> list[Callable[[], None]]:
    """Alice locks for two hours, bob for one; alice redeems, and bob with her secret."""
    secret = keccak(b"alice's secret")
    digest = keccak(secret)

    def lock(at: int, payer: str, receiver: str, amount: int, hours: int) -> Callable[[], None]:
        world = net.worlds[at]

        def step() -> None:
            world.call("DevToken", "approve", world.at["FlowHtlc"], amount, sender=payer)
            until = world.now + hours * 3_600
            args = (digest, world.actor(receiver), world.at["DevToken"], amount, until)
            world.call("FlowHtlc", "lock", *args, sender=payer)

        return step

    def redeem(at: int, who: str) -> Callable[[], None]:
        def step() -> None:
            net.worlds[at].call("FlowHtlc", "redeem", secret, sender=who)

        return step

    return [
        *(lock(0, "alice", "bob", 100, 2), lock(1, "bob", "alice", 70, 1)),
        *(redeem(1, "alice"), redeem(0, "bob")),
    ]


def test_a_hash_lock_splits_in_the_same_harness(deployed: list[World]) -> None:
    source = Path(__file__).parent / "FlowHtlc.vy"
    results = []
    for stop in range(5):
        with rolled_back(deployed):
            net = Net(deployed)
            for world in deployed[:2]:
                world.deploy_source("FlowHtlc", source)
            for step in htlc_steps(net)[:stop]:
                step()
            net.day()
            for world, who in zip(deployed[:2], ("alice", "bob"), strict=True):
                digest = keccak(keccak(b"alice's secret"))
                with tolerate("htlc: nothing locked"):
                    world.call("FlowHtlc", "refund", digest, sender=who)
            results.append(Flow(net, TWO).result())
            if stop == 3:  # bob was offline for a day: alice has both legs
                assert [net.held(at, "alice") for at in (0, 1)] == [PURSE, PURSE + 70]
    assert [results[stop] for stop in (0, 1, 2, 4)] == [{"back"}, {"back"}, {"back"}, {"paid"}]
    assert not results[3] & {"paid", "back"}


def test_a_day_has_as_many_ticks_as_the_net_counts(net: Net) -> None:
    before = net.tick
    net.mine(LAG + 1, DAY_S)
    assert net.tick - before == TICKS_A_DAY
