"""Legs of a flow on two chains all happen or none, whoever is offline, by one sealed outcome."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from keeper import leaves
from keeper.contracts import encode_call
from keeper.hashing import keccak
from keeper.units import ChainId
from keeper.venue.escrow import Flow, Leg, Terms
from keeper.venue.records import word
from tests.support.contracts import (
    EPOCH,
    ESCAPE,
    NETWORK,
    Receipt,
    World,
    account_id,
    build_world,
)

HOSTILE = Path(__file__).parent / "hostile"
COMMIT, ABORT = 1, 2
ARM_S, LOCK_S = 100, 5_000


@pytest.fixture
def chains(world: World) -> tuple[World, World]:
    """Two chains of one network with an escrow each; alice and bob hold tokens on both."""
    other = build_world()
    other.env.evm.patch.chain_id = world.chain + 1
    other.deploy("DevToken", "Padding", "PAD", 6, alias="Padding")  # another address than here
    other.deploy("Escrow", other.at["Snapshots"], ESCAPE)
    for chain in (world, other):
        for who in ("alice", "bob"):
            chain.call("DevToken", "mint", chain.actor(who), 1_000)
            chain.call("DevToken", "approve", chain.at["Escrow"], 1_000, sender=who)
    return world, other


@dataclass(frozen=True)
class Swap:
    """Alice pays bob 100 on the first chain, bob pays alice 70 on the second."""

    chains: tuple[World, World]
    deposit: int = 0
    arm_s: int = ARM_S
    lock_s: int = LOCK_S
    began: int = 0

    parties = (("alice", "bob", 100), ("bob", "alice", 70))

    @property
    def terms(self) -> Terms:
        arm_by = (self.began + self.arm_s) * bool(self.deposit)
        return Terms(EPOCH, 0, arm_by, self.began + self.lock_s)

    @property
    def asked(self) -> list[Leg]:
        return [
            Leg(
                chain=ChainId(chain.chain),
                escrow=chain.at["Escrow"],
                payer=chain.actor(payer),
                token=chain.at["DevToken"],
                amount=amount,
                receiver=word(chain.actor(receiver)),
                deposit=self.deposit,
            )
            for chain, (payer, receiver, amount) in zip(self.chains, self.parties, strict=True)
        ]

    @property
    def flow(self) -> Flow:
        return Flow.of(NETWORK, self.terms, self.asked)

    @property
    def legs(self) -> tuple[Leg, ...]:
        return self.flow.legs

    @property
    def id(self) -> bytes:
        return self.flow.id

    def enter(self, function: str, index: int, leg: Leg | None = None) -> Receipt:
        *args, asked = self.flow.entry(index)
        asked = asked if leg is None else leg.struct
        chain, who = self.chains[index], self.parties[index][0]
        return chain.call("Escrow", function, *args, asked, sender=who)

    def pledge(self, index: int) -> Receipt:
        return self.enter("pledge", index)

    def prepare(self, index: int) -> Receipt:
        return self.enter("prepare", index)

    def settle(self, index: int, outcome: int, late: int = 0) -> None:
        chain = self.chains[index]
        place = chain.place("Escrow")
        leaf = leaves.flow_outcome_leaf(*place, flow=self.id, outcome=outcome, late=late)
        sealed = chain.seal(leaf)
        proof = sealed.proof(leaf)
        chain.call("Escrow", "settle", sealed.seal, proof, self.id, outcome, late)

    def pay(self, index: int) -> None:
        self.chains[index].call("Escrow", "pay", self.id, self.legs[index].struct)

    def escape(self, index: int) -> None:
        self.chains[index].call("Escrow", "escape", self.id, self.legs[index].struct)

    def compensate(self, index: int, heir: int) -> Receipt:
        legs = [leg.struct for leg in self.legs]
        return self.chains[index].call("Escrow", "compensate", self.terms.struct, legs, index, heir)

    def held(self) -> list[int]:
        """Tokens of (alice, bob) on the first chain, then on the second."""
        return [
            chain.call("DevToken", "balanceOf", chain.actor(who)).value
            for chain in self.chains
            for who in ("alice", "bob")
        ]


def make_swap(chains: tuple[World, World], **changes: int) -> Swap:
    return replace(Swap(chains, began=chains[0].now), **changes)


def test_commit_pays_every_leg(chains: tuple[World, World]) -> None:
    swap = make_swap(chains)
    for index in range(2):
        assert swap.prepare(index).value == swap.id
    for index in range(2):
        with chains[index].reverts("escrow: not settled"):
            swap.pay(index)
        swap.settle(index, COMMIT)
        swap.pay(index)
    assert swap.held() == [900, 1_100, 1_070, 930]
    for index in range(2):
        with chains[index].reverts("escrow: nothing locked"):
            swap.pay(index)


def test_abort_gives_every_leg_back(chains: tuple[World, World]) -> None:
    swap = make_swap(chains)
    swap.prepare(0)
    swap.settle(0, ABORT)
    swap.settle(1, ABORT)
    swap.pay(0)
    assert swap.held() == [1_000] * 4
    # bob cannot lock himself into what is over
    with chains[1].reverts("escrow: flow is settled"):
        swap.prepare(1)


def test_a_side_that_is_offline_for_a_day_loses_nothing(chains: tuple[World, World]) -> None:
    swap = make_swap(chains)
    swap.prepare(0)
    swap.prepare(1)
    swap.settle(0, COMMIT)
    swap.pay(0)
    chains[1].mine(ESCAPE - 1)
    with chains[1].reverts("escrow: still waiting"):
        swap.escape(1)
    swap.settle(1, COMMIT)
    chains[1].mine(ESCAPE)
    with chains[1].reverts("escrow: flow is settled"):
        swap.escape(1)
    swap.pay(1)
    assert swap.held() == [900, 1_100, 1_070, 930]


def test_the_first_outcome_is_the_last(chains: tuple[World, World]) -> None:
    swap = make_swap(chains)
    swap.prepare(0)
    swap.settle(0, COMMIT)
    for outcome in (ABORT, COMMIT):
        with chains[0].reverts("escrow: flow is settled"):
            swap.settle(0, outcome)
    with chains[1].reverts("escrow: no such outcome"):
        swap.settle(1, 3)


def test_an_outcome_of_another_chain_flow_or_kind_is_refused(chains: tuple[World, World]) -> None:
    swap = make_swap(chains)
    swap.prepare(0)
    here, there = chains
    said = {"flow": swap.id, "outcome": ABORT, "late": 2}
    leaf = leaves.flow_outcome_leaf(*there.place("Escrow"), **said)
    sealed = here.seal(leaf)
    with here.reverts("escrow: not in the root"):
        here.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), *said.values())
    leaf = leaves.flow_outcome_leaf(*here.place("Escrow"), **said)
    sealed = here.seal(leaf)
    for wrong in ({"outcome": COMMIT}, {"flow": keccak(b"other flow")}, {"late": 0}):
        with here.reverts("escrow: not in the root"):
            values = (said | wrong).values()
            here.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), *values)
    here.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), *said.values())


@pytest.mark.parametrize(
    "change",
    [
        {"index": 1},
        {"amount": 99},
        {"deposit": 1},
        {"receiver": word(b"\x01" * 20)},
        {"vault": b"\x02" * 20},
        {"token": b"\x03" * 20},
        {"vault": b"\x02" * 20, "market": b"\x06" * 32},
        {"payer": b"\x04" * 20},
        {"chain": ChainId(5)},
        {"escrow": b"\x05" * 20},
    ],
    ids=lambda change: list(change)[-1],
)
def test_no_leg_is_changed(chains: tuple[World, World], change: dict[str, Any]) -> None:
    swap, here = make_swap(chains, deposit=2), chains[0]
    elsewhere = next(iter(change)) in ("payer", "chain", "escrow")
    with here.reverts("escrow: another leg" if elsewhere else "escrow: not a leg of the flow"):
        swap.enter("prepare", 0, replace(swap.legs[0], **change))


def test_no_leg_is_slipped_in(chains: tuple[World, World]) -> None:
    swap, here = make_swap(chains), chains[0]
    mine, theirs = swap.legs
    terms, root, path, _ = swap.flow.entry(0)
    with here.reverts("escrow: another leg"):
        here.call("Escrow", "prepare", terms, root, path, mine.struct, sender="bob")
    with here.reverts("escrow: another leg"):  # a leg of the other chain
        here.call("Escrow", "prepare", *swap.flow.entry(1), sender="bob")
    more = Flow.of(NETWORK, swap.terms, [mine, theirs, replace(mine, amount=1)])
    with here.reverts("escrow: not a leg of the flow"):
        here.call("Escrow", "prepare", terms, root, *more.entry(2)[2:], sender="alice")
    with here.reverts("escrow: not a leg of the flow"):  # half of a path
        here.call("Escrow", "prepare", terms, root, [], mine.struct, sender="alice")
    with here.reverts("escrow: no such leg"):
        far = replace(mine, index=16)
        here.call("Escrow", "prepare", terms, root, path, far.struct, sender="alice")
    here.call("Escrow", "prepare", *more.entry(0), sender="alice")  # of another flow
    swap.prepare(0)
    with here.reverts("escrow: leg was prepared"):
        swap.prepare(0)


def test_times_are_kept(chains: tuple[World, World]) -> None:
    swap, here = make_swap(chains, deposit=5), chains[0]
    with here.reverts("escrow: too far away"):
        make_swap(chains, lock_s=86_401).prepare(0)
    with here.reverts("escrow: no time to lock"):
        make_swap(chains, deposit=5, arm_s=LOCK_S).prepare(0)
    with here.reverts("escrow: a flow without deposits"):
        make_swap(chains).pledge(0)
    swap.pledge(0)
    with here.reverts("escrow: leg was prepared"):
        swap.pledge(0)
    for chain in chains:
        chain.mine(ARM_S + 1)
    with chains[1].reverts("escrow: too late for a deposit"):
        swap.prepare(1)
    swap.prepare(0)
    for chain in chains:
        chain.mine(LOCK_S)
    with here.reverts("escrow: too late to lock"):
        make_swap(chains, began=swap.began).prepare(0)


def test_a_deposit_needs_a_time(chains: tuple[World, World]) -> None:
    here = chains[0]
    leg = replace(make_swap(chains).legs[0], deposit=1)
    flow = Flow.of(NETWORK, Terms(EPOCH, 0, 0, here.now + 60), [leg])
    with here.reverts("escrow: a flow without deposits"):
        here.call("Escrow", "prepare", *flow.entry(0), sender="alice")


def test_deposits_come_back_after_a_commit(chains: tuple[World, World]) -> None:
    swap = make_swap(chains, deposit=5)
    swap.pledge(0)
    assert swap.held() == [995, 1_000, 1_000, 1_000]
    swap.prepare(0)
    swap.prepare(1)  # with its deposit at once
    assert swap.held() == [895, 1_000, 1_000, 925]
    for index in range(2):
        swap.settle(index, COMMIT)
        swap.pay(index)
    assert swap.held() == [895, 1_100, 1_070, 925]
    for index in range(2):
        swap.pay(index)
        with chains[index].reverts("escrow: nothing locked"):
            swap.pay(index)
    assert swap.held() == [900, 1_100, 1_070, 930]


def test_a_deposit_of_who_did_not_lock_goes_to_who_did(chains: tuple[World, World]) -> None:
    swap = make_swap(chains, deposit=5)
    for index in range(2):
        swap.pledge(index)
    swap.prepare(0)
    with chains[1].reverts("escrow: not late"):
        swap.compensate(1, 0)
    swap.settle(0, ABORT, 2)
    swap.settle(1, ABORT, 2)
    swap.pay(0)
    with chains[1].reverts("escrow: deposit is lost"):
        swap.pay(1)
    with chains[1].reverts("escrow: flow is settled"):
        swap.escape(1)
    with chains[1].reverts("escrow: no heir"):
        swap.compensate(1, 1)
    with chains[0].reverts("escrow: not late"):
        swap.compensate(0, 1)
    with chains[1].reverts("escrow: no such leg"):
        swap.compensate(1, 2)
    swap.compensate(1, 0)
    assert swap.held() == [1_000, 1_000, 1_005, 995]
    with chains[1].reverts("escrow: paid already"):
        swap.compensate(1, 0)


def test_a_lost_deposit_is_shared_to_the_wei(chains: tuple[World, World]) -> None:
    here = chains[0]
    payers = ("alice", "bob", "alice", "carol", "alice")
    here.call("DevToken", "mint", here.actor("carol"), 1_000)
    here.call("DevToken", "approve", here.at["Escrow"], 1_000, sender="carol")
    base = make_swap(chains, deposit=7).legs[0]
    legs = [replace(base, payer=here.actor(who), amount=at + 1) for at, who in enumerate(payers)]
    terms = Terms(EPOCH, 0, here.now + ARM_S, here.now + LOCK_S)
    flow = Flow.of(NETWORK, terms, legs)
    for index, who in enumerate(payers):
        function = "pledge" if index == 1 else "prepare"
        here.call("Escrow", function, *flow.entry(index), sender=who)
    leaf = leaves.flow_outcome_leaf(*here.place("Escrow"), flow=flow.id, outcome=ABORT, late=2)
    sealed = here.seal(leaf)
    here.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), flow.id, ABORT, 2)
    structs = [leg.struct for leg in flow.legs]
    shares = []
    for heir in (4, 0, 3, 2):
        receipt = here.call("Escrow", "compensate", terms.struct, structs, 1, heir)
        (event,) = here.events(receipt, "Escrow", "Compensated")
        shares.append(event["amount"])
    assert sorted(shares) == [1, 2, 2, 2]
    with here.reverts("escrow: not late"):  # not with other terms, whatever they say
        other = (EPOCH, 1, *terms.struct[2:])
        here.call("Escrow", "compensate", other, structs, 1, 0)
    with here.reverts("escrow: no such leg"):  # nor with the legs in another order
        here.call("Escrow", "compensate", terms.struct, structs[::-1], 1, 0)


def test_a_leg_is_paid_into_a_margin_account(chains: tuple[World, World]) -> None:
    here = chains[0]
    account = account_id(here.actor("bob"))
    base = make_swap(chains).legs[0]
    leg = replace(base, receiver=account, vault=here.at["Vault"])
    terms = Terms(EPOCH, 0, 0, here.now + LOCK_S)
    made = Flow.of(NETWORK, terms, [leg])
    flow = here.call("Escrow", "prepare", *made.entry(0), sender="alice").value
    leaf = leaves.flow_outcome_leaf(*here.place("Escrow"), flow=flow, outcome=COMMIT, late=0)
    sealed = here.seal(leaf)
    here.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), flow, COMMIT, 0)
    here.call("Escrow", "pay", flow, leg.struct)
    assert here.call("Vault", "balance_of", account, here.at["DevToken"]).value == 100
    bad = replace(base, receiver=account)  # an account is no address
    with here.reverts("escrow: bad receiver"):
        entry = Flow.of(NETWORK, terms, [bad]).entry(0)
        here.call("Escrow", "prepare", *entry, sender="alice")


def test_the_escape_is_for_a_quorum_that_is_lost(chains: tuple[World, World]) -> None:
    swap = make_swap(chains)
    swap.prepare(0)
    chains[0].mine(ESCAPE)
    swap.escape(0)
    assert swap.held()[0] == 1_000
    # what it trades: an outcome that comes after all finds this leg gone
    swap.settle(0, COMMIT)
    with chains[0].reverts("escrow: nothing locked"):
        swap.pay(0)


def test_the_escape_gives_a_deposit_back_too(chains: tuple[World, World]) -> None:
    swap = make_swap(chains, deposit=5)
    swap.pledge(0)
    with chains[0].reverts("escrow: still waiting"):
        swap.escape(0)
    chains[0].mine(ESCAPE)
    swap.escape(0)
    assert swap.held() == [1_000] * 4
    with chains[0].reverts("escrow: nothing locked"):
        swap.escape(0)


def test_ids_are_those_of_python(chains: tuple[World, World]) -> None:
    swap, here = make_swap(chains, deposit=3), chains[0]
    leg = replace(swap.legs[1], vault=b"\x01" * 20, market=b"\x02" * 32)
    assert here.call("Escrow", "leg_hash", leg.struct).value == leg.hash
    for count in range(1, 17):
        flow = Flow.of(NETWORK, swap.terms, [replace(leg, amount=at + 1) for at in range(count)])
        structs = [one.struct for one in flow.legs]
        assert here.call("Escrow", "flow_id", flow.terms.struct, structs).value == flow.id


def lock(world: World, token: str, amount: int) -> Flow:
    leg = Leg(
        chain=ChainId(world.chain),
        escrow=world.at["Escrow"],
        payer=world.actor("alice"),
        token=world.at[token],
        amount=amount,
        receiver=word(world.actor("bob")),
    )
    world.call(token, "mint", world.actor("alice"), amount)
    world.call(token, "approve", world.at["Escrow"], amount, sender="alice")
    flow = Flow.of(NETWORK, Terms(EPOCH, 0, 0, world.now + LOCK_S), [leg])
    world.call("Escrow", "prepare", *flow.entry(0), sender="alice")
    return flow


def test_hostile_tokens_find_no_hole(chains: tuple[World, World]) -> None:
    world = chains[0]
    world.deploy_source("FeeToken", HOSTILE / "FeeToken.vy", 1)
    with world.reverts("escrow: token takes a fee"):
        lock(world, "FeeToken", 10)
    world.deploy_source("ReentrantToken", HOSTILE / "ReentrantToken.vy")
    locked = lock(world, "ReentrantToken", 10)
    flow, leg = locked.id, locked.legs[0]
    leaf = leaves.flow_outcome_leaf(*world.place("Escrow"), flow=flow, outcome=COMMIT, late=0)
    sealed = world.seal(leaf)
    world.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), flow, COMMIT, 0)
    again = encode_call("Escrow", "pay", flow, leg.struct)
    world.call("ReentrantToken", "arm", world.at["Escrow"], again)
    world.call("Escrow", "pay", flow, leg.struct)
    assert world.call("ReentrantToken", "successes").value == 0
    assert world.call("ReentrantToken", "balanceOf", world.actor("bob")).value == 10
