"""The account table of one chain: the last event per key, and one root over all of it.

    log(address, topics, data)   key = address ‖ topics     value = data      last one wins

Contracts emit absolute values, so the table at a block is a fold over logs and nothing else. The
root hashes 256 buckets, so a block that changes a few keys re-hashes a few buckets:

    root = keccak(b₀ ‖ … ‖ b₂₅₅)      bᵢ = keccak of bucket i's leaves in the order of keys, or 0
    leaf = keccak(len ‖ key ‖ value)  kept beside its value, so an unchanged record is hashed once

A table is a value: `apply` returns a new one that shares every untouched bucket. Beside the buckets
it holds the same records by event, in order (`rows.py`): reading one event does not pass over the
others.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from keeper.hashing import keccak
from keeper.observe.rows import Row, Rows

BUCKETS = 256
"""One byte of a key's hash: a block with few changes stays cheap, and an empty table is small."""

Bucket = Mapping[bytes, tuple[bytes, bytes]]
"""key → (value, leaf), in the order of keys."""
_EMPTY_BUCKET = bytes(32)
_NONE = Rows()


@dataclass(frozen=True, slots=True)
class Log:
    """One event as a chain returns it: 20-byte address, 32-byte topics, data."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes

    @property
    def key(self) -> bytes:
        """The table key: address and all topics."""
        return self.address + b"".join(self.topics)


def _leaf(key: bytes, value: bytes) -> bytes:
    return keccak(len(key).to_bytes(2, "big") + key + value)


def _changed(bucket: Bucket, changes: Mapping[bytes, bytes]) -> Bucket:
    """Return the bucket with these values, still in the order of keys."""
    rows = dict(bucket)
    known = len(rows)
    for key, value in changes.items():
        rows[key] = value, _leaf(key, value)
    return rows if len(rows) == known else dict(sorted(rows.items()))


def _bucket_hash(bucket: Bucket) -> bytes:
    return keccak(b"".join([leaf for _, leaf in bucket.values()])) if bucket else _EMPTY_BUCKET


@dataclass(frozen=True, slots=True)
class Table:
    """Records of one chain at one block; build it with `EMPTY.apply(logs)`."""

    buckets: tuple[Bucket, ...]
    hashes: tuple[bytes, ...]
    events: Mapping[bytes, Rows] = field(default_factory=dict)

    @property
    def root(self) -> bytes:
        """The account root: 32 bytes that name the whole table."""
        return keccak(b"".join(self.hashes))

    def apply(self, logs: Iterable[Log]) -> "Table":
        """Return the table after these logs, in order."""
        touched: dict[int, dict[bytes, bytes]] = {}
        changes: dict[bytes, dict[tuple[bytes, ...], bytes]] = {}
        for log in logs:
            key = log.key
            touched.setdefault(keccak(key)[0], {})[key] = log.data
            changes.setdefault(log.address + b"".join(log.topics[:1]), {})[log.topics[1:]] = (
                log.data
            )
        if not touched:
            return self
        buckets, hashes = list(self.buckets), list(self.hashes)
        for index, new in touched.items():
            buckets[index] = _changed(buckets[index], new)
            hashes[index] = _bucket_hash(buckets[index])
        events = {name: self.events.get(name, _NONE).updated(c) for name, c in changes.items()}
        return Table(tuple(buckets), tuple(hashes), {**self.events, **events})

    def get(self, address: bytes, *topics: bytes) -> bytes | None:
        """Return the data of the last event with exactly these topics, or None."""
        key = address + b"".join(topics)
        found = self.buckets[keccak(key)[0]].get(key)
        return None if found is None else found[0]

    def records(self, address: bytes, topic: bytes) -> Iterator[Row]:
        """Yield (indexed topics after the first, data) of one event of one contract, sorted."""
        return iter(self.events.get(address + topic, _NONE))

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self.buckets)


EMPTY = Table(tuple({} for _ in range(BUCKETS)), (_EMPTY_BUCKET,) * BUCKETS)
