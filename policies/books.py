"""Lookups over one view, and the guards every acting policy asks before it acts.

A guard answers with a sentence that says why not, or nothing. A missing price refuses: it never
skips the check it was needed for.
"""

from collections.abc import Collection

from keeper.units import ceil_div, symbol_text
from policies.api import (
    LEG_BYTES,
    Account,
    Depth,
    Gas,
    Holding,
    Leg,
    MarketView,
    Price,
    Task,
    leg_at,
)

LIQUIDATE_ACTION = 4
STOPPED = 2
EVERYWHERE = bytes(32)
WEI_PRICE = 10**20
"""wei · price (10**-8 USD) per µUSD: 10**18 · 10**8 / 10**6."""


class Books:
    """One view by key; built once per decision."""

    def __init__(self, view: MarketView) -> None:
        self.view = view
        wanted = {task.account for task in view.tasks}
        self.accounts: dict[bytes, Account] = {
            one.account: one for one in view.accounts if one.account in wanted
        }
        """Accounts that tasks are about."""
        self.prices: dict[bytes, Price] = {one.market: one for one in view.prices}
        self.gas: dict[int, Gas] = {one.chain: one for one in view.gas}
        self.depth: dict[tuple[int, bytes], list[Depth]] = {}
        for curve in view.depth:
            self.depth.setdefault((curve.chain, curve.market), []).append(curve)
        self.held: dict[tuple[int, bytes], Holding] = {
            (one.chain, one.asset): one for one in view.inventory
        }

    def gas_cost(self, chain: int, units: int) -> int | None:
        """Return µUSD of an execution on a chain, or None when its gas price is unknown."""
        gas = self.gas.get(chain)
        if gas is None:
            return None
        return ceil_div(units * gas.price_wei * gas.coin_price, WEI_PRICE)

    def free(self, chain: int, asset: bytes) -> int:
        """Return what is neither reserved nor on its way of an asset on a chain."""
        holding = self.held.get((chain, asset))
        return 0 if holding is None else max(0, holding.available - holding.reserved)

    def sales(self, task: Task, asset: bytes) -> list[Depth]:
        """Return the curves along which an asset can be sold for what the task repays."""
        curves = self.depth.get((task.chain, asset), ())
        return [one for one in curves if one.bought in (b"", task.market)]

    def legs_at(self, account: Account, task: Task) -> list[Leg]:
        """Return the account's legs in the task's venue."""
        place = task.chain.to_bytes(8, "big") + task.venue
        packed = account.legs
        return [
            leg_at(packed, at)
            for at in range(0, len(packed), LEG_BYTES)
            if packed.startswith(place, at)
        ]

    def price_fault(self, markets: Collection[bytes], max_age_ms: int) -> str:
        """Return which of the markets has no usable price, or an empty text."""
        for market in sorted(markets):
            price = self.prices.get(market)
            if price is None or price.price <= 0:
                return f"no price for {symbol_text(market)}"
            if price.age_ms > max_age_ms:
                return f"the price of {symbol_text(market)} is {price.age_ms} ms old"
        return ""

    def breaker_fault(self, task: Task) -> str:
        """Return which breaker stops the task, or an empty text."""
        chain = f"chain:{task.chain}".encode().ljust(32, b"\0")
        for breaker in self.view.breakers:
            if (
                breaker.action == LIQUIDATE_ACTION
                and breaker.level >= STOPPED
                and breaker.scope in (EVERYWHERE, chain, task.market, task.account)
                and not 0 < breaker.until_ms <= self.view.now_ms
            ):
                return "a breaker stops liquidations"
        return ""


def is_lending(task: Task) -> bool:
    """Return whether the task repays one asset to seize another."""
    return any(term.asset != task.market for term in task.terms)
