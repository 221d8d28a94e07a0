"""Who gets what of a task's price, and of the pools that collect it.

    price ─▶ insurance 60 │ committee 15 │ consistency 15 │ protocol 10        the venue splits it
    committee pool   ─▶ members by the views they took part in                  bitmaps
    consistency pool ─▶ keepers by executions that their awards promised        success

Participation counts the signers of certificates, or the members whose observations a payload
carries: both are bit sets over member indices. All shares are integers that sum to the whole.
Source: docs/competition.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from keeper.parameters import CompetitionParameters
from keeper.units import PPM


@dataclass(frozen=True, slots=True)
class Split:
    """One price in four parts, µUSD; the insurance takes what rounding leaves."""

    insurance: int
    committee: int
    consistency: int
    protocol: int


def split(price: int, rules: CompetitionParameters) -> Split:
    """Return the parts of a price: three floored, the rest to insurance, as the venue does it."""
    committee = price * rules.committee_ppm // PPM
    consistency = price * rules.consistency_ppm // PPM
    protocol = price * rules.protocol_ppm // PPM
    return Split(price - committee - consistency - protocol, committee, consistency, protocol)


def participation(bitmaps: Iterable[int], size: int) -> tuple[int, ...]:
    """Return per member in how many bit sets it is; bits beyond the committee are ignored."""
    counts = [0] * size
    for bitmap in bitmaps:
        for member in range(size):
            counts[member] += bitmap >> member & 1
    return tuple(counts)


def gas_refund(spent: int, allowed: int, bonus: int) -> int:
    """Return a winner's refund, µUSD: its cost plus half of what it saved, at most the bonus.

    Args:
        spent: what its transaction cost.
        allowed: what the network allows for one.
        bonus: bound of any refund.
    """
    saved = max(0, allowed - spent)
    return min(bonus, min(spent, allowed) + saved // 2)


def pool_shares(amount: int, weights: Mapping[bytes, int]) -> dict[bytes, int]:
    """Return keeper → share of a pool by weight; what rounding leaves stays in the pool."""
    total = sum(weight for weight in weights.values() if weight > 0)
    if total == 0:
        return {}
    return {
        keeper: amount * weight // total for keeper, weight in sorted(weights.items()) if weight > 0
    }


def consistency(results: Sequence[tuple[bytes, bool]]) -> dict[bytes, int]:
    """Return keeper → weight: executions squared over awards, so that one miss costs twice.

    Args:
        results: (winner, whether it executed itself) per ended award.
    """
    awarded: dict[bytes, int] = {}
    done: dict[bytes, int] = {}
    for keeper, executed in results:
        awarded[keeper] = awarded.get(keeper, 0) + 1
        done[keeper] = done.get(keeper, 0) + executed
    return {keeper: done[keeper] ** 2 * PPM // count for keeper, count in sorted(awarded.items())}
