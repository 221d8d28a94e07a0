"""Signed observations of the recent ticks, waiting for a leader to attach them.

At most one per member and tick; ticks outside of a short window are not taken.
"""

from collections.abc import Iterator

from p2p.types import SignedObservation

TICKS_KEPT = 8
"""Ticks behind the clock that a leader may still attach."""
TICKS_AHEAD = 2
"""Ticks before the clock: how far clocks of honest keepers may differ."""


class Observations:
    """Checked observations by tick and signer."""

    def __init__(self) -> None:
        self._ticks: dict[int, dict[int, SignedObservation]] = {}
        self._quorum_at: dict[int, float] = {}

    def takes(self, observation: SignedObservation, current_tick: int) -> bool:
        """Return whether an observation is of use; asked before its signature is checked."""
        low, high = current_tick - TICKS_KEPT, current_tick + TICKS_AHEAD
        return low <= observation.tick <= high and not self.holds(observation)

    def holds(self, observation: SignedObservation) -> bool:
        """Return whether a member's observation of that tick is here already."""
        return observation.signer in self._ticks.get(observation.tick, {})

    def known(self, observation: SignedObservation) -> bool:
        """Return whether exactly this one was checked already."""
        return self._ticks.get(observation.tick, {}).get(observation.signer) == observation

    def add(self, observation: SignedObservation, now: float, quorum: int) -> None:
        """Keep a checked observation."""
        held = self._ticks.setdefault(observation.tick, {})
        held[observation.signer] = observation
        if len(held) == quorum:
            self._quorum_at[observation.tick] = now

    def ready_at(self, tick: int, members: int, grace_s: float) -> float | None:
        """Return when a leader may attach a tick's observations; None below a quorum."""
        since = self._quorum_at.get(tick)
        if since is None:
            return None
        return since if len(self._ticks[tick]) == members else since + grace_s

    def ticks(self, after: int, until: int) -> list[int]:
        """Return ticks with a quorum in (after, until], newest first."""
        return sorted((t for t in self._quorum_at if after < t <= until), reverse=True)

    def of(self, tick: int) -> tuple[SignedObservation, ...]:
        """Return a tick's observations by ascending signer."""
        held = self._ticks.get(tick, {})
        return tuple(held[signer] for signer in sorted(held))

    def choices(self, tick: int, quorum: int) -> Iterator[tuple[SignedObservation, ...]]:
        """Yield what a leader may attach, best first: all, or the quorum with the least bytes.

        So nobody keeps a leader from proposing by saying more than anybody honest has to say.
        """
        everything = self.of(tick)
        yield everything
        least = sorted(everything, key=lambda one: (len(one.body), one.signer))[:quorum]
        if len(least) < len(everything):
            yield tuple(sorted(least, key=lambda one: one.signer))

    def prune(self, current_tick: int) -> None:
        """Forget old ticks."""
        for tick in [tick for tick in self._ticks if tick < current_tick - TICKS_KEPT]:
            del self._ticks[tick]
            self._quorum_at.pop(tick, None)
