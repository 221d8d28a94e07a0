"""A flow commits everywhere or nowhere, whoever stops at whichever step; a hash lock does not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from keeper.hashing import keccak
from keeper.leaves import flow_id, flow_leg_hash
from keeper.settle.flow import ABORT, COMMIT, FlowRule, decode_rows, flow_nonce
from keeper.snapshot.decisions import Decision
from tests.support.contracts import EPOCH, NETWORK, Reverted, World
from tests.support.flow_net import (
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


@pytest.fixture(scope="module")
def deployed() -> list[World]:
    return [small_world(FIRST + at) for at in range(3)]


@pytest.fixture
def net(deployed: list[World]) -> Iterator[Net]:
    with rolled_back(deployed):
        yield Net(deployed)


@dataclass
class Flow:
    """A flow on a net, and what its parties do."""

    net: Net
    legs: Sequence[Leg]
    nonce: bytes = flow_nonce(EPOCH, 0)

    @property
    def hashes(self) -> list[bytes]:
        rows = []
        for at, payer, receiver, amount in self.legs:
            world = self.net.worlds[at]
            rows.append(
                flow_leg_hash(
                    world.chain,
                    world.at["Escrow"],
                    payer=world.actor(payer),
                    token=world.at["DevToken"],
                    amount=amount,
                    receiver=world.actor(receiver),
                )
            )
        return rows

    @property
    def id(self) -> bytes:
        return flow_id(NETWORK, self.nonce, self.hashes)

    @property
    def chains(self) -> list[int]:
        return sorted({leg[0] for leg in self.legs})

    def prepare(self, index: int) -> None:
        at, payer, receiver, amount = self.legs[index]
        world = self.net.worlds[at]
        args = (world.at["DevToken"], amount, world.actor(receiver))
        self.net.send(at, "Escrow", "prepare", self.nonce, self.hashes, index, *args, sender=payer)

    def outcome(self, at: int) -> int:
        return int(self.net.worlds[at].call("Escrow", "outcome", self.id).value)

    def pay(self, index: int) -> None:
        self.net.send(self.legs[index][0], "Escrow", "pay", self.id, index, sender="anyone")

    def finish(self) -> None:
        """Anyone brings what is outstanding and pays what is locked, with nobody's help."""
        for _ in range(2):
            self.net.settle_down()
            for decision in self.net.outstanding():
                self.net.bring(decision)
            self.net.settle_down()
        for index in range(len(self.legs)):
            with tolerate("escrow: nothing locked"):  # never prepared, or paid before
                self.pay(index)
        self.net.settle_down()

    def result(self) -> set[str]:
        """Return what became of the legs: {"paid"}, {"back"}, or a split."""
        found = set()
        for at in self.chains:
            for who in ("alice", "bob", "carol", "dave"):
                got = sum(leg[3] for leg in self.legs if leg[0] == at and leg[2] == who)
                gave = sum(leg[3] for leg in self.legs if leg[0] == at and leg[1] == who)
                held = self.net.held(at, who)
                if got != gave:
                    found.add({PURSE: "back", PURSE + got - gave: "paid"}.get(held, f"{at} {who}"))
        return found


def steps(flow: Flow) -> list[Callable[[], None]]:
    """Return every step of a flow that goes well, keepers' and carriers' included."""

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
        *(locked(index) for index in legs),
        *(bring(at) for at in flow.chains),
        *(paid(index) for index in legs),
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
    assert decode_rows(net.snapshot.book.rules["flow"]) == ()


@pytest.mark.parametrize("legs", [TWO, FOUR], ids=["two legs", "four legs"])
def test_whoever_stops_at_whichever_step_for_a_day_there_is_no_split(
    deployed: list[World], legs: tuple[Leg, ...]
) -> None:
    results = []
    for stop in range(2 * len(legs) + len({leg[0] for leg in legs}) + 1):
        with rolled_back(deployed):
            flow = Flow(Net(deployed), legs)
            for step in steps(flow)[:stop]:
                step()
            flow.net.day()  # nobody brings or pays anything for a day
            flow.finish()
            assert flow.net.conserved()
            assert len(flow.result()) == 1, f"split after step {stop}"
            assert all(flow.net.in_contract(at, "Escrow") == 0 for at in range(3))
            results += sorted(flow.result())
    assert results == ["back"] * len(legs) + ["paid"] * (len(results) - len(legs))


def test_a_leg_that_nobody_locks_aborts_the_others(net: Net) -> None:
    flow = Flow(net, FOUR)
    for index in (0, 1, 3):
        flow.prepare(index)
    net.settle_down()
    assert net.decided == []
    net.mine(700)
    net.mine(LAG)
    made = net.view()
    assert [(d.chain - FIRST, d.fields[1]) for d in made] == [(0, ABORT), (1, ABORT)]
    # who locks a leg of a dead flow late gets it back too
    flow.prepare(2)
    flow.finish()
    assert flow.result() == {"back"}
    assert {d.fields[1] for d in net.decided} == {ABORT}


def test_two_outcomes_are_never_sealed_and_the_first_is_the_last(net: Net) -> None:
    flow = Flow(net, TWO)
    flow.prepare(0)
    net.mine(700)
    net.settle_down()
    net.mine(700)
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
    other = replace(decision, leaf=keccak(decision.leaf), fields=(decision.fields[0], outcome))
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
    rival = Flow(net, TWO, flow_nonce(EPOCH, 1))
    rival.prepare(0)
    here, there = made
    for wrong in (
        forged(net, here, ABORT),
        replace(here, fields=(rival.id, COMMIT)),
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


def test_a_flow_of_another_epochs_nonce_never_commits(net: Net) -> None:
    flow = Flow(net, TWO, flow_nonce(EPOCH + 1, 0))
    flow.prepare(0)
    flow.prepare(1)
    net.settle_down()
    assert net.decided == []
    net.day()
    flow.finish()
    assert flow.result() == {"back"}


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


def test_a_leg_that_escaped_can_only_abort(net: Net) -> None:
    flow = Flow(net, TWO)
    flow.prepare(0)
    net.worlds[0].mine(ESCAPE)
    net.send(0, "Escrow", "escape", flow.id, 0, sender="alice")
    flow.prepare(1)
    net.settle_down()
    assert net.decided == []
    net.day()
    flow.finish()
    assert flow.result() == {"back"}


def test_junk_cannot_keep_a_whole_flow_from_its_outcome(net: Net) -> None:
    for number in range(20):
        junk = Flow(net, TWO, keccak(number.to_bytes(2, "big")))
        junk.prepare(0) if number < 8 else None
    flow = Flow(net, TWO)
    flow.prepare(0)
    flow.prepare(1)
    flow.finish()
    assert flow.outcome(0) == flow.outcome(1) == COMMIT
    rows = decode_rows(net.snapshot.book.rules["flow"])
    assert [row.outcome for row in rows] == [0] * 8


def test_an_outcome_that_nobody_brings_is_sealed_again(net: Net) -> None:
    flow, (here, there) = committed(net)
    for world in net.worlds:
        world.mine(700)
    net.mine(LAG + 1)
    assert {d.leaf for d in net.view()} == {here.leaf, there.leaf}
    flow.finish()
    assert flow.result() == {"paid"}


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x91\x01", b"\x90\x90"])
def test_rows_that_are_not_canonical_are_refused(raw: bytes) -> None:
    assert decode_rows(FlowRule().initial()) == ()
    with pytest.raises(ValueError, match="flows"):
        decode_rows(raw)


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
    assert results[3] == {"paid", "back"}  # bob was offline for a day: alice has both legs
    assert [len(result) for result in results] == [1, 1, 1, 2, 1]


def test_a_day_has_as_many_ticks_as_the_net_counts(net: Net) -> None:
    before = net.tick
    net.mine(LAG + 1, DAY_S)
    assert net.tick - before == TICKS_A_DAY
