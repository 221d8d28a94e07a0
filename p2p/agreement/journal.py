"""What happened in each view, and who was in each committee: for `keeper explain` and `evidence`.

Nothing here matters to safety, so notes are not fsynced, and a crash may lose the last few. Bounded
by views: the newest `VIEWS_KEPT` of them.
"""

from dataclasses import dataclass

import msgpack

from keeper.store import Store
from p2p.agreement.effects import Noted
from p2p.types import Committee, Member

VIEWS_KEPT = 20_000
"""About five hours at one view a second, some 30 MB at n = 31."""
_SCHEMA = (
    "CREATE TABLE agreement_journal (id INTEGER PRIMARY KEY, epoch INTEGER, view INTEGER,"
    " at_ms INTEGER, event TEXT, members BLOB, detail TEXT)",
    "CREATE INDEX agreement_journal_view ON agreement_journal (epoch, view)",
    "CREATE TABLE agreement_committees (config BLOB PRIMARY KEY, epoch INTEGER, raw BLOB NOT NULL)",
)
NOTES_AT_ONCE = 64
"""Notes held before they are written, some ten views' worth: one small transaction, not sixty."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One noted event; `at_ms` is this keeper's wall clock."""

    view: int
    at_ms: int
    event: str
    members: tuple[int, ...]
    detail: str


class Journal:
    """Notes of one node, in its database."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: list[tuple[int, int, int, str, bytes, str]] = []
        store.table("agreement_journal", 1, *_SCHEMA)

    def remember(self, committee: Committee) -> None:
        """Keep who the members of an epoch are."""
        members = [[member.address, member.peer_id] for member in committee.members]
        raw = msgpack.packb(
            [committee.network, committee.epoch, members, committee.parameters_digest]
        )
        with self._store.cached() as rows:
            rows.execute(
                "INSERT OR IGNORE INTO agreement_committees VALUES (?, ?, ?)",
                (committee.config, committee.epoch, raw),
            )

    def committees(self) -> tuple[Committee, ...]:
        """Return every committee remembered, oldest epoch first."""
        found = self._store.read("SELECT raw FROM agreement_committees ORDER BY epoch")
        return tuple(_committee(row[0]) for row in found)

    def note(self, epoch: int, note: Noted, now: float) -> None:
        """Take one note; `now` is unix time in seconds."""
        members = bytes(note.members)
        self._held.append((epoch, note.view, int(now * 1000), note.event, members, note.detail))
        if len(self._held) >= NOTES_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what is held and drop the oldest views."""
        if not self._held:
            return
        epoch, newest = max((row[0], row[1]) for row in self._held)
        with self._store.cached() as rows:
            rows.executemany(
                "INSERT INTO agreement_journal (epoch, view, at_ms, event, members, detail)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                self._held,
            )
            rows.execute(
                "DELETE FROM agreement_journal WHERE epoch < ? OR (epoch = ? AND view < ?)",
                (epoch - 1, epoch, newest - VIEWS_KEPT),
            )
        self._held.clear()

    def of(self, epoch: int, view: int) -> tuple[Entry, ...]:
        """Return what was noted about a view, oldest first."""
        rows = self._store.read(
            "SELECT view, at_ms, event, members, detail FROM agreement_journal"
            " WHERE epoch = ? AND view = ? ORDER BY id",
            (epoch, view),
        )
        return tuple(_entry(row) for row in rows)

    def last(self) -> tuple[int, int] | None:
        """Return the newest (epoch, view) with a note."""
        rows = self._store.read(
            "SELECT epoch, view FROM agreement_journal ORDER BY epoch DESC, view DESC LIMIT 1"
        )
        return (int(str(rows[0][0])), int(str(rows[0][1]))) if rows else None


def _committee(raw: object) -> Committee:
    network, epoch, members, parameters = msgpack.unpackb(raw)
    return Committee(network, epoch, tuple(Member(*member) for member in members), parameters)


def _entry(row: tuple[object, ...]) -> Entry:
    view, at_ms, event, members, detail = row
    raw = members if isinstance(members, bytes) else b""
    return Entry(int(str(view)), int(str(at_ms)), str(event), tuple(raw), str(detail))
