"""Atomic flows: one outcome per flow id, for every chain and for ever.

    Prepared on some chain ─▶ waiting ─┬─ every leg is locked and final at the cut ─▶ COMMIT
                                       └─ the deadline passed and one is not       ─▶ ABORT
    outcome ─▶ FlowOutcome leaf per chain that holds a leg ─▶ Settled there ─▶ forgotten here

    flow = keccak(network, nonce, keccak(leg hashes))     a leg's hash names chain and escrow
    nonce = keccak(epoch, number)                         number < NUMBERS

A keeper is told nothing: it reads locked legs from the agreed tables, and they are the whole flow
exactly when their hashes give its id. So a flow with a leg that nobody locked, with another amount,
or under a nonce of another epoch cannot commit. An outcome stays in the state until every chain
that holds a leg has shown it; from then on the tables themselves say it, so it can never change. It
is sealed again while a chain has not taken it, also by a later committee: a chain that was cut off
for a day gets the same outcome. Sources: Herlihy, Liskov, Shrira (1905.09743), docs/flows.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import msgpack

from keeper.hashing import abi_hash, keccak, type_hash
from keeper.leaves import FLOW, flow_outcome_leaf
from keeper.snapshot.decisions import Context, Decision
from keeper.units import ChainId
from keeper.venue.escrow import PreparedLeg, outcome, prepared

COMMIT, ABORT = 1, 2
NUMBERS = 64
"""Flows with the very same legs in one epoch; any leg that differs begins a new count."""
PREPARE_MS = 600_000
"""Time from the first leg seen to abort: some finalities of a slow chain, far below an escape."""
MAX_FLOWS = 512
"""Flows remembered at once. Half of it is kept for outcomes, so waiting ones cannot crowd them."""
MAX_NEW = 128
"""New flows looked at in one view, drawn by a hash: junk can delay others but not bar them."""
MAX_PER_VIEW = 32
MAX_FLYING = 256
"""Outcomes of one view, and on their way: a small part of what a book holds."""
OUTCOME_BLOCKS = 600
"""Blocks an outcome is given to reach its chain before it is sealed again."""

_FLOW_TYPE = type_hash(FLOW)
_NONCE_TYPE = type_hash("FlowNonce(uint32 epoch,uint32 number)")


@cache
def flow_nonce(epoch: int, number: int) -> bytes:
    """Return the nonce of the `number`-th flow with the same legs in an epoch."""
    return abi_hash(("bytes32", "uint32", "uint32"), (_NONCE_TYPE, epoch, number))


def is_whole(network: bytes, flow: bytes, epoch: int, legs: Sequence[bytes]) -> bool:
    """Return whether these leg hashes, in order, are all legs of the flow.

    The epoch is the one in which the flow was first seen; a nonce of the one before is as good,
    since a flow may be opened while the committee changes.
    """
    words = keccak(b"".join(legs))
    return any(
        keccak(_FLOW_TYPE + network + flow_nonce(one, number) + words) == flow
        for one in (epoch, epoch - 1)
        if one >= 0
        for number in range(NUMBERS)
    )


@dataclass(frozen=True, slots=True)
class FlowRow:
    """What is remembered of a flow.

    Args:
        flow: its id.
        epoch: committee epoch in which a leg was first seen.
        since_ms: time of that view.
        outcome: 0 while it waits.
        tried: locked legs that were last found not to be the whole flow.
    """

    flow: bytes
    epoch: int
    since_ms: int
    outcome: int = 0
    tried: int = 0


def encode_rows(rows: Sequence[FlowRow]) -> bytes:
    """Return the canonical bytes of rows sorted by flow."""
    packed: bytes = msgpack.packb([[r.flow, r.epoch, r.since_ms, r.outcome, r.tried] for r in rows])
    return packed


def decode_rows(raw: bytes) -> tuple[FlowRow, ...]:
    """Return the rows that `encode_rows` wrote.

    Raises:
        ValueError: the bytes are something else.
    """
    try:
        rows = tuple(FlowRow(*row) for row in msgpack.unpackb(raw, raw=False))
        canonical = encode_rows(rows)
    except (TypeError, ValueError, msgpack.exceptions.UnpackException) as error:
        raise ValueError(f"malformed flows: {error}") from error
    if canonical != raw:
        raise ValueError("the flows' bytes are not canonical")
    return rows


@dataclass(slots=True)
class Locked:
    """What the tables show of one flow: its legs, and outcomes that came, by chain."""

    legs: list[PreparedLeg] = field(default_factory=list)
    settled: dict[ChainId, int] = field(default_factory=dict)

    @property
    def waiting(self) -> tuple[ChainId, ...]:
        """Chains that hold a leg and know no outcome, sorted."""
        found = {leg.chain for leg in self.legs if not leg.left and leg.chain not in self.settled}
        return tuple(sorted(found))

    def hashes(self) -> tuple[bytes, ...] | None:
        """Return the leg hashes in order, or None when one is missing or has left."""
        legs = sorted(self.legs, key=lambda leg: leg.index)
        if [leg.index for leg in legs] != list(range(len(legs))) or any(leg.left for leg in legs):
            return None
        return tuple(leg.hash for leg in legs)


def locked_flows(context: Context) -> dict[bytes, Locked]:
    """Return every flow of the tables at the cut, sorted by id."""
    found: dict[bytes, Locked] = {}
    for spec, records in context.seen_chains():
        for leg in prepared(spec, records):
            flow = found.setdefault(leg.flow, Locked())
            flow.legs.append(leg)
            came = outcome(spec, records, leg.flow)
            if came:
                flow.settled[spec.id] = came
    return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class FlowRule:
    """Decides flows; its state is the rows of those that some chain still waits for.

    Invariants: a flow has one outcome for ever; COMMIT only if every leg is locked in the tables.
    """

    name: str = "flow"
    prepare_ms: int = PREPARE_MS

    def initial(self) -> bytes:
        """Return the state before the first view."""
        return encode_rows(())

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return no hashes: this rule needs no bodies."""
        return frozenset()

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the flows that wait on, and the outcomes of this view."""
        locked = locked_flows(context)
        rows = self._rows(context, decode_rows(state), locked)
        flying = {decision.leaf for decision in context.outstanding}
        most = MAX_FLYING - sum(one.kind == "FlowOutcome" for one in context.outstanding)
        made: list[Decision] = []
        for row in rows:
            for chain in locked[row.flow].waiting if row.outcome else ():
                decision = outcome_decision(context, chain, row)
                if decision.leaf not in flying and len(made) < min(MAX_PER_VIEW, most):
                    made.append(decision)
        return encode_rows(rows), tuple(sorted(made, key=lambda decision: decision.order))

    def _rows(
        self, context: Context, before: Sequence[FlowRow], locked: Mapping[bytes, Locked]
    ) -> list[FlowRow]:
        """Return what is remembered after this view, sorted by flow."""
        waiting = {flow: one for flow, one in locked.items() if one.waiting}
        known = {row.flow for row in before}
        rows = [
            self._next(context, row, waiting[row.flow]) for row in before if row.flow in waiting
        ]
        view = context.view.to_bytes(8, "big")
        fresh = sorted(waiting.keys() - known, key=lambda flow: keccak(view + flow))
        for flow in fresh[:MAX_NEW]:
            row = self._next(context, FlowRow(flow, context.epoch, context.now_ms), waiting[flow])
            if len(rows) < (MAX_FLOWS if row.outcome else MAX_FLOWS // 2):
                rows.append(row)
        return sorted(rows, key=lambda row: row.flow)

    def _next(self, context: Context, row: FlowRow, one: Locked) -> FlowRow:
        """Return a flow's row after this view."""
        if row.outcome:
            return row
        if one.settled:  # decided and forgotten before this leg was locked
            return replace(row, outcome=min(one.settled.values()))
        count = len(one.legs)
        legs = one.hashes() if count != row.tried else None
        if legs is not None and is_whole(context.network.id, row.flow, row.epoch, legs):
            return replace(row, outcome=COMMIT)
        if context.now_ms > row.since_ms + self.prepare_ms:
            return replace(row, outcome=ABORT)
        return replace(row, tried=count)


def outcome_decision(context: Context, chain: ChainId, row: FlowRow) -> Decision:
    """Return the leaf of a decided flow for one chain."""
    escrow = context.network.chain(chain).contract("Escrow")
    assert escrow is not None, f"chain {chain} has no escrow"
    return Decision(
        kind="FlowOutcome",
        chain=chain,
        contract=escrow,
        key=chain.to_bytes(8, "big") + row.flow,
        leaf=flow_outcome_leaf(
            context.network.id,
            context.epoch,
            chain,
            escrow,
            flow=row.flow,
            outcome=row.outcome,
        ),
        fields=(row.flow, row.outcome),
        expiry=context.cut[chain].number + OUTCOME_BLOCKS,
    )
