"""The same signed message again and again: seen once, then counted as what it is, a flood."""

import pytest
import trio

from keeper.reasons import Reason
from p2p.port import Road, Role, Topic
from p2p.types import Need
from p2p.wire import encode
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import MESHSUB, Attacker, gossip, message

pytestmark = pytest.mark.libp2p


async def replay(attacker: Attacker, protocol: str, frame: bytes) -> None:
    stream = await attacker.stream(protocol)
    while True:
        await stream.write(frame * 50)
        await trio.sleep(0.005)


def test_replayed_gossip(arena: Arena) -> None:
    async def attack(attacker: Attacker) -> None:
        await replay(attacker, MESHSUB, gossip(attacker.seed, Topic.BIDS, b"again", 1))

    outcome = arena.attack(attack, Role.BONDED, until=Reason.RATE_LIMITED)
    outcome.check_unharmed()
    outcome.check_cut_off(Reason.RATE_LIMITED)


def test_replayed_consensus(arena: Arena) -> None:
    frame = message(b"\x01" + encode(Need(1)))
    outcome = arena.attack(lambda a: replay(a, Road.CONSENSUS, frame), Role.COMMITTEE)
    outcome.check_unharmed()
    assert outcome.standing == "refused", outcome.drops
