"""A market that answers back: accounts that move with prices, tasks that open, closes that settle.

    price tick ─▶ accounts near their limit ─▶ view (numbers, open tasks) ─▶ policy
    award ─▶ after `delay` ticks: still short? ─▶ legs change, profit and bad debt are booked

All accounts are computed at every tick, exactly, as integer columns; only those near their limit
are shown to the policy.

    perp     E = Σ (size·p + quote) + cash         R = Σ |size|·p·margin
    lending  E = Σ C·p·LT − Σ D·p                   R = 0,  health = ΣC·LT / ΣD
"""

import hashlib
from dataclasses import dataclass, field

import msgspec
import numpy as np

from keeper.units import PPM, ceil_div
from policies import api, sizing
from policies.api import COLLATERAL, DEBT, PERP, Account, Leg, MarketView, Task, Wide
from policies.columns import Columns

TARGET_PPM = 1_020_000
"""A perp task closes what restores this health, as the venue's certificate would bound it."""
GRACE_TICKS = 30
"""Ticks an account may owe more than it has before the insurance fund takes it over."""


@dataclass(slots=True)
class Holder:
    """One account: its legs, whether a task is open, and how many it has had."""

    id: bytes
    legs: dict[tuple[bytes, bytes, int], Leg]
    packed: bytes = b""
    opened: int = 0
    broken_ticks: int = 0
    """Ticks with less than nothing left."""
    tasks: dict[bytes, Task] = field(default_factory=dict)
    """venue + market → the open task."""


@dataclass(frozen=True, slots=True)
class Margin:
    """An account at the current prices, µUSD; `worth` has no thresholds: below 0 is bad debt."""

    equity: int
    requirement: int
    debt: int
    worth: int


def health_ppm(equity: int, requirement: int, debt: int) -> int:
    """Return equity over requirement, or weighted collateral over debt, in ppm."""
    if requirement:
        return equity * PPM // requirement
    return (equity + debt) * PPM // debt if debt else PPM * PPM


@dataclass(frozen=True, slots=True)
class Settled:
    """What one execution did; `profit` is after slippage and gas, before the price."""

    profit: int
    volume: int
    healed: bool


class World:
    """The market of one backtest run.

    Invariants: legs change only in `settle` and when the insurance fund takes an account over; a
    task stays open until its account is healthy.
    """

    def __init__(self, start: MarketView) -> None:
        self.start = start
        self.decimals = {one.market: one.decimals for one in start.prices}
        self.markets = tuple(sorted(self.decimals))
        self.prices = {one.market: one.price for one in start.prices}
        self.templates = {(one.venue, one.market): one for one in start.tasks}
        self.thresholds = {
            (task.venue, term.asset): term.threshold_ppm
            for task in start.tasks
            for term in task.terms
            if term.asset != task.market
        }
        self.margins = {
            (task.venue, task.market): task.terms[0].threshold_ppm
            for task in start.tasks
            if task.terms[0].asset == task.market
        }
        self.holders = [
            Holder(one.account, {(x.venue, x.market, x.kind): x for x in api.legs_of(one)})
            for one in start.accounts
        ]
        self._index = {one.id: index for index, one in enumerate(self.holders)}
        self._columns = Columns(sum(len(one.legs) for one in self.holders), len(self.holders))
        for index, holder in enumerate(self.holders):
            before = self._columns.starts[-1] + self._width if index else 0
            self._columns.starts.append(before)
            self._width = len(holder.legs)
            self._relevel(index)
        self.bad_debt = 0
        self.insured = 0
        self.now_ms = start.now_ms
        self.number = start.view

    _width = 0

    def _relevel(self, index: int) -> None:
        """Write an account's legs into the columns."""
        holder = self.holders[index]
        for row, leg in enumerate(holder.legs.values(), self._columns.starts[index]):
            self._columns.put(
                row,
                leg,
                self.decimals[leg.market],
                self.thresholds.get((leg.venue, leg.market), PPM)
                if leg.kind == COLLATERAL
                else PPM,
                self.margins.get((leg.venue, leg.market), 0),
                self.markets.index(leg.market),
            )
        holder.packed = api.pack_legs(list(holder.legs.values()))

    def margin(self, holder: Holder) -> Margin:
        """Return an account's numbers at the current prices."""
        equity = requirement = debt = worth = 0
        for leg in holder.legs.values():
            price, decimals = self.prices[leg.market], self.decimals[leg.market]
            if leg.kind == PERP:
                value = sizing.value_floor(leg.size, price, decimals) + leg.quote
                equity, worth = equity + value, worth + value
                notional = sizing.value_ceil(abs(leg.size), price, decimals)
                requirement += ceil_div(notional * self.margins[leg.venue, leg.market], PPM)
            elif leg.kind == COLLATERAL:
                value = sizing.value_floor(leg.size, price, decimals)
                worth += value
                equity += value * self.thresholds.get((leg.venue, leg.market), PPM) // PPM
            else:
                value = sizing.value_ceil(leg.size, price, decimals)
                debt, equity, worth = debt + value, equity - value, worth - value
        return Margin(equity, requirement, debt, worth)

    def margins_now(self) -> list[Margin]:
        """Return every account's numbers at the current prices, from the columns."""
        equity, need, debt, worth, _ = self._sums()
        return [Margin(*row) for row in zip(equity, need, debt, worth, strict=True)]

    def _sums(self) -> list[list[int]]:
        prices = np.array([self.prices[market] for market in self.markets], dtype=np.int64)
        return self._columns.sums(prices)

    def tick(self, at_ms: int, prices: tuple[tuple[bytes, int], ...]) -> MarketView:
        """Move to the next prices and return what a policy is shown."""
        self.now_ms = at_ms
        self.number += 1
        self.prices.update(prices)
        equity, need, debt, worth, near = self._sums()
        rows: list[Account] = []
        tasks: list[Task] = []
        deficit = 0
        for index in near:
            holder = self.holders[index]
            if worth[index] < 0 or holder.broken_ticks:
                deficit -= min(0, worth[index])
                if self._insured(index, worth[index]):
                    deficit += worth[index]
                    continue
            if equity[index] < need[index]:
                margin = Margin(equity[index], need[index], debt[index], worth[index])
                self._open_tasks(holder, margin)
                tasks.extend(holder.tasks.values())
            elif holder.tasks:
                holder.tasks.clear()
            rows.append(
                Account(
                    holder.id,
                    equity[index],
                    2 * need[index],
                    need[index],
                    need[index],
                    health_ppm(equity[index], need[index], debt[index]),
                    holder.packed,
                )
            )
        self.bad_debt = self.insured + deficit
        return msgspec.structs.replace(
            self.start,
            view=self.number,
            now_ms=at_ms,
            seed=self.number,
            accounts=tuple(rows),
            prices=tuple(
                api.Price(market, self.prices[market], self.decimals[market], 0)
                for market in self.markets
            ),
            tasks=tuple(tasks),
        )

    def worth(self) -> int:
        """Return what all accounts own together, µUSD."""
        return sum(self._sums()[3])

    def _insured(self, index: int, worth: int) -> bool:
        """Let the insurance fund take over an account that owed too much for too long."""
        holder = self.holders[index]
        holder.broken_ticks = holder.broken_ticks + 1 if worth < 0 else 0
        if holder.broken_ticks <= GRACE_TICKS:
            return False
        self.insured -= worth
        for key, leg in holder.legs.items():
            holder.legs[key] = msgspec.structs.replace(leg, size=0, quote=0)
        holder.tasks.clear()
        holder.broken_ticks = 0
        self._relevel(index)
        return True

    def _open_tasks(self, holder: Holder, margin: Margin) -> None:
        change = msgspec.structs.replace
        for leg in holder.legs.values():
            template = self.templates.get((leg.venue, leg.market))
            if template is None or not leg.size or leg.kind == COLLATERAL:
                continue
            key = leg.venue + leg.market
            if key not in holder.tasks:
                holder.opened += 1
                name = holder.id + key + holder.opened.to_bytes(8, "big")
                digest = hashlib.blake2b(name, digest_size=32).digest()
                holder.tasks[key] = change(template, task=digest, account=holder.id)
            if leg.kind == PERP:
                most = self._target_size(leg, margin, template)
                holder.tasks[key] = change(holder.tasks[key], max_size=Wide(most))

    def _target_size(self, leg: Leg, margin: Margin, task: Task) -> int:
        price, decimals = self.prices[leg.market], self.decimals[leg.market]
        value = sizing.least_close(
            margin.equity,
            margin.requirement,
            sizing.value_ceil(abs(leg.size), price, decimals),
            self.margins[leg.venue, leg.market],
            task.terms[0].bonus_ppm,
            TARGET_PPM,
        )
        return min(abs(leg.size), sizing.size_for(value, price, decimals))

    def slippage(self, market: bytes, size: int) -> int:
        """Return ppm lost by selling a size on the deepest curve; all of it beyond the curve."""
        impacts = [
            sizing.impact_ppm(curve.points, size)
            for curve in self.start.depth
            if curve.market == market
        ]
        known = [impact for impact in impacts if impact is not None]
        if known:
            return min(known)
        return PPM if impacts else 0

    def gas_cost(self, task: Task) -> int:
        """Return µUSD of one execution."""
        for gas in self.start.gas:
            if gas.chain == task.chain:
                return ceil_div(task.gas_units * gas.price_wei * gas.coin_price, 10**20)
        return 0

    def settle(self, task: Task, size: int) -> Settled | None:
        """Execute a close at the current prices; None when the account has healed."""
        index = self._index[task.account]
        holder = self.holders[index]
        margin = self.margin(holder)
        if margin.equity >= margin.requirement or not holder.tasks:
            return None
        kind = PERP if (task.venue, task.market) in self.margins else DEBT
        leg = holder.legs.get((task.venue, task.market, kind))
        if leg is None or not leg.size:
            return None
        allowed = min(int(task.max_size), ceil_div(abs(leg.size) * task.close_ppm, PPM))
        size = min(size, abs(leg.size), allowed)
        act = self._close if kind == PERP else self._seize
        gross = act(holder, task, leg, size)
        self._relevel(index)
        after = self.margin(holder)
        healed = after.equity >= after.requirement
        if healed:
            holder.tasks.clear()
        price, decimals = self.prices[task.market], self.decimals[task.market]
        volume = sizing.value_floor(size, price, decimals)
        return Settled(gross - self.gas_cost(task), volume, healed)

    def _close(self, holder: Holder, task: Task, leg: Leg, size: int) -> int:
        price, decimals = self.prices[task.market], self.decimals[task.market]
        value = sizing.value_floor(size, price, decimals)
        bonus = value * task.terms[0].bonus_ppm // PPM
        side = 1 if leg.size > 0 else -1
        key = (leg.venue, leg.market, PERP)
        holder.legs[key] = msgspec.structs.replace(
            leg, size=leg.size - side * size, quote=leg.quote + side * value - bonus
        )
        return bonus

    def _seize(self, holder: Holder, task: Task, leg: Leg, size: int) -> int:
        """Repay and take the collateral that brings most, sold along its depth."""
        paid = sizing.value_ceil(size, self.prices[task.market], self.decimals[task.market])
        best: tuple[int, Leg, int] | None = None
        for term in task.terms:
            held = holder.legs.get((task.venue, term.asset, COLLATERAL))
            if held is None or not held.size:
                continue
            price, decimals = self.prices[term.asset], self.decimals[term.asset]
            owed = paid * (PPM + term.bonus_ppm) // PPM
            seized = min(held.size, sizing.size_within(owed, price, decimals))
            worth = sizing.value_floor(seized, price, decimals)
            gain = worth - ceil_div(worth * self.slippage(term.asset, seized), PPM) - paid
            if best is None or gain > best[0]:
                best = (gain, held, seized)
        if best is None:
            return -paid
        gain, held, seized = best
        change = msgspec.structs.replace
        holder.legs[held.venue, held.market, COLLATERAL] = change(held, size=held.size - seized)
        holder.legs[leg.venue, leg.market, DEBT] = change(leg, size=leg.size - size)
        return gain

    def best_profit(self, task: Task) -> int:
        """Return the most one execution of a task could bring now, at no price."""
        holder = self.holders[self._index[task.account]]
        lending = (task.venue, task.market) not in self.margins
        leg = holder.legs.get((task.venue, task.market, DEBT if lending else PERP))
        if leg is None:
            return 0
        allowed = min(int(task.max_size), ceil_div(abs(leg.size) * task.close_ppm, PPM))
        price, decimals = self.prices[task.market], self.decimals[task.market]
        value = sizing.value_floor(min(abs(leg.size), allowed), price, decimals)
        if not lending:
            return value * task.terms[0].bonus_ppm // PPM - self.gas_cost(task)
        best = 0
        for part in (value, value // 2, value // 4, value // 8):
            for term in task.terms:
                held = holder.legs.get((task.venue, term.asset, COLLATERAL))
                if held is None:
                    continue
                owed = part * (PPM + term.bonus_ppm) // PPM
                sold = sizing.size_within(owed, self.prices[term.asset], self.decimals[term.asset])
                sold = min(sold, held.size)
                worth = sizing.value_floor(sold, self.prices[term.asset], self.decimals[term.asset])
                lost = ceil_div(worth * self.slippage(term.asset, sold), PPM)
                best = max(best, worth - lost - part)
        return best - self.gas_cost(task)
