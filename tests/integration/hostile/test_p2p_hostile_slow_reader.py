"""A peer that asks and never reads: answers stop at one window, and the slots come back."""

import pytest
import trio

from p2p.links import PING, frame
from p2p.port import Road, Role
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import Attacker

pytestmark = pytest.mark.libp2p


async def ping_and_never_read(attacker: Attacker) -> None:
    """Ask for pongs without end; the TCP connection is not read at all."""
    connection = (await attacker.stream(Road.CONSENSUS)).muxed_conn
    stream = await attacker.stream(Road.CONSENSUS)
    raw = connection.secured_conn
    blocked = trio.Event()

    async def never(*_: object) -> bytes:
        await blocked.wait()
        return b""

    raw.read = never  # the muxer's loop hangs in here: nothing is read off the socket any more
    pings = frame(PING, bytes(8)) * 4000
    while True:
        with trio.move_on_after(0.5):
            await stream.write(pings)
        await trio.sleep(0.05)


def test_slow_reader(arena: Arena) -> None:
    outcome = arena.attack(ping_and_never_read, Role.BONDED)
    outcome.check_unharmed()
