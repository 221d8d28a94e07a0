"""A certificate of an outcome replayed where it tempts most: on a twin, in the next epoch."""

from collections.abc import Iterator
from typing import Any

import pytest
from coincurve import PrivateKey

from keeper import leaves
from keeper.hashing import abi_hash, keccak
from keeper.units import ChainId
from keeper.venue.escrow import Flow, Leg, Terms
from keeper.venue.records import word
from tests.support.contracts import EPOCH, NETWORK, World, members
from tests.support.flow_net import FIRST, rolled_back, small_world

COMMIT, ABORT = 1, 2
NEXT = PrivateKey(keccak(b"next committee"))


@pytest.fixture(scope="module")
def built() -> tuple[World, World]:
    """Two chains whose contracts have the very same addresses, as one deployer's often have."""
    here, there = small_world(FIRST), small_world(FIRST)
    there.env.evm.patch.chain_id = FIRST + 1
    assert here.at == there.at
    return here, there


@pytest.fixture
def twins(built: tuple[World, World]) -> Iterator[tuple[World, World]]:
    with rolled_back(built):
        yield built


def opened(worlds: tuple[World, ...], number: int = 0) -> Flow:
    """Alice pays bob 10 on each chain; every leg is locked."""
    legs = [
        Leg(
            chain=ChainId(world.chain),
            escrow=world.at["Escrow"],
            payer=world.actor("alice"),
            token=world.at["DevToken"],
            amount=10,
            receiver=word(world.actor("bob")),
        )
        for world in worlds
    ]
    flow = Flow.of(NETWORK, Terms(EPOCH, number, 0, worlds[0].now + 600), legs)
    for at, world in enumerate(worlds):
        world.call("Escrow", "prepare", *flow.entry(at), sender="alice")
    return flow


def leaf_of(world: World, flow: Flow, outcome: int = COMMIT, epoch: int = EPOCH) -> bytes:
    place = world.place("Escrow", epoch)
    return leaves.flow_outcome_leaf(*place, flow=flow.id, outcome=outcome, late=0)


def test_a_twins_certificate_is_none_here(twins: tuple[World, World]) -> None:
    here, there = twins
    flow = opened(twins)
    leaf = leaf_of(there, flow)
    sealed = here.seal(leaf)
    with here.reverts("escrow: not in the root"):
        here.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), flow.id, COMMIT, 0)
    there.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), flow.id, COMMIT, 0)
    assert here.call("Escrow", "outcome", flow.id).value == 0
    # nor is the twin's leg one of this chain's
    with here.reverts("escrow: another leg"):
        here.call("Escrow", "prepare", *flow.entry(1), sender="alice")


def hand_over(world: World) -> None:
    """Seat a committee of the next epoch; the first one's key lives on for a while."""
    change: dict[str, Any] = {
        "next_epoch": EPOCH + 1,
        "group_key": int.from_bytes(NEXT.public_key.format()[1:], "big"),
        "config": keccak(b"next config"),
        "members_hash": abi_hash(("address[]",), (members(),)),
        "old_expiry": world.block + 40,
    }
    leaf = leaves.committee_change_leaf(*world.place("Committee"), **change)
    sealed = world.seal(leaf)
    world.call("Committee", "propose_change", sealed.seal, sealed.proof(leaf), (*change.values(),))
    world.mine(10)
    world.call("Committee", "activate", members())


def test_a_leaf_of_one_epoch_is_none_of_the_next(twins: tuple[World, World]) -> None:
    """The next committee's own seal does not carry what the first decided, nor the reverse."""
    here = twins[0]
    flow = opened((here,))
    hand_over(here)
    old, new = leaf_of(here, flow), leaf_of(here, flow, ABORT, EPOCH + 1)
    for leaf, sealed in (
        (old, here.seal(old, epoch=EPOCH + 1, key=NEXT)),
        (new, here.seal(new)),
    ):
        for outcome in (COMMIT, ABORT):
            with here.reverts("escrow: not in the root"):
                here.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), flow.id, outcome, 0)
    leaf = leaf_of(here, flow, epoch=EPOCH + 1)
    sealed = here.seal(leaf, epoch=EPOCH + 1)
    with here.reverts("seal: not valid"):  # the first one's key for the next
        here.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), flow.id, COMMIT, 0)
    sealed = here.seal(leaf, epoch=EPOCH + 1, key=NEXT)
    here.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), flow.id, COMMIT, 0)


def test_a_seal_of_an_expired_epoch_settles_nothing(twins: tuple[World, World]) -> None:
    here = twins[0]
    flows = [opened((here,), number) for number in range(2)]
    hand_over(here)
    proofs = [(leaf, here.seal(leaf)) for leaf in (leaf_of(here, flow) for flow in flows)]
    calls = [
        ("Escrow", "settle", sealed.seal, sealed.proof(leaf), flow.id, COMMIT, 0)
        for flow, (leaf, sealed) in zip(flows, proofs, strict=True)
    ]
    here.call(*calls[0])
    here.mine(41)
    with here.reverts("seal: not valid"):
        here.call(*calls[1])
