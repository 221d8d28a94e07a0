"""From final blocks to snapshots: derive them, or take the state from a peer and check it.

    Finalized ─▶ adopted already? ─▶ snapshot ─▶ archive ─▶ on_final
                   │ no: my chains lag, or I was away
                   └─▶ lost ─▶ again at every new block ─▶ still lost: ask a peer for the book

A final block carries its header, and the header names the book's hash, so the book may come from
anybody. Members and followers share this.
"""

import time
from collections.abc import Callable, Sequence

import structlog
import trio

from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.reasons import Reason
from keeper.settle.rotation import is_closed
from keeper.snapshot.application import SnapshotApplication, open_payload
from keeper.snapshot.archive import Archive
from keeper.snapshot.book import book_from_bytes
from keeper.snapshot.derive import Snapshot
from p2p.agreement.chain import Start
from p2p.agreement.effects import Finalized
from p2p.port import Network, Road

log = structlog.get_logger(__name__)

PATIENCE_S = 2.0
"""How long one peer may take to hand over a book; also how long a lost block waits for one."""
EARLY_SEALS = 64
"""Seals kept that came before their view was final here."""

SealNumbers = tuple[int, int, int]


def begin_of(archive: Archive, epoch: int) -> Start:
    """Return where an epoch begins as far as the archive knows: after the last view before it."""
    held = archive.state()
    if held is None or not is_closed(epoch - 1, held[1].book):
        return Start()
    return Start(held[1].header.view, held[1].header.tick)


class FinalState:
    """The final snapshots of one epoch, in order.

    Invariants: `view` never falls; every snapshot told was derived here or checked against the
    header of a final block; nothing is told after the epoch's last snapshot.
    """

    def __init__(
        self,
        application: SnapshotApplication,
        archive: Archive,
        network: Network,
        sources: Callable[[], Sequence[bytes]],
        on_final: Callable[[Snapshot], None],
        on_seal: Callable[[int], None],
    ) -> None:
        """Compose; nothing runs yet.

        Args:
            application: derives and holds states.
            archive: where final views and seals are kept.
            network: asks peers.
            sources: peers to ask for a book, best first.
            on_final: gets every final snapshot once, in order.
            on_seal: gets the view of every seal once its snapshot is archived.
        """
        self.application, self._archive, self._network = application, archive, network
        self._sources, self._on_final, self._on_seal = sources, on_final, on_seal
        self._lost: dict[int, Finalized] = {}
        self._early: dict[int, SealNumbers] = {}
        self._wake = trio.Event()
        self.view = 0
        self.last: Snapshot | None = None
        """The last snapshot of the epoch, once it is final here."""
        self.closed = trio.Event()
        self.finals = self.seals = self.sealed_view = 0
        self.final_at: float | None = None
        self.sealed_at: float | None = None
        self.restored = trio.Event()
        self.sealed = trio.Event()
        """Set, and made anew, at every seal."""
        network.serve(Road.STATE, self._answer)

    def resume(self, epoch: int) -> None:
        """Go on from the archived book of the newest final view, where there is one.

        An epoch that has no view yet begins after the last one of the epoch before.
        """
        held = self._archive.state()
        if held is None:
            return
        digest, snapshot = held
        if snapshot.header.epoch == epoch:
            self.application.restore(digest, snapshot)
            self._stand(snapshot)
        elif is_closed(epoch - 1, snapshot.book):
            self.application.restore(self.application.setting.config, snapshot)
            self.view = snapshot.header.view

    def take(self, block: Finalized) -> None:
        """Take the next final block."""
        if self.last is not None:
            return
        snapshot = self.application.states.get(block.digest)
        if snapshot is None:
            self.application.adopt(
                block.digest,
                block.parent,
                block.view,
                block.tick,
                block.observations,
                block.payload,
            )
            snapshot = self.application.states.get(block.digest)
        if snapshot is None:
            self._lost[block.view] = block
            self._wake.set()
        else:
            self._finish(block.digest, snapshot)

    def retry(self) -> None:
        """Try the lost blocks again: a block was indexed."""
        for view in sorted(self._lost):
            block = self._lost.get(view)
            if block is not None:
                self.take(block)

    def take_seal(self, view: int, numbers: SealNumbers) -> None:
        """Take a checked seal of a view that is final, here or soon."""
        self.seals += 1
        self.sealed_view = max(self.sealed_view, view)
        self.sealed_at = trio.current_time()
        self.sealed.set()
        self.sealed = trio.Event()
        if view > self.view:
            self._early[view] = numbers
            for old in sorted(self._early)[:-EARLY_SEALS]:
                del self._early[old]
            return
        self._archive.add_seal(view, numbers, _now_ms())
        self._on_seal(view)

    def _finish(self, digest: bytes, snapshot: Snapshot) -> None:
        view = snapshot.header.view
        for older in [one for one in self._lost if one <= view]:
            del self._lost[older]
        if view <= self.view:
            return
        self._archive.add(digest, snapshot, _now_ms())
        self.final_at = trio.current_time()
        self._stand(snapshot)
        self.finals += 1
        self._on_final(snapshot)
        seal = self._early.pop(view, None)
        if seal is not None:
            self._archive.add_seal(view, seal, _now_ms())
            self._on_seal(view)

    def _stand(self, snapshot: Snapshot) -> None:
        self.view = snapshot.header.view
        if self.application.setting.is_last(snapshot.book):
            self.last = snapshot
            self.closed.set()

    # state from a peer

    async def run(self) -> None:
        """Fetch the book of the newest lost block whenever waiting does not help."""
        while True:
            await self._wake.wait()
            await trio.sleep(PATIENCE_S / 2)
            self.retry()
            if not self._lost:
                self._wake = trio.Event()
                continue
            block = self._lost[max(self._lost)]
            for peer in self._sources():
                if await self._fetch(peer, block):
                    break

    async def _fetch(self, peer: bytes, block: Finalized) -> bool:
        opened = open_payload(block.payload)
        if opened is None:
            return False
        header, decisions, _ = opened
        try:
            with trio.fail_after(PATIENCE_S):
                question = header.view.to_bytes(8, "big")
                raw = await self._network.request(peer, Road.STATE, question)
            if keccak(raw) != header.book_hash:
                return False
            book = book_from_bytes(raw)
        except (trio.TooSlowError, RemoteFault, ValueError):
            return False
        snapshot = Snapshot(header, book, decisions, {}, {}, block.root)
        self.application.restore(block.digest, snapshot)
        self._finish(block.digest, snapshot)
        log.info("state_restored", view=header.view)
        self.restored.set()
        self.restored = trio.Event()
        return True

    def _answer(self, peer: bytes, frame: bytes) -> bytes:
        """Return the book after a view, or nothing where it is not held."""
        if len(frame) != 8:
            raise RemoteFault(peer.hex(), Reason.MALFORMED, "not a view")
        view = int.from_bytes(frame, "big")
        for snapshot in self.application.states.values():
            if snapshot.header.view == view:
                return snapshot.book.encode()
        return b""


def _now_ms() -> int:
    return int(time.time() * 1000)
