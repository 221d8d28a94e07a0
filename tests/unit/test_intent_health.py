"""The time that an account's health holds, by the margin model's own numbers."""

import pytest

from keeper.legs import Leg, LegKind
from keeper.margin.engine import Engine
from keeper.margin.latency import latency_haircut
from keeper.margin.marks import Marks
from keeper.parameters import Parameters
from keeper.settle.health import exposures, losses_by_time, seconds_above
from keeper.units import PPM, ChainId, symbol

A, B = ChainId(31501), ChainId(31502)
ETH, USDC = symbol("ETH-USD"), symbol("USDC")
PRICES = {ETH: 2_000 * 10**8, USDC: 10**8}
PARAMETERS = Parameters.devnet([A, B]).margin
USD = 10**6


def perp(size_e8: int, chain: ChainId = B) -> Leg:
    quote = -size_e8 * 2_000 * USD // 10**8
    return Leg(chain, b"\x01" * 20, ETH, LegKind.PERP, size_e8, quote)


def cash(dollars: int) -> Leg:
    return Leg(A, b"\x02" * 20, USDC, LegKind.COLLATERAL, dollars * USD)


def seconds(legs: list[Leg], floor: int) -> int:
    engine = Engine(Marks(PRICES, {}, PARAMETERS, {A: 0, B: 0}))
    margin = engine.margin(engine.rows(legs))
    return seconds_above(PARAMETERS, PRICES, legs, margin, floor)


def test_a_loss_is_the_exposure_times_what_governance_says() -> None:
    exposed = exposures(PARAMETERS, PRICES, [perp(10**8)])
    assert exposed == {symbol("ETH"): 2_000 * USD}
    ethereum = PARAMETERS.underlying_of[symbol("ETH")]
    for time_s, loss in losses_by_time(PARAMETERS, exposed):
        assert loss == 2_000 * latency_haircut(PARAMETERS.latency, ethereum, time_s)


def test_opposite_positions_of_one_underlying_are_netted() -> None:
    assert exposures(PARAMETERS, PRICES, [perp(10**8), perp(-(10**8), A)]) == {symbol("ETH"): 0}


def test_more_collateral_gives_more_time_and_too_little_none() -> None:
    times = [seconds([cash(dollars), perp(10**8)], PPM) for dollars in (90, 200, 400, 4_000)]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] == PARAMETERS.latency.bucket_s[-1]
    assert seconds([cash(400), perp(10**8)], 3 * PPM) <= times[2]


def test_a_leg_without_a_price_is_an_error_and_not_a_guess() -> None:
    with pytest.raises(KeyError):
        exposures(PARAMETERS, {}, [perp(1)])
