"""The dual router: one price per token decides every trade, and proves how good the trades are.

    maximise c·Ψ, Ψ + h ≥ 0        g(ν, θ) = (ν − c)·h + θ·limits + Σ pools' best profit at ν
    ───────────── primal           ──────────────────────────── dual: any ν ≥ c, θ ≥ 0 bounds it

L-BFGS-B walks g downhill; its gradient is h + Ψ(ν), the tokens left over, which is why the trades
at the best prices balance. Kinks (linear lanes, constant sums) stop it: `keeper.route.conic`.
Source: arXiv 2302.04938, sections 3 and 4; memory and stopping rule are scipy's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from keeper.route.banks import Bank, Curves, Floats, Lanes, Places, Totals, banks_of
from keeper.route.pools import Problem

GAP = 1e-7
"""Relative distance between a solution and its bound that counts as optimal."""
_MEMORY = 12
_ROUNDS = 2
_WAVES = 12


@dataclass(frozen=True, slots=True)
class Market:
    """A problem in columns; make it once, solve it often."""

    worth: Floats
    held: Floats
    limits: Floats
    banks: tuple[Bank, ...]

    @property
    def size(self) -> int:
        """Return the number of tokens."""
        return len(self.worth)

    def respond(self, prices: Floats, loads: Floats) -> tuple[Floats, ...]:
        """Return each bank's best flows."""
        return tuple(bank.respond(prices, loads) for bank in self.banks)

    def net(self, flows: tuple[Floats, ...]) -> Floats:
        """Return Ψ."""
        total = np.zeros(self.size)
        for bank, flow in zip(self.banks, flows, strict=True):
            total += np.bincount(bank.tokens.ravel(), flow.ravel(), self.size)
        return total

    def carried(self, flows: tuple[Floats, ...]) -> Floats:
        """Return how much of each limit the flows take."""
        used = np.zeros(len(self.limits))
        if not len(used):
            return used
        for bank, flow in zip(self.banks, flows, strict=True):
            if isinstance(bank, Lanes):
                limited = bank.group >= 0
                used += np.bincount(bank.group[limited], (-flow[0] * bank.load)[limited], len(used))
        return used

    def dual(self, prices: Floats, loads: Floats) -> tuple[float, Floats, Floats]:
        """Return g(ν, θ) and its gradient in ν and in θ."""
        flows = self.respond(prices, loads)
        slack = self.held + self.net(flows)
        room = self.limits - self.carried(flows)
        return float(prices @ slack - self.worth @ self.held + loads @ room), slack, room


@dataclass(frozen=True, slots=True)
class Solution:
    """Trades, and the prices that prove them.

    Args:
        value: c·Ψ of the trades, what is short of h charged at the prices.
        bound: g at the prices: no trade is worth more.
        prices, loads: ν and θ.
        flows: per bank, Λ − Δ in the shape of the bank's tokens.
        shortfall: most that any token is overspent, relative to what is moved of it.
        solver: which of the two found it.
    """

    value: float
    bound: float
    prices: Floats
    loads: Floats
    flows: tuple[Floats, ...]
    shortfall: float
    solver: str
    banks: tuple[Bank, ...]

    def by_pool(self) -> Iterator[tuple[int, list[int], list[float]]]:
        """Yield (pool, its tokens, its flows); a pool of several ranges comes in parts."""
        for bank, flow in zip(self.banks, self.flows, strict=True):
            tokens, flows = bank.tokens.T.tolist(), flow.T.tolist()
            yield from zip(bank.pools.tolist(), tokens, flows, strict=True)

    @property
    def gap(self) -> float:
        """Return how far the value may be below the best, relative to the bound."""
        return (self.bound - self.value) / max(abs(self.bound), 1e-300)


def market_of(problem: Problem) -> Market:
    """Return the problem in columns."""
    return Market(
        np.array(problem.worth, dtype=np.float64),
        np.array(problem.held, dtype=np.float64),
        np.array(problem.limits, dtype=np.float64),
        banks_of(problem.pools),
    )


def judge(
    market: Market, prices: Floats, loads: Floats, flows: tuple[Floats, ...], solver: str
) -> Solution:
    """Return trades with their value, their bound and what they overspend."""
    net = market.net(flows)
    short = np.maximum(-(net + market.held), 0.0)
    over = np.maximum(market.carried(flows) - market.limits, 0.0)
    moved = np.abs(market.held)
    for bank, flow in zip(market.banks, flows, strict=True):
        moved += np.bincount(bank.tokens.ravel(), np.abs(flow).ravel(), market.size)
    bound = market.dual(prices, loads)[0]
    return Solution(
        float(market.worth @ net - (prices - market.worth) @ short - loads @ over),
        bound,
        prices,
        loads,
        flows,
        float((short / np.maximum(moved, 1e-300)).max(initial=0.0)),
        solver,
        market.banks,
    )


def first_prices(market: Market) -> Floats:
    """Return prices to start from: worth where it is known, spot prices spreading from there."""
    prices = market.worth.copy()
    if (prices > 0).all():
        return prices
    for _ in range(_WAVES):
        known = prices > 0
        if known.all():
            break
        offers = np.zeros(market.size)
        for bank in market.banks:
            for bought, sold, rate in _rates(bank):
                usable = known[bought] & ~known[sold]
                np.maximum.at(offers, sold[usable], (rate * prices[bought])[usable])
        prices = np.where(known, prices, offers)
    if not (prices > 0).any():
        return np.ones(market.size)
    return np.where(prices > 0, prices, prices[prices > 0].min() * 1e-3)


def _rates(bank: Bank) -> list[tuple[Places, Places, Floats]]:
    """Return (token bought, token sold, bought per sold) of the spot trades of a bank."""
    if isinstance(bank, Lanes):
        return [(bank.tokens[1], bank.tokens[0], bank.gain)]
    if isinstance(bank, Curves):
        weighed = np.stack((bank.first, bank.second))
    elif isinstance(bank, Totals):
        weighed = np.ones(bank.reserves.shape)
    else:
        weighed = bank.reserves / bank.shares
    slots = range(len(bank.tokens))
    return [
        (bank.tokens[a], bank.tokens[b], weighed[a] / weighed[b])
        for a in slots
        for b in slots
        if a != b
    ]


def solve_dual(market: Market, start: Floats | None = None) -> Solution:
    """Return the dual router's trades; look at `gap` before trusting them."""
    from scipy.optimize import minimize  # when it is needed: 40 MB a keeper may do without

    tokens = market.size
    scale = first_prices(market) if start is None else start
    loads = np.full(len(market.limits), max(float(scale.max(initial=0.0)), 1e-300))
    units = np.concatenate((scale, loads))
    least = np.concatenate((np.maximum(market.worth / scale, 1e-9), np.zeros(len(loads))))
    point = np.maximum(np.concatenate((np.ones(tokens), np.zeros(len(loads)))), least)
    value, *_ = market.dual(scale, np.zeros(len(loads)))
    size = max(abs(value), float(scale @ np.abs(market.held)), 1e-300)

    def dual(where: Floats) -> tuple[float, Floats]:
        full = where * units
        found, slack, room = market.dual(full[:tokens], full[tokens:])
        return found / size, np.concatenate((slack, room)) * units / size

    best: Solution | None = None
    for _ in range(_ROUNDS):
        result = minimize(
            dual,
            point,
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(least, [None] * len(least), strict=True)),
            options={"maxcor": _MEMORY, "ftol": 1e-15, "gtol": 1e-11, "maxiter": 200},
        )
        point = result.x
        full = point * units
        prices, theta = np.maximum(full[:tokens], market.worth), full[tokens:]
        flows = market.respond(prices, theta)
        found = judge(market, prices, theta, flows, "dual")
        if best is None or abs(found.gap) < abs(best.gap):
            best = found
        if abs(found.gap) <= GAP / 10 or result.nit == 0:
            break
    assert best is not None
    return best
