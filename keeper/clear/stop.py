"""Stop: a big decision waits in a vault that the keepers never made.

    a vault shows Queued(leaf) ─▶ was the leaf outstanding here? ─ yes ─▶ let it wait
                                        └─ no ─▶ Attestation(Stop(leaf)) ─▶ Vault.stop, put back

Whoever holds a stolen group key can seal any leaf, but it cannot put one into the agreed state. The
rule's state is the leaves of releases and transfers that were outstanding and may still be waiting:
a queued leaf outside of it is a forgery. It derives last, so that it sees what the others made.
"""

from dataclasses import dataclass

import msgpack

from keeper.hashing import abi_hash, type_hash
from keeper.leaves import attestation_leaf
from keeper.network import ChainSpec
from keeper.snapshot.decisions import Context, Decision
from keeper.venue.vault import queued_leaves

STOP = type_hash("Stop(bytes32 leaf)")
MAX_PER_VIEW = 16
"""Forgeries stopped in one view: the rest in the next, all of them long before a delay ends."""
STOP_BLOCKS = 60
"""Blocks an attestation is given to reach its vault before it is sealed again."""


@dataclass(frozen=True, slots=True)
class StopRule:
    """Stops big decisions that were sealed without agreement."""

    name: str = "stop"

    def initial(self) -> bytes:
        """Return the state before the first view."""
        return _encode(frozenset())

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return no hashes: this rule needs no bodies."""
        return frozenset()

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the leaves that are ours, and the stops of this view."""
        ours = frozenset(msgpack.unpackb(state))
        made: list[Decision] = []
        waiting: set[bytes] = set()
        flying = {decision.leaf for decision in context.outstanding}
        for spec in context.network.chains:
            records, vault = context.tables.get(spec.id), spec.contract("Vault")
            if records is None or vault is None or spec.id not in context.cut:
                waiting |= ours  # its vault is out of sight: forget nothing
                continue
            for leaf in sorted(queued_leaves(records, vault)):
                waiting.add(leaf)
                if leaf in ours or len(made) >= MAX_PER_VIEW:
                    continue
                decision = _stop(context, spec, vault, leaf)
                if decision.leaf not in flying:
                    made.append(decision)
        sealed = {d.leaf for d in context.outstanding if d.kind in ("Release", "Transfer")}
        decisions = tuple(sorted(made, key=lambda decision: decision.order))
        return _encode(sealed | (ours & waiting)), decisions


def _encode(leaves: frozenset[bytes] | set[bytes]) -> bytes:
    packed: bytes = msgpack.packb(sorted(leaves))
    return packed


def _stop(context: Context, spec: ChainSpec, vault: bytes, leaf: bytes) -> Decision:
    event = abi_hash(("bytes32", "bytes32"), (STOP, leaf))
    return Decision(
        kind="Stop",
        chain=spec.id,
        contract=vault,
        key=spec.id.to_bytes(8, "big") + leaf,
        leaf=attestation_leaf(context.network.id, context.epoch, spec.id, vault, event_hash=event),
        fields=(leaf,),
        expiry=context.cut[spec.id].number + STOP_BLOCKS,
    )
