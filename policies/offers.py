"""Ways to close one unhealthy account: sized for its target health, capped, with what each brings.

    perp     close the least notional that restores health; paid a bonus on it. A term without a
             margin rate says that the task was sized for that already: close all of it
    lending  repay the least debt that restores health, seize collateral, sell it
             one offer per collateral and per point of its depth curve; the best is taken

A partial close at a larger size is not always better: beyond some depth the sale costs more than
the bonus brings, so every kink of the curve is tried.
"""

import msgspec

from keeper.units import PPM, ceil_div, symbol_text
from policies import sizing
from policies.api import (
    COLLATERAL,
    DEBT,
    PERP,
    Account,
    Depth,
    Leg,
    PlanStep,
    Price,
    Task,
    Term,
    Wide,
)
from policies.books import Books, is_lending

SLIPPAGE_PPM = 995_000
"""A sale asks for at least this share of what the depth curve promises."""


class Limits(msgspec.Struct, frozen=True):
    """What the operator allows.

    Args:
        target_ppm: health to restore.
        max_impact_ppm: largest price impact of one sale.
        value: µUSD that may still be closed in this market, or None for no cap.
        funds: of the debt asset, or None where nothing is repaid.
        most: close what the venue lets, not only what restores the target.
    """

    target_ppm: int
    max_impact_ppm: int
    value: int | None = None
    funds: int | None = None
    most: bool = False


class Offer(msgspec.Struct, frozen=True):
    """One way to close: its µUSD value, its size in the market's unit, what it brings in µUSD."""

    value: int
    size: int
    gross: int
    steps: tuple[PlanStep, ...]
    how: str


def best_offer(
    books: Books, task: Task, account: Account, legs: list[Leg], limits: Limits
) -> Offer | str:
    """Return the offer that brings most, or why there is none; prices are known to be there."""
    if not task.terms:
        return "the task names no terms"
    if is_lending(task):
        return _lending(books, task, legs, limits)
    return _perp(books, task, account, legs, limits)


def _liquidate(task: Task, size: int, collateral: bytes | None = None) -> PlanStep:
    blobs = [("account", task.account), ("market", task.market), ("task", task.task)]
    if collateral is not None:
        blobs.append(("collateral", collateral))
    return PlanStep(
        "liquidate",
        task.chain,
        "liquidate",
        task.venue,
        (("size", Wide(size)),),
        tuple(sorted(blobs)),
    )


def _allowed(task: Task, held: int, price: Price, limits: Limits) -> int:
    allowed = min(int(task.max_size), ceil_div(held * task.close_ppm, PPM))
    if limits.value is not None:
        within = sizing.size_within(max(0, limits.value), price.price, price.decimals)
        allowed = min(allowed, within)
    return allowed


def _perp(
    books: Books, task: Task, account: Account, legs: list[Leg], limits: Limits
) -> Offer | str:
    leg = next((one for one in legs if one.kind == PERP and one.market == task.market), None)
    if leg is None or leg.size == 0:
        return "the account holds nothing in this market"
    price, term, held = books.prices[task.market], task.terms[0], abs(leg.size)
    sized = term.threshold_ppm >= PPM
    if not sized and account.equity >= account.requirement:
        return "the account is healthy"
    value = sizing.least_close(
        account.equity,
        account.requirement,
        sizing.value_ceil(held, price.price, price.decimals),
        term.threshold_ppm,
        term.bonus_ppm,
        limits.target_ppm,
    )
    allowed = _allowed(task, held, price, limits)
    curves = books.depth.get((task.chain, task.market))
    if curves:
        room = max(sizing.largest_within(one.points, limits.max_impact_ppm) for one in curves)
        allowed = min(allowed, room)
    wanted = sizing.size_for(value, price.price, price.decimals)
    size = min(held, held if limits.most or sized else wanted, allowed)
    size = sizing.whole_if_dust(size, held, task.min_left, allowed)
    if size <= 0:
        return "the caps leave nothing to close"
    value = sizing.value_floor(size, price.price, price.decimals)
    return Offer(
        value,
        size,
        value * term.bonus_ppm // PPM,
        (_liquidate(task, size),),
        f"close {size} of {held} {symbol_text(task.market)} at health {account.health_ppm} ppm",
    )


def _lending(books: Books, task: Task, legs: list[Leg], limits: Limits) -> Offer | str:
    terms = {term.asset: term for term in task.terms}
    debt, weighted, owed = 0, 0, 0
    for leg in legs:
        price = books.prices[leg.market]
        if leg.kind == DEBT:
            debt += sizing.value_ceil(leg.size, price.price, price.decimals)
            owed += leg.size if leg.market == task.market else 0
        elif leg.kind == COLLATERAL and leg.market in terms:
            worth = sizing.value_floor(leg.size, price.price, price.decimals)
            weighted += worth * terms[leg.market].threshold_ppm
    if not owed:
        return "the account owes nothing in this market"
    if weighted >= debt * PPM:
        return "the account is healthy"
    allowed = _allowed(task, owed, books.prices[task.market], limits)
    if limits.funds is not None:
        allowed = min(allowed, limits.funds)
        if allowed <= 0:
            return f"no free {symbol_text(task.market)} on chain {task.chain}"
    sums = (debt, weighted, owed, allowed)
    offers = [
        offer
        for leg in legs
        if leg.kind == COLLATERAL and leg.market in terms
        for offer in _seizures(books, task, leg, terms[leg.market], limits, sums)
    ]
    if not offers:
        return "no collateral can be seized and sold within the caps"
    return max(offers, key=lambda one: (one.gross, one.how))


def _seizures(
    books: Books,
    task: Task,
    leg: Leg,
    term: Term,
    limits: Limits,
    sums: tuple[int, int, int, int],
) -> list[Offer]:
    """Return offers against one collateral: at the target size, and at each depth point."""
    debt, weighted, owed, allowed = sums
    paid, sold = books.prices[task.market], books.prices[leg.market]
    value = sizing.least_repay(
        debt, weighted, term.threshold_ppm, term.bonus_ppm, limits.target_ppm
    )
    worth = sizing.value_floor(leg.size, sold.price, sold.decimals)
    most = sizing.size_within(worth * PPM // (PPM + term.bonus_ppm), paid.price, paid.decimals)
    wanted = owed if limits.most else sizing.size_for(value, paid.price, paid.decimals)
    size = min(owed, wanted, allowed, most)
    size = sizing.whole_if_dust(size, owed, task.min_left, min(allowed, most))
    curves: list[Depth] | list[None] = books.sales(task, leg.market) or [None]
    offers = []
    for curve in curves:
        for repay in _repays(curve, size, paid, sold, term, limits):
            offer = _sale(task, leg, term, (paid, sold), curve, repay, limits)
            if offer is not None:
                offers.append(offer)
    return offers


def _repays(
    curve: Depth | None, size: int, paid: Price, sold: Price, term: Term, limits: Limits
) -> list[int]:
    if curve is None:
        return [size]
    edge = sizing.largest_within(curve.points, limits.max_impact_ppm)
    repays = {size}
    for seized in {edge, *(int(at) for at, _ in curve.points if at <= edge)}:
        worth = sizing.value_floor(seized, sold.price, sold.decimals)
        cover = worth * PPM // (PPM + term.bonus_ppm)
        repays.add(min(size, sizing.size_within(cover, paid.price, paid.decimals)))
    return sorted(repays)


def _sale(
    task: Task,
    leg: Leg,
    term: Term,
    pair: tuple[Price, Price],
    curve: Depth | None,
    repay: int,
    limits: Limits,
) -> Offer | None:
    """Return the offer of one repayment, or None where the sale would move the price too far."""
    paid, sold = pair
    if repay <= 0:
        return None
    cost = sizing.value_ceil(repay, paid.price, paid.decimals)
    bonus = cost * (PPM + term.bonus_ppm) // PPM
    seized = min(leg.size, sizing.size_within(bonus, sold.price, sold.decimals))
    worth = sizing.value_floor(seized, sold.price, sold.decimals)
    steps = [_liquidate(task, repay, leg.market)]
    loss = 0
    if curve is not None:
        impact = sizing.impact_ppm(curve.points, seized)
        if impact is None or impact > limits.max_impact_ppm:
            return None
        loss = ceil_div(worth * impact, PPM)
        out = sizing.size_within(worth - loss, paid.price, paid.decimals)
        steps.append(
            PlanStep(
                "swap",
                task.chain,
                "swap",
                curve.venue,
                (("amount", Wide(seized)), ("least_out", Wide(out * SLIPPAGE_PPM // PPM))),
                (("asset_in", leg.market), ("asset_out", task.market)),
                ("liquidate",),
            )
        )
    return Offer(
        cost,
        repay,
        worth - loss - cost,
        tuple(steps),
        f"repay {repay} {symbol_text(task.market)} for {seized} {symbol_text(leg.market)}",
    )
