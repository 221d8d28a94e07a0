"""Netting: intents that cancel are paid where they meet, and only the rest has to move.

    intents (from, to, amount) ──▶ largest circulation ──▶ netted part of each + what is left
    1→2: 10, 2→3: 8, 3→1: 9        8 round the cycle       1→2: 2, 3→1: 1

A linear programme: maximise Σ y with 0 ≤ y ≤ amount and, at each chain, as much in as out. The
matrix is a network's, so whole amounts have a whole answer; it is rounded and checked again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from keeper.units import ChainId


@dataclass(frozen=True, slots=True)
class Intent:
    """Somebody wants an amount of one asset moved."""

    origin: ChainId
    destination: ChainId
    amount: int


def net(intents: Sequence[Intent]) -> tuple[int, ...]:
    """Return how much of each intent cancels against others; every chain's sum is zero."""
    if not intents:
        return ()
    chains = sorted({chain for one in intents for chain in (one.origin, one.destination)})
    row = {chain: at for at, chain in enumerate(chains)}
    many = len(intents)
    columns = np.tile(np.arange(many), 2)
    rows = [row[one.destination] for one in intents] + [row[one.origin] for one in intents]
    signs = np.repeat((1.0, -1.0), many)
    matrix = sparse.csr_matrix((signs, (rows, columns)), shape=(len(chains), many))
    unit = max(max(one.amount for one in intents), 1)
    found = linprog(
        -np.ones(many),
        A_eq=matrix,
        b_eq=np.zeros(len(chains)),
        bounds=[(0.0, max(one.amount, 0) / unit) for one in intents],
        method="highs-ds",
    )
    if found.x is None:
        return (0,) * many
    amounts = [
        min(max(round(float(share) * unit), 0), max(one.amount, 0))
        for share, one in zip(found.x, intents, strict=True)
    ]
    return _balanced(intents, amounts)


def _balanced(intents: Sequence[Intent], amounts: list[int]) -> tuple[int, ...]:
    """Return amounts lowered until every chain's sum is exactly zero.

    Rounding leaves single units over. A unit too much into a chain is taken from an intent into
    it, which moves the surplus to that intent's origin; surpluses so travel until they cancel.
    """
    for _ in range(64 * len(amounts)):
        over: dict[ChainId, int] = {}
        for one, amount in zip(intents, amounts, strict=True):
            over[one.destination] = over.get(one.destination, 0) + amount
            over[one.origin] = over.get(one.origin, 0) - amount
        chain = min((chain for chain, extra in over.items() if extra > 0), default=None)
        if chain is None:
            return tuple(amounts)
        place = max(
            (at for at, one in enumerate(intents) if one.destination == chain and amounts[at]),
            key=lambda at: (over[intents[at].origin] < 0, amounts[at]),
        )
        amounts[place] -= min(over[chain], amounts[place])
    return (0,) * len(amounts)
