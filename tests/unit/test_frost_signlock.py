"""The sign lock over a real database: one digest a view, across restarts, without growing."""

from pathlib import Path

import pytest

from keeper.errors import StoreError
from keeper.store import Store
from p2p.frost.signlock import KEPT, SqliteSignLock

A, B = b"\x0a" * 32, b"\x0b" * 32


def test_a_view_is_locked_to_one_digest_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    store = Store(path)
    lock = SqliteSignLock(store)
    lock.acquire(1, 7, A)
    lock.acquire(1, 7, A)
    store.close()
    store = Store(path)
    lock = SqliteSignLock(store)
    with pytest.raises(StoreError, match="locked to another digest"):
        lock.acquire(1, 7, B)
    lock.acquire(2, 7, B)
    lock.acquire(1, 8, B)
    assert lock.load(1).digests == {7: A, 8: B}
    assert lock.load(2).digests == {7: B}
    assert lock.load(3).digests == {}
    assert lock.load(1).floor == 0
    store.close()


def test_lives_are_counted(tmp_path: Path) -> None:
    boots = []
    for _ in range(3):
        store = Store(tmp_path / "node.db")
        boots.append(SqliteSignLock(store).next_boot())
        store.close()
    assert boots == [1, 2, 3]


def test_old_views_are_pruned_and_refused_for_ever() -> None:
    store = Store(":memory:")
    lock = SqliteSignLock(store)
    last = 2 * KEPT
    for view in range(1, last + 1):
        lock.acquire(1, view, A)
    held = lock.load(1)
    assert held.floor == last - KEPT
    assert min(held.digests) == held.floor
    assert len(held.digests) == KEPT + 1
    for view in (1, held.floor - 1):
        for digest in (A, B):
            with pytest.raises(StoreError, match="below the lock's floor"):
                lock.acquire(1, view, digest)
    with pytest.raises(StoreError, match="another digest"):
        lock.acquire(1, held.floor, B)
    store.close()
