"""The courier of all kinds of bridges, with origins and chains that do what a test says."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from keeper.chain.port import BlockRef, Call, Header, Level, Log
from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.reasons import Reason
from keeper.route.bridges.ccip_committee import CCIP_FRAME
from keeper.route.bridges.multisig import FRAME
from keeper.route.bridges.origin import Ready, Signed, Watch
from keeper.route.bridges.port import Bridge, Crossing, Read, Send, Stage, Transfer
from keeper.route.bridges.service import BRING_S, SAY_AGAIN_S, Courier
from keeper.units import BlockNumber, ChainId, Timestamp, Wei, symbol

HOME, AWAY, FAR = ChainId(1), ChainId(2), ChainId(3)
BOX, CHECK = b"\x0a" * 20, Call(b"\x0b" * 20, b"root")
KEEPERS = 4


@dataclass
class Port:
    """A chain of blocks with a log each, whose contracts give one answer. Nobody knows times."""

    id: ChainId
    number: int = 3
    answer: bytes = b""
    down: bool = False
    asked: list[object] = field(default_factory=list)

    async def head(self, level: Level = Level.UNSAFE) -> Header:
        self.asked.append(level)
        if self.down:
            raise RemoteFault("endpoint", Reason.ENDPOINT_DOWN)
        ref = BlockRef(self.id, BlockNumber(self.number), keccak(bytes([self.number])))
        return Header(ref, b"", Timestamp(100 * self.number), b"", b"", Wei(0), 0, 0)

    async def block(self, block_hash: bytes) -> Header | None:
        raise RemoteFault("endpoint", Reason.ENDPOINT_DOWN)

    async def history(
        self, addresses: Sequence[bytes], first: int, last: BlockRef, topics: Sequence[bytes]
    ) -> list[Log]:
        self.asked.append((tuple(addresses), first, last.number, tuple(topics)))
        return [
            Log(BlockRef(self.id, BlockNumber(at), b""), 0, b"", BOX, (b"topic",), bytes([at]))
            for at in range(first, last.number + 1)
        ]

    async def call(self, to: bytes, data: bytes, at: BlockRef) -> bytes:
        self.asked.append((to, data, at.number))
        return self.answer


class Far:
    """A bridge whose transfers have arrived once the destination answers so."""

    name = "far"

    def arrival_reads(self, transfer: Transfer) -> tuple[Read, ...]:
        return (Read(transfer.crossing.destination, Call(BOX, transfer.id)),)

    def stage(self, transfer: Transfer, answers: Sequence[bytes]) -> Stage:
        return Stage.ARRIVED if answers == [b"arrived"] else Stage.SENT


class Messages:
    """An origin that signs each log; those of even blocks go to one chain, others to another."""

    def __init__(self, start: int = 1, frame: int = FRAME, checks: tuple[Call, ...] = ()) -> None:
        self.watch = Watch(
            HOME, BlockNumber(start), (BOX,), (b"topic",), KEEPERS, frame, b"home", checks
        )
        self.held: dict[bytes, Transfer] = {}
        self.said: Reason | None = None
        self.lies = False

    def read(self, logs: Sequence[Log], answers: Sequence[bytes]) -> tuple[Signed, ...]:
        if self.lies:
            self.held = {}
            raise ValueError("no such root")
        for log in logs:
            crossing = Crossing(HOME, FAR if log.data[0] % 2 else AWAY, symbol("USDC"))
            self.held[log.data] = Transfer(log.data, crossing, BOX, 1)
        return tuple(Signed(log.data, b"say" + log.data, log.block) for log in logs)

    def receive(self, frame: bytes) -> Reason | None:
        return self.said

    def ready(self) -> tuple[Ready, ...]:
        return tuple(
            Ready(name, 0, Send(one.crossing.destination, BOX, name))
            for name, one in self.held.items()
        )

    def waiting(self) -> tuple[tuple[Bridge, Transfer], ...]:
        bridge: Any = Far()
        return tuple((bridge, one) for one in self.held.values())

    def frames(self) -> tuple[bytes, ...]:
        return tuple(b"say" + name for name in self.held)

    def arrived(self, name: bytes) -> None:
        self.held.pop(name, None)


class World:
    """A courier over three chains; what it said, and what it brought when."""

    def __init__(self, *origins: Messages, refused: bool = False) -> None:
        self.said: list[bytes] = []
        self.brought: list[tuple[float, Send]] = []
        self.ports = {chain: Port(chain) for chain in (HOME, AWAY, FAR)}
        self._refused = refused
        self.still: ChainId | None = None
        chains: Any = self.ports
        self.courier = Courier(origins, chains, self.said.append, self._bring)

    async def _bring(self, send: Send) -> bool:
        self.brought.append((trio.current_time(), send))
        if send.chain == self.still:
            await trio.sleep_forever()
        if self._refused:
            raise RemoteFault("endpoint", Reason.TX_REFUSED)
        self.ports[send.chain].answer = b"arrived"
        return True

    async def run(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.courier.run()


async def test_checks_are_asked_at_the_last_block_read_and_a_lie_reads_all_again(
    autojump_clock: MockClock,
) -> None:
    origin = Messages(checks=(CHECK,))
    world, home = World(origin), Messages().watch

    def asked() -> list[object]:
        """Return what was read since last asked, heads left out."""
        found = [one for one in world.ports[HOME].asked if not isinstance(one, Level)]
        world.ports[HOME].asked.clear()
        return found

    def all_of(first: int, last: int) -> list[object]:
        return [(home.addresses, first, last, home.topics), (CHECK.to, CHECK.data, last)]

    await world.run(1.5)
    assert asked() == all_of(1, 3)
    said = len(world.said)
    world.ports[HOME].number, origin.lies = 5, True
    await world.run(1.5)
    assert asked() == all_of(4, 5) + all_of(1, 5)
    assert (len(world.said), origin.held) == (said, {})
    origin.lies = False
    await world.run(1.5)
    assert asked() == all_of(1, 5), "and what was read is not read again"
    assert (len(world.said), origin.held) == (said, {}), "all of it has arrived"


async def test_a_destination_that_is_down_is_waited_for_once_and_the_others_are_served() -> None:
    origin = Messages(start=0)
    world = World(origin)
    (followed,) = world.courier._followed
    world.ports[HOME].number, world.ports[FAR].down = 9, True
    with pytest.raises(RemoteFault):  # nobody says when it was sent, and that is all
        await world.courier._follow(followed)
    assert world.said == [b"say" + bytes([at]) for at in (0, 2, 4, 6, 8)]
    assert len(world.ports[FAR].asked) == 1, "not for every message"
    await world.courier._deliver(followed)
    assert {send.chain for _, send in world.brought} == {AWAY}
    assert len(world.ports[FAR].asked) == 2
    await world.courier._left(followed)
    assert set(origin.held) == {bytes([at]) for at in (1, 3, 5, 7, 9)}


async def test_what_is_ready_is_brought_while_its_origin_is_down(
    autojump_clock: MockClock,
) -> None:
    origin = Messages()
    world = World(origin)
    origin.read([Log(BlockRef(HOME, BlockNumber(2), b""), 0, b"", BOX, (), b"\2")], [])
    world.ports[HOME].down = True
    await world.run(0.5)
    assert [send for _, send in world.brought] == [Send(AWAY, BOX, b"\2")]


async def test_a_chain_that_stands_still_takes_its_time_and_holds_up_no_other(
    autojump_clock: MockClock,
) -> None:
    origin = Messages(start=0)
    world = World(origin)
    home, world.still = world.ports[HOME], AWAY
    home.number = 5

    def to(chain: ChainId) -> list[tuple[float, bytes]]:
        return [(at, send.data) for at, send in world.brought if send.chain == chain]

    (followed,) = world.courier._followed
    with pytest.raises(RemoteFault):
        await world.courier._follow(followed)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.courier.run)
        await trio.sleep(5.0)
        assert to(FAR) == [(began, bytes([at])) for at in (1, 3, 5)]
        home.number = 6  # what is sent meanwhile is signed meanwhile
        await trio.sleep(5.0)
        assert world.said[-1] == b"say\6"
        await trio.sleep(BRING_S)
        assert to(AWAY) == [(began, b"\0"), (began + BRING_S + 1.0, b"\2")], "each has its turn"
        nursery.cancel_scope.cancel()


async def test_what_does_not_arrive_is_said_again_and_brought_ever_more_seldom(
    autojump_clock: MockClock,
) -> None:
    origin = Messages(start=2)
    world = World(origin, refused=True)
    world.ports[HOME].number = 2
    await world.run(3600.0)
    gaps = [later - at for at, later in pairwise(at for at, _ in world.brought)]
    assert gaps == [20.0 * 2**tries for tries in range(7)]
    assert len(world.said) == 3600 / SAY_AGAIN_S, "at once, and then every ten seconds"


def test_frames_go_to_the_origins_they_are_about() -> None:
    one, same, other = Messages(), Messages(), Messages(frame=CCIP_FRAME)
    courier = World(one, same, other).courier
    one.said, same.said, other.said = Reason.BAD_SIGNATURE, Reason.BAD_SIGNATURE, Reason.DUPLICATE
    assert courier.take(b"home".ljust(FRAME)) is Reason.BAD_SIGNATURE
    assert courier.take(b"home".ljust(CCIP_FRAME)) is Reason.DUPLICATE
    assert courier.take(b"else".ljust(FRAME)) is None, "another operator's"
    assert courier.take(b"home".ljust(FRAME + 1)) is Reason.MALFORMED
    same.said = None
    assert courier.take(b"home".ljust(FRAME)) is None, "one of both takes it"
    for kind in (one, other):
        alone = World(kind).courier
        assert {alone.take(b"else".ljust(size)) for size in (FRAME, CCIP_FRAME)} == {None}
        assert alone.take(b"") is Reason.MALFORMED
