"""Migrations: a route becomes payments that conserve every wei, and lanes are as they are now."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.errors import ConfigError
from keeper.network import ChainSpec, NetworkSpec, Token
from keeper.parameters import BridgeClass, Parameters
from keeper.route.congestion import Delivery
from keeper.route.graph import Graph, Lane, Place, Swap
from keeper.route.quote import Request, check_quote, quote
from keeper.settle.lanes import (
    Condition,
    Offer,
    graph_of,
    lane_of,
    plain_offers,
    read_offers,
)
from keeper.settle.migration import delivering, legs_of, need, units_of
from keeper.units import PPM, ChainId, symbol
from keeper.venue.escrow import NOWHERE
from keeper.venue.records import word

USDC, WETH = symbol("USDC"), symbol("WETH")
CHAINS = tuple(ChainId(at) for at in (1, 2, 3))
OWNER, ACCOUNT = b"\x0a" * 20, b"\x0b" * 32


def chain(at: ChainId) -> ChainSpec:
    contracts = (("Escrow", bytes([at]) * 20), ("Vault", bytes([10 + at]) * 20))
    return ChainSpec(at, contracts, (Token(USDC, bytes([20 + at]) * 20, 6),))


NETWORK = NetworkSpec(
    b"\x01" * 32, 0, 500, CHAINS[0], tuple(map(chain, CHAINS)), Parameters.devnet(CHAINS).encode()
)
HERE, THERE = Place(CHAINS[0], USDC), Place(CHAINS[2], USDC)
ENDS = ((1, 3), (1, 2), (2, 3))


def offers(fees: list[int]) -> list[Offer]:
    """Return makers on every direct way and every way over the second chain."""
    return [
        Offer(bytes([30 + at]) * 20, ChainId(start), ChainId(end), USDC, fee, 10_000, 20_000)
        for at, fee in enumerate(fees)
        for start, end in (ENDS[at % len(ENDS)],)
    ]


makers = st.lists(st.integers(0, 20_000), min_size=3, max_size=8)
funds = st.lists(st.integers(0, 10**10), min_size=8, max_size=8)


@given(makers, funds, st.integers(1, 2 * 10**10), st.integers(0, 50_000))
def test_payments_conserve_every_wei(
    fees: list[int], held: list[int], wanted: int, deposit_ppm: int
) -> None:
    conditions = {
        offer: Condition(has, 0, 10**12, deposit_ppm)
        for offer, has in zip(offers(fees), held, strict=False)
    }
    found = delivering(graph_of(NETWORK, conditions), Request(HERE, THERE, wanted))
    if found is None:
        return
    assert found.delivered >= wanted
    legs = legs_of(NETWORK, found, owner=OWNER, account=ACCOUNT, deposit_ppm=deposit_ppm)
    assert len(set(legs)) == len(legs)
    for place in CHAINS:
        paid: dict[bytes, int] = {}
        for leg in legs:
            if leg.chain == place:
                paid[leg.payer] = paid.get(leg.payer, 0) - leg.amount
                paid[leg.receiver] = paid.get(leg.receiver, 0) + leg.amount
        assert sum(paid.values()) == 0
    assert sum(leg.amount for leg in legs if leg.payer == OWNER) == found.sent
    arrived = [leg for leg in legs if leg.receiver == ACCOUNT]
    assert sum(leg.amount for leg in arrived) == found.delivered
    assert all(leg.vault == bytes([13]) * 20 for leg in arrived)
    assert all(leg.vault == NOWHERE for leg in legs if leg not in arrived)
    # no maker pays more at a place than it holds there, and each keeps at least its fee
    for offer, now in conditions.items():
        paying = [leg for leg in legs if (leg.payer, leg.chain) == (offer.maker, offer.destination)]
        pays = sum(leg.amount for leg in paying)
        gets = sum(
            leg.amount
            for leg in legs
            if (leg.receiver, leg.chain) == (word(offer.maker), offer.origin)
        )
        assert pays + sum(leg.deposit for leg in paying) <= now.funds
        assert pays * PPM <= gets * (PPM - offer.fee_ppm)
    for leg in legs:
        assert leg.deposit * PPM >= leg.amount * deposit_ppm
        assert leg.escrow == bytes([leg.chain]) * 20


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(0, 3 * PPM))
def test_what_is_needed_is_enough_and_no_more(equity: int, requirement: int, floor: int) -> None:
    short = need(equity, requirement, floor)
    assert (equity + short) * PPM >= requirement * floor
    assert short == 0 or (equity + short - 1) * PPM < requirement * floor


@given(st.integers(0, 10**15), st.integers(1, 10**12), st.integers(0, 18), st.integers(0, 900_000))
def test_units_count_for_at_least_what_is_needed(
    micro_usd: int, price: int, decimals: int, haircut: int
) -> None:
    amount = units_of(micro_usd, price, decimals, haircut)
    counts = amount * price * (PPM - haircut)
    assert counts >= micro_usd * 10 ** (decimals + 2) * PPM
    assert (
        amount == 0
        or (amount - 1) * price * (PPM - haircut) < micro_usd * 10 ** (decimals + 2) * PPM
    )


def best(conditions: dict[Offer, Condition], wanted: int = 10**6) -> list[bytes]:
    graph = graph_of(NETWORK, conditions)
    found = delivering(graph, Request(HERE, THERE, wanted, 60_000))
    assert found is not None
    assert check_quote(graph, found.request, found, 10**6) is None
    assert not found.request.exclude
    return [hop.edge.way.bridge for hop in found.hops if isinstance(hop.edge.way, Lane)]


def test_a_lane_without_room_or_with_a_curse_is_left_for_the_next() -> None:
    near, over, on, far = offers([300, 200, 200, 900])
    far = replace(far, maker=b"\x77" * 20)
    now = dict.fromkeys((near, over, on, far), Condition(10**9, 0, 10**9))
    assert best(now) == [near.maker]
    assert best(now | {near: Condition(0, 0, 10**9)}) == [over.maker, on.maker]
    assert best(now | {near: Condition(10**9, 10**9, 10**9)}) == [over.maker, on.maker]
    stopped = Condition(10**9, 0, 10**9, stopped=True)
    assert best(now | {near: stopped}) == [over.maker, on.maker]
    assert best(now | {near: stopped, on: stopped}) == [far.maker]
    # what governance lets one lane carry binds too
    assert set(best(now | {near: Condition(10**9, 0, 10**5)})) == {near.maker, over.maker, on.maker}


def test_a_unit_lost_to_rounding_is_no_lane_that_is_full() -> None:
    """Where two ways share a transfer, rounding may leave a unit unsent, and more goes through."""
    now = {offer: Condition(5 * 10**8, 0, 10**9, 10_000) for offer in offers([1, 1, 1])}
    graph = graph_of(NETWORK, now)
    room = sum(lane.room for lane in graph.lanes if lane.origin == HERE.chain)
    for wanted in range(6 * 10**8, 6 * 10**8 + 20):
        found = delivering(graph, Request(HERE, THERE, wanted))
        assert found is not None
        assert found.delivered >= wanted
    assert delivering(graph, Request(HERE, THERE, room)) is None
    steep = {offer: Condition(5 * 10**8, 0, 10**9, 10_000) for offer in offers([7_467, 328, 23])}
    found = delivering(graph_of(NETWORK, steep), Request(HERE, THERE, 6 * 10**8, 60_000))
    assert found is not None
    assert 0 <= found.delivered - 6 * 10**8 < 8


def test_what_was_seen_of_a_lane_moves_its_time_and_never_lowers_its_fee() -> None:
    (offer,) = offers([500])[:1] or ()
    slow = tuple(Delivery(100, 90_000) for _ in range(10))
    lane = lane_of(NETWORK, offer, Condition(5, 0, 10, deliveries=slow))
    assert (lane.fee_ppm, lane.p95_ms, lane.capacity) == (500, 90_000, 5)
    assert (lane.security, lane.verifier) == (BridgeClass.BONDED, NETWORK.id)


def test_a_route_that_swaps_cannot_be_paid() -> None:
    lanes = (lane_of(NETWORK, offers([1])[0], Condition(10**9, 0, 10**9)),)
    pool = Swap(CHAINS[2], b"\x01" * 20, (USDC, WETH), (10**12, 10**21), 3_000)
    found = quote(Graph((pool,), lanes), Request(HERE, Place(CHAINS[2], WETH), 10**6))
    with pytest.raises(ValueError, match="does not swap"):
        legs_of(NETWORK, found, owner=OWNER, account=ACCOUNT, deposit_ppm=0)


def test_offers_are_read_back_and_impossible_ones_refused() -> None:
    made = offers([300, 200, 200])
    rows = plain_offers(made)
    assert read_offers(rows, "offers.json") == tuple(made)
    for change in (
        {"maker": "0x11"},
        {"destination": 1},
        {"fee_ppm": PPM},
        {"fee_ppm": -1},
        {"fee_fixed": -1},
        {"p50_ms": 0},
        {"p95_ms": 1},
        {"asset": None},
        {"p95_ms": float("inf")},
    ):
        with pytest.raises(ConfigError):
            read_offers([rows[0] | change], "offers.json")
    for bad in ({}, "x", [None], rows * 400, [rows[0], rows[0] | {"fee_ppm": 5}]):
        with pytest.raises(ConfigError):
            read_offers(bad, "offers.json")
