"""Runs one member's `Ceremony` on trio over a network, until it is completed or failed.

    inbox ─ frames of the ceremony's channel ─▶ Ceremony ─▶ broadcast
    on_wait(peers)   told whenever the set of peers that are waited for changes

Used by the `keeper committee` command, where nothing else shares the network.
"""

import math
from collections.abc import Callable, Sequence

import trio

from keeper.errors import RemoteFault
from keeper.units import Instant
from p2p.frost.ceremony import Broadcast, Ceremony, Completed, Effect, Failed
from p2p.frost.transcript import Signed
from p2p.port import Network, Road
from p2p.verdicts import ACCEPT, Reject

CHANNEL = 3
"""First byte of a ceremony's frame on the consensus road (`p2p.service.Channel.CEREMONY`)."""


async def run_ceremony(
    ceremony: Ceremony, network: Network, on_wait: Callable[[Sequence[bytes]], None]
) -> Completed | Failed:
    """Return the outcome once this member need not repeat itself any more."""
    hosts = ceremony.terms.hosts
    waited: tuple[int, ...] = ()

    def perform(effects: tuple[Effect, ...]) -> None:
        for effect in effects:
            if isinstance(effect, Broadcast):
                network.broadcast(bytes((CHANNEL,)) + effect.message.encode())

    perform(ceremony.start(_now()))
    while ceremony.deadline is not None:
        if ceremony.missing != waited and ceremony.outcome is None:
            waited = ceremony.missing
            on_wait([hosts[i] for i in waited])
        with trio.move_on_at(ceremony.deadline or math.inf) as scope:
            item = await network.inbox.receive()
            if item.road != Road.CONSENSUS or item.frame[:1] != bytes((CHANNEL,)):
                continue
            if item.peer not in hosts:
                continue
            try:
                word = Signed.decode(item.frame[1:])
            except RemoteFault as fault:
                network.report(item.peer, Reject(fault.reason))
                continue
            network.report(item.peer, ACCEPT)
            perform(ceremony.receive(hosts.index(item.peer), word))
        if scope.cancelled_caught:
            perform(ceremony.tick(_now()))
    assert ceremony.outcome is not None
    return ceremony.outcome


def _now() -> Instant:
    return Instant(trio.current_time())
