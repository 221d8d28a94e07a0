"""Whether a tripped breaker stops an action on a chain: in force there, or decided and on its way.

    Breaker: Graded(scope, action, level, nonce, until) ─┐
    BreakerChange in flight ─────────────────────────────┴─▶ stopped(action, chain)

The scopes that matter to a chain are everywhere and the chain itself. A change that tightens counts
from the moment it is decided, one that loosens from the moment the chain shows it: between the two
the stricter holds.
"""

from keeper.hashing import type_hash
from keeper.margin.breaker import EVERYWHERE, Action, Level, chain_scope
from keeper.snapshot.decisions import Context
from keeper.units import ChainId
from keeper.venue.records import unsigned

GRADED = type_hash("Graded(bytes32,uint8,uint8,uint64,uint64)")


def stopped(context: Context, action: Action, chain: ChainId) -> bool:
    """Return whether an action is refused on a chain."""
    scopes = (EVERYWHERE, chain_scope(chain))
    return _in_force(context, action, chain, scopes) or any(
        decision.kind == "BreakerChange"
        and decision.chain == chain
        and decision.fields[0] in scopes
        and decision.fields[1] == action
        and isinstance(decision.fields[2], int)
        and decision.fields[2] >= Level.STOP
        for decision in context.outstanding
    )


def _in_force(context: Context, action: Action, chain: ChainId, scopes: tuple[bytes, ...]) -> bool:
    """Return whether the chain's own breaker contract shows a stop that has not ended."""
    records, at = context.tables.get(chain), context.network.chain(chain).contract("Breaker")
    block = context.cut.get(chain)
    if records is None or at is None or block is None:
        return False
    for scope in scopes:
        data = records.get(at, GRADED, scope, int(action).to_bytes(32, "big"))
        if data is not None and unsigned(data, 0) >= Level.STOP:
            until = unsigned(data, 2)
            if until == 0 or block.number <= until:
                return True
    return False
