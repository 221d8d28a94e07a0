"""Which sealed decisions are still on their way.

    sealed ──▶ outstanding ──▶ used (LeafUsed is in the table of its chain)
                           └─▶ expired (the cut of its chain passed its last block)

An outstanding decision counts against its account, so nothing is spent twice between seal and
chain.
"""

from collections.abc import Mapping, Sequence

from keeper.hashing import keccak
from keeper.observe.table import Table
from keeper.snapshot.decisions import CutBlock, Decision
from keeper.units import ChainId

LEAF_USED = keccak(b"LeafUsed(bytes32)")


def is_used(decision: Decision, tables: Mapping[ChainId, Table]) -> bool:
    """Return whether the contract of the decision has recorded its leaf as used."""
    table = tables.get(decision.chain)
    return table is not None and table.get(decision.contract, LEAF_USED, decision.leaf) is not None


def is_expired(decision: Decision, cut: Mapping[ChainId, CutBlock]) -> bool:
    """Return whether the agreed block of its chain is past the decision's last block."""
    ref = cut.get(decision.chain)
    return decision.expiry != 0 and ref is not None and ref.number > decision.expiry


def still_outstanding(
    decisions: Sequence[Decision],
    tables: Mapping[ChainId, Table],
    cut: Mapping[ChainId, CutBlock],
) -> tuple[Decision, ...]:
    """Return the decisions that are neither used nor expired at the cut, in their order."""
    return tuple(d for d in decisions if not is_used(d, tables) and not is_expired(d, cut))
