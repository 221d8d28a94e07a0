"""A flood of connections: idle sockets and half handshakes give way to honest ones."""

import pytest
import trio

from keeper.reasons import Reason
from p2p.guards import HANDSHAKES_AT_ONCE, HANDSHAKES_BURST
from p2p.port import Role
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import Attacker

pytestmark = pytest.mark.libp2p


async def sockets(
    attacker: Attacker, count: int, said: bytes, source: str = "127.0.0.1"
) -> list[trio.SocketStream]:
    port = int(attacker.address.rsplit("/", 1)[1])
    opened = []
    for _ in range(count):
        opened.append(await trio.open_tcp_stream("127.0.0.1", port, local_address=source))
        await opened[-1].send_all(said)
        await trio.sleep(0.001)
    return opened


def test_idle_sockets(arena: Arena) -> None:
    """Every half-open place is taken, and a real handshake still gets through."""
    connected = []

    async def attack(attacker: Attacker) -> None:
        idle = await sockets(attacker, HANDSHAKES_AT_ONCE + 5, b"", "127.0.0.2")
        try:
            connected.append(await attacker.connect())
            await trio.sleep_forever()
        finally:
            for socket in idle:
                socket.socket.close()

    outcome = arena.attack(attack, Role.BONDED)
    outcome.check_unharmed()
    assert connected


def test_flood_of_connections(arena: Arena) -> None:
    async def attack(attacker: Attacker) -> None:
        count = int(HANDSHAKES_BURST) * 2
        for socket in await sockets(attacker, count, b"\x13/multistream/1.0.0\n"):
            socket.socket.close()

    outcome = arena.attack(attack, Role.FOLLOWER)
    outcome.check_unharmed()
    assert outcome.denied(Reason.RATE_LIMITED) > 0
