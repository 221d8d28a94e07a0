"""All accounts of a book at one tick: engines behind one interface, equal to the bit.

    python   the reference, account by account
    numpy    the same over columns            ┐ what their guards exclude
    numba    the same as one compiled loop    ┘ goes to the reference

A snapshot needs exact totals, and exact health only where it could be below the watch line: tick.py
uses that.
"""

from collections.abc import Callable, Iterable

import numpy as np

from keeper.legs import LegKind
from keeper.margin import vector
from keeper.margin.book import Book
from keeper.margin.columns import Margins, table
from keeper.margin.engine import Engine, Row
from keeper.margin.marks import Marks
from keeper.parameters import RiskGroup
from keeper.units import PPM

NUMBA, NUMPY, PYTHON = "numba", "numpy", "python"


def available() -> list[str]:
    """Return the engines that work here, best first."""
    try:
        import numba
    except ImportError:
        return [NUMPY, PYTHON]
    return [NUMBA, NUMPY, PYTHON] if numba.__version__ else [NUMPY, PYTHON]


def rows(book: Book, marks: Marks, index: int) -> list[Row]:
    """Return one account's legs with their rates."""
    rates = [marks.rate_of(key) for key in book.keys]
    return [(rates[k], size, quote, funding) for k, size, quote, funding in book.entries(index)]


def exposures(legs: Iterable[Row]) -> tuple[int, int]:
    """Return Σ notional of perps and debts, and the direction: see `Margins`."""
    gross = direction = 0
    for rate, size, _, _ in legs:
        signed = -size if rate.kind == LegKind.DEBT else size
        value = signed * rate.price // rate.divisor
        if rate.kind != LegKind.COLLATERAL:
            gross -= -abs(size) * rate.price // rate.divisor
        if rate.group != RiskGroup.STABLE:
            direction += value if rate.kind == LegKind.PERP else value * rate.weight // PPM
    return gross, direction


def evaluate_book(book: Book, marks: Marks, engine: str = NUMPY) -> Margins:
    """Return the margin of every account.

    Args:
        book: the accounts.
        marks: prices, funding and ages of the tick.
        engine: one of `available()`.

    Raises:
        Unpriced: a key has no price or parameters.
        ValueError: there is no such engine, or a holding has a negative size.
    """
    if engine == PYTHON:
        return _exactly(book, marks, Margins.empty(len(book)), range(len(book)))
    if engine not in available():
        raise ValueError(f"engine {engine!r} is not one of {', '.join(available())}")
    run: Callable[..., tuple[Margins, np.ndarray]] = vector.margins
    if engine == NUMBA:
        from keeper.margin import kernel

        run = kernel.margins
    found, left = run(book, table(book, marks))
    return _exactly(book, marks, found, [int(i) for i in np.flatnonzero(left)])


def _exactly(book: Book, marks: Marks, out: Margins, indices: Iterable[int]) -> Margins:
    engine = Engine(marks)
    rates = [marks.rate_of(key) for key in book.keys]
    for index in indices:
        legs = [(rates[k], size, quote, paid) for k, size, quote, paid in book.entries(index)]
        out.put(index, engine.margin(legs), *exposures(legs))
    return out
