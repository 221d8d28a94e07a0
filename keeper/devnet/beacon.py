"""A simulated beacon chain: real containers, real BLS, a synthetic state, following a local chain.

    execution block ─▶ beacon block: body ─▶ execution header (25)
                                     state ─▶ committees (86, 87), finalized checkpoint (169)
    the next block's committee signs it ─▶ bootstrap, update, finality update, optimistic update

Only what a light client can see is real: the other fields of state and body are zero, and the two
lists in the execution header carry the execution layer's roots. One person holds all keys of a
committee, so a signature is one multiplication by their sum. Finality follows two epochs behind, as
on a healthy chain. `Faults` makes it misbehave.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from py_arkworks_bls12381 import G1Point, G2Point, Scalar

from keeper.chain import codec
from keeper.observe.light_client.bls import DST
from keeper.observe.light_client.spec import BeaconSpec
from keeper.observe.light_client.ssz import (
    EMPTY_HEADER,
    EXECUTION_SIZE,
    MAX_COMMITTEE,
    NO_BRANCH,
    NO_FINALITY,
    BeaconHeader,
    Bootstrap,
    ExecutionHeader,
    LightHeader,
    SyncAggregate,
    SyncCommittee,
    Update,
    merkleize,
    no_committee,
    sha256,
    uint,
)

FORK_VERSION = bytes.fromhex("0500007e")
KEPT_BLOCKS = 8_192
_ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
"""Order of the BLS12-381 groups."""
_FINALIZED, _CURRENT, _NEXT = 20, 22, 23
"""Positions in Electra's BeaconState of 37 fields."""


@dataclass(slots=True)
class Faults:
    """How the simulated chain misbehaves.

    Args:
        participation: percent of the committee that signs.
        stalled: no new block is made.
        equivocating: every second answer is another header of the same slot, as well signed.
        strangers: updates are signed by keys that are not in the committee.
        foreign_next: headers name another next committee than before.
    """

    participation: int = 100
    stalled: bool = False
    equivocating: bool = False
    strangers: bool = False
    foreign_next: bool = False


class CommitteeKeys:
    """One sync committee with its secrets, drawn from a seed."""

    def __init__(self, seed: bytes, size: int) -> None:
        self.secrets = [
            int.from_bytes(hashlib.sha256(seed + uint(at, 4)).digest(), "big") % _ORDER
            for at in range(size)
        ]
        points = [G1Point() * Scalar(secret) for secret in self.secrets]
        total = G1Point() * Scalar(sum(self.secrets) % _ORDER)
        self.public = SyncCommittee(
            b"".join([point.to_compressed_bytes() for point in [*points, total]])
        )

    def sign(self, message: bytes, count: int) -> bytes:
        """Return the sum of the signatures of the first `count` members."""
        secret = Scalar(sum(self.secrets[:count]) % _ORDER)
        return (G2Point.hash_to_curve(message, DST) * secret).to_compressed_bytes()


def _siblings(leaves: Sequence[bytes], depth: int, index: int) -> tuple[bytes, ...]:
    """Return the Merkle branch of a leaf, lowest sibling first."""
    layer, found = [*leaves, *[bytes(32)] * (2**depth - len(leaves))], []
    for _ in range(depth):
        found.append(layer[index ^ 1])
        layer = [sha256(layer[at] + layer[at + 1]) for at in range(0, len(layer), 2)]
        index //= 2
    return tuple(found)


def execution_header(block: dict[str, Any]) -> ExecutionHeader:
    """Return the execution header of a JSON-RPC block."""

    def number(name: str, size: int = 8) -> bytes:
        return uint(codec.quantity(block[name]), size)

    def fixed(name: str) -> bytes:
        return codec.data(block[name])

    return ExecutionHeader(
        fixed("parentHash") + fixed("miner") + fixed("stateRoot") + fixed("receiptsRoot")
        + fixed("logsBloom") + fixed("mixHash")
        + number("number") + number("gasLimit") + number("gasUsed") + number("timestamp")
        + uint(EXECUTION_SIZE, 4) + number("baseFeePerGas", 32) + fixed("hash")
        + fixed("transactionsRoot") + fixed("withdrawalsRoot")
        + number("blobGasUsed") + number("excessBlobGas") + fixed("extraData")
    )  # fmt: skip


@dataclass(frozen=True)
class Block:
    """One beacon block and the state after it, as far as a light client sees them."""

    slot: int
    parent: bytes
    execution: ExecutionHeader
    current: SyncCommittee
    next: SyncCommittee
    finalized: "Block | None" = field(repr=False)
    epochs: int

    @cached_property
    def _checkpoint(self) -> tuple[bytes, bytes]:
        if self.finalized is None:
            return bytes(32), bytes(32)
        return uint(self.epochs), self.finalized.root

    @cached_property
    def _state(self) -> list[bytes]:
        leaves = [bytes(32)] * 37
        leaves[2] = uint(self.slot)
        leaves[_FINALIZED] = merkleize(self._checkpoint, 1)
        leaves[_CURRENT], leaves[_NEXT] = self.current.root, self.next.root
        return leaves

    @cached_property
    def _body(self) -> list[bytes]:
        leaves = [bytes(32)] * 13
        leaves[9] = self.execution.root
        return leaves

    @cached_property
    def header(self) -> LightHeader:
        """The light-client header of this block."""
        state, body = merkleize(self._state, 6), merkleize(self._body, 4)
        beacon = BeaconHeader(self.slot, 0, self.parent, state, body)
        return LightHeader(beacon, self.execution, _siblings(self._body, 4, 9))

    @cached_property
    def root(self) -> bytes:
        """The name of this block."""
        return self.header.beacon.root()

    def committee_branch(self, *, following: bool) -> tuple[bytes, ...]:
        """Return the branch of the current or the next committee."""
        return _siblings(self._state, 6, _NEXT if following else _CURRENT)

    def finality_branch(self) -> tuple[bytes, ...]:
        """Return the branch of the finalized root."""
        return (self._checkpoint[0], *_siblings(self._state, 6, _FINALIZED))


class SimulatedBeacon:
    """A beacon chain over an execution chain.

    Args:
        genesis_time: unix seconds of slot 0.
        seed: of all keys.
        size: members of a sync committee.
        slots_per_epoch, epochs_per_period: small values make finality and committees quick.
        seconds_per_slot: length of a slot.
    """

    def __init__(
        self,
        genesis_time: int,
        seed: bytes = b"flowkeeper devnet",
        *,
        size: int = MAX_COMMITTEE,
        slots_per_epoch: int = 4,
        epochs_per_period: int = 64,
        seconds_per_slot: int = 1,
    ) -> None:
        self.genesis_time, self.seconds_per_slot = genesis_time, seconds_per_slot
        self.faults = Faults()
        self.blocks: list[Block] = []
        self.spec = BeaconSpec(
            hashlib.sha256(seed).digest(),
            ((0, FORK_VERSION),),
            size,
            slots_per_epoch,
            epochs_per_period,
        )
        self._seed, self._answers = seed, 0
        self._parents: dict[bytes, bytes] = {}
        self._highest = 0
        self._committees: dict[bytes, CommitteeKeys] = {}

    # the chain -------------------------------------------------------------------------------

    def committee(self, period: int, kind: bytes = b"") -> CommitteeKeys:
        """Return the committee of a period; another `kind` is one that nobody elected."""
        seed = self._seed + kind + uint(period, 8)
        if seed not in self._committees:
            self._committees[seed] = CommitteeKeys(seed, self.spec.committee_size)
        return self._committees[seed]

    def slot_of(self, timestamp: int) -> int:
        """Return the slot at a unix time."""
        return (timestamp - self.genesis_time) // self.seconds_per_slot

    def add(self, block: dict[str, Any]) -> bool:
        """Follow an execution block; return whether a beacon block was made of it.

        What followed its newest ancestor here is replaced. Nothing happens while stalled, nor for a
        block that links nowhere. A slot has one block for ever, also over a reorg of the execution
        chain, for the committee signs no slot twice; later ones wait for the next slot.
        """
        execution = execution_header(block)
        slot = self.slot_of(execution.timestamp)
        if self.faults.stalled:
            return False
        again = self.knows(execution.block_hash)
        kept = self._until(execution.block_hash if again else execution.raw[:32])
        if self.blocks and not kept:
            return False
        if again:
            self.blocks = kept
            return False
        self._parents[execution.block_hash] = execution.raw[:32]
        while len(self._parents) > 2 * KEPT_BLOCKS:
            del self._parents[next(iter(self._parents))]
        takes = slot > self._highest
        self._highest = max(slot, self._highest)
        self.blocks = [*kept[-KEPT_BLOCKS:], self._made(slot, execution, kept)] if takes else kept
        return takes

    def knows(self, block_hash: bytes) -> bool:
        """Return whether an execution block was followed."""
        return block_hash in self._parents

    def _until(self, block_hash: bytes) -> list[Block]:
        """Return the beacon blocks up to an execution block, which may lie within the last slot."""
        places = {each.execution.block_hash: at for at, each in enumerate(self.blocks)}
        while block_hash not in places and block_hash in self._parents:
            block_hash = self._parents[block_hash]
        return self.blocks[: places[block_hash] + 1] if block_hash in places else []

    def _made(self, slot: int, execution: ExecutionHeader, before: list[Block]) -> Block:
        period, epoch = self.spec.period(slot), slot // self.spec.slots_per_epoch - 2
        boundary = epoch * self.spec.slots_per_epoch
        older = [each for each in reversed(before) if each.slot <= boundary]
        kind = b"foreign" if self.faults.foreign_next else b""
        return Block(
            slot,
            before[-1].root if before else bytes(32),
            execution,
            self.committee(period).public,
            self.committee(period + 1, kind).public,
            older[0] if older else None,
            max(epoch, 0),
        )

    # what a node serves ----------------------------------------------------------------------

    def finalized(self) -> Block | None:
        """Return the block that the newest one makes final."""
        return self.blocks[-1].finalized if self.blocks else None

    def bootstrap(self, root: bytes) -> Bootstrap | None:
        """Return the bootstrap of a block."""
        for block in reversed(self.blocks):
            if block.root == root:
                committee = block.current
                if self.faults.strangers:
                    period = self.spec.period(block.slot)
                    committee = self.committee(period, b"strangers").public
                return Bootstrap(block.header, committee, block.committee_branch(following=False))
        return None

    def newest(self) -> Update | None:
        """Return the update of the newest signed block, committee and all."""
        if len(self.blocks) < 2:
            return None
        attested, signing = self.blocks[-2:]
        self._answers += 1
        if self.faults.equivocating and self._answers % 2 == 0:
            attested = self._twin(attested)
        return self._update(attested, signing.slot)

    def best(self, period: int) -> Update | None:
        """Return the newest update whose header, finality and signature are of one period."""
        for attested, signing in zip(self.blocks[-2::-1], self.blocks[:0:-1], strict=True):
            slots = [signing.slot, attested.slot]
            slots += [attested.finalized.slot] if attested.finalized else [-1]
            if {self.spec.period(slot) for slot in slots} == {period}:
                return self._update(attested, signing.slot)
        return None

    @staticmethod
    def _twin(block: Block) -> Block:
        """Return another block of the same slot, with another state of the execution chain."""
        raw = bytearray(block.execution.raw)
        raw[52:84] = hashlib.sha256(raw[52:84]).digest()
        twin = ExecutionHeader(bytes(raw))
        return Block(
            block.slot, block.parent, twin, block.current, block.next, block.finalized, block.epochs
        )

    def _update(self, attested: Block, signature_slot: int) -> Update:
        """Return the update for a block, signed in a later slot."""
        size, period = self.spec.committee_size, self.spec.period(signature_slot)
        signers = self.committee(period, b"strangers" if self.faults.strangers else b"")
        count = size * self.faults.participation // 100
        message = sha256(attested.root + self.spec.domain(signature_slot))
        aggregate = SyncAggregate(
            tuple([at < count for at in range(size)]), signers.sign(message, count)
        )
        teaches, final = self.spec.period(attested.slot) == period, attested.finalized
        return Update(
            attested.header,
            attested.next if teaches else no_committee(size),
            attested.committee_branch(following=True) if teaches else NO_BRANCH,
            final.header if final else EMPTY_HEADER,
            attested.finality_branch() if final else NO_FINALITY,
            aggregate,
            signature_slot,
        )
