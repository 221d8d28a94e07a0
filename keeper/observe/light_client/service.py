"""Follows a beacon node and anchors a chain's finality to what its consensus signed.

    kept state, or bootstrap ─▶ updates, period by period ─▶ every poll: finality update
                                                      └▶ LightClient ─▶ anchor() ─▶ Anchored
                                                                  └▶ kept for the next start

The node is asked, never believed; a dead or lying node can delay finality and nothing else. What
is wrong now is in `trouble`, for the health page.
"""

import time
from collections.abc import Callable
from typing import Protocol

import structlog
import trio

from keeper.chain.finality import Anchored
from keeper.chain.port import BlockRef, Header
from keeper.config import LightClientConfig
from keeper.errors import RemoteFault
from keeper.observe.light_client.beacon import LightClient
from keeper.observe.light_client.rest import BeaconRest
from keeper.observe.light_client.spec import BeaconSpec, Refused, Verdict
from keeper.observe.light_client.ssz import BadEncoding, Bootstrap, Update
from keeper.observe.light_client.trust import TrustBook, TrustedState, from_bootstrap
from keeper.reasons import Reason
from keeper.store import Store
from keeper.units import BlockNumber, ChainId, Timestamp, Wei

log = structlog.get_logger(__name__)

ANSWER_S = 10.0
"""A node that takes longer for one answer is as good as down."""
STALL_EPOCHS = 5
"""A healthy chain makes headers final two epochs behind, rarely three."""
TRUSTING_S = 14 * 86_400
"""Well within the time in which validators can leave with their stake."""
_PERIODS = 16
"""Updates asked for at once: a client 18 days behind catches up with one request."""
_KEEP_SLOTS = 32
"""How far the final header moves until it is kept again: an epoch of Ethereum."""


class Source(Protocol):
    """A beacon node."""

    @property
    def name(self) -> str:
        """The address, fit for a log line."""
        ...

    async def bootstrap(self, root: bytes, size: int) -> Bootstrap:
        """Return the bootstrap of a block."""
        ...

    async def updates(self, first: int, count: int, size: int) -> list[Update]:
        """Return the updates of periods."""
        ...

    async def finality_update(self, size: int) -> Update:
        """Return the newest finality update."""
        ...


def configured(
    chain: ChainId,
    settings: LightClientConfig,
    store: Store,
    clock: Callable[[], float] = time.time,
) -> "LightClientService":
    """Return the service for one chain of the configuration.

    Args:
        chain: the execution chain's id.
        settings: its section.
        store: where the trusted state is kept.
        clock: tells unix seconds; slots are counted by it.

    Raises:
        ConfigError: the beacon's address is none.
    """
    spec = BeaconSpec(
        settings.genesis_validators_root,
        settings.forks,
        slots_per_epoch=settings.slots_per_epoch,
        epochs_per_period=settings.epochs_per_period,
        trusting_slots=TRUSTING_S // settings.seconds_per_slot,
    )
    return LightClientService(
        chain,
        BeaconRest(settings.beacon),
        spec,
        settings.trusted_root,
        lambda: (int(clock()) - settings.genesis_time) // settings.seconds_per_slot,
        TrustBook(store, chain, spec, settings.trusted_root),
        poll_s=settings.seconds_per_slot / 2,
        stall_slots=STALL_EPOCHS * settings.slots_per_epoch,
    )


class LightClientService:
    """One chain's light client.

    Args:
        chain: the execution chain's id.
        source: the beacon node.
        spec: the beacon chain's constants.
        trusted_root: block root to start from, from somebody the operator trusts.
        now_slot: tells the present slot.
        book: where the trusted state outlives the process.
        poll_s: how often to ask.
        stall_slots: older than this, the newest final header counts as stalled.
    """

    def __init__(
        self,
        chain: ChainId,
        source: Source,
        spec: BeaconSpec,
        trusted_root: bytes,
        now_slot: Callable[[], int],
        book: TrustBook,
        *,
        poll_s: float = 6.0,
        stall_slots: int = 160,
    ) -> None:
        self.chain, self.spec = chain, spec
        self.client: LightClient | None = None
        self.refusal = Verdict()
        self.fault = Verdict()
        self.finality = Anchored(self.anchor)
        self._source, self._root, self._now, self._book = source, trusted_root, now_slot, book
        self._poll_s, self._stall_slots = poll_s, stall_slots
        self._last: Update | None = None
        self._kept: TrustedState | None = None

    def anchor(self) -> Header | None:
        """Return the header of the newest execution block that is proven final."""
        if self.client is None:
            return None
        execution = self.client.finalized.execution
        return Header(
            BlockRef(self.chain, BlockNumber(execution.number), execution.block_hash),
            execution.parent_hash,
            Timestamp(execution.timestamp),
            execution.state_root,
            execution.receipts_root,
            Wei(execution.base_fee),
            execution.gas_limit,
            execution.gas_used,
        )

    @property
    def trouble(self) -> str:
        """What an operator should know, or nothing."""
        verdict = self.health()
        return f"{verdict.reason.value}: {verdict.detail}" if verdict.reason else ""

    def health(self) -> Verdict:
        """Return the source's fault, the last refusal, or that nothing is final for too long."""
        for verdict in (self.fault, self.refusal):
            if verdict.reason is not None:
                return verdict
        if self.client is None:
            return Verdict()
        age = self._now() - self.client.finalized.beacon.slot
        if age > self._stall_slots:
            return Verdict(Reason.STALLED, f"the newest final header is {age} slots old")
        return Verdict()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await self.step()
            await trio.sleep(self._poll_s)

    async def step(self) -> None:
        """Ask once for what is new."""
        before, self.fault = self.trouble, Verdict()
        try:
            with trio.fail_after(ANSWER_S):
                await self._advance()
        except RemoteFault as fault:
            self.fault = Verdict(fault.reason, f"{fault.culprit}: {fault.detail}")
        except trio.TooSlowError:
            self.fault = Verdict(Reason.ENDPOINT_DOWN, f"{self._source.name} does not answer")
        if self.trouble != before:
            log.warning("light_client", chain=self.chain, trouble=self.trouble)

    async def _advance(self) -> None:
        size = self.spec.committee_size
        if self.client is None:
            try:
                self.client = await self._started()
            except Refused as refused:
                self.fault = Verdict(refused.reason, refused.detail)
                return
        client = self.client
        while client.next is None or self.spec.period(self._now()) > client.period + 1:
            before = client.period, client.next
            for update in await self._source.updates(client.period, _PERIODS, size):
                self._take(client, update)
            if (client.period, client.next) == before:
                break
        update = await self._source.finality_update(size)
        if update != self._last:
            self._last = update
            self._take(client, update)
        await self._keep(client.trusted)

    async def _started(self) -> LightClient:
        """Return the client: from what was kept, else from the trusted root.

        Raises:
            Refused: the block to start from is too old, or the bootstrap is another block's.
            RemoteFault: the node does not give the bootstrap.
        """
        try:
            self._kept = await trio.to_thread.run_sync(self._book.load)
        except BadEncoding as error:
            log.warning("light_client_starts_anew", chain=self.chain, because=str(error))
        if self._kept is not None:
            return LightClient(self.spec, self._kept, self._now())
        bootstrap = await self._source.bootstrap(self._root, self.spec.committee_size)
        trusted = from_bootstrap(self.spec, self._root, bootstrap)
        return LightClient(self.spec, trusted, self._now())

    async def _keep(self, state: TrustedState) -> None:
        """Write what a restart should start from, if it is worth a write."""
        kept = self._kept
        if (
            kept is None
            or (state.current, state.next) != (kept.current, kept.next)
            or state.equivocation != kept.equivocation
            or state.finalized.beacon.slot >= kept.finalized.beacon.slot + _KEEP_SLOTS
        ):
            await trio.to_thread.run_sync(self._book.keep, state)
            self._kept = state

    def _take(self, client: LightClient, update: Update) -> None:
        self.refusal = client.process(update, self._now())
        if self.refusal.finalized:
            log.info(
                "finalized",
                chain=self.chain,
                slot=client.finalized.beacon.slot,
                number=client.finalized.execution.number,
            )
