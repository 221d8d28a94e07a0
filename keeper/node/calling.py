"""This keeper's part in making the key of the next committee.

    final snapshot ─▶ called? ─▶ ceremony over the links ──┬─▶ share kept ─▶ named in observations
                                 record of one that is done ┘
                       not seated there ─▶ nothing to do

Members of the old epoch and followers alike are called; the agreed state says when it is over.
"""

from collections.abc import Callable
from pathlib import Path

import structlog
import trio

from keeper.node.ceremony import (
    CeremonyFailed,
    KeyCeremony,
    Made,
    held_share,
    keep_share,
    record_of,
    recovered,
)
from keeper.node.parts import Parts
from keeper.observe.observation import NextKey
from keeper.settle.rotation import of_book
from keeper.snapshot.derive import Snapshot
from keeper.venue.committee import committee_of
from p2p.agreement.journal import Journal
from p2p.frost.keyfile import Work
from p2p.identity import peer_id_text
from p2p.port import Road
from p2p.types import Committee
from p2p.verdicts import ACCEPT, Verdict

log = structlog.get_logger(__name__)

RETRY_S = 2.0
"""Pause between two ceremonies, and between two rounds of asking for a finished one's record."""


class Calling:
    """Follows who is called, and takes part when this keeper is.

    Invariants: a share is on disk before its key is named to anybody.
    """

    def __init__(self, parts: Parts, folder: Path, password: Callable[[], str], work: Work) -> None:
        """Compose; nothing runs yet.

        Args:
            parts: what the node has.
            folder: where shares are kept.
            password: opens them.
            work: how hard new key files are to open.
        """
        self._parts, self._folder, self._password, self._work = parts, folder, password, work
        self.called: Committee | None = None
        self._starts = False
        """The bonds have settled: the ceremony is on."""
        self._ceremony: KeyCeremony | None = None
        self._culprits: frozenset[bytes] = frozenset()
        self._key = 0
        self._changed = trio.Event()
        parts.p2p.serve(Road.RECOVERY, lambda _, question: record_of(folder, question))

    def on_final(self, snapshot: Snapshot) -> None:
        """Take note of who is called after a final view."""
        state, called, starts = of_book(snapshot.book), None, False
        if state is not None and state.called:
            called = committee_of(self._parts.network, state.epoch + 1, state.called)
            starts = state.in_ceremony(snapshot.header.tick) or state.closed
        if (called, starts) != (self.called, self._starts):
            if called != self.called:
                self._key, self._culprits = 0, frozenset()
            self.called, self._starts = called, starts
            self._changed.set()
            self._changed = trio.Event()

    @property
    def peers(self) -> frozenset[bytes]:
        """Return the peers of those who are called, to be linked with."""
        members = self.called.members if self.called else ()
        return frozenset(member.peer_id for member in members)

    def take(self, peer: bytes, frame: bytes) -> Verdict:
        """Take a frame of the ceremony's channel."""
        return ACCEPT if self._ceremony is None else self._ceremony.take(peer, frame)

    def named(self) -> NextKey | None:
        """Return what this keeper's observations say of the ceremony."""
        if self.called is None or not self._starts or not self._is_called(self.called):
            return None
        if self._key:
            return NextKey(self.called.config, self._key)
        missing = self._culprits | frozenset(self._ceremony.missing() if self._ceremony else ())
        absent = [m.address for m in self.called.members if m.peer_id in missing]
        return NextKey(self.called.config, 0, tuple(sorted(absent)))

    def _is_called(self, committee: Committee) -> bool:
        return committee.index_of(self._parts.keys.address) is not None

    def status(self) -> dict[str, object] | None:
        """Return who is called and how far this keeper is, or None while nobody is."""
        if self.called is None:
            return None
        missing = self._ceremony.missing() if self._ceremony else ()
        return {
            "epoch": self.called.epoch,
            "members": [member.address for member in self.called.members],
            "ceremony": self._starts,
            "key": f"0x{self._key:064x}" if self._key else None,
            "missing": [peer_id_text(peer) for peer in missing],
        }

    async def run(self) -> None:
        """Take part in every ceremony this keeper is called to, until cancelled."""
        while True:
            changed, called = self._changed, self.called
            if called is None or not self._starts or not self._is_called(called):
                await changed.wait()
                continue
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take_part, called, nursery)
                await changed.wait()
                nursery.cancel_scope.cancel()
            self._ceremony = None

    async def _take_part(self, committee: Committee, nursery: trio.Nursery) -> None:
        Journal(self._parts.store).remember(committee)
        share = await trio.to_thread.run_sync(held_share, self._folder, committee, self._password())
        if share is None:
            made = await self._make(committee, nursery)
            await trio.to_thread.run_sync(
                keep_share, self._folder, committee.epoch, made, self._password(), self._work
            )
            share = made[0]
        self._key = int.from_bytes(share.group.x_only, "big")
        log.info("next_key", epoch=committee.epoch, group=share.group.x_only.hex())

    async def _make(self, committee: Committee, nursery: trio.Nursery) -> Made:
        """Run ceremonies until one ends well, or somebody hands over the record of one that did."""
        made: list[Made] = []

        async def ask(scope: trio.CancelScope) -> None:
            while True:
                await trio.sleep(RETRY_S)
                found = await recovered(committee, self._parts.keys, self._parts.p2p)
                if found is not None:
                    made.append(found)
                    scope.cancel()

        async with trio.open_nursery() as racing:
            racing.start_soon(ask, racing.cancel_scope)
            while True:
                ceremony = self._ceremony = KeyCeremony(
                    committee, self._parts.keys, self._parts.p2p
                )
                nursery.start_soon(self._run, ceremony)
                await ceremony.done.wait()
                if ceremony.made is not None:
                    made.append(ceremony.made)
                    racing.cancel_scope.cancel()
                await trio.sleep(RETRY_S)
        return made[0]

    async def _run(self, ceremony: KeyCeremony) -> None:
        """Run one ceremony to its end, and on for those who are not done."""
        try:
            await ceremony.run()
        except CeremonyFailed as failure:
            self._culprits |= frozenset(failure.culprits)
            log.warning("ceremony_failed", error=str(failure))
            ceremony.done.set()
