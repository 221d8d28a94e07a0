"""A message in another keeper's name: the signature is the forger's, so is the blame."""

import itertools

import pytest
import trio

from keeper.reasons import Reason
from p2p.port import Role, Topic
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import MESHSUB, Attacker, gossip
from tests.support.p2p_contract import id_of
from tests.support.p2p_victim import HONEST

pytestmark = pytest.mark.libp2p
_number = itertools.count(1)


async def forge(attacker: Attacker) -> None:
    stream = await attacker.stream(MESHSUB)
    for _ in range(3):
        frame = gossip(attacker.seed, Topic.BIDS, b"lie", next(_number), origin=id_of(HONEST))
        await stream.write(frame)
        await trio.sleep(0.02)


def test_forged_from(arena: Arena) -> None:
    outcome = arena.attack(forge, Role.BONDED, until=Reason.BAD_SIGNATURE)
    outcome.check_unharmed()
    outcome.check_cut_off(Reason.BAD_SIGNATURE)
    honest = outcome.after["peers"][id_of(HONEST).hex()]
    assert honest["drops"] == {}
