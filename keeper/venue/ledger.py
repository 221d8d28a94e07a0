"""What transfers have already cleared of each account's realised profit and loss.

    unsettled(account, venue) = Realised(account).total − settled(account)
                                 event of the venue        this ledger

    seal ──▶ pending (in flight, changes nothing) ─┬─▶ used on its chain ──▶ settled moves
                                                   │       └─▶ queued: a big one may be stopped,
                                                   │                   and settled moves back
                                                   └─▶ expired ──▶ forgotten

A transfer becomes settled in the very table in which its vault shows the moved balances, so equity
counts every unit once, whatever order transfers reach their chains. Each entry moves two accounts
by opposite amounts, so the sum of `settled` over the accounts of a venue is always zero.

The bytes are canonical msgpack; amounts travel as text because they may pass 64 bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import msgpack

from keeper.units import ChainId
from keeper.venue.port import Tables
from keeper.venue.records import leaf_used
from keeper.venue.vault import FINISHED, STOPPED, queued_leaves

Key = tuple[ChainId, bytes, bytes]
"""(chain of the venue, venue, account)."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A sealed transfer in flight, and the entries it makes when its vault has used the leaf."""

    leaf: bytes
    chain: ChainId
    contract: bytes
    expiry: int
    entries: tuple[tuple[Key, int], ...]


@dataclass(frozen=True, slots=True)
class Ledger:
    """See the drawing.

    Args:
        settled: what transfers have cleared; no zeros.
        pending: transfers in flight, in the order they were sealed.
        queued: big ones that their vault has taken and not yet carried out; they count as settled.
        nonce: numbers transfers, so that no two leaves are equal.
        window: the netting window that was cleared last.
    """

    settled: Mapping[Key, int] = field(default_factory=dict)
    pending: tuple[Pending, ...] = ()
    queued: tuple[Pending, ...] = ()
    nonce: int = 0
    window: int = 0

    def in_flight(self) -> dict[Key, int]:
        """Return what pending transfers will add to `settled`."""
        found: dict[Key, int] = {}
        for transfer in self.pending:
            _add(found, transfer.entries)
        return found

    def advance(self, tables: Tables, heights: Mapping[ChainId, int]) -> "Ledger":
        """Return the ledger at a cut: used transfers settle, expired ones are forgotten.

        Args:
            tables: the records of each chain at the cut.
            heights: the cut's block number of each chain.
        """
        settled = dict(self.settled)
        left, queued = [], []
        for transfer in self.queued:
            state = _big_state(tables, transfer)
            if state == _STOPPED:
                _add(settled, tuple((key, -amount) for key, amount in transfer.entries))
            elif state == _WAITING:
                queued.append(transfer)
        for transfer in self.pending:
            records = tables.get(transfer.chain)
            if records is not None and leaf_used(records, transfer.contract, transfer.leaf):
                state = _big_state(tables, transfer)
                if state != _STOPPED:
                    _add(settled, transfer.entries)
                if state == _WAITING:
                    queued.append(transfer)
            elif heights.get(transfer.chain, 0) <= transfer.expiry:
                left.append(transfer)
        return replace(self, settled=settled, pending=tuple(left), queued=tuple(queued))

    def book(self, entries: tuple[tuple[Key, int], ...]) -> "Ledger":
        """Return the ledger after entries that need no transfer (a shared loss)."""
        settled = dict(self.settled)
        _add(settled, entries)
        return replace(self, settled=settled)

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        packed: bytes = msgpack.packb(
            [
                [_entry(key, amount) for key, amount in sorted(self.settled.items())],
                [_row(transfer) for transfer in self.pending],
                [_row(transfer) for transfer in self.queued],
                self.nonce,
                self.window,
            ]
        )
        return packed


_WAITING, _STOPPED, _DONE = "waiting", "stopped", "done"


def _big_state(tables: Tables, transfer: Pending) -> str:
    """Return where a used transfer stands in its vault's queue for big decisions."""
    records = tables.get(transfer.chain)
    if records is None:
        return _WAITING
    if records.get(transfer.contract, STOPPED, transfer.leaf) is not None:
        return _STOPPED
    if records.get(transfer.contract, FINISHED, transfer.leaf) is not None:
        return _DONE
    waiting = any(leaf == transfer.leaf for leaf in queued_leaves(records, transfer.contract))
    return _WAITING if waiting else _DONE


def _add(totals: dict[Key, int], entries: tuple[tuple[Key, int], ...]) -> None:
    for key, amount in entries:
        total = totals.get(key, 0) + amount
        if total:
            totals[key] = total
        else:
            totals.pop(key, None)


def _entry(key: Key, amount: int) -> list[object]:
    return [*key, str(amount)]


def _row(p: Pending) -> list[object]:
    return [p.leaf, p.chain, p.contract, p.expiry, [_entry(*entry) for entry in p.entries]]


def _open_row(row: list[object]) -> Pending:
    leaf, chain, contract, expiry, entries = row
    if (
        not isinstance(leaf, bytes)
        or not isinstance(chain, int)
        or not isinstance(contract, bytes)
        or not isinstance(expiry, int)
        or not isinstance(entries, list)
    ):
        raise ValueError("malformed transfer in the ledger")
    return Pending(leaf, ChainId(chain), contract, expiry, tuple(_open(e) for e in entries))


def _open(row: list[object]) -> tuple[Key, int]:
    chain, venue, account, amount = row
    if not isinstance(chain, int) or not isinstance(venue, bytes) or not isinstance(account, bytes):
        raise ValueError("malformed ledger entry")
    return (ChainId(chain), venue, account), int(str(amount))


def decode(raw: bytes) -> Ledger:
    """Return the ledger that `encode` wrote; empty bytes are the empty ledger.

    Raises:
        ValueError: the bytes are something else.
    """
    if not raw:
        return Ledger()
    settled, pending, queued, nonce, window = msgpack.unpackb(raw)
    return Ledger(
        dict(_open(row) for row in settled),
        tuple(_open_row(row) for row in pending),
        tuple(_open_row(row) for row in queued),
        nonce,
        window,
    )
