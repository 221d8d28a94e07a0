"""Sharing an amount pro rata, in integers, the same for every keeper.

    share = ⌊amount · weight / Σ weights⌋, then one unit each to the largest remainders

Ties go to the smaller account id. The shares sum to the amount exactly, or to Σ weights where the
amount is larger: nobody is asked for more than its weight.
"""

from collections.abc import Mapping


def pro_rata(amount: int, weights: Mapping[bytes, int]) -> dict[bytes, int]:
    """Return account → share, sorted by account.

    Args:
        amount: what is shared, ≥ 0.
        weights: positive weights.
    """
    total = sum(weights.values())
    if amount >= total:
        return dict(sorted(weights.items()))
    shares = {}
    remainders = []
    for account in sorted(weights):
        share, remainder = divmod(amount * weights[account], total)
        shares[account] = share
        remainders.append((-remainder, account))
    for _, account in sorted(remainders)[: amount - sum(shares.values())]:
        shares[account] += 1
    return shares
