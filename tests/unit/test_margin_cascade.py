"""The cascade breaker's input: the market's depth, and the same reading by every road."""

import random
from dataclasses import replace

import numpy as np
import pytest

from keeper.legs import Leg, LegKind
from keeper.margin import book as books
from keeper.margin import cascade, stress
from keeper.margin.batch import available
from keeper.margin.columns import Margins
from keeper.margin.engine import Engine
from keeper.margin.marks import Marks, RateKey
from keeper.margin.report import report
from keeper.parameters import Parameters
from keeper.units import PPM, ChainId, symbol
from tests.support import margin_books as support

A = ChainId(31337)
MARKETS = ("ETH-USD", "BTC-USD", "SOL-USD")
VENUE = b"\x02" * 20
PARAMETERS = Parameters.devnet((A,))
PRICES = {symbol(m): 100 * 10**8 for m in MARKETS} | {symbol("USDC"): 10**8}
MARKS = Marks(PRICES, {}, PARAMETERS.margin, {A: 1})
DEPTH = {"ETH-USD": 100_000_000, "BTC-USD": 200_000_000, "SOL-USD": 20_000_000}


def key(market: str) -> RateKey:
    return (int(LegKind.PERP), A, VENUE, symbol(market))


def depth(**dollars: int) -> int:
    sizes = {key(f"{name}-USD"): value * 10**6 for name, value in dollars.items()}
    return cascade.market_depth(sizes, MARKS)


@pytest.mark.parametrize("market", MARKETS)
def test_one_market_alone_has_its_own_depth(market: str) -> None:
    assert depth(**{market[:3]: 7_000}) == DEPTH[market] * PPM


def test_markets_in_proportion_to_their_depth_add_up() -> None:
    assert depth(ETH=100, BTC=200, SOL=20) == 320_000_000 * PPM
    assert cascade.market_depth({}, MARKS) == 320_000_000 * PPM


def test_nobody_raises_the_depth_above_the_sum_and_thin_markets_pull_it_down() -> None:
    draw, whole = random.Random(4), 320_000_000 * PPM
    for _ in range(300):
        drawn = {
            name: draw.randrange(10 ** draw.randrange(1, 10)) for name in ("ETH", "BTC", "SOL")
        }
        if not any(drawn.values()):
            continue
        found = depth(**drawn)
        assert 20_000_000 * PPM - 1 <= found <= whole
        total = sum(drawn.values())
        exact = total**2 / sum(v * v / DEPTH[f"{n}-USD"] for n, v in drawn.items())
        assert found == pytest.approx(exact * PPM, rel=1e-6)
        assert found <= exact * PPM * (1 + 1e-12)  # never overstated
    assert depth(ETH=1_000, SOL=1_000) < depth(ETH=1_000)


def test_a_market_without_depth_cannot_be_set() -> None:
    shallow = tuple(replace(u, depth=0) for u in PARAMETERS.margin.underlyings)
    wrong = replace(PARAMETERS, margin=replace(PARAMETERS.margin, underlyings=shallow))
    with pytest.raises(ValueError, match="no depth"):
        Parameters.decode(wrong.encode())


@pytest.mark.parametrize("engine", available())
@pytest.mark.parametrize("extreme", [0.0, 0.2])
def test_legs_and_books_give_the_same_reading(engine: str, extreme: float) -> None:
    rows = support.accounts(300, 17, extreme)
    book, marks = books.build(rows), support.marks(17, local=False)
    model = Engine(marks)
    accounts = [(model.margin(r), r) for _, _, _, legs in rows for r in (model.rows(legs),)]
    sizes = cascade.sizes(leg for _, _, _, legs in rows for leg in legs)
    assert cascade.book_sizes(book) == sizes
    deep = cascade.market_depth(sizes, marks)
    both = cascade.curves(cascade.margins_of(accounts, len(accounts)))
    reading = cascade.reading(both, deep, PARAMETERS.breakers, 5)
    shown = report(book, marks, PARAMETERS.breakers, engine=engine)
    assert (shown.depth, shown.multiplier_ppm) == (deep, reading.multiplier_ppm)
    assert (shown.probe_bad_debt, reading.insurance) == (reading.bad_debt, 5)
    assert reading.multiplier_ppm > 0


def test_sums_beyond_64_bits_stay_exact() -> None:
    margins = Margins.empty(4)
    for column, value in ((margins.equity, 5), (margins.requirement, 10), (margins.gross, 2**62)):
        column[:] = value
    margins.direction[:] = 100
    curve = stress.curve(margins)
    assert curve.liquidated(0) == 4 * 2**62
    plain = np.cumsum(margins.gross)  # what 64 bits would have said
    assert int(plain[-1]) != 4 * 2**62


def test_a_book_of_stable_debts_has_no_traded_market() -> None:
    legs = [Leg(A, VENUE, symbol("USDC"), LegKind.DEBT, 10**6)]
    assert cascade.sizes(legs) == {}
