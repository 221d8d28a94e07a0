"""A worse lane never makes a plan better or goes first, and a plan leaves nothing on its way."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from keeper.route.amounts import CRUMBS, amounts, stranded
from keeper.route.graph import Graph, Lane, Place, Swap, edges_of, gives
from keeper.route.quote import Quote, Request, check_quote, quote
from keeper.route.rebalance import Task, rebalance
from keeper.units import ChainId
from tests.support.route_markets import AWAY, END, HOME, START, USDC, WETH, lane

AMOUNT = 10**11
OTHER = ChainId(7)
CRUMB = AMOUNT // 10**6
"""A plan within this of the best is as good: the optimiser's gap, and whole units."""


@st.composite
def networks(draw: st.DrawFn) -> tuple[Lane, ...]:
    """Lanes from home to away and over a third chain, without fixed fees."""
    pairs = [(HOME, AWAY), (HOME, AWAY), (HOME, OTHER), (OTHER, AWAY)]
    return tuple(
        lane(
            number,
            origin=ends[0],
            destination=ends[1],
            fee_ppm=draw(st.integers(0, 5000)),
            p95_ms=draw(st.integers(1, 100)) * 1000,
            capacity=draw(st.integers(AMOUNT // 50, 2 * AMOUNT)),
        )
        for number, ends in enumerate(
            draw(st.lists(st.sampled_from(pairs), min_size=2, max_size=6)), start=1
        )
    )


def worse(one: Lane, how: int) -> Lane:
    """Return the lane made worse in one way."""
    return (
        replace(one, fee_ppm=one.fee_ppm + 700),
        replace(one, capacity=one.capacity // 3),
        replace(one, p95_ms=one.p95_ms + 45_000),
        replace(one, cursed=True),
        replace(one, queue=one.capacity // 2),
    )[how]


def asked(lanes: tuple[Lane, ...], deadline_ms: int) -> Quote:
    return quote(Graph((), lanes), Request(START, END, AMOUNT, deadline_ms))


@settings(max_examples=80, deadline=None)
@given(networks(), st.integers(0, 5), st.integers(0, 4), st.sampled_from([0, 60_000]))
def test_a_lane_made_worse_never_makes_a_plan_better(
    lanes: tuple[Lane, ...], which: int, how: int, deadline_ms: int
) -> None:
    at = which % len(lanes)
    before = asked(lanes, deadline_ms)
    after = asked((*lanes[:at], worse(lanes[at], how), *lanes[at + 1 :]), deadline_ms)
    assert after.delivered <= before.delivered + CRUMB
    assert after.certificate.bound <= before.certificate.bound + CRUMB


@settings(max_examples=100, deadline=None)
@given(networks(), st.sampled_from([10**9, AMOUNT, 100 * AMOUNT]))
def test_a_plan_brings_what_its_bound_says_and_leaves_nothing_on_its_way(
    lanes: tuple[Lane, ...], amount: int
) -> None:
    graph, request = Graph((), lanes), Request(START, END, amount)
    found = quote(graph, request)
    assert found.delivered >= found.certificate.bound - max(amount // 10**6, CRUMB // 10)
    came: dict[Place, int] = {}
    for hop in found.hops:
        origin, end = hop.edge.origin, hop.edge.destination
        came[origin] = came.get(origin, 0) - hop.amount
        came[end] = came.get(end, 0) + hop.least_out
    rest = {place: left for place, left in came.items() if place not in (START, END)}
    assert all(0 <= left <= amount // CRUMBS for left in rest.values())
    assert check_quote(graph, request, found, 10**9) is None


@settings(max_examples=80, deadline=None)
@given(networks())
def test_of_two_parallel_lanes_the_dominated_one_goes_last(lanes: tuple[Lane, ...]) -> None:
    found = asked(lanes, 0)
    carried = {hop.edge.way: hop.amount for hop in found.hops}
    for one in lanes:
        for other in lanes:
            parallel = (one.origin, one.destination) == (other.origin, other.destination)
            better = (one.fee_ppm, one.p95_ms), (other.fee_ppm, other.p95_ms)
            if parallel and better[0] < better[1] and one.p95_ms <= other.p95_ms:
                assert carried.get(other, 0) <= CRUMB or carried.get(one, 0) >= one.room - CRUMB


def funnel() -> tuple[Lane, Lane, Lane, Lane]:
    """Two lanes to a third chain, a cheap one and a dear one, that lead into a narrow one."""
    cheap = lane(1, destination=OTHER, fee_ppm=100, capacity=15 * 10**8)
    dear = lane(2, destination=OTHER, fee_ppm=900, capacity=4 * 10**9)
    narrow = lane(3, origin=OTHER, fee_ppm=100, capacity=2 * 10**9)
    return cheap, dear, narrow, lane(4, fee_ppm=300, capacity=10**9)


def test_no_more_is_sent_than_can_go_on() -> None:
    cheap, dear, narrow, direct = funnel()
    for amount in (4 * 10**9, 10**11, 10**13):
        found = asked_for(amount)
        carried = {hop.edge.way: hop.amount for hop in found.hops}
        assert carried[narrow] == narrow.capacity
        assert (carried[cheap], carried[direct]) == (cheap.capacity, direct.capacity)
        rest = narrow.capacity - gives(edges_of(cheap)[0], cheap.capacity)
        (edge,) = edges_of(dear)
        assert gives(edge, carried[dear]) == rest > gives(edge, carried[dear] - 1)
        assert found.sent == sum(carried[one] for one in (cheap, dear, direct))
        assert found.certificate.gap_ppb < 1000


def asked_for(amount: int) -> Quote:
    return quote(Graph((), funnel()), Request(START, END, amount))


def test_a_peer_refuses_a_plan_that_leaves_funds_on_its_way() -> None:
    graph, request = Graph((), funnel()), Request(START, END, 10**11)
    found = asked_for(10**11)
    assert check_quote(graph, request, found, 1000) is None
    _, dear, _, _ = funnel()
    hops = tuple(
        replace(hop, amount=dear.capacity, least_out=gives(hop.edge, dear.capacity))
        if hop.edge.way == dear
        else hop
        for hop in found.hops
    )
    more = dear.capacity - next(hop.amount for hop in found.hops if hop.edge.way == dear)
    wasteful = replace(found, hops=hops, sent=found.sent + more)
    fault = check_quote(graph, request, wasteful, 1000)
    assert fault is not None
    assert fault.startswith("the plan leaves")
    assert fault.endswith(f"on chain {OTHER}")


def test_what_one_unit_more_brings_may_stay() -> None:
    """A dollar's millionth buys 5·10¹¹ units of ether: no plan fits a narrow lane exactly."""
    pool = Swap(HOME, b"\x31" * 20, (USDC, WETH), (10**12, 5 * 10**23), 3000)
    narrow = replace(lane(1, fee_ppm=0, capacity=3 * 10**17 + 12_345), asset=WETH)
    graph, end = Graph((pool,), (narrow,)), Place(AWAY, WETH)
    request = Request(START, end, 10**9)
    found = quote(graph, request)
    bought, carried = found.hops
    assert (carried.amount, found.delivered) == (narrow.capacity, narrow.capacity)
    assert gives(bought.edge, bought.amount - 1) < narrow.capacity < bought.least_out
    assert check_quote(graph, request, found, 10**9) is None
    two = bought.amount + 2
    hops = (replace(bought, amount=two, least_out=gives(bought.edge, two)), carried)
    fault = check_quote(graph, request, replace(found, hops=hops, sent=two), 10**9)
    assert fault is not None
    assert fault.startswith("the plan leaves")


def test_a_way_that_only_strands_carries_nothing() -> None:
    cheap, _, narrow, _ = funnel()
    flows = dict.fromkeys([*edges_of(cheap), *edges_of(replace(narrow, fee_fixed=3 * 10**9))], 1.0)
    found = amounts(flows, (START, END), 10**11, ())
    assert (found.delivered, stranded(found.hops, END)) == (0, {})
    assert found.sent == 0


@settings(max_examples=30, deadline=None)
@given(networks(), st.integers(0, 5), st.integers(0, 4), st.integers(1, 20))
def test_a_lane_made_worse_never_makes_moves_cheaper(
    lanes: tuple[Lane, ...], which: int, how: int, share: int
) -> None:
    at = which % len(lanes)
    task = Task(((HOME, AMOUNT),), ((AWAY, AMOUNT * share // 100),), 120_000)
    before = rebalance(lanes, task)
    after = rebalance((*lanes[:at], worse(lanes[at], how), *lanes[at + 1 :]), task)
    if after.moves:
        assert before.moves
        assert after.cost >= before.bound
