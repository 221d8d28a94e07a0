"""Keepers carry CCIP's tokens: each follows final blocks, signs, listens, and delivers.

    chain.head(FINAL) ─▶ logs of the on-ramp ─▶ Signer ─▶ frames ─▶ say (all other keepers)
    take(frame) ◀─ peers                          │
    ready ─▶ arrived already? ─▶ my turn? ─▶ bring (a transaction on the destination)

A delivery that the destination's pool refuses now, at its rate limit say, is marked as failed by
the off-ramp, and reverts until it succeeds: rehearsed ever more seldom, it costs nothing.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
import trio

from keeper.chain.port import Chain, Level
from keeper.errors import RemoteFault
from keeper.reasons import Reason
from keeper.route.bridges.ccip import MESSAGE_SENT
from keeper.route.bridges.ccip_committee import CCIP_FRAME, Ready, Signer
from keeper.route.bridges.ccip_facts import Committee
from keeper.route.bridges.ccip_lane import Ccip
from keeper.route.bridges.multisig import address_of
from keeper.route.bridges.port import Send, Stage
from keeper.route.bridges.turns import Turns
from keeper.units import BlockNumber, ChainId

log = structlog.get_logger(__name__)

SAY_AGAIN_S = 10.0
"""What has not arrived is said again: a peer may have missed it, or come later."""


@dataclass(slots=True)
class _Origin:
    chain: ChainId
    signer: Signer
    turns: Turns
    next: int
    said_at: float = 0.0


class CcipCourier:
    """One keeper's service for the tokens whose committees it is in.

    Args:
        tokens: what is served; those of committees without this keeper are left out.
        chains: all that they join.
        key: this keeper's signing key.
        say: hands a frame to all other keepers; never blocks.
        bring: sends a transaction; whether it was mined and did not revert.
        patience_s: what the next keeper in turn waits for the one before.
        poll_s: how often final heads are looked at.
    """

    def __init__(
        self,
        tokens: Sequence[Ccip],
        chains: Mapping[ChainId, Chain],
        key: bytes,
        say: Callable[[bytes], None],
        bring: Callable[[Send], Awaitable[bool]],
        *,
        patience_s: float = 5.0,
        poll_s: float = 1.0,
    ) -> None:
        self._chains, self._say, self._bring = dict(chains), say, bring
        self._poll_s = poll_s
        self._origins = [
            _Origin(chain, Signer(held, chain, key), Turns(len(who.signers), patience_s), start)
            for (chain, who, _), (held, start) in _groups(tokens, address_of(key)).items()
        ]

    def take(self, frame: bytes) -> Reason | None:
        """Take a peer's frame; return why it is not accepted, if it is not.

        What is about an origin that is not served here is another operator's business.
        """
        if len(frame) != CCIP_FRAME:
            return Reason.MALFORMED
        selector = int.from_bytes(frame[:8], "big")
        served = [one.signer for one in self._origins if one.signer.selector == selector]
        said = [signer.receive(frame) for signer in served]
        return None if not said or None in said else said[0]

    async def run(self) -> None:
        """Serve every origin until cancelled."""
        async with trio.open_nursery() as nursery:
            for origin in self._origins:
                nursery.start_soon(self._serve, origin)

    async def _serve(self, origin: _Origin) -> None:
        while True:
            try:
                await self._follow(origin)
                await self._deliver(origin)
            except RemoteFault as fault:
                # an endpoint that fails or lies is asked again; nothing was said in between
                log.warning("bridge", chain=origin.chain, fault=str(fault))
            await trio.sleep(self._poll_s)

    async def _follow(self, origin: _Origin) -> None:
        """Sign what became final since, and say what is on its way still."""
        chain = self._chains[origin.chain]
        head = await chain.head(Level.FINAL)
        if head.ref.number < origin.next:
            return
        first = BlockNumber(origin.next)
        found = await chain.history([origin.signer.on_ramp], first, head.ref, [MESSAGE_SENT])
        frames = origin.signer.sent(found)
        origin.next = head.ref.number + 1
        left = await self._left(origin)
        for name, frame in frames:
            if name in left:
                self._say(frame)

    async def _deliver(self, origin: _Origin) -> None:
        """Bring what has enough signatures, if nobody did within this keeper's patience."""
        now = trio.current_time()
        ready = origin.signer.ready()
        due = origin.turns.due([(one.id, one.turn) for one in ready], now)
        left = await self._left(origin) if due else frozenset[bytes]()
        for one in ready:
            if one.id in due & left:
                await self._send(origin, one)
        if now >= origin.said_at + SAY_AGAIN_S:
            origin.said_at = now
            for frame in origin.signer.frames():
                self._say(frame)

    async def _send(self, origin: _Origin, one: Ready) -> None:
        try:
            done = await self._bring(one.send)
            log.info("bridge", message=one.id.hex(), chain=one.send.chain, delivered=done)
        except RemoteFault as fault:  # one chain that is down must not stop the others
            log.warning("bridge", message=one.id.hex(), chain=one.send.chain, fault=str(fault))
        origin.turns.tried(one.id, trio.current_time())

    async def _left(self, origin: _Origin) -> frozenset[bytes]:
        """Drop transfers that have arrived, by the destination's own word at its newest block.

        Returns the ids of those that have not; what cannot be asked now is not among them.
        """
        left = set()
        for token, transfer in origin.signer.waiting():
            (read,) = token.arrival_reads(transfer)
            chain = self._chains[read.chain]
            try:
                answer = await chain.call(read.call.to, read.call.data, (await chain.head()).ref)
            except RemoteFault as fault:
                log.warning("bridge", chain=read.chain, fault=str(fault))
                continue
            if token.stage(transfer, [answer]) is Stage.ARRIVED:
                origin.signer.arrived(transfer.id)
            else:
                left.add(transfer.id)
        return frozenset(left)


def _groups(
    tokens: Sequence[Ccip], me: bytes
) -> dict[tuple[ChainId, Committee, bytes], tuple[list[Ccip], int]]:
    """Return tokens that share chain, committee and on-ramp, and from which block to read them."""
    found: dict[tuple[ChainId, Committee, bytes], tuple[list[Ccip], int]] = {}
    for token in tokens:
        if me not in token.committee.signers:
            continue
        for end in token.ends:
            name = (end.chain, token.committee, end.on_ramp)
            held, start = found.get(name, ([], end.first_block))
            found[name] = ([*held, token], min(start, end.first_block))
    return found
