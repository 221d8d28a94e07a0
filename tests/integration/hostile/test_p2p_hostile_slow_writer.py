"""A peer that writes a byte now and then: it holds one stream of its own and nothing of ours."""

import pytest
import trio

from p2p.port import Road, Role
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import MESHSUB, Attacker

pytestmark = pytest.mark.libp2p


async def drip(attacker: Attacker) -> None:
    streams = [await attacker.stream(road) for road in (Road.CONSENSUS, Road.PEERS, MESHSUB)]
    for _ in range(100):
        for stream in streams:
            await stream.write(b"\0")
        await trio.sleep(0.1)


def test_slow_writer(arena: Arena) -> None:
    outcome = arena.attack(drip, Role.BONDED)
    outcome.check_unharmed()


async def hold_requests(attacker: Attacker) -> None:
    """Open request streams and finish none."""
    for _ in range(8):
        stream = await attacker.stream(Road.SYNC)
        await stream.write(b"\0\0")
    await trio.sleep_forever()


def test_requests_that_never_end(arena: Arena) -> None:
    outcome = arena.attack(hold_requests, Role.FOLLOWER)
    outcome.check_unharmed()
