"""Between the certified state and a policy: views out, bids in.

    final snapshot ─▶ MarketView ─▶ policy's process ─▶ Act ─▶ wishes ─▶ Bidder ─▶ commit ─▶ gossip
    next states ──────────────────▶ Bidder.follow ─▶ reveal ─▶ gossip

The policy sees the newest view only; a slow one misses views, never delays them. Beside open tasks
it is given the positions near liquidation, as the tasks they would be.
"""

from collections.abc import Callable, Mapping

import trio

from keeper.compete.bidder import Bidder, Reserve
from keeper.compete.hearing import COMMIT, REVEAL, Hearing
from keeper.compete.standing import standing_tasks
from keeper.compete.state import AwardState, OpenAward
from keeper.compete.state import decode as decode_state
from keeper.compete.task import Task
from keeper.desk.seat import Seat
from keeper.execute.intent import Outcome as Ended
from keeper.node.bidbook import BidBook
from keeper.node.market import Costs, market_view, wishes_of
from keeper.node.parts import Parts
from keeper.snapshot.derive import Setting, Snapshot
from keeper.units import ChainId
from keeper.venue import bonds
from p2p.agreement.signing import EcdsaSigner
from p2p.port import Topic
from p2p.service import verdict_of
from p2p.verdicts import ACCEPT, Verdict
from policies import api
from policies.host import LatestView, PolicySpec


class Trader:
    """One keeper's part in the competition of one epoch."""

    def __init__(
        self,
        parts: Parts,
        setting: Setting,
        policy: PolicySpec,
        offer_body: Callable[[bytes], bytes],
        on_state: Callable[[AwardState], None],
        coins: Mapping[ChainId, bytes],
    ) -> None:
        self._parts, self._setting, self._parameters = parts, setting, parts.parameters
        self._signer = EcdsaSigner(parts.keys.operator)
        self.bidder = Bidder(
            parts.network.id,
            setting.epoch,
            setting.config,
            parts.keys.address,
            parts.parameters,
        )
        self._book = BidBook(parts.store)
        for vector in self._book.load(setting.epoch):
            self.bidder.recall(vector)
        self.hearing = Hearing(parts.network.id, setting.epoch, setting.config, self._stake)
        self.seat = Seat("liquidation", "", policy, parts.home, parts.store, parts.recorder.put)
        self._latest = LatestView()
        self.costs = Costs(
            parts.network,
            {chain: watcher.chain for chain, watcher in parts.watchers.items()},
            coins,
            [market.symbol for market in parts.parameters.margin.markets],
        )
        self._offer_body, self._on_state = offer_body, on_state
        self._bonds: dict[bytes, bonds.BondRecord] = {}
        self._tasks: dict[bytes, Task] = {}
        self._standing: frozenset[bytes] = frozenset()
        self._collecting = 0
        self._newest: Snapshot | None = None
        self._followed = False
        self.bids = 0
        self._bids_total = parts.metrics.counter(
            "keeper_bids_total", "Commitments this keeper made."
        )

    def _stake(self, keeper: bytes) -> int:
        bond = self._bonds.get(keeper)
        return 0 if bond is None else bond.free

    # gossip

    def take(self, peer: bytes, frame: bytes) -> Verdict:
        """Take a frame of the bids topic."""
        reason = self.hearing.take(frame)
        if reason is not None:
            return verdict_of(reason)
        if frame[:1] == REVEAL:
            self._reveal(frame[1:])
        return ACCEPT

    def _reveal(self, body: bytes) -> None:
        self._offer_body(body)
        self._parts.recorder.on_reveal(body)

    def _say(self, kind: bytes, body: bytes) -> None:
        frame = kind + body
        self.hearing.take(frame)
        if kind == REVEAL:
            self._reveal(body)
        self._parts.p2p.publish(Topic.BIDS, frame)

    # final views

    def on_final(self, snapshot: Snapshot) -> None:
        """Follow the competition's state; give the policy something to decide."""
        view = snapshot.header.view
        self._parameters = self.bidder.parameters = snapshot.parameters(self._setting)
        network = self._parts.network
        index = self._parts.watchers[network.hub].index
        if index.newest is not None:
            self._bonds = bonds.bonds(network.chain(network.hub), index.newest.table)
        state = decode_state(snapshot.book.rules["award"])
        if not self._followed:
            # an earlier life may have committed in the round that is open now, and lost its disk
            newest = max(self.bidder.last_view, state.collecting)
            self.bidder.last_view, self._followed = newest, True
        self.hearing.advance(view, state)
        reveals, _ = self.bidder.follow(view, state)
        for body in reveals:
            self._say(REVEAL, body)
        self._on_state(state)
        self._newest = snapshot
        self._collecting = state.collecting
        self._tasks = {task.target.subject: task for task in self._offered(snapshot, state)}
        self._standing = frozenset(self._tasks) - {task.target.subject for task in state.tasks}
        if state.collecting and self._tasks:
            self._latest.put(self._market_view(snapshot))

    def _offered(self, snapshot: Snapshot, state: AwardState) -> list[Task]:
        """Return what can be bid for: open tasks, and what may become one and is not awarded."""
        taken = {task.target for task in state.tasks} | {one.task.target for one in state.awards}
        near = standing_tasks(
            self._parts.network,
            self._parameters,
            snapshot.book.prices,
            snapshot.legs,
            snapshot.margins,
        )
        return [*state.tasks, *(task for task in near if task.target not in taken)]

    def _market_view(self, snapshot: Snapshot) -> api.MarketView:
        return market_view(
            self._setting,
            snapshot,
            self._tasks.values(),
            self.costs.gas(snapshot),
            self.costs.bonuses,
            self._free_bond(),
            self._parts.network.account(self._parts.keys.address),
        )

    def _free_bond(self) -> int:
        bond = self._bonds.get(self._parts.keys.address)
        return 0 if bond is None else max(0, bond.free - self.bidder.reserved().bond)

    # the policy

    async def run(self) -> None:
        """Let the policy decide on the newest view until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.seat.run)
            nursery.start_soon(self.costs.run)
            while True:
                view = await self._latest.get()
                outcome = await self.seat.decide(view)
                await self._bid(outcome.decisions)

    async def on_award_run(self, award: OpenAward, rank: int, outcome: Ended) -> None:
        """Write down what became of an award that this keeper carried out."""
        newest, chain = self._newest, award.task.target.chain
        coin = 0 if newest is None else self.costs.coin_price(chain, newest)
        await self._parts.recorder.on_award_run(award, rank, outcome, coin)

    async def _bid(self, decisions: tuple[api.Decision, ...]) -> None:
        bond = self._bonds.get(self._parts.keys.address)
        if bond is None or not self._collecting or self._parts.executor.mode.value == "off":
            return
        wishes = wishes_of(decisions, self._tasks, self._standing)
        commit = self.bidder.commit(
            self._collecting,
            wishes,
            Reserve(bond.free, 0),
            self._parts.random_bytes(32),
            self._signer.sign,
        )
        if commit is not None and self._parts.executor.mode.value in ("dry", "live"):
            vector = self.bidder.vectors[commit.view]
            await trio.to_thread.run_sync(self._book.keep, commit.epoch, vector)
            self.bids += 1
            self._bids_total.inc()
            self._say(COMMIT, commit.encode())
