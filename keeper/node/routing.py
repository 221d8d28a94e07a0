"""The routing policy in a node: own funds moved over configured bridges.

    [bridges.*] ─▶ lanes as final blocks have them ─┐
    own tokens, and what is on its way ─────────────┴▶ MarketView ─▶ policy's process ─▶ Act
    Act ─▶ permit ─▶ shipment on disk ─▶ approve ─▶ transfer ─▶ followed until its end is final

The funds are those of the settlement lane's account, on every chain. Each round reads first and
decides last, so that a decision knows all that went before it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
import trio

from keeper.chain.port import Call, Chain
from keeper.config import Config, RoutingLimits
from keeper.desk.seat import Seat
from keeper.errors import RemoteFault
from keeper.execute.intent import Intent, Lane, Mode
from keeper.execute.lane_keys import lane_address
from keeper.execute.service import Executor
from keeper.metrics import Metrics
from keeper.network import NetworkSpec
from keeper.node import funds
from keeper.node.following import Follower, Look
from keeper.node.market import Costs, market_view
from keeper.node.parts import Parts
from keeper.route.bridges.port import Bridge, Crossing, Send
from keeper.route.bridges.settings import bridges_of
from keeper.route.permits import Board, Permit, Price, Quoted, permit, room
from keeper.route.reader import read_terms
from keeper.route.shipment_book import ShipmentBook
from keeper.route.shipments import Place, Shipment, busy, stocks
from keeper.route.traffic import Traffic, lane_now, seen_of
from keeper.settle.filler import Decider
from keeper.snapshot.derive import Setting, Snapshot
from keeper.units import BlockNumber, ChainId, Wei
from policies import api
from policies.api import plan_of
from policies.discover import spec_of

log = structlog.get_logger(__name__)

KIND = "routing"
ROUND_S = 5.0
"""Between two looks: a transfer takes at least so long, and each look asks every bridge."""
DEADLINE_BLOCKS = 100
"""To be mined: half a minute on the quickest chains, twenty on the slowest."""
FEE_CAP = Wei(5 * 10**16)
"""Most that one transaction of a transfer may cost in gas, in wei."""
MOST_ACTS = 32
"""Acts of one view that are looked at: there is one per short place, and few places."""


class RoutingWork:
    """Moves one member's own funds as its policy says, within the operator's limits."""

    def __init__(
        self,
        network: NetworkSpec,
        executor: Executor,
        chains: Mapping[ChainId, Chain],
        bridges: Sequence[Bridge],
        policy: Decider,
        show: Callable[[Snapshot], api.MarketView],
        account: bytes,
        limits: RoutingLimits,
        book: ShipmentBook,
        promised: Callable[[], Mapping[Place, int]],
        traffic: Traffic,
        metrics: Metrics,
        *,
        clock: Callable[[], float] = time.time,
        round_s: float = ROUND_S,
    ) -> None:
        """Compose it; nothing runs yet.

        Args:
            network: the descriptor.
            executor: sends the transactions.
            chains: all of the network.
            bridges: those that the operator configured.
            policy: chooses.
            show: makes a view of a snapshot; funds and lanes are added here.
            account: address that holds the funds, on every chain.
            limits: the operator's.
            book: keeps the shipments.
            promised: what others of this keeper are about to spend from the same account.
            traffic: what the courier saw of lanes.
            metrics: the instruments.
            clock: unix seconds.
            round_s: between two looks.
        """
        self._executor, self._chains, self._policy = executor, chains, policy
        self._show, self._account, self._limits = show, account, limits
        self._promised, self._traffic = promised, traffic
        self._clock, self._round_s = clock, round_s
        self._lanes = tuple(funds.own_lanes(network, bridges))
        if not self._lanes:
            remedy = "add [bridges.NAME] to keeper.toml; docs/routing.md shows a section"
            log.warning("routing_has_no_lanes", remedy=remedy)
        tokens = {
            (chain, crossing.asset): token
            for bridge, crossing in self._lanes
            for chain, token in zip(
                (crossing.origin, crossing.destination), bridge.tokens(crossing), strict=True
            )
        }
        self._decimals = funds.decimals_of(network, tokens)
        self.follower = Follower(executor, chains, bridges, account, limits, book, tokens, metrics)
        self._newest: Snapshot | None = None
        self._told: set[bytes] = set()
        self._unsent: set[bytes] = set()
        self._refused = metrics.counter(
            "keeper_routing_refused_total", "Acts of the routing policy that were not permitted."
        )

    def on_final(self, snapshot: Snapshot) -> None:
        """Decide on the newest final view in the next round."""
        self._newest = snapshot

    async def run(self) -> None:
        """Look, follow and decide until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._policy.run)
            while True:
                await self._round(nursery)
                await trio.sleep(self._round_s)

    async def _round(self, nursery: trio.Nursery) -> None:
        """Follow what is on its way; then decide, if there is a view that is new."""
        now_ms = int(self._clock() * 1000)
        look = await self.follower.look(now_ms)
        snapshot, self._newest = self._newest, None
        if snapshot is None or self._executor.mode is Mode.OFF:
            return
        shown = self._show(snapshot)
        prices = self._prices(shown)
        quotes = await self._quotes(shown, prices, look, now_ms)
        stopped = funds.stops(shown)
        board = self._board(prices, quotes, look, stopped, now_ms)
        outcome = await self._policy.decide(self._view(shown, board, look))
        refused, unsent = set[bytes](), set[bytes]()
        acts = [one for one in outcome.decisions if isinstance(one, api.Act)]
        for act in acts[:MOST_ACTS]:
            board = self._board(prices, quotes, look, stopped, now_ms)
            found = self._judged(board, shown.view, act)
            if isinstance(found, Permit) and self._executor.mode is Mode.LIVE:
                await self.follower.begin(found.shipment)
                nursery.start_soon(self._send, found)
            elif isinstance(found, Permit):
                unsent.add(act.task)
                if act.task not in self._unsent:
                    await self._rehearse(found)
            else:
                refused.add(act.task)
                self._refused.inc()
                if act.task not in self._told:
                    log.warning("routing_act_refused", task=act.task.hex()[:128], error=found)
        self._told, self._unsent = refused, unsent

    # what a policy is shown, and what its acts are judged by

    async def _quotes(
        self, shown: api.MarketView, prices: Mapping[bytes, Price], look: Look, now_ms: int
    ) -> dict[tuple[bytes, Crossing], Quoted]:
        """Return every lane that could be asked, as it is now."""
        found = {}
        gas = {row.chain: row for row in shown.gas}
        known: dict[tuple[bytes, Crossing], list[Shipment]] = {}
        for one in self.follower.shipments:
            known.setdefault((one.bridge, one.crossing), []).append(one)
        all_terms = await read_terms(self._chains, self._lanes, look.finals)
        for (bridge, crossing), terms in zip(self._lanes, all_terms, strict=True):
            if terms is None:
                continue
            address, heard = bridge.address(crossing), self._traffic.of(bridge.name, crossing)
            seen = seen_of(known.get((address, crossing), ()), terms, heard, now_ms)
            coin = funds.coin_cost(
                gas.get(crossing.origin), prices.get(crossing.asset), terms.value
            )
            lane = lane_now(bridge, crossing, terms, seen)
            doubt = self.follower.doubt(bridge)
            found[address, crossing] = Quoted(bridge, crossing, lane, terms, coin, doubt)
        return found

    def _prices(self, shown: api.MarketView) -> dict[bytes, Price]:
        """Return the prices of assets whose tokens count in the units that the price is of."""
        return {
            row.market: Price(row.price, row.decimals)
            for row in shown.prices
            if self._decimals.get(row.market) == row.decimals
        }

    def _view(self, shown: api.MarketView, board: Board, look: Look) -> api.MarketView:
        rows = stocks(look.balances, board.known, look.facts, self._promised())
        own = self.follower.news(look)
        return msgspec.structs.replace(
            shown,
            accounts=(),
            inventory=tuple(
                funds.holding(place, one, None if own is None else own.get(place, 0))
                for place, one in rows.items()
            ),
            bridges=tuple(
                funds.quote_row(one, room(board, one))
                for _, one in sorted(board.quotes.items(), key=lambda item: item[0])
                if one.usable and not board.stopped(one)
            ),
        )

    def _board(
        self,
        prices: Mapping[bytes, Price],
        quotes: Mapping[tuple[bytes, Crossing], Quoted],
        look: Look,
        stopped: Callable[[Quoted], bool],
        now_ms: int,
    ) -> Board:
        known = self.follower.shipments
        rows = stocks(look.balances, known, look.facts, self._promised())
        return Board(
            self._limits,
            self._account,
            now_ms,
            {place: max(one.available - one.reserved, 0) for place, one in rows.items()},
            quotes,
            prices,
            known,
            busy(known, look.facts),
            stopped,
            {chain: ref.number for chain, ref in look.finals.items()},
        )

    def _judged(self, board: Board, view: int, act: api.Act) -> Permit | str:
        try:
            steps = plan_of(view, act).steps
        except ValueError as error:
            return f"its steps are no plan: {error}"
        return permit(board, act.task, steps, act.ttl_ms, act.why)

    def status(self) -> dict[str, Any]:
        """Return what is shown of own transfers."""
        return {
            "account": self._account,
            "lanes": len(self._lanes),
            "refused": len(self._told),
            "shipments": self.follower.status(int(self._clock() * 1000)),
        }

    # sending

    async def _rehearse(self, found: Permit) -> None:
        """Say what would be sent, once as long as it is asked for; in dry mode, try its start."""
        one, mode, result = found.shipment, self._executor.mode, "recorded"
        if mode is Mode.DRY:
            first = found.sends[0]
            call = Call(first.to, first.data, self._account, first.value)
            try:
                ran = await self._chains[first.chain].simulate(call)
                result = "rehearsed" if ran.ok else f"would revert: {ran.reason}"
            except RemoteFault as fault:
                result = str(fault)
        where = funds.named(one.crossing)
        log.info(
            "routing_not_sent", mode=mode.value, result=result, amount=one.amount, why=one.why,
            **where,
        )  # fmt: skip

    async def _send(self, found: Permit) -> None:
        """Bring the transactions in order; what becomes of the last one is the follower's."""
        one = found.shipment
        try:
            head = await self._chains[one.crossing.origin].head()
            deadline = BlockNumber(head.ref.number + DEADLINE_BLOCKS)
            for place, send in enumerate(found.sends):
                last = place == len(found.sends) - 1
                intent = _intent(one.key(place, last), send, deadline, one.why)
                outcome = await self._executor.submit(intent, settled=False)
                if not outcome.succeeded:
                    log.warning(
                        "shipment_not_sent", shipment=one.id.hex(), status=outcome.status.value,
                        detail=outcome.detail,
                    )  # fmt: skip
                    return
        except RemoteFault as fault:
            log.warning("shipment_not_sent", shipment=one.id.hex(), error=str(fault))
        finally:
            self.follower.handed_over(one)


def _intent(key: bytes, send: Send, deadline: BlockNumber, why: str) -> Intent:
    return Intent(
        key=key,
        chain=send.chain,
        lane=Lane.SETTLEMENT,
        to=send.to,
        data=send.data,
        deadline=deadline,
        fee_cap=FEE_CAP,
        value=send.value,
        why=why,
    )


def routing_of(
    parts: Parts,
    config: Config,
    setting: Setting,
    costs: Costs,
    promised: Callable[[], Mapping[Place, int]],
    traffic: Traffic,
) -> RoutingWork | None:
    """Return what moves this keeper's own funds, or None where the operator named no policy.

    Raises:
        LookupError: there is no such policy.
        ConfigError: a bridge's section cannot be used.
    """
    name = config.policies.get(KIND)
    if name is None:
        return None
    bridges = bridges_of(config.bridges, parts.network.id, str(config.home / "keeper.toml"))

    def show(snapshot: Snapshot) -> api.MarketView:
        """Return the market without accounts: funds are moved for what leaves places."""
        gas = costs.gas(snapshot)
        return market_view(setting, snapshot, (), gas, costs.bonuses, 0, bytes(32))

    policy = spec_of(name, config.settings_of(KIND))
    return RoutingWork(
        parts.network,
        parts.executor,
        {chain: watcher.chain for chain, watcher in parts.watchers.items()},
        bridges,
        Seat(KIND, "funds", policy, parts.home, parts.store, parts.recorder.put),
        show,
        lane_address(parts.keys.operator, Lane.SETTLEMENT),
        config.routing,
        ShipmentBook(parts.store),
        promised,
        traffic,
        parts.metrics,
    )
