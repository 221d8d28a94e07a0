"""Limits on what flows: token buckets, a 24-hour governor, and net outflow.

    bucket    tokens = min(capacity, tokens + dt · rate); take or say how long to wait
    governor  Σ over the last 24 h ≤ limit; a big transfer waits a day whatever the sum
    outflow   an asset of a venue may not lose more than a share within a window

Each is a frozen value; taking returns the next one, so the agreed state can hold it.
"""

from dataclasses import dataclass, replace

from keeper.margin.readings import OutflowReading
from keeper.parameters import BreakerParameters
from keeper.units import ceil_div

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Refused:
    """Why nothing was taken, and after how many seconds it could be; None for never."""

    why: str
    wait_s: int | None


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """One lane in one direction. Invariant: 0 ≤ tokens ≤ capacity."""

    capacity: int
    rate: int
    tokens: int
    at: int

    def filled(self, now: int) -> "TokenBucket":
        """Return the bucket at a later time."""
        gained = max(0, now - self.at) * self.rate
        tokens = min(self.capacity, self.tokens + gained)
        return replace(self, tokens=tokens, at=max(now, self.at))

    def take(self, amount: int, now: int) -> "TokenBucket | Refused":
        """Return the bucket after taking, or why not.

        Raises:
            ValueError: the amount is negative.
        """
        if amount < 0:
            raise ValueError(f"cannot take a negative amount {amount}")
        bucket = self.filled(now)
        if amount > bucket.capacity:
            return Refused(f"{amount} µUSD is above the lane's capacity {bucket.capacity}", None)
        missing = amount - bucket.tokens
        if missing > 0:
            wait = ceil_div(missing, bucket.rate) if bucket.rate else None
            return Refused(f"{amount} µUSD asked, {bucket.tokens} left in the lane", wait)
        return replace(bucket, tokens=bucket.tokens - amount)


@dataclass(frozen=True, slots=True)
class Governor:
    """What left over a lane in the last 24 hours: (time, µUSD) in time order."""

    taken: tuple[tuple[int, int], ...] = ()

    def take(self, amount: int, now: int, limits: BreakerParameters) -> "Governor | Refused":
        """Return the governor after a transfer, or why it must wait.

        A big transfer is told the delay; once delayed it passes without being counted.
        """
        recent = tuple((at, value) for at, value in self.taken if at > now - DAY_S)
        if amount >= limits.big_transfer:
            return Refused(f"{amount} µUSD is a big transfer", limits.big_delay_s)
        used = sum(value for _, value in recent)
        if used + amount > limits.day_limit:
            return Refused(
                f"{used} µUSD left in 24 hours, {amount} more exceeds {limits.day_limit}",
                _until_room(recent, used + amount - limits.day_limit, now),
            )
        return Governor((*recent, (now, amount)))


def _until_room(recent: tuple[tuple[int, int], ...], excess: int, now: int) -> int | None:
    """Return the seconds until enough of the recent transfers have left the window."""
    for at, value in recent:
        excess -= value
        if excess <= 0:
            return at + DAY_S - now
    return None


@dataclass(frozen=True, slots=True)
class NetOutflow:
    """One asset of one venue over a window. A window begins with the first flow after the last.

    Args:
        before: µUSD when the window began.
        left: µUSD now.
    """

    scope: bytes
    began: int
    before: int
    left: int

    def flow(self, amount: int, now: int, limits: BreakerParameters) -> "NetOutflow":
        """Return the state after an inflow (positive) or outflow (negative)."""
        state = self
        if now >= self.began + limits.outflow_window_s:
            state = replace(self, began=now, before=self.left)
        return replace(state, left=state.left + amount)

    def reading(self, limits: BreakerParameters) -> OutflowReading:
        """Return what the breaker judges."""
        ends = self.began + limits.outflow_window_s
        return OutflowReading(self.scope, self.before, self.left, ends)
