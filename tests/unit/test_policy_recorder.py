"""The node's record never costs the node anything: a slow disk, a full one, a lost entry."""

import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from keeper.compete.bids import Bid as Offer
from keeper.compete.bids import make_vector
from keeper.metrics import Metrics
from keeper.node.recorder import QUEUE, Recorder
from keeper.snapshot.archive import Archive
from keeper.store import Store
from policies.record import Bid, Entry, RecordFolder, RecordReader, Viewed
from tests.support.policy_views import market_view


def recorder(folder: Path, metrics: Metrics | None = None) -> Recorder:
    store = Store(":memory:")
    return Recorder(folder, {"keeper": "aa"}, Archive(store), {}, metrics or Metrics())


def lost(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("keeper_record_lost_total") or 0.0


def bid(number: int) -> Bid:
    return Bid(number, b"t" * 32, number)


def written(folder: Path) -> list[Entry]:
    """Return the entries of the one record in a folder."""
    (file,) = folder.glob("*.fkrec")
    return list(RecordReader(file))


async def ran(one: Recorder, *entries: Entry) -> None:
    """Run until the entries are written."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        for entry in entries:
            one.put(entry)
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


async def test_what_is_put_is_written_in_order_also_at_the_end(tmp_path: Path) -> None:
    await ran(recorder(tmp_path), *(bid(number) for number in range(50)))
    assert written(tmp_path) == [bid(number) for number in range(50)]


async def test_a_full_disk_ends_the_record_and_not_the_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    one = recorder(tmp_path, metrics)

    def full(_self: RecordFolder, _entry: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordFolder, "append", full)
    await ran(one, bid(1), bid(2))
    assert lost(metrics) == 2


async def test_a_folder_that_cannot_be_made_costs_the_record_only(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file is in the way")
    metrics = Metrics()
    await ran(recorder(tmp_path / "records", metrics), bid(1))
    assert lost(metrics) == 2, "the folder, and the entry"


async def test_a_slow_disk_loses_entries_and_the_next_view_says_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics, gate, append = Metrics(), threading.Event(), RecordFolder.append
    one = recorder(tmp_path, metrics)

    def slow(self: RecordFolder, entry: Any) -> None:
        gate.wait(10)
        append(self, entry)

    monkeypatch.setattr(RecordFolder, "append", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        one.put(Viewed(market_view(1, accounts=1), "", b"one"))
        with trio.fail_after(5):
            while one._queue.statistics().current_buffer_used:
                await trio.lowlevel.checkpoint()
        for number in range(QUEUE + 3):
            one.put(bid(number))
        assert lost(metrics) == 3
        gate.set()
        with trio.fail_after(5):
            while one._queue.statistics().current_buffer_used:
                await trio.lowlevel.checkpoint()
        one.put(Viewed(market_view(2, accounts=1), "", b"two"))
        nursery.cancel_scope.cancel()
    views = [entry for entry in written(tmp_path) if isinstance(entry, Viewed)]
    assert [entry.state for entry in views] == [b"one", b"two"]


async def test_reveals_are_written_with_their_bidder_and_nonsense_is_not(tmp_path: Path) -> None:
    one = recorder(tmp_path)
    vector = make_vector(7, b"\x05" * 20, [Offer(b"s" * 32, 9)], b"x" * 32)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        one.on_reveal(vector.encode())
        one.on_reveal(b"nonsense")
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert written(tmp_path) == [Bid(7, b"s" * 32, 9, b"\x05" * 20)]
