"""The watcher of one chain: final blocks into the index, feeds into prices.

    Chain.run ─▶ Finalized(ref) ─▶ headers back to the newest indexed block, by parent hash
                                └▶ their logs, one block at a time ─▶ AccountIndex
    refresh ─▶ latestRoundData of every feed at the head ─▶ prices

    now and then ─▶ a share of the index, proven (`audit.py`) ─▶ distrusted where it is wrong

A keeper that starts late folds all history up to the final block at once, and follows from there.
A price carries the time it was published, so an old answer is no lie: whoever cannot wait for a
read takes the last one, and the read goes on.
"""

from collections.abc import Sequence

import structlog
import trio

from keeper.chain.port import (
    BlockRef,
    Call,
    Chain,
    ChainEvent,
    DeepReorg,
    Finalized,
    Header,
    Level,
    Stalled,
)
from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.network import ChainSpec
from keeper.observe.accounts import AccountIndex
from keeper.observe.audit import Auditor
from keeper.observe.observation import SeenPrice
from keeper.observe.table import Log
from keeper.reasons import Reason
from keeper.units import PRICE_DECIMALS, BlockNumber

log = structlog.get_logger(__name__)

LATEST_ROUND = keccak(b"latestRoundData()")[:4]
DECIMALS = keccak(b"decimals()")[:4]
AUDIT_S = 10.0
"""Between two shares of the index that are proven: a proof of 256 slots is a heavy question."""
RETRY_S = 0.5
"""Pause after an endpoint's fault: half a block of the fastest chain we watch."""


class Watcher:
    """Keeps the index of one chain and reads its feeds.

    Args:
        spec: which contracts and feeds.
        chain: the chain's port.
    """

    def __init__(self, spec: ChainSpec, chain: Chain) -> None:
        self.spec, self.chain = spec, chain
        self.index = AccountIndex(spec.id)
        self.moved = trio.Event()
        self.prices: tuple[SeenPrice, ...] = ()
        self._wanted, self._read = trio.Event(), trio.Event()
        self._auditor = Auditor(spec, chain)
        self._trouble, self._wrong, self._unproven = "", "", ""
        self._decimals: dict[bytes, int] = {}
        self._addresses = tuple(address for _, address in spec.contracts)

    @property
    def trouble(self) -> str:
        """What an operator should know, or nothing."""
        return self._wrong or self._trouble

    async def run(self) -> None:
        """Follow the chain and its feeds until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_feeds)
            nursery.start_soon(self._audit)
            while True:
                await self.chain.run(self._take)
                self._trouble = "the chain went back beyond what it had made final"
                log.error("deep_reorg", chain=self.spec.id)
                await trio.sleep(RETRY_S)

    async def _take(self, event: ChainEvent) -> None:
        match event:
            case Finalized(ref):
                await self._index_up_to(ref)
            case Stalled(_, seconds, why):
                self._trouble = f"no new block for {seconds} s: {why}"
                log.warning("chain_stalled", chain=self.spec.id, seconds=seconds, why=why)
            case DeepReorg(ref):
                self._trouble = f"reorg below finality at {ref}"
            case _:
                self._trouble = ""

    async def _index_up_to(self, ref: BlockRef) -> None:
        """Take every final block up to `ref`, asking again until an endpoint answers."""
        while True:
            try:
                newest = self.index.newest
                if newest is None:
                    await self._begin(ref)
                elif ref.number > newest.number:
                    for header in await self._headers_after(newest.number, newest.hash, ref):
                        await self._append(header)
            except RemoteFault as fault:
                self._trouble = str(fault)
                log.warning("index_waits", chain=self.spec.id, error=str(fault))
                await trio.sleep(RETRY_S)
            else:
                self._trouble = ""
                return

    async def _begin(self, ref: BlockRef) -> None:
        header = await self._header(ref.hash)
        first = BlockNumber(self.spec.start_block)
        logs = await self.chain.history(self._addresses, first, ref)
        self._add(header, [Log(one.address, one.topics, one.data) for one in logs])

    async def _append(self, header: Header) -> None:
        logs = await self.chain.logs(self._addresses, header.ref)
        self._add(header, [Log(one.address, one.topics, one.data) for one in logs])

    def _add(self, header: Header, logs: Sequence[Log]) -> None:
        self.index.append(header.ref.number, header.ref.hash, header.timestamp, logs)
        self.moved.set()
        self.moved = trio.Event()

    async def _headers_after(self, number: int, block_hash: bytes, ref: BlockRef) -> list[Header]:
        """Return the headers after an indexed block up to `ref`, oldest first."""
        headers: list[Header] = []
        wanted = ref.hash
        for height in range(ref.number, number, -1):
            header = await self._header(wanted)
            if header.ref.number != height:
                raise RemoteFault(
                    f"chain {self.spec.id}", Reason.MALFORMED, f"{header.ref} is not block {height}"
                )
            headers.append(header)
            wanted = header.parent
        if wanted != block_hash:
            raise RemoteFault(
                f"chain {self.spec.id}",
                Reason.MISSING_BLOCK,
                f"block {number} is no ancestor of final block {ref.number}",
            )
        headers.reverse()
        return headers

    async def _header(self, block_hash: bytes) -> Header:
        header = await self.chain.block(block_hash)
        if header is None:
            raise RemoteFault(f"chain {self.spec.id}", Reason.MISSING_BLOCK, block_hash.hex())
        return header

    async def _audit(self) -> None:
        """Prove a share of the index now and then; stop believing it once it is wrong."""
        while not self._wrong:
            await trio.sleep(AUDIT_S)
            newest = self.index.newest
            if newest is None:
                continue
            try:
                header = await self._header(newest.hash)
                wrong = await self._auditor.check(newest.table, header)
            except RemoteFault as fault:
                if self._unproven != str(fault):
                    self._unproven = str(fault)
                    log.warning("index_unproven", chain=self.spec.id, error=self._unproven)
                continue
            if wrong:
                self.index.distrusted = True
                self._wrong = f"the logs of this chain are not its state: {wrong[0]}"
                log.error("index_wrong", chain=self.spec.id, block=newest.number, wrong=wrong)

    async def refresh(self) -> None:
        """Return once `prices` is what the feeds say now, or they were found not to answer.

        Safe to cancel: the read goes on, and the next caller has its answer.
        """
        if self.spec.feeds:
            done = self._read
            self._wanted.set()
            await done.wait()

    async def _follow_feeds(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted = trio.Event()
            try:
                self.prices = await self._feeds()
            except RemoteFault as fault:
                self._trouble = str(fault)
            self._read.set()
            self._read = trio.Event()

    async def _feeds(self) -> tuple[SeenPrice, ...]:
        """Return what every feed of this chain says at its head."""
        head = await self.chain.head(Level.UNSAFE)
        await self._learn_decimals(head.ref)
        calls = [Call(feed.address, LATEST_ROUND) for feed in self.spec.feeds]
        answers = await self.chain.calls(calls, head.ref)
        seen = []
        for feed, answer in zip(self.spec.feeds, answers, strict=True):
            if not answer.ok or len(answer.output) != 5 * 32:
                continue
            price = int.from_bytes(answer.output[32:64], "big", signed=True)
            updated = int.from_bytes(answer.output[96:128], "big")
            shift = PRICE_DECIMALS - self._decimals[feed.address]
            price = price * 10**shift if shift >= 0 else price // 10**-shift
            if 0 < price < 2**63 and updated < 2**63:
                seen.append(SeenPrice(feed.market, price, updated))
        return tuple(seen)

    async def _learn_decimals(self, ref: BlockRef) -> None:
        if self._decimals:
            return
        calls = [Call(feed.address, DECIMALS) for feed in self.spec.feeds]
        learned: dict[bytes, int] = {}
        for feed, answer in zip(self.spec.feeds, await self.chain.calls(calls, ref), strict=True):
            decimals = int.from_bytes(answer.output, "big") if answer.ok else -1
            if not 0 <= decimals <= 36:
                raise RemoteFault(
                    f"chain {self.spec.id}",
                    Reason.MALFORMED,
                    f"the feed 0x{feed.address.hex()} has no decimals(): is its address right?",
                )
            learned[feed.address] = decimals
        self._decimals = learned
