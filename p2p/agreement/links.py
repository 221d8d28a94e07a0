"""The agreement on a real or simulated network: members are peers, frames are messages.

network.inbox ──▶ Pump ── decode ──▶ inbox of the service (bounded, newest dropped, counted)
service ──▶ NetworkLinks ── encode ──▶ network.send / broadcast
"""

from collections.abc import Callable

import trio

from keeper.errors import RemoteFault
from keeper.reasons import Reason
from p2p.agreement.inputs import Input, Received
from p2p.port import Inbound, Network
from p2p.types import Committee, Member
from p2p.verdicts import Ignore, Reject
from p2p.wire import decode

INBOX_SIZE = 2048
"""Inputs waiting for the core: a burst of a view at n = 31 is under 200; more is a flood."""
_INNOCENT = frozenset({Reason.TOO_FAR_AHEAD, Reason.STALE, Reason.DUPLICATE, Reason.UNKNOWN_PARENT})
"""An honest but slow, or quick, member may be refused for these."""


class NetworkLinks:
    """Implements `p2p.agreement.service.Links`."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def send(self, member: Member, frame: bytes) -> None:
        """Queue a frame for one member."""
        self._network.send(member.peer_id, frame)

    def broadcast(self, frame: bytes) -> None:
        """Queue a frame for every other member."""
        self._network.broadcast(frame)

    def refused(self, member: Member, reason: Reason, detail: str) -> None:
        """Count a message of a member against it."""
        verdict = Ignore(reason) if reason in _INNOCENT else Reject(reason)
        self._network.report(member.peer_id, verdict)


class Pump:
    """Turns inbound frames of members into inputs of the core; nothing here waits.

    Whoever reads `network.inbox` calls `take` with frames of the consensus road, so that other
    rooms can share the inbox.
    """

    def __init__(
        self,
        network: Network,
        committee: Committee,
        inbox: trio.MemorySendChannel[Input],
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._network, self._committee = network, committee
        self._inbox, self._dropped = inbox, dropped

    def take(self, item: Inbound) -> None:
        """Decode one frame and queue it; a full queue drops it and counts."""
        member = self._committee.index_of_peer(item.peer)
        if member is None:
            self._network.report(item.peer, Ignore(Reason.NOT_A_MEMBER))
            return
        try:
            message = decode(item.frame, item.peer.hex())
        except RemoteFault as fault:
            self._network.report(item.peer, Reject(fault.reason))
            return
        try:
            self._inbox.send_nowait(Received(member, message))
        except trio.WouldBlock:
            self._dropped()
