"""Our yamux on virtual time, byte by byte: every bound it keeps ends the connection or the stream.

The other end is a list of bytes; nothing of libp2p runs.
"""

from typing import Any

import pytest
import trio
import trio.testing
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedStreamReset
from trio.testing import MockClock

from keeper.metrics import Metrics
from keeper.reasons import Reason
from p2p.gate import Gate
from p2p.guards import guarded
from p2p.muxer import (
    ACK,
    BODY_S,
    DATA,
    FRAMES_BURST,
    HEADER,
    IDLE_S,
    PING,
    PINGS_BURST,
    RST,
    STREAMS_BURST,
    STREAMS_INBOUND,
    SYN,
    WINDOW,
    WINDOW_BYTES,
    WRITE_S,
    Muxer,
)
from p2p.port import Limits, Road
from p2p.roads import Answerer
from tests.support.p2p_contract import id_of

PEER = id_of(3)


class Wire:
    """A secured connection whose other end is this test."""

    is_initiator = False

    def __init__(self) -> None:
        self.said: list[tuple[int, int, int, int]] = []
        self.stuck = False
        self._to, self._from = trio.open_memory_channel[bytes](1000)

    def send(self, kind: int, flags: int, number: int, length: int, body: bytes = b"") -> None:
        self._to.send_nowait(HEADER.pack(0, kind, flags, number, length) + body)

    async def read(self, n: int | None = None) -> bytes:
        return await self._from.receive()

    async def write(self, data: bytes) -> None:
        if self.stuck:
            await trio.sleep_forever()
        self.said.append(HEADER.unpack(data[: HEADER.size])[1:])

    async def close(self) -> None:
        self._to.close()


class End:
    """A running muxer and what it told."""

    def __init__(self, nursery: trio.Nursery, cost: float = 1.0) -> None:
        self.wire, self.faults = Wire(), list[Reason]()
        self.muxer = Muxer(
            self.wire,  # type: ignore[arg-type]  # as much of a connection as it uses
            ID(PEER),
            lambda _peer, reason: self.faults.append(reason),
            lambda: cost,
        )
        nursery.start_soon(self.muxer.start)

    async def ended(self) -> float:
        """Return after how many seconds the connection ended."""
        began = trio.current_time()
        await self.muxer.event_closed.wait()
        return trio.current_time() - began


@pytest.fixture
async def end(autojump_clock: MockClock) -> Any:
    async with trio.open_nursery() as nursery:
        yield End(nursery)
        nursery.cancel_scope.cancel()


async def settled() -> None:
    """Let the muxer handle all it was sent."""
    await trio.testing.wait_all_tasks_blocked()


async def test_a_frame_that_never_ends_ends_the_connection(
    end: End, autojump_clock: MockClock
) -> None:
    end.wire.send(WINDOW, SYN, 1, 0)
    end.wire.send(DATA, 0, 1, 1000, b"half of it")
    assert await end.ended() == pytest.approx(BODY_S)


async def test_a_peer_that_takes_nothing_loses_the_connection(
    end: End, autojump_clock: MockClock
) -> None:
    end.wire.send(WINDOW, SYN, 1, 0)
    stream = await end.muxer.accept_stream()
    end.wire.stuck = True
    began = trio.current_time()
    with pytest.raises(MuxedStreamReset):
        await stream.write(b"answer")
    assert trio.current_time() - began == pytest.approx(WRITE_S)
    await end.ended()


async def test_a_silent_peer_is_pinged_and_then_gone(end: End, autojump_clock: MockClock) -> None:
    assert await end.ended() == pytest.approx(4 * IDLE_S)
    assert (PING, SYN, 0, 0) in end.wire.said
    assert end.faults == []


@pytest.mark.parametrize(
    ("frame", "burst"),
    [((PING, SYN, 0, 7), PINGS_BURST), ((WINDOW, 0, 999, 0), FRAMES_BURST)],
    ids=["pings", "frames of no stream"],
)
async def test_a_flood_of_frames_ends_the_connection(
    end: End, autojump_clock: MockClock, frame: tuple[int, int, int, int], burst: float
) -> None:
    for number in range(int(burst)):
        end.wire.send(*frame)
        if number % 500 == 0:
            await settled()
    await settled()
    assert not end.muxer.is_closed, "the burst is allowed"
    end.wire.send(*frame)
    assert await end.ended() == 0
    assert end.faults == [Reason.RATE_LIMITED]


async def test_streams_are_bounded_at_once_and_in_rate(end: End, autojump_clock: MockClock) -> None:
    for number in range(1, 2 * int(STREAMS_BURST), 2):
        end.wire.send(WINDOW, SYN, number, 0)
    await settled()
    opened = [frame[2] for frame in end.wire.said if frame[:2] == (WINDOW, ACK)]
    refused = [frame[2] for frame in end.wire.said if frame[:2] == (WINDOW, RST)]
    assert (len(opened), len(refused)) == (STREAMS_INBOUND, STREAMS_BURST - STREAMS_INBOUND)
    end.wire.send(WINDOW, SYN, 999, 0)
    await end.ended()
    assert end.faults == [Reason.RATE_LIMITED]


async def test_a_follower_opens_fewer_streams(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        end = End(nursery, cost=4.0)
        for number in range(1, int(STREAMS_BURST) // 2, 2):
            end.wire.send(WINDOW, SYN, number, 0)
        await settled()
        assert not end.muxer.is_closed
        end.wire.send(WINDOW, SYN, 999, 0)
        await end.ended()
        assert end.faults == [Reason.RATE_LIMITED]


async def test_a_stream_that_ended_gives_its_place_back(
    end: End, autojump_clock: MockClock
) -> None:
    for number in range(1, 2 * STREAMS_INBOUND + 9, 2):
        end.wire.send(WINDOW, SYN, number, 0)
        await end.muxer.accept_stream()
        end.wire.send(WINDOW, RST, number, 0)
    await settled()
    assert end.muxer._inbound == 0
    assert not [frame for frame in end.wire.said if frame[:2] == (WINDOW, RST)]


async def test_data_beyond_the_window_ends_the_connection(
    end: End, autojump_clock: MockClock
) -> None:
    end.wire.send(WINDOW, SYN, 1, 0)
    end.wire.send(DATA, 0, 1, WINDOW_BYTES, bytes(WINDOW_BYTES))
    await settled()
    assert not end.muxer.is_closed
    end.wire.send(DATA, 0, 1, 1, b"x")
    await end.ended()
    assert end.faults == [Reason.OVERSIZE]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ((DATA, 0, 1, WINDOW_BYTES + 1), Reason.OVERSIZE),
        ((9, 0, 0, 0), Reason.MALFORMED),
        ((WINDOW, SYN, 2, 0), Reason.MALFORMED),
    ],
    ids=["length", "type", "a number of ours"],
)
async def test_what_breaks_the_rules_is_named(
    end: End, autojump_clock: MockClock, frame: tuple[int, int, int, int], reason: Reason
) -> None:
    end.wire.send(*frame)
    await end.ended()
    assert end.faults == [reason]


class Question:
    """A stream that carries half a question and then nothing."""

    def __init__(self) -> None:
        self.said = [b"\0\0\0\x09half"]
        self.was_reset = False
        self.muxed_conn = self
        self.peer_id = ID(PEER)

    async def read(self, n: int) -> bytes:
        if self.said:
            return self.said.pop()
        await trio.sleep_forever()
        raise AssertionError

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...

    async def reset(self) -> None:
        self.was_reset = True


async def test_half_a_question_holds_its_place_for_a_while_only(autojump_clock: MockClock) -> None:
    limits = Limits()
    gate = Gate(id_of(0), limits, Metrics(), lambda: 0.0, lambda _p, _r: None)
    answerer, faults = Answerer(gate), list[Reason]()
    answerer.serve(Road.SYNC, lambda _peer, frame: frame)

    async def handle(stream: Any) -> None:
        await answerer.handle(Road.SYNC, stream)

    question = Question()
    began = trio.current_time()
    await guarded(handle, lambda _peer, reason: faults.append(reason))(question)  # type: ignore[arg-type]
    assert trio.current_time() - began == pytest.approx(limits.request_read_s)
    assert question.was_reset
    assert faults == [], "a slow network is nobody's fault"
    assert not answerer._running


async def test_followers_together_hold_few_handlers(autojump_clock: MockClock) -> None:
    limits = Limits()
    gate = Gate(id_of(0), limits, Metrics(), lambda: 0.0, lambda _p, _r: None)
    gate.allow(frozenset({id_of(1)}), frozenset())
    answerer = Answerer(gate)
    answers: list[int] = []

    async def never(_peer: bytes, _frame: bytes) -> bytes:
        answers.append(len(answers))
        await trio.sleep_forever()
        raise AssertionError

    answerer.serve(Road.SYNC, never)

    async def ask(peer: bytes) -> None:
        question = Question()
        question.said, question.peer_id = [b"\0\0\0\x01?"], ID(peer)
        await answerer.handle(Road.SYNC, question)  # type: ignore[arg-type]

    async with trio.open_nursery() as nursery:
        for stranger in range(10, 42):
            for _ in range(limits.requests_at_once):
                nursery.start_soon(ask, id_of(stranger))
        await settled()
        assert len(answers) == limits.follower_requests_at_once
        nursery.start_soon(ask, id_of(1))
        await settled()
        assert len(answers) == limits.follower_requests_at_once + 1, "a keeper is answered"
        nursery.cancel_scope.cancel()
