"""Follows a chain: agreed heads into the tracker, what that means out as events.

    poll, or poke ─▶ head ─▶ missing headers ─▶ Tracker ─▶ Retract, Advance
                          └▶ the finality rule ─────────▶ Finalized
                          └▶ nothing new for long ──────▶ Stalled

It starts at the final block, if the window reaches it. What it asks comes from `Headers`: whoever
implements that has agreed on them already.
"""

from collections.abc import Sequence
from typing import Protocol

import trio

from keeper.chain.finality import Anchored, Depth, FinalityRule, Tag
from keeper.chain.port import Emit, Header, Level, Stalled
from keeper.chain.tracker import WINDOW, Event, Tracker, Wants
from keeper.errors import RemoteFault
from keeper.units import ChainId

_STRIDE = 64
"""Blocks fetched in one batch when catching up."""
_LEAST_S = 0.1
"""From one look to the next, however often we are poked: an endpoint that cries wolf would have us
ask all the others without end."""


class Headers(Protocol):
    """Where headers come from: agreed upon, or proven by their hash."""

    async def head(self, level: Level = Level.UNSAFE) -> Header:
        """Return the newest block of a level."""
        ...

    async def block(self, block_hash: bytes) -> Header | None:
        """Return the header with this hash, or None."""
        ...

    async def by_number(self, numbers: Sequence[int]) -> list[Header]:
        """Return the headers at these heights."""
        ...


class Follower:
    """One chain, followed.

    Args:
        chain: its id.
        source: who gives headers.
        finality: when a block counts as final.
        window: blocks the tracker keeps.
        poll_s: how often to look when nothing wakes us.
        stall_s: without a new block for so long, the chain counts as stalled.
    """

    def __init__(
        self,
        chain: ChainId,
        source: Headers,
        finality: FinalityRule,
        *,
        window: int = WINDOW,
        poll_s: float = 0.5,
        stall_s: float = 30.0,
    ) -> None:
        self.tracker = Tracker(window)
        self._chain, self._source, self._finality = chain, source, finality
        self._window, self._poll_s, self._stall_s = window, poll_s, stall_s
        self._hint = trio.Event()

    def poke(self) -> None:
        """Look for a new head now."""
        self._hint.set()

    async def run(self, emit: Emit) -> None:
        """Follow until cancelled; return only after a DeepReorg beyond the window."""
        moved, stalled, why = trio.current_time(), False, ""
        while True:
            self._hint, began = trio.Event(), trio.current_time()
            try:
                if await self._step(emit):
                    moved, stalled = trio.current_time(), False
                if self.tracker.head is None:
                    return
                why = "no new block"
            except RemoteFault as fault:
                why = str(fault)
            quiet = trio.current_time() - moved
            if quiet >= self._stall_s and not stalled:
                stalled = True
                await emit(Stalled(self._chain, int(quiet), why))
            with trio.move_on_after(self._poll_s):
                await self._hint.wait()
                await trio.sleep_until(began + _LEAST_S)

    async def _step(self, emit: Emit) -> bool:
        """Move to the agreed head and emit what that means; return whether anything moved."""
        head, moved = await self._source.head(), False
        if self.tracker.head is None:
            moved = await self._emit(emit, await self._offer(await self._start(head)))
        while (at := self.tracker.head) is not None and at.ref.hash != head.ref.hash:
            ahead = [head]
            if head.ref.number > at.ref.number + 1:
                last = min(head.ref.number, at.ref.number + _STRIDE)
                ahead = await self._source.by_number(range(at.ref.number + 1, last + 1))
            for header in ahead:
                events = await self._offer(header)
                if events is None:
                    return moved
                moved = await self._emit(emit, events)
                if self.tracker.head is None:
                    return moved
        final = await self._final()
        if final is not None:
            await self._emit(emit, self.tracker.finalize(final))
        return moved

    @staticmethod
    async def _emit(emit: Emit, events: Sequence[Event] | None) -> bool:
        for event in events or ():
            await emit(event)
        return bool(events)

    async def _offer(self, header: Header) -> tuple[Event, ...] | None:
        """Offer a header and whatever the tracker wants; None if the branch vanished meanwhile."""
        answer = self.tracker.offer(header)
        while isinstance(answer, Wants):
            parent = await self._source.block(answer.hash)
            if parent is None:
                return None
            answer = self.tracker.offer(parent)
        return answer

    async def _start(self, head: Header) -> Header:
        """Return where to begin: at the final block if the window reaches it."""
        depth = self._finality.blocks if isinstance(self._finality, Depth) else self._window - 1
        lowest = max(head.ref.number - min(depth, self._window - 1), 0)
        final = None if isinstance(self._finality, Depth) else await self._final()
        number = lowest if final is None else max(lowest, min(final.ref.number, head.ref.number))
        return (await self._source.by_number([number]))[0]

    async def _final(self) -> Header | None:
        match self._finality:
            case Depth(blocks):
                return self.tracker.at_depth(blocks)
            case Tag():
                return await self._source.head(Level.FINAL)
            case Anchored(anchor):
                return anchor()
