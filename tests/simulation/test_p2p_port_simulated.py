"""The simulated network keeps the contract of the port, on virtual time."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from p2p.port import Limits
from p2p.simulated import SimulatedNetwork, World
from tests.support.p2p_contract import SCENARIOS, Cluster, Node, Scenario, seed_of


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_port(scenario: Scenario) -> None:
    async def main() -> None:
        world = World(seed=1)

        def make(index: int, limits: Limits) -> Node:
            return SimulatedNetwork(world, seed_of(index), limits)

        def linked(node: Any, peer: bytes) -> bool:
            other = world.node(peer)
            return (
                other is not None
                and world.hears(node.me, peer)
                and node.admitted(peer)
                and other.admitted(node.me)
            )

        async with trio.open_nursery() as nursery:
            await nursery.start(world.run)
            await scenario(Cluster(make, nursery, linked))
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
