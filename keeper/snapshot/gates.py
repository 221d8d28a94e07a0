"""How far a breaker holds an action back on a chain: in force there, or decided and on its way.

    Breaker: Graded(scope, action, level, nonce, until) ────────────────┐
             PauseChanged(scope, paused, liquidate_at) ── governance ───┼─▶ level(action, chain, …)
    BreakerChange in flight ────────────────────────────────────────────┘

The scopes that matter are everywhere, the chain itself, and what the caller names: the markets an
account stands in. A change that tightens counts from the moment it is decided, one that loosens
from the moment the chain shows it: between the two the stricter holds.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from keeper.hashing import type_hash
from keeper.legs import Leg, LegKind
from keeper.margin.breaker import EVERYWHERE, GRACE, GRADES, Action, Level, Rule, chain_scope
from keeper.margin.engine import Engine
from keeper.margin.marks import Unpriced
from keeper.snapshot.decisions import Context
from keeper.units import ChainId, ceil_div
from keeper.venue.records import unsigned

GRADED = type_hash("Graded(bytes32,uint8,uint8,uint64,uint64)")
PAUSE_CHANGED = type_hash("PauseChanged(bytes32,bool,uint64)")
_PAUSED, _GRACE = dict(GRADES[Rule.PAUSE]), dict(GRACE)


def stopped(context: Context, action: Action, chain: ChainId, *scopes: bytes) -> bool:
    """Return whether an action is refused on a chain, for what the scopes name."""
    return level(context, action, chain, *scopes) >= Level.STOP


def slowed(context: Context, action: Action, chain: ChainId, *scopes: bytes) -> bool:
    """Return whether an action goes on, but held back."""
    return level(context, action, chain, *scopes) == Level.SLOW


def level(context: Context, action: Action, chain: ChainId, *scopes: bytes) -> Level:
    """Return the strictest level of an action on a chain."""
    asked = {EVERYWHERE, chain_scope(chain), *scopes}
    found = [
        Level(decision.fields[2])
        for decision in context.outstanding
        if decision.kind == "BreakerChange"
        and decision.chain == chain
        and decision.fields[0] in asked
        and decision.fields[1] == action
        and isinstance(decision.fields[2], int)
    ]
    found += _in_force(context, action, chain, asked)
    return max(found, default=Level.CLOSED)


def countable(context: Context, engine: Engine, legs: Iterable[Leg]) -> tuple[Leg, ...]:
    """Return legs without what helps an account on chains that nobody can rely on.

    What a chain that broke its finality holds, or one not heard of for the hard age, secures
    nothing new elsewhere: neither collateral nor a gain. What is owed there stays owed.
    """
    hard = context.parameters.breakers.state_hard_age_s
    gone = {
        chain
        for chain, block in context.cut.items()
        if ceil_div(context.now_ms, 1000) - block.timestamp > hard
        or stopped(context, Action.SIGN, chain)
    }
    kept = []
    for leg in legs:
        if leg.chain not in gone:
            kept.append(leg)
        elif leg.kind is LegKind.PERP:
            kept.append(_without_gain(engine, leg))
        elif leg.kind is LegKind.DEBT:
            kept.append(leg)
    return tuple(kept)


def _without_gain(engine: Engine, leg: Leg) -> Leg:
    """Return a perp leg whose unrealised result is a loss or nothing; funding stays."""
    try:
        rate = engine.marks.rate(leg)
    except Unpriced:
        return leg
    gain = max(0, leg.size * rate.price // rate.divisor + leg.quote)
    return replace(leg, quote=leg.quote - gain)


def _in_force(
    context: Context, action: Action, chain: ChainId, scopes: set[bytes]
) -> Iterator[Level]:
    """Yield the levels that the chain's own breaker contract shows at the cut."""
    records, at = context.tables.get(chain), context.network.chain(chain).contract("Breaker")
    block = context.cut.get(chain)
    if records is None or at is None or block is None:
        return
    for scope in scopes:
        data = records.get(at, GRADED, scope, int(action).to_bytes(32, "big"))
        if data is not None and unsigned(data, 0) in set(Level):
            until = unsigned(data, 2)
            if until == 0 or block.number <= until:
                yield Level(unsigned(data, 0))
        data = records.get(at, PAUSE_CHANGED, scope)
        if data is not None and unsigned(data, 0):
            yield _PAUSED.get(action, Level.CLOSED)
        elif data is not None and block.timestamp < unsigned(data, 1):
            yield _GRACE.get(action, Level.CLOSED)
