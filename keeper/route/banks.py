"""Best responses of many pools at once: given prices, what each pool would be traded for.

    prices ν ──▶ one bank per kind of pool ──▶ flows f = Λ − Δ of every (pool, token)
                                               Σ ν·f is the profit: the pools' part of the dual

A pool's best response is closed form. With D the log of how far the pool's price is from ν's, and
the fee's g = −ln γ, a pool stands still while |D| ≤ g: the soft threshold S = sign(D)·max(|D|−g, 0)
says which way and how far. `Curves` do it with one square root instead (x = √(kν₂/ν₁), clipped).
A tick range is a product over shifted reserves whose path ends where the range is empty.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from keeper.route.pools import Bridge, Concentrated, Pool, Product, Total, Weighted

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Curves:
    """Products and tick ranges: x₁x₂ = k over (shifted) reserves, x₁ kept in [low, high].

    `mean` is √k, `up` is √γ, `down` its inverse, and `fee` 1/γ − 1.
    """

    tokens: Places
    pools: Places
    first: Floats
    second: Floats
    gamma: Floats
    mean: Floats
    up: Floats
    down: Floats
    fee: Floats
    low: Floats | None
    high: Floats | None

    def respond(self, prices: Floats, loads: Floats) -> Floats:
        """Return the best flows: x₁ is the nearest point of [√(γkν₂/ν₁), √(kν₂/(γν₁))] to R₁."""
        del loads
        roots = np.sqrt(prices)
        mid = roots.take(self.tokens[1])
        mid *= (1.0 / roots).take(self.tokens[0])
        mid *= self.mean
        after = mid * self.up
        mid *= self.down
        np.maximum(after, self.first, out=after)
        np.minimum(after, mid, out=after)
        if self.low is not None and self.high is not None:
            np.maximum(after, self.low, out=after)
            np.minimum(after, self.high, out=after)
        flows = np.empty((2, len(after)))
        np.subtract(self.first, after, out=flows[0])
        np.divide(flows[0], after, out=flows[1])
        flows[1] *= -self.second
        return _charged(flows, self.fee)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Weighted pools of two tokens.

    `powers` are (w₂, −w₁), `spot` the log of what the pool asks, `still` −ln γ, `fee` 1/γ − 1.
    """

    tokens: Places
    pools: Places
    reserves: Floats
    shares: Floats
    powers: Floats
    spot: Floats
    gamma: Floats
    still: Floats
    fee: Floats

    def respond(self, prices: Floats, loads: Floats) -> Floats:
        """Return the best flows; pools within their fee stand still exactly."""
        del loads
        logs = np.log(prices)
        far = logs.take(self.tokens[1])
        far -= logs.take(self.tokens[0])
        far += self.spot
        near = np.minimum(far, self.still)
        np.maximum(near, -self.still, out=near)
        far -= near
        flows = self.powers * far
        np.expm1(flows, out=flows)
        flows *= -self.reserves
        return _charged(flows, self.fee)


@dataclass(frozen=True, slots=True)
class Means:
    """Weighted pools of one number of tokens above two.

    The reserves after are clip(R, κγw/ν, κw/ν). In s = ln κ the invariant is piecewise linear and
    rising, so κ is exact after sorting the 2n corners.
    """

    tokens: Places
    pools: Places
    reserves: Floats
    shares: Floats
    gamma: Floats
    fee: Floats

    def respond(self, prices: Floats, loads: Floats) -> Floats:
        """Return the best flows of each pool."""
        del loads
        still = -np.log(self.gamma)
        base = np.log(self.shares) - np.log(prices)[self.tokens] - np.log(self.reserves)
        corners = np.sort(np.concatenate((-base, still - base)), axis=0)
        levels = np.stack([self._level(base, still, corner) for corner in corners])
        above = np.clip(np.argmax(levels >= 0, axis=0), 1, len(corners) - 1)
        column = np.arange(corners.shape[1])
        left, right = corners[above - 1, column], corners[above, column]
        low, high = levels[above - 1, column], levels[above, column]
        rise = np.where(high > low, high - low, 1.0)
        kappa = left + (right - left) * np.clip(-low / rise, 0.0, 1.0)
        shift = self._shift(base, still, kappa)
        return _charged(-self.reserves * np.expm1(shift), self.fee)

    def _shift(self, base: Floats, still: Floats, kappa: Floats) -> Floats:
        full: Floats = np.clip(0.0, kappa + base - still, kappa + base)
        return full

    def _level(self, base: Floats, still: Floats, kappa: Floats) -> Floats:
        level: Floats = (self.shares * self._shift(base, still, kappa)).sum(axis=0)
        return level


@dataclass(frozen=True, slots=True)
class Totals:
    """Constant sums: all of the dearer token, or nothing."""

    tokens: Places
    pools: Places
    reserves: Floats
    gamma: Floats

    def respond(self, prices: Floats, loads: Floats) -> Floats:
        """Return the best flows."""
        del loads
        first, second = prices[self.tokens]
        flows = np.zeros(self.reserves.shape)
        buy, sell = second * self.gamma > first, first * self.gamma > second
        flows[0, sell], flows[1, buy] = self.reserves[0, sell], self.reserves[1, buy]
        flows[0, buy] = -(self.reserves[1] / self.gamma)[buy]
        flows[1, sell] = -(self.reserves[0] / self.gamma)[sell]
        return flows


@dataclass(frozen=True, slots=True)
class Lanes:
    """Bridges: as much as the marginal gain still pays for."""

    tokens: Places
    pools: Places
    gain: Floats
    capacity: Floats
    curvature: Floats
    group: Places
    load: Floats

    def respond(self, prices: Floats, loads: Floats) -> Floats:
        """Return the best flows; a lane of a limited group also pays the limit's price."""
        paid, got = prices[self.tokens]
        if len(loads):
            paid = paid + np.where(self.group >= 0, loads[self.group] * self.load, 0.0)
        margin = self.gain - paid / got
        linear = np.isinf(self.curvature)
        kappa = np.where(linear, 0.0, self.curvature)
        sent = np.clip(
            np.where(linear, np.where(margin > 0, self.capacity, 0.0), kappa * margin),
            0.0,
            self.capacity,
        )
        return np.stack((-sent, self.carried(sent)))

    def carried(self, sent: Floats) -> Floats:
        """Return what comes out."""
        out: Floats = self.gain * sent - np.where(
            np.isinf(self.curvature), 0.0, sent * sent / (2.0 * self.curvature)
        )
        return out


Bank = Curves | Pairs | Means | Totals | Lanes
"""Pools of one kind, as columns: `tokens` of (slot, pool), `pools` their place in the problem."""


def _charged(flows: Floats, fee: Floats) -> Floats:
    """Add the fee to what is tendered, in place, and return the flows."""
    flows += flows * ((flows < 0) * fee)
    return flows


def banks_of(pools: Iterable[Pool]) -> tuple[Bank, ...]:
    """Return the pools as columns, each kind in a bank of its own.

    Raises:
        ValueError: a pool has a reserve, weight, fee or capacity that no pool can have.
    """
    curves: list[tuple[float, ...]] = []
    pairs: list[tuple[int, Weighted]] = []
    means: dict[int, list[tuple[int, Weighted]]] = {}
    totals: list[tuple[int, Total]] = []
    lanes: list[tuple[int, Bridge]] = []
    for place, pool in enumerate(pools):
        _check(place, pool)
        match pool:
            case Product():
                curves.append((*pool.tokens, place, *pool.reserves, pool.gamma, 0.0, math.inf))
            case Concentrated():
                curves += _ranges(place, pool)
            case Weighted():
                many = len(pool.tokens)
                (pairs if many == 2 else means.setdefault(many, [])).append((place, pool))
            case Total():
                totals.append((place, pool))
            case Bridge():
                lanes.append((place, pool))
    made: list[Bank] = [_curves(curves)] if curves else []
    if pairs:
        made.append(_pairs(pairs))
    made += [_means(rows) for _, rows in sorted(means.items())]
    if totals:
        made.append(
            Totals(
                _tokens(totals),
                _places(totals),
                np.array([pool.reserves for _, pool in totals]).T.copy(),
                np.array([pool.gamma for _, pool in totals]),
            )
        )
    if lanes:
        made.append(
            Lanes(
                _tokens(lanes),
                _places(lanes),
                np.array([pool.gain for _, pool in lanes]),
                np.array([pool.capacity for _, pool in lanes]),
                np.array([pool.curvature for _, pool in lanes]),
                np.array([pool.group for _, pool in lanes], dtype=np.int64),
                np.array([pool.load for _, pool in lanes]),
            )
        )
    return tuple(made)


def _check(place: int, pool: Pool) -> None:
    if isinstance(pool, Bridge):
        fine = pool.gain > 0 and pool.capacity >= 0 and pool.curvature > 0 and pool.load >= 0
    else:
        fine = 0 < pool.gamma <= 1
        if not isinstance(pool, Concentrated):
            fine = fine and all(0 < amount < math.inf for amount in pool.reserves)
        if isinstance(pool, Weighted):
            fine = fine and all(weight > 0 for weight in pool.weights)
    if not fine or len(set(pool.tokens)) != len(pool.tokens):
        raise ValueError(f"pool {place} cannot exist: {pool}")


def _ranges(place: int, pool: Concentrated) -> list[tuple[float, ...]]:
    """Return each range as (tokens, place, shifted reserves, γ, bounds of the first)."""
    rows: list[tuple[float, ...]] = []
    for part in pool.ranges:
        if part.liquidity <= 0 or not 0 < part.low < part.high:
            continue
        now = math.sqrt(min(max(pool.price, part.low), part.high))
        most = part.liquidity / math.sqrt(part.low)
        least = part.liquidity / math.sqrt(part.high)
        first = min(max(part.liquidity / now, least), most)
        rows.append(
            (
                *pool.tokens,
                place,
                first,
                part.liquidity * part.liquidity / first,
                pool.gamma,
                least,
                most,
            )
        )
    return rows


def _curves(rows: list[tuple[float, ...]]) -> Curves:
    table = np.array(rows)
    bounded = bool((table[:, 6] > 0).any())
    gamma = table[:, 5].copy()
    return Curves(
        table[:, :2].T.astype(np.int64).copy(),
        table[:, 2].astype(np.int64),
        table[:, 3].copy(),
        table[:, 4].copy(),
        gamma,
        np.sqrt(table[:, 3] * table[:, 4]),
        np.sqrt(gamma),
        1.0 / np.sqrt(gamma),
        1.0 / gamma - 1.0,
        table[:, 6].copy() if bounded else None,
        table[:, 7].copy() if bounded else None,
    )


def _pairs(rows: list[tuple[int, Weighted]]) -> Pairs:
    reserves = np.array([pool.reserves for _, pool in rows]).T.copy()
    weights = np.array([pool.weights for _, pool in rows]).T
    shares = weights / weights.sum(axis=0)
    gamma = np.array([pool.gamma for _, pool in rows])
    spot = np.log(shares[0] / shares[1]) - np.log(reserves[0] / reserves[1])
    powers = np.stack((shares[1], -shares[0]))
    still, fee = -np.log(gamma), 1.0 / gamma - 1.0
    return Pairs(_tokens(rows), _places(rows), reserves, shares, powers, spot, gamma, still, fee)


def _means(rows: list[tuple[int, Weighted]]) -> Means:
    weights = np.array([pool.weights for _, pool in rows]).T
    gamma = np.array([pool.gamma for _, pool in rows])
    return Means(
        _tokens(rows),
        _places(rows),
        np.array([pool.reserves for _, pool in rows]).T.copy(),
        weights / weights.sum(axis=0),
        gamma,
        1.0 / gamma - 1.0,
    )


def _tokens(rows: Iterable[tuple[int, Pool]]) -> Places:
    return np.array([pool.tokens for _, pool in rows], dtype=np.int64).T.copy()


def _places(rows: Iterable[tuple[int, Pool]]) -> Places:
    return np.array([place for place, _ in rows], dtype=np.int64)
