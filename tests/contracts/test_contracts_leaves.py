"""Every leaf that keepers compute is the one the contract consumes, whatever the numbers."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from keeper import leaves
from keeper.hashing import keccak, leaf_hash
from keeper.merkle import merkle_root
from tests.support.contracts import (
    EPOCH,
    NETWORK,
    World,
    account_id,
    award_fields,
    award_tuple,
    build_world,
    fund,
    make_seal,
)

WORD = st.binary(min_size=32, max_size=32)
ADDRESS = st.binary(min_size=20, max_size=20)


def test_the_seal_message_is_what_the_committee_verifies(world: World) -> None:
    sealed = world.seal()
    epoch, view, root, rx, ry, s = sealed.seal
    message = leaves.seal_message(NETWORK, epoch, view, root)
    group_key = int.from_bytes(world.group.public_key.format()[1:], "big")
    ask = ("Committee", "verify_bip340", group_key)
    assert world.call(*ask, message, rx, ry, s).value is True
    assert world.call(*ask, keccak(message), rx, ry, s).value is False


def test_a_credit_leaf_is_consumed(world: World) -> None:
    account = account_id(world.actor("trader"))
    fields: dict[str, Any] = {"account": account, "limit": 2**100, "nonce": 9, "expiry": 2**63}
    leaf = leaves.credit_leaf(*world.place("Perps"), **fields)
    sealed = world.seal(leaf)
    used = world.call("Perps", "apply_credit", sealed.seal, sealed.proof(leaf), *fields.values())
    assert world.events(used, "Perps", "LeafUsed") == [{"leaf": leaf}]


def test_a_release_leaf_is_consumed(world: World) -> None:
    fund(world, "trader", 1_000)
    token, to = world.at["DevToken"], world.actor("payee")
    world.call("Vault", "request_withdraw", 0, token, 400, to, sender="trader")
    fields: dict[str, Any] = {
        "account": account_id(world.actor("trader")),
        "token": token,
        "amount": 400,
        "to": to,
        "nonce": 1,
        "expiry": world.block,
    }
    leaf = leaves.release_leaf(*world.place("Vault"), **fields)
    sealed = world.seal(leaf)
    used = world.call("Vault", "release", sealed.seal, sealed.proof(leaf), *fields.values())
    assert world.events(used, "Vault", "LeafUsed") == [{"leaf": leaf}]


def test_a_transfer_leaf_is_consumed(world: World) -> None:
    fund(world, "trader", 1_000)
    fields: dict[str, Any] = {
        "source": account_id(world.actor("trader")),
        "to": keccak(b"winner"),
        "token": world.at["DevToken"],
        "amount": 400,
        "nonce": 2**64 - 1,
        "expiry": world.block,
    }
    leaf = leaves.transfer_leaf(*world.place("Vault"), **fields)
    sealed = world.seal(leaf)
    used = world.call("Vault", "transfer", sealed.seal, sealed.proof(leaf), *fields.values())
    assert world.events(used, "Vault", "LeafUsed") == [{"leaf": leaf}]


def test_a_penalty_leaf_is_consumed(world: World) -> None:
    fields: dict[str, Any] = {
        "task": keccak(b"task"),
        "keeper": world.actor("keeper 0"),
        "amount": 3,
        "beneficiary": world.actor("executor"),
        "nonce": 5,
        "expiry": world.block + 99,
    }
    leaf = leaves.penalty_leaf(*world.place("Bonds"), **fields)
    sealed = world.seal(leaf)
    used = world.call("Bonds", "penalise", sealed.seal, sealed.proof(leaf), *fields.values())
    assert world.events(used, "Bonds", "LeafUsed") == [{"leaf": leaf}]


_WORLD = build_world()
_WORLD.call("Bonds", "join", _WORLD.actor("admin"), b"peer", sender="keeper 0", value=10**18)


@settings(max_examples=40, deadline=None)
@given(
    task=WORD,
    account=WORD,
    venue=ADDRESS,
    market=WORD,
    max_size=st.integers(0, 2**256 - 1),
    price=st.integers(0, 2**256 - 1),
    others=st.lists(ADDRESS, max_size=3),
    blocks=st.tuples(*[st.integers(0, 2**64 - 1)] * 5),
    chain=st.integers(0, 2**64 - 1),
    contract=ADDRESS,
)
def test_an_award_leaf_is_consumed_for_any_fields(
    task: bytes,
    account: bytes,
    venue: bytes,
    market: bytes,
    max_size: int,
    price: int,
    others: list[bytes],
    blocks: tuple[int, int, int, int, int],
    chain: int,
    contract: bytes,
) -> None:
    # Bonds.lock takes an award for any chain and contract, so it can be asked about every field
    world = _WORLD
    start, exclusive, step, open_at, last = blocks
    fields = award_fields(
        world,
        task=task,
        account=account,
        venue=venue,
        market=market,
        max_size=max_size,
        price=price,
        ranks=(world.actor("keeper 0"), *others),
        start=start,
        exclusive=exclusive,
        step=step,
        open_at=open_at,
        last=last,
        lock=1,
    )
    leaf = leaves.award_leaf(NETWORK, EPOCH, chain, contract, **fields)
    world.view += 1
    seal = make_seal(world.group, EPOCH, world.view, merkle_root((leaf,)))
    with world.env.anchor():
        used = world.call("Bonds", "lock", seal, (), chain, contract, award_tuple(fields))
        assert world.events(used, "Bonds", "LeafUsed") == [{"leaf": leaf}]


def test_leaves_without_a_consumer_here_follow_their_type_strings() -> None:
    place = (bytes(31) + b"\x01", 2, 3, bytes(19) + b"\x04")
    word = bytes(31) + b"\x05"
    change: dict[str, Any] = {"scope": word, "action": 1, "level": 2, "nonce": 3, "until": 4}
    flow: dict[str, Any] = {"flow": word, "outcome": 1, "late": 2}
    for type_string, leaf, fields in (
        (leaves.BREAKER_CHANGE, leaves.breaker_change_leaf(*place, **change), change),
        (leaves.FLOW_OUTCOME, leaves.flow_outcome_leaf(*place, **flow), flow),
    ):
        inner = type_string.partition("(")[2].rstrip(")")
        types = [field.split(" ")[0] for field in inner.split(",")]
        names = [field.split(" ")[1] for field in inner.split(",")]
        assert names == ["network", "epoch", "chain", "contract", *fields]
        assert leaf == leaf_hash(type_string, types, (*place, *fields.values()))
