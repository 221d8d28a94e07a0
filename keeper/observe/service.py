"""The watcher of one chain: final blocks into the index, feeds into prices.

    Chain.run ─▶ Finalized(ref) ─▶ headers back to the newest indexed block, by parent hash
                                ├▶ their logs, one block at a time ─▶ AccountIndex
                                └▶ another block at its height: finality is broken, say so and stop
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
from keeper.chain.port import Log as ChainLog
from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.network import ChainSpec
from keeper.observe.accounts import AccountIndex, Indexed
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
        self._final: BlockRef | None = None
        self._finalized = trio.Event()
        self._wrong, self._broken, self._unproven = "", "", ""
        self._chain_trouble, self._index_trouble, self._feed_trouble = "", "", ""
        self._decimals: dict[bytes, int] = {}
        self._addresses = tuple(address for _, address in spec.contracts)

    @property
    def trouble(self) -> str:
        """What an operator should know, or nothing."""
        lasting, passing = self._wrong or self._broken, self._index_trouble or self._chain_trouble
        return lasting or passing or self._feed_trouble

    async def run(self) -> None:
        """Follow the chain and its feeds until cancelled."""
        async with trio.open_nursery() as nursery:
            for task in (self._follow_finals, self._follow_feeds, self._audit):
                nursery.start_soon(task)
            while True:
                await self.chain.run(self._take)
                self._chain_trouble = "the chain went back beyond what it had made final"
                log.error("deep_reorg", chain=self.spec.id)
                await trio.sleep(RETRY_S)

    async def _take(self, event: ChainEvent) -> None:
        match event:
            case Finalized(ref):
                self._final = ref
                self._finalized.set()
            case Stalled(_, seconds, why):
                self._chain_trouble = f"no new block for {seconds} s: {why}"
                log.warning("chain_stalled", chain=self.spec.id, seconds=seconds, why=why)
            case DeepReorg(ref):
                self._chain_trouble = f"reorg below finality at {ref}"
                log.error("deep_reorg", chain=self.spec.id, block=ref.number)
            case _:
                self._chain_trouble = ""

    # the index -------------------------------------------------------------------------------

    async def _follow_finals(self) -> None:
        """Take every final block, asking again until an endpoint answers."""
        while not self._broken:
            await self._finalized.wait()
            self._finalized = trio.Event()
            if self._final is not None and not await self._indexed(self._final):
                self._finalized.set()
                await trio.sleep(RETRY_S)

    async def _indexed(self, ref: BlockRef) -> bool:
        """Take the final blocks up to `ref`; return whether that was possible now."""
        try:
            newest = self.index.newest
            if newest is None:
                await self._begin(self.index, await self._header(ref.hash))
            elif ref.number > newest.number:
                first, *following = await self._ancestors(ref, newest.number)
                if first.ref.hash != newest.hash:
                    await self._contradicted(newest, first)
                    return True
                for header in following:
                    await self._append(self.index, header)
        except RemoteFault as fault:
            self._index_trouble = str(fault)
            log.warning("index_waits", chain=self.spec.id, error=str(fault))
            return False
        self._index_trouble = ""
        return True

    async def _begin(self, index: AccountIndex, header: Header) -> None:
        first = BlockNumber(self.spec.start_block)
        self._add(index, header, await self.chain.history(self._addresses, first, header.ref))

    async def _append(self, index: AccountIndex, header: Header) -> None:
        self._add(index, header, await self.chain.logs(self._addresses, header.ref))

    def _add(self, index: AccountIndex, header: Header, logs: Sequence[ChainLog]) -> None:
        records = [Log(one.address, one.topics, one.data) for one in logs]
        index.append(header.ref.number, header.ref.hash, header.timestamp, records)
        self.moved.set()
        self.moved = trio.Event()

    async def _contradicted(self, newest: Indexed, now: Header) -> None:
        """Keep what the chain now says of the blocks that were final, and follow it no further.

        Keepers that all say so make the network curse the chain (`margin/breaker.py`), and only a
        person lifts that. `now` stands at the height of `newest`.
        """
        said = {head.number: head.hash for head in self.index.recent()}
        changed = [now]
        while said.get(changed[0].ref.number - 1, changed[0].parent) != changed[0].parent:
            changed.insert(0, await self._header(changed[0].parent))
        index = AccountIndex(self.spec.id)
        await self._begin(index, changed[0])
        for header in changed[1:]:
            await self._append(index, header)
        index.distrusted = self.index.distrusted
        self.index = index
        self._broken = (
            f"the chain broke its finality: block {newest.number} was 0x{newest.hash.hex()}"
            f" and is 0x{now.ref.hash.hex()}; restart the keeper once it is clear which one stands"
        )
        log.error("finality_broken", chain=self.spec.id, block=newest.number)

    async def _ancestors(self, ref: BlockRef, number: int) -> list[Header]:
        """Return the headers from a height up to `ref`, by parent hash, oldest first."""
        headers: list[Header] = []
        wanted = ref.hash
        for height in range(ref.number, number - 1, -1):
            header = await self._header(wanted)
            if header.ref.number != height:
                raise RemoteFault(
                    f"chain {self.spec.id}", Reason.MALFORMED, f"{header.ref} is not block {height}"
                )
            headers.append(header)
            wanted = header.parent
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

    # prices ----------------------------------------------------------------------------------

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
                self._feed_trouble = str(fault)
            else:
                self._feed_trouble = ""
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
