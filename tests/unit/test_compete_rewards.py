"""Splits to the unit, participation, pools."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.compete.rewards import consistency, gas_refund, participation, pool_shares, split
from keeper.parameters import Parameters

RULES = Parameters.devnet().competition


@given(st.integers(0, 2**60))
def test_the_parts_of_a_price_sum_to_it(price: int) -> None:
    parts = split(price, RULES)
    assert parts.insurance + parts.committee + parts.consistency + parts.protocol == price
    assert min(parts.insurance, parts.committee, parts.consistency, parts.protocol) >= 0


def test_the_split_is_60_15_15_10() -> None:
    parts = split(1_000_000, RULES)
    assert (parts.insurance, parts.committee) == (600_000, 150_000)
    assert (parts.consistency, parts.protocol) == (150_000, 100_000)


def test_participation_counts_bits_of_members_only() -> None:
    assert participation([0b1011, 0b0001, 0b110000], 4) == (2, 1, 0, 1)


@given(st.integers(0, 2**60), st.dictionaries(st.binary(min_size=1), st.integers(-3, 99)))
def test_a_pool_never_pays_more_than_it_holds(amount: int, weights: dict[bytes, int]) -> None:
    shares = pool_shares(amount, weights)
    assert sum(shares.values()) <= amount
    assert set(shares) == {keeper for keeper, weight in weights.items() if weight > 0}


@pytest.mark.parametrize(
    ("spent", "allowed", "bonus", "refund"),
    [(60, 100, 1_000, 80), (100, 100, 1_000, 100), (150, 100, 1_000, 100), (60, 100, 50, 50)],
)
def test_half_of_what_was_saved_is_kept(spent: int, allowed: int, bonus: int, refund: int) -> None:
    assert gas_refund(spent, allowed, bonus) == refund


def test_one_miss_weighs_more_than_one_success() -> None:
    a, b = b"a" * 20, b"b" * 20
    weights = consistency([(a, True), (a, True), (b, True), (b, False)])
    assert weights[a] == 4 * weights[b]
