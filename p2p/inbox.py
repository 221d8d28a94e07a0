"""What arrived and waits to be judged: one bounded queue per peer, taken in turn.

    peer a ▮▮▮▮▮▮▮▮ (full: oldest dropped, counted)
    peer b ▮                                          ──► a, b, c, a, c, a, a …
    peer c ▮▮

A flood from one peer fills only its own queue and delays others by at most one frame a turn.
"""

from collections import deque
from collections.abc import Callable

import trio

from p2p.port import Inbound, Limits


class FairInbox:
    """Implements `p2p.port.Inbox`.

    Invariants: a peer holds at most `inbox_frames` frames and `inbox_bytes` bytes; a peer is in
    `_turns` exactly when it has a frame.
    """

    def __init__(self, limits: Limits, dropped: Callable[[bytes], None]) -> None:
        """Create an empty inbox; `dropped(peer)` is called for each frame lost to a full queue."""
        self._limits, self._dropped = limits, dropped
        self._queues: dict[bytes, deque[Inbound]] = {}
        self._bytes: dict[bytes, int] = {}
        self._turns: deque[bytes] = deque()
        self._waiting = trio.lowlevel.ParkingLot()

    def put(self, item: Inbound) -> None:
        """Add a frame; drops the sender's oldest while it holds too much."""
        queue = self._queues.setdefault(item.peer, deque())
        held = self._bytes.get(item.peer, 0) + len(item.frame)
        if not queue:
            self._turns.append(item.peer)
        queue.append(item)
        while len(queue) > 1 and (
            len(queue) > self._limits.inbox_frames or held > self._limits.inbox_bytes
        ):
            held -= len(queue.popleft().frame)
            self._dropped(item.peer)
        self._bytes[item.peer] = held
        self._waiting.unpark()

    def receive_nowait(self) -> Inbound | None:
        """Return the next frame, or None."""
        if not self._turns:
            return None
        peer = self._turns.popleft()
        queue = self._queues[peer]
        item = queue.popleft()
        if queue:
            self._bytes[peer] -= len(item.frame)
            self._turns.append(peer)
        else:
            del self._queues[peer], self._bytes[peer]
        return item

    async def receive(self) -> Inbound:
        """Return the next frame; waits for one. Safe to cancel."""
        await trio.lowlevel.checkpoint()
        while (item := self.receive_nowait()) is None:
            await self._waiting.park()
        return item

    def forget(self, peer: bytes) -> None:
        """Drop what a peer that was cut off left behind."""
        if self._queues.pop(peer, None) is not None:
            del self._bytes[peer]
            self._turns.remove(peer)

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))
