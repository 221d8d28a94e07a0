"""Which lanes are between own places, and what a routing policy is shown of them."""

from dataclasses import replace

from msgspec.structs import replace as replace_struct

from keeper.margin.breaker import chain_scope, class_scope
from keeper.network import ChainSpec, NetworkSpec, Token
from keeper.node import funds
from keeper.parameters import BridgeClass
from keeper.route.bridges.port import Crossing, Terms
from keeper.route.permits import Price, Quoted
from keeper.route.shipments import Stock
from keeper.route.traffic import lane_now, seen_of
from keeper.units import ChainId
from policies import api
from tests.support.warp_world import AWAY, HOME, USDC, WarpWorld

WORLD = WarpWorld()
OUT = Crossing(HOME, AWAY, USDC)
TERMS = Terms(fee_fixed=3, fee_ppm=40, value=7)
LANE = Quoted(
    WORLD.route, OUT, lane_now(WORLD.route, OUT, TERMS, seen_of((), TERMS, (), 0)), TERMS, 0
)


def network(*tokens: tuple[ChainId, Token]) -> NetworkSpec:
    specs = tuple(ChainSpec(chain, (), (token,)) for chain, token in tokens)
    return replace(WORLD.network, chains=specs)


def test_only_lanes_between_the_networks_own_tokens_are_used() -> None:
    here, there = (spec.tokens[0] for spec in WORLD.network.chains)
    assert [one for _, one in funds.own_lanes(WORLD.network, [WORLD.route])] == [
        OUT,
        Crossing(AWAY, HOME, USDC),
    ]
    for other in (
        network((HOME, here)),
        network((HOME, here), (AWAY, replace(there, address=b"\x01" * 20))),
        network((HOME, here), (AWAY, replace(there, decimals=18))),
        network((HOME, here), (AWAY, replace(there, asset=b"other".ljust(32, b"\0")))),
    ):
        assert funds.own_lanes(other, [WORLD.route]) == []


def test_an_asset_that_counts_differently_somewhere_has_no_price() -> None:
    third = ChainId(3)
    here, there = (spec.tokens[0] for spec in WORLD.network.chains)
    odd = network((HOME, here), (AWAY, there), (third, replace(here, decimals=18)))
    places = {(HOME, USDC), (AWAY, USDC)}
    assert funds.decimals_of(odd, places) == {USDC: 6}, "it is no own place"
    assert funds.decimals_of(odd, places | {(third, USDC)}) == {}


def test_a_breaker_stops_everywhere_an_end_or_a_bridge() -> None:
    def stopped(scope: bytes, level: int = 2) -> bool:
        view = api.MarketView(1, 1, 1, breakers=(api.Breaker(scope, 2, level),))
        return funds.stops(view)(LANE)

    bridge = LANE.lane.bridge.ljust(32, b"\0")
    mine, other = (class_scope(one) for one in (BridgeClass.BONDED, BridgeClass.MULTISIG))
    for scope in (bytes(32), chain_scope(HOME), chain_scope(AWAY), mine, bridge):
        assert stopped(scope)
        assert not stopped(scope, 1), "slower is not stopped"
    assert not stopped(chain_scope(ChainId(9)))
    assert not stopped(other)


def test_what_a_transfer_costs_in_coin_is_in_the_assets_unit_rounded_up() -> None:
    gas, price = api.Gas(HOME, 10**9, 2_000 * 10**8), Price(10**8, 6)
    assert funds.coin_cost(gas, price, 0) == 600_000
    assert funds.coin_cost(gas, price, 1) == 600_001
    assert funds.coin_cost(None, price, 1) is funds.coin_cost(gas, None, 1) is None
    assert funds.coin_cost(gas, Price(0, 6), 1) is None


def test_what_is_shown_fits_into_a_frame() -> None:
    huge = 10**60
    row = funds.quote_row(replace(LANE, coin_cost=huge), huge)
    assert (row.fee_fixed, row.fee_ppm, row.coin_cost) == (3, 40, (1 << 63) - 1)
    place = funds.holding((HOME, USDC), Stock(huge, huge, huge), -huge)
    view = api.MarketView(1, 1, 1, inventory=(place, funds.holding((HOME, USDC), Stock(1), None)))
    view = replace_struct(view, bridges=(row,))
    again = api.decoder(api.MarketView)(api.encoder().encode(view))
    assert again == view
    assert [one.own is None for one in again.inventory] == [False, True]
