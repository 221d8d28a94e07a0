"""What is seen of makers' lanes: real escrows' logs and tables become fees and times."""

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from keeper.cli import flow_seen
from keeper.errors import RemoteFault
from keeper.network import ChainSpec, NetworkSpec, Token
from keeper.observe.table import EMPTY, Log
from keeper.route.congestion import FEWEST, WINDOW, Delivery
from keeper.route.graph import edges_of, gives
from keeper.settle.lanes import Condition, Offer, lane_of
from keeper.settle.payments import payments
from keeper.settle.seen import MOST_FLOWS, Passage, deliveries, passages
from keeper.snapshot.decisions import CutBlock
from keeper.units import PPM, ChainId, symbol
from keeper.venue.escrow import LOCKED, NOWHERE, PAID, PREPARED, SETTLED, Flow, Leg, Terms
from keeper.venue.records import word
from tests.support.contracts import E8, ETH_USD, NETWORK, USD, World, give_credit
from tests.support.flow_logs import LoggedNet, Stamped
from tests.support.flow_net import FIRST, PURSE, rolled_back, small_world

USDC = symbol("USDC")
HERE, THERE = ChainId(FIRST), ChainId(FIRST + 1)


@pytest.fixture(scope="module")
def deployed() -> list[World]:
    return [small_world(FIRST + at) for at in range(3)]


@pytest.fixture
def net(deployed: list[World]) -> Iterator[LoggedNet]:
    with rolled_back(deployed):
        yield LoggedNet(deployed)


def lane(net: LoggedNet, maker: str = "bob", **more: Any) -> Offer:
    """Return a maker's offer from the first chain to the second."""
    who = net.worlds[0].actor(maker)
    return replace(Offer(who, HERE, THERE, USDC, 1_000, 5_000, 9_000), **more)


def seen(net: LoggedNet, *offers: Offer, spec: NetworkSpec | None = None) -> Any:
    """Return the deliveries of each offer, in their order."""
    rows = passages(spec or net.spec, net.records(), net.logs, offers)
    found = deliveries(rows, net.times)
    return [list(found[offer]) for offer in offers]


def pair(net: LoggedNet, sent: int = 100, paid: int = 90, **more: Any) -> Flow:
    """Return a flow in which alice pays bob on one chain, and bob carol on the other."""
    number = more.pop("number", 0)
    legs = (net.leg(0, "alice", "bob", sent, **more), net.leg(1, "bob", "carol", paid, **more))
    return net.flow(*legs, number=number)


def commit(net: LoggedNet, flow: Flow) -> None:
    for index in range(len(flow.legs)):
        net.enter(flow, index)
        net.mine()
    net.settle(flow)


def test_a_maker_is_charged_for_its_own_time_and_the_committees(net: LoggedNet) -> None:
    flow = pair(net, deposit=3)
    net.enter(flow, 0, "pledge")
    net.mine(2)
    net.enter(flow, 1, "pledge")  # bob, after 2 s
    net.mine(1, 100)
    net.enter(flow, 0)  # alice lets him wait for 100 s
    net.mine(3)
    net.enter(flow, 1)  # bob, after 3 s
    last = net.worlds[1].now
    net.settle_down(4)
    (before,) = {world.now for world in net.worlds}
    for decision in net.outstanding():
        net.bring(decision)
    net.day()  # nobody fetches it
    assert seen(net, lane(net)) == [[]]  # and it has not arrived yet
    net.settle(flow)
    took = 2 + 3 + (before - last) + 1
    assert seen(net, lane(net)) == [[Delivery(90_001, took * 1_000)]]


def test_what_was_not_paid_by_a_commit_is_no_delivery(net: LoggedNet) -> None:
    flow = pair(net)
    net.enter(flow, 1)  # alice never locks
    net.day()
    net.settle(flow)
    assert net.worlds[1].call("Escrow", "outcome", flow.id).value == 2
    assert seen(net, lane(net)) == [[]]
    commit(net, pair(net, number=2))  # the control: the same legs, paid
    assert len(seen(net, lane(net))[0]) == 1
    # bob's own leg escapes on its chain, just before the commit would have come
    escaped = pair(net, number=1)
    for index in range(2):
        net.enter(escaped, index)
    net.settle_down(4)
    here, there = sorted(net.outstanding(), key=lambda decision: decision.chain)
    net.worlds[1].mine(1_000_000)
    net.send(1, "Escrow", "escape", escaped.id, escaped.legs[1].struct, sender="bob")
    for decision in (here, there):
        net.bring(decision)
    net.settle(escaped)
    assert net.worlds[1].call("Escrow", "outcome", escaped.id).value == 1
    assert len(seen(net, lane(net))[0]) == 1


def test_all_that_a_maker_gets_and_pays_in_a_flow_is_one_delivery(net: LoggedNet) -> None:
    flow = net.flow(
        net.leg(0, "alice", "bob", 100),
        net.leg(0, "carol", "bob", 50),
        net.leg(1, "bob", "carol", 90),
        net.leg(1, "bob", "alice", 45),
        net.leg(1, "bob", "bob", 70),  # to himself: nothing
    )
    commit(net, flow)
    offers = (lane(net), lane(net, fee_fixed=5), lane(net, "carol"), lane(net, asset=ETH_USD))
    fees = [[one.fee_ppm for one in rows] for rows in seen(net, *offers)]
    assert fees == [[93_334], [60_001], [], []]  # 15 of 150, 10 of them no fixed fee
    back = lane(net, origin=THERE, destination=HERE)
    assert seen(net, back) == [[]]
    # a maker that pays more than it gets asked for nothing, and is not paid for it
    commit(net, pair(net, 50, 60, number=1))
    assert [one.fee_ppm for one in seen(net, lane(net))[0]] == [93_334, 0]


@given(st.integers(1, 10**15), st.integers(0, PPM - 1), st.integers(0, 10))
def test_a_fee_seen_is_never_more_than_the_fee_taken(sent: int, fee_ppm: int, fixed: int) -> None:
    """And it takes as much: a lane with the fee that was seen keeps what this one kept."""
    chains = [
        ChainSpec(chain, (("Escrow", b"\x01" * 20),), (Token(USDC, b"\x02" * 20, 6),))
        for chain in (HERE, THERE)
    ]
    spec = NetworkSpec(NETWORK, 0, 500, HERE, tuple(chains))
    maker = b"\x03" * 20
    offer = Offer(maker, HERE, THERE, USDC, fee_ppm, 1, 1, fee_fixed=fixed)
    one = lane_of(spec, offer, Condition(10**20, 0, 10**20))
    paid = gives(edges_of(one)[0], sent)
    assume(paid)
    ends = ((HERE, b"\x04" * 20, maker, sent), (THERE, maker, b"\x04" * 20, paid))
    legs = [
        Leg(chain, b"\x01" * 20, payer, b"\x02" * 20, amount, word(receiver))
        for chain, payer, receiver, amount in ends
    ]
    flow = Flow.of(NETWORK, Terms(1, 0, 0, 9), legs)
    tables, logs = {}, {}
    for leg in flow.legs:
        rows = as_logged(flow, leg)
        tables[leg.chain] = EMPTY.apply(rows)
        logs[leg.chain] = [Stamped(row.address, row.topics, row.data, 7) for row in rows]
    ((found,),) = passages(spec, tables, logs, [offer]).values()
    assert found.fee_ppm <= fee_ppm
    assert gives(edges_of(replace(one, fee_ppm=found.fee_ppm))[0], sent) == paid


def test_a_flow_that_reduces_positions_says_nothing_of_a_lane(net: LoggedNet) -> None:
    """It may wait for governance's room: somebody could make a maker look slow by it."""
    give_credit(net.worlds[0], "alice", 100_000 * USD)
    net.send(0, "Perps", "increase", 0, ETH_USD, 10 * E8, 0, sender="alice")
    legs = pair(net).legs
    commit(net, net.flow(*legs, net.leg(0, "alice", "alice", E8, market=ETH_USD)))
    assert net.held(0, "bob") == PURSE + 100
    assert seen(net, lane(net)) == [[]]
    commit(net, net.flow(*legs))
    assert len(seen(net, lane(net))[0]) == 1


def test_a_flow_counts_once_all_its_chains_know_the_outcome(net: LoggedNet) -> None:
    legs = (net.leg(0, "alice", "bob", 100), net.leg(1, "bob", "carol", 90))
    flow = net.flow(*legs, net.leg(2, "carol", "dave", 80))
    for index in range(3):
        net.enter(flow, index)
    net.settle_down(4)
    *both, third = sorted(net.outstanding(), key=lambda decision: decision.chain)
    for decision in both:
        net.bring(decision)
    for call in payments(net.spec, net.records(), flow.id):
        net.do(call)
    assert net.held(0, "bob") == PURSE + 100
    assert seen(net, lane(net)) == [[]]
    net.bring(third)
    assert [one.fee_ppm for one in seen(net, lane(net))[0]] == [90_001]


def as_logged(flow: Flow, leg: Leg) -> list[Log]:
    """Return what an escrow logs of a leg that is locked, committed and paid."""
    terms, place = flow.terms, leg.index.to_bytes(32, "big")

    def data(*values: int | bytes) -> bytes:
        words = [one if isinstance(one, bytes) else one.to_bytes(32, "big") for one in values]
        return b"".join(one.rjust(32, b"\0") for one in words)

    what = (leg.payer, leg.token, leg.amount, leg.deposit, leg.receiver, leg.vault, leg.market)
    when = (terms.epoch, terms.number, terms.arm_by, terms.lock_by, LOCKED)
    paid = data(leg.receiver, leg.token, leg.amount)
    return [
        Log(leg.escrow, (PREPARED, flow.id, place), data(*what, *when)),
        Log(leg.escrow, (SETTLED, flow.id), data(1, 0)),
        Log(leg.escrow, (PAID, flow.id, place), paid),
    ]


@pytest.mark.parametrize(("vault", "count"), [(NOWHERE, 1), (b"\x0b" * 20, 0)])
def test_what_a_vault_credits_is_not_paid_to_a_maker(
    net: LoggedNet, vault: bytes, count: int
) -> None:
    came = replace(net.leg(0, "alice", "bob", 100), vault=vault)
    flow = net.flow(came, net.leg(1, "bob", "carol", 90))
    tables = net.records()
    for leg in flow.legs:
        logs = as_logged(flow, leg)
        tables[leg.chain] = tables[leg.chain].apply(logs)
        net.logs[leg.chain] = [Stamped(one.address, one.topics, one.data, 7) for one in logs]
    assert len(passages(net.spec, tables, net.logs, [lane(net)])[lane(net)]) == count


def test_tokens_that_nobody_named_and_other_escrows_move_no_lane(net: LoggedNet) -> None:
    commit(net, pair(net))
    nameless = replace(net.spec, chains=tuple(replace(one, tokens=()) for one in net.spec.chains))
    assert seen(net, lane(net), spec=nameless) == [[]]
    assert len(seen(net, lane(net))[0]) == 1
    for rows in net.logs.values():  # the same logs, from somewhere else
        rows[:] = [replace(one, address=bytes(20)) for one in rows]
    assert seen(net, lane(net)) == [[]]


def test_flows_among_strangers_do_not_touch_a_lane(net: LoggedNet) -> None:
    commit(net, pair(net))
    before = seen(net, lane(net))
    for number in range(1, 4):  # dave deals with himself at any price, and pays bob for nothing
        flow = net.flow(
            net.leg(0, "dave", "alice", 100),
            net.leg(1, "dave", "alice", 1),
            net.leg(0, "dave", "bob", 100),
            number=number,
        )
        commit(net, flow)
    assert seen(net, lane(net)) == before
    assert seen(net, lane(net, "dave")) == [[]]


def test_an_endpoint_can_only_lie_about_when(net: LoggedNet) -> None:
    commit(net, pair(net))
    (fair,) = seen(net, lane(net))
    honest = {chain: list(rows) for chain, rows in net.logs.items()}
    dearer = pair(net, 1_000, 1)
    forged = [
        replace(one, topics=(one.topics[0], dearer.id, *one.topics[2:]), data=one.data)
        for one in honest[HERE]
    ]
    net.logs[HERE] = [*honest[HERE], *forged]  # a flow that no table knows
    assert seen(net, lane(net)) == [fair]
    cut = [replace(one, data=one.data[:-32]) for one in honest[HERE]]
    net.logs[HERE] = [*cut, Stamped(honest[HERE][0].address, (), b"", 1)]
    assert seen(net, lane(net)) == [[]]  # a step is missing
    net.logs[HERE] = honest[HERE]
    held = passages(net.spec, net.records(), net.logs, [lane(net)])
    late = {block: time + 50 * (block[0] == THERE) for block, time in net.times.items()}
    (slow,) = deliveries(held, late)[lane(net)]
    assert slow.fee_ppm == fair[0].fee_ppm
    assert slow.latency_ms > fair[0].latency_ms
    del late[next(iter(held[lane(net)][0].blocks))]
    assert deliveries(held, late)[lane(net)] == ()  # not without all its times


def test_only_the_newest_count_and_every_lane_has_enough_of_them(
    net: LoggedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(FEWEST + 1):
        commit(net, pair(net, 10, 10 - number % 2, number=number))
    whole = seen(net, lane(net))[0]
    assert [one.fee_ppm for one in whole] == [0, 1] * 4 + [0]  # a unit of ten is no tenth
    monkeypatch.setattr("keeper.settle.seen.MOST_FLOWS", 4)
    assert seen(net, lane(net)) == [whole[1:]]
    assert MOST_FLOWS >= WINDOW
    # enough of them, and the lane is what it was seen to be, and never cheaper than asked
    now = Condition(10**6, 0, 10**9, deliveries=tuple(whole))
    live = lane_of(net.spec, lane(net), now)
    assert (live.fee_ppm, live.p50_ms) == (1_000, sorted(one.latency_ms for one in whole)[4])
    slow = tuple(replace(one, fee_ppm=PPM // 10) for one in whole)
    assert lane_of(net.spec, lane(net), replace(now, deliveries=slow)).fee_ppm == PPM // 10


def test_chains_whose_clocks_differ_make_no_negative_time() -> None:
    offer = Offer(bytes([1]) * 20, HERE, THERE, USDC, 0, 1, 1)
    one = Passage(5, ((THERE, 1),), ((HERE, 1),), (THERE, 2))
    times = {(HERE, 1): 1_000, (THERE, 1): 400, (THERE, 2): 410}
    assert deliveries({offer: (one,)}, times) == {offer: (Delivery(5, 1_000),)}


def hexed(raw: bytes) -> str:
    return "0x" + raw.hex()


class Endpoint:
    """Serves a net's logs and block times as JSON-RPC does."""

    net: LoggedNet
    asked: list[Any]
    lie: dict[str, Any]

    def __init__(self, url: str) -> None:
        self.name, self.chain = url, ChainId(int(url))

    async def call(self, method: str, params: list[Any]) -> Any:
        assert method == "eth_getLogs"
        (query,) = params
        self.asked.append(query)
        first, last = (int(query[key], 16) for key in ("fromBlock", "toBlock"))
        rows = [
            {
                "address": hexed(log.address),
                "topics": [hexed(topic) for topic in log.topics],
                "data": hexed(log.data),
                "blockNumber": hex(log.block),
            }
            for log in self.net.logs.get(self.chain, ())
            if first <= log.block <= last
            and hexed(log.address) == query["address"]
            and hexed(log.topics[0]) in query["topics"][0]
        ]
        return json.loads(json.dumps([row | self.lie for row in rows]))

    async def batch(self, requests: list[Any]) -> list[Any]:
        assert {method for method, _ in requests} == {"eth_getBlockByNumber"}
        times = [self.net.times.get((self.chain, int(row[0], 16))) for _, row in requests]
        return [None if time is None else {"timestamp": hex(time)} for time in times]

    async def aclose(self) -> None: ...


def test_logs_are_read_from_endpoints_up_to_the_cut(
    net: LoggedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        commit(net, pair(net, number=number))
    monkeypatch.setattr(Endpoint, "net", net, raising=False)
    monkeypatch.setattr(Endpoint, "asked", [], raising=False)
    monkeypatch.setattr(Endpoint, "lie", {}, raising=False)
    for name, value in (("HttpRpc", Endpoint), ("BATCH", 2), ("SPAN", 40)):
        monkeypatch.setattr(flow_seen, name, value)
    ends = [world.block for world in net.worlds]
    cut = [
        CutBlock(spec.id, end, bytes(32), bytes(32), 0)
        for spec, end in zip(net.spec.chains, ends, strict=True)
    ]
    view = SimpleNamespace(header=SimpleNamespace(cut=tuple(cut)))
    state: Any = SimpleNamespace(spec=net.spec, tables=net.records(), view=view)
    settings: Any = SimpleNamespace(
        endpoints={spec.id: (str(spec.id),) for spec in net.spec.chains}
    )
    offers = (lane(net), lane(net, "carol"))
    found = flow_seen.seen_lately(settings, state, offers)
    assert [list(found[offer]) for offer in offers] == seen(net, *offers)
    assert len(found[offers[0]]) == 3
    assert {int(one["toBlock"], 16) for one in Endpoint.asked} >= set(ends)
    monkeypatch.setattr(flow_seen, "LOOKBACK", 0)  # what is older does not count
    assert flow_seen.seen_lately(settings, state, offers)[offers[0]] == ()
    monkeypatch.setattr(flow_seen, "LOOKBACK", 50_000)
    for lie in ({"blockNumber": "0xffff"}, {"blockNumber": None}, {"data": "0xz"}, {"topics": 5}):
        monkeypatch.setattr(Endpoint, "lie", lie)
        with pytest.RaisesGroup(RemoteFault, allow_unwrapped=True):
            flow_seen.seen_lately(settings, state, offers)


def test_the_tables_of_the_net_are_those_of_its_logs(net: LoggedNet) -> None:
    """The harness: what an endpoint would serve is what keepers have read."""
    commit(net, pair(net))
    for chain, rows in net.logs.items():
        table = EMPTY.apply(Log(one.address, one.topics, one.data) for one in rows)
        assert table.root == net.records()[chain].root
