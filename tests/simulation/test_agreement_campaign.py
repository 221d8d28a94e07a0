"""f liars of one kind, a storm of loss, partition, crash and lag, then calm: 1,800 seeded runs.

In each run: no two honest chains differ, no honest member can be shown to have equivocated, and
after the storm every honest keeper finalises new blocks and all end with the same chain.
"""

import random

import pytest

from tests.simulation.byzantine.equivocator import Equivocator
from tests.simulation.byzantine.forger import Forger
from tests.simulation.byzantine.late import Late
from tests.simulation.byzantine.replayer import Replayer
from tests.simulation.byzantine.silent import Silent
from tests.simulation.byzantine.twins import Twins
from tests.support.agreement_cluster import Cluster, Keeper, Weather

SEEDS = 100
SINS: tuple[type[Keeper], ...] = (Equivocator, Twins, Silent, Late, Forger, Replayer)


def storm(seed: int) -> Weather:
    """Return 25 % loss, and by turns crashes, a partition, or keepers whose chains lag."""
    return Weather(
        loss=0.25,
        crash=0.02 if seed % 2 else 0.0,
        partition=seed % 3 == 0,
        lag=0.2 if seed % 4 == 1 else 0.0,
    )


def run(sin: type[Keeper], size: int, seed: int) -> tuple[Cluster, bool]:
    liars = random.Random(seed).sample(range(size), (size - 1) // 3)
    cluster = Cluster(size, seed, liars=dict.fromkeys(liars, sin), weather=storm(seed))
    return cluster, cluster.settle(blocks=4, until=30.0)


@pytest.mark.parametrize("size", [4, 7, 10])
@pytest.mark.parametrize("sin", SINS, ids=lambda sin: sin.__name__.lower())
def test_honest_keepers_agree_are_never_framed_and_go_on(sin: type[Keeper], size: int) -> None:
    unsafe, framed, stuck, proven = [], [], [], 0
    for seed in range(SEEDS):
        cluster, agreed = run(sin, size, seed)
        named = {one.culprit for keeper in cluster.honest for one in keeper.evidence}
        named |= cluster.auditor.guilty
        proven += bool(named)
        if not cluster.is_safe():
            unsafe.append(seed)
        if not named <= set(cluster.liars):
            framed.append(seed)
        if not agreed:
            stuck.append(seed)
    assert (unsafe, framed, stuck) == ([], [], []), "seeds of unsafe, framed and stuck runs"
    if sin in (Equivocator, Twins):
        assert proven > SEEDS // 2, "who says two things is nearly always found out"


def test_same_seed_same_trace() -> None:
    def trace(seed: int) -> list[tuple[float, int, int | None, str]]:
        cluster = Cluster(7, seed, liars={2: Equivocator, 5: Replayer}, weather=storm(seed))
        cluster.trace = []
        cluster.run(4.0)
        return cluster.trace

    assert len(trace(3)) > 300
    assert trace(3) == trace(3)
    assert trace(3) != trace(5)
