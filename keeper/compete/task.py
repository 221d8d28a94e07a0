"""Tasks: which positions must be closed, the same for every keeper that holds the snapshot.

    unhealthy account ──▶ its legs, those first that free most requirement
                          └─▶ least size that reaches the target ──▶ next leg, while still unhealthy

    subject = keccak(chain, account, venue, market)              what bids are about
    task    = keccak(type, network, epoch, view, subject, kind)  view: first in which it is open

A subject has at most one open task. Its id stays from the view it was first seen in until it is
executed, voided or healed; its size follows every snapshot until it is awarded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from keeper.hashing import abi_hash, type_hash
from keeper.legs import Leg, LegKind
from keeper.margin.breaker import Action
from keeper.margin.engine import AccountMargin, Engine
from keeper.margin.liquidation import Bound, size_position
from keeper.margin.marks import Unpriced
from keeper.parameters import Parameters
from keeper.snapshot.decisions import Context
from keeper.snapshot.gates import stopped
from keeper.units import PPM, ChainId, ceil_div
from keeper.venue.book import system_accounts

LIQUIDATE = 1
"""The one kind of task so far: reduce a perp position."""
MAX_LEGS = 4
"""Positions of one account that are tasks at once; the rest follows when these are closed."""
MAX_TASKS = 256
"""Open tasks at once, riskiest accounts first: what eight keepers cover with 32 bids each."""

_TASK = type_hash("Task(bytes32 network,uint32 epoch,uint64 view,bytes32 subject,uint8 kind)")
_SUBJECT = type_hash("Subject(uint64 chain,bytes32 account,address venue,bytes32 market)")


@dataclass(frozen=True, slots=True)
class Target:
    """What a task or a standing bid is about: one account's position at one venue."""

    chain: ChainId
    account: bytes
    venue: bytes
    market: bytes

    @property
    def subject(self) -> bytes:
        """Return the 32 bytes that bids name it by."""
        types = ("bytes32", "uint64", "bytes32", "address", "bytes32")
        return abi_hash(types, (_SUBJECT, self.chain, self.account, self.venue, self.market))


@dataclass(frozen=True, slots=True)
class Task:
    """A position that must be reduced.

    Args:
        id: 32 bytes.
        target: whose, where.
        view: the view in which it was first open.
        size: how much to close, 10**-decimals of the market.
        value: the same in µUSD at the mark.
        bonus: what closing it pays, µUSD.
        reserve: least price, µUSD.
        lock: bond the winner puts at stake, in the bond's smallest unit.
    """

    id: bytes
    target: Target
    view: int
    size: int
    value: int
    bonus: int
    reserve: int
    lock: int


def task_id(network: bytes, epoch: int, view: int, subject: bytes, kind: int = LIQUIDATE) -> bytes:
    """Return the id of a task."""
    types = ("bytes32", "bytes32", "uint32", "uint64", "bytes32", "uint8")
    return abi_hash(types, (_TASK, network, epoch, view, subject, kind))


def bond_lock(value: int, price: int, parameters: Parameters) -> int:
    """Return the bond to lock for closing `value` at `price` µUSD, in the bond's smallest unit."""
    rules = parameters.competition
    units = max(
        rules.lock_minimum,
        ceil_div(price * rules.lock_price_ppm, PPM),
        ceil_div(value * rules.lock_value_ppm, PPM),
    )
    return units * rules.bond_per_unit


def open_targets(
    context: Context, engine: Engine, windows: Mapping[tuple[ChainId, bytes], int]
) -> list[tuple[Target, int, int]]:
    """Return (target, size, value) of every position that must be reduced now, riskiest first.

    Args:
        context: the view's inputs.
        engine: its marks.
        windows: µUSD that may still be closed per (chain, market); none: no limit.
    """
    apart = system_accounts(context.network)
    sick = [
        (margin.health_ppm, account)
        for account, margin in context.margins.items()
        if not margin.healthy and account not in apart
    ]
    left = dict(windows)
    found: list[tuple[Target, int, int]] = []
    for _, account in sorted(sick):
        if len(found) >= MAX_TASKS:
            break
        found += _account_targets(context, engine, account, left)
    return found[:MAX_TASKS]


def _account_targets(
    context: Context, engine: Engine, account: bytes, left: dict[tuple[ChainId, bytes], int]
) -> Iterator[tuple[Target, int, int]]:
    """Yield what to close of one account until it would be healthy, taking from `left`."""
    legs = list(context.legs[account])
    for _ in range(MAX_LEGS):
        margin = engine.margin(engine.rows(legs))
        if margin.healthy:
            return
        best = _best_leg(context, engine, legs, margin)
        if best is None:
            return
        leg, freed = best
        value, size = _size(context, engine, leg, freed, margin, left)
        if size == 0:
            return
        place = (leg.chain, leg.market)
        if place in left:
            left[place] -= value
        yield Target(leg.chain, account, leg.venue, leg.market), size, value
        legs[legs.index(leg)] = _closed(engine, leg, size)


def _closed(engine: Engine, leg: Leg, size: int) -> Leg:
    """Return the leg after closing `size` at the mark: what it was worth stays in its quote."""
    rate = engine.marks.rate(leg)
    part = size if leg.size > 0 else -size
    return replace(leg, size=leg.size - part, quote=leg.quote + part * rate.price // rate.divisor)


def _best_leg(
    context: Context, engine: Engine, legs: list[Leg], margin: AccountMargin
) -> tuple[Leg, int] | None:
    """Return the open leg whose closing frees most requirement, and how much, or None."""
    best: tuple[int, Leg] | None = None
    for leg in legs:
        price = context.prices.get(leg.market)
        if leg.kind is not LegKind.PERP or leg.size == 0 or price is None or price.stale:
            continue
        spec = context.network.chain(leg.chain)
        if spec.contract("Perps") != leg.venue or spec.contract("Awards") is None:
            continue
        if stopped(context, Action.LIQUIDATE, leg.chain, leg.market):
            continue
        without = [_closed(engine, leg, abs(leg.size)) if other is leg else other for other in legs]
        try:
            after = engine.margin(engine.rows(without))
        except Unpriced:
            continue
        freed = max(0, _needed(margin, leg)[1] - _needed(after, leg)[1])
        if best is None or (freed, leg.key) > (best[0], best[1].key):
            best = (freed, leg)
    return None if best is None else (best[1], best[0])


def _needed(margin: AccountMargin, leg: Leg) -> tuple[int, int]:
    """Return (equity, requirement) that closing this leg is meant to repair."""
    if margin.healthy_global:
        for part in margin.venues:
            if (part.chain, part.venue) == (leg.chain, leg.venue):
                return part.equity, part.mmr
    return margin.equity, margin.requirement


def _size(
    context: Context,
    engine: Engine,
    leg: Leg,
    freed: int,
    margin: AccountMargin,
    left: Mapping[tuple[ChainId, bytes], int],
) -> tuple[int, int]:
    """Return (µUSD, size) to close of a leg."""
    rate = engine.marks.rate(leg)
    notional = ceil_div(abs(leg.size) * rate.price, rate.divisor)
    if notional == 0:
        return 0, abs(leg.size)
    equity, requirement = _needed(margin, leg)
    wanted = size_position(
        notional,
        equity,
        requirement,
        freed * PPM // notional,
        context.parameters.liquidation,
        left.get((leg.chain, leg.market)),
    )
    if wanted.value == 0:
        return 0, 0
    if wanted.value >= notional or wanted.bound in (Bound.SMALL, Bound.WHOLE):
        return notional, abs(leg.size)
    return wanted.value, min(abs(leg.size), ceil_div(wanted.value * rate.divisor, rate.price))


def make_task(context: Context, view: int, target: Target, size: int, value: int) -> Task:
    """Return the task of a target with its reserve and lock."""
    bonus = value * context.parameters.liquidation.bonus_ppm // PPM
    reserve = ceil_div(bonus * context.parameters.competition.reserve_ppm, PPM)
    return Task(
        id=task_id(context.network.id, context.epoch, view, target.subject),
        target=target,
        view=view,
        size=size,
        value=value,
        bonus=bonus,
        reserve=reserve,
        lock=bond_lock(value, reserve, context.parameters),
    )
