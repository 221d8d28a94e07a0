"""What happened in each view, kept for `keeper explain`: not for safety, so not fsynced.

Bounded by views: the newest `VIEWS_KEPT` of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keeper.store import Store
from p2p.agreement.effects import Noted

VIEWS_KEPT = 20_000
"""About five hours at one view a second, some 30 MB at n = 31."""
_SCHEMA = (
    "CREATE TABLE agreement_journal (id INTEGER PRIMARY KEY, epoch INTEGER, view INTEGER,"
    " at_ms INTEGER, event TEXT, members BLOB, detail TEXT)",
    "CREATE INDEX agreement_journal_view ON agreement_journal (epoch, view)",
)


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
        store.table("agreement_journal", 1, *_SCHEMA)

    def write(self, epoch: int, notes: Sequence[tuple[float, Noted]]) -> None:
        """Append notes and drop the oldest views."""
        if not notes:
            return
        newest = max(note.view for _, note in notes)
        with self._store.cached() as rows:
            rows.executemany(
                "INSERT INTO agreement_journal (epoch, view, at_ms, event, members, detail)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [
                    (epoch, n.view, int(at * 1000), n.event, bytes(n.members), n.detail)
                    for at, n in notes
                ],
            )
            rows.execute(
                "DELETE FROM agreement_journal WHERE epoch < ? OR (epoch = ? AND view < ?)",
                (epoch - 1, epoch, newest - VIEWS_KEPT),
            )

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


def _entry(row: tuple[object, ...]) -> Entry:
    view, at_ms, event, members, detail = row
    raw = members if isinstance(members, bytes) else b""
    return Entry(int(str(view)), int(str(at_ms)), str(event), tuple(raw), str(detail))
