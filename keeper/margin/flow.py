"""Limits on what flows: token buckets and net outflow.

    bucket    tokens = min(capacity, tokens + dt · rate); take or say how long to wait
    outflow   an asset of a venue may not lose more than a share within a window

Each is a frozen value; taking returns the next one, so the agreed state can hold it.
"""

from dataclasses import dataclass, replace

from keeper.margin.readings import OutflowReading
from keeper.parameters import BreakerParameters
from keeper.units import ceil_div


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
class NetOutflow:
    """One asset of one venue over a window. A window begins with the first flow after the last.

    Args:
        before: what was there when the window began, in the caller's unit.
        left: what is there now.
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
