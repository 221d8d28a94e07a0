"""What is archived comes back, and an account is proven from it to a stranger by the seal alone."""

from dataclasses import replace

import pytest
from coincurve import PrivateKey

from keeper.cli.snapshot import check_seal
from keeper.hashing import keccak
from keeper.leaves import seal_message
from keeper.margin.proof import dumps, fault, loads
from keeper.snapshot.archive import HISTORY, Archive
from keeper.snapshot.derive import Snapshot
from keeper.snapshot.show import account_of, prove_account, summary
from keeper.store import Store
from tests.support.snapshots import (
    NETWORK,
    EchoRule,
    MemoryTables,
    application,
    balance_log,
    run_views,
    setting,
)

ALICE, BOB = keccak(b"alice"), keccak(b"bob")
KEY = PrivateKey(keccak(b"the group's key"))
GROUP_KEY = int.from_bytes(KEY.public_key.format()[1:], "big")


def snapshots(views: int) -> list[tuple[bytes, Snapshot]]:
    tables = MemoryTables()
    tables.add(1, [balance_log(ALICE, 5_000_000), balance_log(BOB, 1_000_000)])
    keeper = application(tables, (EchoRule(),))
    run_views({0: keeper}, [tables.head(1)], views)
    return [(digest, keeper.states[digest]) for digest in list(keeper.states)[-views:]]


def seal(view: int, root: bytes) -> tuple[int, int, int]:
    """Return (rx, ry, s); nothing here reads ry."""
    signature = KEY.sign_schnorr(seal_message(NETWORK, 1, view, root))
    return int.from_bytes(signature[:32], "big"), 0, int.from_bytes(signature[32:], "big")


def filled(views: int) -> tuple[Archive, list[tuple[bytes, Snapshot]]]:
    archive, made = Archive(Store(":memory:")), snapshots(views)
    for digest, snapshot in made:
        archive.add(digest, snapshot, 1_000 + snapshot.header.view)
    return archive, made


def test_a_view_comes_back_as_it_was_and_its_seal_is_kept_once() -> None:
    archive, made = filled(3)
    digest, snapshot = made[1]
    found = archive.get(2)
    assert found is not None
    assert (found.digest, found.header, found.root) == (digest, snapshot.header, snapshot.root)
    assert found.decisions == snapshot.decisions
    assert (found.seal, found.final_ms, found.sealed_ms) == (None, 1_002, None)
    archive.add_seal(2, (1, 2, 3), 1_500)
    archive.add_seal(2, (9, 9, 9), 1_600)
    sealed = archive.newest_sealed()
    assert sealed == replace(found, seal=(1, 2, 3), sealed_ms=1_500)
    assert archive.counts() == (3, 1)
    assert [one.header.view for one in archive.since(1)] == [2, 3]


def test_only_the_newest_book_is_kept_and_it_is_the_state() -> None:
    archive, made = filled(3)
    assert archive.newest_book() == (3, made[-1][1].book)
    assert Archive(Store(":memory:")).newest_book() is None


def test_history_is_bounded() -> None:
    archive, made = filled(2)
    late = replace(made[-1][1], header=replace(made[-1][1].header, view=HISTORY + 2))
    archive.add(keccak(b"late"), late, 1)
    assert archive.get(1) is None
    assert archive.get(2) is not None


def test_a_leaf_is_found_only_where_it_is_sealed() -> None:
    archive, made = filled(2)
    leaf = made[1][1].decisions[-1].leaf
    assert archive.find_leaf(leaf, 0) is None
    archive.add_seal(2, (1, 2, 3), 1)
    found = archive.find_leaf(leaf, 0)
    assert found is not None
    assert found.header.view == 2
    assert archive.find_leaf(leaf, 3) is None


def test_an_account_is_proven_by_the_seal_and_a_changed_file_is_not() -> None:
    archive, made = filled(1)
    snapshot = made[0][1]
    archive.add_seal(1, seal(1, snapshot.root), 1)
    archived = archive.get(1)
    assert archived is not None
    assert summary(archived)["sealed"]
    known = account_of(snapshot, ALICE)
    assert known is not None
    assert known["equity_uusd"] == snapshot.margins[ALICE].equity
    facts = prove_account(setting((EchoRule(),)), snapshot, archived, GROUP_KEY, ALICE)
    assert facts[0].tree == "state"
    for fact in facts:
        assert fault(loads(dumps(fact)), check_seal) is None
        other = replace(fact.fact, values=tuple(reversed(fact.fact.values)))
        assert fault(replace(fact, fact=other), check_seal) is not None
        assert fault(replace(fact, s=fact.s ^ 1), check_seal) is not None
        assert fault(replace(fact, root=keccak(b"another root")), check_seal) is not None
        assert fault(replace(fact, group_key=GROUP_KEY ^ 1), check_seal) is not None


def test_what_is_not_sealed_or_not_known_is_not_proven() -> None:
    archive, made = filled(1)
    archived = archive.get(1)
    assert archived is not None
    with pytest.raises(ValueError, match="not sealed here"):
        prove_account(setting(), made[0][1], archived, GROUP_KEY, ALICE)
    assert account_of(made[0][1], keccak(b"nobody")) is None
    sealed = replace(archived, seal=(1, 2, 3))
    with pytest.raises(ValueError, match="does not know the account"):
        prove_account(setting(), made[0][1], sealed, GROUP_KEY, keccak(b"nobody"))
