"""Who pays when an account ends below zero: insurance first, then winners pro rata.

    bad debt ──▶ insurance fund ──▶ auto-deleverage: shares of positive unrealised profit ──▶ rest

Pro rata on positive unrealised profit is the one fair rule (a queue takes far more than is missing
from whoever is first). Shares are floored and the rest goes by largest remainder, ties by account
id, so they add up to the unit and every keeper finds the same ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Absorbed:
    """How a bad debt was covered, µUSD; the parts add up to it.

    Args:
        shares: by account, in account order; no zero among them.
        uncovered: what nobody could pay.
    """

    insurance: int
    shares: tuple[tuple[bytes, int], ...]
    uncovered: int


def pro_rata(amount: int, profits: Mapping[bytes, int]) -> dict[bytes, int]:
    """Return how an amount is taken from positive profits; no share exceeds its profit.

    Args:
        amount: µUSD; what exceeds the sum of profits is not taken.
        profits: unrealised profit by account; others than positive ones take no part.

    Raises:
        ValueError: the amount is negative.
    """
    if amount < 0:
        raise ValueError(f"cannot share a negative amount {amount}")
    winners = {account: profit for account, profit in sorted(profits.items()) if profit > 0}
    total = sum(winners.values())
    amount = min(amount, total)
    if amount == 0:
        return {}
    shares = {account: amount * profit // total for account, profit in winners.items()}
    missing = amount - sum(shares.values())
    by_remainder = sorted(winners, key=lambda a: (-(amount * winners[a] % total), a))
    for account in by_remainder[:missing]:
        shares[account] += 1
    return {account: share for account, share in shares.items() if share}


def absorb(bad_debt: int, insurance: int, profits: Mapping[bytes, int]) -> Absorbed:
    """Return who pays a bad debt.

    Raises:
        ValueError: the bad debt or the fund is negative.
    """
    if bad_debt < 0 or insurance < 0:
        raise ValueError("a bad debt and an insurance fund are not negative")
    paid = min(bad_debt, insurance)
    shares = pro_rata(bad_debt - paid, profits)
    uncovered = bad_debt - paid - sum(shares.values())
    return Absorbed(paid, tuple(sorted(shares.items())), uncovered)
