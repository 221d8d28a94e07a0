"""A tick as one file, to look at offline: everything `keeper risk` and `keeper breaker` read.

msgpack [magic, version, parameters, prices, funding, ages, book, board]
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgpack
import msgspec

from keeper.errors import LocalError
from keeper.margin import book as books
from keeper.margin.book import Book
from keeper.margin.breaker import Action, Board, Level, Rule, Trip
from keeper.margin.marks import Marks
from keeper.parameters import Parameters
from keeper.units import ChainId

MAGIC = "flowkeeper-tick"
VERSION = 1


@dataclass(frozen=True, slots=True)
class TickFile:
    """A book, its marks, the epoch's parameters and the breakers that are open."""

    parameters: Parameters
    marks: Marks
    book: Book
    board: Board = ()


def encode_board(board: Board) -> list[list[object]]:
    """Return a board as plain rows for msgpack."""
    return [
        [t.rule.value, t.scope, [[int(a), int(g)] for a, g in t.grades], t.since, t.until, t.why]
        for t in board
    ]


def decode_board(
    rows: Iterable[tuple[str, bytes, Iterable[tuple[int, int]], int, int, str]],
) -> Board:
    """Return the board of plain rows.

    Raises:
        ValueError: a row names an unknown rule, action or level.
    """
    return tuple(
        Trip(Rule(r), s, tuple((Action(a), Level(g)) for a, g in grades), since, until, why)
        for r, s, grades, since, until, why in rows
    )


class _File(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The file's fields in order; ages and prices are what no chain says negative."""

    magic: str
    version: int
    parameters: bytes
    prices: list[tuple[bytes, Annotated[int, msgspec.Meta(ge=0)]]]
    funding: list[tuple[int, bytes, bytes, int]]
    ages: list[tuple[int, Annotated[int, msgspec.Meta(ge=0)]]]
    book: bytes
    board: list[tuple[str, bytes, list[tuple[int, int]], int, int, str]]


def dump(tick: TickFile) -> bytes:
    """Return the file's bytes."""
    marks = tick.marks
    packed: bytes = msgpack.packb(
        [
            MAGIC,
            VERSION,
            tick.parameters.encode(),
            sorted(marks.prices.items()),
            sorted([*key, index] for key, index in marks.funding.items()),
            sorted(marks.ages.items()),
            books.dump(tick.book),
            encode_board(tick.board),
        ]
    )
    return packed


def load(raw: bytes, where: str = "") -> TickFile:
    """Return the tick of a file's bytes.

    Raises:
        LocalError: the bytes are no such file, or of another version.
    """
    try:
        file = msgspec.msgpack.decode(raw, type=_File)
        if file.magic != MAGIC or file.version != VERSION:
            raise ValueError(f"version {file.version!r} of {file.magic!r}")
        parameters = Parameters.decode(file.parameters)
        marks = Marks(
            dict(file.prices),
            {(ChainId(c), v, m): index for c, v, m, index in file.funding},
            parameters.margin,
            {ChainId(c): age for c, age in file.ages},
        )
        return TickFile(parameters, marks, books.load(file.book), decode_board(file.board))
    except ValueError as error:
        raise LocalError(
            f"not a tick file: {error}",
            where=where,
            remedy="`keeper.margin.dump.dump` writes such a file",
        ) from error


def read(path: Path) -> TickFile:
    """Return the tick of a file.

    Raises:
        LocalError: it cannot be read, or is no such file.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise LocalError(f"cannot read the tick: {error.strerror}", where=str(path)) from error
    return load(raw, str(path))
