"""Legs of a flow on two chains all happen or none, whoever is offline, by one sealed outcome."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from keeper import leaves
from keeper.contracts import encode_call
from keeper.hashing import keccak
from tests.support.contracts import NETWORK, Receipt, World, build_world

HOSTILE = Path(__file__).parent / "hostile"
COMMIT, ABORT = 1, 2
ESCAPE = 1_000
NONCE = keccak(b"nonce")


@pytest.fixture
def chains(world: World) -> tuple[World, World]:
    """Two chains of one network with an escrow each; alice and bob hold tokens on both."""
    other = build_world()
    other.env.evm.patch.chain_id = world.chain + 1
    other.deploy("DevToken", "Padding", "PAD", 6, alias="Padding")  # another address than here
    for chain in (world, other):
        chain.deploy("Escrow", chain.at["Snapshots"], ESCAPE)
        for who in ("alice", "bob"):
            chain.call("DevToken", "mint", chain.actor(who), 1_000)
            chain.call("DevToken", "approve", chain.at["Escrow"], 1_000, sender=who)
    return world, other


@dataclass(frozen=True)
class Swap:
    """Alice pays bob 100 on the first chain, bob pays alice 70 on the second."""

    chains: tuple[World, World]

    @property
    def legs(self) -> list[bytes]:
        rows = []
        for chain, (payer, receiver, amount) in zip(self.chains, self.terms, strict=True):
            leg = leaves.flow_leg_hash(
                chain.chain,
                chain.at["Escrow"],
                payer=chain.actor(payer),
                token=chain.at["DevToken"],
                amount=amount,
                receiver=chain.actor(receiver),
            )
            rows.append(leg)
        return rows

    terms = (("alice", "bob", 100), ("bob", "alice", 70))

    @property
    def id(self) -> bytes:
        return leaves.flow_id(NETWORK, NONCE, self.legs)

    def prepare(self, index: int, amount: int | None = None) -> Receipt:
        chain, (payer, receiver, due) = self.chains[index], self.terms[index]
        return chain.call(
            *("Escrow", "prepare", NONCE, self.legs, index, chain.at["DevToken"]),
            *(due if amount is None else amount, chain.actor(receiver)),
            sender=payer,
        )

    def settle(self, index: int, outcome: int) -> None:
        chain = self.chains[index]
        leaf = leaves.flow_outcome_leaf(*chain.place("Escrow"), flow=self.id, outcome=outcome)
        sealed = chain.seal(leaf)
        chain.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), self.id, outcome)

    def pay(self, index: int) -> None:
        self.chains[index].call("Escrow", "pay", self.id, index)

    def held(self) -> list[int]:
        """Tokens of (alice, bob) on the first chain, then on the second."""
        return [
            chain.call("DevToken", "balanceOf", chain.actor(who)).value
            for chain in self.chains
            for who in ("alice", "bob")
        ]


def test_commit_pays_every_leg(chains: tuple[World, World]) -> None:
    swap = Swap(chains)
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
    swap = Swap(chains)
    swap.prepare(0)
    swap.settle(0, ABORT)
    swap.settle(1, ABORT)
    swap.pay(0)
    assert swap.held() == [1_000] * 4
    # bob cannot lock himself into what is over
    with chains[1].reverts("escrow: flow is settled"):
        swap.prepare(1)


def test_a_side_that_is_offline_for_a_day_loses_nothing(chains: tuple[World, World]) -> None:
    swap = Swap(chains)
    swap.prepare(0)
    swap.prepare(1)
    swap.settle(0, COMMIT)
    swap.pay(0)
    chains[1].mine(ESCAPE - 1)
    with chains[1].reverts("escrow: still waiting"):
        chains[1].call("Escrow", "escape", swap.id, 1)
    swap.settle(1, COMMIT)
    chains[1].mine(ESCAPE)
    with chains[1].reverts("escrow: flow is settled"):
        chains[1].call("Escrow", "escape", swap.id, 1)
    swap.pay(1)
    assert swap.held() == [900, 1_100, 1_070, 930]


def test_the_first_outcome_is_the_last(chains: tuple[World, World]) -> None:
    swap = Swap(chains)
    swap.prepare(0)
    swap.settle(0, COMMIT)
    for outcome in (ABORT, COMMIT):
        with chains[0].reverts("escrow: flow is settled"):
            swap.settle(0, outcome)
    with chains[1].reverts("escrow: no such outcome"):
        swap.settle(1, 3)


def test_an_outcome_of_another_chain_flow_or_kind_is_refused(chains: tuple[World, World]) -> None:
    swap = Swap(chains)
    swap.prepare(0)
    here, there = chains
    leaf = leaves.flow_outcome_leaf(*there.place("Escrow"), flow=swap.id, outcome=COMMIT)
    sealed = here.seal(leaf)
    with here.reverts("escrow: not in the root"):
        here.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), swap.id, COMMIT)
    leaf = leaves.flow_outcome_leaf(*here.place("Escrow"), flow=swap.id, outcome=COMMIT)
    sealed = here.seal(leaf)
    for flow, outcome in ((swap.id, ABORT), (keccak(b"other flow"), COMMIT)):
        with here.reverts("escrow: not in the root"):
            here.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), flow, outcome)
    here.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), swap.id, COMMIT)


def test_no_leg_is_slipped_in_or_changed(chains: tuple[World, World]) -> None:
    swap, here = Swap(chains), chains[0]
    with here.reverts("escrow: another leg"):
        swap.prepare(0, amount=99)
    token, bob = here.at["DevToken"], here.actor("bob")
    call = ("Escrow", "prepare", NONCE, swap.legs)
    with here.reverts("escrow: another leg"):
        here.call(*call, 0, token, 100, bob, sender="bob")
    with here.reverts("escrow: another leg"):
        here.call(*call, 1, token, 100, bob, sender="alice")
    with here.reverts("escrow: no such leg"):
        here.call(*call, 2, token, 100, bob, sender="alice")
    longer = here.call(
        *("Escrow", "prepare", NONCE, [*swap.legs, keccak(b"more")], 0, token, 100, bob),
        sender="alice",
    )
    assert longer.value != swap.id
    swap.prepare(0)
    with here.reverts("escrow: leg was prepared"):
        swap.prepare(0)


def test_the_escape_is_for_a_quorum_that_is_lost(chains: tuple[World, World]) -> None:
    swap = Swap(chains)
    swap.prepare(0)
    chains[0].mine(ESCAPE)
    chains[0].call("Escrow", "escape", swap.id, 0)
    assert swap.held()[0] == 1_000
    # what it trades: an outcome that comes after all finds this leg gone
    swap.settle(0, COMMIT)
    with chains[0].reverts("escrow: nothing locked"):
        swap.pay(0)


def test_ids_are_those_of_python(chains: tuple[World, World]) -> None:
    swap, here = Swap(chains), chains[0]
    args = (here.actor("alice"), here.at["DevToken"], 100, here.actor("bob"))
    assert here.call("Escrow", "leg_hash", *args).value == swap.legs[0]
    assert here.call("Escrow", "flow_id", NONCE, swap.legs).value == swap.id


def lock(world: World, token: str, amount: int) -> Receipt:
    leg = leaves.flow_leg_hash(
        world.chain,
        world.at["Escrow"],
        payer=world.actor("alice"),
        token=world.at[token],
        amount=amount,
        receiver=world.actor("bob"),
    )
    world.call(token, "mint", world.actor("alice"), amount)
    world.call(token, "approve", world.at["Escrow"], amount, sender="alice")
    args = (NONCE, [leg], 0, world.at[token], amount, world.actor("bob"))
    return world.call("Escrow", "prepare", *args, sender="alice")


def test_hostile_tokens_find_no_hole(chains: tuple[World, World]) -> None:
    world = chains[0]
    world.deploy_source("FeeToken", HOSTILE / "FeeToken.vy", 1)
    with world.reverts("escrow: token takes a fee"):
        lock(world, "FeeToken", 10)
    world.deploy_source("ReentrantToken", HOSTILE / "ReentrantToken.vy")
    flow = lock(world, "ReentrantToken", 10).value
    leaf = leaves.flow_outcome_leaf(*world.place("Escrow"), flow=flow, outcome=COMMIT)
    sealed = world.seal(leaf)
    world.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), flow, COMMIT)
    again = encode_call("Escrow", "pay", flow, 0)
    world.call("ReentrantToken", "arm", world.at["Escrow"], again)
    world.call("Escrow", "pay", flow, 0)
    assert world.call("ReentrantToken", "successes").value == 0
    assert world.call("ReentrantToken", "balanceOf", world.actor("bob")).value == 10
