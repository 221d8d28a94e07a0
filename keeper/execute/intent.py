"""What is to be done on a chain, and what became of it.

    Intent ──▶ ledger ──▶ lane ──▶ chain ──▶ Outcome

An intent holds no nonce, fee or key: its lane owns those. Its key is the task's id: bringing the
same intent again joins the first one, so nothing is done twice.
"""

from dataclasses import dataclass
from enum import StrEnum

from keeper.hashing import keccak
from keeper.reasons import Reason
from keeper.units import BlockNumber, ChainId, Wei


class Lane(StrEnum):
    """Each lane has its own account, so a stuck one delays only itself."""

    URGENT = "urgent"
    SETTLEMENT = "settlement"
    HOUSEKEEPING = "housekeeping"


class Mode(StrEnum):
    """How far an intent may go; `modes.equip` is where it is decided."""

    OFF = "off"
    SHADOW = "shadow"
    DRY = "dry"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Effect:
    """A read that shows whether the intent's effect is on the chain already.

    Args:
        to: contract asked.
        data: call data.
        expect: what it returns once the effect is there.
    """

    to: bytes
    data: bytes
    expect: bytes


@dataclass(frozen=True, slots=True)
class Intent:
    """One transaction wanted.

    Args:
        key: task id and idempotency key, 1 to 64 bytes.
        chain: where.
        lane: whose account sends it.
        to: contract, 20 bytes.
        data: call data.
        deadline: the last block in which it may be mined; fixed once, never moved.
        fee_cap: the most that may be spent on gas, from the task's value.
        value: native coin sent along.
        why: one sentence for the operator.
        effect: shows after a crash whether it was done; None where the hashes are enough.
    """

    key: bytes
    chain: ChainId
    lane: Lane
    to: bytes
    data: bytes
    deadline: BlockNumber
    fee_cap: Wei
    value: int = 0
    why: str = ""
    effect: Effect | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.key) <= 64:
            raise ValueError(f"key has {len(self.key)} bytes, needs 1 to 64")
        if len(self.to) != 20:
            raise ValueError(f"to has {len(self.to)} bytes, needs 20")
        if self.value < 0 or self.fee_cap < 0:
            raise ValueError("value and fee cap cannot be negative")

    @property
    def digest(self) -> bytes:
        """Return what must be equal for two intents of one key to be the same."""
        fixed = f"{self.chain}|{self.lane.value}|{self.value}|{self.deadline}|"
        return keccak(fixed.encode() + self.to + self.data)


class State(StrEnum):
    """Where a task is; the arrows are in `ledger.py`."""

    PLANNED = "planned"
    SIGNED = "signed"
    SENT = "sent"
    MINED = "mined"
    FINAL = "final"
    DROPPED = "dropped"
    SUPERSEDED = "superseded"


CLOSED = frozenset({State.FINAL, State.DROPPED, State.SUPERSEDED})


class Status(StrEnum):
    """What a submitter is told."""

    SUCCEEDED = "succeeded"
    REVERTED = "reverted"
    DROPPED = "dropped"
    SUPERSEDED = "superseded"
    REHEARSED = "rehearsed"
    RECORDED = "recorded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a task.

    Args:
        status: SUCCEEDED only with a receipt of a transaction that did not revert.
        reason: why not, where it did not.
        transaction: hash of the one that was mined, or empty.
        block: number of the block it was mined in, or 0.
        block_hash: its hash, or empty.
        fee: what was paid for gas, of whichever attempt was mined.
        detail: the values.
    """

    key: bytes
    status: Status
    reason: Reason | None = None
    transaction: bytes = b""
    block: int = 0
    block_hash: bytes = b""
    fee: int = 0
    detail: str = ""

    @property
    def succeeded(self) -> bool:
        """Return whether the effect happened through us."""
        return self.status is Status.SUCCEEDED
