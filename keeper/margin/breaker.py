"""Circuit breakers, graded per action: what trips, what it stops, when it lets go, and why.

    agreed readings ──▶ next_board(board, readings, now) ──▶ Board of trips ──▶ changes ──▶ leaves
                                                              └──▶ allowed(action, scopes) + whys

The board is a value in the replicated state: every keeper derives the same one inside the agreed
payload, and `Breaker.vy` enforces it. A grade is 0 closed, 1 slower, 2 stopped, 3 cursed; a curse
is lifted by governance only. Where trips overlap, the strictest holds. Reducing is never stopped
but by a curse, so nobody is locked into a position.

    rule       trips when                                      lets go when
    oracle     price ≤ 0, old, far from its 5-minute mean,     readings stayed good for a while
               or uncertain
    state_age  the agreed state of a chain is old              it stayed young for a while
    curse      a chain broke its finality                      governance lifts it
    negative   an account below zero was seen                  the gate's blocks have passed
    cascade    LaR′/depth > 1, or bad debt at the probe drop   readings stayed below for a while
               exceeds the insurance fund's share
    outflow    less than the retained share is left            the window has passed
    exposure   too much value behind one bridge class          it stayed below for a while
    pause      somebody in charge paused                       un-paused, and the grace has passed
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from keeper.margin.readings import (
    AgeReading,
    BlockReading,
    CascadeReading,
    ExposureReading,
    FinalityBroken,
    Lifted,
    NegativeAccount,
    OracleReading,
    OutflowReading,
    Paused,
    Reading,
    Unpaused,
)
from keeper.parameters import BreakerParameters, BridgeClass
from keeper.units import PPM, ChainId, symbol, symbol_text

EVERYWHERE = bytes(32)
NO_END = 0


class Action(IntEnum):
    """What is graded, in the numbering of the `BreakerChange` leaf."""

    OPEN = 0
    INCREASE = 1
    WITHDRAW = 2
    REDUCE = 3
    LIQUIDATE = 4
    SIGN = 5


class Level(IntEnum):
    """How much an action is held back."""

    CLOSED = 0
    SLOW = 1
    STOP = 2
    CURSED = 3


class Rule(StrEnum):
    """The breakers."""

    ORACLE = "oracle"
    STATE_AGE = "state_age"
    CURSE = "curse"
    NEGATIVE = "negative"
    CASCADE = "cascade"
    OUTFLOW = "outflow"
    EXPOSURE = "exposure"
    PAUSE = "pause"


Grades = tuple[tuple[Action, Level], ...]
_ENTRY = ((Action.OPEN, Level.STOP), (Action.INCREASE, Level.STOP))
REDUCE_ONLY: Grades = (*_ENTRY, (Action.WITHDRAW, Level.STOP))
GRADES: dict[Rule, Grades] = {
    Rule.ORACLE: (*REDUCE_ONLY, (Action.LIQUIDATE, Level.SLOW)),
    Rule.STATE_AGE: REDUCE_ONLY,
    Rule.CURSE: tuple((action, Level.CURSED) for action in Action),
    Rule.NEGATIVE: ((Action.WITHDRAW, Level.STOP),),
    Rule.CASCADE: (
        (Action.OPEN, Level.SLOW),
        (Action.INCREASE, Level.SLOW),
        (Action.LIQUIDATE, Level.SLOW),
    ),
    Rule.OUTFLOW: ((Action.WITHDRAW, Level.STOP),),
    Rule.EXPOSURE: _ENTRY,
    Rule.PAUSE: (*REDUCE_ONLY, (Action.LIQUIDATE, Level.STOP)),
}
NO_PRICE: Grades = (*REDUCE_ONLY, (Action.LIQUIDATE, Level.STOP))
GRACE: Grades = ((Action.LIQUIDATE, Level.STOP),)
HELD = frozenset({Rule.ORACLE, Rule.STATE_AGE, Rule.CASCADE, Rule.EXPOSURE})
"""Rules whose readings may hover at their limit: they let go only after a while of good ones."""

ABOUT: dict[Rule, str] = {
    Rule.ORACLE: "a price is missing, old, far from its 5-minute mean, or uncertain",
    Rule.STATE_AGE: "the agreed state of a chain is old: what happened there since is unknown",
    Rule.CURSE: "a chain broke its own finality, so nothing it says can be relied on",
    Rule.NEGATIVE: "an account is below zero, so somebody's withdrawal may be somebody's loss",
    Rule.CASCADE: "liquidations would push the price into more liquidations than the market bears",
    Rule.OUTFLOW: "an asset leaves a venue faster than it may",
    Rule.EXPOSURE: "too much value depends on one class of bridge",
    Rule.PAUSE: "governance paused, or the grace after a pause still runs",
}
RELEASE: dict[Rule, str] = {
    Rule.ORACLE: "when readings were inside every limit for a while",
    Rule.STATE_AGE: "when the agreed state was younger than the limit for a while",
    Rule.CURSE: "when governance lifts it, never by itself",
    Rule.NEGATIVE: "when the gate's blocks have passed without another such account",
    Rule.CASCADE: "when both ratios were below their limits for a while",
    Rule.OUTFLOW: "when the window has passed",
    Rule.EXPOSURE: "when the share was at or below the cap for a while",
    Rule.PAUSE: "after the un-pause: at once, liquidations after the grace",
}


@dataclass(frozen=True, slots=True)
class Trip:
    """One breaker that is open.

    Args:
        scope: what it is about, 32 bytes; zero means everywhere.
        since: agreed time of the trip, seconds.
        until: agreed time or block at which it lapses by itself, 0 where it does not; of a rule in
            `HELD` the time before which it does not let go.
        why: the sentence for an operator, with the values.
    """

    rule: Rule
    scope: bytes
    grades: Grades
    since: int
    until: int
    why: str

    @property
    def key(self) -> tuple[str, bytes]:
        """Identity on a board."""
        return (self.rule.value, self.scope)


Board = tuple[Trip, ...]
"""Trips in key order, one per (rule, scope)."""


def chain_scope(chain: ChainId) -> bytes:
    """Return the scope of a chain."""
    return symbol(f"chain:{chain}")


def class_scope(bridge_class: int) -> bytes:
    """Return the scope of a bridge class."""
    return symbol(f"class:{bridge_class}")


def scope_text(scope: bytes) -> str:
    """Return a scope as an operator reads it."""
    if scope == EVERYWHERE:
        return "everywhere"
    try:
        return symbol_text(scope)
    except UnicodeDecodeError:
        return scope.hex()


# --- the step -------------------------------------------------------------------------------------


def next_board(
    board: Board, readings: Iterable[Reading], now: int, parameters: BreakerParameters
) -> Board:
    """Return the board after one tick's readings.

    A reading trips or releases only its own rule and scope; a trip without a reading stays, unless
    its time is over; one that may hover at its limit is released after `hold_s` of good readings.
    `since` is that of the first trip.

    Args:
        board: of the tick before.
        readings: agreed, in the agreed order.
        now: agreed time, seconds.
        parameters: the epoch's limits.
    """
    state = {trip.key: trip for trip in board if not _lapsed(trip, now)}
    for reading in readings:
        for rule, scope, trip in _judged(reading, state, now, parameters):
            key = (rule.value, scope)
            known = state.get(key)
            if trip is None:
                if known is None or rule not in HELD or now >= known.until:
                    state.pop(key, None)
            elif known is not None and known.grades == trip.grades:
                since = known.since
                state[key] = Trip(rule, scope, trip.grades, since, trip.until, trip.why)
            else:
                state[key] = trip
    return tuple(state[key] for key in sorted(state))


def _lapsed(trip: Trip, now: int) -> bool:
    timed = trip.rule in (Rule.OUTFLOW, Rule.PAUSE)
    return timed and trip.until != NO_END and now >= trip.until


Judgement = tuple[Rule, bytes, Trip | None]
TripMaker = Callable[[Rule, bytes, str], Judgement]


def _judged(
    reading: Reading, state: dict[tuple[str, bytes], Trip], now: int, limits: BreakerParameters
) -> Sequence[Judgement]:
    """Return what a reading does: (rule, scope, trip or None to release)."""

    def trip(
        rule: Rule, scope: bytes, why: str, until: int = NO_END, grades: Grades | None = None
    ) -> Judgement:
        if rule in HELD:
            until = now + limits.hold_s
        return (rule, scope, Trip(rule, scope, grades or GRADES[rule], now, until, why))

    match reading:
        case OracleReading():
            fault, grades = _oracle_fault(reading, limits)
            if fault is None:
                return [(Rule.ORACLE, reading.market, None)]
            return [trip(Rule.ORACLE, reading.market, fault, grades=grades)]
        case AgeReading(chain, age):
            scope = chain_scope(chain)
            if age <= limits.state_soft_age_s:
                return [(Rule.STATE_AGE, scope, None)]
            why = f"the state of chain {chain} is {age} s old, above {limits.state_soft_age_s} s"
            if age > limits.state_hard_age_s:
                why += f"; above {limits.state_hard_age_s} s it counts nothing for opening"
            return [trip(Rule.STATE_AGE, scope, why)]
        case FinalityBroken(chain, what):
            return [trip(Rule.CURSE, chain_scope(chain), f"chain {chain}: {what}")]
        case Lifted(scope):
            return [(Rule.CURSE, scope, None)]
        case NegativeAccount(chain, block, account, equity):
            until = block + limits.negative_gate_blocks
            why = (
                f"account {account.hex()[:8]}… has {equity} µUSD at block {block}; "
                f"withdrawals wait until block {until} of chain {chain}"
            )
            scope = chain_scope(chain)
            known = state.get((Rule.NEGATIVE.value, scope))
            if known is not None and known.until >= until:
                return []
            return [trip(Rule.NEGATIVE, scope, why, until)]
        case BlockReading(chain, block):
            known = state.get((Rule.NEGATIVE.value, chain_scope(chain)))
            over = known is not None and block >= known.until
            return [(Rule.NEGATIVE, chain_scope(chain), None)] if over else []
        case CascadeReading():
            fault = _cascade_fault(reading, limits)
            if fault is None:
                return [(Rule.CASCADE, EVERYWHERE, None)]
            return [trip(Rule.CASCADE, EVERYWHERE, fault)]
        case OutflowReading(scope, before, left, ends):
            over = before >= limits.outflow_begin
            if over and left * PPM < before * limits.outflow_retained_ppm:
                share = _percent(limits.outflow_retained_ppm)
                why = f"{left} µUSD of {before} are left, below {share}"
                return [trip(Rule.OUTFLOW, scope, why, ends)]
            return []
        case ExposureReading(classes):
            return _exposure(classes, trip, limits)
        case Paused(scope):
            return [trip(Rule.PAUSE, scope, "paused by governance")]
        case Unpaused(scope):
            known = state.get((Rule.PAUSE.value, scope))
            if known is None or known.grades == GRACE:
                return []
            until = now + limits.grace_s
            why = f"un-paused; liquidations wait until {until} so that positions can be repaired"
            return [trip(Rule.PAUSE, scope, why, until, GRACE)]


def _percent(ppm: int) -> str:
    return f"{ppm // 10_000}.{ppm // 100 % 100:02d} %"


def _oracle_fault(
    reading: OracleReading, limits: BreakerParameters
) -> tuple[str | None, Grades | None]:
    """Return what is wrong with a price, and its grades where they are not the rule's."""
    name = scope_text(reading.market)
    if reading.price <= 0:
        return f"{name} has no positive price", NO_PRICE
    if reading.age_s > limits.oracle_age_s:
        return f"the price of {name} is {reading.age_s} s old, above {limits.oracle_age_s} s", None
    apart = abs(reading.price - reading.mean)
    if apart * PPM > reading.mean * limits.divergence_ppm:
        limit = _percent(limits.divergence_ppm)
        return f"{name} at {reading.price} is over {limit} from its mean {reading.mean}", None
    if reading.confidence_ppm > limits.confidence_ppm:
        wide, limit = _percent(reading.confidence_ppm), _percent(limits.confidence_ppm)
        return f"the price of {name} is uncertain by {wide}, above {limit}", None
    return None, None


def _cascade_fault(reading: CascadeReading, limits: BreakerParameters) -> str | None:
    if reading.multiplier_ppm > limits.cascade_ppm:
        found, limit = _percent(reading.multiplier_ppm), _percent(limits.cascade_ppm)
        return f"the cascade multiplier is {found}, above {limit}"
    matters = reading.bad_debt >= limits.bad_debt_begin
    if matters and reading.bad_debt * PPM > reading.insurance * limits.insurance_ppm:
        drop = _percent(limits.insurance_probe_ppm)
        debt, fund = reading.bad_debt, reading.insurance
        return (
            f"a drop of {drop} would leave {debt} µUSD of bad debt; the insurance fund has {fund}"
        )
    return None


def _exposure(
    classes: Sequence[int], trip: TripMaker, limits: BreakerParameters
) -> list[Judgement]:
    total = sum(classes)
    found: list[Judgement] = []
    for index, (value, cap) in enumerate(zip(classes, limits.class_cap_ppm, strict=True)):
        scope = class_scope(index)
        if value * PPM > total * cap:
            share, limit = _percent(value * PPM // total), _percent(cap)
            name = BridgeClass(index).name.lower()
            why = f"{share} of all collateral is behind {name} bridges, above {limit}"
            found.append(trip(Rule.EXPOSURE, scope, why))
        else:
            found.append((Rule.EXPOSURE, scope, None))
    return found


# --- asking ---------------------------------------------------------------------------------------


def allowed(board: Board, action: Action, scopes: Iterable[bytes]) -> tuple[Level, tuple[str, ...]]:
    """Return the strictest level of an action over scopes (and everywhere), and why."""
    asked = {EVERYWHERE, *scopes}
    level, whys = Level.CLOSED, []
    for trip in board:
        grade = dict(trip.grades).get(action, Level.CLOSED)
        if trip.scope in asked and grade > Level.CLOSED:
            level = max(level, grade)
            whys.append(f"{trip.rule.value} ({scope_text(trip.scope)}): {trip.why}")
    return level, tuple(whys)


def grades_of(board: Board) -> dict[tuple[bytes, Action], Level]:
    """Return the strictest level per (scope, action) that is not closed."""
    found: dict[tuple[bytes, Action], Level] = {}
    for trip in board:
        for action, level in trip.grades:
            key = (trip.scope, action)
            found[key] = max(found.get(key, Level.CLOSED), level)
    return found


def grades_on(board: Board, chain: ChainId, bridge_class: int) -> dict[tuple[bytes, Action], Level]:
    """Return what the Breaker of one chain is to hold: the strictest level per (scope, action).

    What is about the chain, or about its bridge class, is everywhere there; what is about another
    chain or class is not its business.
    """
    here = {EVERYWHERE, chain_scope(chain), class_scope(bridge_class)}
    found: dict[tuple[bytes, Action], Level] = {}
    for trip in board:
        if trip.scope not in here and trip.scope.startswith((b"chain:", b"class:")):
            continue
        scope = EVERYWHERE if trip.scope in here else trip.scope
        for action, level in trip.grades:
            found[scope, action] = max(found.get((scope, action), Level.CLOSED), level)
    return found


def changes(old: Board, new: Board) -> list[tuple[bytes, Action, Level]]:
    """Return what contracts must be told: (scope, action, new level), in (scope, action) order."""
    before, after = grades_of(old), grades_of(new)
    keys = sorted(before.keys() | after.keys())
    found = [(key, after.get(key, Level.CLOSED)) for key in keys]
    return [(s, a, level) for (s, a), level in found if before.get((s, a), Level.CLOSED) != level]


def explain(rule: Rule) -> str:
    """Return what a rule is for, what it holds back and when it lets go, for an operator."""
    held = [f"{action.name.lower()}: {level.name.lower()}" for action, level in GRADES[rule]]
    return f"{rule.value}: {ABOUT[rule]}.\nHolds back: {', '.join(held)}.\nLets go {RELEASE[rule]}."
