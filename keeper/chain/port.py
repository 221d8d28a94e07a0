"""What the rest of the keeper knows of a chain: heads that can be taken back, and proven reads.

    run(emit):   Advance(3) Advance(4) Retract(4) Advance(4') Finalized(2) ...
                 a Retract always comes before the Advance that replaces it, newest block first

    head ──▶ BlockRef ──▶ call / logs / proof  *at that hash*      submit ──▶ hash ──▶ receipt

Two implementations pass the same tests: `evm.py` over JSON-RPC and `simulated.py` in memory.
Everything derived from a block is keyed by its hash and dropped when the hash is retracted.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from keeper.units import BlockNumber, ChainId, Timestamp, Wei


class Level(StrEnum):
    """How sure a head is."""

    UNSAFE = "unsafe"
    SAFE = "safe"
    FINAL = "final"


@dataclass(frozen=True, slots=True, order=True)
class BlockRef:
    """One block of one chain; numbers of two chains are never compared."""

    chain: ChainId
    number: BlockNumber
    hash: bytes

    def __str__(self) -> str:
        return f"{self.chain}#{self.number}:{self.hash.hex()[:8]}"


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a block header that keepers use; the hash was recomputed from all fields."""

    ref: BlockRef
    parent: bytes
    timestamp: Timestamp
    state_root: bytes
    receipts_root: bytes
    base_fee: Wei
    gas_limit: int
    gas_used: int


@dataclass(frozen=True, slots=True)
class Log:
    """One event; `position` is its index in the block."""

    block: BlockRef
    position: int
    transaction: bytes
    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """A message to a contract, to be read or simulated, never sent."""

    to: bytes
    data: bytes = b""
    sender: bytes = bytes(20)
    value: int = 0


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a call would do at a block: its return data, or the data and text of its revert.

    Clients word a revert differently and estimate gas differently; neither takes part in `==`.
    """

    ok: bool
    output: bytes
    gas: int = field(default=0, compare=False)
    reason: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a mined transaction did. `succeeded` is False for a reverted one, which still pays."""

    transaction: bytes
    block: BlockRef
    succeeded: bool
    gas_used: int
    gas_price: Wei
    logs: tuple[Log, ...]

    @property
    def fee(self) -> Wei:
        """Return what was paid for gas."""
        return Wei(self.gas_used * self.gas_price)


@dataclass(frozen=True, slots=True)
class Fees:
    """What the market for block space looks like now, per gas."""

    base: Wei
    tip: Wei


@dataclass(frozen=True, slots=True)
class AccountProof:
    """An account and storage slots, proven against the state root of `at`.

    Args:
        slots: (slot, value) pairs in the order asked for; an absent slot has value 0.
    """

    at: BlockRef
    address: bytes
    nonce: int
    balance: Wei
    code_hash: bytes
    storage_root: bytes
    slots: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Advance:
    """A block extends the tracked chain."""

    header: Header

    @property
    def ref(self) -> BlockRef:
        """Return the block."""
        return self.header.ref


@dataclass(frozen=True, slots=True)
class Retract:
    """The newest tracked block is no longer part of the chain; depth counts from 1."""

    ref: BlockRef
    depth: int


@dataclass(frozen=True, slots=True)
class Finalized:
    """This block and all before it cannot change, by the chain's finality rule."""

    ref: BlockRef


@dataclass(frozen=True, slots=True)
class Stalled:
    """No new block for longer than the chain's limit, or nobody can be asked."""

    chain: ChainId
    seconds: int
    why: str


@dataclass(frozen=True, slots=True)
class DeepReorg:
    """The chain broke its own finality, or went back beyond the window: trip the breaker.

    Args:
        ref: the new head that does not descend from what was final or tracked.
        tracked: False where the fork lies beyond the window, so that state must be rebuilt.
    """

    ref: BlockRef
    tracked: bool


ChainEvent = Advance | Retract | Finalized | Stalled | DeepReorg
Emit = Callable[[ChainEvent], Awaitable[None]]


class Chain(Protocol):
    """One chain, seen by one keeper.

    Reads at a `BlockRef` are bound to its hash: they raise `RemoteFault` with reason MISSING_BLOCK
    when the chain no longer has that block, and with NO_QUORUM when endpoints disagree.
    """

    @property
    def id(self) -> ChainId:
        """EVM chain id."""
        ...

    async def run(self, emit: Emit) -> None:
        """Follow the chain until cancelled; return only after a DeepReorg beyond the window."""
        ...

    def poke(self) -> None:
        """Look for a new head now: a hint, never the judge."""
        ...

    async def head(self, level: Level = Level.UNSAFE) -> Header:
        """Return the newest block of a level."""
        ...

    async def block(self, block_hash: bytes) -> Header | None:
        """Return the header with this hash, or None."""
        ...

    async def logs(
        self, addresses: Sequence[bytes], at: BlockRef, topics: Sequence[bytes] = ()
    ) -> tuple[Log, ...]:
        """Return the logs of one block in order; `topics` filters by the first topic."""
        ...

    async def history(
        self,
        addresses: Sequence[bytes],
        first: BlockNumber,
        last: BlockRef,
        topics: Sequence[bytes] = (),
    ) -> tuple[Log, ...]:
        """Return the logs of blocks first..last in order, where `last` must still be canonical."""
        ...

    async def calls(self, calls: Sequence[Call], at: BlockRef) -> tuple[Simulation, ...]:
        """Run calls on the state of a block."""
        ...

    async def call(self, to: bytes, data: bytes, at: BlockRef) -> bytes:
        """Return what a contract answers at a block.

        Raises:
            RemoteFault: with reason REVERTED, when the call reverts.
        """
        ...

    async def simulate(self, call: Call, at: BlockRef | None = None) -> Simulation:
        """Run a would-be transaction on a block, or on the newest one, and estimate its gas."""
        ...

    async def proof(self, address: bytes, slots: Sequence[int], at: Header) -> AccountProof:
        """Return an account with storage slots, proven against `at.state_root`."""
        ...

    async def fees(self) -> Fees:
        """Return base fee and usual tip."""
        ...

    async def nonce(self, account: bytes, at: BlockRef | None = None) -> int:
        """Return how many transactions of the account are mined."""
        ...

    async def submit(self, raw: bytes) -> bytes:
        """Broadcast a signed transaction to every endpoint and return its hash.

        Bringing the same bytes again is harmless. Raises RemoteFault with reason TX_REFUSED when
        no endpoint takes it.
        """
        ...

    async def known(self, transactions: Sequence[bytes]) -> tuple[bool, ...]:
        """Return for each whether some endpoint has it, mined or not."""
        ...

    async def receipts(self, transactions: Sequence[bytes]) -> tuple[Receipt | None, ...]:
        """Return the receipt of each on the present chain, or None."""
        ...

    async def receipt(self, transaction: bytes) -> Receipt | None:
        """Return one receipt."""
        ...
