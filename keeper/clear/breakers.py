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

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgpack

from keeper.clear import outflow, readings
from keeper.clear.readings import Cuts, Key, Samples
from keeper.leaves import breaker_change_leaf
from keeper.margin.breaker import (
    Action,
    Board,
    Level,
    Rule,
    chain_scope,
    grades_on,
    next_board,
)
from keeper.margin.dump import decode_board, encode_board
from keeper.network import ChainSpec
from keeper.snapshot.decisions import Context, Decision
from keeper.snapshot.gates import GRADED
from keeper.units import ChainId
from keeper.venue.records import rows, unsigned

MAX_PER_VIEW = 64
FLIGHT_BLOCKS = 40
"""After so many blocks an undelivered change is forgotten and, if still needed, decided again."""
KEPT_CUTS = 32
"""Cut blocks remembered per chain: observations name blocks of the last few views only."""


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
        readings.sample(context, samples, now)
        windows = outflow.follow(context, memory.windows, now)
        known = {spec.id: _known(context, spec) for spec in context.network.chains}
        said = [
            *readings.lifted(context, board, known),
            *readings.broken(context, cuts),
            *readings.paused(context),
            *readings.readings_of(context, samples),
            *outflow.readings(context, windows),
        ]
        board = next_board(board, said, now, context.parameters.breakers)
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


def _own_pauses_apart(context: Context, board: Board, chain: ChainId) -> Board:
    """Return the board without the pauses that this very chain declared."""
    hub = chain == context.network.hub
    return tuple(
        trip
        for trip in board
        if trip.rule is not Rule.PAUSE or not (hub or trip.scope == chain_scope(chain))
    )


def _known(context: Context, spec: ChainSpec) -> dict[Key, tuple[int, int]]:
    """Return (level, nonce) per (scope, action) as the chain's Breaker shows them."""
    records = context.tables.get(spec.id)
    if records is None:
        return {}
    return {
        (scope, int.from_bytes(action, "big")): (unsigned(data, 0), unsigned(data, 1))
        for (scope, action), data in rows(records, spec.contract("Breaker"), GRADED, 2, 3)
    }


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
