"""Margin model v1 in Python integers: the reference that every other engine must equal to the bit.

    legs ──▶ value, notional per leg ──▶ per venue (local) ──▶ Σ equity ─┐
                                    └──▶ per underlying (portfolio) ─▶ R ─┴─▶ healthy?

    V = ⌊size · price / 10^(dec+2)⌋          N = ⌈|size| · price / 10^(dec+2)⌉
    equity += ⌊V · (1 − h − λ)⌋                      collateral
    equity += V + quote + ⌊−size · ΔF / 10^12⌋       perp
    equity −= ⌈N · (1 + h + λ)⌉                      debt
    ratio   = max(m, 0.8 m + conc · √size) + λ       perp, for m = maintenance and initial
    MMR    += ⌈N · ratio⌉ + leg cost                 perp; a debt adds its leg cost

What an account owns is floored and what it owes is ceiled, so rounding never favours the account.
Floats would not do: five summation orders differ on a third of all accounts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from keeper.legs import Leg, LegKind
from keeper.margin.latency import root_up
from keeper.margin.marks import Marks, Rate
from keeper.margin.portfolio import GROUPS, Hedge, Scenarios, bridge_surcharge, hedge_requirement
from keeper.parameters import MarginParameters
from keeper.units import PPM, ChainId

FUNDING_UNIT = 10**12
CONCENTRATION_UNIT = 10**6
HEALTH_LIMIT = 2**62
"""Health of an account that owes nothing, in ppm, and the bound of every other."""

Row = tuple[Rate, int, int, int]
"""(rate, size, quote, funding index at the last settlement): a leg with its rate resolved."""


@dataclass(frozen=True, slots=True)
class VenueMargin:
    """One venue's own part: what it could answer for before anything crosses a bridge."""

    chain: ChainId
    venue: bytes
    equity: int
    imr: int
    mmr: int
    healthy: bool


@dataclass(frozen=True, slots=True)
class AccountMargin:
    """One account at one tick, µUSD.

    Args:
        equity: collateral after haircuts + unrealised profit − debt; Σ over venues.
        initial_equity: the same with a positive unrealised profit at its initial weight.
        imr, mmr: gross requirements, Σ over venues.
        requirement: R to keep, with offsets over venues and the scenarios.
        initial_requirement: R to open.
        healthy_global: equity ≥ requirement.
        healthy_local: every venue holds its local fraction of its own MMR.
        health_ppm: ⌊equity / requirement⌋ in ppm, within ± `HEALTH_LIMIT`.
        venues: by (chain, venue).
    """

    equity: int
    initial_equity: int
    imr: int
    mmr: int
    requirement: int
    initial_requirement: int
    healthy_global: bool
    healthy_local: bool
    health_ppm: int
    venues: tuple[VenueMargin, ...]

    @property
    def healthy(self) -> bool:
        """Whether the account may not be liquidated."""
        return self.healthy_global and self.healthy_local

    @property
    def free_collateral(self) -> int:
        """Return what may be used to open or to withdraw; negative when nothing may."""
        return self.initial_equity - self.initial_requirement

    @property
    def slack(self) -> int:
        """Return how much equity may fall before the account is unhealthy."""
        return self.equity - self.requirement


def health_ppm(equity: int, requirement: int) -> int:
    """Return health in ppm, rounded down and bounded; without a requirement it is a bound."""
    if requirement == 0:
        return HEALTH_LIMIT if equity >= 0 else -HEALTH_LIMIT
    return max(-HEALTH_LIMIT, min(HEALTH_LIMIT, equity * PPM // requirement))


class Ranked(Protocol):
    """What the order of risk looks at."""

    @property
    def equity(self) -> int:
        """µUSD."""

    @property
    def requirement(self) -> int:
        """R, µUSD."""

    @property
    def mmr(self) -> int:
        """Gross maintenance requirement, µUSD."""


def compare_risk(a: Ranked, b: Ranked) -> int:
    """Return −1 when `a` is riskier, 1 when `b` is, 0 at a tie.

    Health is compared by cross-multiplying; without a requirement it is plus or minus infinity by
    the sign of equity, and two such accounts compare by equity. Ties: larger MMR first.
    """
    left, right = a.equity * b.requirement, b.equity * a.requirement
    if a.requirement == 0 and b.requirement == 0:
        left, right = a.equity, b.equity
    elif a.requirement == 0:
        left, right = (1, 0) if a.equity >= 0 else (0, 1)
    elif b.requirement == 0:
        left, right = (0, 1) if b.equity >= 0 else (1, 0)
    return (left > right) - (left < right) or (a.mmr < b.mmr) - (a.mmr > b.mmr)


def ratios(rate: Rate, size: int) -> tuple[int, int]:
    """Return a perp's ratios to keep and to open, ppm, with concentration and λ."""
    added = -(-rate.concentration * root_up(abs(size)) // CONCENTRATION_UNIT)
    keep = max(rate.maintenance, rate.maintenance_floor + added)
    open_ = max(rate.initial, rate.initial_floor + added)
    return keep + rate.latency, open_ + rate.latency


class Engine:
    """The model over one tick's marks.

    Invariants: holds no account; `margin` of the same rows is always the same value.
    """

    def __init__(self, marks: Marks) -> None:
        self.marks, self.parameters = marks, marks.parameters
        self.scenarios = Scenarios(self.parameters.scenarios)
        self._chain_bit = {c.chain: 1 << i for i, c in enumerate(self.parameters.chains)}
        self._surcharge: dict[int, int] = {}

    def rows(self, legs: Iterable[Leg]) -> list[Row]:
        """Return legs with their rates.

        Raises:
            Unpriced: a leg has no price or parameters.
        """
        rate = self.marks.rate
        return [(rate(leg), leg.size, leg.quote, leg.funding) for leg in legs]

    def margin(self, rows: Iterable[Row]) -> AccountMargin:
        """Return one account's margin.

        Raises:
            ValueError: a collateral or a debt has a negative size.
        """
        cost, bonus = self.parameters.leg_cost, self.parameters.positive_pnl_ppm
        venues: dict[int, list[int]] = {}
        hedges: dict[int, list[int]] = {}
        deltas = [0] * GROUPS
        initial_equity = premium = costs = 0
        for rate, size, quote, settled in rows:
            sums = venues.get(rate.venue)
            if sums is None:
                sums = venues[rate.venue] = [0, 0, 0]
            value = size * rate.price // rate.divisor
            if rate.kind == LegKind.PERP:
                pnl = value + quote + -size * (rate.funding - settled) // FUNDING_UNIT
                sums[0] += pnl
                initial_equity += pnl * bonus // PPM if pnl > 0 else pnl
                if size == 0:
                    continue
                notional = value if size > 0 else -value
                if size > 0 and value * rate.divisor != size * rate.price:
                    notional += 1
                keep, open_ = ratios(rate, size)
                sums[1] += cost - (-notional * open_ // PPM)
                sums[2] += cost - (-notional * keep // PPM)
                costs += cost
                deltas[rate.group] += value
                hedge = hedges.get(rate.underlying)
                if hedge is None:
                    hedge = hedges[rate.underlying] = [0, 0, 0, 0, 0]
                hedge[0 if size > 0 else 1] += notional
                hedge[2] = max(hedge[2], keep)
                hedge[3] = max(hedge[3], open_)
                hedge[4] |= self._chain_bit[self.marks.venues[rate.venue][0]]
            elif size < 0:
                raise ValueError(f"a collateral or a debt has a negative size {size}")
            elif rate.kind == LegKind.COLLATERAL:
                owned = value * rate.weight // PPM
                sums[0] += owned
                initial_equity += owned
            elif size:
                notional = -(-size * rate.price // rate.divisor)
                owed = -(-notional * rate.weight // PPM)
                sums[0] -= owed
                initial_equity -= owed
                premium += owed - notional
                sums[1] += cost
                sums[2] += cost
                costs += cost
                deltas[rate.group] -= notional
        keep, open_ = self._offset(hedges, deltas, premium)
        return self._account(venues, initial_equity, keep + costs, open_ + costs)

    def _offset(
        self, hedges: Mapping[int, list[int]], deltas: Sequence[int], premium: int
    ) -> tuple[int, int]:
        """Return R to keep and R to open, without leg costs."""
        loss = self.scenarios.worst_loss(deltas)
        worst = loss - premium
        worst_open = -(-loss * self.parameters.initial_scenario_ppm // PPM) - premium
        keep = open_ = 0
        for underlying, sums in hedges.items():
            hedge = Hedge(*sums)
            surcharge = self._surcharge.get(hedge.chains)
            if surcharge is None:
                surcharge = bridge_surcharge(self.parameters, hedge.chains)
                self._surcharge[hedge.chains] = surcharge
            divergence = self.parameters.underlyings[underlying].basis_ppm + surcharge
            keep += hedge_requirement(hedge, hedge.maintenance, divergence)
            open_ += hedge_requirement(hedge, hedge.initial, divergence)
        return max(keep, worst, 0), max(open_, worst_open, 0)

    def _account(
        self, venues: Mapping[int, list[int]], initial_equity: int, keep: int, open_: int
    ) -> AccountMargin:
        parts = []
        equity = imr = mmr = 0
        for index, (own, initial, maintenance) in venues.items():
            chain, venue = self.marks.venues[index]
            local = self.parameters.local_of.get((chain, venue), self.parameters.local_ppm)
            holds = local == 0 or own * PPM >= maintenance * local
            parts.append(VenueMargin(chain, venue, own, initial, maintenance, holds))
            equity += own
            imr += initial
            mmr += maintenance
        parts.sort(key=lambda part: (part.chain, part.venue))
        return AccountMargin(
            equity=equity,
            initial_equity=initial_equity,
            imr=imr,
            mmr=mmr,
            requirement=keep,
            initial_requirement=open_,
            healthy_global=equity >= keep,
            healthy_local=all(part.healthy for part in parts),
            health_ppm=health_ppm(equity, keep),
            venues=tuple(parts),
        )


def evaluate(
    legs: Sequence[Leg],
    prices: Mapping[bytes, int],
    funding: Mapping[tuple[ChainId, bytes, bytes], int],
    parameters: MarginParameters,
    ages: Mapping[ChainId, int],
) -> AccountMargin:
    """Return one account's margin; over many accounts keep one `Engine` per tick instead.

    Args:
        legs: at most one per key.
        prices: 10**-8 USD per market and per asset.
        funding: the index now per (chain, venue, market).
        parameters: the epoch's.
        ages: seconds since the agreed state of each chain.

    Raises:
        Unpriced: a leg has no price or parameters.
        ValueError: a collateral or a debt has a negative size.
    """
    engine = Engine(Marks(prices, funding, parameters, ages))
    return engine.margin(engine.rows(legs))
