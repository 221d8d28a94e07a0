"""Catching up and following: certificates say what is final, histories bring what was decided.

    follower ── certificates topic ──► quorum of signatures? ──► Sync(from view) ──► keeper
             ◄── History: blocks and one certificate ── one chain up to it? ──► told, block by block

Nothing is believed because of who sent it: one finality certificate is checked, and parent digests
carry its weight to every block. A follower needs no bond and no key, and serves what it holds.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgpack
import trio

from keeper.errors import RemoteFault
from keeper.reasons import Reason
from p2p.agreement.certificate import verify_certificate
from p2p.agreement.effects import Finalized
from p2p.agreement.history import answer_need, answer_sync, finalized_of, verify_history
from p2p.agreement.log import Final, Log
from p2p.agreement.signing import Ecdsa
from p2p.identity import peer_id_text
from p2p.port import Inbound, Network, Road, Role, Topic
from p2p.service import Take
from p2p.types import Certificate, Committee, History, Kind, Need, Sync
from p2p.verdicts import ACCEPT, Ignore, Reject, Verdict
from p2p.wire import decode, digest_of, encode

PATIENCE_S = 5.0
"""How long one peer may take to answer; then the next is asked."""
POLL_S = 5.0
"""How often a follower asks without having heard a certificate."""


class HistoryServer:
    """Answers `/sync/1` and `/need/1` from a log: the same for keepers and followers."""

    def __init__(self, log: Log, epoch: Callable[[], int]) -> None:
        """Create a server; `epoch()` is the epoch a `Need` is about."""
        self._log, self._epoch = log, epoch

    def attach(self, network: Network) -> None:
        """Answer on a network from now on."""
        network.serve(Road.SYNC, self.sync)
        network.serve(Road.NEED, self.need)

    def sync(self, peer: bytes, frame: bytes) -> bytes:
        """Return an encoded `History`, or nothing if there is none after that view.

        Raises:
            RemoteFault: the question is not a `Sync`.
        """
        question = decode(frame, peer_id_text(peer))
        if not isinstance(question, Sync):
            raise RemoteFault(peer_id_text(peer), Reason.MALFORMED, "not a sync request")
        history = answer_sync(self._log, question.epoch, question.from_view)
        return b"" if history is None else encode(history)

    def need(self, peer: bytes, frame: bytes) -> bytes:
        """Return the encoded messages that justify a view, as a msgpack list.

        Raises:
            RemoteFault: the question is not a `Need`.
        """
        question = decode(frame, peer_id_text(peer))
        if not isinstance(question, Need):
            raise RemoteFault(peer_id_text(peer), Reason.MALFORMED, "not a need request")
        answers = answer_need(self._log, self._epoch(), question.view)
        return bytes(msgpack.packb([encode(answer) for answer in answers]))


class Follower:
    """Follows the final chain of one epoch without a bond.

    Invariants: `view` never falls; every block told follows the one told before it, or comes later
    where nobody has what is between; a quorum of the committee finalised it or its descendant.
    """

    def __init__(
        self,
        committee: Committee,
        network: Network,
        log: Log,
        tell: Callable[[Finalized], None],
        seals: Take | None = None,
        links: Take | None = None,
    ) -> None:
        """Create a follower that starts after what its log holds.

        Args:
            committee: of the epoch to follow, as the registry names it.
            network: with the committee allowed; its `run` is somebody else's task.
            log: where final blocks are kept and served from.
            tell: gets each final block once, in order.
            seals: judges frames of the seals topic.
            links: judges frames of the consensus road: a follower may be called to a ceremony.
        """
        self.committee, self._network, self._log = committee, network, log
        self._tell, self._seals, self._links = tell, seals, links
        self._scheme = Ecdsa()
        restored = log.restore(committee.epoch, committee.config)
        self.view = restored.final.view if restored.final is not None else 0
        self._digest = restored.final.digest if restored.final is not None else committee.config
        self._heard = self.view
        self._behind = trio.Event()
        HistoryServer(log, lambda: committee.epoch).attach(network)

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Follow until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fetch_all)
            task_status.started()
            while True:
                item = await self._network.inbox.receive()
                self._network.report(item.peer, self.take(item))

    def take(self, item: Inbound) -> Verdict:
        """Judge one frame; a proven certificate ahead of us starts a fetch."""
        try:
            if item.road == Topic.CERTIFICATES:
                return self._on_certificate(item)
            if item.road == Topic.SEALS and self._seals is not None:
                return self._seals(item.peer, item.frame)
            if item.road == Road.CONSENSUS and self._links is not None:
                return self._links(item.peer, item.frame)
        except RemoteFault as fault:
            return Reject(fault.reason)
        return ACCEPT

    def _on_certificate(self, item: Inbound) -> Verdict:
        message = decode(item.frame, peer_id_text(item.peer))
        if not isinstance(message, Certificate) or message.kind is not Kind.FINALIZE:
            return Reject(Reason.MALFORMED)
        if message.epoch != self.committee.epoch:
            return Ignore(Reason.OTHER_EPOCH)
        if message.view <= self._heard:
            return ACCEPT
        if not verify_certificate(self.committee, self._scheme, message):
            return Reject(Reason.BELOW_QUORUM)
        self._heard = message.view
        self._behind.set()
        return ACCEPT

    async def _fetch_all(self) -> None:
        while True:
            self._behind = trio.Event()
            moved = False
            for peer in self._sources():
                moved = await self._fetch(peer)
                if moved:
                    break
            if moved:
                continue  # there may be more
            with trio.move_on_after(POLL_S):
                await self._behind.wait()

    def _sources(self) -> Sequence[bytes]:
        rows = [row for row in self._network.peers() if row.connected]
        keepers = [row for row in rows if row.role is not Role.FOLLOWER]
        return [row.peer for row in sorted(keepers, key=lambda row: row.round_trip_s or 1.0)]

    async def _fetch(self, peer: bytes) -> bool:
        try:
            question = Sync(self.committee.epoch, self.view)
            with trio.fail_after(PATIENCE_S):
                raw = await self._network.request(peer, Road.SYNC, encode(question))
            if not raw:
                return False
            return self._adopt(peer, decode(raw, peer_id_text(peer)))
        except trio.TooSlowError:
            return False
        except RemoteFault as fault:
            if fault.reason not in (Reason.UNREACHABLE, Reason.REFUSED):
                self._network.report(peer, Reject(fault.reason))
            return False

    def _adopt(self, peer: bytes, history: object) -> bool:
        text = peer_id_text(peer)
        if not isinstance(history, History) or not history.blocks:
            raise RemoteFault(text, Reason.MALFORMED, "not a history")
        if not verify_history(self.committee, self._scheme, history):
            raise RemoteFault(text, Reason.BELOW_QUORUM, "history")
        first = history.blocks[0]
        begins = first.parent_view == self.view and first.parent == self._digest
        if not begins and first.parent_view <= self.view:
            raise RemoteFault(text, Reason.UNKNOWN_PARENT, f"view {first.parent_view}")
        for body in history.blocks:
            digest = digest_of(body)
            final = Final(body.epoch, body.view, digest)
            last = body is history.blocks[-1]
            proof = (history.certificate,) if last else ()
            self._log.write((body, *proof, final))
            self.view, self._digest = body.view, digest
            self._tell(finalized_of(body, digest, history.certificate))
        self._heard = max(self._heard, self.view)
        return True
