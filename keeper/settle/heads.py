"""Reports false heads: whoever signed a final block that its chain never had is accused there.

    observations of a final view ─▶ another hash than our final block
        ├─▶ of the hub         Bonds.slash_head
        └─▶ of another chain   Committee.accuse_head

One report a member and epoch is enough; every honest keeper makes it, and the first one counts.
"""

from collections.abc import Mapping, Sequence

import structlog
import trio

from keeper.compete.heads import FalseHead, contradicted
from keeper.contracts import encode_call
from keeper.errors import RemoteFault
from keeper.execute.intent import Intent, Lane
from keeper.execute.service import Executor
from keeper.hashing import keccak
from keeper.network import NetworkSpec
from keeper.observe.service import Watcher
from keeper.settle.slashing import DEADLINE_BLOCKS, FEE_CAP
from keeper.units import BlockNumber, ChainId
from p2p.types import SignedObservation

log = structlog.get_logger(__name__)

QUEUE = 64
"""Reports waiting: one a member, and there are 31."""


class HeadWatch:
    """Compares what members signed with our own chains, as member `me`."""

    def __init__(
        self,
        network: NetworkSpec,
        executor: Executor,
        watchers: Mapping[ChainId, Watcher],
        me: int,
    ) -> None:
        self._network, self._executor, self._watchers, self._me = network, executor, watchers, me
        self._put, self._take = trio.open_memory_channel[FalseHead](QUEUE)
        self._accused: set[int] = {me}

    def look(self, observations: Sequence[SignedObservation]) -> None:
        """Take the observations of a final view."""
        fresh = [signed for signed in observations if signed.signer not in self._accused]
        for found in contradicted(fresh, self._known):
            try:
                self._put.send_nowait(found)
            except trio.WouldBlock:
                return
            self._accused.add(found.signed.signer)
            log.warning("false_head", member=found.signed.signer, chain=found.head.chain)

    def _known(self, chain: ChainId, number: int) -> bytes | None:
        watcher = self._watchers.get(chain)
        return None if watcher is None else watcher.index.hash_at(number)

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await self._report(await self._take.receive())

    async def _report(self, found: FalseHead) -> None:
        chain = found.head.chain
        name, function = ("Committee", "accuse_head")
        if chain == self._network.hub:
            name, function = ("Bonds", "slash_head")
        contract = self._network.chain(chain).contract(name)
        newest = self._watchers[chain].index.newest
        if contract is None or newest is None:
            return
        data = encode_call(name, function, *found.arguments())
        intent = Intent(
            key=keccak(b"head" + data),
            chain=chain,
            lane=Lane.URGENT,
            to=contract,
            data=data,
            deadline=BlockNumber(newest.number + DEADLINE_BLOCKS),
            fee_cap=FEE_CAP,
            why=f"member {found.signed.signer} signed a false head {found.head.number}",
        )
        try:
            outcome = await self._executor.submit(intent)
        except RemoteFault as fault:
            log.warning("accusation_failed", member=found.signed.signer, error=str(fault))
            self._accused.discard(found.signed.signer)
            return
        log.info("accused", member=found.signed.signer, status=outcome.status.value)
