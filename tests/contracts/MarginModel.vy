# pragma version 0.4.3
# @license Apache-2.0
"""
@title Margin model v1, for tests
@notice One account's margin from legs with resolved rates: what a contract would compute from the
        legs and the price root of a sealed snapshot.
"""

PPM: constant(int256) = 10**6
FUNDING_UNIT: constant(int256) = 10**12
CONCENTRATION_UNIT: constant(int256) = 10**6
HEALTH_LIMIT: constant(int256) = 2**62
LEGS: constant(uint256) = 16
UNDERLYINGS: constant(uint256) = 8
SCENARIOS: constant(uint256) = 16

struct Leg:
    kind: uint256  # 0 collateral, 1 debt, 2 perp
    size: int256
    quote: int256
    paid: int256
    price: int256
    divisor: int256
    weight: int256
    maintenance: int256
    maintenance_floor: int256
    initial: int256
    initial_floor: int256
    concentration: int256
    latency: int256
    funding: int256
    underlying: uint256
    group: uint256
    chain: uint256

struct Terms:
    cost: int256
    bonus: int256
    initial_scenario: int256
    shocks: DynArray[int256[3], SCENARIOS]
    basis: DynArray[int256, UNDERLYINGS]
    classes: DynArray[int256, 8]

struct Hedge:
    long: int256
    short: int256
    keep: int256
    open: int256
    chains: uint256

struct Margin:
    equity: int256
    initial_equity: int256
    imr: int256
    mmr: int256
    requirement: int256
    initial_requirement: int256
    health: int256


@internal
@pure
def _floor(a: int256, b: int256) -> int256:
    # Vyper truncates towards zero; b > 0
    q: int256 = a // b
    if a < 0 and q * b != a:
        q -= 1
    return q


@internal
@pure
def _ceil(a: int256, b: int256) -> int256:
    return -self._floor(-a, b)


@internal
@pure
def _root_up(x: int256) -> int256:
    if x == 0:
        return 0
    return convert(isqrt(convert(x - 1, uint256)), int256) + 1


@internal
@pure
def _loss(deltas: int256[3], shocks: DynArray[int256[3], SCENARIOS]) -> int256:
    worst: int256 = min_value(int256)
    for row: int256[3] in shocks:
        gain: int256 = deltas[0] * row[0] + deltas[1] * row[1] + deltas[2] * row[2]
        worst = max(worst, -self._floor(gain, PPM))
    return worst


@internal
@pure
def _surcharge(chains: uint256, classes: DynArray[int256, 8]) -> int256:
    if chains & unsafe_sub(chains, 1) == 0:
        return 0
    worst: int256 = 0
    for i: uint256 in range(8):
        if i < len(classes) and (chains >> i) & 1 == 1:
            worst = max(worst, classes[i])
    return worst


@external
@pure
def margin(legs: DynArray[Leg, LEGS], terms: Terms) -> Margin:
    """
    @notice The margin of one account.
    @param legs with rates of one tick
    @param terms the epoch's parameters
    """
    out: Margin = empty(Margin)
    hedges: Hedge[UNDERLYINGS] = empty(Hedge[UNDERLYINGS])
    deltas: int256[3] = empty(int256[3])
    premium: int256 = 0
    costs: int256 = 0
    for leg: Leg in legs:
        exact: int256 = leg.size * leg.price
        value: int256 = self._floor(exact, leg.divisor)
        if leg.kind == 2:
            moved: int256 = self._floor(-leg.size * (leg.funding - leg.paid), FUNDING_UNIT)
            pnl: int256 = value + leg.quote + moved
            out.equity += pnl
            if pnl > 0:
                out.initial_equity += self._floor(pnl * terms.bonus, PPM)
            else:
                out.initial_equity += pnl
            if leg.size == 0:
                continue
            notional: int256 = self._ceil(abs(leg.size) * leg.price, leg.divisor)
            added: int256 = self._ceil(
                leg.concentration * self._root_up(abs(leg.size)), CONCENTRATION_UNIT
            )
            keep: int256 = max(leg.maintenance, leg.maintenance_floor + added) + leg.latency
            open: int256 = max(leg.initial, leg.initial_floor + added) + leg.latency
            out.imr += self._ceil(notional * open, PPM)
            out.mmr += self._ceil(notional * keep, PPM)
            costs += terms.cost
            deltas[leg.group] += value
            u: uint256 = leg.underlying
            if leg.size > 0:
                hedges[u].long += notional
            else:
                hedges[u].short += notional
            hedges[u].keep = max(hedges[u].keep, keep)
            hedges[u].open = max(hedges[u].open, open)
            hedges[u].chains = hedges[u].chains | (1 << leg.chain)
        elif leg.kind == 0:
            owned: int256 = self._floor(value * leg.weight, PPM)
            out.equity += owned
            out.initial_equity += owned
        elif leg.size != 0:
            debt: int256 = self._ceil(exact, leg.divisor)
            owed: int256 = self._ceil(debt * leg.weight, PPM)
            out.equity -= owed
            out.initial_equity -= owed
            premium += owed - debt
            costs += terms.cost
            deltas[leg.group] -= debt
    out.imr += costs
    out.mmr += costs
    loss: int256 = self._loss(deltas, terms.shocks)
    keep_all: int256 = 0
    open_all: int256 = 0
    for u: uint256 in range(UNDERLYINGS):
        hedge: Hedge = hedges[u]
        if hedge.chains != 0:
            apart: int256 = terms.basis[u] + self._surcharge(hedge.chains, terms.classes)
            hedged: int256 = self._ceil(min(hedge.long, hedge.short) * apart, PPM)
            net: int256 = abs(hedge.long - hedge.short)
            keep_all += hedged + self._ceil(net * hedge.keep, PPM)
            open_all += hedged + self._ceil(net * hedge.open, PPM)
    opening: int256 = self._ceil(loss * terms.initial_scenario, PPM) - premium
    out.requirement = max(max(keep_all, loss - premium), 0) + costs
    out.initial_requirement = max(max(open_all, opening), 0) + costs
    if out.requirement == 0:
        out.health = HEALTH_LIMIT if out.equity >= 0 else -HEALTH_LIMIT
    else:
        ratio: int256 = self._floor(out.equity * PPM, out.requirement)
        out.health = max(-HEALTH_LIMIT, min(HEALTH_LIMIT, ratio))
    return out
