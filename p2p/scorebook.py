"""Scores on disk, so a restart of ours does not wash anybody clean."""

from collections.abc import Iterable

from keeper.store import Store
from p2p.verdicts import Record

_TABLE = """CREATE TABLE peer_score (
    peer BLOB PRIMARY KEY, score REAL NOT NULL, at REAL NOT NULL,
    refusals INTEGER NOT NULL, refused_until REAL NOT NULL)"""


class StoredScores:
    """Implements `p2p.gate.ScoreBook` over the node's database."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.table("peer_score", 1, _TABLE)

    def load(self) -> tuple[Record, ...]:
        """Return the saved records."""
        rows = self._store.read("SELECT peer, score, at, refusals, refused_until FROM peer_score")
        return tuple(Record(*row) for row in rows)

    def save(self, records: Iterable[Record]) -> None:
        """Replace the saved records."""
        with self._store.cached() as rows:
            rows.execute("DELETE FROM peer_score")
            rows.executemany(
                "INSERT INTO peer_score VALUES (?, ?, ?, ?, ?)",
                [(r.peer, r.score, r.at, r.refusals, r.refused_until) for r in records],
            )
