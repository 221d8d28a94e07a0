"""Whether a tripped breaker stops an action: on its chain already, or decided and on its way.

    Breaker contract's records ─┐
    BreakerChange in flight ────┴─▶ stopped(action, chain)

A change that tightens counts from the moment it is decided, one that loosens from the moment the
chain shows it: between the two the stricter holds.
"""

from enum import IntEnum

from keeper.snapshot.decisions import Context
from keeper.units import ChainId


class Action(IntEnum):
    """What a breaker grades, in the numbering of the `BreakerChange` leaf."""

    OPEN = 0
    INCREASE = 1
    WITHDRAW = 2
    REDUCE = 3
    LIQUIDATE = 4
    SIGN = 5


STOP = 2
"""Level from which an action is refused; 1 only slows it."""


def stopped(context: Context, action: Action, chain: ChainId) -> bool:
    """Return whether an action is refused on a chain by a breaker change on its way."""
    return any(
        decision.kind == "BreakerChange"
        and decision.chain == chain
        and decision.fields[1] == action
        and isinstance(decision.fields[2], int)
        and decision.fields[2] >= STOP
        for decision in context.outstanding
    )
