"""What a drill reports: one line an account, and whether every one was liquidated."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

Progress = Callable[[str, int], None]


def silent(_label: str, _done: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Line:
    """One account of the report.

    Args:
        account: in hex.
        liquidated: whether a close succeeded and left it healthier, or with nothing open.
        price_ppm: of the start, at which it was last tried.
        closes: that succeeded.
        predicted, realised: µUSD over all closes, after gas.
        health_before_ppm, health_after_ppm: around them.
        why: of the last decision, or what went wrong.
    """

    account: str
    liquidated: bool
    price_ppm: int
    closes: int
    predicted: int
    realised: int
    health_before_ppm: int
    health_after_ppm: int
    why: str


@dataclass(frozen=True, slots=True)
class Drill:
    """The report."""

    accounts: int
    liquidated: int
    lines: tuple[Line, ...]

    @property
    def complete(self) -> bool:
        """Whether every account was liquidated."""
        return self.liquidated == self.accounts

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {**asdict(self), "complete": self.complete}
