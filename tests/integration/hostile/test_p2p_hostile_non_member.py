"""A valid signature of somebody who has no say, on the gossip and on the consensus road."""

import itertools

import pytest
import trio

from keeper.reasons import Reason
from p2p.port import Road, Role, Topic
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import MESHSUB, Attacker, gossip, message

pytestmark = pytest.mark.libp2p
_number = itertools.count(1)


async def publish(attacker: Attacker) -> None:
    stream = await attacker.stream(MESHSUB)
    await stream.write(gossip(attacker.seed, Topic.OBSERVATIONS, b"seen", next(_number)))
    await trio.sleep(0.02)


async def vote(attacker: Attacker) -> None:
    stream = await attacker.stream(Road.CONSENSUS)
    await stream.write(message(b"\x01vote"))
    await trio.sleep(0.05)


@pytest.mark.parametrize(
    ("attack", "role"),
    [(publish, Role.FOLLOWER), (vote, Role.FOLLOWER), (vote, Role.BONDED)],
    ids=["follower publishes", "follower votes", "bonded votes"],
)
def test_non_member(arena: Arena, attack: object, role: Role) -> None:
    assert callable(attack)
    outcome = arena.attack(attack, role, until=Reason.NOT_A_MEMBER)
    outcome.check_unharmed()
    outcome.check_cut_off(Reason.NOT_A_MEMBER)
