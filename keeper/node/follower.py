"""A keeper without a seat: follows certified views, verifies seals, serves snapshots and proofs.

    certificates, histories ─▶ p2p.sync.Follower ─ Finalized ─▶ FinalState ─▶ archive
    seals topic ─▶ BIP340 under the registered group key ─▶ archive

It believes quorums and the group key that every chain registered, nobody's word; a bonded keeper
follows until an epoch seats it.
"""

from typing import Any

import trio

from keeper.leaves import seal_message
from keeper.node.calling import Calling
from keeper.node.chase import Chase
from keeper.node.parts import Parts
from keeper.node.registry import Registry
from keeper.node.session import IndexTables, setting_of
from keeper.node.shown import Shown
from keeper.node.state import FinalState
from keeper.observe.service import Watcher
from keeper.reasons import Reason
from keeper.snapshot.application import SnapshotApplication
from keeper.snapshot.decisions import DecisionRule
from keeper.snapshot.derive import Snapshot
from keeper.venue.committee import Epoch
from p2p.agreement.log import StoreLog
from p2p.frost.aggregate import Signature, verify_signature
from p2p.frost.suite import TR
from p2p.service import Channel, verdict_of
from p2p.sync import Follower
from p2p.types import Committee, History
from p2p.verdicts import ACCEPT, Verdict

SEAL_BYTES = 4 + 8 + 32 + 64


class FollowerWork:
    """Follows one epoch."""

    def __init__(
        self,
        parts: Parts,
        committee: Committee,
        epoch: Epoch,
        rules: tuple[DecisionRule, ...],
        registry: Registry,
        calling: Calling,
    ) -> None:
        self.parts, self.committee, self._epoch = parts, committee, epoch
        self._calling = calling
        self._group_key = TR.group.decode(b"\x02" + epoch.group_key.to_bytes(32, "big"))
        self.setting = setting_of(parts, committee, rules)
        self.shown = Shown(self.setting, parts.archive, epoch.group_key)
        self.state = FinalState(
            SnapshotApplication(self.setting, IndexTables(parts.watchers)),
            parts.archive,
            parts.p2p,
            self._sources,
            self._on_final,
            self._on_seal,
        )
        self._log = StoreLog(parts.store)
        self._chase = Chase(
            committee, parts.p2p, registry.newest_committee, lambda: self.state.view, self._follow
        )

    def _on_seal(self, view: int) -> None:
        self.shown.on_seal(view)
        self.parts.recorder.on_seal(view)

    def _sources(self) -> list[bytes]:
        return [member.peer_id for member in self.committee.members]

    async def run(self) -> bool:
        """Follow until the epoch is over; return False if it went on without this keeper."""
        self.state.resume(self._epoch.number)
        follower = Follower(
            self.committee,
            self.parts.p2p,
            self._log,
            self.state.take,
            self._take_seal,
            self._take_link,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.state.run)
            for watcher in self.parts.watchers.values():
                nursery.start_soon(self._retry, watcher)
            nursery.start_soon(follower.run)
            nursery.start_soon(self._chase.end, nursery.cancel_scope)
            await self.state.closed.wait()
            nursery.cancel_scope.cancel()
        return self.state.last is not None

    async def _follow(self, history: History) -> None:
        """Leave a history of this epoch to the follower, which asks for the same."""

    def _on_final(self, snapshot: Snapshot) -> None:
        self._calling.on_final(snapshot)
        self.shown.on_final(snapshot)
        self.parts.recorder.on_final(snapshot)

    def _take_link(self, peer: bytes, frame: bytes) -> Verdict:
        """Take a frame of the consensus road: a ceremony's, if this keeper is called."""
        if frame[:1] != bytes((Channel.CEREMONY,)):
            return ACCEPT  # for members; we are linked because we may be one soon
        return self._calling.take(peer, frame[1:])

    async def _retry(self, watcher: Watcher) -> None:
        while True:
            await watcher.moved.wait()
            self.state.retry()

    def _take_seal(self, peer: bytes, frame: bytes) -> Verdict:
        """Take a seal from gossip if it is the group's signature."""
        if len(frame) != SEAL_BYTES:
            return verdict_of(Reason.MALFORMED)
        epoch, view = int.from_bytes(frame[:4], "big"), int.from_bytes(frame[4:12], "big")
        root = frame[12:44]
        if epoch != self._epoch.number:
            return verdict_of(Reason.STALE)
        try:
            signature = Signature.decode(TR, frame[44:])
        except ValueError:
            return verdict_of(Reason.BAD_SIGNATURE)
        message = seal_message(self.committee.network, epoch, view, root)
        if not verify_signature(TR, self._group_key, message, signature):
            return verdict_of(Reason.BAD_SIGNATURE)
        self.state.take_seal(view, signature.evm())
        return ACCEPT

    def status(self) -> dict[str, Any]:
        """Return this epoch's part of the status page."""
        return {
            "epoch": self._epoch.number,
            "members": self.committee.size,
            "final_view": self.state.view,
            "sealed_view": self.state.sealed_view,
        }
