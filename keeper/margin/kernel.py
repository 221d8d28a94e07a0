"""The margin model as one numba loop over columns; imported only where numba is installed.

The same guards and the same wrapping remainder as columns.py, one account at a time, no allocation
per account. Everything here is 64-bit integers but for the estimates.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from keeper.margin import columns as col
from keeper.margin.book import Book
from keeper.margin.columns import Margins, Table, excluded, int_columns
from keeper.margin.engine import CONCENTRATION_UNIT, FUNDING_UNIT, HEALTH_LIMIT
from keeper.parameters import RiskGroup
from keeper.units import PPM

_LIMIT, _RATIO, _BIG = col.VALUE_LIMIT, col.RATIO_LIMIT, HEALTH_LIMIT
_WHOLE = HEALTH_LIMIT // PPM - 1
_KIND, _PRICE, _DIVISOR, _SCALE, _WEIGHT = col.KIND, col.PRICE, col.DIVISOR, col.SCALE, col.WEIGHT
_KEEP, _KEEP_FLOOR, _OPEN, _OPEN_FLOOR = 5, 6, 7, 8
_CONC, _LAT, _FUND, _UND, _GROUP, _VENUE, _CHAIN = 9, 10, 11, 12, 13, 14, 15
_FUNDING_UNIT, _CONC_UNIT, _PPM, _STABLE = (
    FUNDING_UNIT,
    CONCENTRATION_UNIT,
    PPM,
    int(RiskGroup.STABLE),
)


@nb.njit(inline="always")
def _mul_floor(a, b, divisor, extra):  # type: ignore[no-untyped-def]  # numba compiles it
    estimate = (np.float64(a) * np.float64(b) + np.float64(extra)) / np.float64(divisor)
    if not abs(estimate) < _LIMIT:
        return np.int64(0), np.int64(0), False
    quotient = np.int64(np.floor(estimate))
    rest = a * b + extra - quotient * divisor
    while rest < 0:
        quotient -= 1
        rest += divisor
    while rest >= divisor:
        quotient += 1
        rest -= divisor
    return quotient, rest, True


@nb.njit(inline="always")
def _ppm_floor(value, rate):  # type: ignore[no-untyped-def]  # numba compiles it
    whole = value // _PPM
    return whole * rate + (value - whole * _PPM) * rate // _PPM


@nb.njit(inline="always")
def _root_up(value):  # type: ignore[no-untyped-def]  # numba compiles it
    root = np.int64(np.sqrt(np.float64(value)))
    if root * root > value:
        root -= 1
    if (root + 1) * (root + 1) <= value:
        root += 1
    if root * root < value:
        root += 1
    return root


@nb.njit(inline="always")
def _health(equity, requirement):  # type: ignore[no-untyped-def]  # numba compiles it
    if requirement == 0:
        return _BIG if equity >= 0 else -_BIG
    whole = equity // requirement
    if whole > _WHOLE:
        return _BIG
    if whole < -_WHOLE:
        return -_BIG
    rest = equity - whole * requirement
    part = np.int64(np.float64(rest) * _PPM / np.float64(requirement))
    left = rest * _PPM - part * requirement
    while left < 0:
        part -= 1
        left += requirement
    while left >= requirement:
        part += 1
        left -= requirement
    return whole * _PPM + part


@nb.njit(cache=True, boundscheck=False)
def _run(  # type: ignore[no-untyped-def]  # numba compiles it
    starts,
    key,
    size,
    quote,
    funding,
    rates,
    shocks,
    basis,
    classes,
    local,
    scalars,
    bad,
    out,
    holds,
):
    cost, bonus, scenario_ppm = scalars[0], scalars[1], scalars[2]
    width, venues = basis.size, local.size
    long = np.zeros(width, np.int64)
    short = np.zeros(width, np.int64)
    most = np.zeros(width, np.int64)
    first = np.zeros(width, np.int64)
    chains = np.zeros(width, np.int64)
    own = np.zeros(venues, np.int64)
    need = np.zeros(venues, np.int64)
    any_local = False
    for v in range(venues):
        any_local = any_local or local[v] != 0
    for i in range(starts.size - 1):
        if bad[i]:
            continue
        equity = np.int64(0)
        initial = np.int64(0)
        imr = np.int64(0)
        mmr = np.int64(0)
        gross = np.int64(0)
        costs = np.int64(0)
        premium = np.int64(0)
        d0 = np.int64(0)
        d1 = np.int64(0)
        d2 = np.int64(0)
        moving = np.int64(0)
        used = np.int64(0)
        fits = True
        for j in range(starts[i], starts[i + 1]):
            k = key[j]
            s = size[j]
            kind = rates[k, _KIND]
            delta = np.int64(0)
            term = np.int64(0)
            kept = np.int64(0)
            if kind == 2:
                if (
                    not abs(np.float64(quote[j])) < _LIMIT
                    or not abs(np.float64(funding[j])) < _LIMIT
                ):
                    fits = False
                    break
                value, rest, ok = _mul_floor(s, rates[k, _PRICE], rates[k, _DIVISOR], 0)
                moved = np.int64(0)
                if rates[k, _FUND] != funding[j]:
                    moved, _, fine = _mul_floor(-s, rates[k, _FUND] - funding[j], _FUNDING_UNIT, 0)
                    ok = ok and fine
                if not ok:
                    fits = False
                    break
                term = value + quote[j] + moved
                initial += _ppm_floor(term, bonus) if term > 0 else term
                if s != 0:
                    notional = -value
                    if s > 0:
                        notional = value + (1 if rest > 0 else 0)
                    added = np.int64(0)
                    if rates[k, _CONC] != 0:
                        added = -((-rates[k, _CONC] * _root_up(abs(s))) // _CONC_UNIT)
                    keep = max(rates[k, _KEEP], rates[k, _KEEP_FLOOR] + added) + rates[k, _LAT]
                    open_ = max(rates[k, _OPEN], rates[k, _OPEN_FLOOR] + added) + rates[k, _LAT]
                    if keep >= _RATIO or open_ >= _RATIO:
                        fits = False
                        break
                    imr += cost - _ppm_floor(-notional, open_)
                    kept = cost - _ppm_floor(-notional, keep)
                    costs += cost
                    gross += notional
                    delta = value
                    u = rates[k, _UND]
                    if used >> u & 1 == 0:
                        used |= np.int64(1) << u
                        long[u] = 0
                        short[u] = 0
                        most[u] = 0
                        first[u] = 0
                        chains[u] = 0
                    if s > 0:
                        long[u] += notional
                    else:
                        short[u] += notional
                    most[u] = max(most[u], keep)
                    first[u] = max(first[u], open_)
                    chains[u] |= np.int64(1) << rates[k, _CHAIN]
            else:
                sign = np.int64(1) if kind == 0 else np.int64(-1)
                extra = np.int64(0)
                ok = True
                low = np.int64(0)
                if rates[k, _SCALE] != 1:
                    low = sign * quote[j]
                    extra, _, ok = _mul_floor(low, rates[k, _PRICE], rates[k, _SCALE], 0)
                value, _, fine = _mul_floor(sign * s, rates[k, _PRICE], rates[k, _DIVISOR], extra)
                if not (ok and fine):
                    fits = False
                    break
                term = _ppm_floor(value, rates[k, _WEIGHT])
                initial += term
                if kind == 1:
                    premium += value - term
                    delta = value
                    gross -= value
                    if s != 0 or low != 0:
                        kept = cost
                        imr += cost
                        costs += cost
            equity += term
            mmr += kept
            g = rates[k, _GROUP]
            if g != _STABLE:
                moving += value if kind == 2 else term
            if g == 0:
                d0 += delta
            elif g == 1:
                d1 += delta
            else:
                d2 += delta
            if any_local:
                own[rates[k, _VENUE]] += term
                need[rates[k, _VENUE]] += kept
        if any_local:
            healthy = True
            for j in range(starts[i], starts[i + 1]):
                v = rates[key[j], _VENUE]
                if local[v] != 0 and own[v] < -_ppm_floor(-need[v], local[v]):
                    healthy = False
            for j in range(starts[i], starts[i + 1]):
                v = rates[key[j], _VENUE]
                own[v] = 0
                need[v] = 0
            holds[i] = healthy
        if not fits:
            bad[i] = True
            continue
        loss = np.int64(0)
        if d0 != 0 or d1 != 0 or d2 != 0:
            q0 = d0 // _PPM
            q1 = d1 // _PPM
            q2 = d2 // _PPM
            r0 = d0 - q0 * _PPM
            r1 = d1 - q1 * _PPM
            r2 = d2 - q2 * _PPM
            gain = np.int64(_BIG)
            for x in range(shocks.shape[0]):
                a, b, c = shocks[x, 0], shocks[x, 1], shocks[x, 2]
                high = q0 * a + q1 * b + q2 * c
                gain = min(gain, high + (r0 * a + r1 * b + r2 * c) // _PPM)
            loss = -gain
        net_keep = np.int64(0)
        net_open = np.int64(0)
        u = 0
        while used >> u != 0:
            if used >> u & 1:
                apart = basis[u]
                if chains[u] & (chains[u] - 1):
                    worst = np.int64(0)
                    for c in range(classes.size):
                        if chains[u] >> c & 1:
                            worst = max(worst, classes[c])
                    apart += worst
                net = abs(long[u] - short[u])
                hedged = -_ppm_floor(-min(long[u], short[u]), apart)
                net_keep += hedged - _ppm_floor(-net, most[u])
                net_open += hedged - _ppm_floor(-net, first[u])
            u += 1
        loss_open = -_ppm_floor(-loss, scenario_ppm) - premium
        keep_all = costs + max(net_keep, max(loss - premium, np.int64(0)))
        out[0, i] = equity
        out[1, i] = initial
        out[2, i] = imr
        out[3, i] = mmr
        out[4, i] = keep_all
        out[5, i] = costs + max(net_open, max(loss_open, np.int64(0)))
        out[6, i] = _health(equity, keep_all)
        out[7, i] = gross
        out[8, i] = moving


def margins(book: Book, table: Table) -> tuple[Margins, npt.NDArray[np.bool_]]:
    """Return the margins and which accounts the guards exclude (their entries mean nothing)."""
    bad = excluded(book, table.usable)
    if len(table.basis) > 62:  # one bit of `used` per underlying
        bad[:] = True
    values = np.zeros((9, len(book)), np.int64)
    holds = np.ones(len(book), np.bool_)
    scalars = np.array(
        [table.leg_cost, table.positive_pnl_ppm, table.initial_scenario_ppm], np.int64
    )
    rates, shocks = table.rates, table.shocks
    _run(
        *int_columns(book),
        rates,
        shocks,
        table.basis,
        table.classes,
        table.local,
        scalars,
        bad,
        values,
        holds,
    )
    return Margins.of(values, holds), bad
