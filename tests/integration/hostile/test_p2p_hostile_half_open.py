"""Connections that go silent halfway: each stage of the handshake, and after it."""

from contextlib import AsyncExitStack

import pytest
import trio

from p2p.port import Role
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import Attacker

pytestmark = pytest.mark.libp2p
STAGES = (
    b"",
    b"\x13/multistream",
    b"\x13/multistream/1.0.0\n\x07/noise\n",
    b"\x13/multistream/1.0.0\n\x07/noise\n\x00\x20" + bytes(32),
)


async def half_open(attacker: Attacker) -> None:
    port = int(attacker.address.rsplit("/", 1)[1])
    async with AsyncExitStack() as sockets:
        for stage in STAGES * 4:
            socket = await sockets.enter_async_context(
                await trio.open_tcp_stream("127.0.0.1", port)
            )
            await socket.send_all(stage)
        await attacker.connect()  # and one that finishes, and then says nothing
        await trio.sleep_forever()


def test_half_open(arena: Arena) -> None:
    outcome = arena.attack(half_open, Role.BONDED)
    outcome.check_unharmed()
