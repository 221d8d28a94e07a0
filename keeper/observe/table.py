"""The account table of one chain: the last event per key, and one root over all of it.

    log(address, topics, data)   key = address ‖ topics     value = data      last one wins

Contracts emit absolute values, so the table at a block is a fold over logs and nothing else. The
root hashes 256 buckets, so a block that changes a few keys re-hashes a few buckets:

    root = keccak(b₀ ‖ … ‖ b₂₅₅)      bᵢ = keccak of the sorted (key, value) pairs of bucket i, or 0

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


def _bucket_hash(bucket: Mapping[bytes, bytes]) -> bytes:
    if not bucket:
        return _EMPTY_BUCKET
    parts = []
    for key in sorted(bucket):
        value = bucket[key]
        parts += [len(key).to_bytes(2, "big"), key, len(value).to_bytes(4, "big"), value]
    return keccak(b"".join(parts))


@dataclass(frozen=True, slots=True)
class Table:
    """Records of one chain at one block; build it with `EMPTY.apply(logs)`."""

    buckets: tuple[Mapping[bytes, bytes], ...]
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
            index = keccak(key)[0]
            if index not in touched:
                touched[index] = dict(self.buckets[index])
            touched[index][key] = log.data
            changes.setdefault(log.address + b"".join(log.topics[:1]), {})[log.topics[1:]] = (
                log.data
            )
        if not touched:
            return self
        buckets, hashes = list(self.buckets), list(self.hashes)
        for index, bucket in touched.items():
            buckets[index], hashes[index] = bucket, _bucket_hash(bucket)
        events = {name: self.events.get(name, _NONE).updated(c) for name, c in changes.items()}
        return Table(tuple(buckets), tuple(hashes), {**self.events, **events})

    def get(self, address: bytes, *topics: bytes) -> bytes | None:
        """Return the data of the last event with exactly these topics, or None."""
        key = address + b"".join(topics)
        return self.buckets[keccak(key)[0]].get(key)

    def records(self, address: bytes, topic: bytes) -> Iterator[Row]:
        """Yield (indexed topics after the first, data) of one event of one contract, sorted."""
        return iter(self.events.get(address + topic, _NONE))

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self.buckets)


EMPTY = Table(tuple({} for _ in range(BUCKETS)), (_EMPTY_BUCKET,) * BUCKETS)
