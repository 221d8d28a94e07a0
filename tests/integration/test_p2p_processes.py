"""Real processes on loopback: the mesh comes up, survives a kill, a hang and a partition.

Every node knows one bootstrap address only, so each of these also shows peer exchange.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.p2p_fleet import Fleet

pytestmark = pytest.mark.libp2p
START_S = 60.0
"""Importing on a busy machine; bounds count from when a node listens, times its crowding then."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture(params=[4, 7])
def fleet(request: pytest.FixtureRequest, home: Path) -> Iterator[Fleet]:
    fleet = Fleet(request.param, home)
    yield fleet
    fleet.stop()


@pytest.fixture
def four(home: Path) -> Iterator[Fleet]:
    fleet = Fleet(4, home, followers=1)
    yield fleet
    fleet.stop()


def bring_up(fleet: Fleet) -> None:
    everybody = range(fleet.size)
    fleet.start(*everybody)
    fleet.until(lambda: len(fleet.listening_at) == fleet.size, START_S)
    fleet.until(lambda: fleet.meshed(*everybody), 30)
    took = max(fleet.states[i]["at"] for i in everybody) - max(fleet.listening_at.values())
    assert took <= 3.0 * fleet.crowding.factor, f"full mesh after {took:.1f} s"


def test_mesh_then_kill_and_back(fleet: Fleet) -> None:
    bring_up(fleet)
    everybody = range(fleet.size)
    fleet.until(lambda: fleet.reached(3, *everybody), 60)
    fleet.order("signal", 2, signal.SIGKILL)
    others = [i for i in everybody if i != 2]
    before = fleet.top()
    fleet.until(lambda: fleet.reached(before + 2, *others), 60)
    fleet.start(2)
    fleet.until(lambda: 2 in fleet.listening_at, START_S)
    fleet.until(lambda: fleet.meshed(*everybody), 30)
    took = max(fleet.states[i]["at"] for i in everybody) - fleet.listening_at[2]
    assert took <= 2.0 * fleet.crowding.factor, f"linked again after {took:.1f} s"
    fleet.until(lambda: fleet.reached(before + 4, *everybody), 60)
    fleet.check_one_chain()


def test_a_hung_peer_is_noticed_and_taken_back(four: Fleet) -> None:
    bring_up(four)
    four.until(lambda: four.reached(2, 0, 1, 2, 3), 60)
    four.order("signal", 3, signal.SIGSTOP)
    stopped = time.monotonic()
    four.until(lambda: all(3 not in four.states[i]["linked"] for i in (0, 1, 2)), 10)
    assert time.monotonic() - stopped <= 3.0 * four.crowding.factor
    four.order("signal", 3, signal.SIGCONT)
    four.until(lambda: four.meshed(0, 1, 2, 3), 30)
    high = four.top()
    four.until(lambda: four.reached(high + 2, 0, 1, 2, 3), 60)
    four.check_one_chain()


def test_partition_of_two_against_two_heals_into_one_chain(four: Fleet) -> None:
    bring_up(four)
    four.start(4)  # follows, from one bootstrap address
    four.until(lambda: four.reached(2, 0, 1, 2, 3, 4), START_S)
    for index in range(4):
        four.order("tell", index, [0, 1] if index < 2 else [2, 3])
    four.until(lambda: not any(set(four.states[i]["linked"]) & {2, 3} for i in (0, 1)), 10)
    cut_at, since = four.top(), time.monotonic()
    four.until(lambda: time.monotonic() - since > 1.5, 10)
    assert four.top() <= cut_at + 1, "two of four cannot decide"
    for index in range(4):
        four.order("tell", index, [0, 1, 2, 3])
    healed = time.monotonic()
    four.until(lambda: four.meshed(0, 1, 2, 3), 30)
    took = time.monotonic() - healed
    assert took <= 5.0 * four.crowding.factor, f"addresses are exchanged at once, not in {took} s"
    four.until(lambda: four.reached(cut_at + 3, 0, 1, 2, 3, 4), 30)
    four.check_one_chain()
