"""Frames that stop in the middle: an end inside a frame is the network's fault and costs nothing,
but a stream of nothing else must not cost us anything either.
"""

import pytest
import trio

from p2p.port import Road, Role
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import MESHSUB, Attacker

pytestmark = pytest.mark.libp2p


async def stop_inside(attacker: Attacker, protocol: str, start: bytes) -> None:
    for _ in range(10):
        stream = await attacker.stream(protocol)
        await stream.write(start)
        await stream.close()
        await trio.sleep(0.02)


@pytest.mark.parametrize(
    ("protocol", "start"),
    [
        (Road.CONSENSUS, b"\0\0\x10\0half of it"),
        (Road.CONSENSUS, b"\0\0"),
        (Road.PEERS, b"\0\0\x10\0half of it"),
        (MESHSUB, b"\x80\x20half of it"),
    ],
    ids=["consensus body", "consensus length", "request", "gossip"],
)
def test_truncated(arena: Arena, protocol: str, start: bytes) -> None:
    outcome = arena.attack(lambda a: stop_inside(a, protocol, start), Role.BONDED)
    outcome.check_unharmed()
