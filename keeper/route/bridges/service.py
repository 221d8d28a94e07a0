"""Keepers carry bridges' messages: each follows final blocks, signs, listens, and delivers.

    chain.head(FINAL) ─▶ logs, checks ─▶ Origin ─▶ frames ─▶ say (all other keepers)
    take(frame) ◀─ peers                   │
    ready ─▶ arrived already? ─▶ my turn? ─▶ bring (a transaction on the destination)

What is signed, believed and brought is each kind's business (`origin.py`); when to bring is that of
`turns.py`. What a destination refuses now is rehearsed ever more seldom, and costs nothing.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
import trio

from keeper.chain.port import Chain, Header, Level
from keeper.errors import RemoteFault
from keeper.reasons import Reason
from keeper.route.bridges.origin import Origin, Ready, Signed
from keeper.route.bridges.origins import FRAMES
from keeper.route.bridges.port import Crossing, Send, Stage
from keeper.route.bridges.turns import Turns
from keeper.units import BlockNumber, ChainId

log = structlog.get_logger(__name__)

SAY_AGAIN_S = 10.0
"""What has not arrived is said again: a peer may have missed it, or come later."""
BRING_S = 60.0
"""What a chain may take of a round. On one that stands still nothing is mined and nothing expires:
the executor keeps what it has, and the others' messages are not held up any longer."""


@dataclass(slots=True)
class _Followed:
    """An origin; the next block to read of it, and when what is on its way was sent."""

    origin: Origin
    turns: Turns
    next: BlockNumber
    said_at: float = 0.0
    sent_at: dict[bytes, int] = field(default_factory=dict)

    @property
    def chain(self) -> ChainId:
        return self.origin.watch.chain


class Courier:
    """One keeper's service for the messages that it signs.

    Args:
        origins: what is served.
        chains: all that they join.
        say: hands a frame to all other keepers; never blocks.
        bring: sends a transaction; whether it was mined and did not revert. Safe to cancel.
        heard: told the milliseconds from block to block of what arrives meanwhile, by kind.
        patience_s: what the next keeper in turn waits for the one before.
        poll_s: how often final heads are looked at.
    """

    def __init__(
        self,
        origins: Sequence[Origin],
        chains: Mapping[ChainId, Chain],
        say: Callable[[bytes], None],
        bring: Callable[[Send], Awaitable[bool]],
        heard: Callable[[str, Crossing, int], None] = lambda _kind, _crossing, _ms: None,
        *,
        patience_s: float = 5.0,
        poll_s: float = 1.0,
    ) -> None:
        self._chains, self._say, self._bring = dict(chains), say, bring
        self._heard, self._poll_s = heard, poll_s
        self._followed = [
            _Followed(one, Turns(one.watch.keepers, patience_s), one.watch.start) for one in origins
        ]

    def take(self, frame: bytes) -> Reason | None:
        """Take a peer's frame; return why it is not accepted, if it is not.

        What is about an origin that is not served here is another operator's business.
        """
        if self._followed and len(frame) not in FRAMES:
            return Reason.MALFORMED
        served = [one.origin for one in self._followed if one.origin.watch.about(frame)]
        said = [origin.receive(frame) for origin in served]
        return None if not said or None in said else said[0]

    async def run(self) -> None:
        """Serve every origin until cancelled; return at once if there is none."""
        async with trio.open_nursery() as nursery:
            for one in self._followed:
                nursery.start_soon(self._follow_on, one)
                nursery.start_soon(self._deliver_on, one)

    async def _follow_on(self, one: _Followed) -> None:
        while True:
            try:
                await self._follow(one)
            except RemoteFault as fault:
                # an endpoint that fails or lies is asked again; nothing of it was signed
                log.warning("bridge", chain=one.chain, fault=str(fault))
            await trio.sleep(self._poll_s)

    async def _deliver_on(self, one: _Followed) -> None:
        """Deliver beside following: what is ready needs the origin no more."""
        while True:
            await self._deliver(one)
            await trio.sleep(self._poll_s)

    async def _follow(self, one: _Followed) -> None:
        """Sign what became final since, and say what is on its way still."""
        watch, chain = one.origin.watch, self._chains[one.chain]
        head = await chain.head(Level.FINAL)
        if head.ref.number < one.next:
            return
        found = await chain.history(watch.addresses, one.next, head.ref, watch.topics)
        answers = [await chain.call(check.to, check.data, head.ref) for check in watch.checks]
        try:
            signed = one.origin.read(found, answers)
        except ValueError as error:
            one.next = watch.start
            raise RemoteFault(f"chain {one.chain}", Reason.ENDPOINT_LIED, str(error)) from error
        one.next = BlockNumber(head.ref.number + 1)
        left = await self._left(one)
        pending = [each for each in signed if each.id in left]
        for each in pending:
            self._say(each.frame)
        await self._date(one, pending)

    async def _date(self, one: _Followed, pending: Sequence[Signed]) -> None:
        """Note when what is still on its way was sent, by its block's clock."""
        for at in dict.fromkeys(each.block for each in pending):
            block = await self._chains[one.chain].block(at.hash)
            if block is not None:
                names = [each.id for each in pending if each.block == at]
                one.sent_at |= dict.fromkeys(names, block.timestamp)

    async def _deliver(self, one: _Followed) -> None:
        """Bring what has enough signatures, if nobody did within this keeper's patience."""
        now = trio.current_time()
        if now >= one.said_at + SAY_AGAIN_S:
            one.said_at = now
            for frame in one.origin.frames():
                self._say(frame)
        ready = one.origin.ready()
        due = one.turns.due([(each.id, each.turn) for each in ready], now)
        mine = due & await self._left(one) if due else due
        async with trio.open_nursery() as nursery:
            for chain in dict.fromkeys(each.send.chain for each in ready):
                there = [each for each in ready if each.id in mine and each.send.chain == chain]
                nursery.start_soon(self._bring_all, one, there)

    async def _bring_all(self, one: _Followed, ready: Sequence[Ready]) -> None:
        """Bring what goes to one chain, beside the other chains."""
        with trio.move_on_after(BRING_S):
            for each in ready:
                await self._send(one, each)

    async def _send(self, one: _Followed, ready: Ready) -> None:
        send = ready.send
        try:
            done = await self._bring(send)
            log.info("bridge", message=ready.id.hex(), chain=send.chain, delivered=done)
        except RemoteFault as fault:  # one chain that is down must not stop the others
            log.warning("bridge", message=ready.id.hex(), chain=send.chain, fault=str(fault))
        finally:  # in time or not
            one.turns.tried(ready.id, trio.current_time())

    async def _left(self, one: _Followed) -> set[bytes]:
        """Drop transfers that have arrived, by the destination's own word at its newest block.

        Returns the ids of those that have not; what cannot be asked now is not among them.
        """
        left, waiting = set[bytes](), one.origin.waiting()
        names = {transfer.id for _, transfer in waiting}
        one.sent_at = {name: at for name, at in one.sent_at.items() if name in names}
        heads = await self._heads(transfer.crossing.destination for _, transfer in waiting)
        for bridge, transfer in waiting:
            (read,) = bridge.arrival_reads(transfer)
            head = heads.get(read.chain)
            if head is None:
                continue
            try:
                call = read.call
                answer = await self._chains[read.chain].call(call.to, call.data, head.ref)
            except RemoteFault as fault:
                log.warning("bridge", chain=read.chain, fault=str(fault))
                continue
            if bridge.stage(transfer, [answer]) is not Stage.ARRIVED:
                left.add(transfer.id)
                continue
            one.origin.arrived(transfer.id)
            sent = one.sent_at.pop(transfer.id, None)
            if sent is not None:
                took_s = max(head.timestamp - sent, 0)
                self._heard(bridge.name, transfer.crossing, took_s * 1000)
        return left

    async def _heads(self, chains: Iterable[ChainId]) -> dict[ChainId, Header]:
        """Return the newest block of each chain, without those that are down now.

        One that is down is waited for once, not once for every message on its way there.
        """
        found: dict[ChainId, Header] = {}
        for chain in dict.fromkeys(chains):
            try:
                found[chain] = await self._chains[chain].head()
            except RemoteFault as fault:
                log.warning("bridge", chain=chain, fault=str(fault))
        return found
