"""Sealed bids: one commitment per bidder and round over its whole vector of bids.

    body       = abi.encode(view, bidder, [(subject, price)…], salt)      revealed later
    commitment = keccak(body)                                             gossiped now, signed
    Commitment(uint32 epoch,bytes32 config,uint64 view,address bidder,bytes32 hash)     EIP-712

The commitment is the hash of the reveal, so a reveal needs no signature, and nobody can make two
reveals of one commitment. Bytes from a peer become a value only if they are exactly what we would
have written.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgpack
from eth_abi.abi import decode as abi_decode
from eth_abi.abi import encode as abi_encode
from eth_abi.exceptions import DecodingError

from keeper.hashing import keccak, type_hash
from p2p.agreement.signing import domain_separator, recover

MAX_BIDS = 32
"""Bids in one vector: 2.2 kB, so that 32 reveals take a quarter of one proposal."""
MAX_PRICE = 2**63
"""Bound of a price in µUSD: beyond it no bonus exists."""
MAX_REVEAL_BYTES = 32 * (6 + 2 * MAX_BIDS)
MAX_COMMIT_BYTES = 256

_TYPES = ("uint64", "address", "(bytes32,uint256)[]", "bytes32")
_COMMITMENT = type_hash(
    "Commitment(uint32 epoch,bytes32 config,uint64 view,address bidder,bytes32 hash)"
)


@dataclass(frozen=True, slots=True, order=True)
class Bid:
    """What a bidder would pay for the right to one subject, µUSD."""

    subject: bytes
    price: int


@dataclass(frozen=True, slots=True)
class BidVector:
    """All bids of one bidder in one round; bids are sorted by subject, one each."""

    view: int
    bidder: bytes
    bids: tuple[Bid, ...]
    salt: bytes

    def encode(self) -> bytes:
        """Return the body that is revealed."""
        rows = [(bid.subject, bid.price) for bid in self.bids]
        bidder = "0x" + self.bidder.hex()
        return abi_encode(_TYPES, (self.view, bidder, rows, self.salt))

    @property
    def commitment(self) -> bytes:
        """Return the hash that is committed to."""
        return keccak(self.encode())

    def price_of(self, subject: bytes) -> int | None:
        """Return the price bid for a subject, or None."""
        return next((bid.price for bid in self.bids if bid.subject == subject), None)


def decode_reveal(raw: bytes) -> BidVector | None:
    """Return the vector of a revealed body, or None when it is not exactly what `encode` writes."""
    if len(raw) > MAX_REVEAL_BYTES:
        return None
    try:
        view, bidder, rows, salt = abi_decode(_TYPES, raw)
        bids = tuple(Bid(subject, price) for subject, price in rows)
        vector = BidVector(view, bytes.fromhex(bidder[2:]), bids, salt)
        exact = vector.encode() == raw
    except (DecodingError, ValueError, OverflowError):
        return None
    return vector if exact and well_formed(vector) else None


def well_formed(vector: BidVector) -> bool:
    """Return whether a vector keeps its bounds."""
    return (
        0 < len(vector.bids) <= MAX_BIDS
        and all(0 <= bid.price < MAX_PRICE for bid in vector.bids)
        and all(a.subject < b.subject for a, b in pairwise(vector.bids))
    )


@dataclass(frozen=True, slots=True)
class Commit:
    """A signed commitment as it is gossiped; `signature` is 64 bytes, EIP-2098."""

    epoch: int
    config: bytes
    view: int
    bidder: bytes
    commitment: bytes
    signature: bytes

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        packed: bytes = msgpack.packb(
            [self.epoch, self.config, self.view, self.bidder, self.commitment, self.signature]
        )
        return packed


def decode_commit(raw: bytes) -> Commit | None:
    """Return the commitment of canonical bytes, or None; its signature is not checked here."""
    if len(raw) > MAX_COMMIT_BYTES:
        return None
    try:
        row = msgpack.unpackb(raw, max_ext_len=0, max_map_len=0)
        if not isinstance(row, list) or len(row) != 6:
            return None
        commit = Commit(*row)
        exact = commit.encode() == raw
    except (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException):
        return None
    sizes = ((commit.config, 32), (commit.bidder, 20), (commit.commitment, 32))
    fits = all(_sized(value, size) for value, size in (*sizes, (commit.signature, 64)))
    numbers = all(_natural(value) for value in (commit.epoch, commit.view))
    return commit if exact and fits and numbers else None


def _sized(value: object, size: int) -> bool:
    return isinstance(value, bytes) and len(value) == size


def _natural(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64


def commit_hash(
    network: bytes, epoch: int, config: bytes, view: int, bidder: bytes, commitment: bytes
) -> bytes:
    """Return the 32 bytes that a bidder signs."""
    struct = keccak(
        _COMMITMENT
        + epoch.to_bytes(32, "big")
        + config
        + view.to_bytes(32, "big")
        + bidder.rjust(32, b"\0")
        + commitment
    )
    return keccak(b"\x19\x01" + domain_separator(network) + struct)


def verify_commit(network: bytes, epoch: int, config: bytes, commit: Commit) -> bool:
    """Return whether the bidder itself signed the commitment for this committee."""
    if (commit.epoch, commit.config) != (epoch, config):
        return False
    digest = commit_hash(network, epoch, config, commit.view, commit.bidder, commit.commitment)
    return recover(digest, commit.signature) == commit.bidder


def make_vector(view: int, bidder: bytes, bids: Sequence[Bid], salt: bytes) -> BidVector:
    """Return a vector of the best bids, sorted as the format wants.

    Raises:
        ValueError: there is no bid, or one is out of bounds, or the salt is not 32 bytes.
    """
    best = sorted(bids, key=lambda bid: (-bid.price, bid.subject))[:MAX_BIDS]
    vector = BidVector(view, bidder, tuple(sorted(best)), salt)
    if len(salt) != 32 or not well_formed(vector):
        raise ValueError(
            f"a vector needs 1 to {MAX_BIDS} bids on distinct subjects and a 32-byte salt"
        )
    return vector
