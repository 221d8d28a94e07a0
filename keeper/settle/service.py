"""Brings sealed decisions to their chains.

    final + sealed ─▶ outstanding decisions ─▶ whose turn? ─▶ intent (key = leaf) ─▶ executor
                                 ▲                                                     │
                                 └── still outstanding after a while: the next one ◄───┘

Anyone may bring a decision, so the members take turns: the leaf says who is first, and after every
`TURN_S` without effect the next one brings it too. A second copy costs nothing: it is simulated
first and refused. A header goes to every chain once in a while, so that a contract or a light
reader always finds a recent one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

from keeper.contracts import encode_call
from keeper.errors import RemoteFault
from keeper.execute.intent import Intent, Lane, Status
from keeper.execute.service import Executor
from keeper.hashing import keccak
from keeper.merkle import merkle_proof
from keeper.metrics import Metrics
from keeper.network import NetworkSpec
from keeper.settle.seals import Certified, certify, leaves_of, seal_tuple
from keeper.settle.turns import TURN_S, turns_before
from keeper.snapshot.archive import Archive, Archived
from keeper.snapshot.decisions import Decision
from keeper.snapshot.derive import Snapshot
from keeper.units import BlockNumber, ChainId, Wei
from keeper.venue.calls import bring
from keeper.venue.port import Call

log = structlog.get_logger(__name__)

HEADER_S = 5.0
"""How often a header is posted to each chain."""
FEE_CAP = Wei(5 * 10**16)
"""Most that one settlement transaction may cost, in wei."""
DEADLINE_BLOCKS = 200
"""For decisions that never expire."""
CARRIED = frozenset(
    {
        *("Credit", "Release", "Transfer", "Penalty", "Attestation", "BreakerChange"),
        *("FlowOutcome", "Filled", "Unfilled", "CommitteeChange", "Stop"),
    }
)
"""Awards are run by their winners (keeper/settle/awards.py)."""


@dataclass(slots=True)
class _Item:
    decision: Decision
    view: int
    since: float
    busy: bool = False
    tried: int = 0
    deadline: int = 0


class Carrier:
    """Brings decisions of one epoch, as member `me` of `size`."""

    def __init__(
        self,
        network: NetworkSpec,
        archive: Archive,
        executor: Executor,
        me: int,
        size: int,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network, self._archive, self._executor = network, archive, executor
        self._me, self._size, self._clock = me, size, clock
        self._items: dict[bytes, _Item] = {}
        self._wake = trio.Event()
        self._posted: dict[ChainId, float] = {}
        self._brought = metrics.counter(
            "keeper_decisions_brought_total", "Decisions brought to a chain.", ("kind", "status")
        )
        self._waiting = metrics.gauge(
            "keeper_decisions_outstanding", "Decisions sealed and not yet seen on their chain."
        )

    def on_final(self, snapshot: Snapshot) -> None:
        """Take note of what is outstanding after a final view."""
        view, now = snapshot.header.view, self._clock()
        fresh = {decision.leaf for decision in snapshot.decisions}
        current = {d.leaf: d for d in snapshot.book.outstanding if d.kind in CARRIED}
        for leaf in set(self._items) - set(current):
            del self._items[leaf]
        for leaf, decision in current.items():
            if leaf not in self._items:
                at = view if leaf in fresh else 0
                self._items[leaf] = _Item(decision, at, now)
        self._waiting.set(len(self._items))
        self.poke()

    def poke(self) -> None:
        """Look again now: a seal has come, or a block."""
        self._wake.set()

    async def run(self) -> None:
        """Bring what is due until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                for item in list(self._items.values()):
                    if self._due(item):
                        item.busy, item.tried = True, item.tried + 1
                        nursery.start_soon(self._carry, item)
                self._post_headers(nursery)
                with trio.move_on_after(1.0):
                    await self._wake.wait()

    def _due(self, item: _Item) -> bool:
        if item.busy:
            return False
        first = int.from_bytes(item.decision.leaf[:4], "big")
        turns = turns_before(self._me, self._size, first, item.tried)
        return self._clock() >= item.since + TURN_S * turns

    async def _carry(self, item: _Item) -> None:
        try:
            certified = self._certified(item)
            if certified is None:
                item.tried -= 1
                return
            status = await self._submit(certified, item.deadline)
            self._brought.labels(item.decision.kind, status.value).inc()
            log.debug("brought", kind=item.decision.kind, status=status.value)
        except RemoteFault as fault:
            log.warning("bring_failed", kind=item.decision.kind, error=str(fault))
        finally:
            item.busy = False

    def _certified(self, item: _Item) -> Certified | None:
        """Return the decision with its proof, or None while its view is not sealed here."""
        archived = (
            self._archive.get(item.view)
            if item.view
            else self._archive.find_leaf(item.decision.leaf, 0)
        )
        if archived is None or archived.seal is None:
            return None
        item.deadline = item.decision.expiry or _deadline(archived, item.decision.chain)
        return certify(self._network.id, archived, item.decision.leaf)

    async def _submit(self, certified: Certified, deadline: int) -> Status:
        decision = certified.decision
        call = bring(decision, certified.seal, certified.proof)
        key = keccak(decision.leaf + certified.seal[2])  # sealed again later, it is another task
        intent = self._intent(key, call, deadline, f"bring {decision.kind}")
        outcome = await self._executor.submit(intent)
        return outcome.status

    def _intent(self, key: bytes, call: Call, deadline: int, why: str) -> Intent:
        return Intent(
            key=key,
            chain=call.chain,
            lane=Lane.SETTLEMENT,
            to=call.to,
            data=call.data,
            deadline=BlockNumber(deadline),
            fee_cap=FEE_CAP,
            why=why,
        )

    # headers

    def _post_headers(self, nursery: trio.Nursery) -> None:
        archived = self._archive.newest_sealed()
        if archived is None or archived.header.view % self._size != self._me:
            return
        now = self._clock()
        for chain in self._network.chains:
            if now - self._posted.get(chain.id, -HEADER_S) >= HEADER_S * self._size:
                self._posted[chain.id] = now
                nursery.start_soon(self._post_header, chain.id, archived)

    async def _post_header(self, chain: ChainId, archived: Archived) -> None:
        snapshots = self._network.chain(chain).contract("Snapshots")
        if snapshots is None:
            return
        leaves = leaves_of(self._network.id, archived)
        data = encode_call(
            "Snapshots",
            "record_header",
            seal_tuple(archived),
            list(merkle_proof(leaves, 0)),
            archived.header.hash(),
        )
        key = keccak(b"header" + chain.to_bytes(8, "big") + archived.root)
        call = Call(chain, snapshots, data)
        intent = self._intent(key, call, _deadline(archived, chain), "post a header")
        try:
            await self._executor.submit(intent)
        except RemoteFault as fault:
            log.warning("header_not_posted", chain=chain, error=str(fault))


def _deadline(archived: Archived, chain: ChainId) -> int:
    """Return the last block for what does not expire: fixed by its view, so a retry is the same."""
    height = next((ref.number for ref in archived.header.cut if ref.chain == chain), 0)
    return height + DEADLINE_BLOCKS
