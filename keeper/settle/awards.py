"""Runs the awards that name this keeper: one transaction a task, in its rank's window.

    open award, my rank i ─▶ sealed? ─▶ head ≥ start of my window ─▶ intent (key = task, rank)

    rank 0   [start, start + exclusive)
    rank i   from start + exclusive + (i − 1) · step to the last block, if nobody has executed it

The call names this keeper's own purse account, and the contract binds the permission to the
sender: nobody can take the calldata and use it.
"""

from collections.abc import Awaitable, Callable, Mapping

import structlog
import trio

from keeper.compete.state import AwardState, OpenAward
from keeper.errors import RemoteFault
from keeper.execute.intent import Intent, Lane, Outcome
from keeper.execute.service import Executor
from keeper.metrics import Metrics
from keeper.network import NetworkSpec
from keeper.observe.service import Watcher
from keeper.settle.seals import certify
from keeper.snapshot.archive import Archive
from keeper.units import BlockNumber, ChainId, Wei
from keeper.venue.calls import execute

log = structlog.get_logger(__name__)

FEE_CAP = Wei(5 * 10**16)
"""Most that one execution may cost, in wei."""


def window_start(award: OpenAward, rank: int) -> int:
    """Return the first block in which a rank may execute."""
    if rank == 0:
        return award.start
    return award.start + award.exclusive + (rank - 1) * award.step


def window_end(award: OpenAward, rank: int) -> int:
    """Return the last block in which it is worth trying as this rank."""
    if rank == 0:
        return award.start + award.exclusive - 1
    return award.last


class AwardRunner:
    """Executes this keeper's awards of one epoch."""

    def __init__(
        self,
        network: NetworkSpec,
        archive: Archive,
        executor: Executor,
        watchers: Mapping[ChainId, Watcher],
        address: bytes,
        metrics: Metrics,
        told: Callable[[OpenAward, int, Outcome], Awaitable[None]],
    ) -> None:
        self._network, self._archive, self._executor = network, archive, executor
        self._watchers, self._address = watchers, address
        self._purse, self._told = network.account(address), told
        self._open: dict[bytes, tuple[OpenAward, int]] = {}
        self._tried: set[bytes] = set()
        self._wake = trio.Event()
        self._ended = metrics.counter(
            "keeper_awards_executed_total", "Awards this keeper tried, by rank.", ("rank", "status")
        )

    def on_state(self, state: AwardState) -> None:
        """Take the open awards of a final view."""
        self._open = {
            award.task.id: (award, award.ranks.index(self._address))
            for award in state.awards
            if self._address in award.ranks
        }
        self._tried &= set(self._open)
        self.poke()

    def poke(self) -> None:
        """Look again now: a seal or a block has come."""
        self._wake.set()

    async def run(self) -> None:
        """Execute what is due until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._wake = trio.Event()
                for task, (award, rank) in list(self._open.items()):
                    if task not in self._tried and await self._due(award, rank):
                        self._tried.add(task)
                        nursery.start_soon(self._execute, award, rank)
                with trio.move_on_after(0.25):
                    await self._wake.wait()

    async def _due(self, award: OpenAward, rank: int) -> bool:
        newest = self._watchers[award.task.target.chain].index.newest
        if newest is None:
            return False
        try:
            head = await self._watchers[award.task.target.chain].chain.head()
        except RemoteFault:
            return False
        if head.ref.number < window_start(award, rank):
            return False
        return self._archive.find_leaf(award.leaf, award.task.view) is not None

    async def _execute(self, award: OpenAward, rank: int) -> None:
        archived = self._archive.find_leaf(award.leaf, award.task.view)
        if archived is None:
            return
        certified = certify(self._network.id, archived, award.leaf)
        call = execute(
            certified.decision, certified.seal, certified.proof, award.task.size, self._purse
        )
        intent = Intent(
            key=award.task.id + bytes([rank]),
            chain=call.chain,
            lane=Lane.URGENT,
            to=call.to,
            data=call.data,
            deadline=BlockNumber(window_end(award, rank)),
            fee_cap=FEE_CAP,
            why=f"execute award of rank {rank}",
        )
        try:
            outcome = await self._executor.submit(intent)
        except RemoteFault as fault:
            log.warning("award_failed", rank=rank, error=str(fault))
            self._tried.discard(award.task.id)
            return
        self._ended.labels(str(rank), outcome.status.value).inc()
        await self._told(award, rank, outcome)
        log.info("award_run", rank=rank, status=outcome.status.value, detail=outcome.detail)
