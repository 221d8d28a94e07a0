"""Atomic flows: one outcome per flow id, for every chain and for ever.

    Prepared on some chain ─▶ waiting ─┬─ every leg is locked and final at the cut ─▶ COMMIT
                                       └─ a leg is not, and its chain's clock at
                                          the cut is past the time to lock it      ─▶ ABORT, late
    outcome ─▶ FlowOutcome leaf per chain that holds a leg ─▶ Settled there ─▶ forgotten here

    flow = keccak(network, epoch, number, times, root of leg hashes)     see keeper/venue/escrow.py

A keeper is told nothing: it reads legs from the agreed tables, and they are the whole flow exactly
when their hashes give its id. So a flow with a leg that nobody locked, with another amount, or of
another epoch cannot commit. Both outcomes follow from final blocks, and an escrow takes no lock
after the time, so they exclude each other. Where all deposits were placed, a payer that has not
locked is late: its deposit goes to those who have. An outcome stays in the state until every chain
that holds a leg has shown it; from then on the tables themselves say it, so it can never change. It
is sealed again while a chain has not taken it, also by a later committee: a chain that was cut off
for a day gets the same outcome. A flow that reduces positions also needs room within governance's
limit (keeper/settle/reductions.py), and none commits on the word of a chain that broke its own
finality; if that lasts until the time to lock is over, the flow aborts, which is safe whatever
such a chain says later. Sources: Herlihy, Liskov, Shrira (1905.09743), docs/flows.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgpack

from keeper.hashing import keccak
from keeper.leaves import flow_outcome_leaf
from keeper.margin.breaker import Action
from keeper.settle.reductions import Windows, possible, running, take
from keeper.snapshot.decisions import Context, Decision
from keeper.snapshot.gates import stopped
from keeper.units import ChainId
from keeper.venue.escrow import LOCKED, Leg, Prepared, Terms, outcomes, prepared

COMMIT, ABORT = 1, 2
STALL_S = 3_600
"""A chain whose clock stands still this long past a time holds a flow up no longer; it is not
known who was late then, and nobody is."""
MAX_FLOWS = 512
"""Outcomes remembered at once. Half of it is kept for commits, so aborts cannot crowd them."""
MAX_NEW = 128
"""Undecided flows looked at in one view, drawn by a hash: junk can delay others, not bar them."""
MAX_PER_VIEW = 32
MAX_FLYING = 256
"""Outcomes of one view, and on their way: a small part of what a book holds."""
OUTCOME_BLOCKS = 600
"""Blocks an outcome is given to reach its chain before it is sealed again."""


@dataclass(frozen=True, slots=True)
class FlowRow:
    """What is remembered of a decided flow: its id, its outcome, a bit per late leg."""

    flow: bytes
    outcome: int
    late: int = 0


@dataclass(frozen=True, slots=True)
class FlowState:
    """What is remembered: decided flows by id, and what flows closed in windows that run."""

    rows: tuple[FlowRow, ...] = ()
    windows: tuple[tuple[ChainId, bytes, int, int], ...] = ()

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        rows = [[row.flow, row.outcome, row.late] for row in self.rows]
        packed: bytes = msgpack.packb([rows, [list(one) for one in self.windows]])
        return packed

    @staticmethod
    def decode(raw: bytes) -> "FlowState":
        """Return the state that `encode` wrote.

        Raises:
            ValueError: the bytes are something else.
        """
        try:
            rows, windows = msgpack.unpackb(raw, raw=False)
            state = FlowState(
                tuple(FlowRow(*row) for row in rows),
                tuple((ChainId(chain), *rest) for chain, *rest in windows),
            )
            canonical = state.encode()
        except (TypeError, ValueError, msgpack.exceptions.UnpackException) as error:
            raise ValueError(f"malformed flows: {error}") from error
        if canonical != raw:
            raise ValueError("the flows' bytes are not canonical")
        return state


@dataclass(slots=True)
class Locked:
    """What the tables show of one flow: its legs where it waits, and outcomes that came."""

    legs: dict[int, Prepared] = field(default_factory=dict)
    settled: dict[ChainId, tuple[int, int]] = field(default_factory=dict)

    @property
    def terms(self) -> Terms:
        """The same in every leg: the id binds them."""
        return next(iter(self.legs.values())).terms

    @property
    def waiting(self) -> tuple[ChainId, ...]:
        """Chains that hold something of it and know no outcome, sorted."""
        found = {one.leg.chain for one in self.legs.values() if not one.left}
        return tuple(sorted(found - self.settled.keys()))

    @property
    def agreed(self) -> tuple[Leg, ...]:
        """The legs that are known."""
        return tuple(one.leg for one in self.legs.values())

    @property
    def missing(self) -> tuple[Prepared, ...]:
        """Known legs that are not locked."""
        return tuple(one for one in self.legs.values() if one.stage != LOCKED)

    def is_known(self, network: bytes, flow: bytes) -> bool:
        """Return whether these are all legs of the flow, pledged or locked."""
        if sorted(self.legs) != list(range(len(self.legs))):
            return False
        hashes = [self.legs[at].leg.hash for at in range(len(self.legs))]
        return self.terms.flow_id(network, hashes) == flow

    def late(self) -> int:
        """Return a bit per leg that is not locked while one of another payer is."""
        waited = {one.leg.payer for one in self.legs.values() if one.stage == LOCKED}
        return sum(1 << one.index for one in self.missing if waited - {one.leg.payer})


def locked_flows(context: Context) -> dict[bytes, Locked]:
    """Return the flows that some chain of the cut waits for; what is settled there is skipped."""
    settled = {spec.id: outcomes(spec, table) for spec, table in context.seen_chains()}
    found: dict[bytes, Locked] = {}
    for spec, table in context.seen_chains():
        for one in prepared(spec, table, settled[spec.id]):
            found.setdefault(one.flow, Locked()).legs[one.index] = one
    for chain, came in settled.items():
        for flow in came.keys() & found.keys():
            found[flow].settled[chain] = came[flow]
    return {flow: one for flow, one in found.items() if one.waiting}


def judge(context: Context, flow: bytes, one: Locked) -> FlowRow | None:
    """Return the outcome of a flow that has none here, or None while it waits."""
    if one.settled:  # decided and forgotten before this leg came
        return FlowRow(flow, *min(one.settled.values()))
    terms, missing = one.terms, one.missing
    known = one.is_known(context.network.id, flow)
    if known and not missing:
        fresh = terms.epoch in (context.epoch, context.epoch - 1)
        whole = fresh and not any(leg.left for leg in one.legs.values())
        able = whole and possible(context, one.agreed)
        return FlowRow(flow, COMMIT if able else ABORT)
    chains = {leg.leg.chain for leg in missing}
    if not known:  # what is not announced may be on any chain
        chains = {spec.id for spec in context.network.chains if spec.contract("Escrow")}
    until = terms.lock_by if known or not terms.arm_by else terms.arm_by
    if _passed(context, chains, until):
        return FlowRow(flow, ABORT, one.late() if known and terms.arm_by else 0)
    if context.now_ms > (until + STALL_S) * 1000:
        return FlowRow(flow, ABORT)
    return None


def _passed(context: Context, chains: Iterable[ChainId], until: int) -> bool:
    """Return whether the clocks of these chains are past a time at the cut."""
    return all(chain in context.cut and context.cut[chain].timestamp > until for chain in chains)


def limited(context: Context, row: FlowRow, one: Locked, windows: Windows) -> FlowRow | None:
    """Return a flow's outcome, or None while it waits to commit.

    It waits while a chain of it is cursed, and while governance's limit has no room.
    """
    chains = {leg.chain for leg in one.agreed}
    cursed = any(stopped(context, Action.SIGN, chain) for chain in chains)
    if row.outcome == ABORT or one.settled or (not cursed and take(context, windows, one.agreed)):
        return row
    stalled = context.now_ms > (one.terms.lock_by + STALL_S) * 1000
    late = stalled or _passed(context, chains, one.terms.lock_by)
    return FlowRow(row.flow, ABORT) if late else None


@dataclass(frozen=True, slots=True)
class FlowRule:
    """Decides flows; its state is the outcomes that some chain still waits for.

    Invariants: a flow has one outcome for ever; COMMIT only if every leg is locked in the tables.
    """

    name: str = "flow"

    def initial(self) -> bytes:
        """Return the state before the first view."""
        return FlowState().encode()

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return no hashes: this rule needs no bodies."""
        return frozenset()

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the outcomes that are still waited for, and the decisions of this view."""
        waiting, before = locked_flows(context), FlowState.decode(state)
        rows = [row for row in before.rows if row.flow in waiting]
        windows = running(context, {(at, name): one for at, name, *one in before.windows})
        view = context.view.to_bytes(8, "big")
        known = {row.flow for row in rows}
        fresh = sorted(waiting.keys() - known, key=lambda flow: keccak(view + flow))
        judged = (judge(context, flow, waiting[flow]) for flow in fresh[:MAX_NEW])
        for row in sorted(filter(None, judged), key=lambda row: row.outcome):
            if len(rows) < (MAX_FLOWS if row.outcome == COMMIT else MAX_FLOWS // 2):
                allowed = limited(context, row, waiting[row.flow], windows)
                rows += [] if allowed is None else [allowed]
        flying = {decision.leaf for decision in context.outstanding}
        most = MAX_FLYING - sum(one.kind == "FlowOutcome" for one in context.outstanding)
        made: list[Decision] = []
        for row in sorted(rows, key=lambda row: (row.outcome, row.flow)):
            for chain in waiting[row.flow].waiting:
                decision = outcome_decision(context, chain, row)
                if decision.leaf not in flying and len(made) < min(MAX_PER_VIEW, most):
                    made.append(decision)
        rows.sort(key=lambda row: row.flow)
        kept = tuple((*key, *one) for key, one in sorted(windows.items()))
        after = FlowState(tuple(rows), kept)
        return after.encode(), tuple(sorted(made, key=lambda decision: decision.order))


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
            late=row.late,
        ),
        fields=(row.flow, row.outcome, row.late),
        expiry=context.cut[chain].number + OUTCOME_BLOCKS,
    )
