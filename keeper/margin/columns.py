"""What the array engines share: rates as a matrix, results as arrays, and the guards' bounds.

Products of a size and a price need 128 bits. An estimate in floating point is off by a few units at
most, and the remainder a·p − q·d is small, so 64 bits that wrap around still hold it exactly:

    q ≈ a·p / d (float)      r = a·p − q·d (mod 2^64)      q += ⌊r / d⌋

The guards keep every estimate within a few units and every sum within 64 bits. An account that
trips one is left to the reference engine, so the result is exact either way.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from keeper.legs import LegKind
from keeper.margin.book import Book
from keeper.margin.engine import HEALTH_LIMIT, AccountMargin
from keeper.margin.marks import Marks
from keeper.units import PPM

Ints = npt.NDArray[np.int64]

VALUE_LIMIT = 2.0**52
"""µUSD per leg, 4.5 billion dollars: float estimates are then off by at most three units."""
RATIO_LIMIT = 2**23
LEGS_LIMIT = 64
"""2^52 · 2^23 / 10^6 · 64 legs stays below 2^62."""
DIVISOR_LIMIT = 10**17
CONCENTRATION_LIMIT = 2**30
CHAINS_LIMIT = 60

(
    KIND,
    PRICE,
    DIVISOR,
    SCALE,
    WEIGHT,
    MAINTENANCE,
    MAINTENANCE_FLOOR,
    INITIAL,
    INITIAL_FLOOR,
    CONCENTRATION,
    LATENCY,
    FUNDING,
    UNDERLYING,
    GROUP,
    VENUE,
    CHAIN,
) = range(16)


@dataclass(frozen=True, slots=True)
class Table:
    """The rates of a book's keys and the parameters as arrays.

    Args:
        rates: one row per key, columns as named above.
        usable: per key, whether it is within the guards.
        shocks: distinct scenarios, ppm per risk group.
        basis: ppm per underlying.
        classes: surcharge ppm per chain.
        local: local fraction ppm per venue of `Marks.venues`.
    """

    rates: Ints
    usable: npt.NDArray[np.bool_]
    shocks: Ints
    basis: Ints
    classes: Ints
    local: Ints
    leg_cost: int
    positive_pnl_ppm: int
    initial_scenario_ppm: int


def table(book: Book, marks: Marks) -> Table:
    """Return the table of a book at a tick.

    Raises:
        Unpriced: a key has no price or parameters.
    """
    parameters = marks.parameters
    chains = {c.chain: i for i, c in enumerate(parameters.chains)}
    rates = np.zeros((len(book.keys), 16), np.int64)
    usable = np.ones(len(book.keys), np.bool_)
    for at, (key, scale) in enumerate(zip(book.keys, book.scales, strict=True)):
        rate = marks.rate_of(key)
        divisor, rest = divmod(rate.divisor, scale)
        row = (rate.kind, rate.price, divisor, scale, *rate[3:], chains[key[1]])
        fits = (
            rest == 0
            and 0 < divisor <= DIVISOR_LIMIT
            and rate.price < VALUE_LIMIT
            and abs(rate.funding) < VALUE_LIMIT
            and rate.concentration < CONCENTRATION_LIMIT
            and rate.weight < RATIO_LIMIT
        )
        usable[at] = fits
        if fits:
            rates[at] = row
    classes = [parameters.bridge_class_ppm[c.bridge_class] for c in parameters.chains]
    local = [parameters.local_of.get(v, parameters.local_ppm) for v in marks.venues]
    return Table(
        rates=rates,
        usable=usable & (len(chains) <= CHAINS_LIMIT),
        shocks=np.array(sorted(set(parameters.scenarios)), np.int64),
        basis=np.array([u.basis_ppm for u in parameters.underlyings], np.int64),
        classes=np.array(classes, np.int64),
        local=np.array(local, np.int64),
        leg_cost=parameters.leg_cost,
        positive_pnl_ppm=parameters.positive_pnl_ppm,
        initial_scenario_ppm=parameters.initial_scenario_ppm,
    )


@dataclass(slots=True)
class Margins:
    """The margin of every account as arrays; see `AccountMargin` for the fields.

    Args:
        local: whether every venue holds its own part.
        gross: Σ notional of perps and debts, µUSD.
        direction: what equity would lose if every price but those of stables fell to zero, µUSD.
        exact: accounts beyond the guards, by index; their array entries are clamped.
    """

    equity: Ints
    initial_equity: Ints
    imr: Ints
    mmr: Ints
    requirement: Ints
    initial_requirement: Ints
    health: Ints
    local: npt.NDArray[np.bool_]
    gross: Ints
    direction: Ints
    exact: dict[int, AccountMargin] = field(default_factory=dict)

    @classmethod
    def empty(cls, count: int) -> "Margins":
        """Return room for so many accounts."""
        return cls.of(np.zeros((9, count), np.int64), np.ones(count, np.bool_))

    @classmethod
    def of(cls, values: Ints, local: npt.NDArray[np.bool_]) -> "Margins":
        """Return margins over nine rows: the integer fields in order."""
        return cls(
            equity=values[0],
            initial_equity=values[1],
            imr=values[2],
            mmr=values[3],
            requirement=values[4],
            initial_requirement=values[5],
            health=values[6],
            local=local,
            gross=values[7],
            direction=values[8],
        )

    def put(self, index: int, margin: AccountMargin, gross: int, direction: int) -> None:
        """Write one account that an exact engine computed."""
        values = (
            (self.equity, margin.equity),
            (self.initial_equity, margin.initial_equity),
            (self.imr, margin.imr),
            (self.mmr, margin.mmr),
            (self.requirement, margin.requirement),
            (self.initial_requirement, margin.initial_requirement),
            (self.health, margin.health_ppm),
            (self.gross, gross),
            (self.direction, direction),
        )
        for column, value in values:
            column[index] = max(-HEALTH_LIMIT, min(HEALTH_LIMIT, value))
            if abs(value) > HEALTH_LIMIT:
                self.exact[index] = margin
        self.local[index] = margin.healthy_local

    def row(self, index: int) -> tuple[int, int, int, int, int, int, int, bool]:
        """Return (equity, initial equity, IMR, MMR, R, initial R, health, local) of an account."""
        if index in self.exact:
            m = self.exact[index]
            sums = (m.equity, m.initial_equity, m.imr, m.mmr, m.requirement)
            return (*sums, m.initial_requirement, m.health_ppm, m.healthy_local)
        return (
            int(self.equity[index]),
            int(self.initial_equity[index]),
            int(self.imr[index]),
            int(self.mmr[index]),
            int(self.requirement[index]),
            int(self.initial_requirement[index]),
            int(self.health[index]),
            bool(self.local[index]),
        )

    def totals(self) -> tuple[int, int, int]:
        """Return Σ equity, Σ IMR, Σ MMR to the unit."""
        sums = [_total(column) for column in (self.equity, self.imr, self.mmr)]
        for index, margin in self.exact.items():
            sums[0] += margin.equity - int(self.equity[index])
            sums[1] += margin.imr - int(self.imr[index])
            sums[2] += margin.mmr - int(self.mmr[index])
        return sums[0], sums[1], sums[2]


def _total(column: Ints) -> int:
    """Return the sum of a column without overflow: high and low halves apart."""
    return (int((column >> 32).sum()) << 32) + int((column & 0xFFFF_FFFF).sum())


def int_columns(book: Book) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Return starts, key, size, quote and funding without copying."""
    columns = (book.starts, book.key, book.size, book.quote, book.funding)
    starts, key, size, quote, funding = (np.frombuffer(c, np.int64) for c in columns)
    return starts, key, size, quote, funding


def excluded(book: Book, usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which accounts the guards exclude before any arithmetic."""
    starts, key, size, _, _ = int_columns(book)
    out = np.diff(starts) > LEGS_LIMIT
    legs = ~usable[key] if len(key) else np.zeros(0, np.bool_)
    perp = np.array([k[0] == LegKind.PERP for k in book.keys], np.bool_)
    if len(key):
        legs = legs | ((size < 0) & ~perp[key])
    bad = np.flatnonzero(legs)
    if book.wide:
        bad = np.concatenate([bad, np.fromiter(book.wide, np.int64)])
    out[np.searchsorted(starts, bad, side="right") - 1] = True
    return out


PPM64 = np.int64(PPM)
