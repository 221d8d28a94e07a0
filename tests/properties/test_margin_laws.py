"""Laws: rounding, additivity, monotonicity, sizes that reach their target, exact ADL."""

import random
from collections import defaultdict
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keeper.legs import Leg, LegKind
from keeper.margin.adl import absorb, pro_rata
from keeper.margin.close import size_close
from keeper.margin.engine import AccountMargin, Engine, compare_risk, evaluate
from keeper.margin.liquidation import (
    Bound,
    best_repay,
    bonus_ppm,
    close_to_target,
    repay_to_target,
    size_position,
    window_left,
)
from keeper.parameters import Parameters
from keeper.units import PPM, symbol
from tests.support import margin_books as support

LIQUIDATION = Parameters.devnet().liquidation
seeds = st.integers(0, 2**32)


def margin(legs: list[Leg], seed: int = 1) -> AccountMargin:
    marks = support.marks(seed)
    return evaluate(legs, marks.prices, marks.funding, marks.parameters, marks.ages)


def exact(legs: list[Leg], seed: int) -> tuple[Fraction, Fraction, Fraction]:
    """Return equity, IMR and MMR without any rounding but that of the rates."""
    engine = Engine(support.marks(seed))
    equity = imr = mmr = Fraction(0)
    cost = engine.parameters.leg_cost
    for rate, size, quote, paid in engine.rows(legs):
        value = Fraction(size * rate.price, rate.divisor)
        if rate.kind == LegKind.PERP:
            equity += value + quote - Fraction(size * (rate.funding - paid), 10**12)
            if size:
                root = Fraction(rate.concentration, 10**6) * Fraction(
                    abs(size) ** 0.5 * (1 - 1e-12)
                )
                keep = max(Fraction(rate.maintenance), rate.maintenance * Fraction(8, 10) + root)
                open_ = max(Fraction(rate.initial), rate.initial * Fraction(8, 10) + root)
                mmr += abs(value) * (keep + rate.latency) / PPM + cost
                imr += abs(value) * (open_ + rate.latency) / PPM + cost
        elif rate.kind == LegKind.COLLATERAL:
            equity += value * rate.weight / PPM
        elif size:
            equity -= value * rate.weight / PPM
            imr += cost
            mmr += cost
    return equity, imr, mmr


@given(seeds)
def test_rounding_never_favours_the_account(seed: int) -> None:
    legs = support.account_legs(random.Random(seed), extreme=0.1)
    found, (equity, imr, mmr) = margin(legs, seed), exact(legs, seed)
    assert found.equity <= equity
    assert found.initial_equity <= found.equity
    assert found.imr >= imr
    assert found.mmr >= mmr
    assert equity - found.equity < 3 * len(legs) + 1  # and it is only rounding


@given(seeds)
def test_equity_and_requirements_are_additive_over_venues(seed: int) -> None:
    legs = support.account_legs(random.Random(seed), extreme=0.1)
    whole = margin(legs, seed)
    split: dict[tuple[int, bytes], list[Leg]] = defaultdict(list)
    for leg in legs:
        split[leg.chain, leg.venue].append(leg)
    parts = [margin(mine, seed) for _, mine in sorted(split.items())]
    assert sum(part.equity for part in parts) == whole.equity
    assert sum(part.initial_equity for part in parts) == whole.initial_equity
    assert sum(part.mmr for part in parts) == whole.mmr == sum(v.mmr for v in whole.venues)
    assert [p.equity for p in parts] == [v.equity for v in whole.venues]


@given(seeds, st.integers(1, 10**24))
def test_more_collateral_never_lowers_health(seed: int, more: int) -> None:
    draw = random.Random(seed)
    legs = support.account_legs(draw, extreme=0.05)
    before = margin(legs, seed)
    chain, venue, asset = draw.choice(support.CHAINS), draw.choice(support.VENUES), symbol("WETH")
    held = next((x for x in legs if x.key == (chain, venue, asset, 0)), None)
    rest = [leg for leg in legs if leg is not held]
    size = more + (held.size if held else 0)
    after = margin([*rest, Leg(chain, venue, asset, LegKind.COLLATERAL, size)], seed)
    assert after.health_ppm >= before.health_ppm
    assert after.free_collateral >= before.free_collateral
    assert after.requirement == before.requirement
    assert compare_risk(after, before) >= 0
    assert after.healthy_local or not before.healthy_local


@given(seeds)
def test_an_older_state_never_raises_health_of_the_initial_margin(seed: int) -> None:
    legs = support.account_legs(random.Random(seed), extreme=0.0)
    marks = support.marks(seed)
    older = {chain: age + 700 for chain, age in support.AGES.items()}
    now = evaluate(legs, marks.prices, marks.funding, marks.parameters, marks.ages)
    late = evaluate(legs, marks.prices, marks.funding, marks.parameters, older)
    assert late.equity <= now.equity
    assert late.mmr >= now.mmr


def sick_account(seed: int) -> tuple[Engine, list[Leg], AccountMargin]:
    """Return an account a little under its requirement, by taking collateral away."""
    draw = random.Random(seed)
    marks = support.marks(seed, local=False)
    engine = Engine(marks)
    perps = [x for x in support.account_legs(draw, 8, 0.0) if x.kind == LegKind.PERP and x.size]
    coin = Leg(support.CHAINS[0], support.VENUES[0], symbol("USDC"), LegKind.COLLATERAL, 0)
    bare = engine.margin(engine.rows(perps))
    wanted = bare.requirement * draw.randrange(300_000, 999_999) // PPM - bare.equity
    legs = [*perps, Leg(*coin.key[:3], LegKind.COLLATERAL, max(0, wanted))]  # type: ignore[arg-type]  # key order is field order
    return engine, legs, engine.margin(engine.rows(legs))


@given(seeds, st.booleans())
def test_a_liquidation_of_the_computed_size_reaches_the_target(seed: int, capped: bool) -> None:
    engine, legs, before = sick_account(seed)
    assume(not before.healthy and len(legs) > 1)
    rows = engine.rows(legs)
    at = random.Random(seed).randrange(len(legs) - 1)
    left = 50_000_000_000 if capped else None
    close = size_close(engine, rows, at, LIQUIDATION, left)
    assert close is not None
    match close.sized.bound:
        case Bound.TARGET:
            assert (
                close.after.equity * PPM >= LIQUIDATION.target_health_ppm * close.after.requirement
            )
        case Bound.TOXIC:
            assert close.after.health_ppm < before.health_ppm or left is not None
        case Bound.WINDOW:
            assert left is not None
            assert close.sized.value <= left
        case Bound.WHOLE | Bound.SMALL:
            assert close.size == abs(legs[at].size)
        case Bound.CLOSE_FACTOR:
            assert close.size < abs(legs[at].size)
    assert 0 <= close.size <= abs(legs[at].size)
    assert close.after.equity <= before.equity


def test_every_bound_is_met_by_some_account() -> None:
    seen = set()
    for seed in range(400):
        engine, legs, before = sick_account(seed)
        if before.healthy or len(legs) < 2:
            continue
        for left in (None, 1_000_000):
            close = size_close(engine, engine.rows(legs), 0, LIQUIDATION, left)
            assert close is not None
            seen.add(close.sized.bound)
    assert seen >= {Bound.TARGET, Bound.CLOSE_FACTOR, Bound.WHOLE, Bound.WINDOW, Bound.TOXIC}


def test_a_healthy_account_is_not_closed() -> None:
    engine = Engine(support.marks(1))
    legs = [
        Leg(support.CHAINS[0], support.VENUES[0], symbol("USDC"), LegKind.COLLATERAL, 10**12),
        Leg(support.CHAINS[0], support.VENUES[0], symbol("ETH-USD"), LegKind.PERP, 10**8, 0),
    ]
    assert size_close(engine, engine.rows(legs), 1, LIQUIDATION) is None
    with pytest.raises(ValueError, match="perp"):
        size_close(engine, engine.rows(legs), 0, LIQUIDATION)


amounts = st.integers(0, 10**15)
rates = st.integers(0, 10**6)


@given(amounts, amounts, st.integers(500_000, 950_000), st.integers(0, 100_000))
def test_a_repayment_reaches_the_target_and_one_less_does_not(
    debt: int, collateral: int, threshold: int, bonus: int
) -> None:
    target = 1_020_000
    repay = repay_to_target(debt, collateral, threshold, bonus, target)
    k = Fraction(threshold * (PPM + bonus), PPM**2)

    def healthy(paid: int) -> bool:
        seized = Fraction(paid * (PPM + bonus), PPM)
        return threshold * (collateral - seized) >= target * (debt - paid)

    if repay is None:
        assert Fraction(threshold * collateral, PPM) <= k * debt
        return
    assert healthy(repay)
    assert repay == 0 or not healthy(repay - 1)
    assert repay <= debt


@given(st.integers(-(10**14), 10**15), amounts, rates, st.integers(0, 50_000))
def test_a_close_reaches_the_target_or_is_toxic(
    equity: int, requirement: int, freed: int, bonus: int
) -> None:
    target = 1_020_000
    size = close_to_target(equity, requirement, freed, bonus, target)

    def reached(closed: int) -> bool:
        rest = Fraction(requirement) - Fraction(closed * freed, PPM)
        return (equity - Fraction(closed * bonus, PPM)) * PPM >= target * rest

    if size is None:
        assert target * freed <= bonus * PPM
        return
    assert reached(size)
    assert size == 0 or not reached(size - 1)


@given(amounts, st.integers(-(10**14), 10**15), amounts, rates, st.none() | amounts)
def test_a_size_respects_every_limit(
    value: int, equity: int, requirement: int, freed: int, left: int | None
) -> None:
    size = size_position(value, equity, requirement, freed, LIQUIDATION, left)
    assert 0 <= size.value <= value
    assert left is None or size.value <= left
    rest = value - size.value
    allowed = (Bound.WINDOW,) if left is not None else ()
    assert rest == 0 or rest >= LIQUIDATION.dust_value or size.bound in allowed or size.value == 0
    assert LIQUIDATION.bonus_ppm <= size.bonus_ppm <= LIQUIDATION.bonus_max_ppm


@given(amounts, amounts, st.integers(1, 10**15))
def test_the_bonus_grows_with_the_violation(first: int, second: int, requirement: int) -> None:
    low, high = sorted((first, second))
    assert bonus_ppm(low, requirement, LIQUIDATION) >= bonus_ppm(high, requirement, LIQUIDATION)


@given(st.integers(10**6, 10**15), st.integers(1, 200_000), st.integers(0, 10_000))
def test_the_best_repayment_beats_its_neighbours(depth: int, bonus: int, fee: int) -> None:
    best = best_repay(depth, bonus, fee)
    a = Fraction((PPM + bonus) * (PPM - fee), PPM**2)

    def gain(repay: int) -> Fraction:  # seizing r(1+bonus), selling it into x·y = L², less r
        return depth - Fraction(depth) * depth / (depth + a * repay) - repay

    step = max(2, depth // 10**5)
    assert gain(best) + 1 >= gain(best + step)
    assert gain(best) + 1 >= gain(max(0, best - step))
    if a <= 1:
        assert best == 0


@given(amounts, st.dictionaries(st.binary(min_size=1, max_size=3), st.integers(-(10**12), 10**12)))
def test_adl_takes_exactly_what_is_missing_and_never_more_than_a_profit(
    amount: int, profits: dict[bytes, int]
) -> None:
    shares = pro_rata(amount, profits)
    total = sum(p for p in profits.values() if p > 0)
    assert sum(shares.values()) == min(amount, total)
    for account, share in shares.items():
        assert 0 < share <= profits[account]
        assert abs(share * total - min(amount, total) * profits[account]) < total
    reordered = dict(sorted(profits.items(), reverse=True))
    assert pro_rata(amount, reordered) == shares


@given(amounts, amounts, st.dictionaries(st.binary(min_size=1, max_size=3), amounts))
def test_a_bad_debt_is_absorbed_to_the_unit(
    bad_debt: int, insurance: int, profits: dict[bytes, int]
) -> None:
    done = absorb(bad_debt, insurance, profits)
    assert done.insurance + sum(s for _, s in done.shares) + done.uncovered == bad_debt
    assert not done.shares or done.insurance == insurance
    assert not done.uncovered or sum(s for _, s in done.shares) == sum(profits.values())


def test_negative_amounts_are_refused() -> None:
    for call in (lambda: pro_rata(-1, {}), lambda: absorb(-1, 0, {}), lambda: absorb(0, -1, {})):
        with pytest.raises(ValueError, match="negative"):
            call()


def test_a_window_forgets_old_liquidations() -> None:
    closed = [(100, 4 * 10**12), (129, 5 * 10**12), (130, 10**12)]
    assert window_left(LIQUIDATION, closed, 129) == 10**12
    assert window_left(LIQUIDATION, closed, 130) == 4 * 10**12
    assert window_left(LIQUIDATION, [(130, 10**20)], 130) == 0
