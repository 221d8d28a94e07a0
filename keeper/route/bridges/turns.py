"""Whose turn it is to bring a message that anyone may bring: no I/O, no clock.

    ready ─▶ the keeper with turn 0 at once ─▶ turn 1 `patience_s` later ─▶ … ─▶ tried, not arrived
          ─▶ again when all others had theirs, and twice as late after every try

One honest keeper with coin is enough, and mostly only one pays.
"""

from collections.abc import Sequence

MAX_DOUBLINGS = 8
"""With four keepers five seconds apart, a message that nobody can deliver is tried every 85 min."""


class Turns:
    """What one keeper brings when.

    Invariant: only messages that are ready now are kept.

    Args:
        keepers: how many take turns.
        patience_s: what the next one waits for the one before.
    """

    def __init__(self, keepers: int, patience_s: float) -> None:
        self._keepers, self._patience_s = keepers, patience_s
        self._ready_at: dict[bytes, float] = {}
        self._tries: dict[bytes, int] = {}

    def due(self, ready: Sequence[tuple[bytes, int]], now: float) -> frozenset[bytes]:
        """Return which of the (message id, turn)s that are ready this keeper brings now."""
        self._ready_at = {name: self._ready_at.get(name, now) for name, _ in ready}
        self._tries = {name: self._tries.get(name, 0) for name, _ in ready}
        return frozenset(
            name for name, turn in ready if now >= self._ready_at[name] + turn * self._patience_s
        )

    def tried(self, name: bytes, now: float) -> None:
        """Wait for the others before the next try, and longer every time: some cannot arrive."""
        tries = self._tries[name] = self._tries.get(name, 0) + 1
        round_s = self._patience_s * self._keepers
        self._ready_at[name] = now + round_s * 2 ** min(tries - 1, MAX_DOUBLINGS)
