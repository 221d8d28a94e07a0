"""One SQLite database per node: write-ahead log, one writer, explicit durability.

    with store.durable() as rows:  ...     synchronous=FULL: on disk before the block ends
    with store.cached() as rows:   ...     synchronous=NORMAL: power loss may undo the last

Votes, the sign lock and the execution ledger use `durable`; everything that can be fetched again
uses `cached`. Every room creates its own tables through `Store.table`, with a schema version.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from keeper.errors import StoreError

_META = "CREATE TABLE IF NOT EXISTS schema (name TEXT PRIMARY KEY, version INTEGER NOT NULL)"


class Store:
    """A node's database.

    Invariants: at most one write transaction at a time, from any thread; a transaction that raises
    leaves no trace; `durable` blocks return only after an fsync.
    """

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        """Open or create the database.

        Args:
            path: a file, or ":memory:" for tests.
            read_only: look at another process's database without ever writing to it.

        Raises:
            StoreError: the file is damaged or is held by another process.
        """
        self.path = str(path)
        self._lock = threading.RLock()
        self._read_only = read_only
        try:
            self._rows = sqlite3.connect(
                f"file:{quote(self.path)}?mode=ro" if read_only else self.path,
                uri=read_only,
                isolation_level=None,
                check_same_thread=False,
                timeout=5.0,
            )
            if not read_only:
                self._rows.execute("PRAGMA journal_mode=WAL")
                self._rows.execute("PRAGMA foreign_keys=ON")
                self._rows.execute(_META)
            damage = self._rows.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"cannot open the database: {error}",
                where=self.path,
                remedy="stop other keepers using this home, or restore the file from a backup",
            ) from error
        if damage != "ok":
            raise StoreError(
                f"the database is damaged: {damage}",
                where=self.path,
                remedy="restore it from a backup; without the vote log this keeper must not sign",
            )

    def table(self, name: str, version: int, *statements: str) -> None:
        """Create a room's tables once; later calls check the version.

        Raises:
            StoreError: the tables on disk have another version.
        """
        if self._read_only:
            held = self.read("SELECT version FROM schema WHERE name = ?", (name,))
            if held != [(version,)]:
                raise StoreError(f"no tables of {name!r} in version {version}", where=self.path)
            return
        with self._transaction("FULL") as rows:
            found = rows.execute("SELECT version FROM schema WHERE name = ?", (name,)).fetchone()
            if found is None:
                for statement in statements:
                    rows.execute(statement)
                rows.execute("INSERT INTO schema VALUES (?, ?)", (name, version))
            elif found[0] != version:
                raise StoreError(
                    f"tables of {name!r} have version {found[0]}, this program needs {version}",
                    where=self.path,
                    remedy="run the release that wrote them, or start with a new home",
                )

    @contextmanager
    def durable(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction that is on disk when the block ends."""
        with self._transaction("FULL") as rows:
            yield rows

    @contextmanager
    def cached(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction that a power loss may undo, never tear."""
        with self._transaction("NORMAL") as rows:
            yield rows

    @contextmanager
    def _transaction(self, synchronous: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._rows.execute(f"PRAGMA synchronous={synchronous}")
            self._rows.execute("BEGIN IMMEDIATE")
            try:
                yield self._rows
            except BaseException:
                self._rows.execute("ROLLBACK")
                raise
            self._rows.execute("COMMIT")

    def read(self, query: str, arguments: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self._lock:
            return self._rows.execute(query, arguments).fetchall()

    def close(self) -> None:
        """Close the database; a second call does nothing."""
        with self._lock:
            self._rows.close()
