"""The built-in liquidation policy: close as little as restores health, pay what it is worth.

    task ─▶ guards ─▶ size for target health ─▶ caps ─▶ cost ─▶ Act(price) | Skip(why)
            price known and fresh    close factor, dust,   gas, slippage,
            breaker closed           depth, volume,        expected slash
            bond and funds free      inventory

The bid is a share of the expected profit. Awards are second price, so a high share costs little;
what is kept back pays for the estimates being wrong. Venues differ only in their terms: a perp
pays its bonus on the closed notional, a lending market pays in collateral that has to be sold.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from keeper.units import PPM, ceil_div, symbol_text
from policies import sizing
from policies.api import (
    COLLATERAL,
    DEBT,
    PERP,
    Account,
    Act,
    Decision,
    Depth,
    Gas,
    Holding,
    Kind,
    Leg,
    Manifest,
    MarketView,
    PlanStep,
    Price,
    Skip,
    Task,
    Term,
    Wide,
    legs_of,
)

LIQUIDATE_ACTION = 4
STOPPED = 2
EVERYWHERE = bytes(32)

_Ppm = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
_LIVE = {"updatable": True}


class LiquidationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator may set."""

    target_ppm: Annotated[
        int,
        msgspec.Meta(
            ge=1_000_000,
            le=2_000_000,
            description="Health to restore; 1020000 leaves a buffer of 2 %.",
            extra_json_schema=_LIVE,
        ),
    ] = 1_020_000
    bid_share_ppm: Annotated[
        _Ppm, msgspec.Meta(description="Share of the profit to bid.", extra_json_schema=_LIVE)
    ] = 800_000
    min_profit: Annotated[
        int,
        msgspec.Meta(ge=0, description="Least profit to keep, µUSD.", extra_json_schema=_LIVE),
    ] = 1_000_000
    max_impact_ppm: Annotated[
        _Ppm,
        msgspec.Meta(description="Largest price impact of one close.", extra_json_schema=_LIVE),
    ] = 20_000
    max_volume: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            description="µUSD of one market closed per window; 0 is no cap.",
            extra_json_schema=_LIVE,
        ),
    ] = 0
    window_ms: Annotated[
        int, msgspec.Meta(ge=1000, le=86_400_000, description="Length of the volume window.")
    ] = 60_000
    max_age_ms: Annotated[
        int,
        msgspec.Meta(ge=0, description="Oldest price to act on.", extra_json_schema=_LIVE),
    ] = 60_000
    no_show_ppm: Annotated[
        _Ppm,
        msgspec.Meta(
            description="How often an award is missed; prices the bond lock.",
            extra_json_schema=_LIVE,
        ),
    ] = 2_000
    ttl_ms: Annotated[
        int, msgspec.Meta(ge=100, le=600_000, description="How long a bid stands.")
    ] = 5_000
    use_inventory: Annotated[
        bool, msgspec.Meta(description="Repay from own funds; else by a flash loan.")
    ] = True


class _Offer(msgspec.Struct, frozen=True):
    """A way to close: µUSD value, size in the market's unit, what is left of the bonus."""

    value: int
    size: int
    gross: int
    steps: tuple[PlanStep, ...]
    how: str


class _Books:
    """Lookups over one view; built once per decision."""

    def __init__(self, view: MarketView) -> None:
        self.accounts: dict[bytes, Account] = {one.account: one for one in view.accounts}
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
        return ceil_div(units * gas.price_wei * gas.coin_price, 10**20)


class Liquidation:
    """Bids on liquidation tasks."""

    manifest: ClassVar[Manifest] = Manifest(
        kind=Kind.LIQUIDATION,
        config=LiquidationConfig,
        wants=("accounts", "prices", "tasks", "gas", "depth", "inventory", "breakers"),
    )

    def __init__(self, config: LiquidationConfig | None = None) -> None:
        self.config = config or LiquidationConfig()

    def decide(self, view: MarketView, state: bytes) -> tuple[Sequence[Decision], bytes]:
        """Return one decision per distinct open task, and the volume of the current window."""
        if not view.tasks:
            return (), state
        books = _Books(view)
        volume = _Volume(state, view.now_ms - self.config.window_ms)
        bond = view.bond_free
        spent: dict[tuple[int, bytes], int] = {}
        decisions: list[Decision] = []
        tasks = {task.task: task for task in view.tasks}
        for task in sorted(tasks.values(), key=lambda one: _urgency(books, one)):
            found = self._judge(view, books, task, volume, bond, spent)
            if isinstance(found, str):
                decisions.append(Skip(task.task, found))
                continue
            offer, price, profit = found
            bond -= task.lock
            if self.config.max_volume:
                volume.add(task.market, view.now_ms, offer.value)
            if self.config.use_inventory and offer.steps and _is_lending(task):
                key = (task.chain, task.market)
                spent[key] = spent.get(key, 0) + offer.size
            decisions.append(
                Act(
                    task.task,
                    price,
                    Wide(offer.size),
                    self.config.ttl_ms,
                    f"{offer.how}; profit {profit} µUSD before the price",
                    profit,
                    offer.steps,
                )
            )
        return decisions, volume.pack()

    def _judge(
        self,
        view: MarketView,
        books: _Books,
        task: Task,
        volume: "_Volume",
        bond: int,
        spent: dict[tuple[int, bytes], int],
    ) -> tuple[_Offer, int, int] | str:
        """Return (offer, price, profit), or why not."""
        account = books.accounts.get(task.account)
        if account is None:
            return "the account is not in the view"
        if _stopped(view, task):
            return "a breaker stops liquidations"
        if 0 < task.deadline_ms <= view.now_ms:
            return "the task is past its deadline"
        if task.lock > bond:
            return f"needs a bond lock of {task.lock} µUSD, {bond} is free"
        gas = books.gas_cost(task.chain, task.gas_units)
        if gas is None:
            return f"no gas price for chain {task.chain}"
        room = self.config.max_volume - volume.of(task.market)
        if self.config.max_volume and room <= 0:
            return "the market's volume cap is used up for this window"
        limit = room if self.config.max_volume else None
        spent_here = spent.get((task.chain, task.market), 0)
        offer = self._offer(books, task, account, limit, spent_here)
        if isinstance(offer, str):
            return offer
        slash = ceil_div(task.lock * self.config.no_show_ppm, PPM)
        profit = offer.gross - gas - slash
        price = (profit - self.config.min_profit) * self.config.bid_share_ppm // PPM
        if profit < self.config.min_profit or price < task.reserve:
            return (
                f"profit {profit} µUSD (bonus {offer.gross}, gas {gas}, slash {slash}) does not"
                f" pay the reserve {task.reserve} and leave {self.config.min_profit}"
            )
        return offer, price, profit

    def _offer(
        self, books: _Books, task: Task, account: Account, limit: int | None, spent: int
    ) -> _Offer | str:
        legs = [
            leg for leg in legs_of(account) if leg.chain == task.chain and leg.venue == task.venue
        ]
        for market in sorted({leg.market for leg in legs} | {task.market}):
            price = books.prices.get(market)
            if price is None or price.price <= 0:
                return f"no price for {symbol_text(market)}"
            if price.age_ms > self.config.max_age_ms:
                return f"the price of {symbol_text(market)} is {price.age_ms} ms old"
        if _is_lending(task):
            return self._lending(books, task, account, legs, limit, spent)
        return self._perp(books, task, account, legs, limit)

    def _perp(
        self, books: _Books, task: Task, account: Account, legs: list[Leg], limit: int | None
    ) -> _Offer | str:
        leg = next((one for one in legs if one.kind == PERP and one.market == task.market), None)
        if leg is None or leg.size == 0:
            return "the account holds nothing in this market"
        price = books.prices[task.market]
        term = task.terms[0]
        held = abs(leg.size)
        notional = sizing.value_ceil(held, price.price, price.decimals)
        if account.equity >= account.requirement:
            return "the account is healthy"
        value = sizing.least_close(
            account.equity,
            account.requirement,
            notional,
            term.threshold_ppm,
            term.bonus_ppm,
            self.config.target_ppm,
        )
        size = min(held, sizing.size_for(value, price.price, price.decimals))
        allowed = min(int(task.max_size), held * task.close_ppm // PPM)
        size = sizing.whole_if_dust(min(size, allowed), held, task.min_left, allowed)
        curves = books.depth.get((task.chain, task.market), [])
        if curves:
            deepest = max(
                sizing.largest_within(curve.points, self.config.max_impact_ppm) for curve in curves
            )
            size = min(size, deepest)
        if limit is not None:
            size = min(size, sizing.size_within(limit, price.price, price.decimals))
        if size <= 0:
            return "caps leave nothing to close"
        value = sizing.value_floor(size, price.price, price.decimals)
        step = PlanStep(
            "liquidate",
            task.chain,
            "liquidate",
            task.venue,
            (("size", Wide(size)),),
            (("account", task.account), ("market", task.market), ("task", task.task)),
        )
        return _Offer(
            value,
            size,
            value * term.bonus_ppm // PPM,
            (step,),
            f"close {size} of {held} {symbol_text(task.market)}, health {account.health_ppm} ppm",
        )

    def _lending(
        self,
        books: _Books,
        task: Task,
        account: Account,
        legs: list[Leg],
        limit: int | None,
        spent: int,
    ) -> _Offer | str:
        terms = {term.asset: term for term in task.terms}
        debt, weighted = 0, 0
        for leg in legs:
            price = books.prices[leg.market]
            if leg.kind == DEBT:
                debt += sizing.value_ceil(leg.size, price.price, price.decimals)
            elif leg.kind == COLLATERAL and leg.market in terms:
                worth = sizing.value_floor(leg.size, price.price, price.decimals)
                weighted += worth * terms[leg.market].threshold_ppm // PPM
        owed = next((x.size for x in legs if x.kind == DEBT and x.market == task.market), 0)
        if not owed:
            return "the account owes nothing in this market"
        if weighted >= debt:
            return "the account is healthy"
        allowed = min(int(task.max_size), owed * task.close_ppm // PPM)
        if self.config.use_inventory:
            holding = books.held.get((task.chain, task.market))
            free = 0 if holding is None else holding.available - holding.reserved - spent
            if free <= 0:
                return f"no free {symbol_text(task.market)} on chain {task.chain}"
            allowed = min(allowed, free)
        if limit is not None:
            owed_price = books.prices[task.market]
            allowed = min(allowed, sizing.size_within(limit, owed_price.price, owed_price.decimals))
        offers = [
            offer
            for leg in legs
            if leg.kind == COLLATERAL and leg.market in terms
            for offer in self._seize(
                books, task, leg, terms[leg.market], (debt, weighted, owed, allowed)
            )
        ]
        if not offers:
            return "no collateral can be seized and sold within the caps"
        return max(offers, key=lambda one: (one.gross, one.how))

    def _seize(
        self, books: _Books, task: Task, leg: Leg, term: Term, sums: tuple[int, int, int, int]
    ) -> list[_Offer]:
        """Return offers against one collateral: at the target size, and at each depth point."""
        debt, weighted, owed, allowed = sums
        paid, sold = books.prices[task.market], books.prices[leg.market]
        value = sizing.least_repay(
            debt, weighted, term.threshold_ppm, term.bonus_ppm, self.config.target_ppm
        )
        most = (
            sizing.value_floor(leg.size, sold.price, sold.decimals) * PPM // (PPM + term.bonus_ppm)
        )
        size = min(owed, sizing.size_for(min(value, most), paid.price, paid.decimals), allowed)
        size = sizing.whole_if_dust(size, owed, task.min_left, allowed)
        offers = []
        for curve in books.depth.get((task.chain, leg.market), [None]):
            for repay in self._repays(curve, size, paid, sold, term):
                offer = self._sell(task, leg, term, paid, sold, curve, repay)
                if offer is not None:
                    offers.append(offer)
        return offers

    def _repays(
        self, curve: Depth | None, size: int, paid: Price, sold: Price, term: Term
    ) -> list[int]:
        if curve is None:
            return [size]
        repays = {size}
        edge = sizing.largest_within(curve.points, self.config.max_impact_ppm)
        for seized in {edge, *(int(at) for at, _ in curve.points if at <= edge)}:
            worth = sizing.value_floor(seized, sold.price, sold.decimals)
            cover = worth * PPM // (PPM + term.bonus_ppm)
            repays.add(min(size, sizing.size_within(cover, paid.price, paid.decimals)))
        return sorted(repays)

    def _sell(
        self,
        task: Task,
        leg: Leg,
        term: Term,
        paid: Price,
        sold: Price,
        curve: Depth | None,
        repay: int,
    ) -> _Offer | None:
        if repay <= 0:
            return None
        cost = sizing.value_ceil(repay, paid.price, paid.decimals)
        seized = min(
            leg.size,
            sizing.size_within(cost * (PPM + term.bonus_ppm) // PPM, sold.price, sold.decimals),
        )
        worth = sizing.value_floor(seized, sold.price, sold.decimals)
        steps = [
            PlanStep(
                "liquidate",
                task.chain,
                "liquidate",
                task.venue,
                (("size", Wide(repay)),),
                (
                    ("account", task.account),
                    ("collateral", leg.market),
                    ("market", task.market),
                    ("task", task.task),
                ),
            )
        ]
        loss = 0
        if curve is not None:
            impact = sizing.impact_ppm(curve.points, seized)
            if impact is None or impact > self.config.max_impact_ppm:
                return None
            loss = ceil_div(worth * impact, PPM)
            least = sizing.size_within(worth - loss, paid.price, paid.decimals)
            steps.append(
                PlanStep(
                    "swap",
                    task.chain,
                    "swap",
                    curve.venue,
                    (("amount", Wide(seized)), ("least_out", Wide(least * 995 // 1000))),
                    (("asset_in", leg.market), ("asset_out", task.market)),
                    ("liquidate",),
                )
            )
        return _Offer(
            cost,
            repay,
            worth - loss - cost,
            tuple(steps),
            f"repay {repay} {symbol_text(task.market)} for {seized} {symbol_text(leg.market)}",
        )


class _Volume:
    """µUSD closed per market in the current window; the policy's only memory."""

    def __init__(self, state: bytes, since_ms: int) -> None:
        rows: list[tuple[bytes, int, int]] = (
            msgspec.msgpack.decode(state, type=list[tuple[bytes, int, int]]) if state else []
        )
        self._rows = [row for row in rows if row[1] > since_ms]

    def of(self, market: bytes) -> int:
        """Return µUSD already committed in a market."""
        return sum(value for name, _, value in self._rows if name == market)

    def add(self, market: bytes, now_ms: int, value: int) -> None:
        """Count a bid."""
        self._rows.append((market, now_ms, value))

    def pack(self) -> bytes:
        """Return the state for the next view; empty when nothing is remembered."""
        return msgspec.msgpack.encode(self._rows) if self._rows else b""


def _is_lending(task: Task) -> bool:
    return any(term.asset != task.market for term in task.terms)


def _stopped(view: MarketView, task: Task) -> bool:
    return any(
        breaker.action == LIQUIDATE_ACTION
        and breaker.level >= STOPPED
        and breaker.scope in (EVERYWHERE, task.market, task.account)
        and not 0 < breaker.until_ms <= view.now_ms
        for breaker in view.breakers
    )


def _urgency(books: _Books, task: Task) -> tuple[int, bytes]:
    account = books.accounts.get(task.account)
    return (0 if account is None else -account.mmr, task.task)
