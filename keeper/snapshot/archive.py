"""Final snapshots on disk: what a restart goes on from, and what others are shown.

    view → digest, header, book, decisions, root        seal → (rx, ry, s)

Only the newest book is kept whole: it is the state. Older headers and decisions stay for
`HISTORY` views, so seals can be carried late and proofs can be made.
"""

from dataclasses import dataclass
from typing import Any

import msgpack

from keeper.snapshot.book import Book, book_from_bytes, decision_from_row, decision_row
from keeper.snapshot.decisions import Decision
from keeper.snapshot.derive import Snapshot
from keeper.snapshot.header import Header, header_from_row
from keeper.store import Store

_SELECT = "SELECT digest, header, decisions, root, seal, final_ms, sealed_ms FROM snapshots"

HISTORY = 20_000
"""Views kept: nearly three hours of half-second ticks, far beyond any decision's expiry."""


@dataclass(frozen=True, slots=True)
class Archived:
    """One final view.

    Args:
        digest: block digest that the votes signed.
        header: its header.
        decisions: its decisions in order.
        root: decision root.
        seal: (rx, ry, s) of the group signature, or None while there is none here.
        final_ms: unix milliseconds at which it became final here.
        sealed_ms: at which its seal came, or None.
    """

    digest: bytes
    header: Header
    decisions: tuple[Decision, ...]
    root: bytes
    seal: tuple[int, int, int] | None
    final_ms: int
    sealed_ms: int | None


class Archive:
    """The final snapshots of one node."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.table(
            "snapshots",
            1,
            "CREATE TABLE snapshots (view INTEGER PRIMARY KEY, digest BLOB NOT NULL,"
            " header BLOB NOT NULL, decisions BLOB NOT NULL, root BLOB NOT NULL, seal BLOB,"
            " final_ms INTEGER NOT NULL, sealed_ms INTEGER)",
            "CREATE TABLE newest_book (one INTEGER PRIMARY KEY CHECK (one = 1),"
            " view INTEGER NOT NULL, book BLOB NOT NULL)",
        )

    def _select(self, where: str, arguments: tuple[object, ...] = ()) -> list[Archived]:
        rows = self._store.read(f"{_SELECT} {where}", arguments)
        return [_archived(row) for row in rows]

    def add(self, digest: bytes, snapshot: Snapshot, now_ms: int) -> None:
        """Store a snapshot that became final at `now_ms` and make its book the newest."""
        header = snapshot.header
        with self._store.cached() as rows:
            rows.execute(
                "INSERT OR IGNORE INTO snapshots VALUES (?, ?, ?, ?, ?, NULL, ?, NULL)",
                (
                    header.view,
                    digest,
                    msgpack.packb(header.to_row()),
                    msgpack.packb([decision_row(decision) for decision in snapshot.decisions]),
                    snapshot.root,
                    now_ms,
                ),
            )
            rows.execute(
                "INSERT OR REPLACE INTO newest_book VALUES (1, ?, ?)",
                (header.view, snapshot.book.encode()),
            )
            rows.execute("DELETE FROM snapshots WHERE view < ?", (header.view - HISTORY,))

    def add_seal(self, view: int, seal: tuple[int, int, int], now_ms: int) -> None:
        """Store the group signature, seen at `now_ms`, of a view that is archived here."""
        raw = b"".join(number.to_bytes(32, "big") for number in seal)
        with self._store.cached() as rows:
            rows.execute(
                "UPDATE snapshots SET seal = ?, sealed_ms = ? WHERE view = ? AND seal IS NULL",
                (raw, now_ms, view),
            )

    def get(self, view: int) -> Archived | None:
        """Return one final view, or None."""
        rows = self._select("WHERE view = ?", (view,))
        return rows[0] if rows else None

    def newest(self) -> Archived | None:
        """Return the newest final view, or None before the first."""
        rows = self._select("ORDER BY view DESC LIMIT 1")
        return rows[0] if rows else None

    def newest_sealed(self) -> Archived | None:
        """Return the newest view that has a seal here, or None."""
        rows = self._select("WHERE seal IS NOT NULL ORDER BY view DESC LIMIT 1")
        return rows[0] if rows else None

    def find_leaf(self, leaf: bytes, from_view: int) -> Archived | None:
        """Return the sealed view, not before `from_view`, that decided this leaf."""
        rows = self._select(
            "WHERE view >= ? AND seal IS NOT NULL AND instr(decisions, ?) > 0 LIMIT 1",
            (from_view, leaf),
        )
        return rows[0] if rows else None

    def since(self, view: int) -> list[Archived]:
        """Return all views after `view`, oldest first."""
        return self._select("WHERE view > ? ORDER BY view", (view,))

    def state(self) -> tuple[bytes, Snapshot] | None:
        """Return (digest, snapshot) of the newest final view with its book: what to go on from.

        Legs and margins are not kept: they follow from the book at the next cut.
        """
        newest, held = self.newest(), self.newest_book()
        if newest is None or held is None or newest.header.view != held[0]:
            return None
        if held[1].hash() != newest.header.book_hash:
            return None
        snapshot = Snapshot(newest.header, held[1], newest.decisions, {}, {}, newest.root)
        return newest.digest, snapshot

    def counts(self) -> tuple[int, int]:
        """Return how many final views and how many seals are held."""
        rows = self._store.read("SELECT count(*), count(seal) FROM snapshots")
        return rows[0][0], rows[0][1]

    def newest_book(self) -> tuple[int, Book] | None:
        """Return (view, book) of the newest final snapshot."""
        rows = self._store.read("SELECT view, book FROM newest_book")
        if not rows:
            return None
        view, raw = rows[0]
        return view, book_from_bytes(raw)


def _archived(row: tuple[Any, ...]) -> Archived:
    digest, header, decisions, root, seal, final_ms, sealed_ms = row
    numbers = None
    if seal is not None:
        rx, ry, s = (int.from_bytes(seal[at : at + 32], "big") for at in (0, 32, 64))
        numbers = (rx, ry, s)
    return Archived(
        digest,
        header_from_row(msgpack.unpackb(header)),
        tuple(decision_from_row(one) for one in msgpack.unpackb(decisions)),
        root,
        numbers,
        final_ms,
        sealed_ms,
    )
