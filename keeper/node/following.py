"""Follows this keeper's own transfers: one look at all of them, what it changes, and what is said.

    executor's tasks ─▶ receipts ─▶ what bridges say was sent ─┐
    newest heads ─▶ balances, stages ──────────────────────────┼─▶ Facts ─▶ advance ─▶ disk
    final blocks ─▶ stages ─▶ logs that prove the delivery ────┘

Balances and stages are read at the same blocks, so that funds are in one place or on their way,
never both; and a bridge's word that it delivered counts only with the token's own log of it. A
chain that cannot be asked shows nothing new, and hides nothing of the others.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog
import trio

from keeper.chain.port import BlockRef, Call, Chain, Level, Receipt
from keeper.config import RoutingLimits
from keeper.errors import RemoteFault
from keeper.execute.intent import State as TaskState
from keeper.execute.ledger import Task
from keeper.execute.profit import net_flows
from keeper.execute.service import Executor
from keeper.metrics import Metrics
from keeper.node import funds
from keeper.route.bridges.port import Bridge, Read, Stage, Transfer
from keeper.route.reader import read_all, read_heads
from keeper.route.shipment_book import ShipmentBook
from keeper.route.shipments import (
    NOTHING,
    Facts,
    Place,
    Shipment,
    State,
    advance,
    effects,
    transfer_of,
    trouble,
)
from keeper.units import BlockNumber, ChainId
from keeper.venue.abi import calldata

log = structlog.get_logger(__name__)

GRACE_MS = 10_000
"""Time from a shipment's decision to its task, before it counts as never sent: the journal writes
in milliseconds, also for a sender that was cancelled meanwhile."""
SEARCH_MS, MOST_SEARCH_MS = 5_000, 600_000
"""Pause after a search of logs that did not show a delivery; doubled each time, up to the other."""
SHOWN = 20
"""Shipments in the status."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found.

    Args:
        heads, finals: newest and newest final block of the chains that answered.
        balances: of own tokens at the heads.
        facts: of open shipments, by id.
    """

    heads: Mapping[ChainId, BlockRef]
    finals: Mapping[ChainId, BlockRef]
    balances: Mapping[Place, int]
    facts: Mapping[bytes, Facts]


@dataclass(frozen=True, slots=True)
class _Mined:
    """What executor and origin say of one shipment's main transaction."""

    task: Task | None
    receipt: Receipt | None


class Follower:
    """All shipments of this keeper, and what became of them.

    Args:
        executor: has their tasks.
        chains: all of the network.
        bridges: those that are configured.
        account: whose transfers these are.
        limits: when one is late, and how long ended ones count.
        book: where they are kept.
        tokens: address of the token at every own place.
        metrics: the instruments.
    """

    def __init__(
        self,
        executor: Executor,
        chains: Mapping[ChainId, Chain],
        bridges: Sequence[Bridge],
        account: bytes,
        limits: RoutingLimits,
        book: ShipmentBook,
        tokens: Mapping[Place, bytes],
        metrics: Metrics,
    ) -> None:
        self._executor, self._chains, self._account = executor, chains, account
        self._limits, self._book, self._tokens = limits, book, tokens
        self._bridges = {
            (bridge.address(crossing), crossing): bridge
            for bridge in bridges
            for crossing in bridge.crossings()
        }
        self._kept = {one.id: one for one in book.all()}
        self._sending: set[bytes] = set()
        self._watched: set[bytes] = set()
        self._written_off = False
        self._effects: dict[bytes, tuple[int, int]] | None = None
        self._places: dict[bytes, int] = {}
        self._searches: dict[bytes, tuple[int, int]] = {}
        self._troubles: dict[bytes, str] = {}
        self._ended = metrics.counter(
            "keeper_shipments_total", "Own transfers over bridges by how they ended.", ("state",)
        )
        self._open = metrics.gauge("keeper_shipments_open", "Own transfers on their way.")
        self._late = metrics.gauge(
            "keeper_shipments_late",
            "Own transfers that take too long or are not as they should be.",
        )

    @property
    def shipments(self) -> tuple[Shipment, ...]:
        """Return what is kept, in the order it was decided."""
        return tuple(self._kept.values())

    async def begin(self, one: Shipment) -> None:
        """Write a shipment down; only then may anything of it be sent."""
        await trio.to_thread.run_sync(self._book.put, one)
        self._kept[one.id] = one
        self._sending.add(one.id)
        self._watched.add(one.id)

    def handed_over(self, one: Shipment) -> None:
        """Nothing more will be brought for a shipment: from now on its task is what counts."""
        self._sending.discard(one.id)

    def leaving(self) -> dict[Place, int]:
        """Return what is about to leave places, and is still in their balances."""
        found: dict[Place, int] = {}
        for one in self._kept.values():
            if one.open and one.left_ms == 0:
                found[one.origin] = found.get(one.origin, 0) + one.amount
        return found

    def doubt(self, bridge: Bridge) -> str:
        """Return why nothing more should go over a bridge: a transfer that is late, or wrong.

        A bridge that keeps what it is given would otherwise be given it again.
        """
        for one in self._kept.values():
            if one.open and one.told and self._bridge(one) is bridge:
                return f"shipment {one.id.hex()[:16]} over it is late, or not as it should be"
        return ""

    def news(self, look: Look) -> dict[Place, int] | None:
        """Return what shipments brought to places since this was last asked, less what they took.

        None the first time: what they did before this node's present life is not known here.
        """
        before, found = self._effects, dict[Place, int]()
        now = {one.id: effects(one, look.facts.get(one.id, NOTHING)) for one in self._kept.values()}
        self._effects = now
        if before is None:
            return {} if self._written_off else None
        for name, (taken, brought) in now.items():
            one, (was_taken, was_brought) = self._kept[name], before.get(name, (0, 0))
            found[one.origin] = found.get(one.origin, 0) + was_taken - taken
            found[one.destination] = found.get(one.destination, 0) + brought - was_brought
        return found

    # a look

    async def look(self, now_ms: int) -> Look:
        """Look at everything once, and write what changed."""
        heads = await read_heads(self._chains)
        finals = await read_heads(self._chains, Level.FINAL)
        going = [one for one in self._kept.values() if one.open]
        mined = {one.id: await self._mined(one) for one in going}
        transfers = {one.id: self._transfer(one, mined[one.id].receipt) for one in going}
        newest, balances = await self._at(heads, going, transfers, self._tokens)
        final, _ = await self._at(finals, going, transfers, {})
        facts = {}
        for one in going:
            sent, there = transfers[one.id], one.crossing.destination
            known = self._facts(one, mined[one.id], heads, now_ms)
            known = replace(known, newest=newest[one.id], final=final[one.id])
            if known.newest is Stage.ARRIVED:
                shown = await self._shown(one, sent, heads.get(there), now_ms)
                known = replace(known, newest=Stage.ARRIVED if shown else Stage.SENT)
            if known.final is Stage.ARRIVED:
                paid = await self._shown(one, sent, finals.get(there), now_ms)
                known = replace(known, paid=paid)
            facts[one.id] = known
        await self._take(going, facts, transfers, now_ms)
        return Look(heads, finals, balances, facts)

    async def _mined(self, one: Shipment) -> _Mined:
        """Ask the executor and, until the transfer is known, the origin."""
        task = await self._executor.look(one.main_key)
        if one.transfer is not None or task is None or not task.attempts:
            return _Mined(task, None)
        hashes = [each.hash for each in task.attempts if not each.cancels]
        try:
            receipts = await self._chains[one.crossing.origin].receipts(hashes)
        except (RemoteFault, KeyError):  # away, or no chain of the network any more
            return _Mined(task, None)
        return _Mined(task, next((each for each in receipts if each is not None), None))

    def _facts(
        self, one: Shipment, mined: _Mined, heads: Mapping[ChainId, BlockRef], now_ms: int
    ) -> Facts:
        task, receipt, head = mined.task, mined.receipt, heads.get(one.crossing.origin)
        waiting = one.id in self._sending or now_ms - one.decided_ms < GRACE_MS
        if task is None:
            return Facts(planned=waiting)
        done = task.state is TaskState.FINAL and task.outcome.succeeded
        left = receipt is not None and receipt.succeeded
        if left and head is not None and receipt is not None:
            left = receipt.block.number <= head.number
        return Facts(
            failed=not task.open and not task.outcome.succeeded,
            closed=done,
            left=left,
            receipt=receipt,
        )

    def _transfer(self, one: Shipment, receipt: Receipt | None) -> Transfer | None:
        bridge = self._bridge(one)
        if one.transfer is not None or bridge is None:
            return one.transfer
        try:
            return transfer_of(one, bridge, receipt, self._account)
        except (ValueError, IndexError):  # logs that its contract does not emit
            return None

    def _bridge(self, one: Shipment) -> Bridge | None:
        return self._bridges.get((one.bridge, one.crossing))

    async def _at(
        self,
        heads: Mapping[ChainId, BlockRef],
        going: Sequence[Shipment],
        transfers: Mapping[bytes, Transfer | None],
        tokens: Mapping[Place, bytes],
    ) -> tuple[dict[bytes, Stage], dict[Place, int]]:
        """Return stages and balances at some blocks, from one batch a chain."""
        places = sorted(tokens)
        own = calldata("balanceOf(address)", self._account)
        reads = [Read(place[0], Call(tokens[place], own)) for place in places]
        asked: list[tuple[Shipment, Bridge, Transfer, int]] = []
        for one in going:
            bridge, transfer = self._bridge(one), transfers[one.id]
            if bridge is not None and transfer is not None:
                mine = bridge.arrival_reads(transfer)
                asked.append((one, bridge, transfer, len(mine)))
                reads += mine
        replies = await read_all(self._chains, reads, heads)
        balances = {
            place: int.from_bytes(reply, "big")
            for place, reply in zip(places, replies, strict=False)
            if reply is not None and len(reply) == 32
        }
        stages = {one.id: Stage.SENT for one in going}
        replies = replies[len(places) :]
        for one, bridge, transfer, count in asked:
            mine_said, replies = replies[:count], replies[count:]
            known = [reply for reply in mine_said if reply is not None]
            if len(known) == count:
                stages[one.id] = bridge.stage(transfer, known)
        return stages, balances

    async def _shown(
        self, one: Shipment, transfer: Transfer | None, last: BlockRef | None, now_ms: int
    ) -> bool | None:
        """Return whether the logs up to a block prove a delivery; None if that cannot be told.

        The bridge's own logs name the transaction, and the token's log in it shows the payment.
        What was found is looked for there only; what was not is searched ever more seldom.
        """
        bridge = self._bridge(one)
        if bridge is None or transfer is None or last is None:
            return None
        place, (due_ms, pause_ms) = self._places.get(one.id), self._searches.get(one.id, (0, 0))
        if place is not None and place > last.number:
            return None
        if place is None and now_ms < due_ms:
            return False
        first = BlockNumber(one.first if place is None else place)
        chain, found, receipt = self._chains[last.chain], None, None
        try:
            logs = await chain.history(bridge.witnesses(transfer), first, last)
            with suppress(ValueError, IndexError):  # logs that its contract does not emit
                found = bridge.delivery(transfer, logs)
            if found is not None:
                receipt = await chain.receipt(found.transaction)
        except RemoteFault as fault:
            log.debug("chain_not_read", chain=last.chain, error=str(fault))
            return None
        coin = last.chain, bridge.tokens(one.crossing)[1]
        came = net_flows([receipt] if receipt else [], self._account).get(coin, 0)
        paid = came >= transfer.amount
        if found is not None and paid:
            self._places[one.id] = found.block.number
        elif self._places.pop(one.id, None) is None:  # and not only taken back since
            pause_ms = min(max(2 * pause_ms, SEARCH_MS), MOST_SEARCH_MS)
            self._searches[one.id] = now_ms + pause_ms, pause_ms
        return found is not None and paid

    # what follows from it

    async def _take(
        self,
        going: Sequence[Shipment],
        facts: Mapping[bytes, Facts],
        transfers: Mapping[bytes, Transfer | None],
        now_ms: int,
    ) -> None:
        changed = [
            replace(one, ended_ms=now_ms)
            for one in self._kept.values()
            if one.state is State.FORGOTTEN and one.ended_ms == 0
        ]
        self._written_off |= bool(changed)  # what was in flight has not arrived
        troubles = dict[bytes, str]()
        for one in going:
            after = advance(one, facts[one.id], transfers[one.id], now_ms)
            text = self._trouble(after, facts[one.id], now_ms)
            if text:
                troubles[one.id] = text
            if text and not after.told:
                log.warning("shipment_late", trouble=text, **_named(after))
                after = replace(after, told=True)
            if not after.open:
                after = replace(after, timed=one.id in self._watched)
                self._tell(after)
            if after != one:
                changed.append(after)
        if changed:
            await trio.to_thread.run_sync(lambda: self._book.put(*changed))
            self._kept |= {one.id: one for one in changed}
            self._forget(now_ms)
        self._troubles = troubles
        self._open.set(sum(one.open for one in self._kept.values()))
        self._late.set(len(troubles))

    def _trouble(self, one: Shipment, facts: Facts, now_ms: int) -> str:
        if one.open and self._bridge(one) is None:
            return "its bridge is no longer configured, so nobody follows it"
        return trouble(one, facts, now_ms, self._limits.late_after)

    def _tell(self, one: Shipment) -> None:
        """Say how a shipment ended."""
        for held in (self._watched, self._sending):
            held.discard(one.id)
        self._places.pop(one.id, None)
        self._searches.pop(one.id, None)
        self._ended.labels(one.state.value).inc()
        say = log.info if one.state is State.ARRIVED else log.warning
        say("shipment", state=one.state.value, **_named(one))

    def _forget(self, now_ms: int) -> None:
        """Forget what neither a window nor a lane's quantiles need."""
        if self._book.forget(now_ms - self._limits.window_s * 1000):
            self._kept = {one.id: one for one in self._book.all()}

    def status(self, now_ms: int) -> list[dict[str, Any]]:
        """Return what is under way, and the newest that ended."""
        rows = sorted(self._kept.values(), key=lambda one: (one.open, one.decided_ms))[-SHOWN:]
        return [
            {
                **_named(one),
                "state": one.state.value,
                "age_s": (now_ms - one.decided_ms) // 1000 if one.open else None,
                "trouble": self._troubles.get(one.id, ""),
            }
            for one in reversed(rows)
        ]


def _named(one: Shipment) -> dict[str, Any]:
    route = funds.named(one.crossing)
    return {"shipment": one.id.hex(), **route, "amount": one.amount, "why": one.why}
