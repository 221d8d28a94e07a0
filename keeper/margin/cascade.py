"""What the cascade breaker judges: do forced trades push prices into more forced trades?

    depth_u   agreed parameter: µUSD of forced trades that move underlying u by a factor e
    G_u       notional of all positions in u, agreed like every leg
    a share f of everything liquidated moves u by f·G_u/depth_u, and the whole, weighed by G_u, by

        f · Σ G_u²/depth_u / G  =  f·G / depth        depth = G² / Σ (G_u²/depth_u) ≤ Σ depth_u

    multiplier = worst LaR′(x)/depth over moves x of both directions; bad debt at the probed fall

So no feed is believed: what a pool holds can be lent for one block, while depths move by steps of
governance, and nobody raises the whole above their sum by opening positions (Cauchy and Schwarz).
All integers; rounded so that the depth is never overstated.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from keeper.legs import Leg, LegKind
from keeper.margin import stress
from keeper.margin.batch import exposures
from keeper.margin.book import Book
from keeper.margin.columns import Margins
from keeper.margin.engine import AccountMargin, Row
from keeper.margin.marks import Marks, RateKey
from keeper.margin.readings import CascadeReading
from keeper.margin.stress import Curve
from keeper.margin.tick import sum_by_key
from keeper.parameters import BreakerParameters, MarginParameters
from keeper.units import ceil_div

SCALE = 10**18
"""Digits kept below 1 µUSD of impact, so that a small book has its true depth too."""


def sizes(legs: Iterable[Leg]) -> dict[RateKey, int]:
    """Return Σ |size| of perps per key."""
    found: dict[RateKey, int] = {}
    for leg in legs:
        if leg.kind == LegKind.PERP and leg.size:
            key = (int(leg.kind), leg.chain, leg.venue, leg.market)
            found[key] = found.get(key, 0) + abs(leg.size)
    return found


def book_sizes(book: Book) -> dict[RateKey, int]:
    """Return Σ |size| of perps per key of a book."""
    totals = sum_by_key(book, np.abs(np.frombuffer(book.size, np.int64)))
    for leg, (size, _, _) in book.wide.items():
        totals[book.key[leg]] += abs(size)
    pairs = zip(book.keys, totals, strict=True)
    return {key: total for key, total in pairs if key[0] == LegKind.PERP and total}


def market_depth(open_sizes: Mapping[RateKey, int], marks: Marks) -> int:
    """Return the depth of the market as it is traded, µUSD; the sum of all where nothing is open.

    Args:
        open_sizes: Σ |size| per key of a perp.
        marks: the tick.

    Raises:
        Unpriced: a key has no price or parameters.
    """
    underlyings = marks.parameters.underlyings
    notional = [0] * len(underlyings)
    for key, size in sorted(open_sizes.items()):
        rate = marks.rate_of(key)
        notional[rate.underlying] += size * rate.price // rate.divisor
    traded = [(g, u.depth) for g, u in zip(notional, underlyings, strict=True) if g and u.depth]
    if not traded:
        return sum_of_depths(marks.parameters)
    whole = sum(g for g, _ in traded)
    impact = sum(ceil_div(g * g * SCALE, depth) for g, depth in traded)
    return max(1, whole * whole * SCALE // impact)


def sum_of_depths(parameters: MarginParameters) -> int:
    """Return what the depth never exceeds, µUSD."""
    return max(1, sum(u.depth for u in parameters.underlyings))


def margins_of(accounts: Iterable[tuple[AccountMargin, list[Row]]], count: int) -> Margins:
    """Return evaluated accounts as the arrays that a curve is made of."""
    out = Margins.empty(count)
    for index, (margin, rows) in enumerate(accounts):
        out.put(index, margin, *exposures(rows))
    return out


def curves(margins: Margins) -> tuple[Curve, Curve]:
    """Return the curves of falling and of rising prices."""
    return stress.curve(margins), stress.curve(margins, falling=False)


def reading(
    both: tuple[Curve, Curve], depth: int, limits: BreakerParameters, insurance: int
) -> CascadeReading:
    """Return what the breaker judges.

    Args:
        both: curves of falling and rising prices.
        depth: µUSD that moves the market by a factor e.
        limits: what is probed.
        insurance: µUSD that answer for bad debt.
    """
    worst = max(stress.worst_multiplier_ppm(one, depth, limits.cascade_probe_ppm) for one in both)
    return CascadeReading(worst, both[0].bad_debt(limits.insurance_probe_ppm), insurance)
