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
from keeper.route.quote import Request, check_quote
from keeper.settle.lanes import Condition, graph_of
from keeper.settle.migration import delivering, legs_of
from keeper.settle.plans import Checked, Plan, check_plan, overdrawn, plain_plan, plan_of, read_plan
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


def made(fees: list[int], rooms: list[int]) -> tuple[Graph, Plan, tuple[Leg, ...]]:
    """Return lanes, the best plan over them, and the legs that carry it out."""
    now = {
        offer: Condition(room, 0, 10**12, DEPOSIT_PPM)
        for offer, room in zip(offers(fees), rooms, strict=False)
    }
    graph = graph_of(NETWORK, now)
    found = delivering(graph, Request(HERE, THERE, WANTED, 60_000))
    assert found is not None
    legs = legs_of(NETWORK, found, owner=OWNER, account=ACCOUNT, deposit_ppm=DEPOSIT_PPM)
    return graph, plan_of(graph, found, OWNER, ACCOUNT, DEPOSIT_PPM), legs


def checked(graph: Graph, plan: Plan, legs: tuple[Leg, ...], deadline_ms: int = 60_000) -> Checked:
    return check_plan(NETWORK, graph, plan, legs, deadline_ms=deadline_ms, allowed_ppb=PPM)


@settings(max_examples=EXAMPLES)
@given(fees, rooms, st.randoms(use_true_random=False))
def test_an_honest_plan_passes(fees: list[int], rooms: list[int], chance: Any) -> None:
    graph, plan, legs = made(fees, rooms)
    again = read_plan(json.loads(json.dumps(plain_plan(plan))), "plan.json")
    assert again == plan
    other = [replace(leg, deposit=0) for leg in legs]
    chance.shuffle(other)
    assert checked(graph, again, tuple(other)) == Checked((), ())
    more = replace(legs[0], amount=legs[0].amount + 1)
    assert checked(graph, again, (*legs, more, legs[0])).beyond == (more, legs[0])


Change = Callable[[Plan, int], Plan]


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
    lambda plan, _: replace(plan, owner=b"\x77" * 20),
    lambda plan, _: replace(plan, account=b"\x77" * 32),
)


@settings(max_examples=EXAMPLES)
@given(fees, rooms, st.integers(1, 10**7))
def test_a_changed_plan_never_passes(fees: list[int], rooms: list[int], by: int) -> None:
    graph, plan, legs = made(fees, rooms)
    assert checked(graph, plan, legs).faults == ()
    for at, change in enumerate(CHANGES):
        assert checked(graph, change(plan, by), legs).faults, f"change {at}"


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
    used = {step.way[0] for step in plan.steps}
    fewer = Graph(lanes=tuple(one for one in graph.lanes if one.bridge not in used))
    found = delivering(fewer, Request(HERE, THERE, WANTED, 60_000))
    assume(found is not None)
    assert found is not None
    dearer = plan_of(fewer, found, OWNER, ACCOUNT, DEPOSIT_PPM)
    legs = legs_of(NETWORK, found, owner=OWNER, account=ACCOUNT, deposit_ppm=DEPOSIT_PPM)
    assert checked(fewer, dearer, legs).faults == ()
    assume((found.sent - plan.sent) * 500 > plan.sent)
    assert checked(graph, dearer, legs).faults
    hasty = replace(plan, request=replace(plan.request, deadline_ms=19_999))
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
        plan = plan_of(graph, found, OWNER, ACCOUNT, 0)
        legs = legs_of(NETWORK, found, owner=OWNER, account=ACCOUNT, deposit_ppm=0)
        assert len(overdrawn(graph, plan)) == faults
        assert list(checked(graph, plan, legs, 0).faults) == overdrawn(graph, plan)


GOOD = plain_plan(made([300, 200, 200], [10**10] * 8)[1])


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"exclude": ["0x" + "11" * 20]},
        {"amount": 0},
        {"amount": 1.5},
        {"amount": True},
        {"amount": 1 << 256},
        {"deadline_ms": -1},
        {"from": GOOD["to"]},
        {"from": "USDC"},
        {"from": 5},
        {"payer": "0x11"},
        {"account": "0x11"},
        {"account": None},
        {"deposit_ppm": PPM + 1},
        {"hops": []},
        {"hops": GOOD["hops"] * 16},
        {"hops": {"0": GOOD["hops"][0]}},
        {"hops": [5]},
        {"hops": [GOOD["hops"][0] | {"done_ms": 1}]},
        {"hops": [GOOD["hops"][0] | {"least_out": -1}]},
        {"hops": [GOOD["hops"][0] | {"asset": "x" * 33}]},
        {"sent": "5"},
        {"certificate": None},
        {"certificate": {"bound": 5}},
        {"certificate": GOOD["certificate"] | {"loads": [0]}},
        {"certificate": GOOD["certificate"] | {"prices": [1]}},
        {"certificate": GOOD["certificate"] | {"prices": {"1:USDC": 5}}},
        {"certificate": GOOD["certificate"] | {"prices": {"1:USDC": "-5"}}},
        {"certificate": GOOD["certificate"] | {"prices": {"1:USDC": "²"}}},
        {"certificate": GOOD["certificate"] | {"prices": {"1:USDC": "9" * 5_000}}},
        {"certificate": GOOD["certificate"] | {"prices": {f"{n}:USDC": "1" for n in range(9_999)}}},
    ],
)
def test_what_is_no_plan_is_refused(change: dict[str, Any]) -> None:
    assert plain_plan(read_plan(GOOD, "plan.json")) == GOOD  # the control
    with pytest.raises(ConfigError, match="cannot read the plan"):
        read_plan(GOOD | change, "plan.json")


def test_a_plan_without_a_field_is_refused() -> None:
    for name in GOOD:
        with pytest.raises(ConfigError):
            read_plan({key: value for key, value in GOOD.items() if key != name}, "plan.json")
    for value in (None, [], "plan", 5):
        with pytest.raises(ConfigError):
            read_plan(value, "plan.json")
