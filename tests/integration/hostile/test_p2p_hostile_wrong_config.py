"""A member that speaks of another network or epoch: named, and cut off if it does not stop."""

import itertools

import pytest
import trio

from keeper.hashing import keccak
from keeper.reasons import Reason
from p2p.agreement.signing import EcdsaSigner, sign_observation
from p2p.port import Topic
from p2p.types import Committee
from p2p.wire import encode
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import MESHSUB, Attacker, gossip
from tests.support.p2p_victim import committee

pytestmark = pytest.mark.libp2p
_number = itertools.count(1)


async def wrong_config(attacker: Attacker) -> None:
    ours = committee()
    other = Committee(ours.network, ours.epoch, ours.members, keccak(b"other parameters"))
    stream = await attacker.stream(MESHSUB)
    for tick in range(40):
        seen = sign_observation(
            other, EcdsaSigner(attacker.seed), tick, (bytes(32), bytes(32), bytes(32)), b""
        )
        frame = gossip(attacker.seed, Topic.OBSERVATIONS, encode(seen), next(_number))
        await stream.write(frame)
        await trio.sleep(0.005)


def test_wrong_config(arena: Arena) -> None:
    outcome = arena.attack_as_member(wrong_config, until=Reason.WRONG_CONFIG)
    outcome.check_unharmed()
    outcome.check_cut_off(Reason.WRONG_CONFIG)
