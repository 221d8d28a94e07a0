"""The model on accounts small enough to work out by hand."""

import pytest

from keeper.legs import Leg, LegKind
from keeper.margin.engine import HEALTH_LIMIT, AccountMargin, compare_risk, evaluate
from keeper.margin.marks import Unpriced
from keeper.parameters import Parameters
from keeper.units import ChainId, symbol

A, B = ChainId(31337), ChainId(31338)
VAULT, PERPS = b"\x01" * 20, b"\x02" * 20
USDC, WETH, ETH = symbol("USDC"), symbol("WETH"), symbol("ETH-USD")
MARGIN = Parameters.devnet((A, B)).margin
PRICES = {USDC: 10**8, WETH: 2_000 * 10**8, ETH: 2_000 * 10**8}


def margin(*legs: Leg, funding: int = 0, age: int = 0) -> AccountMargin:
    return evaluate(legs, PRICES, {(B, PERPS, ETH): funding}, MARGIN, {A: age, B: age})


def usdc(units: int) -> Leg:
    return Leg(A, VAULT, USDC, LegKind.COLLATERAL, units)


def perp(size: int, quote: int, funding: int = 0) -> Leg:
    return Leg(B, PERPS, ETH, LegKind.PERP, size, quote, funding)


def test_collateral_is_worth_its_price_less_haircut_and_latency() -> None:
    # L = 42 s → bucket 60 s: λ(USD) = 0.1 % + 5·20 ppm = 1,100 ppm
    assert margin(usdc(1_000_000_000)).equity == 998_900_000
    assert margin(usdc(1)).equity == 0
    # WETH: h = 5 %, λ(ETH) = 2 % + 5·2,400 ppm = 3.2 %
    weth = Leg(A, VAULT, WETH, LegKind.COLLATERAL, 10**18)
    assert margin(weth).equity == 1_836_000_000


def test_a_perp_owes_margin_and_funding() -> None:
    long = margin(perp(10**8, -1_900_000_000), funding=3)
    assert long.equity == 100_000_000 - 1  # ⌊−10^8 · 3 / 10^12⌋ = −1
    assert long.initial_equity == 90_000_000 - 1  # ⌊99,999,999 · 0.9⌋
    # 0.8 · 3 % + 0.05 · √10^8 ppm = 2.45 % stays below the flat 3 %; λ = 3.2 %
    assert long.mmr == 124_000_000 + 100_000
    assert long.imr == 164_000_000 + 100_000
    assert long.requirement == 124_000_000 + 100_000  # worse than the scenario −6 %
    assert long.initial_requirement == 180_000_000 + 100_000  # 1.5 times the scenario −6 %
    assert long.healthy_local


def test_a_debt_weighs_more_than_its_value() -> None:
    debt = Leg(A, VAULT, WETH, LegKind.DEBT, 10**18)
    found = margin(usdc(4_000_000_000), debt)
    assert found.equity == 3_995_600_000 - 2_164_000_000
    assert found.mmr == 100_000
    assert found.requirement == 100_000  # the premium of 8.2 % covers the worst scenario of 6 %


def test_opposite_positions_net_over_chains_but_pay_basis_and_bridge() -> None:
    other = Leg(A, PERPS, ETH, LegKind.PERP, -(10**8), 2_000_000_000)
    both = margin(usdc(10**9), perp(10**8, -2_000_000_000), other)
    assert both.mmr == 2 * 124_000_000 + 200_000
    assert both.requirement == 2_000_000_000 * 7_000 // 10**6 + 200_000  # basis 0.5 % + class 0.2 %


def test_an_old_state_is_worth_nothing() -> None:
    assert margin(usdc(10**9), age=100_000).equity == 0


def test_health_without_requirement_is_a_bound() -> None:
    assert margin().health_ppm == HEALTH_LIMIT
    assert margin(usdc(1)).healthy
    lost = margin(perp(0, -5))
    assert (lost.equity, lost.requirement, lost.health_ppm) == (-5, 0, -HEALTH_LIMIT)
    assert not lost.healthy


def test_riskier_compares_without_division() -> None:
    weak = margin(usdc(100_000_000), perp(10**8, -2_000_000_000))
    strong = margin(usdc(200_000_000), perp(10**8, -2_000_000_000))
    assert compare_risk(weak, strong) == -1
    assert compare_risk(strong, weak) == 1
    assert compare_risk(weak, weak) == 0
    nothing, debtor = margin(usdc(5)), margin(perp(0, -5))
    assert compare_risk(weak, nothing) == -1
    assert compare_risk(debtor, weak) == -1
    assert compare_risk(nothing, debtor) == 1
    assert compare_risk(debtor, margin(perp(0, -6))) == 1


def test_what_cannot_be_priced_is_refused() -> None:
    with pytest.raises(Unpriced):
        margin(Leg(A, VAULT, symbol("DOGE"), LegKind.COLLATERAL, 1))
    with pytest.raises(Unpriced):
        margin(Leg(ChainId(5), VAULT, USDC, LegKind.COLLATERAL, 1))
    with pytest.raises(ValueError, match="negative"):
        margin(usdc(-1))
