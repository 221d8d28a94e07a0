"""Plans as files: an honest one passes where the same lanes are seen, a changed one never does."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keeper.errors import ConfigError
from keeper.route.graph import Graph
from keeper.route.plans import Plan, plan_of
from keeper.route.quote import Request, check_quote
from keeper.settle.lanes import Condition, graph_of
from keeper.settle.migration import delivering, legs_of
from keeper.settle.plans import (
    Checked,
    Planned,
    check_plan,
    overdrawn,
    plain_planned,
    read_planned,
)
from keeper.units import PPM
from keeper.venue.escrow import Leg
from tests.properties.test_flow_migration import ACCOUNT, HERE, NETWORK, OWNER, THERE, offers

DEPOSIT_PPM = 10_000
EXAMPLES = 40
"""Each solves some routes, which is what takes long."""
WANTED = 6 * 10**8
"""More than one lane may take, and less than all of them do."""
fees = st.lists(st.integers(1, 20_000), min_size=3, max_size=8)
rooms = st.lists(st.integers(5 * 10**8, 10**10), min_size=8, max_size=8)


def made(fees: list[int], rooms: list[int]) -> tuple[Graph, Planned, tuple[Leg, ...]]:
    """Return lanes, the best plan over them, and the legs that carry it out."""
    now = {
        offer: Condition(room, 0, 10**12, DEPOSIT_PPM)
        for offer, room in zip(offers(fees), rooms, strict=False)
    }
    graph = graph_of(NETWORK, now)
    found = delivering(graph, Request(HERE, THERE, WANTED, 60_000))
    assert found is not None
    legs = legs_of(NETWORK, found, owner=OWNER, account=ACCOUNT, deposit_ppm=DEPOSIT_PPM)
    return graph, Planned(plan_of(graph, found), OWNER, ACCOUNT, DEPOSIT_PPM), legs


def checked(
    graph: Graph, plan: Planned, legs: tuple[Leg, ...], deadline_ms: int = 60_000
) -> Checked:
    return check_plan(NETWORK, graph, plan, legs, deadline_ms=deadline_ms, allowed_ppb=PPM)


@settings(max_examples=EXAMPLES)
@given(fees, rooms, st.randoms(use_true_random=False))
def test_an_honest_plan_passes(fees: list[int], rooms: list[int], chance: Any) -> None:
    graph, plan, legs = made(fees, rooms)
    again = read_planned(json.loads(json.dumps(plain_planned(plan))), "plan.json")
    assert again == plan
    other = [replace(leg, deposit=0) for leg in legs]
    chance.shuffle(other)
    assert checked(graph, again, tuple(other)) == Checked((), ())
    more = replace(legs[0], amount=legs[0].amount + 1)
    assert checked(graph, again, (*legs, more, legs[0])).beyond == (more, legs[0])


Change = Callable[[Plan, int], Plan]


def within(planned: Planned, change: Change, by: int = 0) -> Planned:
    return replace(planned, plan=change(planned.plan, by))


def hop(name: str, sign: int) -> Change:
    def change(plan: Plan, by: int) -> Plan:
        first, *rest = plan.steps
        first = replace(first, **{name: getattr(first, name) + sign * by})
        return replace(plan, steps=(first, *rest))

    return change


CHANGES: tuple[Change, ...] = (
    *(hop(name, sign) for name in ("amount", "least_out") for sign in (1, -1)),
    lambda plan, by: replace(plan, sent=plan.sent + by),
    lambda plan, by: replace(plan, sent=plan.sent - by),
    lambda plan, by: replace(plan, delivered=plan.delivered + by),
    lambda plan, by: replace(plan, delivered=plan.delivered - by),
    lambda plan, by: replace(plan, bound=plan.bound - by - plan.bound // 1_000),
    lambda plan, by: replace(plan, bound=plan.bound + by + plan.bound // 500),
    lambda plan, _: replace(plan, steps=plan.steps[1:]),
    lambda plan, _: replace(plan, steps=(*plan.steps, plan.steps[0])),
    lambda plan, _: replace(plan, prices=tuple((at, price // 2) for at, price in plan.prices)),
    lambda plan, _: replace(plan, prices=plan.prices[1:]),
)


@settings(max_examples=EXAMPLES)
@given(fees, rooms, st.integers(1, 10**7))
def test_a_changed_plan_never_passes(fees: list[int], rooms: list[int], by: int) -> None:
    graph, plan, legs = made(fees, rooms)
    assert checked(graph, plan, legs).faults == ()
    for at, change in enumerate(CHANGES):
        assert checked(graph, within(plan, change, by), legs).faults, f"change {at}"
    for other in (replace(plan, owner=b"\x77" * 20), replace(plan, account=b"\x77" * 32)):
        assert checked(graph, other, legs).faults


@settings(max_examples=EXAMPLES)
@given(fees, rooms, st.integers(0, 7))
def test_a_flow_without_one_payment_never_passes(
    fees: list[int], rooms: list[int], which: int
) -> None:
    graph, plan, legs = made(fees, rooms)
    which %= len(legs)
    rest = legs[:which] + legs[which + 1 :]
    (fault,) = checked(graph, plan, rest).faults
    assert str(legs[which].amount) in fault
    for change in ({"amount": legs[which].amount + 1}, {"payer": b"\x78" * 20}, {"chain": 9}):
        assert checked(graph, plan, (*rest, replace(legs[which], **change))).faults


@settings(max_examples=EXAMPLES)
@given(fees, rooms)
def test_a_plan_that_shuts_out_a_better_lane_never_passes(
    fees: list[int], rooms: list[int]
) -> None:
    """Whatever it leaves out, a maker that is dropped, or a deadline: the bound shows it."""
    graph, plan, _ = made(fees, rooms)
    used = {step.ends[0] for step in plan.plan.steps}
    fewer = Graph(lanes=tuple(one for one in graph.lanes if one.bridge not in used))
    found = delivering(fewer, Request(HERE, THERE, WANTED, 60_000))
    assume(found is not None)
    assert found is not None
    dearer = Planned(plan_of(fewer, found), OWNER, ACCOUNT, DEPOSIT_PPM)
    legs = legs_of(NETWORK, found, owner=OWNER, account=ACCOUNT, deposit_ppm=DEPOSIT_PPM)
    assert checked(fewer, dearer, legs).faults == ()
    assume((found.sent - plan.plan.sent) * 500 > plan.plan.sent)
    assert checked(graph, dearer, legs).faults
    hasty = within(
        plan, lambda plan, _: replace(plan, request=replace(plan.request, deadline_ms=19_999))
    )
    assert any("shuts out" in fault for fault in checked(graph, hasty, legs).faults)


def test_a_maker_with_two_lanes_to_one_place_cannot_pay_twice() -> None:
    direct, first, second = offers([300, 200, 200])
    second = replace(second, maker=direct.maker)  # over the second chain it is the same maker
    room = {direct: 5 * 10**8, first: 10**10, second: 5 * 10**8}
    graph = graph_of(NETWORK, {one: Condition(has, 0, 10**12) for one, has in room.items()})
    for wanted, faults in ((4 * 10**8, 0), (6 * 10**8, 1)):
        found = delivering(graph, Request(HERE, THERE, wanted))
        assert found is not None
        assert check_quote(graph, found.request, found, PPM) is None  # each lane has the room
        plan = Planned(plan_of(graph, found), OWNER, ACCOUNT, 0)
        legs = legs_of(NETWORK, found, owner=OWNER, account=ACCOUNT, deposit_ppm=0)
        assert len(overdrawn(graph, plan.plan)) == faults
        assert list(checked(graph, plan, legs, 0).faults) == overdrawn(graph, plan.plan)


GOOD = plain_planned(made([300, 200, 200], [10**10] * 8)[1])
ROUTE = GOOD["plan"]
HOP, SEALED = ROUTE["hops"][0], ROUTE["certificate"]


def route(**fields: Any) -> dict[str, Any]:
    return {"plan": ROUTE | fields}


def request(**fields: Any) -> dict[str, Any]:
    return route(request=ROUTE["request"] | fields)


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"plan": None},
        {"payer": "0x11"},
        {"account": "0x11"},
        {"account": None},
        {"deposit_ppm": PPM + 1},
        request(extra=1),
        request(exclude=["0x" + "11" * 20]),
        request(limits={"0x" + "11" * 32: 0}),
        request(limits={"0x" + "11" * 32: 5}),
        request(amount=0),
        request(amount=1.5),
        request(amount=True),
        request(amount=1 << 256),
        request(deadline_ms=-1),
        request(**{"from": ROUTE["request"]["to"]}),
        request(**{"from": "USDC"}),
        request(**{"from": 5}),
        route(hops=[]),
        route(hops=ROUTE["hops"] * 16),
        route(hops={"0": HOP}),
        route(hops=[5]),
        route(hops=[HOP | {"done_ms": 1}]),
        route(hops=[HOP | {"least_out": -1}]),
        route(hops=[HOP | {"to": "1:" + "x" * 33}]),
        route(sent="5"),
        route(delivered=0),
        route(certificate=None),
        route(certificate={"bound": 5}),
        route(certificate=SEALED | {"loads": [0]}),
        route(certificate=SEALED | {"loads": {"0x" + "11" * 32: "0"}}),
        route(certificate=SEALED | {"prices": [1]}),
        route(certificate=SEALED | {"prices": {"1:USDC": 5}}),
        route(certificate=SEALED | {"prices": {"1:USDC": "-5"}}),
        route(certificate=SEALED | {"prices": {"1:USDC": "²"}}),
        route(certificate=SEALED | {"prices": {"1:USDC": "9" * 5_000}}),
        route(certificate=SEALED | {"prices": {f"{n}:USDC": "1" for n in range(9_999)}}),
    ],
)
def test_what_is_no_plan_is_refused(change: dict[str, Any]) -> None:
    assert plain_planned(read_planned(GOOD, "plan.json")) == GOOD  # the control
    with pytest.raises(ConfigError, match="cannot read the plan"):
        read_planned(GOOD | change, "plan.json")


def test_a_plan_without_a_field_is_refused() -> None:
    for name in GOOD:
        with pytest.raises(ConfigError):
            read_planned({key: value for key, value in GOOD.items() if key != name}, "plan.json")
    for part in (ROUTE, ROUTE["request"], HOP, SEALED):
        for name in tuple(part):
            kept = part.pop(name)
            with pytest.raises(ConfigError):
                read_planned(GOOD, "plan.json")
            part[name] = kept
    for value in (None, [], "plan", 5):
        with pytest.raises(ConfigError):
            read_planned(value, "plan.json")
