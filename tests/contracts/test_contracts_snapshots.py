"""Roots are accepted only by a seal or a certificate of a committee that has not expired."""

from dataclasses import replace
from typing import Any

import pytest
from coincurve import PrivateKey

from keeper import leaves
from keeper.hashing import abi_hash, keccak, type_hash
from tests.support.contracts import (
    EPOCH,
    MEMBERS,
    NETWORK,
    Sealed,
    World,
    compact,
    make_seal,
    members,
    vote_digest,
)


def check(world: World, seal: tuple[Any, ...]) -> bool:
    return bool(world.call("Snapshots", "check", seal).value)


def test_a_seal_is_accepted_and_kept_once(world: World) -> None:
    sealed = world.seal()
    assert check(world, sealed.seal)
    first = world.call("Snapshots", "ensure", sealed.seal)
    (event,) = world.events(first, "Snapshots", "Accepted")
    assert event == {"view": world.view, "epoch": EPOCH, "root": sealed.seal[2]}
    again = world.call("Snapshots", "ensure", sealed.seal)
    assert not again.logs
    assert world.call("Snapshots", "root_of", EPOCH, world.view).value == sealed.seal[2]


@pytest.mark.parametrize("index", range(6))
def test_a_seal_with_any_field_changed_is_refused(world: World, index: int) -> None:
    seal = list(world.seal().seal)
    seal[index] = bytes(31) + b"\x01" if index == 2 else seal[index] ^ 2
    with world.reverts("snapshots: bad seal"):
        check(world, tuple(seal))
    with world.reverts("snapshots: bad seal"):
        world.call("Snapshots", "ensure", tuple(seal))


def test_another_groups_seal_is_refused(world: World) -> None:
    sealed = world.seal(key=PrivateKey(keccak(b"thief")))
    with world.reverts("snapshots: bad seal"):
        check(world, sealed.seal)


def test_a_second_root_in_one_view_is_refused(world: World) -> None:
    sealed = world.seal()
    world.call("Snapshots", "ensure", sealed.seal)
    other = make_seal(world.group, EPOCH, world.view, keccak(b"other root"))
    with world.reverts("snapshots: another root"):
        world.call("Snapshots", "ensure", other)


def test_a_kept_root_needs_no_signature(world: World) -> None:
    sealed = world.seal()
    bare = (*sealed.seal[:3], 0, 0, 0)
    with world.reverts("snapshots: unknown root"):
        check(world, bare)
    with world.reverts("snapshots: unknown root"):
        world.call("Snapshots", "ensure", bare)
    world.call("Snapshots", "ensure", sealed.seal)
    assert check(world, bare)
    with world.reverts("snapshots: unknown root"):
        check(world, (EPOCH, world.view, keccak(b"x"), 0, 0, 0))


def test_the_empty_root_is_never_sealed(world: World) -> None:
    with world.reverts("snapshots: empty root"):
        check(world, (EPOCH, 99, bytes(32), 0, 0, 0))


def test_a_leaf_is_proven_under_a_kept_root(world: World) -> None:
    leaf = keccak(b"leaf")
    sealed = world.seal(leaf, keccak(b"b"), keccak(b"c"))
    proof = sealed.proof(leaf)
    ask = ("Snapshots", "proven", EPOCH, world.view)
    assert world.call(*ask, leaf, proof).value is False
    world.call("Snapshots", "ensure", sealed.seal)
    assert world.call(*ask, leaf, proof).value is True
    assert world.call(*ask, keccak(b"no leaf"), proof).value is False
    assert world.call(*ask, leaf, proof[1:]).value is False


def expire_epoch(world: World) -> None:
    """Rotate to a second committee and let the first one's grace pass."""
    config, key = keccak(b"second config"), PrivateKey(keccak(b"second"))
    group_key = int.from_bytes(key.public_key.format()[1:], "big")
    change: dict[str, Any] = {
        "next_epoch": EPOCH + 1,
        "group_key": group_key,
        "config": config,
        "members_hash": abi_hash(("address[]",), (members(),)),
        "old_expiry": world.block + 20,
    }
    leaf = leaves.committee_change_leaf(*world.place("Committee"), **change)
    sealed = world.seal(leaf)
    world.call("Committee", "propose_change", sealed.seal, sealed.proof(leaf), (*change.values(),))
    world.mine(10)
    world.call("Committee", "activate", members())
    world.mine(20)


def test_nothing_of_an_expired_epoch_counts_even_if_kept(world: World) -> None:
    sealed = world.seal()
    world.call("Snapshots", "ensure", sealed.seal)
    expire_epoch(world)
    with world.reverts("snapshots: bad seal"):
        check(world, sealed.seal)
    with world.reverts("snapshots: expired epoch"):
        check(world, (*sealed.seal[:3], 0, 0, 0))
    with world.reverts("snapshots: expired epoch"):
        world.call("Snapshots", "ensure", sealed.seal)
    assert world.call("Snapshots", "proven", EPOCH, world.view, sealed.leaves[0], ()).value is False
    second = world.seal(epoch=EPOCH + 1, key=PrivateKey(keccak(b"second")))
    assert check(world, second.seal)


def certificate(world: World, view: int, signers: int, **changes: Any) -> tuple[Any, ...]:
    """Return the arguments of `ensure_votes` for a block with a root of that view."""
    root, parent, body = keccak(b"root"), keccak(b"parent"), keccak(b"body")
    name = type_hash(
        "Block(uint64 parentView,bytes32 parent,uint64 tick,bytes32 bodyHash,bytes32 root)"
    )
    kinds = ("bytes32", "uint64", "bytes32", "uint64", "bytes32", "bytes32")
    block = abi_hash(kinds, (name, view - 1, parent, 5, body, root))
    digest = vote_digest(EPOCH, keccak(b"config"), changes.get("kind", 3), view, block)
    sigs = [compact(World.key(f"operator {i}"), digest) for i in range(signers)]
    return (EPOCH, view, root, view - 1, parent, 5, body, (1 << signers) - 1, sigs)


def test_a_finality_certificate_stands_for_a_seal(world: World) -> None:
    quorum = 3
    world.call("Snapshots", "ensure_votes", *certificate(world, 7, quorum))
    assert check(world, (EPOCH, 7, keccak(b"root"), 0, 0, 0))
    again = world.call("Snapshots", "ensure_votes", *certificate(world, 7, MEMBERS))
    assert not again.logs


def test_too_few_votes_or_votes_of_another_kind_are_refused(world: World) -> None:
    for bad in (certificate(world, 7, 2), certificate(world, 7, 3, kind=1)):
        with world.reverts("snapshots: bad certificate"):
            world.call("Snapshots", "ensure_votes", *bad)


def header(world: World, text: bytes) -> tuple[bytes, Sealed, bytes]:
    """Return (header hash, seal, leaf) of the next view."""
    hashed = keccak(text)
    leaf = leaves.header_leaf(NETWORK, EPOCH, world.view + 1, hashed)
    return hashed, world.seal(leaf), leaf


def test_headers_only_go_forward(world: World) -> None:
    first, second = header(world, b"first"), header(world, b"second")
    for hashed, sealed, leaf in (second,):
        world.call("Snapshots", "record_header", sealed.seal, sealed.proof(leaf), hashed)
    assert world.call("Snapshots", "latest").values == (EPOCH, world.view, keccak(b"second")) or (
        world.call("Snapshots", "latest").value == (EPOCH, world.view, keccak(b"second"))
    )
    hashed, sealed, leaf = first
    with world.reverts("snapshots: not later"):
        world.call("Snapshots", "record_header", sealed.seal, sealed.proof(leaf), hashed)
    with world.reverts("snapshots: not in the root"):
        world.call("Snapshots", "record_header", sealed.seal, sealed.proof(leaf), keccak(b"lie"))


def test_a_header_of_another_view_does_not_fit_the_seal(world: World) -> None:
    hashed = keccak(b"header")
    leaf = leaves.header_leaf(NETWORK, EPOCH, world.view + 2, hashed)
    sealed = world.seal(leaf)
    with world.reverts("snapshots: not in the root"):
        world.call("Snapshots", "record_header", sealed.seal, sealed.proof(leaf), hashed)
    moved = replace(sealed, seal=(sealed.seal[0], world.view + 1, *sealed.seal[2:]))
    with world.reverts("snapshots: bad seal"):
        world.call("Snapshots", "record_header", moved.seal, moved.proof(leaf), hashed)
