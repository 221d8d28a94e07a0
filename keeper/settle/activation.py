"""Ends the timelock of a change of committee: on every chain, one member after the other.

    ChangeProposed at a final block ─▶ ready_at passed? ─▶ whose turn? ─▶ Committee.activate
                                                             ▲                     │
                                       next member ─ TURN_S ─┴──── not installed ◄─┘

Anyone may call it: the old committee's sealed word and the time are the permission.
"""

import time
from collections.abc import Callable, Mapping

import structlog
import trio

from keeper.contracts import encode_call
from keeper.errors import RemoteFault
from keeper.execute.intent import Intent, Lane
from keeper.execute.service import Executor
from keeper.hashing import keccak
from keeper.network import ChainSpec, NetworkSpec
from keeper.observe.service import Watcher
from keeper.settle.rotation import Rotation, of_book
from keeper.settle.turns import TURN_S, turns_before
from keeper.snapshot.derive import Snapshot
from keeper.units import BlockNumber, ChainId, Wei
from keeper.venue.committee import Pending, installed, pending

log = structlog.get_logger(__name__)

FEE_CAP = Wei(10**17)
"""Most that one activation may cost, in wei: it writes every member's seat."""
DEADLINE_BLOCKS = 200


class Activator:
    """Activates the next committee of one epoch, as member `me` of `size`."""

    def __init__(
        self,
        network: NetworkSpec,
        watchers: Mapping[ChainId, Watcher],
        executor: Executor,
        me: int,
        size: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network, self._watchers, self._executor = network, watchers, executor
        self._me, self._size, self._clock = me, size, clock
        self._rotation: Rotation | None = None
        self._ready: dict[tuple[ChainId, int], float] = {}
        """When a change was first seen to be ready, by chain and the block it is ready at."""
        self._tried: dict[tuple[ChainId, int], int] = {}

    def on_final(self, snapshot: Snapshot) -> None:
        """Take note of whom the agreed state has called."""
        self._rotation = of_book(snapshot.book)

    async def run(self) -> None:
        """Activate what is ready until cancelled."""
        while True:
            rotation = self._rotation
            if rotation is not None and rotation.group_key:
                for spec in self._network.chains:
                    await self._look(spec, rotation)
            await trio.sleep(1.0)

    async def _look(self, spec: ChainSpec, rotation: Rotation) -> None:
        newest, number = self._watchers[spec.id].index.newest, rotation.epoch + 1
        if newest is None or installed(spec, newest.table, number) is not None:
            return
        change = pending(spec, newest.table, number)
        if change is None or newest.number < change.ready_at:
            return
        place = (spec.id, change.ready_at)
        since, tried = self._ready.setdefault(place, self._clock()), self._tried.get(place, 0)
        turns = turns_before(self._me, self._size, spec.id, tried)
        if self._clock() >= since + TURN_S * turns:
            self._tried[place] = tried + 1
            await self._activate(spec, rotation, change)

    async def _activate(self, spec: ChainSpec, rotation: Rotation, change: Pending) -> None:
        contract = spec.contract("Committee")
        assert contract is not None, f"chain {spec.id} has no committee"
        members = ["0x" + member.address.hex() for member in rotation.called]
        place = spec.id.to_bytes(8, "big") + change.ready_at.to_bytes(8, "big")
        intent = Intent(
            key=keccak(b"activate" + place + change.config),
            chain=spec.id,
            lane=Lane.SETTLEMENT,
            to=contract,
            data=encode_call("Committee", "activate", members),
            deadline=BlockNumber(change.ready_at + DEADLINE_BLOCKS),
            fee_cap=FEE_CAP,
            why=f"activate epoch {rotation.epoch + 1}",
        )
        try:
            outcome = await self._executor.submit(intent)
        except RemoteFault as fault:
            log.warning("activation_failed", chain=spec.id, error=str(fault))
            return
        log.info("activated", chain=spec.id, epoch=rotation.epoch + 1, status=outcome.status.value)
