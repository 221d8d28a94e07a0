"""Breakers decided inside the agreed payload: readings, the board, and what chains learn.

    margins, prices, cut ─┬▶ readings ─▶ next_board ─▶ grades per chain ─┐
    PauseChanged records ─┘                                              │
    Breaker's Graded records, changes in flight ─▶ what the chain knows ─┴▶ BreakerChange leaves

The rule's state is the board, the prices of the last five minutes, what left the vaults in the
running windows (outflow.py), and the last blocks it was cut at: if more than f members see another
final block there, the chain broke its finality. A change is decided when a chain knows another
level than the board says; while one is in flight for a scope and action only a stricter one is
added. A curse is left alone once the chain holds it: governance lifts it there, and the board
follows the chain. A pause of everything on the hub is a pause of the network; on another chain it
is that chain's, as is a pause of one scope there. What a chain paused itself it is not told.
Source: docs/margin.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgpack

from keeper.clear import outflow
from keeper.leaves import breaker_change_leaf
from keeper.legs import LegKind
from keeper.margin import cascade
from keeper.margin.breaker import (
    EVERYWHERE,
    Action,
    Board,
    Level,
    Rule,
    chain_scope,
    grades_on,
    next_board,
)
from keeper.margin.dump import decode_board, encode_board
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
from keeper.network import ChainSpec
from keeper.snapshot.decisions import Context, Decision, Price
from keeper.snapshot.gates import GRADED, PAUSE_CHANGED
from keeper.snapshot.marks import engine_at
from keeper.snapshot.prices import fresh_answers
from keeper.units import PPM, BlockNumber, ChainId, ceil_div
from keeper.venue.book import SystemAccount, system_account, system_accounts
from keeper.venue.records import rows, unsigned

MEAN_S = 300
MAX_SAMPLES = 64
"""Samples per market inside five minutes: one every few seconds is enough for a mean."""
MAX_PER_VIEW = 64
FLIGHT_BLOCKS = 40
"""After so many blocks an undelivered change is forgotten and, if still needed, decided again."""
KEPT_CUTS = 32
"""Cut blocks remembered per chain: observations name blocks of the last few views only."""

MAX_PAUSED = 64
"""Scopes of the hub whose pause is told to other chains; everywhere is the first of them."""

Samples = dict[bytes, list[tuple[int, int]]]
Cuts = dict[ChainId, list[tuple[int, bytes]]]
Key = tuple[bytes, int]


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """Trips and releases breakers."""

    name: str = "breakers"

    def initial(self) -> bytes:
        """Return the state before the first view: no trip, no price."""
        return Memory().encode()

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return no hashes: this rule needs no bodies."""
        return frozenset()

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the next board and the changes chains are to learn."""
        memory = decode(state)
        board, samples, cuts = memory.board, memory.samples, memory.cuts
        now = context.now_ms // 1000
        _sample(context, samples, now)
        windows = outflow.follow(context, memory.windows, now)
        known = {spec.id: _known(context, spec) for spec in context.network.chains}
        readings = [*_lifted(context, board, known), *_broken(context, cuts), *_paused(context)]
        readings += [*readings_of(context, samples), *outflow.readings(context, windows)]
        board = next_board(board, readings, now, context.parameters.breakers)
        made: list[Decision] = []
        for spec in context.network.chains:
            made += _changes(context, spec, board, known[spec.id])
        for chain, block in context.cut.items():
            kept = [pair for pair in cuts.get(chain, []) if pair[0] != block.number]
            cuts[chain] = [*kept, (block.number, block.hash)][-KEPT_CUTS:]
        made.sort(key=lambda decision: decision.order)
        return Memory(board, samples, cuts, windows).encode(), tuple(made[:MAX_PER_VIEW])


@dataclass(frozen=True, slots=True)
class Memory:
    """The rule's state: see the module."""

    board: Board = ()
    samples: Samples = field(default_factory=dict)
    cuts: Cuts = field(default_factory=dict)
    windows: outflow.Windows = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the bytes for the book."""
        prices, cuts = sorted(self.samples.items()), sorted(self.cuts.items())
        packed: bytes = msgpack.packb(
            [encode_board(self.board), prices, cuts, outflow.encode(self.windows)]
        )
        return packed


def decode(state: bytes) -> Memory:
    """Return the rule's state; one without windows was made before they were kept."""
    trips, samples, cuts, *rest = msgpack.unpackb(state, use_list=False)
    return Memory(
        decode_board(trips),
        {market: list(taken) for market, taken in samples},
        {ChainId(chain): list(kept) for chain, kept in cuts},
        outflow.decode(rest[0] if rest else ()),
    )


def _broken(context: Context, cuts: Cuts) -> Iterable[Reading]:
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


def _paused(context: Context) -> Iterable[Reading]:
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


def _own_pauses_apart(context: Context, board: Board, chain: ChainId) -> Board:
    """Return the board without the pauses that this very chain declared."""
    hub = chain == context.network.hub
    return tuple(
        trip
        for trip in board
        if trip.rule is not Rule.PAUSE or not (hub or trip.scope == chain_scope(chain))
    )


def _sample(context: Context, samples: Samples, now: int) -> None:
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


def _known(context: Context, spec: ChainSpec) -> dict[Key, tuple[int, int]]:
    """Return (level, nonce) per (scope, action) as the chain's Breaker shows them."""
    records = context.tables.get(spec.id)
    if records is None:
        return {}
    return {
        (scope, int.from_bytes(action, "big")): (unsigned(data, 0), unsigned(data, 1))
        for (scope, action), data in rows(records, spec.contract("Breaker"), GRADED, 2, 3)
    }


def _lifted(
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


def _changes(
    context: Context, spec: ChainSpec, board: Board, known: Mapping[Key, tuple[int, int]]
) -> list[Decision]:
    """Return the changes one chain is to learn."""
    contract, block = spec.contract("Breaker"), context.cut.get(spec.id)
    parameters = context.parameters.margin.chain_of.get(spec.id)
    if contract is None or block is None or parameters is None:
        return []
    told = _own_pauses_apart(context, board, spec.id)
    others = _tokens_elsewhere(context, spec)
    told = tuple(trip for trip in told if trip.scope not in others)
    wanted = grades_on(told, spec.id, parameters.bridge_class)
    flying: dict[Key, tuple[int, int]] = {}
    for decision in context.outstanding:
        if decision.kind == "BreakerChange" and decision.chain == spec.id:
            scope, action, level, nonce, _ = decision.fields
            assert isinstance(scope, bytes)
            assert isinstance(action, int)
            assert isinstance(level, int)
            assert isinstance(nonce, int)
            best = flying.get((scope, action), (0, 0))
            flying[scope, action] = max((level, nonce), best, key=lambda pair: pair[1])
    made = []
    keys = {(scope, int(action)) for scope, action in wanted} | set(known) | set(flying)
    for scope, action in sorted(keys):
        level = int(wanted.get((scope, Action(action)), Level.CLOSED))
        held, nonce = known.get((scope, action), (0, 0))
        on_way = flying.get((scope, action))
        if held == Level.CURSED or (on_way is None and level == held):
            continue
        if on_way is not None and level <= on_way[0]:
            continue
        following = max(nonce, on_way[1] if on_way else 0) + 1
        made.append(_decision(context, spec, contract, (scope, action, level, following, 0)))
    return made


def _tokens_elsewhere(context: Context, spec: ChainSpec) -> set[bytes]:
    """Return the scopes of tokens that only other chains have."""
    own = {token.address for token in spec.tokens}
    every = {token.address for chain in context.network.chains for token in chain.tokens}
    return {outflow.token_scope(token) for token in every - own}


def _decision(
    context: Context, spec: ChainSpec, contract: bytes, fields: tuple[bytes, int, int, int, int]
) -> Decision:
    scope, action, level, nonce, until = fields
    return Decision(
        kind="BreakerChange",
        chain=spec.id,
        contract=contract,
        key=spec.id.to_bytes(8, "big") + scope + bytes([action]) + nonce.to_bytes(8, "big"),
        leaf=breaker_change_leaf(
            context.network.id,
            context.epoch,
            spec.id,
            contract,
            scope=scope,
            action=action,
            level=level,
            nonce=nonce,
            until=until,
        ),
        fields=fields,
        expiry=0 if level == Level.CURSED else context.cut[spec.id].number + FLIGHT_BLOCKS,
    )
