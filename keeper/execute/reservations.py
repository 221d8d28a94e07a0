"""Capital promised to bids: reserved when a bid is made, released when it is lost, spent when won.

    free = inventory − Σ reserved        a bid that needs more than is free is not made

Reservations are durable, so a restart in the middle of a round cannot promise the same coin twice.
Amounts are in the asset's own smallest unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from keeper.reasons import Reason
from keeper.store import Store
from keeper.units import ChainId

_VERSION = 1
_TABLES = (
    """CREATE TABLE reservation (
        key BLOB NOT NULL, chain INTEGER NOT NULL, asset BLOB NOT NULL, amount TEXT NOT NULL,
        PRIMARY KEY (key, chain, asset)) WITHOUT ROWID""",
)


@dataclass(frozen=True, slots=True, order=True)
class Holding:
    """An asset on a chain; an empty asset is the native coin."""

    chain: ChainId
    asset: bytes


class Reservations:
    """What is promised to whom.

    Invariant: at the moment of every reservation, the sum of all reservations of a holding was at
    most the inventory shown.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        store.table("reservations", _VERSION, *_TABLES)

    def reserve(
        self, key: bytes, needs: Mapping[Holding, int], inventory: Mapping[Holding, int]
    ) -> Reason | None:
        """Promise capital to a bid; return NOT_RESERVED if not all of it is free.

        The same key again replaces its earlier promise.

        Raises:
            ValueError: a need is negative.
        """
        if any(amount < 0 for amount in needs.values()):
            raise ValueError("a need cannot be negative")
        with self._store.durable() as rows:
            rows.execute("DELETE FROM reservation WHERE key = ?", (key,))
            for holding, amount in sorted(needs.items()):
                promised = rows.execute(
                    "SELECT amount FROM reservation WHERE chain = ? AND asset = ?",
                    (holding.chain, holding.asset),
                ).fetchall()
                free = inventory.get(holding, 0) - sum(int(row[0]) for row in promised)
                if amount > free:
                    rows.execute("DELETE FROM reservation WHERE key = ?", (key,))
                    return Reason.NOT_RESERVED
                rows.execute(
                    "INSERT INTO reservation VALUES (?, ?, ?, ?)",
                    (key, holding.chain, holding.asset, str(amount)),
                )
        return None

    def release(self, key: bytes) -> None:
        """Give back what a bid had: it lost, or what it won has been spent on chain."""
        with self._store.durable() as rows:
            rows.execute("DELETE FROM reservation WHERE key = ?", (key,))

    def held(self) -> dict[Holding, int]:
        """Return what is promised in all, per holding."""
        total: dict[Holding, int] = {}
        for chain, asset, amount in self._store.read(
            "SELECT chain, asset, amount FROM reservation ORDER BY chain, asset"
        ):
            holding = Holding(ChainId(int(str(chain))), bytes(asset))
            total[holding] = total.get(holding, 0) + int(str(amount))
        return total

    def keys(self) -> frozenset[bytes]:
        """Return which bids hold something."""
        rows = self._store.read("SELECT DISTINCT key FROM reservation")
        return frozenset(bytes(row[0]) for row in rows)
