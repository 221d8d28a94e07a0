"""Bids that this keeper committed to, on disk before anybody hears of them.

    vector ─▶ durable row ─▶ commitment to gossip ─ crash ─▶ load ─▶ revealed when it is frozen

A commitment that is not opened costs a penalty, so a restart must not forget what was promised.
"""

from keeper.compete.bidder import MAX_ROUNDS
from keeper.compete.bids import BidVector, decode_reveal
from keeper.store import Store


class BidBook:
    """The newest vectors of each epoch."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.table(
            "bids",
            1,
            "CREATE TABLE bids (epoch INTEGER NOT NULL, view INTEGER NOT NULL, "
            "body BLOB NOT NULL, PRIMARY KEY (epoch, view)) WITHOUT ROWID",
        )

    def keep(self, epoch: int, vector: BidVector) -> None:
        """Write a vector down; it is on disk when this returns. Old ones are forgotten."""
        with self._store.durable() as rows:
            place = (epoch, vector.view)
            rows.execute("INSERT OR REPLACE INTO bids VALUES (?, ?, ?)", (*place, vector.encode()))
            rows.execute(
                "DELETE FROM bids WHERE epoch < ? OR view <= ?", (epoch, vector.view - MAX_ROUNDS)
            )

    def load(self, epoch: int) -> list[BidVector]:
        """Return the vectors kept for an epoch, oldest first."""
        rows = self._store.read("SELECT body FROM bids WHERE epoch = ? ORDER BY view", (epoch,))
        vectors = (decode_reveal(body) for (body,) in rows)
        return [vector for vector in vectors if vector is not None]
