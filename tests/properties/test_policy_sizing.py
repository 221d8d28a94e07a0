"""The child's arithmetic equals the margin room's, and packed legs equal the floor's."""

from hypothesis import given
from hypothesis import strategies as st

from keeper.hashing import keccak
from keeper.legs import Leg as FloorLeg
from keeper.legs import LegKind, legs_hash
from keeper.margin.liquidation import close_to_target, repay_to_target
from keeper.plan import StepKind
from keeper.units import PPM, ChainId
from policies import api, sizing

MONEY = st.integers(0, 10**15)
RATE = st.integers(1, 300_000)


@given(MONEY, MONEY, st.integers(1, 990_000), RATE, st.integers(PPM, 2 * PPM))
def test_repayments_agree(debt: int, collateral: int, lt: int, bonus: int, target: int) -> None:
    ours = sizing.least_repay(debt, collateral * lt, lt, bonus, target)
    theirs = repay_to_target(debt, collateral, lt, bonus, target)
    if theirs is None or target * PPM <= lt * (PPM + bonus):
        assert ours == debt
    else:
        assert ours == min(debt, theirs)


@given(st.integers(-(10**15), 10**15), MONEY, MONEY, RATE, RATE, st.integers(PPM, 2 * PPM))
def test_closes_agree(
    equity: int, requirement: int, notional: int, margin: int, bonus: int, target: int
) -> None:
    ours = sizing.least_close(equity, requirement, notional, margin, bonus, target)
    theirs = close_to_target(equity, requirement, margin, bonus, target)
    assert ours == (notional if theirs is None else min(notional, theirs))


POINTS = st.lists(
    st.tuples(st.integers(1, 10**20), st.integers(0, 200_000)), min_size=1, max_size=6
).map(lambda raw: list(zip(sorted({a for a, _ in raw}), sorted(b for _, b in raw), strict=False)))


@given(POINTS, st.integers(0, 200_000))
def test_the_largest_sale_within_a_limit_is_within_it(
    points: list[tuple[int, int]], limit: int
) -> None:
    size = sizing.largest_within(points, limit)
    impact = sizing.impact_ppm(points, size)
    assert impact is not None
    assert impact <= limit + 1 or size == 0


@given(
    st.integers(0, 10**20), st.integers(0, 10**20), st.integers(0, 10**19), st.integers(0, 10**20)
)
def test_no_dust_is_left(size: int, held: int, least: int, allowed: int) -> None:
    found = sizing.whole_if_dust(min(size, allowed), held, least, allowed)
    assert 0 <= found <= min(held, allowed)
    assert held - found == 0 or held - found >= least or found in (0, allowed)


LEGS = st.builds(
    FloorLeg,
    st.integers(0, 2**64 - 1).map(ChainId),
    st.binary(min_size=20, max_size=20),
    st.binary(min_size=32, max_size=32),
    st.sampled_from(LegKind),
    st.integers(-(2**127), 2**127 - 1),
    st.integers(-(2**127), 2**127 - 1),
    st.integers(-(2**127), 2**127 - 1),
)


@given(st.lists(LEGS, max_size=5, unique_by=lambda leg: leg.key))
def test_packed_legs_are_the_ones_that_are_hashed(legs: list[FloorLeg]) -> None:
    ours = api.pack_legs(
        [
            api.Leg(one.chain, one.venue, one.market, one.kind, one.size, one.quote, one.funding)
            for one in legs
        ]
    )
    assert keccak(ours) == legs_hash(legs)
    back = api.legs_of(api.Account(b"", 0, 0, 0, 0, 0, ours))
    assert [(leg.chain, leg.size, leg.quote) for leg in back] == [
        (leg.chain, leg.size, leg.quote) for leg in sorted(legs, key=lambda leg: leg.key)
    ]


def test_step_names_are_the_floors() -> None:
    assert set(api.StepName.__args__) == {kind.value for kind in StepKind}  # type: ignore[attr-defined]  # Literal's arguments


@given(st.integers(-(2**127), 2**127 - 1))
def test_wide_integers_cross_the_wire(value: int) -> None:
    act = api.Act(b"t", 1, api.Wide(value), 1, "why")
    assert api.decoder(api.Decision)(api.encoder().encode(act)) == act
