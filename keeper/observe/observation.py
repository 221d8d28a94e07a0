"""What one keeper saw in one tick: the body of a signed observation.

    heads    recent finalised blocks per chain, newest last, with the account root at each
    prices   per market the price, and when its feed published it
    seen     what came in by gossip: bid commitments and hashes of reveals
    next     how the key ceremony of the next committee goes, while there is one

The bytes are canonical msgpack, so the three roots that the signature covers are recomputed from
the body by whoever checks it. A head alone can be shown on its own chain: it is a Merkle leaf.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import msgpack

from keeper.hashing import keccak, leaf_hash
from keeper.merkle import merkle_root
from keeper.units import ChainId

HEADS_PER_CHAIN = 4
"""Blocks of one chain in one observation: enough that f + 1 keepers name a common one."""
MAX_HEADS = 64 * HEADS_PER_CHAIN
MAX_PRICES = 256
MAX_SEEN = 128
"""Commitments or reveals one observation may list: four rounds of 31 bidders, and a spare."""

MAX_ABSENT = 64
"""Members of a committee, all of them absent."""

HEAD_TYPE = "Head(uint64 chain,uint64 number,bytes32 hash)"
PRICE_TYPE = "Price(bytes32 market,uint256 price,uint64 publishedAt)"


@dataclass(frozen=True, slots=True, order=True)
class SeenHead:
    """A finalised block and what its accounts hash to.

    Args:
        chain: chain id.
        number: block number.
        hash: block hash, 32 bytes.
        account_root: root of the account table after this block, 32 bytes.
        timestamp: unix seconds of the block.
    """

    chain: ChainId
    number: int
    hash: bytes
    account_root: bytes
    timestamp: int


@dataclass(frozen=True, slots=True, order=True)
class SeenPrice:
    """A feed's answer: market id, 10**-8 USD, unix seconds it was published."""

    market: bytes
    price_e8: int
    published_at: int


@dataclass(frozen=True, slots=True, order=True)
class SeenCommitment:
    """A bid commitment that came in: the round's view, the bidder's address, the hash."""

    view: int
    bidder: bytes
    commitment: bytes


@dataclass(frozen=True, slots=True)
class NextKey:
    """What a keeper knows of the ceremony of the next committee.

    Args:
        config: digest of that committee, 32 bytes.
        group_key: x coordinate of the key its members generated; 0 while they have not.
        absent: addresses of those members whose word is missing or was wrong, sorted.
    """

    config: bytes
    group_key: int = 0
    absent: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class ObservationBody:
    """Everything one keeper says about one tick; every sequence is sorted and free of repeats."""

    tick: int
    heads: tuple[SeenHead, ...] = ()
    prices: tuple[SeenPrice, ...] = ()
    commitments: tuple[SeenCommitment, ...] = ()
    reveals: tuple[bytes, ...] = field(default=())
    next_key: NextKey | None = None

    def roots(self) -> tuple[bytes, bytes, bytes]:
        """Return (headsRoot, pricesRoot, restRoot), the three hashes the signature covers."""
        heads = [
            leaf_hash(HEAD_TYPE, ("uint64", "uint64", "bytes32"), (h.chain, h.number, h.hash))
            for h in self.heads
        ]
        prices = [
            leaf_hash(
                PRICE_TYPE,
                ("bytes32", "uint256", "uint64"),
                (p.market, p.price_e8, p.published_at),
            )
            for p in self.prices
        ]
        return merkle_root(heads), merkle_root(prices), keccak(encode(self))


def encode(body: ObservationBody) -> bytes:
    """Return the canonical bytes."""
    packed: bytes = msgpack.packb(
        [
            body.tick,
            [[h.chain, h.number, h.hash, h.account_root, h.timestamp] for h in body.heads],
            [[p.market, p.price_e8, p.published_at] for p in body.prices],
            [[c.view, c.bidder, c.commitment] for c in body.commitments],
            list(body.reveals),
            _pack_next(body.next_key),
        ]
    )
    return packed


def _pack_next(key: NextKey | None) -> list[object]:
    if key is None:
        return []
    return [key.config, key.group_key.to_bytes(32, "big"), list(key.absent)]


def _next(row: list[Any]) -> NextKey | None:
    if not row:
        return None
    config, group_key, absent = row
    if len(group_key) != 32:
        raise ValueError("a key has 32 bytes")
    return NextKey(config, int.from_bytes(group_key, "big"), tuple(absent))


def decode(raw: bytes) -> ObservationBody | None:
    """Return the body, or None when the bytes are not exactly what `encode` writes.

    Also None when a sequence is unsorted, has repeats, or exceeds its bound.
    """
    try:
        tick, heads, prices, commitments, reveals, next_key = msgpack.unpackb(
            raw, raw=False, use_list=True, max_ext_len=0, max_map_len=0
        )
        body = ObservationBody(
            tick,
            tuple(SeenHead(*row) for row in heads),
            tuple(SeenPrice(*row) for row in prices),
            tuple(SeenCommitment(*row) for row in commitments),
            tuple(reveals),
            _next(next_key),
        )
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return None
    if not _well_formed(body) or encode(body) != raw:
        return None
    return body


def _well_formed(body: ObservationBody) -> bool:
    u64 = 2**64
    return (
        _natural(body.tick, u64)
        and len(body.heads) <= MAX_HEADS
        and len(body.prices) <= MAX_PRICES
        and len(body.commitments) <= MAX_SEEN
        and len(body.reveals) <= MAX_SEEN
        and all(
            _natural(h.chain, u64)
            and _natural(h.number, u64)
            and _natural(h.timestamp, u64)
            and _bytes(h.hash, 32)
            and _bytes(h.account_root, 32)
            for h in body.heads
        )
        and all(
            _bytes(p.market, 32) and _natural(p.price_e8, 2**63) and _natural(p.published_at, u64)
            for p in body.prices
        )
        and all(
            _natural(c.view, u64) and _bytes(c.bidder, 20) and _bytes(c.commitment, 32)
            for c in body.commitments
        )
        and all(_bytes(reveal, 32) for reveal in body.reveals)
        and (body.next_key is None or _well_announced(body.next_key))
        and _strictly_sorted([(h.chain, h.number) for h in body.heads])
        and _strictly_sorted([p.market for p in body.prices])
        and _strictly_sorted([(c.view, c.bidder) for c in body.commitments])
        and _strictly_sorted(list(body.reveals))
    )


def _well_announced(key: NextKey) -> bool:
    return (
        _bytes(key.config, 32)
        and len(key.absent) <= MAX_ABSENT
        and all(_bytes(member, 20) for member in key.absent)
        and _strictly_sorted(list(key.absent))
    )


def _natural(value: object, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below


def _bytes(value: object, size: int) -> bool:
    return isinstance(value, bytes) and len(value) == size


def _strictly_sorted(keys: Sequence[object]) -> bool:
    return all(a < b for a, b in pairwise(keys))  # type: ignore[operator]
