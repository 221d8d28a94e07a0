"""The margin deadline: never later than the floor allows, and only an order that serves counts."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.intent.deadline import MarginNeed, make_order, seconds_left, serves
from keeper.intent.order import decode_order
from keeper.units import PPM

NEED = MarginNeed(b"\x01" * 32, 31_502, b"\x02" * 20, b"\x03" * 20, b"\x04" * 20, 500, PPM)
money = st.integers(min_value=0, max_value=10**15)
rising = st.lists(money, min_size=1, max_size=6).map(
    lambda values: list(zip((60, 300, 1_200, 3_600, 14_400, 86_400), sorted(values), strict=False))
)


@given(money, money, rising, st.integers(min_value=0, max_value=3 * PPM))
def test_health_holds_until_the_deadline_and_may_fail_in_the_next_step(
    equity: int, requirement: int, losses: list[tuple[int, int]], floor: int
) -> None:
    left = seconds_left(equity, requirement, losses, floor)
    for seconds, loss in losses:
        healthy = (equity - loss) * PPM >= floor * requirement
        assert healthy == (seconds <= left)


@given(money, money, rising, st.integers(min_value=0, max_value=3 * PPM), money)
def test_more_equity_or_a_lower_floor_never_shortens_it(
    equity: int, requirement: int, losses: list[tuple[int, int]], floor: int, more: int
) -> None:
    left = seconds_left(equity, requirement, losses, floor)
    assert seconds_left(equity + more, requirement, losses, floor) >= left
    assert seconds_left(equity, requirement, losses, max(0, floor - more)) >= left


def test_the_order_delivers_into_the_account_in_time() -> None:
    made = make_order(NEED, b"\x05" * 20, 510, now=1_000, seconds=300)
    order = decode_order(made.order_data)
    assert made.fill_deadline == 1_300
    assert (order.input_token, order.input_amount) == (b"\x05" * 20, 510)
    assert serves(order, made.fill_deadline, NEED, 1_300)
    assert not serves(order, made.fill_deadline, NEED, 1_299)
    for change in (
        {"recipient": b"\x09" * 32},
        {"vault": bytes(32)},
        {"output_token": b"\x09" * 32},
        {"destination_chain": 31_501},
        {"destination_settler": b"\x09" * 32},
        {"output_amount": 499},
    ):
        assert not serves(replace(order, **change), 1_300, NEED, 1_300)
    assert serves(replace(order, output_amount=501), 1_300, NEED, 1_300)


@pytest.mark.parametrize(("amount", "given_", "seconds"), [(500, 1, 0), (0, 1, 5), (500, 0, 5)])
def test_an_order_without_time_or_substance_is_refused(
    amount: int, given_: int, seconds: int
) -> None:
    with pytest.raises(ValueError, match=r"time|something"):
        make_order(replace(NEED, amount=amount), b"\x05" * 20, given_, 1_000, seconds)
