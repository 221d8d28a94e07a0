"""A plan reduces every position by the same least share that reaches a health, or is none."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from keeper.legs import Leg, LegKind
from keeper.margin.engine import Engine
from keeper.margin.marks import Marks
from keeper.network import ChainSpec, NetworkSpec
from keeper.parameters import Parameters
from keeper.settle.deleverage import Plan, legs_of, plan, reducible
from keeper.units import PPM, ChainId, ceil_div, symbol
from keeper.venue.escrow import NOWHERE

ETH, BTC, USDC = symbol("ETH-USD"), symbol("BTC-USD"), symbol("USDC")
E8 = 10**8
CHAINS = tuple(ChainId(at) for at in (1, 2, 3))
VENUES = {chain: bytes([40 + chain]) * 20 for chain in CHAINS}
VAULT, OWNER = b"\x21" * 20, b"\x0a" * 20
PARAMETERS = Parameters.devnet(CHAINS)
NETWORK = NetworkSpec(
    b"\x01" * 32,
    0,
    500,
    CHAINS[0],
    tuple(
        ChainSpec(chain, (("Escrow", bytes([chain]) * 20), ("Perps", VENUES[chain])))
        for chain in CHAINS
    ),
    PARAMETERS.encode(),
)
PRICES = {ETH: 2_000 * E8, BTC: 60_000 * E8, USDC: E8}
FEES = {(chain, market): 500 for chain in CHAINS for market in (ETH, BTC)}


FUNDING = {(chain, venue, market): 0 for chain, venue in VENUES.items() for market in (ETH, BTC)}
ENGINE = Engine(Marks(PRICES, FUNDING, PARAMETERS.margin, dict.fromkeys(CHAINS, 2)))


def perp(chain: int, market: bytes, size: int) -> Leg:
    """Return a position opened at the mark."""
    at = ChainId(chain)
    unit = 10 ** (PARAMETERS.margin.market_of[market].decimals + 2)
    return Leg(at, VENUES[at], market, LegKind.PERP, size, -size * PRICES[market] // unit)


def without(leg: Leg, size: int) -> Leg:
    """Return a position after so much of it was closed at the mark, the fee paid."""
    part = size if leg.size > 0 else -size
    worth = part * PRICES[leg.market] // 10**10
    fee = ceil_div(ceil_div(size * PRICES[leg.market], 10**10) * 500, PPM)
    return replace(leg, size=leg.size - part, quote=leg.quote + worth - fee)


def cash(dollars: int) -> Leg:
    return Leg(CHAINS[0], VAULT, USDC, LegKind.COLLATERAL, dollars * 10**6)


def planned(legs: list[Leg], health_ppm: int) -> Plan | None:
    return plan(ENGINE, legs, reducible(NETWORK, legs), FEES, health_ppm)


sizes = st.integers(-50 * E8, 50 * E8)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from((ETH, BTC)), sizes), max_size=5),
    st.integers(0, 400_000),
    st.integers(PPM, 3 * PPM),
)
def test_the_least_share_of_every_position_reaches_the_health(
    rows: list[tuple[int, bytes, int]], dollars: int, health_ppm: int
) -> None:
    unique = {(chain, market): size for chain, market, size in rows}
    legs = [cash(dollars), *(perp(*key, size) for key, size in unique.items())]
    found = planned(legs, health_ppm)
    positions = reducible(NETWORK, legs)
    if found is None:
        closed = [without(leg, abs(leg.size)) if leg in positions else leg for leg in legs]
        margin = ENGINE.margin(ENGINE.rows(closed))
        assert not margin.healthy or margin.health_ppm < health_ppm
        return
    assert found.after.health_ppm >= health_ppm
    assert found.after.healthy
    for leg, size in found.closes:
        assert 0 < size <= abs(leg.size)
    if found.closes:
        assert found.before.health_ppm < health_ppm or not found.before.healthy
        # the same share of each: what one share more would close is within one unit of the largest
        shares = [(size - 1) * PPM // abs(leg.size) for leg, size in found.closes]
        assert all(
            (size - 1) * PPM < (max(shares) + 1) * abs(leg.size) for leg, size in found.closes
        )


def test_a_hedged_pair_stays_hedged() -> None:
    legs = [cash(1_500), perp(1, ETH, 100 * E8), perp(2, ETH, -100 * E8)]
    found = planned(legs, 2 * PPM)
    assert found is not None
    (long, closes_long), (short, closes_short) = found.closes
    assert (long.chain, short.chain) == (1, 2)
    assert 0 < closes_long == closes_short < 100 * E8
    less = closes_long - 100 * E8 // PPM  # a smaller share would not do
    margin = ENGINE.margin(ENGINE.rows([legs[0], *(without(leg, less) for leg in legs[1:])]))
    assert margin.health_ppm < 2 * PPM <= found.after.health_ppm


def test_what_cannot_be_reached_is_no_plan() -> None:
    legs = [cash(0), replace(perp(1, ETH, 10 * E8), quote=-40_000 * 10**6)]
    assert planned(legs, PPM) is None  # closing it all leaves a loss


def test_an_account_that_is_healthy_closes_nothing() -> None:
    found = planned([cash(100_000), perp(1, ETH, E8)], PPM)
    assert found is not None
    assert found.closes == ()
    assert found.before == found.after


def test_only_venues_beside_an_escrow_are_reduced() -> None:
    stranger = replace(perp(1, ETH, E8), venue=b"\x77" * 20)
    alone = replace(NETWORK, chains=(replace(NETWORK.chains[0], contracts=()), *NETWORK.chains[1:]))
    legs = [perp(1, BTC, E8), perp(2, ETH, E8), stranger, cash(5)]
    assert [leg.chain for leg in reducible(NETWORK, legs)] == [1, 2]
    assert [leg.chain for leg in reducible(alone, legs)] == [2]


def test_the_flow_has_a_leg_for_every_reduction() -> None:
    legs = [cash(10_000), perp(1, ETH, 100 * E8), perp(2, ETH, -90 * E8), perp(3, BTC, 2 * E8)]
    found = planned(legs, 2 * PPM)
    assert found is not None
    made = legs_of(NETWORK, found, OWNER, 3)
    assert [(leg.chain, leg.market, leg.amount) for leg in made] == [
        (leg.chain, leg.market, size) for leg, size in found.closes
    ]
    assert {(leg.payer, leg.token, leg.receiver, leg.due) for leg in made} == {
        (OWNER, NOWHERE, (3).to_bytes(32, "big"), 0)
    }
    values = found.values(ENGINE)
    (leg, size) = found.closes[0]
    assert values[leg.chain, leg.market] == ceil_div(size * PRICES[leg.market], 10**10)
