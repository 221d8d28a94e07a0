"""The inbox: bounded per peer, fair between peers, newest win."""

import trio
from trio.testing import wait_all_tasks_blocked

from keeper.units import Instant
from p2p.inbox import FairInbox
from p2p.port import Inbound, Limits

LIMITS = Limits(inbox_frames=3, inbox_bytes=100)


def inbox() -> tuple[FairInbox, list[bytes]]:
    dropped: list[bytes] = []
    return FairInbox(LIMITS, dropped.append), dropped


def put(box: FairInbox, peer: bytes, frame: bytes) -> None:
    box.put(Inbound(peer, "road", frame, Instant(0.0)))


def drain(box: FairInbox) -> list[tuple[bytes, bytes]]:
    taken = []
    while (item := box.receive_nowait()) is not None:
        taken.append((item.peer, item.frame))
    return taken


def test_takes_peers_in_turn() -> None:
    box, _ = inbox()
    for number in b"123":
        put(box, b"a", bytes([number]))
    put(box, b"b", b"x")
    assert drain(box) == [(b"a", b"1"), (b"b", b"x"), (b"a", b"2"), (b"a", b"3")]


def test_newest_win_and_the_loss_is_told() -> None:
    box, dropped = inbox()
    for number in b"12345":
        put(box, b"a", bytes([number]))
    assert drain(box) == [(b"a", b"3"), (b"a", b"4"), (b"a", b"5")]
    assert dropped == [b"a", b"a"]


def test_bytes_are_bounded_but_one_frame_always_fits() -> None:
    box, dropped = inbox()
    put(box, b"a", bytes(80))
    put(box, b"a", bytes(60))
    assert drain(box) == [(b"a", bytes(60))]
    put(box, b"a", bytes(500))
    assert drain(box) == [(b"a", bytes(500))]
    assert dropped == [b"a"]


def test_forgets_who_was_cut_off() -> None:
    box, _ = inbox()
    put(box, b"a", b"1")
    put(box, b"b", b"2")
    box.forget(b"a")
    box.forget(b"never seen")
    assert drain(box) == [(b"b", b"2")]
    assert len(box) == 0


async def test_waits_for_a_frame_and_survives_cancellation(nursery: trio.Nursery) -> None:
    box, _ = inbox()
    with trio.move_on_after(0):
        await box.receive()
    got: list[bytes] = []

    async def reader() -> None:
        got.append((await box.receive()).frame)

    nursery.start_soon(reader)
    await wait_all_tasks_blocked()
    put(box, b"a", b"1")
    await wait_all_tasks_blocked()
    assert got == [b"1"]
