"""Between the certified state and a policy: views out, bids in.

    final snapshot ─▶ MarketView ─▶ policy's process ─▶ Act ─▶ wishes ─▶ Bidder ─▶ commit ─▶ gossip
    next states ──────────────────▶ Bidder.follow ─▶ reveal ─▶ gossip

The policy sees the newest view only; a slow one misses views, never delays them. Subjects, not
tasks, are what bids name, so they are what the policy is given as task ids. Beside open tasks it is
given the positions near liquidation, as the tasks they would be.
"""

from collections.abc import Callable

import structlog
import trio

from keeper.compete.bidder import Bidder, Reserve, Wish
from keeper.compete.hearing import COMMIT, REVEAL, Hearing
from keeper.compete.standing import standing_tasks
from keeper.compete.state import AwardState
from keeper.compete.state import decode as decode_state
from keeper.compete.task import Task
from keeper.hashing import keccak
from keeper.legs import Leg
from keeper.node.parts import Parts
from keeper.snapshot.derive import Setting, Snapshot, watched
from keeper.units import PPM
from keeper.venue import bonds
from p2p.agreement.signing import EcdsaSigner
from p2p.port import Topic
from p2p.service import verdict_of
from p2p.verdicts import ACCEPT, Verdict
from policies import api
from policies.host import LatestView, Outcome, PolicyHost, PolicySpec
from policies.record import Decided, RecordFolder, Viewed, state_hash

log = structlog.get_logger(__name__)

GAS_UNITS = 400_000
"""What an execution costs at most, for the policy's estimate."""
COIN_PRICE_E8 = 3_000 * 10**8
"""Price of the native coin for the policy's gas estimate until a feed names one."""


class Trader:
    """One keeper's part in the competition of one epoch."""

    def __init__(
        self,
        parts: Parts,
        setting: Setting,
        policy: PolicySpec,
        offer_body: Callable[[bytes], bytes],
        on_state: Callable[[AwardState], None],
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
        self.hearing = Hearing(parts.network.id, setting.epoch, setting.config, self._is_bonded)
        self.host = PolicyHost(policy)
        self._latest = LatestView()
        self._record = RecordFolder(
            parts.home / "records",
            {"network": parts.network.id.hex(), "keeper": parts.keys.address.hex()},
        )
        self._offer_body, self._on_state = offer_body, on_state
        self._bonds: dict[bytes, bonds.BondRecord] = {}
        self._tasks: dict[bytes, Task] = {}
        self._standing: frozenset[bytes] = frozenset()
        self._collecting = 0
        self._followed = False
        self.bids = 0
        self._bids_total = parts.metrics.counter(
            "keeper_bids_total", "Commitments this keeper made."
        )

    def _is_bonded(self, keeper: bytes) -> bool:
        bond = self._bonds.get(keeper)
        return bond is not None and bond.status is bonds.BondStatus.ACTIVE

    # gossip

    def take(self, peer: bytes, frame: bytes) -> Verdict:
        """Take a frame of the bids topic."""
        reason = self.hearing.take(frame)
        if reason is not None:
            return verdict_of(reason)
        if frame[:1] == REVEAL:
            self._offer_body(frame[1:])
        return ACCEPT

    def _say(self, kind: bytes, body: bytes) -> None:
        frame = kind + body
        self.hearing.take(frame)
        if kind == REVEAL:
            self._offer_body(body)
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
            # an earlier life may have committed in the round that is open now
            self.bidder.last_view, self._followed = state.collecting, True
        self.hearing.advance(view)
        reveals, _ = self.bidder.follow(view, state)
        for body in reveals:
            self._say(REVEAL, body)
        self._on_state(state)
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
        setting = self._setting
        now_ms = setting.network.genesis_time_ms + snapshot.header.tick * setting.network.tick_ms
        accounts = {task.target.account for task in self._tasks.values()}
        accounts |= set(watched(self._parameters, snapshot.margins))
        margin = self._parameters.margin
        decimals = {m.symbol: m.decimals for m in margin.markets}
        decimals |= {a.symbol: a.decimals for a in margin.assets}
        return api.MarketView(
            view=snapshot.header.view,
            now_ms=now_ms,
            seed=int.from_bytes(keccak(snapshot.root)[:8], "big"),
            accounts=tuple(
                _account(snapshot, account)
                for account in sorted(accounts)
                if account in snapshot.margins
            ),
            prices=tuple(
                api.Price(market, price.price_e8, decimals.get(market, 8), 0)
                for market, price in sorted(snapshot.book.prices.items())
                if not price.stale
            ),
            gas=tuple(
                api.Gas(chain.id, 2 * 10**9, COIN_PRICE_E8) for chain in setting.network.chains
            ),
            tasks=tuple(self._task(task) for task in self._tasks.values()),
            heads=tuple((ref.chain, ref.number) for ref in snapshot.header.cut),
            bond_free=self._free_bond() // self._parameters.competition.bond_per_unit,
        )

    def _task(self, task: Task) -> api.Task:
        target = task.target
        bonus = task.bonus * PPM // max(1, task.value)
        per_unit = self._parameters.competition.bond_per_unit
        return api.Task(
            task=target.subject,
            account=target.account,
            chain=target.chain,
            venue=target.venue,
            market=target.market,
            max_size=api.Wide(task.size),
            terms=(api.Term(target.market, bonus),),
            reserve=task.reserve,
            lock=task.lock // per_unit,
            gas_units=GAS_UNITS,
        )

    def _free_bond(self) -> int:
        bond = self._bonds.get(self._parts.keys.address)
        return 0 if bond is None else max(0, bond.free - self.bidder.reserved().bond)

    # the policy

    async def run(self) -> None:
        """Let the policy decide on the newest view until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.host.run)
            while True:
                view = await self._latest.get()
                outcome = await self.host.outcome(view)
                for one in outcome.decisions:
                    log.debug("policy", view=view.view, decision=type(one).__name__, why=one.why)
                self._write_down(view, outcome)
                self._bid(outcome.decisions)

    def _write_down(self, view: api.MarketView, outcome: Outcome) -> None:
        """Keep what the policy saw and said, for `keeper policy explain` and `backtest`."""
        self._record.append(Viewed(view))
        self._record.append(
            Decided(
                outcome.view,
                self.host.spec.name,
                outcome.source,
                outcome.decisions,
                state_hash(outcome.state),
                outcome.fault,
                outcome.elapsed_us,
            )
        )

    def _bid(self, decisions: tuple[api.Decision, ...]) -> None:
        bond = self._bonds.get(self._parts.keys.address)
        if bond is None or not self._collecting or self._parts.executor.mode.value == "off":
            return
        wishes = [
            Wish(
                act.task,
                act.price,
                self._tasks[act.task].value,
                profit=act.profit,
                standing=act.task in self._standing,
            )
            for act in decisions
            if isinstance(act, api.Act) and act.task in self._tasks
        ]
        commit = self.bidder.commit(
            self._collecting,
            wishes,
            Reserve(bond.free, 0),
            self._parts.random_bytes(32),
            self._signer.sign,
        )
        if commit is not None and self._parts.executor.mode.value in ("dry", "live"):
            self.bids += 1
            self._bids_total.inc()
            self._say(COMMIT, commit.encode())


def _account(snapshot: Snapshot, account: bytes) -> api.Account:
    margin = snapshot.margins[account]
    legs: tuple[Leg, ...] = snapshot.legs.get(account, ())
    return api.Account(
        account,
        margin.equity,
        margin.imr,
        margin.mmr,
        margin.requirement,
        margin.health_ppm,
        b"".join(leg.pack() for leg in legs),
    )
