"""Garbage on every road: the stream dies, the third one takes the connection with it."""

import random

import pytest
import trio

from keeper.reasons import Reason
from p2p.port import Road, Role
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import MESHSUB, Attacker, message, prefixed

pytestmark = pytest.mark.libp2p
NOISE = random.Random(5).randbytes(200)


async def keep_sending(attacker: Attacker, protocol: str, junk: bytes) -> None:
    stream = await attacker.stream(protocol)
    await stream.write(junk)
    await trio.sleep(0.05)


@pytest.mark.parametrize(
    ("protocol", "junk"),
    [
        (MESHSUB, prefixed(NOISE)),
        (Road.CONSENSUS, b"\0\0\0\x05\x63junk"),
        (Road.CONSENSUS, message(b"\x01" + NOISE)),
        (Road.CONSENSUS, message(NOISE)),
        (Road.PEERS, len(NOISE).to_bytes(4, "big") + NOISE),
    ],
    ids=["gossip", "frame kind", "not msgpack", "unknown channel", "addresses"],
)
def test_garbage(arena: Arena, protocol: str, junk: bytes) -> None:
    outcome = arena.attack(
        lambda a: keep_sending(a, protocol, junk), Role.COMMITTEE, until=Reason.MALFORMED
    )
    outcome.check_unharmed()
    outcome.check_cut_off(Reason.MALFORMED)
