"""The risk of a whole book in one value, for the table, the plot and the metrics.

    Book + Marks ─▶ report(…) ─▶ Report ─┬─ keeper risk (table, JSON, SVG)
                                         └─ export(report, metrics)

Everything here is monitoring; the reading that breakers judge is made by the same `cascade`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keeper.margin import cascade, stress
from keeper.margin.batch import available, evaluate_book
from keeper.margin.book import Book
from keeper.margin.marks import Marks
from keeper.margin.readings import CascadeReading
from keeper.margin.stress import Curve, Floats
from keeper.margin.tick import exposure
from keeper.metrics import Metrics
from keeper.parameters import BreakerParameters, BridgeClass, RiskGroup
from keeper.units import PPM, ChainId

HEALTH_EDGES = (
    0,
    500_000,
    900_000,
    1_000_000,
    1_050_000,
    1_200_000,
    1_500_000,
    2_000_000,
    5_000_000,
)
"""Bounds of the health histogram, ppm."""
FALLS_PPM = (10_000, 20_000, 50_000, 100_000, 150_000, 200_000, 300_000, 500_000)
STRESSES: dict[str, dict[int, int]] = {
    "all -10 %": {RiskGroup.MAJOR: -100_000, RiskGroup.ALT: -100_000},
    "majors -30 %, alts -50 %": {RiskGroup.MAJOR: -300_000, RiskGroup.ALT: -500_000},
    "majors +30 %, alts +50 %": {RiskGroup.MAJOR: 300_000, RiskGroup.ALT: 500_000},
    "stables -5 %": {RiskGroup.STABLE: -50_000},
    "stables -5 %, rest -20 %": {
        RiskGroup.MAJOR: -200_000,
        RiskGroup.ALT: -200_000,
        RiskGroup.STABLE: -50_000,
    },
}


@dataclass(frozen=True, slots=True)
class Point:
    """One fall of the curve: ppm, and µUSD liquidated, µUSD of bad debt, where a cascade ends."""

    fall_ppm: int
    liquidated: int
    bad_debt: int
    cascade_ppm: int


@dataclass(frozen=True, slots=True)
class Stressed:
    """A book under one scenario: unhealthy accounts, and µUSD below zero."""

    name: str
    unhealthy: int
    bad_debt: int


@dataclass(frozen=True, slots=True)
class Report:
    """All figures; money is µUSD, ratios ppm.

    Args:
        histogram: accounts per bin of `HEALTH_EDGES`, one more than edges.
        points: of `FALLS_PPM`.
        multiplier_ppm: largest LaR′/depth up to the probed fall.
        probe_bad_debt: bad debt at the insurance probe's fall.
        var, shortfall: of bad debt, over the given returns at 99 %; 0 without returns.
        hhi: concentration of notional over accounts, 10,000 for one.
        exposure: collateral by bridge class.
        ages: state age per chain, s.
    """

    count: int
    equity: int
    imr: int
    mmr: int
    gross: int
    unhealthy: int
    watched: int
    histogram: tuple[int, ...]
    points: tuple[Point, ...]
    rising: tuple[Point, ...]
    stresses: tuple[Stressed, ...]
    multiplier_ppm: int
    probe_bad_debt: int
    depth: int
    var: int
    shortfall: int
    hhi: int
    exposure: tuple[int, ...]
    ages: tuple[tuple[ChainId, int], ...]


def report(
    book: Book,
    marks: Marks,
    limits: BreakerParameters,
    depth: int = 0,
    returns: Sequence[float] = (),
    engine: str = "",
) -> Report:
    """Return the risk of a book.

    Args:
        book: the accounts.
        marks: the tick.
        limits: the breakers' probes.
        depth: µUSD that moves the price by a factor e; 0: that of the parameters (cascade.py).
        returns: price moves to take VaR and ES over (−0.1 is a fall of a tenth).
        engine: one of `batch.available()`, or the best.

    Raises:
        Unpriced: a leg has no price or parameters.
        ValueError: there is no such engine, or the depth is negative.
    """
    if depth < 0:
        raise ValueError(f"a market depth of {depth} µUSD is negative")
    depth = depth or cascade.market_depth(cascade.book_sizes(book), marks)
    chosen = engine or available()[0]
    margins = evaluate_book(book, marks, chosen)
    falling, rising = cascade.curves(margins)
    sick = (margins.equity < margins.requirement) | ~margins.local
    judged = cascade.reading((falling, rising), depth, limits, 0)
    var, shortfall = _tail(falling, rising, returns)
    equity, imr, mmr = margins.totals()
    edges = np.array(HEALTH_EDGES)
    bins = np.bincount(
        np.searchsorted(edges, margins.health, side="right"), minlength=len(edges) + 1
    )
    return Report(
        count=len(book),
        equity=equity,
        imr=imr,
        mmr=mmr,
        gross=int(margins.gross.astype(object).sum()) if len(book) else 0,
        unhealthy=int(sick.sum()),
        watched=int((margins.health < marks.parameters.watch_health_ppm).sum()),
        histogram=tuple(int(n) for n in bins),
        points=_points(falling, depth),
        rising=_points(rising, depth),
        stresses=tuple(_stressed(book, marks, name, chosen) for name in STRESSES),
        multiplier_ppm=judged.multiplier_ppm,
        probe_bad_debt=judged.bad_debt,
        depth=depth,
        var=int(var),
        shortfall=int(shortfall),
        hhi=stress.concentration(margins.gross),
        exposure=exposure(book, marks),
        ages=tuple(sorted(marks.ages.items())),
    )


def cascade_reading(found: Report, insurance: int) -> CascadeReading:
    """Return what the breakers judge."""
    return CascadeReading(found.multiplier_ppm, found.probe_bad_debt, insurance)


def _points(found: Curve, depth: int) -> tuple[Point, ...]:
    return tuple(
        Point(fall, found.liquidated(fall), found.bad_debt(fall), found.cascade_ppm(fall, depth))
        for fall in FALLS_PPM
    )


def _stressed(book: Book, marks: Marks, name: str, engine: str) -> Stressed:
    margins = evaluate_book(book, stress.shocked(marks, STRESSES[name]), engine)
    below = -np.minimum(margins.equity, 0)
    unhealthy = int(((margins.equity < margins.requirement) | ~margins.local).sum())
    return Stressed(name, unhealthy, int(below.astype(np.float64).sum()))


def _tail(falling: Curve, rising: Curve, returns: Sequence[float]) -> tuple[float, float]:
    if not len(returns):
        return 0.0, 0.0
    losses: Floats = np.array(
        [(falling if r < 0 else rising).bad_debt(int(abs(r) * PPM)) for r in returns], np.float64
    )
    return stress.value_at_risk(losses, 0.99)


def export(found: Report, metrics: Metrics) -> None:
    """Set the gauges of a report."""
    dollars = [
        ("keeper_risk_equity_usd", "Sum of equity over accounts.", found.equity),
        ("keeper_risk_imr_usd", "Sum of initial margin requirements.", found.imr),
        ("keeper_risk_mmr_usd", "Sum of maintenance margin requirements.", found.mmr),
        ("keeper_risk_var_usd", "Bad debt at the 99 % quantile of returns.", found.var),
        ("keeper_risk_shortfall_usd", "Mean bad debt beyond that quantile.", found.shortfall),
        ("keeper_risk_depth_usd", "Depth of the market as it is traded.", found.depth),
        ("keeper_risk_probe_bad_debt_usd", "Bad debt at the probed fall.", found.probe_bad_debt),
    ]
    for name, text, value in dollars:
        metrics.gauge(name, text).set(value / PPM)
    numbers = [
        ("keeper_risk_accounts", "Accounts in the snapshot.", found.count),
        ("keeper_risk_unhealthy_accounts", "Accounts that may be liquidated.", found.unhealthy),
        ("keeper_risk_watched_accounts", "Accounts below the watch line.", found.watched),
        ("keeper_risk_cascade_ratio", "Largest LaR'/depth.", found.multiplier_ppm / PPM),
        ("keeper_risk_concentration_hhi", "Herfindahl index of notional, 0 to 10000.", found.hhi),
    ]
    for name, text, number in numbers:
        metrics.gauge(name, text).set(number)
    health = metrics.gauge("keeper_risk_health_accounts", "Accounts by health below.", ["below"])
    names = [f"{edge / PPM:g}" for edge in HEALTH_EDGES] + ["inf"]
    for label, count in zip(names, found.histogram, strict=True):
        health.labels(label).set(count)
    curve = metrics.gauge("keeper_risk_liquidated_usd", "Liquidation-at-risk by fall.", ["fall"])
    for point in found.points:
        curve.labels(f"{point.fall_ppm / PPM:g}").set(point.liquidated / PPM)
    bridges = metrics.gauge("keeper_risk_exposure_usd", "Collateral by bridge class.", ["class"])
    for bridge_class, value in zip(BridgeClass, found.exposure, strict=True):
        bridges.labels(bridge_class.name.lower()).set(value / PPM)
    age = metrics.gauge("keeper_risk_state_age_seconds", "Age of the agreed state.", ["chain"])
    for chain, seconds in found.ages:
        age.labels(str(chain)).set(seconds)
