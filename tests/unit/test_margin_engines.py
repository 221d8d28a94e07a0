"""Python, numpy and numba agree on every account to the bit, extremes and fallbacks included."""

import pytest

from keeper.margin import book as books
from keeper.margin.batch import available, evaluate_book
from keeper.margin.columns import excluded, table
from keeper.margin.engine import evaluate
from tests.support import margin_books as support

FAST = [name for name in available() if name != "python"]


def test_numba_is_among_what_is_compared() -> None:
    assert available() == ["numba", "numpy", "python"]  # the locked environment has all three


@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize(
    ("seed", "extreme", "local"), [(1, 0.0, True), (2, 0.04, False), (3, 0.02, True)]
)
def test_every_engine_equals_the_reference(
    engine: str, seed: int, extreme: float, local: bool
) -> None:
    book = books.build(support.accounts(1_500, seed, extreme))
    marks = support.marks(seed, local)
    slow, fast = evaluate_book(book, marks, "python"), evaluate_book(book, marks, engine)
    for index in range(len(book)):
        assert slow.row(index) == fast.row(index), f"account {index}: {book.legs(index)}"
        assert slow.gross[index] == fast.gross[index]
        assert slow.direction[index] == fast.direction[index]
    assert slow.totals() == fast.totals()
    left = int(excluded(book, table(book, marks).usable).sum())
    assert left < len(book) // 2  # the fast path is what was compared


def test_the_reference_equals_evaluate() -> None:
    rows = support.accounts(50, 9)
    book, marks = books.build(rows), support.marks(9)
    margins = evaluate_book(book, marks, "python")
    for index, (_, _, _, legs) in enumerate(rows):
        assert book.legs(index) == legs
        one = evaluate(legs, marks.prices, marks.funding, marks.parameters, marks.ages)
        assert margins.row(index)[0] == one.equity
        assert margins.row(index)[4:7] == (
            one.requirement,
            one.initial_requirement,
            one.health_ppm,
        )


def test_a_book_survives_its_file() -> None:
    book = books.build(support.accounts(300, 4, 0.2))
    raw = books.dump(book)
    again = books.load(raw)
    assert books.dump(again) == raw
    assert [again.legs(i) for i in range(300)] == [book.legs(i) for i in range(300)]
    for broken in (b"", b"\xc0", raw[:-9], raw.replace(b"flowkeeper", b"flowkeepez")):
        with pytest.raises(ValueError, match="not a book"):
            books.load(broken)
