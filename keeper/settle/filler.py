"""Delivers orders: certified state and own funds to the filling policy, its choices to the chain.

    final view ─▶ open orders ─┐
    own tokens at the head ────┴▶ MarketView ─▶ policy's process ─▶ Act ─▶ approve ─▶ fill
                                                 claims come by themselves: the carrier brings them

The funds are those of the settlement lane's account, on every chain. Who delivers first is paid, so
members take turns as long as they like it: the order's id says who is first, and after each
`TURN_MS` the next may try. A delivery that comes second is refused when it is simulated.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import structlog
import trio

from keeper.errors import RemoteFault
from keeper.execute.intent import Intent, Lane, Outcome
from keeper.execute.service import Executor
from keeper.hashing import keccak
from keeper.metrics import Metrics
from keeper.network import NetworkSpec
from keeper.observe.service import Watcher
from keeper.parameters import Parameters
from keeper.settle.filling import Deliverable, deliverable, orders_of
from keeper.settle.turns import turns_before
from keeper.snapshot import governed
from keeper.snapshot.derive import Snapshot
from keeper.units import BlockNumber, ChainId, Wei
from keeper.venue.calls import calldata
from keeper.venue.port import Call
from policies import api
from policies.host import Outcome as Decided

log = structlog.get_logger(__name__)

TURN_MS = 4_000
"""Time for one member to deliver and have it mined before the next one may try."""
FEE_CAP = Wei(5 * 10**16)
"""Most that one delivery may cost in gas, in wei."""
DEADLINE_BLOCKS = 200
BALANCE_BYTES = 32


class Decider(Protocol):
    """The filling policy at work."""

    async def run(self) -> None:
        """Keep it alive until cancelled."""
        ...

    async def decide(self, view: api.MarketView) -> Decided:
        """Return what it decides; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class Turns:
    """Which member is `me` of `size`, and since when each order is known, unix ms."""

    me: int
    size: int
    since: dict[bytes, int] = field(default_factory=dict)

    def of(self, found: Mapping[bytes, Deliverable], now_ms: int) -> dict[bytes, int]:
        """Return when it is this member's turn for each order; forget those that are gone."""
        for gone in self.since.keys() - found.keys():
            del self.since[gone]
        return {
            order: self.since.setdefault(order, now_ms)
            + TURN_MS * turns_before(self.me, self.size, int.from_bytes(order[:4], "big"))
            for order in sorted(found)
        }


class Filler:
    """One member's deliveries in one epoch."""

    def __init__(
        self,
        network: NetworkSpec,
        parameters: Parameters,
        executor: Executor,
        watchers: Mapping[ChainId, Watcher],
        policy: Decider,
        show: Callable[[Snapshot], api.MarketView],
        account: bytes,
        turns: Turns,
        metrics: Metrics,
    ) -> None:
        """Compose it; nothing runs yet.

        Args:
            network: the descriptor.
            parameters: what governance set at first.
            executor: sends the transactions.
            watchers: one per chain.
            policy: chooses.
            show: makes a view of a snapshot; orders and funds are added here.
            account: address that holds the funds and is paid, on every chain.
            turns: whose turn it is.
            metrics: the instruments.
        """
        self._network, self._parameters = network, parameters
        self._executor, self._watchers = executor, watchers
        self._policy, self._show = policy, show
        self._account, self._turns = account, turns
        self._newest: Snapshot | None = None
        self._wake = trio.Event()
        self._busy: dict[bytes, Deliverable] = {}
        self._done: set[bytes] = set()
        self._locks: dict[tuple[ChainId, bytes], trio.Lock] = {}
        self.spoken_for: Callable[[], Mapping[tuple[ChainId, bytes], int]] = dict
        """What others of this keeper are about to take from the same account."""
        self._delivered = metrics.counter(
            "keeper_orders_delivered_total", "Orders this keeper tried to deliver.", ("status",)
        )

    def on_final(self, snapshot: Snapshot) -> None:
        """Look at the orders of the newest final view."""
        self._newest = snapshot
        self._wake.set()

    async def run(self) -> None:
        """Let the policy choose, and deliver, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._policy.run)
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                if self._newest is not None:
                    await self._round(self._newest, nursery)

    async def _round(self, snapshot: Snapshot, nursery: trio.Nursery) -> None:
        found = self._orders(snapshot)
        self._done &= found.keys()  # one that is delivered is open until that is final
        for order in self._done | self._busy.keys():
            found.pop(order, None)
        if not found:
            return
        try:
            view = await self._view(snapshot, found)
        except RemoteFault as fault:
            log.warning("funds_not_read", error=str(fault))
            return
        outcome = await self._policy.decide(view)
        for decision in outcome.decisions:
            # taken out, so that a policy which says it twice does not do it twice
            one = found.pop(decision.task, None) if isinstance(decision, api.Act) else None
            if one is not None:
                self._busy[one.open.id] = one
                nursery.start_soon(self._deliver, one, snapshot)

    def _orders(self, snapshot: Snapshot) -> dict[bytes, Deliverable]:
        """Return the orders at the view's cut, as far as these blocks are indexed here."""
        tables = {}
        for ref in snapshot.header.cut:
            index = self._watchers[ref.chain].index
            table = index.at(ref.number, ref.hash, ref.account_root)
            if table is not None:
                tables[ref.chain] = table
        return {one.open.id: one for one in deliverable(self._network, tables)}

    async def _view(self, snapshot: Snapshot, found: Mapping[bytes, Deliverable]) -> api.MarketView:
        shown = self._show(snapshot)
        turns = self._turns.of(found, shown.now_ms)
        state = snapshot.book.rules.get(governed.STATE, b"")
        parameters = governed.in_force(self._parameters, state)
        return msgspec.structs.replace(
            shown,
            inventory=await self._inventory({one.open.destination for one in found.values()}),
            orders=orders_of(self._network, parameters, snapshot, found, turns),
        )

    async def _inventory(self, chains: set[ChainId]) -> tuple[api.Holding, ...]:
        """Read this keeper's own tokens, what is on its way out counted as reserved."""
        rows, promised, others = [], self.promised(), self.spoken_for()
        for chain in sorted(chains):
            spec, port = self._network.chain(chain), self._watchers[chain].chain
            head = await port.head()
            for token in spec.tokens:
                data = calldata("balanceOf", ("address",), (self._account,))
                raw = await port.call(token.address, data, head.ref)
                held = int.from_bytes(raw[:BALANCE_BYTES], "big")
                place = chain, token.asset
                leaving = promised.get(place, 0) + others.get(place, 0)
                most = (1 << 127) - 1
                available, reserved = api.Wide(min(held, most)), api.Wide(min(leaving, most))
                rows.append(api.Holding(chain, token.asset, available, api.Wide(0), reserved))
        return tuple(rows)

    def promised(self) -> dict[tuple[ChainId, bytes], int]:
        """Return what deliveries under way are about to take, by chain and asset."""
        found: dict[tuple[ChainId, bytes], int] = {}
        for one in self._busy.values():
            place = one.open.destination, one.asked
            found[place] = found.get(place, 0) + one.order.output_amount
        return found

    async def _deliver(self, one: Deliverable, snapshot: Snapshot) -> None:
        """Approve and fill; deliveries of one token wait for each other, as approvals must."""
        order, chain = one.open.id, one.open.destination
        lock = self._locks.setdefault((chain, one.asked), trio.Lock())
        deadline = snapshot.cut[chain].number + DEADLINE_BLOCKS
        approve, fill = one.calls(self._account)
        try:
            async with lock:
                outcome = await self._submit(one, approve, deadline)
                if outcome.succeeded:
                    outcome = await self._submit(one, fill, deadline)
        except RemoteFault as fault:
            log.warning("order_not_delivered", order=order.hex(), error=str(fault))
            self._delivered.labels("fault").inc()
            return  # the next view may try again
        finally:
            del self._busy[order]
        self._done.add(order)
        self._delivered.labels(outcome.status.value).inc()
        log.info(
            "order_delivery", order=order.hex(), status=outcome.status.value, detail=outcome.detail
        )

    async def _submit(self, one: Deliverable, call: Call, deadline: int) -> Outcome:
        intent = Intent(
            key=keccak(b"deliver" + one.open.id + deadline.to_bytes(8, "big") + call.data),
            chain=call.chain,
            lane=Lane.SETTLEMENT,
            to=call.to,
            data=call.data,
            deadline=BlockNumber(deadline),
            fee_cap=FEE_CAP,
            why=f"deliver order {one.open.id.hex()[:16]}",
        )
        return await self._executor.submit(intent, settled=False)
