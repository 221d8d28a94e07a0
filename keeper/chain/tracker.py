"""The only judge of reorgs: a window of headers linked by parent hash.

    window   a ── b ── c ── d         new head d'  (parent c')
                   └── c'── d'        Wants(c') … Wants none: Retract d, Retract c, Advance c', d'

Notifications and numbers are hints; a chain that rolls back or reorganises without telling anybody
is seen the same way, because its head does not link to ours. Pure: the caller fetches what is
wanted, by hash, and offers it.
"""

from dataclasses import dataclass

from keeper.chain.port import Advance, DeepReorg, Finalized, Header, Retract
from keeper.errors import RemoteFault
from keeper.reasons import Reason

WINDOW = 256
"""Blocks kept: deeper than any finality rule in use, and as long as an anvil keeps history."""


@dataclass(frozen=True, slots=True)
class Wants:
    """The tracker needs the header with this hash before it can go on."""

    hash: bytes


Event = Advance | Retract | Finalized | DeepReorg


class Tracker:
    """The window of one chain.

    Invariants: every header is the parent of the next one, and one lower; every Retract names the
    newest block; `final` never goes back.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._size = window
        self._chain: list[Header] = []
        self._index: dict[bytes, int] = {}
        self._branch: list[Header] = []
        self._alien = b""
        self.final: Header | None = None

    @property
    def head(self) -> Header | None:
        """Return the newest tracked header."""
        return self._chain[-1] if self._chain else None

    def get(self, block_hash: bytes) -> Header | None:
        """Return a tracked header."""
        index = self._index.get(block_hash)
        return None if index is None else self._chain[index - self._offset]

    def at_depth(self, depth: int) -> Header | None:
        """Return the header `depth` blocks below the head, if tracked."""
        return self._chain[-1 - depth] if depth < len(self._chain) else None

    def final_at(self, number: int) -> Header | None:
        """Return the tracked header at a height that is final."""
        if self.final is None or not self._offset <= number <= self.final.ref.number:
            return None
        place = number - self._offset
        return self._chain[place] if place < len(self._chain) else None

    @property
    def _offset(self) -> int:
        return self._chain[0].ref.number if self._chain else 0

    def offer(self, header: Header) -> Wants | tuple[Event, ...]:
        """Take a new head, or the ancestor that was wanted.

        Returns:
            What is wanted next, or the events that lead from the old head to the new one.

        Raises:
            RemoteFault: a block does not count on from its parent: no chain has it.
        """
        if not self._branch or header.ref.hash != self._branch[-1].parent:
            self._branch = []
        if self._branch:
            self._follows(header.ref.number, self._branch[-1])
        if header.parent in self._index:
            self._follows(self._index[header.parent], header)
        self._branch.append(header)
        if not self._chain:
            return self._apply(0)
        if header.ref.hash in self._index:
            self._branch.pop()
            return self._apply(self._index[header.ref.hash] - self._offset + 1)
        if header.parent in self._index:
            return self._apply(self._index[header.parent] - self._offset + 1)
        if header.ref.number <= self._offset or len(self._branch) > self._size * 4:
            return self._lost()
        return Wants(header.parent)

    def _follows(self, parent: int, child: Header) -> None:
        """Refuse a block whose number is not its parent's and one."""
        if child.ref.number != parent + 1:
            self._branch = []
            detail = f"{child.ref} names block {parent} as its parent"
            raise RemoteFault(f"chain {child.ref.chain}", Reason.MALFORMED, detail)

    def _lost(self) -> tuple[Event, ...]:
        """Forget everything: the fork lies below the window."""
        ref = self._branch[0].ref
        self._chain, self._branch, self._index = [], [], {}
        return (DeepReorg(ref, tracked=False),)

    def _apply(self, keep: int) -> tuple[Event, ...]:
        """Keep the first `keep` headers, take the rest back, add the branch."""
        events: list[Event] = []
        gone, branch = self._chain[keep:], self._branch[::-1]
        if self.final is not None and any(h.ref.hash == self.final.ref.hash for h in gone):
            head = branch[-1] if branch else self._chain[keep - 1]
            events.append(DeepReorg(head.ref, tracked=True))
        for depth, header in enumerate(reversed(gone), 1):
            del self._index[header.ref.hash]
            events.append(Retract(header.ref, depth))
        self._chain = self._chain[:keep] + branch
        self._branch = []
        for header in branch:
            self._index[header.ref.hash] = header.ref.number
            events.append(Advance(header))
        for header in self._chain[: -self._size]:
            del self._index[header.ref.hash]
        self._chain = self._chain[-self._size :]
        return tuple(events)

    def finalize(self, header: Header) -> tuple[Event, ...]:
        """Take what the finality rule says is final; only a tracked, newer block counts.

        A block that is called final and contradicts the tracked chain is a DeepReorg, said once.
        """
        if self.final is not None and header.ref.number <= self.final.ref.number:
            return ()
        tracked = self.get(header.ref.hash)
        if tracked is not None:
            self.final = tracked
            return (Finalized(tracked.ref),)
        if header.ref.hash == self._alien:
            return ()
        if self._chain and self._offset <= header.ref.number <= self._chain[-1].ref.number:
            self._alien = header.ref.hash
            return (DeepReorg(header.ref, tracked=True),)
        return ()
