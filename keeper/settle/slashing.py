"""Brings proven equivocation to the Bonds contract: who lies loses the bond.

    Evidence (two signed votes) ─▶ hub, slash_conflict ─▶ tombstoned

Every honest keeper sees the pair; each submits it, and the first one is paid the reporter's reward.
The same evidence is one intent, so a restart does not send it twice.
"""

from dataclasses import dataclass

import structlog
import trio

from keeper.contracts import encode_call
from keeper.errors import RemoteFault
from keeper.execute.intent import Intent, Lane
from keeper.execute.service import Executor
from keeper.hashing import keccak
from keeper.network import NetworkSpec
from keeper.observe.service import Watcher
from keeper.units import BlockNumber, Wei
from p2p.agreement.evidence import Evidence, slash_arguments

log = structlog.get_logger(__name__)

FEE_CAP = Wei(5 * 10**16)
"""Most that one report may cost; the reward is a tenth of the bond."""
DEADLINE_BLOCKS = 600
QUEUE = 64
"""Pairs waiting: one per member and view kept; more say nothing new about the same culprit."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What became of one report."""

    culprit: int
    view: int
    status: str


class Slasher:
    """Submits evidence as this keeper."""

    def __init__(self, network: NetworkSpec, executor: Executor, hub: Watcher) -> None:
        self._network, self._executor, self._hub = network, executor, hub
        self._put, self._take = trio.open_memory_channel[Evidence](QUEUE)
        self._culprits: set[int] = set()
        self.reports: list[Reported] = []

    def offer(self, evidence: Evidence) -> None:
        """Queue a checked pair; one per culprit is enough to take its bond."""
        if evidence.culprit in self._culprits:
            return
        try:
            self._put.send_nowait(evidence)
        except trio.WouldBlock:
            return
        self._culprits.add(evidence.culprit)

    async def run(self) -> None:
        """Submit until cancelled."""
        while True:
            evidence = await self._take.receive()
            await self._submit(evidence)

    async def _submit(self, evidence: Evidence) -> None:
        bonds = self._network.chain(self._network.hub).contract("Bonds")
        newest = self._hub.index.newest
        if bonds is None or newest is None:
            return
        data = encode_call("Bonds", "slash_conflict", *slash_arguments(evidence))
        intent = Intent(
            key=keccak(b"slash" + data),
            chain=self._network.hub,
            lane=Lane.URGENT,
            to=bonds,
            data=data,
            deadline=BlockNumber(newest.number + DEADLINE_BLOCKS),
            fee_cap=FEE_CAP,
            why=f"member {evidence.culprit} equivocated in view {evidence.view}",
        )
        try:
            outcome = await self._executor.submit(intent)
        except RemoteFault as fault:
            log.warning("slash_failed", culprit=evidence.culprit, error=str(fault))
            self._culprits.discard(evidence.culprit)
            return
        self.reports.append(Reported(evidence.culprit, evidence.view, outcome.status.value))
        log.info("slashed", culprit=evidence.culprit, status=outcome.status.value)
