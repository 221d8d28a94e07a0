"""The best mixture of trades already found: what is left between two routers' answers.

    per pool: trades of the conic router, and best responses at each answer's prices
    weights λ ≥ 0, Σ λ ≤ 1 per pool ─▶ linear programme: most worth, tokens and limits balanced

What a pool can do is convex, so every mixture of its trades is one of its trades. Each answer is a
little off in another place; the mixture takes the best of each, and its error is the square.
"""

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from keeper.route.banks import Floats, Lanes, Places
from keeper.route.cfmm import Market

_TOLERANCE = 1e-10


def blend(market: Market, answers: Sequence[tuple[Floats, ...]]) -> tuple[Floats, ...] | None:
    """Return the best mixture of some answers' flows, or None if the solver finds none."""
    pools = sum(bank.tokens.shape[1] for bank in market.banks)
    columns = pools * len(answers)
    entries: list[Floats] = []
    rows, places = [], []
    loads, groups, loaded = [], [], []
    first = 0
    for place, bank in enumerate(market.banks):
        many = bank.tokens.shape[1]
        for at, flows in enumerate(answers):
            column = at * pools + first + np.arange(many)
            flow = flows[place]
            entries.append(flow.ravel())
            rows.append(bank.tokens.ravel())
            places.append(np.broadcast_to(column, flow.shape).ravel())
            if isinstance(bank, Lanes):
                limited = np.flatnonzero(bank.group >= 0)
                loads.append((-flow[0] * bank.load)[limited])
                groups.append(bank.group[limited])
                loaded.append(column[limited])
        first += many
    net = _matrix(entries, rows, places, (market.size, columns))
    unit = abs(net).max(axis=1).toarray().ravel()
    unit[unit <= 0] = 1.0
    parts = [-sparse.diags(1.0 / unit) @ net, sparse.hstack([sparse.eye(pools)] * len(answers))]
    limits = [market.held / unit, np.ones(pools)]
    if len(market.limits):
        full = np.where(market.limits > 0, market.limits, 1.0)
        used = _matrix(loads, groups, loaded, (len(full), columns))
        parts.append(sparse.diags(1.0 / full) @ used)
        limits.append(market.limits / full)
    worth = net.T @ market.worth
    found = linprog(
        -worth / (float(np.abs(worth).max(initial=0.0)) or 1.0),
        A_ub=sparse.vstack(parts),
        b_ub=np.concatenate(limits),
        method="highs",
        options={
            "primal_feasibility_tolerance": _TOLERANCE,
            "dual_feasibility_tolerance": _TOLERANCE,
        },
    )
    if found.x is None:
        return None
    weights = np.maximum(found.x, 0.0).reshape(len(answers), pools)
    weights /= np.maximum(weights.sum(axis=0), 1.0)
    mixed, first = [], 0
    for place, bank in enumerate(market.banks):
        share = weights[:, first : first + bank.tokens.shape[1]]
        mixed.append(sum(part * flows[place] for part, flows in zip(share, answers, strict=True)))
        first += bank.tokens.shape[1]
    return tuple(np.asarray(one) for one in mixed)


def _matrix(
    entries: Sequence[Floats],
    rows: Sequence[Places],
    columns: Sequence[Places],
    shape: tuple[int, int],
) -> sparse.csr_matrix:
    if not entries:
        return sparse.csr_matrix(shape)
    where = (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix((np.concatenate(entries), where), shape=shape)
