"""A bond is taken by evidence alone, and leaves only after unbonding with nothing locked."""

from typing import Any

import pytest

from keeper import leaves
from keeper.hashing import abi_hash, keccak, leaf_hash, type_hash
from keeper.merkle import merkle_proof, merkle_root
from tests.support.contracts import (
    EPOCH,
    ETHER,
    NETWORK,
    Receipt,
    World,
    award_fields,
    award_tuple,
    compact,
    hexed,
    seal_award,
    typed_digest,
    vote_digest,
)

DAY = 86_400
CONFIG = keccak(b"config")
N, Z, F = 1, 2, 3
ONE, TWO, NONE = keccak(b"one"), keccak(b"two"), bytes(32)


@pytest.fixture
def bonds(world: World) -> World:
    """Three keepers with two coins each, and an admin each."""
    for i in range(3):
        join(world, i)
    return world


def join(world: World, i: int, value: int = 2 * ETHER) -> Receipt:
    admin = world.actor(f"admin {i}")
    return world.call("Bonds", "join", admin, b"peer", sender=f"keeper {i}", value=value)


def stake(world: World, i: int = 0) -> tuple[int, ...]:
    return tuple(world.call("Bonds", "stake", world.actor(f"keeper {i}")).value)


def coins(world: World, who: bytes) -> int:
    return int(world.env.get_balance(hexed(who)))


def vote(kind: int, digest: bytes, keeper: int = 0, **changes: Any) -> tuple[Any, ...]:
    values = {"epoch": EPOCH, "config": CONFIG, "view": 7, **changes}
    signed = vote_digest(values["epoch"], values["config"], kind, values["view"], digest)
    return (kind, digest, compact(World.key(f"keeper {keeper}"), signed))


def conflict(world: World, a: tuple[Any, ...], b: tuple[Any, ...]) -> Receipt:
    world.actor("reporter")
    return world.call("Bonds", "slash_conflict", EPOCH, CONFIG, 7, a, b, sender="reporter")


def lock(world: World, **changes: Any) -> Receipt:
    fields = award_fields(world, **changes)
    sealed, leaf = seal_award(world, fields)
    place = (world.chain, world.at["Awards"])
    return world.call(
        *("Bonds", "lock", sealed.seal, sealed.proof(leaf), *place, award_tuple(fields))
    )


def penalise(world: World, **changes: Any) -> Receipt:
    fields: dict[str, Any] = {
        "task": keccak(b"task"),
        "keeper": world.actor("keeper 0"),
        "amount": ETHER // 2,
        "beneficiary": world.actor("executor"),
        "nonce": 1,
        "expiry": world.block + 99,
        **changes,
    }
    leaf = leaves.penalty_leaf(*world.place("Bonds"), **fields)
    sealed = world.seal(leaf)
    return world.call("Bonds", "penalise", sealed.seal, sealed.proof(leaf), *fields.values())


def test_a_keeper_joins_with_its_worker_key_and_another_admin(world: World) -> None:
    made = join(world, 0)
    (event,) = world.events(made, "Bonds", "Bond")
    assert (event["amount"], event["locked"], event["status"]) == (2 * ETHER, 0, 1)
    assert world.events(made, "Bonds", "Peer")[0]["peer"] == b"peer"
    assert world.call("Bonds", "is_active", world.actor("keeper 0")).value is True
    with world.reverts("bonds: joined already"):
        join(world, 0)
    with world.reverts("bonds: below the minimum"):
        join(world, 1, ETHER - 1)
    worker = world.actor("keeper 1")
    for admin in (worker, bytes(20)):
        with world.reverts("bonds: admin must be another key"):
            world.call("Bonds", "join", admin, b"", sender="keeper 1", value=ETHER)


def test_anyone_may_add_to_a_bond_and_the_keeper_may_move_its_peer(bonds: World) -> None:
    keeper = bonds.actor("keeper 0")
    added = bonds.call("Bonds", "post", keeper, sender="friend", value=5)
    assert bonds.events(added, "Bonds", "Bond")[0]["amount"] == 2 * ETHER + 5
    with bonds.reverts("bonds: nothing posted"):
        bonds.call("Bonds", "post", keeper)
    with bonds.reverts("bonds: unknown keeper"):
        bonds.call("Bonds", "post", bonds.actor("nobody"), value=1)
    moved = bonds.call("Bonds", "register_peer", b"new", sender="keeper 0")
    assert bonds.events(moved, "Bonds", "Peer")[0]["peer"] == b"new"
    with bonds.reverts("bonds: unknown keeper"):
        bonds.call("Bonds", "register_peer", b"new", sender="nobody")


def test_leaving_takes_the_admin_and_fourteen_days(bonds: World) -> None:
    keeper, to = bonds.actor("keeper 0"), bonds.actor("payee")
    for sender in ("keeper 0", "deployer", "admin 1"):
        with bonds.reverts("bonds: not the admin"):
            bonds.call("Bonds", "leave", keeper, sender=sender)
    with bonds.reverts("bonds: leave first"):
        bonds.call("Bonds", "withdraw", keeper, to, sender="admin 0")
    bonds.call("Bonds", "leave", keeper, sender="admin 0")
    assert bonds.call("Bonds", "is_active", keeper).value is False
    with bonds.reverts("bonds: not staying"):
        bonds.call("Bonds", "leave", keeper, sender="admin 0")
    bonds.mine(1, 14 * DAY - 1)
    with bonds.reverts("bonds: still unbonding"):
        bonds.call("Bonds", "withdraw", keeper, to, sender="admin 0")
    bonds.mine(1, 1)
    with bonds.reverts("bonds: not the admin"):
        bonds.call("Bonds", "withdraw", keeper, to, sender="keeper 0")
    before = coins(bonds, to)
    bonds.call("Bonds", "withdraw", keeper, to, sender="admin 0")
    assert coins(bonds, to) - before == 2 * ETHER
    with bonds.reverts("bonds: leave first"):
        bonds.call("Bonds", "withdraw", keeper, to, sender="admin 0")
    join(bonds, 0)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((N, ONE), (N, TWO)),
        ((F, ONE), (F, TWO)),
        ((N, ONE), (F, TWO)),
        ((F, TWO), (N, ONE)),
        ((Z, NONE), (F, ONE)),
        ((F, ONE), (Z, NONE)),
    ],
)
def test_conflicting_votes_take_the_bond(
    bonds: World, a: tuple[int, bytes], b: tuple[int, bytes]
) -> None:
    before = coins(bonds, bonds.actor("reporter"))
    done = conflict(bonds, vote(*a), vote(*b))
    (event,) = bonds.events(done, "Bonds", "Slashed")
    assert event["amount"] == 2 * ETHER
    assert stake(bonds)[:2] == (0, 0)
    assert stake(bonds)[4] == 4
    assert coins(bonds, bonds.actor("reporter")) - before == ETHER // 5
    assert bonds.call("Bonds", "insurance").value == 2 * ETHER - ETHER // 5
    with bonds.reverts("bonds: tombstoned already"):
        conflict(bonds, vote(*a), vote(*b))
    with bonds.reverts("bonds: joined already"):
        join(bonds, 0)
    with bonds.reverts("bonds: tombstoned"):
        bonds.call("Bonds", "post", bonds.actor("keeper 0"), value=1)


@pytest.mark.parametrize(
    ("a", "b", "reason"),
    [
        ((N, ONE), (N, ONE), "bonds: no conflict"),
        ((N, ONE), (F, ONE), "bonds: no conflict"),
        ((N, ONE), (Z, NONE), "bonds: no conflict"),
        ((Z, NONE), (Z, NONE), "bonds: no conflict"),
        ((4, ONE), (N, TWO), "bonds: no such vote"),
        ((0, ONE), (F, TWO), "bonds: no such vote"),
        ((Z, ONE), (F, TWO), "bonds: nullify has no digest"),
    ],
)
def test_votes_an_honest_keeper_can_sign_are_no_evidence(
    bonds: World, a: tuple[int, bytes], b: tuple[int, bytes], reason: str
) -> None:
    with bonds.reverts(reason):
        conflict(bonds, vote(*a), vote(*b))
    assert stake(bonds)[0] == 2 * ETHER


@pytest.mark.parametrize("changes", [{"view": 8}, {"epoch": 2}, {"config": keccak(b"x")}])
def test_votes_of_two_views_epochs_or_configs_are_no_evidence(
    bonds: World, changes: dict[str, Any]
) -> None:
    a, b = vote(N, ONE), vote(N, TWO, **changes)
    with pytest.raises(Exception, match="two signers"):
        conflict(bonds, a, b)


def test_votes_of_two_keepers_or_of_a_stranger_are_no_evidence(bonds: World) -> None:
    with bonds.reverts("bonds: two signers"):
        conflict(bonds, vote(N, ONE, 0), vote(N, TWO, 1))
    with bonds.reverts("bonds: unknown keeper"):
        conflict(bonds, vote(N, ONE, 9), vote(N, TWO, 9))


def test_a_high_s_is_refused(bonds: World) -> None:
    # the compact form leaves room for few of them; the contract refuses those too
    half_order = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
    high = (N, ONE, (keccak(b"r"), (half_order + 1).to_bytes(32, "big")))
    with bonds.reverts("heads: high s"):
        conflict(bonds, high, vote(N, TWO))
    nothing = (N, ONE, (bytes(32), (1).to_bytes(32, "big")))
    with bonds.reverts("heads: bad signature"):
        conflict(bonds, nothing, vote(N, TWO))


def test_leaving_does_not_save_an_equivocator(bonds: World) -> None:
    keeper = bonds.actor("keeper 0")
    bonds.call("Bonds", "leave", keeper, sender="admin 0")
    conflict(bonds, vote(N, ONE), vote(N, TWO))
    bonds.mine(1, 15 * DAY)
    with bonds.reverts("bonds: nothing left"):
        bonds.call("Bonds", "withdraw", keeper, bonds.actor("payee"), sender="admin 0")


def observe(world: World, number: int, hashed: bytes) -> tuple[Any, ...]:
    """Return (observation, signature, number, hash, proof) of keeper 0's signed head."""
    name = "Head(uint64 chain,uint64 number,bytes32 hash)"
    types = ("uint64", "uint64", "bytes32")
    rows = [
        leaf_hash(name, types, (world.chain, number, hashed)),
        leaf_hash(name, types, (world.chain + 1, 5, keccak(b"elsewhere"))),
        keccak(b"third"),
    ]
    observation = (EPOCH, CONFIG, 9, merkle_root(rows), keccak(b"prices"), keccak(b"rest"))
    kinds = ("bytes32", "uint32", "bytes32", "uint64", "bytes32", "bytes32", "bytes32")
    type_string = (
        "Observation(uint32 epoch,bytes32 config,uint64 tick,"
        "bytes32 headsRoot,bytes32 pricesRoot,bytes32 restRoot)"
    )
    signed = typed_digest(abi_hash(kinds, (type_hash(type_string), *observation)))
    sig = compact(world.key("keeper 0"), signed)
    return observation, sig, number, hashed, merkle_proof(rows, 0)


def remember(world: World, hashes: dict[int, bytes]) -> None:
    """Give the chain's last 256 blocks known hashes."""
    past = [hashes.get(world.block - 1 - i, keccak(b"block")) for i in range(256)]
    world.env.evm.patch.prev_hashes = past


def test_a_signed_head_the_chain_contradicts_takes_the_bond(bonds: World) -> None:
    number = bonds.block - 3
    remember(bonds, {number: keccak(b"true")})
    right = observe(bonds, number, keccak(b"true"))
    with bonds.reverts("heads: the head is right"):
        bonds.call("Bonds", "slash_head", *right, sender="reporter")
    false = observe(bonds, number, keccak(b"false"))
    with bonds.reverts("heads: not in the observation"):
        bonds.call("Bonds", "slash_head", *false[:4], (), sender="reporter")
    with bonds.reverts("heads: not a past block"):
        bonds.call("Bonds", "slash_head", *observe(bonds, bonds.block, NONE), sender="reporter")
    bonds.actor("reporter")
    bonds.call("Bonds", "slash_head", *false, sender="reporter")
    assert stake(bonds)[0] == 0
    assert stake(bonds)[4] == 4


HISTORY = "0x0000F90827F1C53a10cb7A002335175320002935"


def test_older_heads_are_judged_by_the_history_contract(bonds: World) -> None:
    # EIP-2935 keeps 8,191 hashes; here its place is taken by code that answers one word
    bonds.mine(1_000)
    number = bonds.block - 500
    answer = keccak(b"true")
    code = b"\x7f" + answer + bytes.fromhex("5f5260205ff3")
    bonds.env.set_code(HISTORY, code)
    bonds.actor("reporter")
    with bonds.reverts("heads: the head is right"):
        bonds.call("Bonds", "slash_head", *observe(bonds, number, answer), sender="reporter")
    bonds.env.set_code(HISTORY, b"\x7f" + bytes(32) + bytes.fromhex("5f5260205ff3"))
    false = observe(bonds, number, keccak(b"false"))
    with bonds.reverts("heads: history too short"):
        bonds.call("Bonds", "slash_head", *false, sender="reporter")
    bonds.env.set_code(HISTORY, code)
    bonds.call("Bonds", "slash_head", *false, sender="reporter")
    assert stake(bonds)[4] == 4


def test_a_head_shown_with_another_observation_names_nobody(bonds: World) -> None:
    number = bonds.block - 3
    remember(bonds, {number: keccak(b"true")})
    observation, sig, *rest = observe(bonds, number, keccak(b"false"))
    forged = (*observation[:2], 10, *observation[3:])
    with pytest.raises(Exception, match=r"unknown keeper|bad signature"):
        bonds.call("Bonds", "slash_head", forged, sig, *rest)


def test_no_shows_jail_and_time_frees(bonds: World) -> None:
    for i in range(3):
        penalise(bonds, task=keccak(bytes([i])), amount=ETHER // 10, nonce=i)
    assert stake(bonds)[3:] == (3, 3)
    keeper = bonds.actor("keeper 0")
    assert bonds.call("Bonds", "is_active", keeper).value is False
    with bonds.reverts("bonds: still jailed"):
        bonds.call("Bonds", "unjail", keeper, sender="admin 0")
    bonds.mine(1, DAY)
    with bonds.reverts("bonds: not the admin"):
        bonds.call("Bonds", "unjail", keeper, sender="keeper 0")
    bonds.call("Bonds", "unjail", keeper, sender="admin 0")
    assert bonds.call("Bonds", "is_active", keeper).value is True
    with bonds.reverts("bonds: not jailed"):
        bonds.call("Bonds", "unjail", keeper, sender="admin 0")


def test_a_penalty_is_taken_once_and_never_more_than_the_bond(bonds: World) -> None:
    penalise(bonds)
    assert stake(bonds)[0] == 2 * ETHER - ETHER // 2
    for nonce in (1, 2):
        with bonds.reverts("bonds: punished already"):
            penalise(bonds, nonce=nonce)
    penalise(bonds, task=keccak(b"2"), amount=99 * ETHER)
    assert stake(bonds)[0] == 0
    claimable = bonds.call("Bonds", "claimable", bonds.actor("executor")).value
    assert claimable + bonds.call("Bonds", "insurance").value == 2 * ETHER
    with bonds.reverts("bonds: below the minimum"):
        penalise(bonds, task=keccak(b"3"), amount=1)
        bonds.mine(1, DAY)
        bonds.call("Bonds", "unjail", bonds.actor("keeper 0"), sender="admin 0")


def test_a_penalty_that_expired_has_no_effect(bonds: World) -> None:
    with bonds.reverts("bonds: decision expired"):
        penalise(bonds, expiry=bonds.block - 1)
    assert stake(bonds)[0] == 2 * ETHER
    penalise(bonds, expiry=bonds.block)
    assert stake(bonds)[0] == 2 * ETHER - ETHER // 2


def test_no_show_is_only_for_awards(bonds: World) -> None:
    call = ("Bonds", "no_show", keccak(b"t"), bonds.actor("keeper 0"), 1, bonds.actor("thief"))
    for sender in ("thief", "deployer", "admin 0"):
        with bonds.reverts("bonds: only awards"):
            bonds.call(*call, sender=sender)
    for sender in ("thief", "deployer"):
        with bonds.reverts("bonds: not the deployer"):
            bonds.call("Bonds", "bind", bonds.actor("thief"), sender=sender)


def test_locks_never_exceed_the_bond_and_keep_it_in(bonds: World) -> None:
    lock(bonds, task=keccak(b"1"), lock=ETHER + 1)
    assert stake(bonds)[1] == ETHER + 1
    with bonds.reverts("bonds: locks exceed the bond"):
        lock(bonds, task=keccak(b"2"), lock=ETHER)
    lock(bonds, task=keccak(b"3"), lock=ETHER - 1)
    with bonds.reverts("bonds: task was locked"):
        lock(bonds, task=keccak(b"3"), lock=0)
    keeper, to = bonds.actor("keeper 0"), bonds.actor("payee")
    bonds.call("Bonds", "leave", keeper, sender="admin 0")
    bonds.mine(1, 14 * DAY)
    with bonds.reverts("bonds: locked"):
        bonds.call("Bonds", "withdraw", keeper, to, sender="admin 0")
    bonds.call("Bonds", "unlock", keccak(b"1"))
    with bonds.reverts("bonds: no lock"):
        bonds.call("Bonds", "unlock", keccak(b"1"))
    bonds.call("Bonds", "unlock", keccak(b"3"))
    bonds.call("Bonds", "withdraw", keeper, to, sender="admin 0")


def test_a_lock_ends_with_its_task_or_its_time(bonds: World) -> None:
    lock(bonds)
    task = keccak(b"task")
    with bonds.reverts("bonds: still locked"):
        bonds.call("Bonds", "unlock", task)
    healed = bonds.attest("Awards", "Healed(bytes32 task)", task)
    sealed = bonds.seal(healed)
    bonds.call("Awards", "void", sealed.seal, sealed.proof(healed), task)
    bonds.call("Bonds", "unlock", task)
    assert stake(bonds)[1] == 0


def test_a_lock_for_another_chain_ends_with_its_time_only(bonds: World) -> None:
    fields = award_fields(bonds)
    leaf = leaves.award_leaf(NETWORK, EPOCH, 31502, bonds.at["Awards"], **fields)
    sealed = bonds.seal(leaf)
    args = (31502, bonds.at["Awards"], award_tuple(fields))
    bonds.call("Bonds", "lock", sealed.seal, sealed.proof(leaf), *args)
    with bonds.reverts("bonds: still locked"):
        bonds.call("Bonds", "unlock", fields["task"])
    bonds.mine(1, 7 * DAY)
    bonds.call("Bonds", "unlock", fields["task"])


def test_a_penalty_releases_the_lock_of_its_task(bonds: World) -> None:
    lock(bonds, lock=ETHER // 2)
    penalise(bonds)
    assert stake(bonds)[:2] == (2 * ETHER - ETHER // 2, 0)
    with bonds.reverts("bonds: no lock"):
        bonds.call("Bonds", "unlock", keccak(b"task"))


def test_the_insurance_is_swept_to_its_address_only(bonds: World) -> None:
    with bonds.reverts("bonds: nothing to sweep"):
        bonds.call("Bonds", "sweep")
    penalise(bonds, beneficiary=bytes(20))
    before = coins(bonds, bonds.actor("insurance"))
    bonds.call("Bonds", "sweep", sender="thief")
    assert coins(bonds, bonds.actor("insurance")) - before == ETHER // 2
    with bonds.reverts("bonds: nothing to claim"):
        bonds.call("Bonds", "claim", bonds.actor("thief"), sender="thief")
