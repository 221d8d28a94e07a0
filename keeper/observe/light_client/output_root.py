"""OP-style rollups: from a proven L1 block to a proven L2 block, without asking the rollup.

    L1 state root ─account─▶ oracle ─slot 2i─▶ output root = keccak(version ‖ state ‖ passer ‖ hash)
                                    └slot 2i+1─▶ (L2 number, time posted) ─▶ challenge period over?
    L2 header (RLP) ─keccak─▶ hash, state root, number ─▶ L2 accounts by Merkle-Patricia proofs

Layout of `L2OutputOracle` (OP Stack, pre fault proofs): `l2Outputs` is a dynamic array at slot 3 of
{bytes32 outputRoot; uint128 timestamp, uint128 l2BlockNumber}. An output counts only when its
challenge period is over by the L1 block's own time. Source: Optimism specs, proposals.md
"L2 output commitment construction".
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keeper.chain import mpt, rlp
from keeper.chain.port import BlockRef
from keeper.hashing import keccak
from keeper.reasons import Reason
from keeper.units import BlockNumber, ChainId, Timestamp

OUTPUTS_SLOT = 3
_VERSION = bytes(32)
_NUMBER, _STATE = 8, 3
"""Positions in a block header."""


class BadOutput(ValueError):
    """The proof does not lead from L1 to the L2 block, or the output may still be disputed."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class Rollup:
    """One OP-style chain.

    Args:
        chain: its id.
        oracle: the contract on L1 that keeps the outputs, 20 bytes.
        challenge_period_s: how long an output may be disputed after it was posted.
        outputs_slot: where the array of outputs stands.
    """

    chain: ChainId
    oracle: bytes
    challenge_period_s: int = 7 * 86_400
    outputs_slot: int = OUTPUTS_SLOT

    def slots(self, index: int) -> tuple[int, int]:
        """Return the two storage slots of an output."""
        first = int.from_bytes(keccak(self.outputs_slot.to_bytes(32, "big")), "big") + 2 * index
        return first % 2**256, (first + 1) % 2**256


@dataclass(frozen=True, slots=True)
class Anchor:
    """A block whose state is proven: state root at a block, with that block's time."""

    ref: BlockRef
    state_root: bytes
    timestamp: Timestamp


@dataclass(frozen=True, slots=True)
class OutputProof:
    """What shows one output: L1 proof nodes, and what the output root is made of.

    Args:
        index: of the output in the oracle.
        account: proof of the oracle's account.
        root_slot, meta_slot: proofs of its two slots.
        message_passer: storage root of the L2's message passer.
        header: RLP of the L2 block header.
    """

    index: int
    account: tuple[bytes, ...]
    root_slot: tuple[bytes, ...]
    meta_slot: tuple[bytes, ...]
    message_passer: bytes
    header: bytes


def output_root(state_root: bytes, message_passer: bytes, block_hash: bytes) -> bytes:
    """Return the commitment to an L2 block (version 0)."""
    return keccak(_VERSION + state_root + message_passer + block_hash)


def header_fields(header: bytes) -> tuple[bytes, int, bytes, int]:
    """Return (hash, number, state root, timestamp) of a block header's RLP.

    Raises:
        ValueError: it is no block header.
    """
    fields = rlp.decode(header)
    if not isinstance(fields, list) or len(fields) < 15:
        raise ValueError("a block header has at least 15 fields")
    state, number, timestamp = fields[_STATE], fields[_NUMBER], fields[11]
    if not isinstance(state, bytes) or len(state) != 32:
        raise ValueError("state root of a header")
    if not isinstance(number, bytes) or not isinstance(timestamp, bytes):
        raise ValueError("number or time of a header")
    if number[:1] == b"\0" or timestamp[:1] == b"\0" or len(number) > 8 or len(timestamp) > 8:
        raise ValueError("number or time of a header is not canonical")
    return keccak(header), int.from_bytes(number, "big"), state, int.from_bytes(timestamp, "big")


def verify_output(l1: Anchor, rollup: Rollup, proof: OutputProof) -> Anchor:
    """Return the L2 block that a proven L1 block commits to.

    Args:
        l1: a block that a light client has proven final.
        rollup: whose output.
        proof: from any source.

    Raises:
        BadOutput: it does not follow, or the challenge period is not over.
    """
    posted, number, root = _stored(l1, rollup, proof)
    if root == 0:
        raise BadOutput(Reason.BAD_PROOF, f"there is no output {proof.index}")
    age = l1.timestamp - posted
    if age < rollup.challenge_period_s:
        raise BadOutput(
            Reason.TOO_FAR_AHEAD,
            f"posted {age} s ago, disputable for {rollup.challenge_period_s} s",
        )
    try:
        block_hash, height, state, timestamp = header_fields(proof.header)
    except ValueError as error:
        raise BadOutput(Reason.MALFORMED, str(error)) from error
    if len(proof.message_passer) != 32:
        raise BadOutput(Reason.MALFORMED, "root of the message passer")
    if output_root(state, proof.message_passer, block_hash) != root.to_bytes(32, "big"):
        raise BadOutput(Reason.BAD_PROOF, "the header is not what the output root commits to")
    if height != number:
        raise BadOutput(Reason.BAD_PROOF, f"the output is of block {number}, not {height}")
    ref = BlockRef(rollup.chain, BlockNumber(height), block_hash)
    return Anchor(ref, state, Timestamp(timestamp))


def _stored(l1: Anchor, rollup: Rollup, proof: OutputProof) -> tuple[int, int, int]:
    """Return (time posted, L2 number, output root) as the oracle stores them."""
    first, second = rollup.slots(proof.index)
    try:
        storage = mpt.prove_account(l1.state_root, rollup.oracle, proof.account)[2]
        root = mpt.prove_slot(storage, first, proof.root_slot)
        meta = mpt.prove_slot(storage, second, proof.meta_slot)
    except mpt.BadProof as error:
        raise BadOutput(Reason.BAD_PROOF, str(error)) from error
    return meta % 2**128, meta >> 128, root


def prove_l2_account(l2: Anchor, address: bytes, nodes: Sequence[bytes]) -> tuple[int, int, bytes]:
    """Return (nonce, balance, storage root) of an account of the L2 block.

    Raises:
        BadOutput: the nodes do not prove it.
    """
    try:
        return mpt.prove_account(l2.state_root, address, nodes)[:3]
    except mpt.BadProof as error:
        raise BadOutput(Reason.BAD_PROOF, str(error)) from error
