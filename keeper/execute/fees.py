"""What to offer for a block's space, and how to outbid oneself.

    first     max fee = base · headroom + tip        tip = market · lane factor, at least a floor
    bump      both fields ≥ old · 113 %, and ≥ what `first` would offer now
    cap       gas · max fee ≤ the task's fee cap, at every attempt

Nodes replace a pending transaction only if both fields rise by 10 %; 13 % survives rounding and
clients that ask 12.5 %. EIP-1559.
"""

from dataclasses import dataclass

from keeper.chain.port import Fees
from keeper.units import PPM, Wei, ppm_ceil


@dataclass(frozen=True, slots=True)
class Offer:
    """The two fee fields of a type 2 transaction, in wei per gas."""

    tip: Wei
    max_fee: Wei


@dataclass(frozen=True, slots=True)
class Schedule:
    """How eager a lane is.

    Args:
        tip_ppm: share of the market's median tip offered first.
        tip_floor: least tip offered, wei per gas.
        headroom_ppm: of the base fee; 2,000,000 survives six full blocks in a row.
        bump_ppm: raise of each replacement.
        patience: blocks without progress until an attempt is replaced.
        gas_ppm: gas limit as a share of the estimate.
    """

    tip_ppm: int = PPM
    tip_floor: Wei = Wei(1_000_000_000)  # noqa: RUF009 a NewType of an int is immutable
    headroom_ppm: int = 2 * PPM
    bump_ppm: int = 1_130_000
    patience: int = 3
    gas_ppm: int = 1_250_000

    def __post_init__(self) -> None:
        if self.bump_ppm < 1_125_000:
            raise ValueError(f"a bump of {self.bump_ppm} ppm is refused by nodes")
        if self.patience < 1 or self.gas_ppm < PPM:
            raise ValueError("patience is at least one block, gas at least the estimate")


def cautious(hint: Fees, head_base: Wei) -> Fees:
    """Return the market, its base fee not below that of the agreed head: endpoints only hint."""
    return Fees(max(hint.base, head_base), hint.tip)


def first(schedule: Schedule, market: Fees) -> Offer:
    """Return the opening offer."""
    tip = max(ppm_ceil(market.tip, schedule.tip_ppm), schedule.tip_floor)
    return Offer(Wei(tip), Wei(ppm_ceil(market.base, schedule.headroom_ppm) + tip))


def bump(schedule: Schedule, market: Fees, last: Offer) -> Offer:
    """Return an offer that nodes accept in place of the last one."""
    fresh = first(schedule, market)
    tip = max(fresh.tip, ppm_ceil(last.tip, schedule.bump_ppm))
    return Offer(Wei(tip), Wei(max(fresh.max_fee, ppm_ceil(last.max_fee, schedule.bump_ppm), tip)))


def least_bump(schedule: Schedule, last: Offer) -> Offer:
    """Return the smallest offer that nodes accept in place of the last one."""
    tip, fee = (ppm_ceil(each, schedule.bump_ppm) for each in (last.tip, last.max_fee))
    return Offer(Wei(tip), Wei(max(tip, fee)))


def within(offer: Offer, gas: int, cap: int, market: Fees) -> Offer | None:
    """Return the offer lowered to the cap, or None if the cap could not be mined now.

    A transaction below the base fee would only hold its nonce, and everything behind it.
    """
    limit = cap // gas
    if limit < market.base + offer.tip:
        return None
    return Offer(offer.tip, Wei(min(offer.max_fee, limit)))
