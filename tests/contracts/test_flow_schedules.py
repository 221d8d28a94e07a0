"""Random schedules of payers, keepers, carriers and outages over several flows: never a split."""

import random
from typing import Any

import pytest

from tests.contracts.test_flow_atomic import FOUR, TWO, Flow
from tests.support.contracts import Reverted, World
from tests.support.flow_net import ACTORS, FIRST, PURSE, Net, rolled_back, small_world


@pytest.fixture(scope="module")
def deployed() -> list[World]:
    return [small_world(FIRST + at) for at in range(3)]


def move(net: Net, flows: list[Flow], unlocked: list[tuple[Flow, int]], draw: random.Random) -> str:
    """Make one random move; a contract may refuse it. Return its name."""
    moves = {"prepare": 4, "view": 5, "bring": 3, "pay": 1, "wait": 1, "forked": 1, "pledge": 2}
    (name,) = draw.choices([*moves], [*moves.values()])
    if name in ("prepare", "forked") and unlocked:
        flow, index = draw.choice(unlocked)
        if name == "prepare":
            unlocked.remove((flow, index))
            flow.prepare(index)
        else:
            with net.fork(flow.legs[index][0]):
                flow.prepare(index)
                net.mine()
                net.view()
    elif name == "pledge" and unlocked:
        flow, index = draw.choice(unlocked)
        flow.pledge(index)
    elif name == "view":
        net.mine()
        net.view()
    elif name == "bring" and net.outstanding():
        net.bring(draw.choice(net.outstanding()))
    elif name == "pay":
        flow = draw.choice(flows)
        flow.pay(draw.randrange(len(flow.legs)))
    elif name == "wait":
        net.mine(draw.choice((5, 200, 700)))
    return name


def test_no_schedule_splits_a_flow(deployed: list[World]) -> None:
    seen: set[int] = set()
    for seed in range(8):
        with rolled_back(deployed):
            seen |= play(Net(deployed), seed)
    assert seen == {1, 2}, "the schedules must lead to both outcomes"


def play(net: Net, seed: int) -> set[int]:
    """Play one schedule and check what it led to; return the outcomes."""
    draw = random.Random(seed)
    flows = [Flow(net, TWO), Flow(net, FOUR, deposit=7), Flow(net, TWO, 1, deposit=5)]
    unlocked = [(flow, index) for flow in flows for index in range(len(flow.legs))]
    for _ in range(40):
        try:
            move(net, flows, unlocked, draw)
        except Reverted as error:
            if not str(error).startswith("escrow: "):
                raise
    assert net.conserved()
    net.day()
    for flow in flows:
        flow.finish()
    outcomes: dict[object, set[Any]] = {}
    for decision in net.decided:
        outcomes.setdefault(decision.fields[0], set()).add(decision.fields[1:])
    assert all(len(found) == 1 for found in outcomes.values())
    assert all(net.in_contract(at, "Escrow") == 0 for at in range(3))
    expected = {(at, who): PURSE for at in range(3) for who in ACTORS}
    for flow in flows:
        for outcome, late in outcomes.get(flow.id, ()):
            for place, held in flow.due(outcome, late).items():
                expected[place] += held - PURSE
    assert {place: net.held(*place) for place in expected} == expected, seed
    return {fields[0] for found in outcomes.values() for fields in found}
