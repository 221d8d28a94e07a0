"""A flood of connections: idle sockets and half handshakes give way to honest ones."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from keeper.reasons import Reason
from p2p.guards import HANDSHAKES_AT_ONCE, HANDSHAKES_BURST
from p2p.port import Role
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import Attacker

pytestmark = pytest.mark.libp2p


@asynccontextmanager
async def sockets(
    attacker: Attacker, count: int, said: bytes, source: str = "127.0.0.1"
) -> AsyncIterator[None]:
    """Open so many connections for the length of the block; the node may have closed some."""
    port = int(attacker.address.rsplit("/", 1)[1])
    opened: list[trio.SocketStream] = []
    try:
        for _ in range(count):
            opened.append(await trio.open_tcp_stream("127.0.0.1", port, local_address=source))
            with suppress(trio.BrokenResourceError):
                await opened[-1].send_all(said)
            await trio.sleep(0.001)
        yield
    finally:
        for one in opened:
            one.socket.close()


def test_idle_sockets(arena: Arena) -> None:
    """Every half-open place is taken, and a real handshake still gets through."""
    connected = []

    async def attack(attacker: Attacker) -> None:
        async with sockets(attacker, HANDSHAKES_AT_ONCE + 5, b"", "127.0.0.2"):
            connected.append(await attacker.connect())
            await trio.sleep_forever()

    outcome = arena.attack(attack, Role.BONDED)
    outcome.check_unharmed()
    assert connected


def test_flood_of_connections(arena: Arena) -> None:
    async def attack(attacker: Attacker) -> None:
        count = int(HANDSHAKES_BURST) * 2
        async with sockets(attacker, count, b"\x13/multistream/1.0.0\n"):
            pass

    outcome = arena.attack(attack, Role.FOLLOWER)
    outcome.check_unharmed()
    assert outcome.denied(Reason.RATE_LIMITED) > 0
