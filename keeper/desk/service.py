"""The desk: one policy at work on one venue, block by block.

    head ─▶ new events ─▶ Roster ─▶ Venue.view ─▶ policy's process ─▶ acts ─▶ executor ─▶ receipts
                                        └──────────── record ◀─────────────────────────────┘

No award binds this venue, so the first transaction wins; the executor tries each call on the newest
block before it signs. Venues of one chain take turns from view to receipt, as they spend the same
account. The executor's mode decides how far an act goes: in shadow and dry mode nothing is sent, no
allowance either.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import trio

from keeper.chain.port import BlockRef, Header, Level
from keeper.chain.port import Call as Read
from keeper.desk.act import ActStore, Begun, Done, coin_price_of, execute, fee_cap_of
from keeper.desk.limits import judged, most_profit
from keeper.desk.roster import Roster
from keeper.desk.seat import Seat
from keeper.desk.venue import Venue, outputs
from keeper.errors import RemoteFault
from keeper.execute.intent import Intent, Lane, Mode
from keeper.execute.service import Executor
from keeper.hashing import keccak
from keeper.metrics import Metrics
from keeper.store import Store
from keeper.units import BlockNumber, Wei
from keeper.venue.abi import calldata
from keeper.venue.port import Call
from policies.api import Act, MarketView
from policies.host import PolicySpec
from policies.record import Entry, Received, Sent

log = structlog.get_logger(__name__)

KIND = "liquidation"
POLL_S = 0.5
MAX_ACTS = 16
"""Acts of one view under way at once: what a lane keeps in flight."""
ALLOWANCE = 2**255
"""An allowance below this is set anew; tokens count one of 2**256 − 1 as endless."""
ALLOWANCE_FEE = Wei(10**17)
ALLOWANCE_BLOCKS = 200


@dataclass(frozen=True, slots=True)
class Tools:
    """What every desk of a node shares.

    Args:
        home: of the node, whose `keeper.toml` has the policy's settings.
        store: the database.
        executor: sends.
        keeper: the urgent lane's address: it pays and is paid.
        record: takes entries for the node's record.
        metrics: the instruments.
        turns: one lock a chain.
    """

    home: Path
    store: Store
    executor: Executor
    keeper: bytes
    record: Callable[[Entry], None]
    metrics: Metrics
    turns: Mapping[int, trio.Lock]


class Desk:
    """One policy on one venue."""

    def __init__(
        self, name: str, venue: Venue, first_block: int, policy: PolicySpec, tools: Tools
    ) -> None:
        self.name, self.venue, self._tools = name, venue, tools
        self.seat = Seat(KIND, name, policy, tools.home, tools.store, tools.record)
        self.roster = Roster(tools.store, name, first_block)
        self.acts = ActStore(tools.store, name)
        self._trouble: dict[str, str] = {}
        self.near = self.tasks = self.predicted = self.realised = 0
        self.ended: Counter[str] = Counter()
        self._block: BlockRef | None = None
        self._said: dict[bytes, int] = {}
        labels = ("venue", "status")
        self._acts_total = tools.metrics.counter(
            "keeper_desk_acts_total",
            "Acts on venues outside the network, by how they ended.",
            labels,
        )
        self._gauge = tools.metrics.gauge(
            "keeper_desk_realised_micro_usd",
            "What receipts of acts brought, since start.",
            ("venue",),
        )

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.seat.run)
            nursery.start_soon(self._often, self._scan)
            await self._often(self._look)

    async def _often(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it again and again; a chain's fault is shown, and tried again."""
        while True:
            try:
                await work()
                self._trouble.pop(work.__name__, None)
            except (RemoteFault, ValueError) as fault:
                self._wait(work.__name__, str(fault))
            await trio.sleep(POLL_S)

    def _wait(self, what: str, fault: str) -> None:
        if fault != self._trouble.get(what):
            log.warning("desk_waits", venue=self.name, error=fault)
        self._trouble[what] = fault

    async def _look(self) -> None:
        """Decide on the newest block, if there is a new one."""
        head = await self.venue.chain.head()
        if head.ref == self._block:
            return
        async with self._tools.turns[self.venue.chain.id]:
            users = self.roster.look()
            view = await self.venue.view(users, head)
            self.roster.note(users, self.venue.near)
            self.near, self.tasks = len(self.venue.near), len(view.tasks)
            await self._allow(head)
            await self._resume()
            if view.tasks:
                await self._decide(view)
        self._block = head.ref

    async def _scan(self) -> None:
        """Read the events of final blocks not read before."""
        final = await self.venue.chain.head(Level.FINAL)
        first = self.roster.scanned + 1
        if final.ref.number < first:
            return
        logs = await self.venue.chain.history(
            self.venue.addresses, BlockNumber(first), final.ref, self.venue.topics
        )
        self.roster.add(self.venue.people(logs), final.ref.number)

    async def _decide(self, view: MarketView) -> None:
        outcome = await self.seat.decide(view)
        open_tasks = {task.task for task in view.tasks}
        self._said = {task: size for task, size in self._said.items() if task in open_tasks}
        async with trio.open_nursery() as nursery:
            for act, fault in judged(view, outcome.decisions)[:MAX_ACTS]:
                if fault:
                    self._refuse(act, fault)
                elif self._is_news(act):
                    cap = fee_cap_of(most_profit(view, act), coin_price_of(self.venue))
                    nursery.start_soon(self._act, Begun(act, view.view, cap))

    def _refuse(self, act: Act, fault: str) -> None:
        self.ended["refused"] += 1
        self._acts_total.labels(self.name, "refused").inc()
        log.warning("desk_act_refused", venue=self.name, task=act.task.hex(), error=fault)

    def _is_news(self, act: Act) -> bool:
        """Return whether an act is to be tried: outside live mode the same one is told once."""
        if self._tools.executor.mode is Mode.LIVE:
            return True
        said, self._said[act.task] = self._said.get(act.task), int(act.size)
        return said is None

    async def _act(self, begun: Begun) -> None:
        try:
            done = await execute(
                self._tools.executor, self.venue, begun, self._tools.keeper, self.acts
            )
        except RemoteFault as fault:
            self._wait("act", str(fault))
            return
        except ValueError as fault:  # a step that the venue cannot turn into a call
            self._refuse(begun.act, str(fault))
            return
        self._trouble.pop("act", None)
        self._count(begun, done)

    async def _resume(self) -> None:
        """Finish what a crash, or a chain that did not answer, left open."""
        for begun in self.acts.open():
            await self._act(begun)

    # allowances

    async def _allow(self, head: Header) -> None:
        """Let the venue's contracts take what its calls spend, once; in live mode only."""
        tools, chain = self._tools, self.venue.chain
        if tools.executor.mode is not Mode.LIVE:
            return
        pairs = self.venue.allowances
        reads = [_allowance(token, tools.keeper, spender) for token, spender in pairs]
        found = await outputs(chain, reads, head.ref)
        for (token, spender), data in zip(pairs, found, strict=True):
            if int.from_bytes(data[:32], "big") >= ALLOWANCE:
                continue
            call = Call(chain.id, token, calldata("approve(address,uint256)", spender, 2**256 - 1))
            intent = Intent(
                key=keccak(call.to + spender + head.ref.hash),
                chain=chain.id,
                lane=Lane.URGENT,
                to=call.to,
                data=call.data,
                deadline=BlockNumber(head.ref.number + ALLOWANCE_BLOCKS),
                fee_cap=ALLOWANCE_FEE,
                why=f"let {self.name} take a token",
            )
            outcome = await tools.executor.submit(intent, settled=False)
            log.info("desk_allowance", venue=self.name, status=outcome.status.value)

    # telling

    def _count(self, begun: Begun, done: Done) -> None:
        status = done.outcomes[-1].status.value if done.outcomes else "refused"
        self.ended[status] += 1
        self._acts_total.labels(self.name, status).inc()
        if done.receipts:
            self.predicted, self.realised = (
                self.predicted + done.predicted,
                self.realised + done.realised,
            )
            self._gauge.labels(self.name).set(self.realised)
        log.info(
            "desk_act",
            venue=self.name,
            task=done.task.hex(),
            status=status,
            detail=done.outcomes[-1].detail if done.outcomes else "",
            why=begun.act.why,
            predicted=done.predicted,
            realised=done.realised if done.receipts else None,
            unpriced=[token.hex() for _, token in done.unpriced],
        )
        last = len(done.receipts) - 1
        for at, (step, receipt) in enumerate(zip(begun.act.steps, done.receipts, strict=False)):
            place = (done.task, step.id, int(receipt.block.chain), receipt.transaction)
            self._tools.record(Sent(*place))
            words = (done.predicted, done.realised) if at == last else (0, 0)
            self._tools.record(
                Received(
                    *place, int(receipt.succeeded), receipt.gas_used, receipt.gas_price, *words
                )
            )

    def status(self) -> dict[str, Any]:
        """Return what /status shows of this desk; µUSD since the node's start."""
        return {
            "venue": self.name,
            "chain": self.venue.chain.id,
            "policy": self.seat.host.spec.name,
            "people": len(self.roster),
            "scanned": self.roster.scanned,
            "near": self.near,
            "tasks": self.tasks,
            "acts": dict(self.ended),
            "predicted_uusd": self.predicted,
            "realised_uusd": self.realised,
            "policy_faults": dict(self.seat.host.faults),
            "trouble": "; ".join([*self._trouble.values(), *filter(None, [self.venue.refused])]),
        }


def _allowance(token: bytes, owner: bytes, spender: bytes) -> Read:
    return Read(token, calldata("allowance(address,address)", owner, spender))
