"""Every account of a snapshot as columns, and their file: blobs inside msgpack, decoded in no time.

    keys    (kind, chain, venue, market)…          the distinct ones, once
    starts  0 ─ 6 ─ 11 ─ …                         legs of account i: starts[i] … starts[i+1]
    key, size, quote, funding                      one entry per leg, 8 bytes each
    accounts, hashes (32 bytes each), seqs, flags  one entry per account

A leg of a token with many decimals does not fit 64 bits: its key gets the scale 10**9, `size` holds
the high part and `quote`, which only perps need, the digits below. What does not fit even so is
kept as Python integers in `wide`, and its account is left to the reference engine.
"""

import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgpack
import msgspec
import numpy as np

from keeper.legs import Leg, LegKind, legs_hash
from keeper.margin.marks import RateKey
from keeper.units import ChainId

VERSION = 1
Column: TypeAlias = "array[int]"
MAGIC = "flowkeeper-book"
SCALE = 10**9
INT_BOUND = 2**62
"""Columns are signed 64 bit; one bit is left for sums of two."""


@dataclass(slots=True)
class Book:
    """Columns of the drawing above.

    Invariants: `starts` has one entry more than there are accounts and never falls; legs of an
    account are in key order; `wide` names only legs that do not fit.
    """

    keys: list[RateKey] = field(default_factory=list)
    scales: list[int] = field(default_factory=list)
    accounts: bytearray = field(default_factory=bytearray)
    hashes: bytearray = field(default_factory=bytearray)
    seqs: Column = field(default_factory=lambda: array("q"))
    flags: Column = field(default_factory=lambda: array("q"))
    starts: Column = field(default_factory=lambda: array("q", [0]))
    key: Column = field(default_factory=lambda: array("q"))
    size: Column = field(default_factory=lambda: array("q"))
    quote: Column = field(default_factory=lambda: array("q"))
    funding: Column = field(default_factory=lambda: array("q"))
    wide: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.seqs)

    def account(self, index: int) -> bytes:
        """Return an account's id."""
        return bytes(self.accounts[32 * index : 32 * index + 32])

    def legs_hash(self, index: int) -> bytes:
        """Return the hash of an account's legs."""
        return bytes(self.hashes[32 * index : 32 * index + 32])

    def entries(self, index: int) -> Iterator[tuple[int, int, int, int]]:
        """Return (key index, size, quote, funding) of an account's legs."""
        for at in range(self.starts[index], self.starts[index + 1]):
            yield (self.key[at], *self._values(at))

    def legs(self, index: int) -> list[Leg]:
        """Return an account's legs, in key order."""
        found = []
        for key, size, quote, funding in self.entries(index):
            kind, chain, venue, market = self.keys[key]
            found.append(Leg(chain, venue, market, LegKind(kind), size, quote, funding))
        return found

    def _values(self, at: int) -> tuple[int, int, int]:
        if at in self.wide:
            return self.wide[at]
        size, quote, funding = self.size[at], self.quote[at], self.funding[at]
        scale = self.scales[self.key[at]]
        return (size, quote, funding) if scale == 1 else (size * scale + quote, 0, 0)


def build(rows: Iterable[tuple[bytes, int, int, Sequence[Leg]]]) -> Book:
    """Return the book of (account, seq, flags, legs) rows, in that order.

    Raises:
        ValueError: an account has two legs with one key.
    """
    taken = [(account, seq, flags, sorted(legs, key=_key)) for account, seq, flags, legs in rows]
    large: set[RateKey] = set()
    small: set[RateKey] = set()
    for _, _, _, legs in taken:
        for leg in legs:
            fits = leg.kind == LegKind.PERP or abs(leg.size) < INT_BOUND
            (small if fits else large).add(_rate_key(leg))
    book = Book(keys=sorted(small | large))
    book.scales = [SCALE if key in large else 1 for key in book.keys]
    position = {key: i for i, key in enumerate(book.keys)}
    for account, seq, flags, legs in taken:
        if len({_key(leg) for leg in legs}) != len(legs):
            raise ValueError(f"account {account.hex()} has two legs with one key")
        book.accounts += account
        book.hashes += legs_hash(legs)
        book.seqs.append(seq)
        book.flags.append(flags)
        for leg in legs:
            _append(book, position[_rate_key(leg)], leg)
        book.starts.append(len(book.key))
    return book


def _key(leg: Leg) -> tuple[int, bytes, bytes, int]:
    return leg.key


def _rate_key(leg: Leg) -> RateKey:
    return (int(leg.kind), leg.chain, leg.venue, leg.market)


def _append(book: Book, key: int, leg: Leg) -> None:
    scale = book.scales[key]
    values = (leg.size, leg.quote, leg.funding)
    if scale != 1:
        values = (*divmod(leg.size, scale), 0)
    if any(abs(value) >= INT_BOUND for value in values):
        book.wide[len(book.key)] = (leg.size, leg.quote, leg.funding)
        values = (0, 0, 0)
    book.key.append(key)
    for column, value in zip((book.size, book.quote, book.funding), values, strict=True):
        column.append(value)


def dump(book: Book) -> bytes:
    """Return the book's file."""
    columns = (book.seqs, book.flags, book.starts, book.key, book.size, book.quote, book.funding)
    wide = [[at, [str(v) for v in values]] for at, values in sorted(book.wide.items())]
    keys = [list(key) for key in book.keys]
    body = [keys, book.scales, bytes(book.accounts), bytes(book.hashes)]
    packed: bytes = msgpack.packb([MAGIC, VERSION, *body, [_bytes(c) for c in columns], wide])
    return packed


def load(raw: bytes) -> Book:
    """Return the book of a file.

    Raises:
        ValueError: it is not a book, of another version, or its columns do not fit each other.
    """
    try:
        file = msgspec.msgpack.decode(raw, type=_File)
        if file.magic != MAGIC or file.version != VERSION:
            raise ValueError(f"version {file.version!r} of {file.magic!r}")
        seqs, flags, starts, key, size, quote, funding = map(_column, file.columns)
        book = Book(
            keys=[
                (kind, ChainId(chain), venue, market) for kind, chain, venue, market in file.keys
            ],
            scales=file.scales,
            accounts=bytearray(file.accounts),
            hashes=bytearray(file.hashes),
            seqs=seqs,
            flags=flags,
            starts=starts,
            key=key,
            size=size,
            quote=quote,
            funding=funding,
            wide={at: (int(s), int(q), int(f)) for at, (s, q, f) in file.wide},
        )
    except ValueError as error:
        raise ValueError(f"not a book of accounts: {error}") from error
    _check(book)
    return book


class _File(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The file's fields in order."""

    magic: str
    version: int
    keys: list[tuple[int, int, bytes, bytes]]
    scales: list[int]
    accounts: bytes
    hashes: bytes
    columns: tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes]
    wide: list[tuple[int, tuple[str, str, str]]]


def _check(book: Book) -> None:
    count, legs = len(book.seqs), len(book.key)
    fits = (
        len(book.accounts) == len(book.hashes) == 32 * count
        and len(book.flags) == count == len(book.starts) - 1
        and len(book.size) == len(book.quote) == len(book.funding) == legs
        and len(book.scales) == len(book.keys)
        and book.starts[0] == 0
        and book.starts[-1] == legs
    )
    starts, key = np.frombuffer(book.starts, np.int64), np.frombuffer(book.key, np.int64)
    if not fits or bool((starts[1:] < starts[:-1]).any()):
        raise ValueError("not a book of accounts: columns do not fit each other")
    if any(kind not in set(LegKind) for kind, *_ in book.keys):
        raise ValueError("not a book of accounts: there is no such kind of leg")
    if set(book.scales) - {1, SCALE} or not all(0 <= at < legs for at in book.wide):
        raise ValueError("not a book of accounts: a scale or a wide leg is impossible")
    for column in (book.size, book.quote, book.funding):
        values = np.frombuffer(column, np.int64)
        if legs and not -INT_BOUND < int(values.min()) <= int(values.max()) < INT_BOUND:
            raise ValueError("not a book of accounts: a number is beyond 62 bits")
    if legs and not 0 <= int(key.min()) <= int(key.max()) < len(book.keys):
        raise ValueError("not a book of accounts: a leg names an unknown key")


def _bytes(column: Column) -> bytes:
    """Return a column's blob, little endian."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _column(blob: bytes) -> Column:
    column = array("q")
    column.frombytes(blob)
    if sys.byteorder == "big":
        column.byteswap()
    return column
