"""The margin model over numpy columns; columns.py says how 64 bits suffice.

Sums per account are differences of one running sum: it may wrap around, the differences may not.
"""

import numpy as np
import numpy.typing as npt

from keeper.legs import LegKind
from keeper.margin import columns as col
from keeper.margin.book import Book
from keeper.margin.columns import PPM64, Ints, Margins, Table, excluded, int_columns
from keeper.margin.engine import CONCENTRATION_UNIT, FUNDING_UNIT, HEALTH_LIMIT
from keeper.parameters import RiskGroup

Bools = npt.NDArray[np.bool_]


def mul_floor(a: Ints, b: Ints, divisor: Ints, extra: Ints | int = 0) -> tuple[Ints, Ints, Bools]:
    """Return ⌊(a·b + extra) / divisor⌋, the remainder, and where the result may be wrong."""
    estimate: npt.NDArray[np.float64] = (a.astype(np.float64) * b + extra) / divisor
    wrong = ~(np.abs(estimate) < col.VALUE_LIMIT)
    quotient = np.where(wrong, 0.0, np.floor(estimate)).astype(np.int64)
    rest = a * b + extra - quotient * divisor
    carry = rest // divisor
    return quotient + carry, rest - carry * divisor, wrong


def ppm_floor(value: Ints, rate: Ints | int) -> Ints:
    """Return ⌊value · rate / 10^6⌋ for |value| < 2^61 and |rate| < 2^23."""
    whole: Ints = value // PPM64
    factor: Ints = np.asarray(rate, np.int64)
    out: Ints = whole * factor + (value - whole * PPM64) * factor // PPM64
    return out


def ppm_ceil(value: Ints, rate: Ints | int) -> Ints:
    """Return ⌈value · rate / 10^6⌉ in the same bounds."""
    return -ppm_floor(-value, rate)


def root_up(value: Ints) -> Ints:
    """Return the square root rounded up, for 0 ≤ value < 2^62."""
    root = np.sqrt(value.astype(np.float64)).astype(np.int64)
    root -= root * root > value
    root += (root + 1) * (root + 1) <= value
    out: Ints = root + (root * root < value)
    return out


def health(equity: Ints, requirement: Ints) -> Ints:
    """Return health in ppm as `engine.health_ppm`."""
    safe = np.maximum(requirement, 1)
    whole = equity // safe
    rest = equity - whole * safe
    part = (rest.astype(np.float64) * PPM64 / safe).astype(np.int64)
    left = rest * PPM64 - part * safe
    part += left // safe
    bound = np.int64(HEALTH_LIMIT // PPM64 - 1)
    inside = np.clip(whole, -bound, bound) * PPM64 + part
    out = np.where(whole > bound, HEALTH_LIMIT, np.where(whole < -bound, -HEALTH_LIMIT, inside))
    empty = np.where(equity >= 0, HEALTH_LIMIT, -HEALTH_LIMIT)
    chosen: Ints = np.where(requirement == 0, empty, out).astype(np.int64)
    return chosen


def margins(book: Book, table: Table) -> tuple[Margins, Bools]:
    """Return the margins and which accounts the guards exclude (their entries mean nothing)."""
    starts, key, size, quote, funding = int_columns(book)
    count = len(book)
    bad = excluded(book, table.usable)
    owner = np.repeat(np.arange(count), np.diff(starts))
    rate = table.rates[key] if len(key) else np.zeros((0, 16), np.int64)
    field = rate.T
    kind, price, divisor = field[col.KIND], field[col.PRICE], np.maximum(field[col.DIVISOR], 1)
    perp, held = kind == LegKind.PERP, kind == LegKind.COLLATERAL
    debt = kind == LegKind.DEBT

    def per_account(values: Ints) -> Ints:
        running = np.concatenate([np.zeros(1, np.int64), np.cumsum(values)])
        out: Ints = running[starts[1:]] - running[starts[:-1]]
        return out

    signed = np.where(debt, -size, size)
    scale = field[col.SCALE]
    low = np.where(perp | (scale == 1), 0, np.where(debt, -quote, quote))
    extra, _, wrong = mul_floor(low, price, np.maximum(scale, 1))
    value, rest, off = mul_floor(signed, price, divisor, extra)
    wrong |= off
    moved, _, off = mul_floor(-size, field[col.FUNDING] - funding, np.full_like(size, FUNDING_UNIT))
    wrong |= perp & (
        off | (np.abs(quote) >= col.VALUE_LIMIT) | (np.abs(funding) >= col.VALUE_LIMIT)
    )
    notional = np.where(perp & (size > 0), value + (rest > 0), -value)
    pnl = value + quote + moved
    weighed = ppm_floor(value, field[col.WEIGHT])
    equity = np.where(perp, pnl, weighed)
    profit = np.where(pnl > 0, ppm_floor(pnl, table.positive_pnl_ppm), pnl)
    initial_equity = np.where(perp, profit, weighed)

    added = -(-field[col.CONCENTRATION] * root_up(np.where(perp, np.abs(size), 0)))
    added = -(-added // CONCENTRATION_UNIT)
    keep = np.maximum(field[col.MAINTENANCE], field[col.MAINTENANCE_FLOOR] + added)
    open_ = np.maximum(field[col.INITIAL], field[col.INITIAL_FLOOR] + added)
    keep, open_ = keep + field[col.LATENCY], open_ + field[col.LATENCY]
    live = perp & (size != 0)
    wrong |= live & ((keep >= col.RATIO_LIMIT) | (open_ >= col.RATIO_LIMIT))
    owed = debt & ((size != 0) | (low != 0))
    keep, open_ = np.where(live & ~wrong, keep, 0), np.where(live & ~wrong, open_, 0)
    cost = np.where(live | owed, table.leg_cost, 0)
    imr, mmr = ppm_ceil(notional, open_) + cost, ppm_ceil(notional, keep) + cost
    gross = per_account(np.where(live | owed, notional, 0))

    out = Margins.empty(count)
    out.equity, out.initial_equity = per_account(equity), per_account(initial_equity)
    out.imr, out.mmr, out.gross = per_account(imr), per_account(mmr), gross
    moving = field[col.GROUP] != RiskGroup.STABLE
    out.direction = per_account(np.where(moving, np.where(perp, value, weighed), 0))
    costs = per_account(cost)
    premium = per_account(np.where(debt, -weighed + value, 0))
    groups = [np.where(field[col.GROUP] == g, np.where(held, 0, value), 0) for g in range(3)]
    loss = _worst([per_account(g) for g in groups], table)
    nets = _hedges(owner, field, live, np.where(live, notional, 0), keep, open_, size, count, table)
    worst_open = ppm_ceil(loss, table.initial_scenario_ppm) - premium
    out.requirement = np.maximum(np.maximum(nets[0], loss - premium), 0) + costs
    out.initial_requirement = np.maximum(np.maximum(nets[1], worst_open), 0) + costs
    out.health = health(out.equity, out.requirement)
    out.local = _local(owner, field, equity, mmr, count, table)
    bad[owner[wrong]] = True
    return out, bad


def _worst(deltas: list[Ints], table: Table) -> Ints:
    """Return the largest loss over the scenarios."""
    whole = [delta // PPM64 for delta in deltas]
    rest = [delta - w * PPM64 for delta, w in zip(deltas, whole, strict=True)]
    gain = np.full(len(deltas[0]), HEALTH_LIMIT, np.int64)
    for shock in table.shocks:
        high = sum((w * s for w, s in zip(whole, shock, strict=True)), np.int64(0))
        low = sum((r * s for r, s in zip(rest, shock, strict=True)), np.int64(0))
        gain = np.minimum(gain, high + low // PPM64)
    return -gain


def _hedges(
    owner: Ints,
    field: Ints,
    live: Bools,
    notional: Ints,
    keep: Ints,
    open_: Ints,
    size: Ints,
    count: int,
    table: Table,
) -> tuple[Ints, Ints]:
    """Return Σ R_u to keep and to open per account."""
    width = max(1, len(table.basis))
    at = (owner * width + field[col.UNDERLYING])[live]
    long, short, most, first, chains = (np.zeros(count * width, np.int64) for _ in range(5))
    up = size[live] > 0
    np.add.at(long, at[up], notional[live][up])
    np.add.at(short, at[~up], notional[live][~up])
    np.maximum.at(most, at, keep[live])
    np.maximum.at(first, at, open_[live])
    np.bitwise_or.at(chains, at, np.int64(1) << field[col.CHAIN][live])
    surcharge = np.zeros(count * width, np.int64)
    several = (chains & (chains - 1)) != 0
    for index, ppm in enumerate(table.classes):
        on = several & ((chains >> index & 1) == 1)
        surcharge = np.where(on, np.maximum(surcharge, ppm), surcharge)
    net, hedged = np.abs(long - short), np.minimum(long, short)
    apart = ppm_ceil(hedged, np.tile(table.basis, count) + surcharge)
    sums = [(ppm_ceil(net, r) + apart).reshape(count, width).sum(axis=1) for r in (most, first)]
    return sums[0], sums[1]


def _local(owner: Ints, field: Ints, equity: Ints, mmr: Ints, count: int, table: Table) -> Bools:
    """Return whether every venue of an account holds its local fraction."""
    holds = np.ones(count, np.bool_)
    for venue in np.flatnonzero(table.local):
        here = field[col.VENUE] == venue
        own, need = np.zeros(count, np.int64), np.zeros(count, np.int64)
        np.add.at(own, owner[here], equity[here])
        np.add.at(need, owner[here], mmr[here])
        present = np.zeros(count, np.bool_)
        present[owner[here]] = True
        holds &= ~present | (own >= ppm_ceil(need, int(table.local[venue])))
    return holds
