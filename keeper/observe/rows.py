"""The records of one event in order, as a value: pieces that versions share.

    (topics, data) … │ (topics, data) … │ …       a change copies the pieces it falls into

So a reader of one event pays for that event's rows only, and a version that is kept pays for what
its block changed.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

PIECE = 64
"""Rows in a piece: copying one costs about as much as finding it."""

Topics = tuple[bytes, ...]
Row = tuple[Topics, bytes]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows sorted by their topics, one per topics; build it with `Rows().updated(changes)`."""

    pieces: tuple[tuple[Row, ...], ...] = ()

    def __iter__(self) -> Iterator[Row]:
        return chain.from_iterable(self.pieces)

    def updated(self, changes: Mapping[Topics, bytes]) -> "Rows":
        """Return the rows with these added or replaced."""
        if not changes:
            return self
        pieces = list(self.pieces) or [()]
        bounds = [piece[0][0] for piece in pieces[1:]]
        touched: dict[int, dict[Topics, bytes]] = {}
        for topics, data in changes.items():
            touched.setdefault(bisect_right(bounds, topics), {})[topics] = data
        for at in sorted(touched, reverse=True):
            rows = list((dict(pieces[at]) | touched[at]).items())
            if len(rows) > len(pieces[at]):  # a replaced row keeps its place
                rows.sort()
            size = PIECE if len(rows) > 2 * PIECE else len(rows)
            pieces[at : at + 1] = [
                tuple(rows[first : first + size]) for first in range(0, len(rows), size)
            ]
        return Rows(tuple(pieces))
