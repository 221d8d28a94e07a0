"""One epoch of one member: agreement, seals and observations, composed.

watchers ─▶ observer ─▶ AgreementService ─ Finalized ─▶ FinalState ─▶ carrier, bidder, status
                               │                             ▲  └─ the last one: close, seal, end
                               └── root of a final view ─▶ SealService ─ seal
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from keeper.node.observer import Observer, Seen
from keeper.node.parts import Parts
from keeper.node.state import FinalState, begin_of
from keeper.observe.observation import NextKey
from keeper.observe.service import Watcher
from keeper.observe.table import Table
from keeper.reasons import Reason
from keeper.settle.rotation import is_closed
from keeper.snapshot.application import SnapshotApplication
from keeper.snapshot.decisions import CutBlock, DecisionRule
from keeper.snapshot.derive import Setting, Snapshot
from keeper.units import ChainId
from p2p.agreement.core import Agreement
from p2p.agreement.effects import Effect, Equivocated, Finalized, Jumped, Noted, Refused, Timing
from p2p.agreement.history import finalized_since
from p2p.agreement.journal import Journal
from p2p.agreement.leader import leader_of
from p2p.agreement.log import Opened, StoreLog
from p2p.agreement.record import RecordedAgreement, Recorder
from p2p.agreement.signing import EcdsaSigner
from p2p.frost.keys import KeyShare
from p2p.frost.service import Final, Frame, SealService
from p2p.frost.signer import Sealed, Setup
from p2p.frost.signer import Signer as SealSigner
from p2p.frost.signlock import SqliteSignLock
from p2p.port import Topic
from p2p.service import AgreementService, Channel, Take, verdict_of
from p2p.sync import HistoryServer
from p2p.types import Committee, History, SignedObservation
from p2p.verdicts import ACCEPT, Verdict

log = structlog.get_logger(__name__)

BOOKS_S = 1.0
"""How often the journal is written and the heads in heartbeats are renewed."""
LINGER_S = 5.0
"""How long a closed epoch waits for the seal of its last view: ROAST needs a second at most."""
OWN_OBSERVATIONS = 8
"""Own observations waiting for a busy agreement: four seconds of half-second ticks."""


@dataclass(frozen=True, slots=True)
class IndexTables:
    """The watchers' indexes as the application asks for them."""

    watchers: Mapping[ChainId, Watcher]

    def at(self, ref: CutBlock) -> Table | None:
        """Return the table after exactly this block, or None."""
        return self.watchers[ref.chain].index.at(ref.number, ref.hash, ref.account_root)


def setting_of(parts: Parts, committee: Committee, rules: tuple[DecisionRule, ...]) -> Setting:
    """Return the constants of an epoch."""
    epoch = committee.epoch
    return Setting(
        parts.network,
        parts.parameters,
        parts.network.digest(),
        epoch,
        committee.config,
        tuple(member.address for member in committee.members),
        committee.faults,
        committee.quorum,
        rules,
        lambda book: is_closed(epoch, book),
    )


@dataclass(frozen=True, slots=True)
class Listeners:
    """Whom a session tells, and asks.

    Args:
        seen: what the bidder heard, for observations.
        on_final: gets the snapshot of every final view, in order.
        on_seal: gets the view of every seal.
        named: what observations say of the next committee's key.
        takes: who takes frames of other topics and channels.
        on_observations: gets the observations of every final view.
    """

    seen: Seen
    on_final: Callable[[Snapshot], None]
    on_seal: Callable[[int], None]
    named: Callable[[], NextKey | None]
    takes: Mapping[str | Channel, Take] = field(default_factory=dict)
    on_observations: Callable[[Sequence[SignedObservation]], None] = lambda _: None


class Session:
    """Runs one epoch as a member."""

    def __init__(
        self,
        parts: Parts,
        committee: Committee,
        share: KeyShare,
        rules: tuple[DecisionRule, ...],
        listeners: Listeners,
    ) -> None:
        """Compose the epoch; nothing runs yet.

        Args:
            parts: what the node has.
            committee: the members.
            share: this member's key share.
            rules: decision rules in order.
            listeners: whom to tell.

        Raises:
            ValueError: this keeper is not in the committee.
        """
        index = committee.index_of(parts.keys.address)
        if index is None:
            raise ValueError("this keeper is not in the committee")
        self.parts, self.committee, self.me = parts, committee, index
        self._on_observations = listeners.on_observations
        self.setting = setting_of(parts, committee, rules)
        self.application = SnapshotApplication(self.setting, IndexTables(parts.watchers))
        self.state = FinalState(
            self.application,
            parts.archive,
            parts.p2p,
            lambda: [m.peer_id for m in committee.members if m.address != parts.keys.address],
            listeners.on_final,
            listeners.on_seal,
        )
        self._log = StoreLog(parts.store)
        signer = EcdsaSigner(parts.keys.operator)
        timing = Timing(
            genesis=parts.network.genesis_time_ms / 1000,
            tick_s=parts.network.tick_ms / 1000,
            bound_s=parts.bound_s,
        )
        self._journal = Journal(parts.store)
        self._journal.remember(committee)
        inner = (committee, index, signer, self.application, self._log, timing)
        begins = self.begins = begin_of(parts.archive, committee.epoch)
        if parts.record is None:
            self.core = Agreement(*inner, begins)
        else:
            recorder = Recorder(parts.record(committee.epoch), committee, index, timing, begins)
            self.core = RecordedAgreement(*inner, begins, recorder)
        self._seals = self._seal_service(share)
        self.agreement = AgreementService(
            self.core,
            parts.p2p,
            self._log,
            self._tell,
            lambda signed: self.application.check_observation(signed) is None,
            {**listeners.takes, Channel.SEALING: self._take_seal_frame},
        )
        self._observer = Observer(
            parts.network,
            committee,
            signer,
            parts.watchers,
            listeners.seen,
            listeners.named,
            self._observed,
        )
        self._own, self._own_take = trio.open_memory_channel[SignedObservation](OWN_OBSERVATIONS)
        self.evidence = 0
        HistoryServer(self._log, lambda: committee.epoch).attach(parts.p2p)
        self._final_gauge = parts.metrics.gauge("keeper_final_view", "Newest final view.")
        self._seal_gauge = parts.metrics.gauge("keeper_sealed_view", "Newest sealed view.")
        self._refused = parts.metrics.counter(
            "keeper_peer_refusals_total", "Messages of members refused.", ("reason",)
        )
        self._noted = parts.metrics.counter(
            "keeper_views_noted_total", "What happened in views besides finality.", ("event",)
        )

    def _seal_service(self, share: KeyShare) -> SealService:
        committee, parts = self.committee, self.parts
        size = committee.size

        def leaders(view: int) -> list[int]:
            first = leader_of(committee.config, view, size)
            return [(first + turn) % size for turn in range(size)]

        lock = SqliteSignLock(parts.store)
        signer = SealSigner(
            Setup(share, committee.network, committee.epoch, leaders),
            boot=lock.next_boot(),
            random_bytes=parts.random_bytes,
            locks=lock.load(committee.epoch),
        )
        return SealService(
            signer, share.group.suite, lock, _SealRoad(self), self._sealed, self._seal_fault
        )

    # life

    async def run(self) -> None:
        """Take part in the epoch until its last view is final and sealed here, or cancelled."""
        restored = self._log.restore(self.committee.epoch, self.committee.config)
        if not restored.opened and restored.final is None and self._never_voted():
            self._log.write((Opened(self.committee.config),))
        self.state.resume(self.committee.epoch)
        # a crash may have come between a final block's log entry and what follows from it
        for block in finalized_since(self._log, self.committee.epoch, self.state.view):
            self._tell(block)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._seals.run)
            await nursery.start(self.agreement.run)
            nursery.start_soon(self._observer.run)
            nursery.start_soon(self._publish_own)
            nursery.start_soon(self._keep_books)
            nursery.start_soon(self.state.run)
            nursery.start_soon(self._retry_restored)
            for watcher in self.parts.watchers.values():
                nursery.start_soon(self._retry_indexed, watcher)
            await self.state.closed.wait()
            await self._close()
            nursery.cancel_scope.cancel()

    async def _close(self) -> None:
        """Sign no more votes; help the late, and the seal of the last view, for a while."""
        last = self.state.last
        assert last is not None
        view = last.header.view
        await self.agreement.call(lambda: self.core.close(view, time.time()))
        log.info("epoch_closed", epoch=self.committee.epoch, view=view)
        with trio.move_on_after(LINGER_S):
            while self.state.sealed_view < view:
                await self.state.sealed.wait()

    async def follow(self, history: History) -> None:
        """Take what another keeper holds of this epoch, however late this one is."""
        await self.agreement.call(lambda: self.core.jump(history, time.time()))

    def _never_voted(self) -> bool:
        """Return whether no earlier life of this home can have voted in this epoch.

        A marker beside the keys outlives a lost database: with it, an empty log is a lost log.
        """
        marker = self.parts.home / "keys" / f"epoch-{self.committee.epoch}.voted"
        if marker.exists():
            return False
        marker.write_text("this keeper has voted in this epoch; keep its database with its keys\n")
        return True

    async def _retry_indexed(self, watcher: Watcher) -> None:
        """Ask the application again whenever a block is indexed."""
        while True:
            await watcher.moved.wait()
            self.state.retry()
            await self.agreement.retry()

    async def _retry_restored(self) -> None:
        while True:
            await self.state.restored.wait()
            await self.agreement.retry()

    async def _keep_books(self) -> None:
        """Write the journal down, and show in heartbeats which blocks are final here."""
        try:
            while True:
                heads = tuple(
                    (chain, watcher.index.newest.number)
                    for chain, watcher in sorted(self.parts.watchers.items())
                    if watcher.index.newest is not None
                )
                await self.agreement.call(partial(self._show, heads))
                await trio.sleep(BOOKS_S)
                await trio.to_thread.run_sync(self._journal.flush)
        finally:
            self._journal.flush()

    def _show(self, heads: tuple[tuple[int, int], ...]) -> tuple[Effect, ...]:
        self.core.show(heads, time.time())
        return ()

    # observations

    def _observed(self, signed: SignedObservation) -> None:
        try:
            self._own.send_nowait(signed)
        except trio.WouldBlock:
            log.warning("observation_skipped", why="the agreement is busy")

    async def _publish_own(self) -> None:
        while True:
            await self.agreement.observe(await self._own_take.receive())

    # what the agreement tells

    def _tell(self, effect: Effect) -> None:
        match effect:
            case Finalized(view=view, root=root):
                self._seals.offer(Final(view, root))
                self.state.take(effect)
                self._final_gauge.set(self.state.view)
                self._on_observations(effect.observations)
            case Jumped(_, view, _):
                log.warning("jumped", view=view)
            case Equivocated(evidence):
                self.evidence += 1
                self.parts.on_evidence(evidence)
            case Refused(_, reason):
                self._refused.labels(reason.value).inc()
            case Noted(_, event):
                self._journal.note(self.committee.epoch, effect, time.time())
                self._noted.labels(event).inc()
            case _:
                pass

    # seals

    def _take_seal_frame(self, peer: bytes, frame: bytes) -> Verdict:
        member = self.committee.index_of_peer(peer)
        if member is None:
            return verdict_of(Reason.OTHER_EPOCH)  # of a committee before or after this one
        self._seals.offer(Frame(member, frame))
        return ACCEPT

    def _sealed(self, sealed: Sealed) -> None:
        self.state.take_seal(sealed.view, sealed.signature.evm())
        self._seal_gauge.set(self.state.sealed_view)
        leader = leader_of(self.committee.config, sealed.view, self.committee.size)
        if self.me == leader:
            frame = pack_seal(sealed.epoch, sealed.view, sealed.root, sealed.signature.bip340())
            self.parts.p2p.publish(Topic.SEALS, frame)

    def _seal_fault(self, member: int, reason: Reason) -> None:
        self.parts.p2p.report(self.committee.members[member].peer_id, verdict_of(reason))


def pack_seal(epoch: int, view: int, root: bytes, signature: bytes) -> bytes:
    """Return the 108 bytes of a seal as followers hear it: epoch, view, root, BIP340 signature."""
    return epoch.to_bytes(4, "big") + view.to_bytes(8, "big") + root + signature


class _SealRoad:
    """Carries seal frames on the consensus road's own channel."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def send(self, member: int, frame: bytes) -> None:
        """Queue a frame to one member."""
        peer = self._session.committee.members[member].peer_id
        self._session.parts.p2p.send(peer, bytes((Channel.SEALING,)) + frame)

    def broadcast(self, frame: bytes) -> None:
        """Queue a frame to every other member."""
        self._session.parts.p2p.broadcast(bytes((Channel.SEALING,)) + frame)
