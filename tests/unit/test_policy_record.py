"""A record is whole, chained, versioned, and survives a crash."""

from pathlib import Path

import pytest

from policies.record import (
    Bid,
    Decided,
    Entry,
    Market,
    Received,
    RecordError,
    RecordFolder,
    RecordReader,
    RecordWriter,
    Viewed,
    state_hash,
    views_of,
)
from tests.support.policy_views import market_view

ENTRIES: list[Entry] = [
    Viewed(market_view(1, accounts=2)),
    Decided(1, "liquidation", "liquidation", (), state_hash(b"")),
    Bid(1, b"t" * 32, 5),
    Market(1000, ((b"ETH", 2 * 10**11),)),
    Received(b"t" * 32, "liquidate", 1, b"h" * 32, 1, 324_494, 10**9, 100, 99),
]


def written(path: Path) -> Path:
    with RecordWriter(path, {"network": "test"}) as record:
        for entry in ENTRIES:
            record.append(entry)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    reader = RecordReader(written(tmp_path / "a.fkrec"))
    assert list(reader) == ENTRIES
    assert reader.head == {"network": "test"}
    assert not reader.torn
    assert list(views_of(tmp_path / "a.fkrec")) == [market_view(1, accounts=2)]


def test_appending_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = written(tmp_path / "a.fkrec")
    with RecordWriter(path) as record:
        record.append(ENTRIES[2])
    assert list(RecordReader(path)) == [*ENTRIES, ENTRIES[2]]


def test_a_torn_end_is_cut_at_every_byte(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.fkrec").read_bytes()
    reader = RecordReader(tmp_path / "a.fkrec")
    ends = [reader.end, *(reader.end for _ in reader.bodies())]
    for cut in range(ends[-2] + 1, len(whole)):
        torn = tmp_path / "torn.fkrec"
        torn.write_bytes(whole[:cut])
        found = RecordReader(torn)
        assert list(found) == ENTRIES[:-1]
        assert found.torn
    with RecordWriter(tmp_path / "torn.fkrec") as record:
        record.append(ENTRIES[-1])
    assert (tmp_path / "torn.fkrec").read_bytes() == whole


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    whole = written(tmp_path / "a.fkrec").read_bytes()
    for place in range(0, len(whole), 7):
        bent = bytearray(whole)
        bent[place] ^= 1
        (tmp_path / "bent.fkrec").write_bytes(bytes(bent))
        with pytest.raises(RecordError):
            list(RecordReader(tmp_path / "bent.fkrec"))


def test_a_folder_of_records_rolls_over_and_drops_the_oldest(tmp_path: Path) -> None:
    folder = RecordFolder(tmp_path / "records", {"keeper": "test"}, max_bytes=300, keep=3)
    for number in range(40):
        folder.append(Bid(number, b"t" * 32, number))
    folder.close()
    files = folder.files()
    assert len(files) == 3
    views = [one.view for file in files for one in RecordReader(file) if isinstance(one, Bid)]
    assert views == list(range(views[0], 40))
    again = RecordFolder(tmp_path / "records", {"keeper": "test"}, max_bytes=300, keep=3)
    again.append(Bid(40, b"t" * 32, 40))
    again.close()
    assert [x.view for x in RecordReader(again.files()[-1]) if isinstance(x, Bid)][-1] == 40


def test_another_version_is_refused(tmp_path: Path) -> None:
    whole = bytearray(written(tmp_path / "a.fkrec").read_bytes())
    whole[9] = 2
    (tmp_path / "b.fkrec").write_bytes(bytes(whole))
    with pytest.raises(RecordError, match="version 2"):
        RecordReader(tmp_path / "b.fkrec")
    (tmp_path / "c.fkrec").write_bytes(b"hello")
    with pytest.raises(RecordError, match="not a record"):
        RecordReader(tmp_path / "c.fkrec")
