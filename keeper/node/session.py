"""One epoch of one member: agreement, seals, observations and what follows from final views.

    AgreementService ─ Finalized ─▶ application state ─▶ archive ─▶ seal ─▶ carrier, bidder, status
                     ─ Jumped, or a final block this node could not derive ─▶ state from a peer

The state after a final block comes from deriving it; where that is impossible (this node was away,
or its chains lagged), the block's header is certified and names the book's hash, so the book may
come from anybody.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
import trio

from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.node.observer import Observer, Seen
from keeper.node.parts import Parts
from keeper.observe.service import Watcher
from keeper.observe.table import Table
from keeper.reasons import Reason
from keeper.snapshot.application import SnapshotApplication, open_payload
from keeper.snapshot.book import book_from_bytes
from keeper.snapshot.decisions import CutBlock, DecisionRule
from keeper.snapshot.derive import Setting, Snapshot
from keeper.units import ChainId
from p2p.agreement.core import Agreement
from p2p.agreement.effects import Effect, Equivocated, Finalized, Jumped, Noted, Refused, Timing
from p2p.agreement.leader import leader_of
from p2p.agreement.log import Opened, StoreLog
from p2p.agreement.signing import EcdsaSigner
from p2p.frost.keys import KeyShare
from p2p.frost.service import Final, Frame, SealService
from p2p.frost.signer import Sealed, Setup
from p2p.frost.signer import Signer as SealSigner
from p2p.frost.signlock import SqliteSignLock
from p2p.port import Road
from p2p.service import AgreementService, Channel, Take, verdict_of
from p2p.sync import HistoryServer
from p2p.types import Committee, SignedObservation
from p2p.verdicts import ACCEPT, Verdict

log = structlog.get_logger(__name__)

STATE_PATIENCE_S = 2.0
"""How long one peer may take to hand over a book."""


@dataclass(frozen=True, slots=True)
class IndexTables:
    """The watchers' indexes as the application asks for them."""

    watchers: Mapping[ChainId, Watcher]

    def at(self, ref: CutBlock) -> Table | None:
        """Return the table after exactly this block, or None."""
        return self.watchers[ref.chain].index.at(ref.number, ref.hash, ref.account_root)


@dataclass(slots=True)
class Progress:
    """What the status page shows of an epoch."""

    final_view: int = 0
    final_at: float = 0.0
    sealed_view: int = 0
    sealed_at: float = 0.0
    finals: int = 0
    seals: int = 0
    skipped: int = 0
    evidence: list[str] = field(default_factory=list)


class Session:
    """Runs one epoch."""

    def __init__(
        self,
        parts: Parts,
        committee: Committee,
        share: KeyShare,
        rules: tuple[DecisionRule, ...],
        seen: Seen,
        on_final: Callable[[Snapshot], None],
        on_seal: Callable[[int], None],
        takes: Mapping[str | Channel, Take],
    ) -> None:
        """Compose the epoch; nothing runs yet.

        Args:
            parts: what the node has.
            committee: the members.
            share: this member's key share.
            rules: decision rules in order.
            seen: what the bidder heard, for observations.
            on_final: gets the snapshot of every final view, in order.
            on_seal: gets the view of every seal.
            takes: who takes frames of other topics and channels.
        """
        index = committee.index_of(parts.keys.address)
        if index is None:
            raise ValueError("this keeper is not in the committee")
        self.parts, self.committee, self.me = parts, committee, index
        self.setting = Setting(
            parts.network,
            parts.parameters,
            parts.network.digest(),
            committee.epoch,
            committee.config,
            tuple(member.address for member in committee.members),
            committee.faults,
            committee.quorum,
            rules,
        )
        self.progress = Progress()
        self._on_final, self._on_seal = on_final, on_seal
        self.application = SnapshotApplication(self.setting, IndexTables(parts.watchers))
        self._log = StoreLog(parts.store)
        signer = EcdsaSigner(parts.keys.operator)
        tick_s = parts.network.tick_ms / 1000
        self.core = Agreement(
            committee,
            index,
            signer,
            self.application,
            self._log,
            Timing(
                genesis=parts.network.genesis_time_ms / 1000,
                tick_s=tick_s,
                bound_s=parts.bound_s,
            ),
        )
        self._seals = self._seal_service(share)
        self.agreement = AgreementService(
            self.core,
            parts.p2p,
            self._log,
            self._tell,
            lambda signed: self.application.check_observation(signed) is None,
            {**takes, Channel.SEALING: self._take_seal_frame},
        )
        self._observer = Observer(
            parts.network, committee, signer, parts.watchers, seen, self._observed
        )
        self._own, self._own_take = trio.open_memory_channel[SignedObservation](8)
        self._early: dict[int, tuple[int, int, int]] = {}
        self._lost: dict[int, Finalized] = {}
        self._lost_wake = trio.Event()
        HistoryServer(self._log, lambda: committee.epoch).attach(parts.p2p)
        parts.p2p.serve(Road.STATE, self._answer_state)
        self._final_gauge = parts.metrics.gauge("keeper_final_view", "Newest final view.")
        self._seal_gauge = parts.metrics.gauge("keeper_sealed_view", "Newest sealed view.")
        self._faults = parts.metrics.counter(
            "keeper_peer_refusals_total", "Messages of members refused.", ("reason",)
        )
        self._skips = parts.metrics.counter(
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
        """Take part in the epoch until cancelled."""
        restored = self._log.restore(self.committee.epoch, self.committee.config)
        if not restored.opened and restored.final is None and self._fresh():
            self._log.write((Opened(self.committee.config),))
        self._restore_state()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._seals.run)
            await nursery.start(self.agreement.run)
            nursery.start_soon(self._observer.run)
            nursery.start_soon(self._publish_own)
            nursery.start_soon(self._fetch_lost)
            for watcher in self.parts.watchers.values():
                nursery.start_soon(self._retry_on, watcher)

    def _fresh(self) -> bool:
        """Return whether this epoch began with this process: no one can hold an older vote of us.

        A key share that was generated in this home, and a log in the same home that never held a
        vote, are of the same age; a lost log leaves the marker behind.
        """
        marker = self.parts.home / "keys" / f"epoch-{self.committee.epoch}.voted"
        if marker.exists():
            return False
        marker.write_text("this keeper has voted in this epoch; keep its database with its keys\n")
        return True

    def _restore_state(self) -> None:
        """Go on from the archived book of the newest final view, where there is one."""
        newest, held = self.parts.archive.newest(), self.parts.archive.newest_book()
        if newest is None or held is None or newest.header.view != held[0]:
            return
        if newest.header.epoch != self.committee.epoch or held[1].hash() != newest.header.book_hash:
            return
        snapshot = Snapshot(newest.header, held[1], newest.decisions, {}, {}, newest.root)
        self.application.restore(newest.digest, snapshot)
        self.progress.final_view = newest.header.view

    async def _retry_on(self, watcher: Watcher) -> None:
        """Ask the application again whenever a block is indexed."""
        while True:
            await watcher.moved.wait()
            self._adopt_lost()
            await self.agreement.retry()

    # observations

    def _observed(self, signed: SignedObservation) -> None:
        try:
            self._own.send_nowait(signed)
        except trio.WouldBlock:
            log.warning("observation_skipped", why="the agreement is busy")

    async def _publish_own(self) -> None:
        while True:
            signed = await self._own_take.receive()
            await self.agreement.observe(signed)

    # finality

    def _tell(self, effect: Effect) -> None:
        match effect:
            case Finalized():
                self._final(effect)
            case Jumped(_, view, _):
                log.warning("jumped", view=view)
            case Equivocated(evidence):
                self.progress.evidence.append(str(evidence))
                self.parts.on_evidence(evidence)
            case Refused(_, reason):
                self._faults.labels(reason.value).inc()
            case Noted(_, event):
                self._skips.labels(event).inc()
            case _:
                pass

    def _final(self, effect: Finalized) -> None:
        self._seals.offer(Final(effect.view, effect.root))
        snapshot = self.application.states.get(effect.digest)
        if snapshot is None:
            self.application.adopt(
                effect.digest,
                effect.parent,
                effect.view,
                effect.tick,
                effect.observations,
                effect.payload,
            )
            snapshot = self.application.states.get(effect.digest)
        if snapshot is None:
            self._lost[effect.view] = effect
            self._lost_wake.set()
            return
        self._finish(effect.digest, snapshot)

    def _finish(self, digest: bytes, snapshot: Snapshot) -> None:
        view = snapshot.header.view
        for older in [one for one in self._lost if one <= view]:
            del self._lost[older]
        if view <= self.progress.final_view:
            return
        self.parts.archive.add(digest, snapshot, _now_ms())
        pending = self._early.pop(view, None)
        if pending is not None:
            self.parts.archive.add_seal(view, pending, _now_ms())
        self.progress.final_view, self.progress.final_at = view, trio.current_time()
        self.progress.finals += 1
        self._final_gauge.set(view)
        self._on_final(snapshot)
        if pending is not None:
            self._on_seal(view)

    # state this node could not derive

    def _adopt_lost(self) -> None:
        for view in sorted(self._lost):
            effect = self._lost.get(view)
            if effect is not None:
                self._final(effect)

    async def _fetch_lost(self) -> None:
        """Fetch the book of the newest final block whose state is missing, from peers in turn."""
        while True:
            await self._lost_wake.wait()
            await trio.sleep(STATE_PATIENCE_S / 2)
            self._adopt_lost()
            if not self._lost:
                self._lost_wake = trio.Event()
                continue
            effect = self._lost[max(self._lost)]
            for member in self.committee.members:
                if member.address != self.parts.keys.address and await self._fetch(
                    member.peer_id, effect
                ):
                    break

    async def _fetch(self, peer: bytes, effect: Finalized) -> bool:
        opened = open_payload(effect.payload)
        if opened is None:
            return False
        header, decisions, _ = opened
        try:
            with trio.fail_after(STATE_PATIENCE_S):
                raw = await self.parts.p2p.request(peer, Road.STATE, header.view.to_bytes(8, "big"))
            if keccak(raw) != header.book_hash:
                return False
            book = book_from_bytes(raw)
        except (trio.TooSlowError, RemoteFault, ValueError):
            return False
        snapshot = Snapshot(header, book, decisions, {}, {}, effect.root)
        self.application.restore(effect.digest, snapshot)
        self._finish(effect.digest, snapshot)
        await self.agreement.retry()
        log.info("state_restored", view=header.view)
        return True

    def _answer_state(self, peer: bytes, frame: bytes) -> bytes:
        """Return the book after a view, or nothing where it is not held."""
        if len(frame) != 8:
            raise RemoteFault(peer.hex(), Reason.MALFORMED, "not a view")
        view = int.from_bytes(frame, "big")
        for snapshot in self.application.states.values():
            if snapshot.header.view == view:
                return snapshot.book.encode()
        return b""

    # seals

    def _take_seal_frame(self, peer: bytes, frame: bytes) -> Verdict:
        member = self.committee.index_of_peer(peer)
        if member is None:
            return verdict_of(Reason.NOT_A_MEMBER)
        self._seals.offer(Frame(member, frame))
        return ACCEPT

    def _sealed(self, sealed: Sealed) -> None:
        numbers = sealed.signature.evm()
        self.progress.seals += 1
        self.progress.sealed_view = max(self.progress.sealed_view, sealed.view)
        self.progress.sealed_at = trio.current_time()
        self._seal_gauge.set(self.progress.sealed_view)
        if self.parts.archive.get(sealed.view) is None:
            self._early[sealed.view] = numbers
            for old in sorted(self._early)[:-64]:
                del self._early[old]
            return
        self.parts.archive.add_seal(sealed.view, numbers, _now_ms())
        self._on_seal(sealed.view)

    def _seal_fault(self, member: int, reason: Reason) -> None:
        self.parts.p2p.report(self.committee.members[member].peer_id, verdict_of(reason))


def _now_ms() -> int:
    return int(time.time() * 1000)


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
