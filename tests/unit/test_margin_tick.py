"""One tick is the same from every engine, and the screen never hides an account at risk."""

from itertools import pairwise

import pytest

from keeper.legs import LegKind
from keeper.margin import book as books
from keeper.margin.batch import available, evaluate_book
from keeper.margin.engine import compare_risk
from keeper.margin.tick import assess, by_risk, exposure
from tests.support import margin_books as support


@pytest.mark.parametrize(
    ("seed", "extreme", "local"), [(5, 0.0, False), (6, 0.05, False), (7, 0.01, True)]
)
def test_every_engine_gives_the_same_tick(seed: int, extreme: float, local: bool) -> None:
    book = books.build(support.accounts(1_200, seed, extreme))
    marks = support.marks(seed, local)
    ticks = [assess(book, marks, engine) for engine in available()]
    assert all(tick == ticks[0] for tick in ticks)
    margins = evaluate_book(book, marks, "python")
    line = marks.parameters.watch_health_ppm
    expected = {i for i in range(len(book)) if margins.row(i)[6] < line or not margins.row(i)[7]}
    assert {one.index for one in ticks[0].watched} == expected
    assert (ticks[0].equity, ticks[0].imr, ticks[0].mmr) == margins.totals()
    assert 0 < len(expected) < len(book)


def test_watched_accounts_come_riskiest_first() -> None:
    book = books.build(support.accounts(600, 8, 0.02))
    watched = assess(book, support.marks(8)).watched
    assert all(compare_risk(a, b) <= 0 for a, b in pairwise(watched))
    assert by_risk(reversed(watched)) == list(watched)


def test_exposure_counts_every_unit_of_collateral_once() -> None:
    rows = support.accounts(300, 11, 0.1)
    book, marks = books.build(rows), support.marks(11)
    sums: dict[tuple[int, bytes, bytes], int] = {}
    for _, _, _, legs in rows:
        for leg in legs:
            if leg.kind == LegKind.COLLATERAL:
                key = (leg.chain, leg.venue, leg.market)
                sums[key] = sums.get(key, 0) + leg.size
    classes = [0] * 4
    for (chain, _, market), size in sums.items():
        at = support.CHAINS.index(chain)
        decimals = marks.parameters.asset_of[market].decimals
        classes[at] += size * marks.prices[market] // 10 ** (decimals + 2)
    assert exposure(book, marks) == tuple(classes)
