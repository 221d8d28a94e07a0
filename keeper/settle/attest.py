"""Attestations of intents: what a final destination says about an order, for its origin.

    Open on the origin, not Closed
        ├─ Filled(id, data hash) on the destination                  ─▶ Filled   ─▶ claim
        └─ its clock at the cut is past the deadline, no such fill   ─▶ Unfilled ─▶ refund

A fill is known by order id and the hash of the whole origin data, looked up at the settler the
order names, so another recipient, token, chain, amount or deadline is no fill. Both answers come
from final blocks, and a settler refuses fills after the deadline, so they exclude each other for
ever and this rule needs no state. Orders for a chain or a settler that this network does not have,
or that give a token its descriptor does not name, are left to the settler's own escape: members
bring every answer at their own cost, and a stranger's token could make that any cost. What a chain
says that broke its own finality is no answer until governance lifts that. Source: docs/flows.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from keeper.intent.order import filled_event, unfilled_event, word
from keeper.leaves import attestation_leaf
from keeper.margin.breaker import Action
from keeper.snapshot.decisions import Context, Decision
from keeper.snapshot.gates import stopped
from keeper.units import ChainId
from keeper.venue.intents import OpenOrder, fills, orders
from keeper.venue.records import address

KINDS = ("Filled", "Unfilled")
MAX_PER_VIEW = 32
MAX_FLYING = 256
"""Attestations of one view, and on their way: a small part of what a book holds."""
ATTEST_BLOCKS = 600
"""Blocks an attestation is given to reach its origin before it is sealed again."""

Fills = dict[tuple[bytes, bytes], bytes]


@dataclass(frozen=True, slots=True)
class AttestationRule:
    """Settles intents; it keeps no state of its own."""

    name: str = "intent"

    def initial(self) -> bytes:
        """Return the state before the first view."""
        return b""

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return no hashes: this rule needs no bodies."""
        return frozenset()

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the attestations of this view."""
        flying = {decision.leaf for decision in context.outstanding}
        most = MAX_FLYING - sum(one.kind in KINDS for one in context.outstanding)
        made: list[Decision] = []
        for decision in _due(context):
            if len(made) >= min(MAX_PER_VIEW, most):
                break
            if decision.leaf not in flying:
                made.append(decision)
        return b"", tuple(sorted(made, key=lambda decision: decision.order))


def _due(context: Context) -> Iterator[Decision]:
    """Yield what can be said of every open order, by origin and id."""
    delivered: dict[ChainId, Fills] = {}
    for spec in context.network.chains:
        cursed = stopped(context, Action.SIGN, spec.id)
        if spec.id in context.tables and spec.id in context.cut and not cursed:
            delivered[spec.id] = fills(spec, context.tables[spec.id])
    for spec in context.network.chains:
        if spec.id not in delivered:
            continue
        named = {token.address for token in spec.tokens}
        for order in orders(spec, context.tables[spec.id]):
            if order.destination in delivered and order.input_token in named:
                decision = _answer(context, order, delivered[order.destination])
                if decision is not None:
                    yield decision


def _answer(context: Context, order: OpenOrder, delivered: Fills) -> Decision | None:
    """Return what the destination says of an order, or None while it says nothing."""
    settler = context.network.chain(order.destination).contract("Intents")
    if settler is None or order.settler != word(settler):
        return None
    payee = delivered.get((order.id, order.data_hash))
    if payee is not None:
        to = address(payee)
        if payee != word(to):  # nobody can be paid by this word, but the output has arrived
            return None
        event = filled_event(order.id, order.data_hash, payee)
        return _decision(context, order, settler, "Filled", event, (order.id, to))
    if context.cut[order.destination].timestamp <= order.fill_deadline:
        return None
    event = unfilled_event(order.id, order.data_hash)
    return _decision(context, order, settler, "Unfilled", event, (order.id,))


def _decision(
    context: Context,
    order: OpenOrder,
    settler: bytes,
    kind: str,
    event: bytes,
    fields: tuple[bytes, ...],
) -> Decision:
    """Return the attestation: its leaf is of the destination, it is brought to the origin."""
    contract = context.network.chain(order.origin).contract("Intents")
    assert contract is not None, f"chain {order.origin} has no settler"
    return Decision(
        kind=kind,
        chain=order.origin,
        contract=contract,
        key=order.origin.to_bytes(8, "big") + order.id,
        leaf=attestation_leaf(
            context.network.id, context.epoch, order.destination, settler, event_hash=event
        ),
        fields=fields,
        expiry=context.cut[order.origin].number + ATTEST_BLOCKS,
    )
