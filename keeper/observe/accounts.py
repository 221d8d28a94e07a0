"""The account index: every watched contract's records at each recent final block of one chain.

    block 7 ──▶ Table ──▶ block 8 ──▶ Table ──▶ block 9 ──▶ Table      the last `WINDOW` are kept

Only final blocks enter, in order, so nothing is ever taken back. Tables share their unchanged
buckets: a kept block costs what it changed.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from keeper.observe.observation import HEADS_PER_CHAIN, SeenHead
from keeper.observe.table import EMPTY, Log, Table
from keeper.units import ChainId

WINDOW = 1024
"""Blocks kept: a keeper that is a quarter of an hour behind on one-second blocks still follows."""


@dataclass(frozen=True, slots=True)
class Indexed:
    """One final block and the table after it."""

    number: int
    hash: bytes
    timestamp: int
    table: Table


class AccountIndex:
    """The index of one chain.

    Invariants: block numbers are consecutive; the newest block is the highest final block taken.
    """

    def __init__(self, chain: ChainId) -> None:
        self.chain = chain
        self.distrusted = False
        """Set once its records were disproven: nothing is said or signed by it any more."""
        self._blocks: OrderedDict[int, Indexed] = OrderedDict()

    @property
    def newest(self) -> Indexed | None:
        """The highest block taken, or None before the first."""
        return next(reversed(self._blocks.values())) if self._blocks else None

    def append(self, number: int, block_hash: bytes, timestamp: int, logs: Iterable[Log]) -> None:
        """Take the next final block with the logs of all watched contracts, in order.

        Raises:
            ValueError: the block does not follow the newest one.
        """
        last = self.newest
        if last is not None and number != last.number + 1:
            raise ValueError(f"block {number} does not follow block {last.number}")
        table = (EMPTY if last is None else last.table).apply(logs)
        self._blocks[number] = Indexed(number, block_hash, timestamp, table)
        if len(self._blocks) > WINDOW:
            self._blocks.popitem(last=False)

    def at(self, number: int, block_hash: bytes, account_root: bytes) -> Table | None:
        """Return the table after exactly this block, or None where we hold none or another."""
        found = None if self.distrusted else self._blocks.get(number)
        if found is None or found.hash != block_hash or found.table.root != account_root:
            return None
        return found.table

    def hash_at(self, number: int) -> bytes | None:
        """Return the hash of a final block, or None where we do not hold it (any more)."""
        found = self._blocks.get(number)
        return None if found is None else found.hash

    def recent(self) -> tuple[SeenHead, ...]:
        """Return the newest blocks as an observation names them, oldest first."""
        blocks = [] if self.distrusted else list(self._blocks.values())[-HEADS_PER_CHAIN:]
        return tuple(
            SeenHead(self.chain, block.number, block.hash, block.table.root, block.timestamp)
            for block in blocks
        )
