"""One lane at work: its account's nonces have one owner, and every step is on disk first.

    each new head ─▶ receipts ─▶ lanes.decide ─▶ journal, chain          what is signed goes on
                  └▶ planned ─▶ simulate ─▶ journal(signed, raw) ─▶ broadcast ─▶ journal(sent)

A start and a round are the same code: what was open is looked up on the chain, never sent blindly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog
import trio

from keeper.chain.port import Call, Chain, Header, Level, Receipt, Simulation
from keeper.errors import RemoteFault
from keeper.execute import fees, lanes
from keeper.execute.fees import Offer, Schedule
from keeper.execute.intent import Intent, Lane, State
from keeper.execute.journal import Journal
from keeper.execute.ledger import Attempt, Ledger, Moved, Signed, Task
from keeper.execute.signer import Envelope, Signer
from keeper.metrics import Metrics
from keeper.reasons import Reason
from keeper.units import ppm_ceil

log = structlog.get_logger(__name__)

_SIMULATIONS = 16
"""Rehearsals at once: as many as an endpoint has connections."""


class Tally:
    """What all lanes count."""

    def __init__(self, metrics: Metrics) -> None:
        self.closed = metrics.counter(
            "keeper_transactions_closed_total", "Tasks by how they ended.", ("lane", "status")
        )
        self.faults = metrics.counter(
            "keeper_lane_faults_total", "Rounds of a lane that a chain fault ended.", ("reason",)
        )


@dataclass(slots=True)
class LaneWorker:
    """One account on one chain.

    Args:
        chain: where it acts.
        lane: which one it is.
        signer: the account.
        schedule: how eager it is.
        ledger: where its tasks are read.
        journal: where they are written.
        tally: what is counted.
        poll_s: how often to look when nothing wakes it.
    """

    chain: Chain
    lane: Lane
    signer: Signer
    schedule: Schedule
    ledger: Ledger
    journal: Journal
    tally: Tally
    poll_s: float
    wake: trio.Event = field(default_factory=trio.Event)
    rounds: int = 0
    trouble: str = ""

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self.wake = trio.Event()
            try:
                await self._round()
                self.trouble = ""
            except RemoteFault as fault:
                self._fault(fault)
            self.rounds += 1
            with trio.move_on_after(self.poll_s):
                await self.wake.wait()

    def _fault(self, fault: RemoteFault) -> None:
        """Count every fault; warn once until another one or a good round."""
        self.tally.faults.labels(fault.reason.value).inc()
        if self.trouble != str(fault):
            self.trouble = str(fault)
            log.warning("lane_waits", chain=self.chain.id, lane=self.lane.value, error=self.trouble)

    async def _round(self) -> None:
        tasks = await trio.to_thread.run_sync(self.ledger.open_tasks, self.chain.id, self.lane)
        if not tasks:
            return
        final = await self.chain.head(Level.FINAL)
        head = await self.chain.head()
        signed = [task for task in tasks if task.attempts]
        await self._advance(signed, head, final)
        planned = [task for task in tasks if not task.attempts]
        if planned:
            await self._start(planned, lanes.MAX_IN_FLIGHT - len(signed), head)

    # signed tasks ----------------------------------------------------------------------------

    async def _advance(self, tasks: Sequence[Task], head: Header, final: Header) -> None:
        """Look at every signed task, and do what `lanes.decide` says."""
        if not tasks:
            return
        chain, address = self.chain, self.signer.address
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
            await self._act(task, lanes.decide(task, facts, self.schedule), head)

    async def _act(self, task: Task, action: lanes.Action, head: Header) -> None:
        match action:
            case lanes.Wait():
                pass
            case lanes.Record(change):
                await self._move(change)
            case lanes.Resend(attempt):
                await self._send(task.intent.key, attempt, fresh=task.state is State.SIGNED)
            case lanes.Replace(offer, gas):
                await self._sign(task, offer, gas, head)
            case lanes.Cancel(offer):
                await self._sign(task, offer, lanes.CANCEL_GAS, head, cancels=True)

    async def _move(self, change: Moved) -> None:
        await self.journal.write(change)
        task = await self.journal.task(change.key)
        if task is not None and not task.open:
            self.tally.closed.labels(self.lane.value, task.outcome.status.value).inc()
            self._tell(task)

    def _tell(self, task: Task) -> None:
        """Log how a task ended, in one line."""
        outcome = task.outcome
        log.info(
            "task_closed",
            task=outcome.key.hex(),
            chain=self.chain.id,
            lane=self.lane.value,
            status=outcome.status.value,
            reason=outcome.reason.value if outcome.reason else None,
            transaction=outcome.transaction.hex(),
            fee_wei=outcome.fee,
        )

    async def _sign(
        self,
        task: Task,
        offer: Offer,
        gas: int,
        head: Header,
        *,
        cancels: bool = False,
    ) -> None:
        """Sign in place of the last attempt, write it, send it."""
        assert task.nonce is not None, "only a signed task is replaced"
        attempt = self._attempt(task.intent, task.nonce, offer, gas, head, cancels)
        signed = Signed(task.intent.key, self.signer.address, task.nonce, attempt)
        await self.journal.write(signed)
        await self._send(task.intent.key, attempt, fresh=True)

    async def _send(self, key: bytes, attempt: Attempt, *, fresh: bool) -> None:
        """Broadcast; a refusal stays in the story, and the next round looks again."""
        try:
            await self.chain.submit(attempt.raw)
        except RemoteFault as fault:
            self._fault(fault)
            return
        if fresh:
            await self._move(Moved(key, State.SENT))

    # starting planned tasks ------------------------------------------------------------------

    async def _start(self, planned: Sequence[Task], room: int, head: Header) -> None:
        """Give nonces to planned tasks that still make sense, in order, then send them."""
        market = fees.cautious(await self.chain.fees(), head.base_fee)
        opening = fees.first(self.schedule, market)
        ran = await self._simulations([task.intent for task in planned[: max(room, 0)]])
        nonce = max(
            await self.chain.nonce(self.signer.address, head.ref),
            self.ledger.next_nonce(self.chain.id, self.signer.address),
        )
        signed: list[Signed] = []
        for task in planned:
            intent = task.intent
            simulation = ran.get(intent.key)
            gas = 0 if simulation is None else ppm_ceil(simulation.gas, self.schedule.gas_ppm)
            gas = min(gas, head.gas_limit)  # an estimate is a hint, a block's size is agreed
            offer = fees.within(opening, gas, intent.fee_cap, market) if gas else None
            refusal = await self._refusal(intent, simulation, offer, head)
            if refusal is not None:
                await self._move(refusal)
            elif offer is not None and gas:
                attempt = self._attempt(intent, nonce, offer, gas, head, False)
                signed.append(Signed(intent.key, self.signer.address, nonce, attempt))
                nonce += 1
        if not signed:
            return
        await self.journal.write(*signed)
        async with trio.open_nursery() as nursery:
            for each in signed:
                nursery.start_soon(self._send_fresh, each)

    async def _send_fresh(self, signed: Signed) -> None:
        await self._send(signed.key, signed.attempt, fresh=True)

    async def _refusal(
        self,
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
            (shown,) = await self.chain.calls([Call(effect.to, effect.data)], head.ref)
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
                    call = Call(intent.to, intent.data, self.signer.address, intent.value)
                    found[intent.key] = await self.chain.simulate(call)
                except RemoteFault as fault:
                    self.tally.faults.labels(fault.reason.value).inc()

        async with trio.open_nursery() as nursery:
            for intent in intents:
                nursery.start_soon(one, intent)
        return found

    def _attempt(
        self, intent: Intent, nonce: int, offer: Offer, gas: int, head: Header, cancels: bool
    ) -> Attempt:
        to, data, value = (intent.to, intent.data, intent.value)
        if cancels:
            to, data, value = self.signer.address, b"", 0
        envelope = Envelope(self.chain.id, nonce, to, data, value, gas, offer)
        transaction, raw = self.signer.sign(envelope)
        return Attempt(transaction, raw, offer, gas, head.ref.number, cancels)


def _receipt(task: Task, found: Mapping[bytes, Receipt | None]) -> Receipt | None:
    """Return the receipt of whichever attempt is mined."""
    mined = (found[attempt.hash] for attempt in task.attempts)
    return next((receipt for receipt in mined if receipt is not None), None)
