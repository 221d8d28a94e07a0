"""The built-in filling policy: deliver orders that pay more than they cost.

    orders ─▶ in time? enough here? priced? ─▶ given − asked − gas − way back − time ─▶ worth it?
    those that an account needs soon come first, and are done for less

An order locks what it gives on its origin; whoever delivers what it asks for at the destination is
paid that by the keepers' attestation. So a filler needs funds at the destination, gets others at
the origin a little later, and has to bring them back: a fee of the cheapest lane.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from keeper.units import PPM, ceil_div, symbol_text
from policies import sizing
from policies.api import (
    Act,
    Decision,
    Defer,
    Kind,
    Manifest,
    MarketView,
    Order,
    PlanStep,
    Skip,
    Wide,
)

DAY_MS = 86_400_000
STOP = 2


class FillingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator may set."""

    least_profit: Annotated[
        int, msgspec.Meta(ge=0, description="Least profit of a delivery, in µUSD.")
    ] = 10_000
    least_profit_ppm: Annotated[
        int, msgspec.Meta(ge=0, le=PPM, description="Least profit as a share of what is delivered.")
    ] = 100
    rescue_ppm: Annotated[
        int,
        msgspec.Meta(
            ge=0, le=PPM, description="Share of that asked of an order that an account needs soon."
        ),
    ] = 0
    most_value: Annotated[
        int, msgspec.Meta(ge=0, description="Most to deliver for one order, in µUSD.")
    ] = 100_000_000_000
    return_ppm: Annotated[
        int, msgspec.Meta(ge=0, le=PPM, description="Cost of the way back where no lane is known.")
    ] = 500
    holding_ppm_per_day: Annotated[
        int, msgspec.Meta(ge=0, le=PPM, description="Cost per day of funds that wait to be paid.")
    ] = 200
    settle_ms: Annotated[
        int, msgspec.Meta(ge=0, description="From a delivery to its payment, and back.")
    ] = 600_000
    spare_ms: Annotated[
        int, msgspec.Meta(ge=0, description="Least time left before the deadline.")
    ] = 10_000
    gas_units: Annotated[int, msgspec.Meta(ge=21_000, description="Gas of one delivery.")] = 250_000


class Filling:
    """Delivers orders from this keeper's own funds."""

    manifest: ClassVar[Manifest] = Manifest(
        kind=Kind.FILLING, config=FillingConfig, wants=("orders", "inventory", "bridges")
    )

    def __init__(self, config: FillingConfig | None = None) -> None:
        self.config = config or FillingConfig()

    def decide(self, view: MarketView, state: bytes) -> tuple[Sequence[Decision], bytes]:
        """Return a decision on every order, what is needed soonest first; it keeps no state."""
        left = {
            (row.chain, row.asset): max(0, int(row.available) - int(row.reserved))
            for row in view.inventory
        }
        everywhere = [row for row in view.breakers if row.scope == bytes(32) and row.level >= STOP]
        worth = {one.order: self._profit(view, one) for one in view.orders}

        def first(one: Order) -> tuple[bool, int, int, bytes]:
            return (one.needed_ms == 0, one.needed_ms, -(worth[one.order] or 0), one.order)

        decisions: list[Decision] = []
        for one in sorted(view.orders, key=first):
            if everywhere:
                decisions.append(Skip(one.order, "a breaker stops everything"))
            else:
                decisions.append(self._one(view, one, worth[one.order], left))
        return decisions, b""

    def _one(
        self, view: MarketView, one: Order, profit: int | None, left: dict[tuple[int, bytes], int]
    ) -> Decision:
        name = f"{one.asked_amount} {symbol_text(one.asked)} on chain {one.destination}"
        if profit is None:
            return Skip(one.order, "an asset or the gas of its chain has no price")
        if one.deadline_ms - view.now_ms < self.config.spare_ms:
            return Skip(one.order, f"{one.deadline_ms - view.now_ms} ms are too few to deliver")
        value = self._value(view, one) or 0
        if value > self.config.most_value:
            return Skip(one.order, f"{value} µUSD is more than one order may take")
        least = max(self.config.least_profit, ceil_div(value * self.config.least_profit_ppm, PPM))
        if one.needed_ms:
            least = ceil_div(least * self.config.rescue_ppm, PPM)
        if profit < least:
            return Skip(one.order, f"{name} would bring {profit} µUSD, less than {least}")
        key = (one.destination, one.asked)
        if left.get(key, 0) < one.asked_amount:
            return Skip(one.order, f"{name} is more than the {left.get(key, 0)} held there")
        if one.turn_ms > view.now_ms:
            return Defer(one.order, one.turn_ms, "another keeper's turn")
        left[key] -= one.asked_amount
        step = PlanStep(
            "fill",
            one.destination,
            "fill",
            one.settler,
            (("amount", one.asked_amount),),
            (("order", one.order), ("asset", one.asked)),
        )
        ttl = one.deadline_ms - view.now_ms
        why = f"deliver {name} for {one.given_amount} {symbol_text(one.given)} on {one.origin}"
        if one.needed_ms:
            why += ", which an account needs"
        return Act(one.order, 0, Wide(one.asked_amount), ttl, why, profit, (step,))

    def _value(self, view: MarketView, one: Order) -> int | None:
        """Return what is delivered in µUSD, rounded up, or None without a price."""
        asked = next((row for row in view.prices if row.market == one.asked), None)
        if asked is None or asked.price <= 0:
            return None
        return sizing.value_ceil(one.asked_amount, asked.price, asked.decimals)

    def _profit(self, view: MarketView, one: Order) -> int | None:
        """Return µUSD left of what is given after all costs, rounded against this keeper."""
        given = next((row for row in view.prices if row.market == one.given), None)
        gas = next((row for row in view.gas if row.chain == one.destination), None)
        value = self._value(view, one)
        if given is None or gas is None or value is None:
            return None
        income = sizing.value_floor(one.given_amount, given.price, given.decimals)
        cost = ceil_div(self.config.gas_units * gas.price_wei * gas.coin_price, 10**20)
        back = self._way_back(view, one, income)
        rate = self.config.holding_ppm_per_day * self.config.settle_ms
        return income - value - cost - back - ceil_div(value * rate, PPM * DAY_MS)

    def _way_back(self, view: MarketView, one: Order, income: int) -> int:
        """Return µUSD that bringing the income back costs over the cheapest lane."""
        if one.origin == one.destination:
            return 0
        given = next(row for row in view.prices if row.market == one.given)
        fees = [
            ceil_div(income * lane.fee_ppm, PPM)
            + sizing.value_ceil(lane.fee_fixed + lane.coin_cost, given.price, given.decimals)
            for lane in view.bridges
            if (lane.origin, lane.destination, lane.asset)
            == (one.origin, one.destination, one.given)
            and lane.capacity >= one.given_amount
        ]
        return min(fees, default=ceil_div(income * self.config.return_ppm, PPM))
