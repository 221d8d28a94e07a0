"""The book: the replicated state that one snapshot hands to the next.

    prices        last agreed price per market
    registry      account → (index in the state tree, sequence number, legs hash)
    rules         canonical bytes per decision rule
    outstanding   decisions sealed but not yet seen on their chain, nor expired

Legs and margins are not in it: they follow from the cut and the prices. The book's hash is in the
header, so a late keeper may take the bytes from anybody and check them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgpack

from keeper.hashing import keccak
from keeper.snapshot.decisions import Decision, Price
from keeper.units import ChainId

MAX_OUTSTANDING = 4096
"""Decisions in flight: a minute of a venue that clears everybody at once; more are not made."""


@dataclass(frozen=True, slots=True)
class Registered:
    """An account's place in the state tree, how often its legs changed, and what they hash to."""

    index: int
    sequence: int
    legs_hash: bytes


@dataclass(frozen=True, slots=True)
class Book:
    """See the drawing; all mappings are iterated in sorted order wherever order matters."""

    prices: Mapping[bytes, Price]
    registry: Mapping[bytes, Registered]
    rules: Mapping[str, bytes]
    outstanding: tuple[Decision, ...]

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        packed: bytes = msgpack.packb(
            [
                [[p.market, p.price_e8, p.stale] for _, p in sorted(self.prices.items())],
                [
                    [account, r.index, r.sequence, r.legs_hash]
                    for account, r in sorted(self.registry.items())
                ],
                [[name, state] for name, state in sorted(self.rules.items())],
                [decision_row(decision) for decision in self.outstanding],
            ]
        )
        return packed

    def hash(self) -> bytes:
        """Return keccak of the canonical bytes."""
        return keccak(self.encode())


EMPTY_BOOK = Book({}, {}, {}, ())


def decision_row(decision: Decision) -> list[object]:
    """Return plain values for msgpack; integers that may pass 64 bits travel as text."""
    return [
        decision.kind,
        decision.chain,
        decision.contract,
        decision.key,
        decision.leaf,
        [_field_out(value) for value in decision.fields],
        decision.expiry,
        [[account, str(amount)] for account, amount in decision.holds],
    ]


def decision_from_row(row: list[object]) -> Decision:
    """Return the decision that `decision_row` wrote.

    Raises:
        ValueError: a field is missing or of the wrong type.
    """
    try:
        kind, chain, contract, key, leaf, fields, expiry, holds = row
        decision = Decision(
            kind,  # type: ignore[arg-type]
            ChainId(chain),  # type: ignore[arg-type]
            contract,  # type: ignore[arg-type]
            key,  # type: ignore[arg-type]
            leaf,  # type: ignore[arg-type]
            tuple(_field_in(value) for value in fields),  # type: ignore[attr-defined]
            expiry,  # type: ignore[arg-type]
            tuple((account, int(amount)) for account, amount in holds),  # type: ignore[attr-defined]
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"malformed decision: {error}") from error
    typed: tuple[tuple[object, type], ...] = (
        (kind, str),
        (chain, int),
        (expiry, int),
        (contract, bytes),
        (key, bytes),
        (leaf, bytes),
        *((account, bytes) for account, _ in decision.holds),
    )
    if not all(type(value) is expected for value, expected in typed):
        raise ValueError("malformed decision: a field has the wrong type")
    return decision


def _field_out(value: int | bytes | tuple[bytes, ...]) -> object:
    if isinstance(value, int):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _field_in(value: object) -> int | bytes | tuple[bytes, ...]:
    if isinstance(value, str):
        return int(value)
    if isinstance(value, bytes):
        return value
    if isinstance(value, list) and all(isinstance(item, bytes) for item in value):
        return tuple(value)
    raise ValueError(f"a decision field is {type(value).__name__}")


def book_from_bytes(raw: bytes) -> Book:
    """Return the book that `encode` wrote; the caller compares `hash()` with a sealed header.

    Raises:
        ValueError: the bytes are not canonical.
    """
    try:
        prices, registry, rules, outstanding = msgpack.unpackb(raw, raw=False)
        book = Book(
            {row[0]: Price(*row) for row in prices},
            {row[0]: Registered(*row[1:]) for row in registry},
            dict(rules),
            tuple(decision_from_row(row) for row in outstanding),
        )
        canonical = book.encode()
    except (TypeError, ValueError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"malformed book: {error}") from error
    if canonical != raw:
        raise ValueError("the book's bytes are not canonical")
    return book
