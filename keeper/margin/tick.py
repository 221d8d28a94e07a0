"""What a snapshot takes from one tick: exact totals, and the accounts below the watch line.

    Book + Marks ──▶ Tick(count, Σ equity, Σ IMR, Σ MMR, exposure per bridge class, watched…)

Every engine gives the same Tick. The Python engine screens: from sums it needs anyway it bounds the
requirement from above,

    R ≤ gross · max(largest ratio, half the largest divergence, largest shock) + costs + rounding

and works out the whole model only where equity does not clear the watch line of that bound.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cmp_to_key
from itertools import islice
from typing import NamedTuple

import numpy as np

from keeper.legs import LegKind
from keeper.margin.batch import PYTHON, evaluate_book
from keeper.margin.book import Book
from keeper.margin.columns import LEGS_LIMIT, Ints, Margins
from keeper.margin.engine import (
    CONCENTRATION_UNIT,
    AccountMargin,
    Engine,
    compare_risk,
    ratios,
)
from keeper.margin.marks import Marks, Rate
from keeper.parameters import MarginParameters
from keeper.units import PPM, ceil_div

ROUNDING = 4 * LEGS_LIMIT
"""More µUSD than roundings up add to R for an account of at most so many legs."""
NEVER = 1 << 256


@dataclass(frozen=True, slots=True)
class Watched:
    """An account below the watch line, or one that fails its local rule."""

    index: int
    account: bytes
    equity: int
    imr: int
    mmr: int
    requirement: int
    health_ppm: int
    healthy: bool


@dataclass(frozen=True, slots=True)
class Tick:
    """All accounts at one tick, µUSD.

    Args:
        exposure: collateral before haircuts by the bridge class of its chain.
        watched: riskiest first; ties by larger MMR, then account id.
    """

    count: int
    equity: int
    imr: int
    mmr: int
    exposure: tuple[int, ...]
    watched: tuple[Watched, ...]


def assess(book: Book, marks: Marks, engine: str = PYTHON) -> Tick:
    """Return the tick of a book.

    Raises:
        Unpriced: a key has no price or parameters.
        ValueError: there is no such engine, or a holding has a negative size.
    """
    line = marks.parameters.watch_health_ppm
    if engine == PYTHON:
        totals, watched = _screened(book, marks, line)
    else:
        margins = evaluate_book(book, marks, engine)
        totals, watched = margins.totals(), _below(book, margins, line)
    return Tick(
        count=len(book),
        equity=totals[0],
        imr=totals[1],
        mmr=totals[2],
        exposure=exposure(book, marks),
        watched=tuple(by_risk(watched)),
    )


def by_risk(accounts: Iterable[Watched]) -> list[Watched]:
    """Return accounts riskiest first: exact health, then larger MMR, then account id."""
    ordered = sorted(accounts, key=lambda one: (one.health_ppm, one.account))
    out: list[Watched] = []
    start = 0
    for at in range(1, len(ordered) + 1):
        if at == len(ordered) or ordered[at].health_ppm != ordered[start].health_ppm:
            run = ordered[start:at]
            out += sorted(run, key=cmp_to_key(compare_risk)) if len(run) > 1 else run
            start = at
    return out


def exposure(book: Book, marks: Marks) -> tuple[int, ...]:
    """Return collateral before haircuts per bridge class: the sum of sizes of each key, once."""
    parameters = marks.parameters
    sizes, digits = (sum_by_key(book, np.frombuffer(c, np.int64)) for c in (book.size, book.quote))
    for leg, (size, _, _) in book.wide.items():
        sizes[book.key[leg]] += size * (book.scales[book.key[leg]] == 1)
        digits[book.key[leg]] += size * (book.scales[book.key[leg]] != 1)
    classes = [0] * len(parameters.bridge_class_ppm)
    for k, (key, scale) in enumerate(zip(book.keys, book.scales, strict=True)):
        if key[0] == LegKind.COLLATERAL:
            size = sizes[k] if scale == 1 else sizes[k] * scale + digits[k]
            rate = marks.rate_of(key)
            bridge_class = parameters.chain_of[key[1]].bridge_class
            classes[bridge_class] += size * rate.price // rate.divisor
    return tuple(classes)


def sum_by_key(book: Book, values: Ints) -> list[int]:
    """Return the exact sum of a column per key: limbs of 21 bits add up exactly in floats."""
    key = np.frombuffer(book.key, np.int64)
    sums = [0] * len(book.keys)
    for shift, mask in ((0, 0x1F_FFFF), (21, 0x1F_FFFF), (42, -1)):
        limb = np.bincount(key, (values >> shift) & mask, len(book.keys))
        for k, total in enumerate(limb):
            sums[k] += int(total) << shift
    return sums


def _below(book: Book, margins: Margins, line: int) -> list[Watched]:
    low = np.flatnonzero((margins.health < line) | ~margins.local)
    found = []
    for index in map(int, low):
        equity, _, imr, mmr, requirement, _, health, local = margins.row(index)
        healthy = local and equity >= requirement
        account = book.account(index)
        found.append(Watched(index, account, equity, imr, mmr, requirement, health, healthy))
    return found


def watched_of(index: int, account: bytes, margin: AccountMargin) -> Watched:
    """Return an account's entry."""
    return Watched(
        index,
        account,
        margin.equity,
        margin.imr,
        margin.mmr,
        margin.requirement,
        margin.health_ppm,
        margin.healthy,
    )


class _Spec(NamedTuple):
    """What the screen needs of a rate; a perp's size outside ± `quiet` has concentration."""

    kind: int
    price: int
    divisor: int
    factor: int  # perp: the funding index; else: the weight
    quiet: int  # else: the scale of the key
    least: int  # -quiet
    keep: int
    open: int


def _spec(rate: Rate, scale: int) -> _Spec:
    if rate.kind != LegKind.PERP:
        return _Spec(rate.kind, rate.price, rate.divisor, rate.weight, scale, 0, 0, 0)
    room = min(rate.maintenance - rate.maintenance_floor, rate.initial - rate.initial_floor)
    root = room * CONCENTRATION_UNIT // max(1, rate.concentration)
    quiet = root * root if rate.concentration else NEVER
    keep, open_ = rate.maintenance + rate.latency, rate.initial + rate.latency
    return _Spec(rate.kind, rate.price, rate.divisor, rate.funding, quiet, -quiet, keep, open_)


def requirement_factor(parameters: MarginParameters) -> int:
    """Return what bounds R by gross notional besides the legs' own ratios, ppm."""
    shock = max((abs(s) for row in parameters.scenarios for s in row), default=0)
    basis = max((u.basis_ppm for u in parameters.underlyings), default=0)
    return max(shock, ceil_div(basis + max(parameters.bridge_class_ppm), 2))


def _screened(book: Book, marks: Marks, line: int) -> tuple[tuple[int, int, int], list[Watched]]:
    """Return totals and watched accounts of the Python engine."""
    parameters, engine = marks.parameters, Engine(marks)
    rates = [marks.rate_of(key) for key in book.keys]
    whole = parameters.local_ppm > 0 or any(v.local_ppm > 0 for v in parameters.venues)
    odd = {owner(book, leg) for leg in book.wide}
    screen = Screen(rates, book.scales, parameters)
    legs = zip(book.key, book.size, book.quote, book.funding, strict=True)
    equities = imrs = mmrs = start = 0
    watched: list[Watched] = []
    for index, end in enumerate(islice(book.starts, 1, None)):
        count, start = end - start, end
        equity, imr, mmr, bound = screen.sums(islice(legs, count))
        if whole or index in odd or count > LEGS_LIMIT or equity * PPM < line * bound:
            entries = book.entries(index)
            margin = engine.margin(
                [(rates[k], size, quote, paid) for k, size, quote, paid in entries]
            )
            equity, imr, mmr = margin.equity, margin.imr, margin.mmr
            if margin.health_ppm < line or not margin.healthy_local:
                watched.append(watched_of(index, book.account(index), margin))
        equities += equity
        imrs += imr
        mmrs += mmr
    return (equities, imrs, mmrs), watched


class Screen:
    """Exact equity, IMR and MMR of an account, and a bound of its requirement."""

    def __init__(self, rates: list[Rate], scales: list[int], parameters: MarginParameters) -> None:
        self._rates, self._cost = rates, parameters.leg_cost
        self._specs = [tuple(_spec(r, s)) for r, s in zip(rates, scales, strict=True)]
        self._least = requirement_factor(parameters)

    def sums(self, legs: Iterable[tuple[int, int, int, int]]) -> tuple[int, int, int, int]:
        """Return equity, IMR, MMR and an upper bound of R of (key, size, quote, funding) legs.

        The inner loop of the Python engine: literals instead of names, and ⌈a/b⌉ = ⌊(a+b−1)/b⌋.
        """
        specs, worst = self._specs, self._least
        equity = imr = mmr = gross = count = 0
        for key, size, quote, paid in legs:
            kind, price, divisor, factor, quiet, least, keep, open_ = specs[key]
            if kind == 2:
                value = size * price
                if size > 0:
                    notional = (value + divisor - 1) // divisor
                    equity += value // divisor + quote
                else:
                    notional = -(value // divisor)
                    equity += quote - notional
                if factor != paid:
                    equity += size * (paid - factor) // 1_000_000_000_000
                if size > quiet or size < least:
                    keep, open_ = ratios(self._rates[key], size)
                if keep > worst:
                    worst = keep
                if size:
                    imr += (notional * open_ + 999_999) // 1_000_000
                    mmr += (notional * keep + 999_999) // 1_000_000
                    gross += notional
                    count += 1
                continue
            if quiet != 1:
                size = size * quiet + quote
            if kind == 0:
                equity += size * price // divisor * factor // 1_000_000
            elif size:
                notional = (size * price + divisor - 1) // divisor
                equity -= (notional * factor + 999_999) // 1_000_000
                gross += notional
                count += 1
        costs = count * self._cost
        bound = gross * worst // 1_000_000 + costs + ROUNDING
        return equity, imr + costs, mmr + costs, bound


def owner(book: Book, leg: int) -> int:
    """Return the account that a leg belongs to."""
    return bisect_right(book.starts, leg) - 1
