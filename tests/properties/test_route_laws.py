"""Laws: no cap, limit or deadline is exceeded, worse lanes do not win, sums stay whole."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from keeper.parameters import BridgeClass
from keeper.route.congestion import Delivery, Seen, live
from keeper.route.forecast import Demand, Levels, Stock, levels, order, spare
from keeper.route.graph import Graph, Lane, edges_of, gives
from keeper.route.netting import Intent, net
from keeper.route.quote import Request, check_quote, quote
from keeper.route.rebalance import Task, exposure_of, rebalance
from keeper.route.risk import cvar, hazards_of, scenarios
from keeper.units import ChainId
from tests.support.route_markets import AWAY, END, HOME, START, lane, small_graph

AMOUNT = 10**11
OTHER = ChainId(7)


@st.composite
def lanes(draw: st.DrawFn) -> tuple[Lane, ...]:
    made = []
    for number in range(1, draw(st.integers(2, 7))):
        ends = draw(st.sampled_from([(HOME, AWAY), (HOME, AWAY), (HOME, OTHER), (OTHER, AWAY)]))
        made.append(
            lane(
                number,
                origin=ends[0],
                destination=ends[1],
                fee_ppm=draw(st.integers(0, 5000)),
                fee_fixed=draw(st.sampled_from([0, 0, 10**5, 10**8])),
                p95_ms=draw(st.integers(1, 100)) * 1000,
                capacity=draw(st.integers(1, 2 * AMOUNT)),
                queue=draw(st.sampled_from([0, 0, 10**9])),
                curvature=draw(st.sampled_from([0, 10**14])),
                verifier=bytes([draw(st.integers(1, 3))]) * 32,
                security=draw(st.sampled_from(list(BridgeClass))),
                cursed=draw(st.sampled_from([False, False, False, True])),
            )
        )
    return tuple(made)


@settings(max_examples=60, deadline=None)
@given(lanes(), st.sampled_from([0, 40_000, 90_000]), st.integers(0, AMOUNT))
def test_a_quote_keeps_caps_limits_and_deadline(
    offered: tuple[Lane, ...], deadline: int, limit: int
) -> None:
    request = Request(START, END, AMOUNT, deadline, ((b"\x01" * 32, limit),))
    found = quote(Graph((), offered), request)
    behind = 0
    for hop in found.hops:
        way = hop.edge.way
        assert isinstance(way, Lane)
        assert not way.cursed
        assert hop.amount <= way.room
        assert hop.least_out <= gives(hop.edge, hop.amount)
        behind += hop.amount if way.verifier == b"\x01" * 32 else 0
    assert behind <= limit
    assert found.sent <= AMOUNT
    if deadline:
        assert found.latency_ms <= deadline
    assert check_quote(Graph((), offered), request, found, 10**9) is None
    assert found.delivered <= found.certificate.bound


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 3000),
    st.integers(1, 3000),
    st.integers(10**9, 2 * AMOUNT),
    st.integers(0, 10**6),
)
def test_a_worse_lane_is_taken_only_when_the_better_is_full(
    fee: int, extra: int, room: int, fixed: int
) -> None:
    good = lane(1, fee_ppm=fee, capacity=room)
    bad = lane(2, fee_ppm=fee + extra, fee_fixed=fixed, p95_ms=90_000)
    found = quote(Graph((), (good, bad)), Request(START, END, AMOUNT))
    carried = {hop.edge.way: hop.amount for hop in found.hops}
    if carried.get(bad, 0) > AMOUNT // 10**6:
        assert carried[good] >= room - AMOUNT // 10**6
    worse = quote(
        Graph((), (replace(good, fee_ppm=fee + 2 * extra), bad)), Request(START, END, AMOUNT)
    )
    assert worse.delivered <= found.delivered + AMOUNT // 10**6


def test_a_way_that_cannot_be_is_left_out_and_stops_nothing() -> None:
    good = lane(1)
    odd = (
        lane(2, fee_ppm=10**6),
        lane(3, fee_ppm=-1),
        lane(4, fee_fixed=-5),
        lane(5, curvature=-1),
        lane(6, capacity=0),
        lane(7, curvature=1),
    )
    swaps = (
        replace(small_graph().swaps[0], fee_ppm=10**6),
        replace(small_graph().swaps[0], venue=b"\x22" * 20, weights=(0, 1)),
        replace(small_graph().swaps[0], venue=b"\x23" * 20, reserves=(0, 1)),
    )
    graph, request = Graph(swaps, (good, *odd)), Request(START, END, 10**9)
    found = quote(graph, request)
    assert [hop.edge.way for hop in found.hops] == [good]
    assert len(found.left_out) == len(swaps) + len(odd) - 1
    assert check_quote(graph, request, found, 10**6) is None
    task = Task(((HOME, 10**9),), ((AWAY, 10**8),))
    moved = rebalance((good, *odd), task)
    assert [move.path for move in moved.moves] == [(good,)]


def test_a_tampered_quote_is_refused() -> None:
    graph = small_graph()
    request = Request(START, END._replace(asset=small_graph().swaps[0].assets[1]), 3 * 10**11)
    found = quote(graph, request)
    assert check_quote(graph, request, found, 10_000) is None
    assert found.certificate.gap_ppb <= 10_000
    hop = found.hops[0]
    dearer = replace(graph, lanes=tuple(replace(one, fee_ppm=9000) for one in graph.lanes))
    forged = [
        replace(found, delivered=found.delivered + 1),
        replace(found, hops=found.hops[1:]),
        replace(found, hops=(replace(hop, least_out=hop.least_out + 1), *found.hops[1:])),
        replace(found, hops=(replace(hop, amount=request.amount + 1), *found.hops[1:])),
        replace(found, hops=(replace(hop, done_ms=0), *found.hops[1:])),
        replace(
            found,
            certificate=replace(found.certificate, bound=found.certificate.value * 999 // 1000),
        ),
        replace(found, hops=(hop, hop, *found.hops[1:])),
        replace(found, hops=(replace(hop, least_out=-1), *found.hops[1:])),
        replace(found, sent=found.sent - 1),
        replace(found, request=replace(request, deadline_ms=1)),
        replace(found, request=replace(request, exclude=frozenset({b"\x09" * 20}))),
    ]
    for one in forged:
        assert check_quote(graph, request, one, 10**9) is not None
    assert check_quote(dearer, request, found, 10**9) is not None


@settings(max_examples=30, deadline=None)
@given(lanes(), st.sampled_from([0, 40_000, 120_000]), st.integers(10**9, AMOUNT))
def test_rebalancing_keeps_caps_limits_and_deadline(
    offered: tuple[Lane, ...], deadline: int, limit: int
) -> None:
    cases = scenarios(hazards_of(offered))
    task = Task(
        ((HOME, AMOUNT),),
        ((AWAY, AMOUNT // 4),),
        deadline,
        ((HOME, 10**6),),
        ((b"\x01" * 32, limit),),
        cases,
        950_000,
        AMOUNT // 2,
    )
    found = rebalance(offered, task)
    if not found.moves:
        assert found.status == "infeasible"
        return
    carried: dict[Lane, int] = {}
    for move in found.moves:
        assert not deadline or move.latency_ms <= deadline
        for one in move.path:
            assert not one.cursed
            carried[one] = carried.get(one, 0) + move.amount
    assert all(amount <= one.room for one, amount in carried.items())
    exposed = exposure_of(found.moves)
    assert exposed.get(b"\x01" * 32, 0) <= limit
    assert cvar(exposed, cases, 950_000) <= AMOUNT // 2 + len(found.moves)
    assert sum(move.arrives for move in found.moves) >= AMOUNT // 4
    assert sum(move.amount for move in found.moves) <= AMOUNT
    assert found.bound <= found.cost


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**12)), max_size=12)
)
def test_netting_leaves_no_chain_with_a_difference(rows: list[tuple[int, int, int]]) -> None:
    intents = [Intent(ChainId(a), ChainId(b), amount) for a, b, amount in rows]
    netted = net(intents)
    sums: dict[int, int] = {}
    for one, amount in zip(intents, netted, strict=True):
        assert 0 <= amount <= one.amount
        sums[one.origin] = sums.get(one.origin, 0) - amount
        sums[one.destination] = sums.get(one.destination, 0) + amount
    assert not any(sums.values())


def test_a_cycle_is_netted_whole() -> None:
    rows = ((1, 2, 10), (2, 3, 8), (3, 1, 9))
    assert net([Intent(ChainId(a), ChainId(b), amount) for a, b, amount in rows]) == (8, 8, 8)


def test_an_order_is_placed_once() -> None:
    demand = Demand().after(5_000, 1_000_000, 1_000_000)
    rule = levels(demand, 600_000, 10, 100)
    assert order(Stock(rule.low - 1), rule) == rule.high - rule.low + 1
    assert order(Stock(rule.low - 1, in_flight=rule.high), rule) == 0
    assert spare(Stock(rule.high + 7, promised=2), rule) == 5
    assert spare(Stock(5, in_flight=100), Levels(10, 20)) == 5


def test_a_jam_and_a_curse_change_the_lane() -> None:
    one = lane(1)
    late = Seen(tuple(Delivery(700, 90_000) for _ in range(20)), queue=10**9, cleared_per_s=10**8)
    now = live(one, late)
    assert (now.fee_ppm, now.p95_ms, now.room) == (700, 100_000, one.capacity - 10**9)
    assert live(one, Seen(cursed=True)).cursed
    assert edges_of(live(one, Seen()))[0].way == one


def test_lanes_of_one_verifier_fail_together() -> None:
    shared = [lane(1, verifier=b"v" * 32), lane(2, verifier=b"v" * 32), lane(3)]
    cases = scenarios(hazards_of(shared))
    assert len(hazards_of(shared)) == 2
    exposed = {b"v" * 32: 2 * AMOUNT, bytes([3]) * 32: AMOUNT}
    assert max(sum(exposed[name] for name in case.failed) for case in cases) == 3 * AMOUNT
    assert cvar(exposed, cases, 999_990) > cvar(exposed, cases, 950_000)
