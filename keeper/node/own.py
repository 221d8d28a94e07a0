"""A policy on this keeper's own positions: before others may liquidate it, it reduces itself.

    final snapshot ─▶ own accounts ─▶ deleverage policy's process ─▶ reduce steps ─▶ executor
                                      └ busy until a cut shows what was done ◀──────── receipts

Nobody else's account can be reduced: the venue knows the owner by the sender. What a policy asks is
checked here: an own account, a position that is there, no more than all of it, only to reduce.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog
import trio

from keeper.chain.port import Chain
from keeper.config import Config
from keeper.desk.seat import Seat
from keeper.errors import LocalError, RemoteFault
from keeper.execute.intent import Intent, Lane, Mode, Outcome
from keeper.execute.lane_keys import lane_address
from keeper.execute.service import Executor
from keeper.hashing import keccak
from keeper.legs import Leg, LegKind
from keeper.network import NetworkSpec
from keeper.node.market import Costs, market_view
from keeper.node.parts import Parts
from keeper.plan import Step, StepKind
from keeper.snapshot.derive import Setting, Snapshot
from keeper.units import BlockNumber, ChainId, Wei
from keeper.venue.calls import step_call
from policies import api
from policies.api import Act
from policies.discover import spec_of
from policies.host import LatestView

log = structlog.get_logger(__name__)

KIND = "deleverage"
OWN_ACCOUNTS = 8
"""Accounts of one owner that are looked at: indices 0 to 7."""
NEVER = 2**63
DEADLINE_BLOCKS = 50
FEE_CAP = Wei(5 * 10**16)
"""Most that one reduction may cost, in wei."""

Show = Callable[[Snapshot], api.MarketView]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One checked step: what to reduce, from which size."""

    index: int
    leg: Leg
    size: int

    def step(self) -> Step:
        """Return the step as the venue's adapter takes it."""
        names = (("index", self.index), ("market", self.leg.market), ("size", self.size))
        return Step("reduce", self.leg.chain, StepKind.REDUCE, self.leg.venue, names)


class OwnWork:
    """Reduces this keeper's own positions as its policy says.

    Args:
        network: the descriptor.
        owner: address of the urgent lane: whose accounts these are.
        seat: the policy.
        executor: sends.
        chains: asked for their heads.
        show: makes a view of a snapshot.
    """

    def __init__(
        self,
        network: NetworkSpec,
        owner: bytes,
        seat: Seat,
        executor: Executor,
        chains: Mapping[ChainId, Chain],
        show: Show,
    ) -> None:
        self._accounts = {network.account(owner, at): at for at in range(OWN_ACCOUNTS)}
        self._venues = {spec.id: spec.contract("Perps") for spec in network.chains}
        self.seat, self._executor, self._chains, self._show = seat, executor, chains, show
        self._latest = LatestView()
        self._newest: Snapshot | None = None
        self._busy: dict[bytes, tuple[ChainId, int]] = {}
        self._tries: dict[bytes, int] = {}
        self.reduced = 0

    def on_final(self, snapshot: Snapshot) -> None:
        """Take a final view; it matters only while an own account holds something."""
        for task, (chain, block) in list(self._busy.items()):
            cut = snapshot.cut.get(chain)
            if block > 0 and cut is not None and cut.number >= block:
                del self._busy[task]
        if any(account in snapshot.margins for account in self._accounts):
            self._newest = snapshot
            self._latest.put(self._show(snapshot))

    async def run(self) -> None:
        """Let the policy decide on the newest view until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.seat.run)
            while True:
                view = await self._latest.get()
                snapshot = self._newest
                assert snapshot is not None, "a view is made of a snapshot"
                outcome = await self.seat.decide(view)
                for act in outcome.decisions:
                    if isinstance(act, Act) and act.task not in self._busy:
                        self._busy[act.task] = (ChainId(0), 0)
                        nursery.start_soon(self._act, act, snapshot)

    async def _act(self, act: Act, snapshot: Snapshot) -> None:
        """Run the steps of an act; the task is free again once a cut shows what they did."""
        last: tuple[ChainId, int] | None = None
        for step in act.steps:
            wanted = self._checked(step, snapshot)
            if isinstance(wanted, str):
                log.warning("own_act_refused", task=act.task.hex(), error=wanted)
                break
            outcome = await self._reduce(act, wanted)
            if self._executor.mode is not Mode.LIVE:
                last = wanted.leg.chain, NEVER  # told once; nothing will come of it
                break
            if outcome is None or not outcome.succeeded:
                self._tries[act.task] = self._tries.get(act.task, 0) + 1
                break
            self.reduced += 1
            last = wanted.leg.chain, outcome.block
        if last is None:
            del self._busy[act.task]
        else:
            self._busy[act.task] = last

    def _checked(self, step: api.PlanStep, snapshot: Snapshot) -> Wanted | str:
        """Return what a step reduces, or what is wrong with it."""
        blobs, numbers = dict(step.blobs), dict(step.numbers)
        account, market = blobs.get("account", b""), blobs.get("market", b"")
        index = self._accounts.get(account)
        if index is None:
            return f"account 0x{account.hex()} is none of this keeper's"
        if step.kind != "reduce" or step.venue != self._venues.get(ChainId(step.chain)):
            return f"{step.kind} at 0x{step.venue.hex()} on chain {step.chain} is no reduction"
        key = (step.chain, step.venue, market, LegKind.PERP)
        for leg in snapshot.legs.get(account, ()):
            if (leg.chain, leg.venue, leg.market, leg.kind) == key and leg.size:
                size = int(numbers.get("size", 0))
                if not 0 < size <= abs(leg.size):
                    return f"a size of {size} of {leg.size}"
                return Wanted(index, leg, size)
        return "there is no such position"

    async def _reduce(self, act: Act, wanted: Wanted) -> Outcome | None:
        """Send one reduction, at most once from one size of the position, also over a restart."""
        leg, tries = wanted.leg, self._tries.get(act.task, 0)
        name = f"{leg.chain}|{leg.size}|{tries}".encode()
        key = keccak(act.task + leg.venue + leg.market + name)
        call = step_call(wanted.step())
        try:
            head = await self._chains[leg.chain].head()
            intent = Intent(
                key=key,
                chain=call.chain,
                lane=Lane.URGENT,
                to=call.to,
                data=call.data,
                deadline=BlockNumber(head.ref.number + DEADLINE_BLOCKS),
                fee_cap=FEE_CAP,
                why=act.why,
            )
            outcome = await self._executor.submit(intent, settled=False)
        except LocalError:  # an earlier life asked for another amount: what it began goes on
            outcome = await self._executor.wait(key, settled=False)
        except RemoteFault as fault:
            log.warning("own_act_waits", error=str(fault))
            return None
        log.info("own_act", status=outcome.status.value, detail=outcome.detail, why=act.why)
        return outcome


def own_work(parts: Parts, config: Config, setting: Setting, costs: Costs) -> OwnWork | None:
    """Return the work on own positions, or None where the operator named no policy for it.

    Raises:
        LookupError: there is no such policy.
    """
    name = config.policies.get(KIND)
    if name is None:
        return None
    owner = lane_address(parts.keys.operator, Lane.URGENT)
    purse = parts.network.account(owner)

    def show(snapshot: Snapshot) -> api.MarketView:
        return market_view(setting, snapshot, (), costs.gas(snapshot), costs.bonuses, 0, purse)

    policy = spec_of(name, config.settings_of(KIND))
    seat = Seat(KIND, "own", policy, parts.home, parts.store, parts.recorder.put)
    chains = {chain: watcher.chain for chain, watcher in parts.watchers.items()}
    return OwnWork(parts.network, owner, seat, parts.executor, chains, show)
