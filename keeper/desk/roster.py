"""Who may have to be liquidated at a venue: read once from its events, kept, looked at in turn.

    events of final blocks ─▶ rows on disk        look(): everybody near, and the next slice

Anybody can open a thousand dust accounts, so a block never costs more than the near ones and one
slice: with n accounts each is looked at every n / SLICE blocks, those near liquidation in each.
"""

from collections.abc import Iterable

from keeper.store import Store

SLICE = 500
"""Accounts away from liquidation looked at in one block: one request of reads."""
MAX_NEAR = 2_000
"""Accounts near liquidation looked at in every block: a view of them is decided in 3 ms."""


class Roster:
    """The people of one venue.

    Invariants: `scanned` never falls; nobody is forgotten.
    """

    def __init__(self, store: Store, venue: str, first_block: int) -> None:
        store.table(
            "desk_people",
            1,
            "CREATE TABLE desk_people (venue TEXT, user BLOB, PRIMARY KEY (venue, user))",
            "CREATE TABLE desk_scanned (venue TEXT PRIMARY KEY, block INTEGER NOT NULL)",
        )
        self._store, self._venue = store, venue
        found = store.read("SELECT user FROM desk_people WHERE venue = ? ORDER BY user", (venue,))
        self._people: list[bytes] = [user for (user,) in found]
        self._known = set(self._people)
        held = store.read("SELECT block FROM desk_scanned WHERE venue = ?", (venue,))
        self.scanned = held[0][0] if held else first_block - 1
        self._near: list[bytes] = []
        self._turn = 0

    def __len__(self) -> int:
        return len(self._people)

    def add(self, users: Iterable[bytes], block: int) -> None:
        """Take the people of final blocks up to this one."""
        fresh = sorted(set(users) - self._known)
        with self._store.cached() as rows:
            rows.executemany(
                "INSERT OR IGNORE INTO desk_people VALUES (?, ?)",
                [(self._venue, user) for user in fresh],
            )
            rows.execute("INSERT OR REPLACE INTO desk_scanned VALUES (?, ?)", (self._venue, block))
        self._people += fresh
        self._known.update(fresh)
        self.scanned = block

    def look(self) -> list[bytes]:
        """Return whom to look at in this block, sorted."""
        count = len(self._people)
        size = min(SLICE, count)
        chosen = {self._people[(self._turn + at) % count] for at in range(size)}
        self._turn = (self._turn + size) % count if count else 0
        return sorted(chosen.union(self._near))

    def note(self, looked: Iterable[bytes], near: Iterable[tuple[int, bytes]]) -> None:
        """Take what was seen of the people looked at: (health, user) of those near."""
        kept = set(self._near).difference(looked)
        ranked = [user for _, user in sorted(near)]
        self._near = [*ranked, *sorted(kept)][:MAX_NEAR]
