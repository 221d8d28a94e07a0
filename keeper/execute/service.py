"""Turns intents into effects on chains: refuses, rehearses, hands over to a lane, and waits.

    submit ─▶ mode? ─▶ simulate at the certified block ─▶ journal(planned) ─▶ lane (`worker.py`)
    wait   ◀──────────────────────────────────────────── task closed, or mined if that is enough

One task per lane, so an account's nonces have one owner.
"""

import time
from collections.abc import Callable, Mapping

import structlog
import trio

from keeper.chain.port import BlockRef, Call, Chain
from keeper.errors import ConfigError
from keeper.execute.fees import Schedule
from keeper.execute.intent import Intent, Lane, Mode, Outcome, State, Status
from keeper.execute.journal import Journal
from keeper.execute.ledger import Ledger, Planned, Task
from keeper.execute.modes import Account, KeySource, equip
from keeper.execute.worker import LaneWorker, Tally
from keeper.metrics import Metrics
from keeper.reasons import Reason
from keeper.units import PPM, ChainId

log = structlog.get_logger(__name__)

SCHEDULES: Mapping[Lane, Schedule] = {
    Lane.URGENT: Schedule(tip_ppm=2 * PPM, patience=1),
    Lane.SETTLEMENT: Schedule(patience=3),
    Lane.HOUSEKEEPING: Schedule(patience=10),
}


class Executor:
    """Turns intents into effects on chains, each at most once.

    Args:
        ledger: where everything is written first.
        chains: the chains it may act on.
        mode: how far it goes.
        keys: per (chain, lane) where the private key comes from; asked in live mode only.
        schedules: how eager each lane is.
        poll_s: how often a lane looks when nothing wakes it.
        clock: tells unix seconds, for the ledger's story.
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
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.mode, self._chains = mode, chains
        self._equipment = equip(mode, keys)
        self._journal = Journal(ledger, clock)
        tally = Tally(metrics or Metrics())
        self._lanes = {
            (chain, lane): LaneWorker(
                chains[chain], lane, signer, schedules[lane], ledger, self._journal, tally, poll_s
            )
            for (chain, lane), signer in self._equipment.signers.items()
        }

    def address(self, chain: ChainId, lane: Lane) -> bytes | None:
        """Return the account of a lane, in live mode."""
        found = self._lanes.get((chain, lane))
        return None if found is None else found.signer.address

    async def run(self) -> None:
        """Recover what was open and work until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._journal.run)
            for lane in self._lanes.values():
                nursery.start_soon(lane.run)

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
        if await self._journal.task(intent.key) is None:
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

    async def look(self, key: bytes) -> Task | None:
        """Return a task as the ledger has it, in whatever mode, or None if it was never planned."""
        return await self._journal.task(key)

    async def wait(self, key: bytes, *, settled: bool = True) -> Outcome:
        """Return the outcome of a task once it is closed, or mined if that is enough."""

        def ended(task: Task) -> bool:
            return not task.open or (not settled and task.state is State.MINED)

        return (await self._journal.until(key, ended)).outcome

    async def _rehearse(self, intent: Intent, certified: BlockRef | None) -> Outcome | None:
        """Return why not, or None: simulated at the certified block, or at the newest."""
        call = Call(
            intent.to,
            intent.data,
            self.address(intent.chain, intent.lane) or bytes(20),
            intent.value,
        )
        ran = await self._chains[intent.chain].simulate(call, certified)
        if ran.ok:
            return None
        return Outcome(intent.key, Status.REFUSED, Reason.REVERTED, detail=ran.reason)
