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

from keeper.units import PPM, ceil_div
from policies.api import Act, Decision, Kind, Manifest, MarketView, Skip, Task, Wide
from policies.books import Books, is_lending
from policies.offers import Limits, Offer, best_offer

_LIVE = {"updatable": True}


def _ppm(text: str) -> msgspec.Meta:
    return msgspec.Meta(ge=0, le=PPM, description=text, extra_json_schema=_LIVE)


def _least(text: str) -> msgspec.Meta:
    return msgspec.Meta(ge=0, description=text, extra_json_schema=_LIVE)


class LiquidationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator may set; fields marked updatable change without a restart."""

    target_ppm: Annotated[
        int,
        msgspec.Meta(
            ge=1_000_000,
            le=2_000_000,
            description="Health to restore; 1020000 leaves a buffer of 2 %.",
            extra_json_schema=_LIVE,
        ),
    ] = 1_020_000
    close_most: Annotated[
        bool,
        msgspec.Meta(
            description="Close what the venue lets, not only what restores the target.",
            extra_json_schema=_LIVE,
        ),
    ] = False
    bid_share_ppm: Annotated[int, _ppm("Share of the profit above min_profit to bid.")] = 800_000
    min_profit: Annotated[int, _least("Least profit to keep, µUSD.")] = 1_000_000
    max_impact_ppm: Annotated[int, _ppm("Largest price impact of one close.")] = 20_000
    max_volume: Annotated[int, _least("µUSD of one market closed per window; 0: no cap.")] = 0
    window_ms: Annotated[
        int, msgspec.Meta(ge=1_000, le=86_400_000, description="Length of the volume window.")
    ] = 60_000
    max_age_ms: Annotated[int, _least("Oldest price to act on, in milliseconds.")] = 60_000
    no_show_ppm: Annotated[int, _ppm("How often an award is missed; prices the lock.")] = 2_000
    ttl_ms: Annotated[
        int, msgspec.Meta(ge=100, le=600_000, description="How long a bid stands.")
    ] = 5_000


class Spending:
    """What earlier decisions on this view, and of this window, already claim."""

    def __init__(self, state: bytes, since_ms: int, bond: int) -> None:
        rows: list[tuple[bytes, int, int]] = (
            msgspec.msgpack.decode(state, type=list[tuple[bytes, int, int]]) if state else []
        )
        self.bond = bond
        self.funds: dict[tuple[int, bytes], int] = {}
        self._rows = [row for row in rows if row[1] > since_ms]

    def volume(self, market: bytes) -> int:
        """Return µUSD already committed in a market within the window."""
        return sum(value for name, _, value in self._rows if name == market)

    def remember(self, market: bytes, now_ms: int, value: int) -> None:
        """Count a bid towards its market's volume."""
        self._rows.append((market, now_ms, value))

    def pack(self) -> bytes:
        """Return the state for the next view; empty when nothing is remembered."""
        return msgspec.msgpack.encode(self._rows) if self._rows else b""


class Liquidation:
    """Bids on liquidation tasks: closes what restores health, bids a share of the profit."""

    manifest: ClassVar[Manifest] = Manifest(
        kind=Kind.LIQUIDATION,
        config=LiquidationConfig,
        wants=("accounts", "prices", "tasks", "gas", "depth", "inventory", "breakers"),
    )

    def __init__(self, config: LiquidationConfig | None = None) -> None:
        self.config = config or LiquidationConfig()

    def decide(self, view: MarketView, state: bytes) -> tuple[Sequence[Decision], bytes]:
        """Return one decision per distinct open task, most urgent first."""
        if not view.tasks:
            return (), state
        books = Books(view)
        spending = Spending(state, view.now_ms - self.config.window_ms, view.bond_free)
        tasks = {task.task: task for task in view.tasks}
        decisions = [
            self._decide(books, task, spending)
            for task in sorted(tasks.values(), key=lambda one: urgency(books, one))
        ]
        return decisions, spending.pack()

    def _decide(self, books: Books, task: Task, spending: Spending) -> Decision:
        offer = self._offer(books, task, spending)
        if isinstance(offer, str):
            return Skip(task.task, offer)
        gas = books.gas_cost(task.chain, task.gas_units)
        if gas is None:
            return Skip(task.task, f"no gas price for chain {task.chain}")
        slash = ceil_div(task.lock * self.config.no_show_ppm, PPM)
        profit = offer.gross - gas - slash
        price = (profit - self.config.min_profit) * self.config.bid_share_ppm // PPM
        if profit < self.config.min_profit or price < task.reserve:
            return Skip(
                task.task,
                f"profit {profit} µUSD (bonus {offer.gross}, gas {gas}, slash {slash}) does not"
                f" pay the reserve {task.reserve} and leave {self.config.min_profit}",
            )
        spending.bond -= task.lock
        if self.config.max_volume:
            spending.remember(task.market, books.view.now_ms, offer.value)
        if is_lending(task):
            key = (task.chain, task.market)
            spending.funds[key] = spending.funds.get(key, 0) + offer.size
        why = f"{offer.how}; profit {profit} µUSD before the price"
        return Act(task.task, price, Wide(offer.size), self.config.ttl_ms, why, profit, offer.steps)

    def _offer(self, books: Books, task: Task, spending: Spending) -> Offer | str:
        """Return the best offer, or the first guard that refuses."""
        account = books.accounts.get(task.account)
        if account is None:
            return "the account is not in the view"
        if 0 < task.deadline_ms <= books.view.now_ms:
            return "the task is past its deadline"
        if task.lock > spending.bond:
            return f"needs a bond lock of {task.lock} µUSD, {spending.bond} is free"
        legs = books.legs_at(account, task)
        markets = {task.market, *(leg.market for leg in legs)}
        fault = books.breaker_fault(task) or books.price_fault(markets, self.config.max_age_ms)
        if fault:
            return fault
        room = None
        if self.config.max_volume:
            room = self.config.max_volume - spending.volume(task.market)
        funds = None
        if is_lending(task):
            spent = spending.funds.get((task.chain, task.market), 0)
            funds = books.free(task.chain, task.market) - spent
        limits = Limits(
            self.config.target_ppm,
            self.config.max_impact_ppm,
            room,
            funds,
            self.config.close_most,
        )
        return best_offer(books, task, account, legs, limits)


def urgency(books: Books, task: Task) -> tuple[int, bytes]:
    """Return the sort key of a task: largest requirement first, then its id."""
    account = books.accounts.get(task.account)
    return (0 if account is None else -account.mmr, task.task)
