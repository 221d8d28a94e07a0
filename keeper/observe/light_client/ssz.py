"""SimpleSerialize of the light-client containers: one spelling per value, roots and branches.

    LightClientUpdate = attested header │ next sync committee + branch │ finalized header + branch
                      │ sync aggregate (bits, signature) │ signature slot
    LightClientHeader = beacon header (112 bytes) │ execution header (584 + extra data) │ branch (4)

A decoder refuses every other length and offset, so two byte strings never decode alike. Generalized
indices are Electra's (state: 86, 87, 169; body: 25), the same in Fulu. Source: consensus-specs,
ssz/simple-serialize.md, ssz/merkle-proofs.md, electra/light-client/sync-protocol.md.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

CURRENT_COMMITTEE_GINDEX = 86
NEXT_COMMITTEE_GINDEX = 87
FINALIZED_ROOT_GINDEX = 169
EXECUTION_GINDEX = 25

BEACON_SIZE = 112
EXECUTION_SIZE = 584
MAX_EXTRA = 32
HEADER_SIZE = BEACON_SIZE + 4 + 4 * 32
PUBKEY_SIZE = 48
SIGNATURE_SIZE = 96
MAX_COMMITTEE = 512
"""Keys in a sync committee of the mainnet preset; the minimal preset has 32."""


class BadEncoding(ValueError):
    """The bytes are not the one encoding of any value."""


def sha256(raw: bytes) -> bytes:
    """Return the hash of SSZ."""
    return hashlib.sha256(raw).digest()


def _zeros() -> list[bytes]:
    found = [bytes(32)]
    for _ in range(16):
        found.append(sha256(found[-1] * 2))
    return found


ZERO = _zeros()
"""ZERO[d] is the root of a tree of depth d whose leaves are zero."""


def merkleize(chunks: Sequence[bytes], depth: int) -> bytes:
    """Return the root over at most 2**depth chunks, the rest being zero."""
    layer = list(chunks)
    for level in range(depth):
        if len(layer) & 1:
            layer.append(ZERO[level])
        layer = [sha256(layer[at] + layer[at + 1]) for at in range(0, len(layer), 2)]
    return layer[0] if layer else ZERO[depth]


def branch_root(leaf: bytes, branch: Sequence[bytes], gindex: int) -> bytes:
    """Return the root that a leaf at a generalized index has under its siblings, lowest first."""
    depth = gindex.bit_length() - 1
    if len(branch) != depth:
        raise BadEncoding(f"branch has {len(branch)} nodes, not {depth}")
    node = leaf
    for level, sibling in enumerate(branch):
        node = sha256(sibling + node if gindex >> level & 1 else node + sibling)
    return node


def uint(number: int, size: int = 32) -> bytes:
    """Return a little-endian integer, as a whole chunk by default."""
    return number.to_bytes(size, "little")


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "little")


def _nodes(raw: bytes) -> tuple[bytes, ...]:
    return tuple([raw[at : at + 32] for at in range(0, len(raw), 32)])


@dataclass(frozen=True, slots=True)
class BeaconHeader:
    """BeaconBlockHeader."""

    slot: int
    proposer: int
    parent_root: bytes
    state_root: bytes
    body_root: bytes

    def root(self) -> bytes:
        """Return hash_tree_root: the name of the block."""
        fields = (uint(self.slot), uint(self.proposer))
        return merkleize([*fields, self.parent_root, self.state_root, self.body_root], 3)

    def encode(self) -> bytes:
        """Return the SSZ bytes."""
        numbers = uint(self.slot, 8) + uint(self.proposer, 8)
        return numbers + self.parent_root + self.state_root + self.body_root


@dataclass(frozen=True)
class ExecutionHeader:
    """ExecutionPayloadHeader (Deneb and later), kept as its SSZ bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        size = len(self.raw)
        if not EXECUTION_SIZE <= size <= EXECUTION_SIZE + MAX_EXTRA:
            raise BadEncoding(f"execution header has {size} bytes")
        if _number(self.raw[436:440]) != EXECUTION_SIZE:
            raise BadEncoding("execution header: offset of the extra data")

    @property
    def parent_hash(self) -> bytes:
        """Hash of the block before."""
        return self.raw[0:32]

    @property
    def state_root(self) -> bytes:
        """Root of the accounts after this block."""
        return self.raw[52:84]

    @property
    def receipts_root(self) -> bytes:
        """Root of the block's receipts."""
        return self.raw[84:116]

    @property
    def number(self) -> int:
        """Block number."""
        return _number(self.raw[404:412])

    @property
    def gas_limit(self) -> int:
        """Gas that fits into this block."""
        return _number(self.raw[412:420])

    @property
    def gas_used(self) -> int:
        """Gas that was used."""
        return _number(self.raw[420:428])

    @property
    def timestamp(self) -> int:
        """Unix seconds."""
        return _number(self.raw[428:436])

    @property
    def base_fee(self) -> int:
        """Wei per gas."""
        return _number(self.raw[440:472])

    @property
    def block_hash(self) -> bytes:
        """Keccak of the block's RLP header."""
        return self.raw[472:504]

    @cached_property
    def root(self) -> bytes:
        """hash_tree_root."""
        raw, extra = self.raw, self.raw[EXECUTION_SIZE:]
        extra_root = sha256(extra.ljust(32, b"\0") + uint(len(extra)))
        bloom = merkleize(_nodes(raw[116:372]), 3)
        numbers = [raw[at : at + 8].ljust(32, b"\0") for at in (404, 412, 420, 428, 568, 576)]
        fields = [raw[0:32], raw[32:52].ljust(32, b"\0"), raw[52:84], raw[84:116], bloom]
        fields += [raw[372:404], *numbers[:4], extra_root]
        return merkleize([*fields, *_nodes(raw[440:568]), *numbers[4:]], 5)


_EMPTY_EXECUTION = bytes(436) + uint(EXECUTION_SIZE, 4) + bytes(EXECUTION_SIZE - 440)


@dataclass(frozen=True, slots=True)
class LightHeader:
    """LightClientHeader: a beacon header with its execution header and the branch between them."""

    beacon: BeaconHeader
    execution: ExecutionHeader
    branch: tuple[bytes, ...]

    def is_consistent(self) -> bool:
        """Return whether the execution header stands in the beacon block's body."""
        root = branch_root(self.execution.root, self.branch, EXECUTION_GINDEX)
        return root == self.beacon.body_root

    def encode(self) -> bytes:
        """Return the SSZ bytes."""
        offset = uint(HEADER_SIZE, 4)
        return self.beacon.encode() + offset + b"".join(self.branch) + self.execution.raw

    @property
    def is_empty(self) -> bool:
        """Whether this is the default value, which stands for no header."""
        return self == EMPTY_HEADER


EMPTY_HEADER = LightHeader(
    BeaconHeader(0, 0, bytes(32), bytes(32), bytes(32)),
    ExecutionHeader(_EMPTY_EXECUTION),
    (bytes(32),) * 4,
)


def decode_header(raw: bytes) -> LightHeader:
    """Return a LightClientHeader.

    Raises:
        BadEncoding: it is none.
    """
    if len(raw) < HEADER_SIZE + EXECUTION_SIZE or _number(raw[112:116]) != HEADER_SIZE:
        raise BadEncoding("light-client header: length or offset")
    beacon = BeaconHeader(
        _number(raw[0:8]), _number(raw[8:16]), raw[16:48], raw[48:80], raw[80:112]
    )
    return LightHeader(beacon, ExecutionHeader(raw[HEADER_SIZE:]), _nodes(raw[116:HEADER_SIZE]))


@dataclass(frozen=True)
class SyncCommittee:
    """SyncCommittee: the public keys and their sum, kept as SSZ bytes."""

    raw: bytes

    @property
    def size(self) -> int:
        """How many members it has."""
        return len(self.raw) // PUBKEY_SIZE - 1

    @property
    def is_empty(self) -> bool:
        """Whether this is the default value, which stands for no committee."""
        return not any(self.raw)

    def keys(self) -> list[bytes]:
        """Return the members' compressed public keys."""
        return [
            self.raw[at : at + PUBKEY_SIZE] for at in range(0, PUBKEY_SIZE * self.size, PUBKEY_SIZE)
        ]

    @cached_property
    def root(self) -> bytes:
        """hash_tree_root."""
        leaves = [sha256(key.ljust(64, b"\0")) for key in self.keys()]
        total = sha256(self.raw[-PUBKEY_SIZE:].ljust(64, b"\0"))
        return sha256(merkleize(leaves, self.size.bit_length() - 1) + total)


@dataclass(frozen=True, slots=True)
class SyncAggregate:
    """Who signed, and the sum of their signatures."""

    bits: tuple[bool, ...]
    signature: bytes

    @property
    def participants(self) -> int:
        """How many signed."""
        return sum(self.bits)

    def encode(self) -> bytes:
        """Return the SSZ bytes."""
        number = sum(1 << at for at, bit in enumerate(self.bits) if bit)
        return uint(number, len(self.bits) // 8) + self.signature


def _aggregate(raw: bytes, size: int) -> SyncAggregate:
    number = _number(raw[: size // 8])
    return SyncAggregate(tuple([bool(number >> at & 1) for at in range(size)]), raw[size // 8 :])


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """LightClientBootstrap: a header and the committee of its period."""

    header: LightHeader
    committee: SyncCommittee
    branch: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Return the SSZ bytes."""
        head = uint(4 + len(self.committee.raw) + 32 * len(self.branch), 4)
        return head + self.committee.raw + b"".join(self.branch) + self.header.encode()


@dataclass(frozen=True, slots=True)
class Update:
    """LightClientUpdate; a finality or optimistic update is one whose other parts are empty."""

    attested: LightHeader
    next_committee: SyncCommittee
    next_branch: tuple[bytes, ...]
    finalized: LightHeader
    finality_branch: tuple[bytes, ...]
    aggregate: SyncAggregate
    signature_slot: int

    @property
    def has_committee(self) -> bool:
        """Whether it claims to carry the next committee."""
        return any(map(any, self.next_branch))

    @property
    def has_finality(self) -> bool:
        """Whether it claims to carry a finalized header."""
        return any(map(any, self.finality_branch))

    def _tail(self) -> bytes:
        return self.aggregate.encode() + uint(self.signature_slot, 8)

    def encode(self) -> bytes:
        """Return the SSZ bytes of a LightClientUpdate."""
        attested, finalized = self.attested.encode(), self.finalized.encode()
        middle = self.next_committee.raw + b"".join(self.next_branch)
        end = b"".join(self.finality_branch) + self._tail()
        first = 8 + len(middle) + len(end)
        offsets = uint(first, 4), uint(first + len(attested), 4)
        return offsets[0] + middle + offsets[1] + end + attested + finalized

    def encode_finality(self) -> bytes:
        """Return the SSZ bytes of a LightClientFinalityUpdate."""
        attested, finalized = self.attested.encode(), self.finalized.encode()
        end = b"".join(self.finality_branch) + self._tail()
        first = 8 + len(end)
        return uint(first, 4) + uint(first + len(attested), 4) + end + attested + finalized

    def encode_optimistic(self) -> bytes:
        """Return the SSZ bytes of a LightClientOptimisticUpdate."""
        tail = self._tail()
        return uint(4 + len(tail), 4) + tail + self.attested.encode()


NO_BRANCH = (bytes(32),) * 6
NO_FINALITY = (bytes(32),) * 7


def no_committee(size: int) -> SyncCommittee:
    """Return the empty committee of a preset."""
    return SyncCommittee(bytes(PUBKEY_SIZE * (size + 1)))


def _tail_size(size: int) -> int:
    return size // 8 + SIGNATURE_SIZE + 8


def _split_tail(raw: bytes, size: int) -> tuple[SyncAggregate, int]:
    return _aggregate(raw[:-8], size), _number(raw[-8:])


def decode_bootstrap(raw: bytes, size: int) -> Bootstrap:
    """Return a LightClientBootstrap for committees of `size` members.

    Raises:
        BadEncoding: it is none.
    """
    end = 4 + PUBKEY_SIZE * (size + 1)
    first = end + 6 * 32
    if len(raw) < first or _number(raw[:4]) != first:
        raise BadEncoding("bootstrap: length or offset")
    return Bootstrap(decode_header(raw[first:]), SyncCommittee(raw[4:end]), _nodes(raw[end:first]))


def _headers(raw: bytes, first: int, offsets: tuple[bytes, bytes]) -> tuple[LightHeader, ...]:
    """Return the two headers at the end of an update."""
    one, two = _number(offsets[0]), _number(offsets[1])
    if one != first or not one <= two <= len(raw):
        raise BadEncoding("update: offsets")
    return decode_header(raw[one:two]), decode_header(raw[two:])


def decode_update(raw: bytes, size: int) -> Update:
    """Return a LightClientUpdate for committees of `size` members.

    Raises:
        BadEncoding: it is none.
    """
    keys = 4 + PUBKEY_SIZE * (size + 1)
    branch = keys + 6 * 32
    finality = branch + 4 + 7 * 32
    first = finality + _tail_size(size)
    if len(raw) < first:
        raise BadEncoding("update: too short")
    attested, finalized = _headers(raw, first, (raw[:4], raw[branch : branch + 4]))
    aggregate, slot = _split_tail(raw[finality:first], size)
    return Update(
        attested, SyncCommittee(raw[4:keys]), _nodes(raw[keys:branch]),
        finalized, _nodes(raw[branch + 4 : finality]), aggregate, slot,
    )  # fmt: skip


def decode_finality_update(raw: bytes, size: int) -> Update:
    """Return a LightClientFinalityUpdate as an update without a committee.

    Raises:
        BadEncoding: it is none.
    """
    finality = 8 + 7 * 32
    first = finality + _tail_size(size)
    if len(raw) < first:
        raise BadEncoding("finality update: too short")
    attested, finalized = _headers(raw, first, (raw[:4], raw[4:8]))
    aggregate, slot = _split_tail(raw[finality:first], size)
    branch = _nodes(raw[8:finality])
    return Update(attested, no_committee(size), NO_BRANCH, finalized, branch, aggregate, slot)


def decode_optimistic_update(raw: bytes, size: int) -> Update:
    """Return a LightClientOptimisticUpdate as an update with nothing but the signed header.

    Raises:
        BadEncoding: it is none.
    """
    first = 4 + _tail_size(size)
    if len(raw) < first or _number(raw[:4]) != first:
        raise BadEncoding("optimistic update: length or offset")
    aggregate, slot = _split_tail(raw[4:first], size)
    attested = decode_header(raw[first:])
    none = no_committee(size)
    return Update(attested, none, NO_BRANCH, EMPTY_HEADER, NO_FINALITY, aggregate, slot)
