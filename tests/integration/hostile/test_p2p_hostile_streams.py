"""A flood of streams, at the muxer and above: the connection ends and the peer is named."""

import struct
from contextlib import suppress

import pytest
import trio

from keeper.reasons import Reason
from p2p.guards import NETWORK_FAULTS
from p2p.port import Road, Role
from tests.support.p2p_arena import Arena
from tests.support.p2p_attacker import Attacker

pytestmark = pytest.mark.libp2p
WINDOW, PING, SYN, NO_FLAG = 1, 2, 1, 0


async def raw_flood(attacker: Attacker, kind: int, flag: int) -> None:
    connection = await attacker.connect()
    raw = connection.muxed_conn.secured_conn
    for batch in range(200):
        numbers = range(1001 + 400 * batch, 1401 + 400 * batch, 2)
        await raw.write(
            b"".join(
                struct.pack(">BBHII", 0, kind, flag, number if kind == WINDOW else 0, 0)
                for number in numbers
            )
        )
        await trio.sleep(0.001)


@pytest.mark.parametrize(
    ("kind", "flag"),
    [(WINDOW, SYN), (PING, SYN), (WINDOW, NO_FLAG)],
    ids=["streams", "pings", "frames of no stream"],
)
def test_flood_of_frames(arena: Arena, kind: int, flag: int) -> None:
    outcome = arena.attack(
        lambda a: raw_flood(a, kind, flag), Role.BONDED, until=Reason.RATE_LIMITED
    )
    outcome.check_unharmed()
    outcome.check_cut_off(Reason.RATE_LIMITED)


async def many_streams(attacker: Attacker) -> None:
    async def one() -> None:
        with suppress(*NETWORK_FAULTS, trio.TooSlowError):
            await attacker.stream(Road.CONSENSUS)

    await attacker.connect()
    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(one)


def test_flood_of_negotiated_streams(arena: Arena) -> None:
    outcome = arena.attack(many_streams, Role.BONDED, until=Reason.RATE_LIMITED)
    outcome.check_unharmed()
    assert outcome.drops.get(Reason.RATE_LIMITED.value), outcome.drops


async def beyond_the_window(attacker: Attacker) -> None:
    stream = await attacker.stream(Road.SYNC)
    muxed = stream.muxed_stream
    muxed.send_window = 1 << 30  # as if we had been given room
    await stream.write(b"\0\0")
    await stream.write(bytes(4 * 1024 * 1024))


def test_data_beyond_the_window(arena: Arena) -> None:
    outcome = arena.attack(beyond_the_window, Role.BONDED, until=Reason.OVERSIZE)
    outcome.check_unharmed()
    assert outcome.drops.get(Reason.OVERSIZE.value), outcome.drops
