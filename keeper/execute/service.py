"""Runs the lanes: durable first, then the chain, then durable again.

    submit ─▶ ledger(planned) ─▶ lane: simulate ─▶ ledger(signed, raw) ─▶ broadcast ─▶ ledger(sent)
                                 lane: each new head ─▶ receipts ─▶ lanes.decide ─▶ ledger, chain

One task per lane, so an account's nonces have one owner. All writes go through one writer that
commits whatever has gathered meanwhile (group commit); nobody goes on before his write is on disk.
A start and a round are the same code: what was open is looked up on the chain, never sent blindly.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog
import trio

from keeper.chain.port import BlockRef, Call, Chain, Header, Level, Receipt, Simulation
from keeper.errors import ConfigError, LocalError, RemoteFault
from keeper.execute import fees, lanes
from keeper.execute.fees import Offer, Schedule
from keeper.execute.intent import Intent, Lane, Mode, Outcome, State, Status
from keeper.execute.ledger import Attempt, Change, Ledger, Moved, Planned, Signed, Task
from keeper.execute.modes import Account, KeySource, equip
from keeper.execute.signer import Envelope, Signer
from keeper.metrics import Metrics
from keeper.reasons import Reason
from keeper.units import PPM, ChainId, ppm_ceil

log = structlog.get_logger(__name__)

SCHEDULES: Mapping[Lane, Schedule] = {
    Lane.URGENT: Schedule(tip_ppm=2 * PPM, patience=1),
    Lane.SETTLEMENT: Schedule(patience=3),
    Lane.HOUSEKEEPING: Schedule(patience=10),
}

_SIMULATIONS = 16
"""Rehearsals at once: as many as an endpoint has connections."""


class Journal:
    """Group commit: one writer, whatever has gathered is one durable transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._waiting: list[tuple[Sequence[Change], trio.Event, list[LocalError]]] = []
        self._work = trio.Event()
        self._limit = trio.CapacityLimiter(1)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            batch, self._waiting = self._waiting, []
            await trio.to_thread.run_sync(self._commit, batch, limiter=self._limit)
            for _, done, _ in batch:
                done.set()

    def _commit(
        self, batch: Sequence[tuple[Sequence[Change], trio.Event, list[LocalError]]]
    ) -> None:
        now = int(time.time())
        try:
            self._ledger.apply([change for changes, _, _ in batch for change in changes], now)
        except LocalError:
            for changes, _, errors in batch:
                try:
                    self._ledger.apply(changes, now)
                except LocalError as error:
                    errors.append(error)

    async def write(self, *changes: Change) -> None:
        """Return when the changes are on disk.

        Raises:
            LocalError: the ledger refuses them.
        """
        done, errors = trio.Event(), list[LocalError]()
        self._waiting.append((changes, done, errors))
        self._work.set()
        await done.wait()
        if errors:
            raise errors[0]


@dataclass(slots=True)
class _Lane:
    chain: Chain
    lane: Lane
    signer: Signer
    schedule: Schedule
    wake: trio.Event = field(default_factory=trio.Event)
    rounds: int = 0
    trouble: str = ""


class Executor:
    """Turns intents into effects on chains, each at most once.

    Args:
        ledger: where everything is written first.
        chains: the chains it may act on.
        mode: how far it goes.
        keys: per (chain, lane) where the private key comes from; asked in live mode only.
        schedules: how eager each lane is.
        poll_s: how often a lane looks when nothing wakes it.
    """

    def __init__(
        self,
        ledger: Ledger,
        chains: Mapping[ChainId, Chain],
        mode: Mode,
        keys: Mapping[Account, KeySource],
        *,
        schedules: Mapping[Lane, Schedule] = SCHEDULES,
        metrics: Metrics | None = None,
        poll_s: float = 0.5,
    ) -> None:
        self.mode, self._ledger, self._chains = mode, ledger, chains
        self._equipment = equip(mode, keys)
        self._journal = Journal(ledger)
        self._poll_s = poll_s
        self._lanes = {
            (chain, lane): _Lane(chains[chain], lane, signer, schedules[lane])
            for (chain, lane), signer in self._equipment.signers.items()
        }
        self._changed: dict[bytes, trio.Event] = {}
        registry = metrics or Metrics()
        self._closed = registry.counter(
            "keeper_transactions_closed_total", "Tasks by how they ended.", ("lane", "status")
        )
        self._faults = registry.counter(
            "keeper_lane_faults_total", "Rounds of a lane that a chain fault ended.", ("reason",)
        )

    def address(self, chain: ChainId, lane: Lane) -> bytes | None:
        """Return the account of a lane, in live mode."""
        found = self._lanes.get((chain, lane))
        return None if found is None else found.signer.address

    async def run(self) -> None:
        """Recover what was open and work until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._journal.run)
            for lane in self._lanes.values():
                nursery.start_soon(self._work, lane)

    def poke(self, chain: ChainId) -> None:
        """Look at a chain's lanes now: call it at every chain event."""
        for (each, _), lane in self._lanes.items():
            if each == chain:
                lane.wake.set()

    # submitting ------------------------------------------------------------------------------

    async def submit(
        self, intent: Intent, *, certified: BlockRef | None = None, settled: bool = True
    ) -> Outcome:
        """Do it once, and return how it ended; the same intent again joins the first.

        Args:
            intent: what to do.
            certified: the block the plan was made on; simulated there before anything is written.
            settled: wait for a final block; False returns as soon as it is mined.

        Raises:
            LocalError: another intent has this key, or the lane has no account.
            RemoteFault: the chain cannot be asked before anything was written.
        """
        if not self._equipment.accepts:
            return Outcome(intent.key, Status.REFUSED, Reason.MODE_OFF)
        if not self._equipment.rehearses:
            return self._not_sent(intent, Status.RECORDED)
        known = await trio.to_thread.run_sync(self._ledger.task, intent.key)
        if known is None:
            refusal = await self._rehearse(intent, certified)
            if refusal is not None:
                return refusal
        if not self._equipment.sends:
            return self._not_sent(intent, Status.REHEARSED)
        lane = self._lanes.get((intent.chain, intent.lane))
        if lane is None:
            raise ConfigError(f"no account for lane {intent.lane.value} on chain {intent.chain}")
        await self._journal.write(Planned(intent))
        lane.wake.set()
        return await self.wait(intent.key, settled=settled)

    def _not_sent(self, intent: Intent, status: Status) -> Outcome:
        """Log what would have been sent in another mode."""
        log.info(
            "intent_not_sent",
            mode=self.mode.value,
            task=intent.key.hex(),
            chain=intent.chain,
            lane=intent.lane.value,
            why=intent.why,
        )
        return Outcome(intent.key, status, Reason.MODE_OFF)

    async def wait(self, key: bytes, *, settled: bool = True) -> Outcome:
        """Return the outcome of a task once it is closed, or mined if that is enough."""
        while True:
            changed = self._changed.setdefault(key, trio.Event())
            task = await trio.to_thread.run_sync(self._ledger.task, key)
            if task is None:
                raise LocalError("no such task", where=key.hex())
            if not task.open or (not settled and task.state is State.MINED):
                return task.outcome
            await changed.wait()

    async def _rehearse(self, intent: Intent, certified: BlockRef | None) -> Outcome | None:
        """Return why not, or None: simulated at the certified block, or at the newest."""
        ran = await self._simulate(intent, certified)
        if ran.ok:
            return None
        return Outcome(intent.key, Status.REFUSED, Reason.REVERTED, detail=ran.reason)

    async def _simulate(self, intent: Intent, at: BlockRef | None = None) -> Simulation:
        sender = self.address(intent.chain, intent.lane) or bytes(20)
        call = Call(intent.to, intent.data, sender, intent.value)
        return await self._chains[intent.chain].simulate(call, at)

    # one lane --------------------------------------------------------------------------------

    async def _work(self, lane: _Lane) -> None:
        while True:
            lane.wake = trio.Event()
            try:
                await self._round(lane)
                lane.trouble = ""
            except RemoteFault as fault:
                self._fault(lane, fault)
            lane.rounds += 1
            with trio.move_on_after(self._poll_s):
                await lane.wake.wait()

    def _fault(self, lane: _Lane, fault: RemoteFault) -> None:
        """Count every fault; warn once until another one or a good round."""
        self._faults.labels(fault.reason.value).inc()
        if lane.trouble != str(fault):
            lane.trouble = str(fault)
            log.warning("lane_waits", chain=lane.chain.id, lane=lane.lane.value, error=lane.trouble)

    async def _round(self, lane: _Lane) -> None:
        tasks = await trio.to_thread.run_sync(self._ledger.open_tasks, lane.chain.id, lane.lane)
        if not tasks:
            return
        final = await lane.chain.head(Level.FINAL)
        head = await lane.chain.head()
        signed = [task for task in tasks if task.attempts]
        await self._advance(lane, signed, head, final)
        planned = [task for task in tasks if not task.attempts]
        if planned:
            room = lanes.MAX_IN_FLIGHT - len(signed)
            await self._start(lane, planned, room, head)

    async def _advance(
        self, lane: _Lane, tasks: Sequence[Task], head: Header, final: Header
    ) -> None:
        """Look at every signed task, and do what `lanes.decide` says."""
        if not tasks:
            return
        chain, address = lane.chain, lane.signer.address
        hashes = [attempt.hash for task in tasks for attempt in task.attempts]
        found = dict(zip(hashes, await chain.receipts(hashes), strict=True))
        receipts = [_receipt(task, found) for task in tasks]
        open_hashes = [
            task.attempts[-1].hash
            for task, receipt in zip(tasks, receipts, strict=True)
            if receipt is None
        ]
        known = dict(zip(open_hashes, await chain.known(open_hashes), strict=True))
        nonce = await chain.nonce(address, head.ref)
        nonce_final = 0
        if any(r is None and (t.nonce or 0) < nonce for t, r in zip(tasks, receipts, strict=True)):
            nonce_final = await chain.nonce(address, final.ref)
        market = fees.cautious(await chain.fees(), head.base_fee)
        for task, receipt in zip(tasks, receipts, strict=True):
            facts = lanes.Facts(
                head.ref.number,
                final.ref.number,
                nonce,
                nonce_final,
                receipt,
                known.get(task.attempts[-1].hash, False),
                market,
            )
            await self._act(lane, task, lanes.decide(task, facts, lane.schedule), head)

    async def _act(self, lane: _Lane, task: Task, action: lanes.Action, head: Header) -> None:
        match action:
            case lanes.Wait():
                pass
            case lanes.Record(change):
                await self._move(lane, change)
            case lanes.Resend(attempt):
                await self._send(lane, task.intent.key, attempt, fresh=task.state is State.SIGNED)
            case lanes.Replace(offer, gas):
                await self._sign(lane, task, offer, gas, head)
            case lanes.Cancel(offer):
                await self._sign(lane, task, offer, lanes.CANCEL_GAS, head, cancels=True)

    async def _move(self, lane: _Lane, change: Moved) -> None:
        await self._journal.write(change)
        task = await trio.to_thread.run_sync(self._ledger.task, change.key)
        if task is not None and not task.open:
            self._closed.labels(lane.lane.value, task.outcome.status.value).inc()
            _tell(lane, task)
        event = self._changed.pop(change.key, None)
        if event is not None:
            event.set()

    async def _sign(
        self,
        lane: _Lane,
        task: Task,
        offer: Offer,
        gas: int,
        head: Header,
        *,
        cancels: bool = False,
    ) -> None:
        """Sign in place of the last attempt, write it, send it."""
        assert task.nonce is not None, "only a signed task is replaced"
        attempt = _attempt(lane, task.intent, task.nonce, offer, gas, head, cancels)
        signed = Signed(task.intent.key, lane.signer.address, task.nonce, attempt)
        await self._journal.write(signed)
        await self._send(lane, task.intent.key, attempt, fresh=True)

    async def _send(self, lane: _Lane, key: bytes, attempt: Attempt, *, fresh: bool) -> None:
        """Broadcast; a refusal stays in the story, and the next round looks again."""
        try:
            await lane.chain.submit(attempt.raw)
        except RemoteFault as fault:
            self._fault(lane, fault)
            return
        if fresh:
            await self._move(lane, Moved(key, State.SENT))

    # starting planned tasks ------------------------------------------------------------------

    async def _start(self, lane: _Lane, planned: Sequence[Task], room: int, head: Header) -> None:
        """Give nonces to planned tasks that still make sense, in order, then send them."""
        market = fees.cautious(await lane.chain.fees(), head.base_fee)
        opening = fees.first(lane.schedule, market)
        ran = await self._simulations([task.intent for task in planned[: max(room, 0)]])
        nonce = max(
            await lane.chain.nonce(lane.signer.address, head.ref),
            self._ledger.next_nonce(lane.chain.id, lane.signer.address),
        )
        signed: list[Signed] = []
        for task in planned:
            intent = task.intent
            simulation = ran.get(intent.key)
            gas = 0 if simulation is None else ppm_ceil(simulation.gas, lane.schedule.gas_ppm)
            offer = fees.within(opening, gas, intent.fee_cap, market) if gas else None
            refusal = await self._refusal(lane, intent, simulation, offer, head)
            if refusal is not None:
                await self._move(lane, refusal)
            elif offer is not None and gas:
                attempt = _attempt(lane, intent, nonce, offer, gas, head, False)
                signed.append(Signed(intent.key, lane.signer.address, nonce, attempt))
                nonce += 1
        if not signed:
            return
        await self._journal.write(*signed)
        async with trio.open_nursery() as nursery:
            for each in signed:
                nursery.start_soon(self._send_fresh, lane, each)

    async def _send_fresh(self, lane: _Lane, signed: Signed) -> None:
        await self._send(lane, signed.key, signed.attempt, fresh=True)

    async def _refusal(
        self,
        lane: _Lane,
        intent: Intent,
        simulation: Simulation | None,
        offer: Offer | None,
        head: Header,
    ) -> Moved | None:
        """Return why a task will never be signed, or None; a high fee may still fall."""
        if head.ref.number >= intent.deadline:
            dear = simulation is not None and simulation.ok and offer is None
            return Moved(
                intent.key, State.DROPPED, Reason.OVER_CAP if dear else Reason.PAST_DEADLINE
            )
        if simulation is None:
            return None
        effect = intent.effect
        if effect is not None:
            (shown,) = await lane.chain.calls([Call(effect.to, effect.data)], head.ref)
            if shown.ok and shown.output == effect.expect:
                return Moved(
                    intent.key, State.SUPERSEDED, Reason.DUPLICATE, "the effect is there already"
                )
        if not simulation.ok:
            return Moved(intent.key, State.DROPPED, Reason.REVERTED, simulation.reason)
        return None

    async def _simulations(self, intents: Sequence[Intent]) -> dict[bytes, Simulation]:
        """Return a fresh simulation of each; one that cannot be had now is left out."""
        found: dict[bytes, Simulation] = {}
        limit = trio.CapacityLimiter(_SIMULATIONS)

        async def one(intent: Intent) -> None:
            async with limit:
                try:
                    found[intent.key] = await self._simulate(intent)
                except RemoteFault as fault:
                    self._faults.labels(fault.reason.value).inc()

        async with trio.open_nursery() as nursery:
            for intent in intents:
                nursery.start_soon(one, intent)
        return found


def _tell(lane: _Lane, task: Task) -> None:
    """Log how a task ended, in one line."""
    outcome = task.outcome
    log.info(
        "task_closed",
        task=outcome.key.hex(),
        chain=lane.chain.id,
        lane=lane.lane.value,
        status=outcome.status.value,
        reason=outcome.reason.value if outcome.reason else None,
        transaction=outcome.transaction.hex(),
        fee_wei=outcome.fee,
    )


def _receipt(task: Task, found: Mapping[bytes, Receipt | None]) -> Receipt | None:
    """Return the receipt of whichever attempt is mined."""
    mined = (found[attempt.hash] for attempt in task.attempts)
    return next((receipt for receipt in mined if receipt is not None), None)


def _attempt(
    lane: _Lane, intent: Intent, nonce: int, offer: Offer, gas: int, head: Header, cancels: bool
) -> Attempt:
    to, data, value = (intent.to, intent.data, intent.value)
    if cancels:
        to, data, value = lane.signer.address, b"", 0
    envelope = Envelope(lane.chain.id, nonce, to, data, value, gas, offer)
    transaction, raw = lane.signer.sign(envelope)
    return Attempt(transaction, raw, offer, gas, head.ref.number, cancels)
