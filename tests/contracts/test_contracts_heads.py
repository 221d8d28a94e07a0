"""A member's signed head that is not this chain's block is confirmed here, and nobody else's."""

from typing import Any

import pytest

from keeper.compete.heads import FalseHead, contradicted
from keeper.hashing import keccak
from keeper.observe.observation import ObservationBody, SeenHead, encode
from keeper.units import ChainId
from p2p.agreement.signing import EcdsaSigner, sign_observation
from p2p.types import Committee, Member, SignedObservation
from tests.support.contracts import EPOCH, NETWORK, World, members

TRUE, FALSE = keccak(b"true"), keccak(b"false")


@pytest.fixture
def past(world: World) -> World:
    """A chain that remembers 256 blocks, all of one hash."""
    world.env.evm.patch.prev_hashes = [TRUE] * 256
    return world


def signed(
    world: World, block_hash: bytes, who: str = "operator 1", config: bytes = b"config"
) -> SignedObservation:
    """Return an observation of three heads, the second of which is of this chain."""
    signer = EcdsaSigner(World.key(who))
    seats = tuple(Member(address, address) for address in {*members(), signer.address})
    committee = Committee(NETWORK, EPOCH, seats, keccak(b"parameters"))
    object.__setattr__(committee, "config", keccak(config))  # the one on the chain, or another
    heads = tuple(
        SeenHead(ChainId(chain), number, hashed, bytes(32), 1_700_000_000)
        for chain, number, hashed in (
            (0, 5, keccak(b"elsewhere")),
            (world.chain, world.block - 3, block_hash),
            (world.chain + 1, 5, keccak(b"elsewhere")),
        )
    )
    body = ObservationBody(9, heads)
    return sign_observation(committee, signer, 9, body.roots(), encode(body))


def found(world: World, observation: SignedObservation) -> FalseHead:
    """Return the evidence as a keeper finds it that follows this chain alone."""
    (one,) = contradicted(
        [observation], lambda chain, number: keccak(b"own") if chain == world.chain else None
    )
    return one


def accuse(world: World, one: FalseHead) -> list[dict[str, Any]]:
    receipt = world.call("Committee", "accuse_head", *one.arguments())
    return world.events(receipt, "Committee", "FalseHead")


def test_a_false_head_is_found_and_confirmed_by_the_chain(past: World) -> None:
    (event,) = accuse(past, found(past, signed(past, FALSE)))
    assert bytes.fromhex(event["member"][2:]) == past.actor("operator 1")
    assert (event["head"], event["number"]) == (FALSE, past.block - 3)


def test_a_right_head_accuses_nobody(past: World) -> None:
    right = signed(past, TRUE)
    assert list(contradicted([right], lambda chain, number: None)) == []
    assert list(contradicted([right], lambda c, n: TRUE if c == past.chain else None)) == []
    with past.reverts("heads: the head is right"):  # whoever follows a lying endpoint learns it
        accuse(past, found(past, right))


def test_only_a_member_is_accused_by_what_it_signed(past: World) -> None:
    with past.reverts("committee: not a member"):
        accuse(past, found(past, signed(past, FALSE, who="stranger")))
    with past.reverts("committee: not a member"):
        accuse(past, found(past, signed(past, FALSE, config=b"another network")))
    one = found(past, signed(past, FALSE))
    observation, signature, *rest = one.arguments()
    assert isinstance(observation, tuple)
    later = (*observation[:2], 10, *observation[3:])
    with pytest.raises(Exception, match=r"not a member|bad signature"):
        past.call("Committee", "accuse_head", later, signature, *rest)
