"""Connecting and leaving as fast as it goes: refused by rate, and a ban outlives the connection."""

from contextlib import suppress

import pytest
import trio

from keeper.reasons import Reason
from p2p.guards import NETWORK_FAULTS
from p2p.port import Road, Role
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import Attacker

pytestmark = pytest.mark.libp2p


async def come_and_go(attacker: Attacker) -> None:
    async def once() -> None:
        with suppress(*NETWORK_FAULTS):
            await (await attacker.connect()).close()

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(once)


def test_rapid_reconnect(arena: Arena) -> None:
    outcome = arena.attack(come_and_go, Role.BONDED, seconds=2.5, until=Reason.RECONNECTING)
    outcome.check_unharmed()
    outcome.check_cut_off(Reason.RECONNECTING)


async def offend_and_return(attacker: Attacker) -> None:
    stream = await attacker.stream(Road.CONSENSUS)
    await stream.write(b"\xff\xff\xff\xff")
    await trio.sleep(0.05)


def test_a_ban_outlives_the_connection(arena: Arena) -> None:
    outcome = arena.attack(offend_and_return, Role.BONDED, until=Reason.OVERSIZE)
    outcome.check_unharmed()
    outcome.check_cut_off(Reason.OVERSIZE)
    assert outcome.drops == {Reason.OVERSIZE.value: 3}, "after the third it never got in again"
    assert outcome.denied(Reason.REFUSED) > 0
