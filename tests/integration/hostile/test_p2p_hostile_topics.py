"""Thousands of topics: only ours exist, and whoever insists is cut off."""

import pytest
import trio
from libp2p.pubsub.pb import rpc_pb2

from keeper.reasons import Reason
from p2p.port import Role
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import MESHSUB, Attacker, gossip, rpc

pytestmark = pytest.mark.libp2p


async def subscribe(attacker: Attacker) -> None:
    stream = await attacker.stream(MESHSUB)
    for batch in range(10):
        options = [
            rpc_pb2.RPC.SubOpts(subscribe=True, topicid=f"topic {batch} {number}")
            for number in range(1000)
        ]
        await stream.write(rpc(rpc_pb2.RPC(subscriptions=options)))
        await trio.sleep(0.02)


def test_thousands_of_subscriptions(arena: Arena) -> None:
    outcome = arena.attack(subscribe, Role.BONDED, until=Reason.OVERSIZE)
    outcome.check_unharmed()
    outcome.check_cut_off(Reason.OVERSIZE)


async def publish(attacker: Attacker) -> None:
    stream = await attacker.stream(MESHSUB)
    for number in range(1, 1000):
        await stream.write(gossip(attacker.seed, f"topic {number}", b"x", number))
        await trio.sleep(0.001)


def test_thousands_of_topics(arena: Arena) -> None:
    outcome = arena.attack(publish, Role.BONDED, until=Reason.MALFORMED)
    outcome.check_unharmed()
    outcome.check_cut_off(Reason.MALFORMED)
