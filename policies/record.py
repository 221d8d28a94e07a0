"""The record every node writes: what it knew, what it decided, what came of it.

    head  "FKRECORD" | version u16 | JSON length u32 | JSON (network, keeper, started)
    entry length u32 | ~length u32 | body (msgpack) | link 16 B
                                               link = blake2b(previous link + body)

Append-only: an entry is whole or it is not there. The links form a chain, so a changed, missing or
moved entry shows at the first one after it. A crash may leave a torn last entry; the writer cuts it
off when it opens the file again, a reader stops before it. The format's version is `VERSION`;
readers refuse a higher one. Nothing here is secret: no key, no salt, no address of an endpoint.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from policies.api import Decision, MarketView, decoder, encoder

MAGIC = b"FKRECORD"
VERSION = 1
LINK_BYTES = 16
MAX_BODY = 64 << 20
"""Longest entry: a snapshot of half a million watched accounts."""


class RecordError(Exception):
    """A record cannot be read: where it breaks, and why."""


class Sealed(msgspec.Struct, frozen=True, tag="sealed"):
    """A sealed snapshot: header, decision root and group signature as they went over the wire."""

    view: int
    at_ms: int
    header: bytes
    root: bytes
    seal: bytes


class Viewed(msgspec.Struct, frozen=True, tag="viewed"):
    """What the policy was shown; `desk` names the venue, and is empty for the network's tasks.

    `state` is what the policy carried into this view where that does not follow from the decisions
    before it in this file: at the file's first view, and at a node's.
    """

    view: MarketView
    desk: str = ""
    state: bytes | None = None


class Decided(msgspec.Struct, frozen=True, tag="decided"):
    """What it answered: `source` is its name, or fallback with the fault that led there."""

    view: int
    policy: str
    source: str
    decisions: tuple[Decision, ...]
    state_hash: bytes
    fault: str = ""
    elapsed_us: int = 0
    desk: str = ""


class Bid(msgspec.Struct, frozen=True, tag="bid"):
    """A bid that was revealed, and by whom; an empty bidder is the keeper that wrote the record."""

    view: int
    task: bytes
    price: int
    bidder: bytes = b""


class Awarded(msgspec.Struct, frozen=True, tag="awarded"):
    """Who won a task, at what price, in µUSD."""

    view: int
    task: bytes
    ranks: tuple[bytes, ...]
    price: int


class Sent(msgspec.Struct, frozen=True, tag="sent"):
    """A transaction that carried a step; the executor's ledger knew it before it went out."""

    task: bytes
    step: str
    chain: int
    hash: bytes


class Received(msgspec.Struct, frozen=True, tag="received"):
    """Its receipt; `predicted` and `realised` are µUSD after every cost, in a task's last one."""

    task: bytes
    step: str
    chain: int
    hash: bytes
    status: int
    gas_used: int
    gas_price: int
    predicted: int
    realised: int


class Market(msgspec.Struct, frozen=True, tag="market"):
    """A tick of market data only: prices in 10**-8 USD; backtests make views of it."""

    at_ms: int
    prices: tuple[tuple[bytes, int], ...]


class Book(msgspec.Struct, frozen=True, tag="book"):
    """The accounts, venues and costs a backtest starts from."""

    view: MarketView


Entry = Sealed | Viewed | Decided | Bid | Awarded | Sent | Received | Market | Book


def state_hash(state: bytes) -> bytes:
    """Return the 16-byte hash of a policy's state."""
    return hashlib.blake2b(state, digest_size=16).digest()


def view_hash(view: MarketView) -> bytes:
    """Return the 16-byte hash of a view's encoding, which two keepers can compare."""
    return hashlib.blake2b(encoder().encode(view), digest_size=16).digest()


def decisions_bytes(decisions: tuple[Decision, ...]) -> bytes:
    """Return the canonical bytes of decisions: what "byte for byte" compares."""
    return encoder().encode(decisions)


def _link(before: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(before + body, digest_size=LINK_BYTES).digest()


def _length(size: int) -> bytes:
    return size.to_bytes(4, "big") + (size ^ 0xFFFFFFFF).to_bytes(4, "big")


def _read_head(file: BinaryIO, where: str) -> tuple[dict[str, object], bytes]:
    magic = file.read(len(MAGIC))
    if magic != MAGIC:
        raise RecordError(f"{where}: not a record (it starts with {magic!r})")
    version = int.from_bytes(file.read(2), "big")
    if version != VERSION:
        raise RecordError(f"{where}: version {version}, this program reads {VERSION}")
    size = int.from_bytes(file.read(4), "big")
    raw = file.read(size)
    try:
        head: dict[str, object] = json.loads(raw)
    except ValueError as error:
        raise RecordError(f"{where}: its head is damaged") from error
    return head, _link(MAGIC, raw)


class RecordReader:
    """Iterates over the entries of a record, checking every link.

    After the iteration `torn` says whether a crash cut the last entry.
    """

    def __init__(self, path: Path | str) -> None:
        """Read the head.

        Raises:
            RecordError: it is not a record of this version.
        """
        self.path = str(path)
        self.torn = False
        self.end = 0
        self._file: BinaryIO = open(path, "rb")  # noqa: SIM115  closed by `close` or the iteration
        try:
            self.head, self.link = _read_head(self._file, self.path)
        except RecordError:
            self._file.close()
            raise
        self.end = self._file.tell()
        self._decode = decoder(Entry)

    def bodies(self) -> Iterator[bytes]:
        """Yield the bytes of each entry.

        Raises:
            RecordError: an entry does not follow from those before it.
        """
        with self._file as file:
            while head := file.read(8):
                size = int.from_bytes(head[:4], "big")
                if len(head) == 8 and (head != _length(size) or size > MAX_BODY):
                    raise RecordError(f"{self.path}: byte {self.end}: the length is damaged")
                body = file.read(size) if len(head) == 8 else b""
                link = file.read(LINK_BYTES)
                if len(head) < 8 or len(body) < size or len(link) < LINK_BYTES:
                    self.torn = True
                    return
                if link != _link(self.link, body):
                    raise RecordError(f"{self.path}: byte {self.end}: the checksum is wrong")
                self.link = link
                self.end = file.tell()
                yield body

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries.

        Raises:
            RecordError: an entry is damaged.
        """
        for body in self.bodies():
            try:
                entry: Entry = self._decode(body)
            except (msgspec.DecodeError, ValueError) as error:
                raise RecordError(f"{self.path}: byte {self.end}: {error}") from error
            yield entry

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()


class RecordWriter:
    """Appends entries to a record; opening an existing one checks it and cuts a torn end."""

    def __init__(self, path: Path | str, head: Mapping[str, object] | None = None) -> None:
        """Open or create a record.

        Args:
            path: the file.
            head: facts for a new record's head (network, keeper, policy).

        Raises:
            RecordError: an existing file is damaged before its end.
        """
        self.path = Path(path)
        self._encode = encoder().encode
        if self.path.exists() and self.path.stat().st_size:
            reader = RecordReader(self.path)
            for _ in reader.bodies():
                pass
            self._link = reader.link
            self._file: BinaryIO = open(self.path, "r+b")  # noqa: SIM115  closed by `close`
            self._file.truncate(reader.end)
            self._file.seek(reader.end)
        else:
            raw = json.dumps(dict(head or {}), sort_keys=True).encode()
            self._link = _link(MAGIC, raw)
            self._file = open(self.path, "wb")  # noqa: SIM115  closed by `close`
            self._file.write(MAGIC + VERSION.to_bytes(2, "big") + len(raw).to_bytes(4, "big") + raw)
            self._file.flush()

    def append(self, entry: Entry) -> None:
        """Write one entry and hand it to the operating system."""
        body = self._encode(entry)
        self._link = _link(self._link, body)
        self._file.write(_length(len(body)) + body + self._link)
        self._file.flush()

    @property
    def size(self) -> int:
        """Bytes written so far, those of an opened record included."""
        return self._file.tell()

    def sync(self) -> None:
        """Wait until everything written is on disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the record; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RecordFolder:
    """A node's records: one file after the other, the oldest dropped when there are too many.

    record-000001.fkrec  record-000002.fkrec …      each is whole and can be read alone
    """

    def __init__(
        self,
        folder: Path | str,
        head: Mapping[str, object],
        max_bytes: int = 256 << 20,
        keep: int = 8,
    ) -> None:
        """Open the newest record of a folder, or the first.

        Args:
            folder: made if it is not there.
            head: facts for each record's head.
            max_bytes: a longer record is followed by a new one.
            keep: how many are kept, the open one included.

        A newest record that is damaged before its end is left as it is, for whoever wants to look
        at it, and a new one begun: `damaged` says what is wrong with it.
        """
        self.folder, self._head = Path(folder), dict(head)
        self._max_bytes, self._keep = max_bytes, keep
        self.damaged = ""
        self._begun: set[str] = set()
        self.folder.mkdir(parents=True, exist_ok=True)
        files = self.files()
        newest = files[-1] if files else self._next(0)
        try:
            self._writer = RecordWriter(newest, self._head)
        except RecordError as error:
            self.damaged = str(error)
            self._writer = RecordWriter(self._next(_number(newest)), self._head)

    def files(self) -> list[Path]:
        """Return the records, oldest first."""
        return sorted(self.folder.glob("record-*.fkrec"))

    def _next(self, number: int) -> Path:
        return self.folder / f"record-{number + 1:06d}.fkrec"

    def append(self, entry: Entry) -> None:
        """Write one entry; start a new record first when this one is long enough."""
        if self._writer.size >= self._max_bytes:
            self._writer.close()
            self._writer = RecordWriter(self._next(_number(self._writer.path)), self._head)
            self._begun.clear()
            for old in self.files()[: -self._keep]:
                old.unlink()
        if isinstance(entry, Viewed):
            if entry.desk in self._begun:
                entry = msgspec.structs.replace(entry, state=None)
            self._begun.add(entry.desk)
        self._writer.append(entry)

    def gap(self) -> None:
        """Note that something was not written: the next view says its state again."""
        self._begun.clear()

    def close(self) -> None:
        """Close the open record; a second call does nothing."""
        self._writer.close()


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def views_of(path: Path | str) -> Iterator[MarketView]:
    """Yield the views a policy was shown, in order.

    Raises:
        RecordError: the record is damaged.
    """
    for entry in RecordReader(path):
        if isinstance(entry, Viewed):
            yield entry.view
