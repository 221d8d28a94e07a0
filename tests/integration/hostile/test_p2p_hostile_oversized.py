"""Frames larger than their road allows: refused by their length, before a byte of them is held."""

import pytest
import trio

from keeper.reasons import Reason
from p2p.port import Road, Role
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import MESHSUB, Attacker

pytestmark = pytest.mark.libp2p
HUGE = 50 * 1024 * 1024


async def announce(attacker: Attacker, protocol: str, start: bytes) -> None:
    stream = await attacker.stream(protocol)
    await stream.write(start + bytes(1000))
    await trio.sleep(0.05)


@pytest.mark.parametrize(
    ("protocol", "start"),
    [
        (Road.CONSENSUS, HUGE.to_bytes(4, "big")),
        (Road.PEERS, HUGE.to_bytes(4, "big")),
        (MESHSUB, b"\x80\x80\x80\x19"),
        (MESHSUB, b"\xff" * 11),
    ],
    ids=["consensus", "request", "gossip", "varint without end"],
)
def test_oversized(arena: Arena, protocol: str, start: bytes) -> None:
    outcome = arena.attack(
        lambda a: announce(a, protocol, start),
        Role.COMMITTEE,
        until=Reason.MALFORMED if start[:1] == b"\xff" else Reason.OVERSIZE,
    )
    outcome.check_unharmed()
    outcome.check_cut_off(Reason.MALFORMED if start[:1] == b"\xff" else Reason.OVERSIZE)
