"""All accounts of a backtest as integer columns: exact, and a few array operations a tick.

size · price as Horner's rule over limbs of base 10**6, floored at every limb = floored once
equity, requirement, debt, worth per account = segment sums over its legs
"""

from typing import Any

import numpy as np

from keeper.units import PPM
from policies.api import DEBT, PERP, Leg

LIMB = 10**6
NEAR_PPM = 200_000
"""Watched: equity below requirement + 20 % of requirement and debt, as the watch tree's 1.2."""


class Columns:
    """Legs of all accounts as int64 columns, so that one tick costs a few array operations.

    A size is held as four limbs of base 10**6 (18 decimals), because size · price does not fit 64
    bits: Horner's rule with a floor at every limb is the floor of the whole. Ceilings are floors of
    the negative. Amounts are exact up to 9·10**12 µUSD a leg.
    """

    def __init__(self, legs: int, accounts: int) -> None:
        self.starts: list[int] = []
        self.size = np.zeros((4, legs), dtype=np.int64)
        self.gross = np.zeros((4, legs), dtype=np.int64)
        self.quote = np.zeros(legs, dtype=np.int64)
        self.weight = np.zeros(legs, dtype=np.int64)
        self.margin = np.zeros(legs, dtype=np.int64)
        self.is_debt = np.zeros(legs, dtype=bool)
        self.place = np.zeros(legs, dtype=np.int64)
        self.accounts = accounts

    def put(self, row: int, leg: Leg, decimals: int, weight: int, margin: int, place: int) -> None:
        """Write one leg; a debt's size is held negative."""
        size = (-leg.size if leg.kind == DEBT else leg.size) * 10 ** (18 - decimals)
        self.size[:, row] = _limbs(size)
        self.gross[:, row] = _limbs(-abs(size) if leg.kind == PERP else 0)
        self.quote[row] = leg.quote
        self.weight[row], self.margin[row], self.place[row] = weight, margin, place
        self.is_debt[row] = leg.kind == DEBT

    def sums(self, prices: "np.ndarray[Any, np.dtype[np.int64]]") -> list[list[int]]:
        """Return [equity, requirement, debt, worth] per account, and the indices watched."""
        price = prices[self.place]
        value = _floors(self.size, price)
        worth = value + self.quote
        equity = np.where(self.weight == PPM, worth, value * self.weight // PPM)
        need = -(_floors(self.gross, price) * self.margin // PPM)
        debt = np.where(self.is_debt, -value, 0)
        table = np.add.reduceat(np.stack((equity, need, debt, worth)), self.starts, axis=1)
        band = PPM // NEAR_PPM
        near = band * (table[0] - table[1]) < table[1] + table[2]
        return [*(row.tolist() for row in table), np.flatnonzero(near).tolist()]


def _limbs(size: int) -> list[int]:
    limbs = []
    for _ in range(3):
        size, low = divmod(size, LIMB)
        limbs.append(low)
    return [*limbs, size]


def _floors(
    limbs: "np.ndarray[Any, np.dtype[np.int64]]", price: "np.ndarray[Any, np.dtype[np.int64]]"
) -> "np.ndarray[Any, np.dtype[np.int64]]":
    total: np.ndarray[Any, np.dtype[np.int64]] = limbs[0] * price
    for limb in limbs[1:]:
        total = limb * price + total // LIMB
    total //= 100
    return total
