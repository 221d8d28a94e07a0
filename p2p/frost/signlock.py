"""The sign lock: a view is signed for one digest only, and that is on disk before a share leaves.

    acquire(epoch, view, digest)    none yet → write, sync     same → nothing     other → refuse

Views below a moving floor are refused whole, so the table stays small (EIP-3076 does the same for
validators). `next_boot` numbers the lives of a signer, for its nonces. A lost file is a lost lock:
the keeper then waits until its committee has moved past everything it may have signed.
"""

import sqlite3
from dataclasses import dataclass
from typing import Protocol, cast

from keeper.errors import StoreError
from keeper.store import Store

KEPT = 1024
"""Locks kept below the highest; far more views than a signer works on at once."""


@dataclass(frozen=True, slots=True)
class Locks:
    """What was locked in an epoch: view → digest, and the view below which all is refused."""

    digests: dict[int, bytes]
    floor: int


class SignLock(Protocol):
    """A durable map from view to digest."""

    def acquire(self, epoch: int, view: int, digest: bytes) -> None:
        """Return once the lock is on disk. Raises StoreError if another digest holds it."""
        ...

    def load(self, epoch: int) -> Locks:
        """Return the locks of an epoch."""
        ...

    def next_boot(self) -> int:
        """Return the number of this life, greater than every earlier one."""
        ...


class SqliteSignLock:
    """The sign lock in the node's database."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.table(
            "frost_sign_lock",
            1,
            "CREATE TABLE frost_lock (epoch INTEGER NOT NULL, view INTEGER NOT NULL, "
            "digest BLOB NOT NULL, PRIMARY KEY (epoch, view)) WITHOUT ROWID",
            "CREATE TABLE frost_floor (epoch INTEGER PRIMARY KEY, view INTEGER NOT NULL)",
            "CREATE TABLE frost_boot (one INTEGER PRIMARY KEY CHECK (one = 1), boot INTEGER)",
        )

    def acquire(self, epoch: int, view: int, digest: bytes) -> None:
        """Lock a view to a digest; on disk when this returns.

        Raises:
            StoreError: the view is locked to another digest, or below the floor.
        """
        with self._store.durable() as rows:
            found = rows.execute(
                "SELECT digest FROM frost_lock WHERE epoch = ? AND view = ?", (epoch, view)
            ).fetchone()
            if found is not None:
                if bytes(found[0]) != digest:
                    raise StoreError(
                        f"view {view} of epoch {epoch} is locked to another digest",
                        where=self._store.path,
                        remedy="two final blocks in one view: stop, and keep this file as evidence",
                    )
                return
            floor = rows.execute(
                "SELECT view FROM frost_floor WHERE epoch = ?", (epoch,)
            ).fetchone()
            if floor is not None and view < floor[0]:
                raise StoreError(
                    f"view {view} of epoch {epoch} is below the lock's floor {floor[0]}",
                    where=self._store.path,
                    remedy="old views are never signed again; nothing to do",
                )
            rows.execute("INSERT INTO frost_lock VALUES (?, ?, ?)", (epoch, view, digest))
            if view % (KEPT // 4) == 0:
                self._prune(rows, epoch)

    @staticmethod
    def _prune(rows: sqlite3.Connection, epoch: int) -> None:
        highest = rows.execute(
            "SELECT MAX(view) FROM frost_lock WHERE epoch = ?", (epoch,)
        ).fetchone()[0]
        floor = max(0, highest - KEPT)
        rows.execute("DELETE FROM frost_lock WHERE epoch = ? AND view < ?", (epoch, floor))
        rows.execute("INSERT OR REPLACE INTO frost_floor VALUES (?, ?)", (epoch, floor))

    def load(self, epoch: int) -> Locks:
        """Return the locks of an epoch."""
        pairs = self._store.read("SELECT view, digest FROM frost_lock WHERE epoch = ?", (epoch,))
        floor = self._store.read("SELECT view FROM frost_floor WHERE epoch = ?", (epoch,))
        digests = {cast(int, view): bytes(cast(bytes, digest)) for view, digest in pairs}
        return Locks(digests, cast(int, floor[0][0]) if floor else 0)

    def next_boot(self) -> int:
        """Count this life, durably."""
        with self._store.durable() as rows:
            found = rows.execute("SELECT boot FROM frost_boot").fetchone()
            boot = (found[0] if found else 0) + 1
            rows.execute("INSERT OR REPLACE INTO frost_boot VALUES (1, ?)", (boot,))
        return int(boot)
