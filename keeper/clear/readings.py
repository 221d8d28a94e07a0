"""What a view says to the breakers: facts that every keeper reads alike from its agreed inputs.

    tables ─▶ pauses, curses lifted      observations ─▶ broken finality, how far answers lie apart
    cut ─▶ state ages, blocks            prices ─▶ ages, distance from the five-minute mean
    margins ─▶ accounts below zero, cascades       legs ─▶ collateral behind each bridge class

Nothing here decides: `keeper.margin.breaker` judges, `breakers.py` tells the chains.
"""

from collections.abc import Iterable, Mapping, Sequence

from keeper.legs import LegKind
from keeper.margin import cascade
from keeper.margin.breaker import EVERYWHERE, Action, Board, Level, Rule, chain_scope
from keeper.margin.marks import Unpriced
from keeper.margin.readings import (
    AgeReading,
    BlockReading,
    CascadeReading,
    ExposureReading,
    FinalityBroken,
    Lifted,
    NegativeAccount,
    OracleReading,
    Paused,
    Reading,
    Unpaused,
)
from keeper.snapshot.decisions import Context, Price
from keeper.snapshot.gates import PAUSE_CHANGED
from keeper.snapshot.marks import engine_at
from keeper.snapshot.prices import fresh_answers
from keeper.units import PPM, BlockNumber, ChainId, ceil_div
from keeper.venue.book import SystemAccount, system_account, system_accounts
from keeper.venue.records import rows, unsigned

MEAN_S = 300
MAX_SAMPLES = 64
"""Samples per market inside five minutes: one every few seconds is enough for a mean."""
MAX_PAUSED = 64
"""Scopes of the hub whose pause is told to other chains; everywhere is the first of them."""

Samples = dict[bytes, list[tuple[int, int]]]
"""Market → (time, price) of its last five minutes, ascending."""
Cuts = dict[ChainId, list[tuple[int, bytes]]]
"""Chain → (number, hash) of the last blocks it was cut at."""
Key = tuple[bytes, int]
"""(scope, action)."""


def broken(context: Context, cuts: Cuts) -> Iterable[Reading]:
    """Return the chains that more than f members saw replace a block the network was cut at."""
    for chain, kept in sorted(cuts.items()):
        for number, digest in kept:
            others = sum(
                any(
                    head.chain == chain and head.number == number and head.hash != digest
                    for head in one.body.heads
                )
                for one in context.observed
            )
            if others > context.faults:
                yield FinalityBroken(chain, f"{others} keepers see another final block {number}")
                break


def paused(context: Context) -> Iterable[Reading]:
    """Return what governance paused, as the chains' breakers show it."""
    for spec, records in context.seen_chains():
        hub, told = spec.id == context.network.hub, 0
        for (scope,), data in rows(records, spec.contract("Breaker"), PAUSE_CHANGED, 1, 2):
            if not hub and scope != EVERYWHERE:
                continue
            about = scope if hub else chain_scope(spec.id)
            if not unsigned(data, 0):
                yield Unpaused(about)
            elif told < MAX_PAUSED:
                told += 1
                yield Paused(about)


def lifted(
    context: Context, board: Board, known: Mapping[ChainId, Mapping[Key, tuple[int, int]]]
) -> Iterable[Reading]:
    """Return the curses that governance lifted: brought to their chain, and closed there again."""
    cursed = {trip.scope for trip in board if trip.rule is Rule.CURSE}
    cursed -= {
        chain_scope(decision.chain)
        for decision in context.outstanding
        if decision.kind == "BreakerChange" and decision.fields[2] == Level.CURSED
    }
    for chain, grades in sorted(known.items()):
        scope = chain_scope(chain)
        signing = grades.get((bytes(32), int(Action.SIGN)))
        if scope in cursed and signing is not None and signing[0] == Level.CLOSED:
            yield Lifted(scope)


def sample(context: Context, samples: Samples, now: int) -> None:
    """Keep the agreed fresh prices of the last five minutes, thinned."""
    for market, price in sorted(context.prices.items()):
        taken = [(at, value) for at, value in samples.get(market, []) if at > now - MEAN_S]
        thin = taken and now - taken[-1][0] < MEAN_S // MAX_SAMPLES
        if not price.stale and not thin:
            taken.append((now, price.price_e8))
        samples[market] = taken[-MAX_SAMPLES:]


def _oracle(
    price: Price, taken: Sequence[tuple[int, int]], seen: Sequence[int], faults: int, now: int
) -> Reading:
    """Return what a price says.

    A view without a fresh one is no fault yet: its age grows. It is as uncertain as members'
    answers lie apart, without the f lowest and the f highest, so that liars cannot stretch it.

    Args:
        price: agreed.
        taken: (time, price) of the last five minutes.
        seen: every member's fresh answer of this view, ascending.
        faults: f.
        now: agreed time, seconds.
    """
    if not taken:
        return OracleReading(price.market, price.price_e8, MEAN_S, price.price_e8)
    age = now - taken[-1][0] if price.stale else 0
    mean = sum(value for _, value in taken) // len(taken)
    kept = seen[faults : len(seen) - faults]
    apart = (kept[-1] - kept[0]) * PPM // max(1, kept[0]) if kept else 0
    return OracleReading(price.market, price.price_e8, age, mean, apart)


def readings_of(context: Context, samples: Samples) -> list[Reading]:
    """Return what the view says to the breakers, in an order every keeper shares."""
    found: list[Reading] = []
    for chain, block in sorted(context.cut.items()):
        age = max(0, ceil_div(context.now_ms - block.timestamp * 1000, 1000))
        found += [AgeReading(chain, age), BlockReading(chain, BlockNumber(block.number))]
    now = context.now_ms // 1000
    most_ms = context.parameters.breakers.oracle_age_s * 1000
    answers = fresh_answers(context.observed, now_ms=context.now_ms, max_age_ms=most_ms)
    for market, price in sorted(context.prices.items()):
        seen = answers.get(market, [])
        found.append(_oracle(price, samples[market], seen, context.faults, now))
    dust = context.parameters.clearing.transfer_minimum  # clearing leaves less where it is
    below = [(m.equity, account) for account, m in context.margins.items() if m.equity < -dust]
    if below:
        equity, account = min(below)
        found += [
            NegativeAccount(chain, BlockNumber(block.number), account, equity)
            for chain, block in sorted(context.cut.items())
        ]
    found += [ExposureReading(_exposure(context)), cascade_of(context)]
    return found


def cascade_of(context: Context) -> CascadeReading:
    """Return whether liquidations would feed themselves, and who answers for what they leave."""
    engine, apart = engine_at(context), system_accounts(context.network)
    traders = [
        account
        for account in sorted(context.margins)
        if account not in apart
        and any(leg.kind is not LegKind.COLLATERAL for leg in context.legs[account])
    ]
    margins = cascade.margins_of(
        ((context.margins[account], engine.rows(context.legs[account])) for account in traders),
        len(traders),
    )
    sizes = cascade.sizes(leg for account in traders for leg in context.legs[account])
    fund = context.margins.get(system_account(context.network, SystemAccount.INSURANCE))
    return cascade.reading(
        cascade.curves(margins),
        cascade.market_depth(sizes, engine.marks),
        context.parameters.breakers,
        0 if fund is None else max(0, fund.equity),
    )


def _exposure(context: Context) -> tuple[int, ...]:
    """Return collateral before haircuts by bridge class."""
    engine, table = engine_at(context), context.parameters.margin
    classes = [0] * len(context.parameters.breakers.class_cap_ppm)
    for account in sorted(context.margins):
        for leg in context.legs[account]:
            if leg.kind != LegKind.COLLATERAL:
                continue
            try:
                rate = engine.marks.rate(leg)
            except Unpriced:
                continue
            classes[table.chain_of[leg.chain].bridge_class] += leg.size * rate.price // rate.divisor
    return tuple(classes)
