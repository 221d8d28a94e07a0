"""The real host keeps the contract of the port, over TCP on loopback."""

from typing import Any

import pytest
import trio

from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_text
from p2p.port import Limits
from tests.support.p2p_contract import SCENARIOS, Cluster, Node, Scenario, id_of, seed_of
from tests.support.p2p_ports import free_ports

pytestmark = pytest.mark.libp2p


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_port(scenario: Scenario) -> None:
    ports = free_ports(8)

    def make(index: int, limits: Limits) -> Node:
        known = tuple(
            f"/ip4/127.0.0.1/tcp/{ports[other]}/p2p/{peer_id_text(id_of(other))}"
            for other in range(3 if index > 3 else 4)
            if other != index
        )
        return Libp2pNetwork(seed_of(index), f"/ip4/127.0.0.1/tcp/{ports[index]}", known, limits)

    def linked(node: Any, peer: bytes) -> bool:
        return bool(node.is_linked(peer))

    async with trio.open_nursery() as nursery:
        await scenario(Cluster(make, nursery, linked))
        nursery.cancel_scope.cancel()
