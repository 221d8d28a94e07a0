"""Tick mathematics: the published ends, laws of a sale, and states that cannot be."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keeper.errors import ConfigError
from keeper.route.files import graph_of
from keeper.route.graph import Graph, Place, edges_of, gives
from keeper.route.quote import Request, check_quote, quote
from keeper.route.ticks import (
    MAX_SQRT,
    MAX_TICK,
    MIN_SQRT,
    MIN_TICK,
    sell,
    sqrt_ratio,
    tick_at,
)
from keeper.units import PPM
from tests.support.route_markets import HOME, START, WETH, tick_book, tick_swap

BACK = Place(HOME, WETH)


def test_the_ends_are_the_published_ones() -> None:
    """The whitepaper's constants MIN_SQRT_RATIO and MAX_SQRT_RATIO."""
    assert MIN_SQRT == 4295128739
    assert MAX_SQRT == 1461446703485210103287273052203988822378723970342
    assert sqrt_ratio(0) == 1 << 96
    with pytest.raises(ValueError, match="outside"):
        sqrt_ratio(MAX_TICK + 1)
    with pytest.raises(ValueError, match="outside"):
        tick_at(MAX_SQRT)


@given(st.integers(MIN_TICK, MAX_TICK - 1), st.integers(0, 10**6))
def test_a_price_is_in_the_tick_below_it(tick: int, ppm: int) -> None:
    low, high = sqrt_ratio(tick), sqrt_ratio(tick + 1)
    assert tick_at(low) == tick
    assert tick_at(low + (high - 1 - low) * ppm // PPM) == tick


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 50), st.integers(10**6, 10**26), st.integers(1, 10**24), st.booleans())
def test_a_larger_sale_brings_more_at_a_worse_price(
    seed: int, amount: int, more: int, down: bool
) -> None:
    book = tick_book(seed)
    one, two = sell(book, amount, down), sell(book, amount + more, down)
    assert 0 <= one.brought <= two.brought
    assert one.paid <= amount
    if one.paid == amount and two.paid == amount + more:
        # the last unit never sells better than the mean, but for the few units of rounding
        assert (two.brought - one.brought - 3) * amount <= (one.brought + 3) * more


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 30), st.integers(31, 60), st.integers(10**6, 10**24))
def test_a_quote_over_tick_pools_is_exact_and_bounded(seed: int, other: int, amount: int) -> None:
    graph = Graph((tick_swap(1, seed), tick_swap(2, other)))
    found = quote(graph, Request(START, BACK, amount))
    assert check_quote(graph, found.request, found, 10**9) is None
    assert found.delivered == sum(gives(hop.edge, hop.amount) for hop in found.hops)
    assert found.delivered <= found.certificate.bound
    alone = max(gives(edges_of(swap)[0], amount) for swap in graph.swaps)
    assert found.delivered * 1001 >= alone * 1000  # and not worse than either pool


def test_states_no_pool_can_be_in_are_refused() -> None:
    book = tick_book(1)
    (first, net), *rest = book.crossings
    for change in (
        {"tick": book.tick + 1},
        {"spacing": 0},
        {"fee_ppm": PPM},
        {"liquidity": 0},
        {"crossings": ((first, net), *rest[:-1], (rest[-1][0], -(10**30)))},
        {"crossings": ((first + 1, net), *rest)},
        {"crossings": (*rest, (first, net))},
        {"first": 1},
        {"sqrt_price": 5},
    ):
        with pytest.raises(ValueError, match=r"."):
            replace(book, **change)  # type: ignore[arg-type]  # deliberately wrong
    for amount in (0, -1, 1 << 255):
        with pytest.raises(ValueError, match="cannot be sold"):
            sell(book, amount, True)


def test_a_pool_with_ticks_in_a_graph_file() -> None:
    book = tick_book(2)
    row = {
        "chain": 1, "venue": "0x" + "11" * 20, "assets": ["USDC", "WETH"], "fee_ppm": 500,
        "spacing": 10, "sqrt_price": str(book.sqrt_price), "tick": book.tick,
        "liquidity": str(book.liquidity), "ticks": [[t, str(n)] for t, n in book.crossings],
        "words": [book.first, book.last],
    }  # fmt: skip
    (read,) = graph_of(json.dumps({"swaps": [row]}), "here").swaps
    assert read == replace(tick_swap(0x11, 2))
    with pytest.raises(ConfigError, match="not a routing graph"):
        graph_of(json.dumps({"swaps": [{**row, "tick": 7}]}), "here")
