"""Keepers carry Hyperlane's messages: each follows final blocks, signs, listens, and delivers.

    chain.head(FINAL) ─▶ logs of Mailbox and hook ─▶ Validator ─▶ frames ─▶ say (all other keepers)
    take(frame) ◀─ peers                                │
    ready ─▶ delivered already? ─▶ my turn? ─▶ bring (a transaction on the destination)

Keepers bring in turns (`turns.py`). Before anything is said, the own tree's root must be the one of
the hook at that very block.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
import trio

from keeper.chain.port import Chain, Level, Log
from keeper.errors import RemoteFault
from keeper.reasons import Reason
from keeper.route.bridges.hyperlane import DISPATCH, INSERTED, End, Hyperlane, process
from keeper.route.bridges.message import decode_hyperlane
from keeper.route.bridges.multisig import FRAME, Bring, Validator
from keeper.route.bridges.port import Crossing, Send, Stage, Transfer
from keeper.route.bridges.turns import Turns
from keeper.units import BlockNumber, ChainId
from keeper.venue.abi import answers, calldata

log = structlog.get_logger(__name__)

SAY_AGAIN_S = 10.0
"""What has not arrived is said again: a peer may have missed it, or come later."""


@dataclass(slots=True)
class _Origin:
    end: End
    start: int
    validator: Validator
    next: int
    turns: Turns
    said_at: float = 0.0
    sent_at: dict[bytes, int] = field(default_factory=dict)


class Courier:
    """One keeper's service for warp routes that share mailboxes, hooks and validators.

    Args:
        routes: what is served.
        chains: by chain, with the block from which the hook's leaves are read.
        key: this keeper's validator key.
        say: hands a frame to all other keepers; never blocks.
        bring: sends a transaction; whether it was mined and did not revert.
        heard: told the milliseconds from block to block of what arrives meanwhile.
        patience_s: what the next keeper in turn waits for the one before.
        poll_s: how often final heads are looked at.
    """

    def __init__(
        self,
        routes: Sequence[Hyperlane],
        chains: Mapping[ChainId, tuple[Chain, BlockNumber]],
        key: bytes,
        say: Callable[[bytes], None],
        bring: Callable[[Send], Awaitable[bool]],
        heard: Callable[[Crossing, int], None] = lambda _crossing, _ms: None,
        *,
        patience_s: float = 5.0,
        poll_s: float = 1.0,
    ) -> None:
        self._routes, self._key, self._say, self._bring = tuple(routes), key, say, bring
        self._heard, self._poll_s = heard, poll_s
        self._chains = {chain: port for chain, (port, _) in chains.items()}
        self._origins: dict[int, _Origin] = {}
        for chain, (_, start) in chains.items():
            end = routes[0].end(chain)
            turns = Turns(len(routes[0].validators), patience_s)
            self._origins[end.domain] = _Origin(end, start, self._validator(end), start, turns)

    def _validator(self, end: End) -> Validator:
        first = self._routes[0]
        return Validator(
            end.domain, end.hook, first.validators, first.threshold, self._key, self._wanted
        )

    def _wanted(self, message: bytes) -> bool:
        return self._transfer(message) is not None

    def _transfer(self, message: bytes) -> Transfer | None:
        found = (route.read(message) for route in self._routes)
        return next((one for one in found if one is not None), None)

    def take(self, frame: bytes) -> Reason | None:
        """Take a peer's frame; return why it is not accepted, if it is not.

        What is about an origin that is not served here is another operator's business.
        """
        if len(frame) != FRAME:
            return Reason.MALFORMED
        origin = self._origins.get(int.from_bytes(frame[:4], "big"))
        return None if origin is None else origin.validator.receive(frame)

    async def run(self) -> None:
        """Serve every origin until cancelled."""
        async with trio.open_nursery() as nursery:
            for origin in self._origins.values():
                nursery.start_soon(self._serve, origin)

    async def _serve(self, origin: _Origin) -> None:
        while True:
            try:
                await self._follow(origin)
                await self._deliver(origin)
            except RemoteFault as fault:
                # an endpoint that fails or lies is asked again; nothing was said in between
                log.warning("bridge", chain=origin.end.chain, fault=str(fault))
            await trio.sleep(self._poll_s)

    async def _follow(self, origin: _Origin) -> None:
        """Take what became final since, and say what is new of it."""
        end, chain = origin.end, self._chains[origin.end.chain]
        head = await chain.head(Level.FINAL)
        if head.ref.number < origin.next:
            return
        found = await chain.history(
            [end.mailbox, end.hook], BlockNumber(origin.next), head.ref, [DISPATCH, INSERTED]
        )
        root = await chain.call(end.hook, calldata("root()"), head.ref)
        try:
            frames = _taken(origin, found)
            if origin.validator.tree.root != root:
                raise ValueError("the leaves read do not give the hook's root")
        except ValueError as error:
            # some leaf was withheld or made up: all of them are read again
            origin.validator, origin.next = self._validator(end), origin.start
            raise RemoteFault(f"chain {end.chain}", Reason.ENDPOINT_LIED, str(error)) from error
        origin.next = head.ref.number + 1
        pending = await self._forget(origin)
        for name, frame in frames:
            if name in pending:
                self._say(frame)
        await self._date(origin, found, pending)

    async def _date(self, origin: _Origin, found: Sequence[Log], pending: set[bytes]) -> None:
        """Note when what is still on its way was sent, by its block's clock."""
        blocks: dict[bytes, list[bytes]] = {}
        for entry in found:
            if entry.topics[:1] == (INSERTED,):
                name = answers(("bytes32", "uint32"), entry.data)[0]
                if name in pending:
                    blocks.setdefault(entry.block.hash, []).append(name)
        for at, names in blocks.items():
            block = await self._chains[origin.end.chain].block(at)
            if block is not None:
                origin.sent_at |= dict.fromkeys(names, block.timestamp)

    async def _deliver(self, origin: _Origin) -> None:
        """Bring what has enough signatures, if nobody did within this keeper's patience."""
        now = trio.current_time()
        waiting = origin.validator.ready()
        late = origin.turns.due([(one.id, one.turn) for one in waiting], now)
        left = await self._forget(origin) if late else set()
        for one in waiting:
            if one.id in late & left:
                await self._send(origin, one)
        if now >= origin.said_at + SAY_AGAIN_S:
            origin.said_at = now
            for frame in origin.validator.frames():
                self._say(frame)

    async def _send(self, origin: _Origin, one: Bring) -> None:
        domain = decode_hyperlane(one.message).destination
        send = process(self._origins[domain].end, one.metadata, one.message)
        try:
            done = await self._bring(send)
            log.info("bridge", message=one.id.hex(), destination=domain, delivered=done)
        except RemoteFault as fault:  # one chain that is down must not stop the others
            log.warning("bridge", message=one.id.hex(), chain=send.chain, fault=str(fault))
        origin.turns.tried(one.id, trio.current_time())

    async def _forget(self, origin: _Origin) -> set[bytes]:
        """Drop messages that have arrived, by the destination's own word at its newest block.

        Returns the ids of those that have not; what cannot be asked now is not among them.
        """
        left, waiting = set(), set()
        for message in origin.validator.messages():
            transfer = self._transfer(message)
            assert transfer is not None, "only served messages wait"
            waiting.add(transfer.id)
            (read,) = self._routes[0].arrival_reads(transfer)
            chain = self._chains[read.chain]
            try:
                head = await chain.head()
                answer = await chain.call(read.call.to, read.call.data, head.ref)
            except RemoteFault as fault:
                log.warning("bridge", chain=read.chain, fault=str(fault))
                continue
            if self._routes[0].stage(transfer, [answer]) is Stage.ARRIVED:
                origin.validator.delivered(transfer.id)
                sent = origin.sent_at.pop(transfer.id, None)
                if sent is not None:
                    self._heard(transfer.crossing, max(head.timestamp - sent, 0) * 1000)
            else:
                left.add(transfer.id)
        origin.sent_at = {name: at for name, at in origin.sent_at.items() if name in waiting}
        return left


def _taken(origin: _Origin, logs: Sequence[Log]) -> list[tuple[bytes, bytes]]:
    """Feed the logs of final blocks; return (message id, frame) of what was signed.

    Raises:
        ValueError: a log is not what its contract emits, or a leaf is missing.
    """
    frames = []
    for entry in logs:
        if entry.address == origin.end.mailbox and entry.topics[0] == DISPATCH:
            origin.validator.dispatched(answers(("bytes",), entry.data)[0])
        elif entry.address == origin.end.hook and entry.topics[0] == INSERTED:
            message, index = answers(("bytes32", "uint32"), entry.data)
            frame = origin.validator.inserted(message, index)
            frames += [(message, frame)] if frame is not None else []
    return frames
