"""The node's record of the competition: what was sealed, seen, decided, bid, awarded and earned.

    seals, final views, reveals, policies, receipts ─▶ queue ─▶ thread ─▶ HOME/records/*.fkrec

A view of 20,000 accounts takes longer to write than the event loop may be away. The record serves
`keeper policy backtest`, `replay`, `explain` and `shadow`; nothing in the node reads it. So a full
or broken disk costs the record and never the keeper: the first failure is logged and ends the
record until the next start, which cuts off what was torn; what is lost is counted.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgpack
import structlog
import trio

from keeper.chain.port import Chain, Receipt
from keeper.compete.bids import decode_reveal
from keeper.compete.state import OpenAward
from keeper.compete.state import decode as decode_state
from keeper.errors import RemoteFault
from keeper.execute.intent import Outcome
from keeper.metrics import Metrics
from keeper.snapshot.archive import Archive
from keeper.snapshot.derive import Snapshot
from keeper.units import ChainId, ceil_div
from keeper.venue.awards import EXECUTED
from policies.api import Act
from policies.books import WEI_PRICE
from policies.record import Awarded, Bid, Decided, Entry, Received, RecordFolder, Sealed, Sent

log = structlog.get_logger(__name__)

QUEUE = 256
"""Entries that wait for the disk: half a minute of a busy node."""
KEPT = 4_096
"""Awards and expectations remembered so that each is written once: far more than can be open."""


Queued = tuple[Entry, bool]
"""(entry, whether the one before it was lost)."""


class Recorder:
    """Writes a node's record.

    Args:
        folder: of the records.
        head: facts for every record's head.
        archive: where sealed views are read.
        chains: asked for receipts.
        metrics: counts what could not be written.
    """

    def __init__(
        self,
        folder: Path,
        head: Mapping[str, object],
        archive: Archive,
        chains: Mapping[ChainId, Chain],
        metrics: Metrics,
    ) -> None:
        self._archive, self._chains = archive, chains
        self._lost = metrics.counter(
            "keeper_record_lost_total", "Entries of the record that could not be written."
        )
        self._awarded: OrderedDict[bytes, int] = OrderedDict()
        self._expected: OrderedDict[bytes, int] = OrderedDict()
        self._into, self._queue = trio.open_memory_channel[Queued](QUEUE)
        self._missed = False
        self._folder: RecordFolder | None = None
        try:
            self._folder = RecordFolder(folder, head)
        except OSError as error:
            self._fail(error)
            return
        if self._folder.damaged:
            log.warning("record_damaged", error=self._folder.damaged)

    async def run(self) -> None:
        """Write what is put, in order, until cancelled; then what is left."""
        try:
            while True:
                entries = [await self._queue.receive(), *self._waiting()]
                with trio.CancelScope(shield=True):  # what was taken is written
                    await trio.to_thread.run_sync(self._write, entries)
        finally:
            self._write(self._waiting())
            if self._folder is not None:
                self._folder.close()

    def _waiting(self) -> list[Queued]:
        found = []
        with suppress(trio.WouldBlock):
            while True:
                found.append(self._queue.receive_nowait())
        return found

    def put(self, entry: Entry) -> None:
        """Queue one entry; never waits."""
        if isinstance(entry, Decided):
            self._expect(entry)
        try:
            self._into.send_nowait((entry, self._missed))
            self._missed = False
        except trio.WouldBlock:
            self._missed = True
            self._lost.inc()

    def _write(self, entries: Sequence[Queued]) -> None:
        for entry, after_a_gap in entries:
            if self._folder is None:
                self._lost.inc()
                continue
            if after_a_gap:
                self._folder.gap()
            try:
                self._folder.append(entry)
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._lost.inc()
        if self._folder is not None:
            with suppress(OSError):  # the disk has just said no
                self._folder.close()
        self._folder = None
        log.warning("record_lost", error=str(error))

    def _expect(self, entry: Decided) -> None:
        for decision in entry.decisions:
            if isinstance(decision, Act):
                _keep(self._expected, decision.task, decision.profit)

    # the network

    def on_seal(self, view: int) -> None:
        """Write a sealed view."""
        found = self._archive.get(view)
        if found is None or found.seal is None:
            return
        seal = b"".join(number.to_bytes(32, "big") for number in found.seal)
        header = msgpack.packb(found.header.to_row())
        self.put(Sealed(view, found.sealed_ms or 0, header, found.root, seal))

    def on_final(self, snapshot: Snapshot) -> None:
        """Write the awards that a final view made."""
        for award in decode_state(snapshot.book.rules["award"]).awards:
            if award.task.id not in self._awarded:
                _keep(self._awarded, award.task.id, award.price)
                subject = award.task.target.subject
                self.put(Awarded(snapshot.header.view, subject, award.ranks, award.price))

    def on_reveal(self, body: bytes) -> None:
        """Write the bids of a revealed body."""
        vector = decode_reveal(body)
        if vector is None:
            return
        for bid in vector.bids:
            self.put(Bid(vector.view, bid.subject, bid.price, vector.bidder))

    async def on_award_run(self, award: OpenAward, rank: int, outcome: Outcome, coin: int) -> None:
        """Write the transaction that carried out an award, and what it earned.

        Args:
            award: which.
            rank: this keeper's.
            outcome: how it ended.
            coin: price of the chain's coin in 10**-8 USD, or 0 where it is not known.
        """
        if not outcome.transaction:
            return
        target = award.task.target
        try:
            receipt = await self._chains[target.chain].receipt(outcome.transaction)
        except RemoteFault:
            receipt = None
        place = (target.subject, "execute", int(target.chain), outcome.transaction)
        self.put(Sent(*place))
        if receipt is None or not coin:
            return  # what cannot be priced is not written down as if it were free
        price = award.price if rank == 0 else 0
        self.put(
            Received(
                *place,
                int(receipt.succeeded),
                receipt.gas_used,
                receipt.gas_price,
                self._expected.get(target.subject, 0) - price,
                earned(award, rank, receipt, coin),
            )
        )


def earned(award: OpenAward, rank: int, receipt: Receipt, coin: int) -> int:
    """Return µUSD that an execution brought: the bonus less the price, if rank 0, and the gas."""
    gas = ceil_div(receipt.fee * coin, WEI_PRICE)
    if not receipt.succeeded:
        return -gas
    bonus = sum(
        int.from_bytes(one.data[96:128], "big")
        for one in receipt.logs
        if one.topics and one.topics[0] == EXECUTED and one.topics[1] == award.task.id
    )
    return bonus - (award.price if rank == 0 else 0) - gas


def _keep(held: OrderedDict[bytes, int], key: bytes, value: int) -> None:
    held[key] = value
    held.move_to_end(key)
    while len(held) > KEPT:
        held.popitem(last=False)
