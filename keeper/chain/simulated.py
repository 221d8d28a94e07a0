"""The chain port in memory: a small deterministic EVM-like chain with knobs for its faults.

    mempool ──mine()──▶ block ──▶ block ──▶ block        reorg(2): two blocks are taken back and
                          └──▶ block' ──▶ block'         replaced, dropped transactions are gone

Signed type 2 transactions, nonces, fees, replacement by 10 %, reverts, logs and receipts behave as
on a node; contracts are Python functions. Same tests as `evm.py`. Time is trio's, so a test may
run it on a mock clock; blocks come from `mine`, never by themselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio
from eth_account import Account

from keeper.chain import mpt, rlp
from keeper.chain.finality import Anchored, Depth
from keeper.chain.port import (
    AccountProof,
    BlockRef,
    Call,
    Emit,
    Fees,
    Header,
    Level,
    Log,
    Receipt,
    Simulation,
    Stalled,
)
from keeper.chain.tracker import WINDOW, Event, Tracker, Wants
from keeper.errors import RemoteFault
from keeper.hashing import abi_hash, keccak
from keeper.reasons import Reason
from keeper.units import BlockNumber, ChainId, Timestamp, Wei

_INTRINSIC_GAS = 21_000
_GENESIS_TIME = 1_700_000_000


class Reverted(Exception):
    """A contract refuses."""

    def __init__(self, output: bytes = b"") -> None:
        super().__init__(output.hex())
        self.output = output


@dataclass(slots=True)
class World:
    """Balances, nonces and storage after a block."""

    balances: dict[bytes, int] = field(default_factory=dict)
    nonces: dict[bytes, int] = field(default_factory=dict)
    storage: dict[tuple[bytes, int], int] = field(default_factory=dict)

    def copy(self) -> "World":
        """Return an independent copy."""
        return World(dict(self.balances), dict(self.nonces), dict(self.storage))

    def digest(self) -> bytes:
        """Return a hash of everything: the simulated state root."""
        parts = [repr(sorted(each.items())) for each in (self.balances, self.nonces, self.storage)]
        return keccak("|".join(parts).encode())


@dataclass(slots=True)
class Frame:
    """What a contract sees of a call; it writes to `world` and appends (topics, data) to `logs`."""

    world: World
    address: bytes
    call: Call
    logs: list[tuple[bytes, tuple[bytes, ...], bytes]] = field(default_factory=list)


Contract = Callable[[Frame], bytes]


@dataclass(frozen=True, slots=True)
class _Transaction:
    hash: bytes
    raw: bytes
    sender: bytes
    nonce: int
    tip: int
    max_fee: int
    gas: int
    call: Call


@dataclass(frozen=True, slots=True)
class _Block:
    header: Header
    world: World
    receipts: dict[bytes, Receipt]
    transactions: tuple[_Transaction, ...]


def _decode(chain: ChainId, raw: bytes) -> _Transaction:
    """Return a signed type 2 transaction (EIP-1559)."""
    try:
        fields = rlp.decode(raw[1:]) if raw[:1] == b"\x02" else []
        numbers = [int.from_bytes(each, "big") for each in fields[:5] if isinstance(each, bytes)]
        to, value, data = fields[5:8]
        sender = bytes.fromhex(Account.recover_transaction(raw)[2:])
    except (ValueError, TypeError, IndexError) as error:
        raise RemoteFault("simulated", Reason.TX_REFUSED, "no type 2 transaction") from error
    assert isinstance(to, bytes)
    assert isinstance(value, bytes)
    assert isinstance(data, bytes)
    chain_id, nonce, tip, max_fee, gas = numbers
    if chain_id != chain:
        raise RemoteFault("simulated", Reason.TX_REFUSED, f"chain id {chain_id}")
    call = Call(to, data, sender, int.from_bytes(value, "big"))
    return _Transaction(keccak(raw), raw, sender, nonce, tip, max_fee, gas, call)


class SimulatedChain:
    """One chain in memory.

    Args:
        chain: its id.
        finality: a depth, or an anchor.
        balances: funded accounts.
        contracts: by address.
        stall_s: as in `EvmChain`.
    """

    def __init__(
        self,
        chain: ChainId,
        finality: Depth | Anchored | None = None,
        *,
        balances: dict[bytes, int] | None = None,
        contracts: dict[bytes, Contract] | None = None,
        stall_s: float = 30.0,
        window: int = WINDOW,
    ) -> None:
        self.id = chain
        self.finality: Depth | Anchored = finality or Depth(2)
        self.contracts = contracts or {}
        self.base_fee, self.tip = Wei(10**9), Wei(10**9)
        self.broken: RemoteFault | None = None
        """Set it, and every question ends in this fault."""
        self.tracker = Tracker(window)
        self._stall_s, self._salt = stall_s, 0
        self._moved = trio.Event()
        self._pool: dict[bytes, _Transaction] = {}
        self._all: dict[bytes, _Block] = {}
        self._blocks: list[_Block] = []
        self._append(World(balances=dict(balances or {})), {}, ())

    # knobs -----------------------------------------------------------------------------------

    def mine(self, blocks: int = 1, *, empty: bool = False) -> BlockRef:
        """Append blocks; the first takes what the mempool offers, unless `empty`."""
        for _ in range(blocks):
            self._mine(() if empty else self._chosen())
            empty = True
        self.poke()
        return self._blocks[-1].header.ref

    def reorg(self, depth: int, *, keep: bool = False, blocks: int | None = None) -> None:
        """Replace the last `depth` blocks by as many, or `blocks`, others.

        Args:
            depth: blocks taken back.
            keep: put their transactions back into the mempool; a real reorg may lose them.
            blocks: length of the new branch; 0 is a rollback.
        """
        gone = self._blocks[-depth:]
        self._blocks = self._blocks[:-depth]
        self._salt += 1
        if keep:
            for block in gone:
                self._pool.update({each.hash: each for each in block.transactions})
        for _ in range(depth if blocks is None else blocks):
            self._mine(())
        self.poke()

    def forget(self) -> None:
        """Empty the mempool."""
        self._pool.clear()

    # blocks ----------------------------------------------------------------------------------

    def _append(
        self, world: World, receipts: dict[bytes, Receipt], mined: tuple[_Transaction, ...]
    ) -> None:
        number = len(self._blocks)
        parent = self._blocks[-1].header.ref.hash if self._blocks else bytes(32)
        ref = BlockRef(self.id, BlockNumber(number), self._hash(number, parent, mined))
        gas = sum(receipt.gas_used for receipt in receipts.values())
        header = Header(
            ref,
            parent,
            Timestamp(_GENESIS_TIME + number),
            world.digest(),
            mpt.EMPTY_ROOT,
            self.base_fee,
            30_000_000,
            gas,
        )
        block = _Block(header, world, receipts, mined)
        self._blocks.append(block)
        self._all[ref.hash] = block

    def _hash(self, number: int, parent: bytes, mined: tuple[_Transaction, ...]) -> bytes:
        content = keccak(b"".join(each.hash for each in mined))
        return abi_hash(
            ("uint64", "uint64", "bytes32", "bytes32", "uint64", "uint256"),
            (self.id, number, parent, content, self._salt, self.base_fee),
        )

    def _chosen(self) -> tuple[_Transaction, ...]:
        """Return what a miner takes: by nonce, each paying the base fee."""
        nonces = dict(self._blocks[-1].world.nonces)
        chosen: list[_Transaction] = []
        for each in sorted(self._pool.values(), key=lambda t: (t.sender, t.nonce)):
            if each.nonce == nonces.get(each.sender, 0) and each.max_fee >= self.base_fee:
                nonces[each.sender] = each.nonce + 1
                chosen.append(each)
        return tuple(chosen)

    def _mine(self, chosen: tuple[_Transaction, ...]) -> None:
        number = len(self._blocks)
        world = self._blocks[-1].world.copy()
        ref = BlockRef(
            self.id,
            BlockNumber(number),
            self._hash(number, self._blocks[-1].header.ref.hash, chosen),
        )
        receipts: dict[bytes, Receipt] = {}
        position = 0
        for each in chosen:
            price = min(each.max_fee, self.base_fee + each.tip)
            ok, _, gas, written = self._execute(world, each.call)
            world.nonces[each.sender] = each.nonce + 1
            world.balances[each.sender] = world.balances.get(each.sender, 0) - gas * price
            logs = tuple(
                Log(ref, position + index, each.hash, *entry) for index, entry in enumerate(written)
            )
            position += len(logs)
            receipts[each.hash] = Receipt(each.hash, ref, ok, gas, Wei(price), logs)
        self._append(world, receipts, chosen)
        nonces = world.nonces
        self._pool = {h: t for h, t in self._pool.items() if t.nonce >= nonces.get(t.sender, 0)}

    def _execute(
        self, world: World, call: Call
    ) -> tuple[bool, bytes, int, list[tuple[bytes, tuple[bytes, ...], bytes]]]:
        """Return (succeeded, output, gas, logs); a revert leaves the world as it was."""
        gas = _INTRINSIC_GAS + 16 * len(call.data)
        before = world.copy()
        if world.balances.get(call.sender, 0) < call.value:
            return False, b"", gas, []
        world.balances[call.sender] = world.balances.get(call.sender, 0) - call.value
        world.balances[call.to] = world.balances.get(call.to, 0) + call.value
        contract = self.contracts.get(call.to)
        if contract is None:
            return True, b"", gas, []
        frame = Frame(world, call.to, call)
        try:
            output = contract(frame)
        except Reverted as revert:
            world.balances, world.nonces = before.balances, before.nonces
            world.storage = before.storage
            return False, revert.output, gas, []
        return True, output, gas, frame.logs

    # the port --------------------------------------------------------------------------------

    async def run(self, emit: Emit) -> None:
        """Follow the chain until cancelled; return only after a DeepReorg beyond the window."""
        while True:
            moved = self._moved
            before = self.tracker.head
            for event in self._steps():
                await emit(event)
            if self.tracker.head is None:
                return
            wait = self._stall_s if self.tracker.head is not before else float("inf")
            with trio.move_on_after(wait) as scope:
                await moved.wait()
            if scope.cancelled_caught:
                await emit(Stalled(self.id, int(self._stall_s), "no new block"))
                await moved.wait()

    def _steps(self) -> list[Event]:
        events: list[Event] = []
        at = self.tracker.head
        if at is None:
            depth = self.finality.blocks if isinstance(self.finality, Depth) else 0
            path = [block.header for block in self._blocks[-1 - depth :]]
        else:
            path = [block.header for block in self._blocks[at.ref.number + 1 :]]
        for header in path or [self._blocks[-1].header]:
            answer = self.tracker.offer(header)
            while isinstance(answer, Wants):
                answer = self.tracker.offer(self._all[answer.hash].header)
            events += answer
            if self.tracker.head is None:
                return events
        final = self._final()
        if final is not None:
            events += self.tracker.finalize(final)
        return events

    def _final(self) -> Header | None:
        match self.finality:
            case Depth(blocks):
                return self._blocks[max(len(self._blocks) - 1 - blocks, 0)].header
            case Anchored(anchor):
                return anchor()

    def poke(self) -> None:
        """Look for a new head now."""
        self._moved.set()
        self._moved = trio.Event()

    async def _asked(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken is not None:
            raise self.broken

    def _at(self, at: BlockRef | None) -> _Block:
        if at is None:
            return self._blocks[-1]
        if at.number < len(self._blocks) and self._blocks[at.number].header.ref == at:
            return self._blocks[at.number]
        raise RemoteFault("simulated", Reason.MISSING_BLOCK, str(at))

    async def head(self, level: Level = Level.UNSAFE) -> Header:
        """Return the newest block of a level."""
        await self._asked()
        final = self._final() if level is Level.FINAL else self._blocks[-1].header
        if final is None:
            raise RemoteFault("simulated", Reason.MISSING_BLOCK, "nothing is final")
        return final

    async def block(self, block_hash: bytes) -> Header | None:
        """Return the header with this hash, or None."""
        await self._asked()
        found = self._all.get(block_hash)
        return None if found is None else found.header

    async def logs(
        self, addresses: Sequence[bytes], at: BlockRef, topics: Sequence[bytes] = ()
    ) -> tuple[Log, ...]:
        """Return the logs of one block."""
        await self._asked()
        return tuple(self._matching(self._at(at), addresses, topics))

    @staticmethod
    def _matching(block: _Block, addresses: Sequence[bytes], topics: Sequence[bytes]) -> list[Log]:
        return [
            log
            for receipt in block.receipts.values()
            for log in receipt.logs
            if log.address in addresses and (not topics or log.topics[:1] in [(t,) for t in topics])
        ]

    async def history(
        self,
        addresses: Sequence[bytes],
        first: BlockNumber,
        last: BlockRef,
        topics: Sequence[bytes] = (),
    ) -> tuple[Log, ...]:
        """Return the logs of first..last in order."""
        await self._asked()
        self._at(last)
        blocks = self._blocks[first : last.number + 1]
        return tuple(log for block in blocks for log in self._matching(block, addresses, topics))

    async def calls(self, calls: Sequence[Call], at: BlockRef) -> tuple[Simulation, ...]:
        """Run calls on the state of a block."""
        await self._asked()
        return tuple([self._simulated(call, at) for call in calls])

    def _simulated(self, call: Call, at: BlockRef | None) -> Simulation:
        ok, output, gas, _ = self._execute(self._at(at).world.copy(), call)
        return Simulation(ok, output, gas if ok else 0, "" if ok else "execution reverted")

    async def call(self, to: bytes, data: bytes, at: BlockRef) -> bytes:
        """Return what a contract answers at a block; a revert raises REVERTED."""
        (found,) = await self.calls([Call(to, data)], at)
        if not found.ok:
            raise RemoteFault("0x" + to.hex(), Reason.REVERTED, found.reason)
        return found.output

    async def simulate(self, call: Call, at: BlockRef | None = None) -> Simulation:
        """Run a would-be transaction."""
        await self._asked()
        return self._simulated(call, at)

    async def proof(self, address: bytes, slots: Sequence[int], at: Header) -> AccountProof:
        """Return an account with slots; the simulated state needs no proof."""
        await self._asked()
        world = self._at(at.ref).world
        return AccountProof(
            at.ref,
            address,
            world.nonces.get(address, 0),
            Wei(world.balances.get(address, 0)),
            mpt.EMPTY_CODE if address not in self.contracts else keccak(address),
            mpt.EMPTY_ROOT,
            tuple([(slot, world.storage.get((address, slot), 0)) for slot in slots]),
        )

    async def fees(self) -> Fees:
        """Return base fee and usual tip."""
        await self._asked()
        return Fees(self.base_fee, self.tip)

    async def nonce(self, account: bytes, at: BlockRef | None = None) -> int:
        """Return how many transactions of the account are mined."""
        await self._asked()
        return self._at(at).world.nonces.get(account, 0)

    async def submit(self, raw: bytes) -> bytes:
        """Take a signed transaction into the mempool, as a node would."""
        await self._asked()
        new = _decode(self.id, raw)
        world = self._blocks[-1].world
        if new.hash in self._pool or any(new.hash in b.receipts for b in self._blocks):
            return new.hash
        if new.nonce < world.nonces.get(new.sender, 0):
            raise RemoteFault("simulated", Reason.TX_REFUSED, "nonce too low")
        if world.balances.get(new.sender, 0) < new.gas * new.max_fee + new.call.value:
            raise RemoteFault("simulated", Reason.TX_REFUSED, "insufficient funds for gas")
        for old in list(self._pool.values()):
            if (old.sender, old.nonce) == (new.sender, new.nonce):
                if new.tip * 10 < old.tip * 11 or new.max_fee * 10 < old.max_fee * 11:
                    raise RemoteFault("simulated", Reason.TX_REFUSED, "replacement underpriced")
                del self._pool[old.hash]
        self._pool[new.hash] = new
        return new.hash

    async def known(self, transactions: Sequence[bytes]) -> tuple[bool, ...]:
        """Return for each whether it is pending or mined."""
        found = await self.receipts(transactions)
        return tuple(
            [
                receipt is not None or transaction in self._pool
                for transaction, receipt in zip(transactions, found, strict=True)
            ]
        )

    async def receipts(self, transactions: Sequence[bytes]) -> tuple[Receipt | None, ...]:
        """Return the receipt of each on the present chain, or None."""
        await self._asked()
        mined: dict[bytes, Receipt] = {}
        for block in self._blocks:
            mined.update(block.receipts)
        return tuple([mined.get(each) for each in transactions])

    async def receipt(self, transaction: bytes) -> Receipt | None:
        """Return one receipt."""
        return (await self.receipts([transaction]))[0]
