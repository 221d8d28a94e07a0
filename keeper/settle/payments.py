"""What is left to do for a settled flow: calls that anyone may send, from the agreed tables.

leg locked, its chain settled        ─▶ pay: to the receiver, or back
committed and paid, with a deposit   ─▶ pay again: the deposit comes back
late leg                             ─▶ compensate: a share of its deposit to each that had locked
"""

from collections.abc import Iterator

from keeper.contracts import encode_call
from keeper.hashing import type_hash
from keeper.network import NetworkSpec
from keeper.settle.flow import COMMIT
from keeper.venue.escrow import LOCKED, Prepared, outcome, prepared
from keeper.venue.port import Call, Records, Tables

REFUNDED = type_hash("Refunded(bytes32,uint256,uint256)")
COMPENSATED = type_hash("Compensated(bytes32,uint256,uint256,address,address,uint256)")


def payments(spec: NetworkSpec, tables: Tables, flow: bytes) -> list[Call]:
    """Return the calls that pay what is settled of one flow, in order."""
    legs = {
        one.index: one
        for chain in spec.chains
        if chain.id in tables
        for one in prepared(chain, tables[chain.id])
        if one.flow == flow
    }
    calls: list[Call] = []
    for _, one in sorted(legs.items()):
        records = tables[one.leg.chain]
        came, late = outcome(spec.chain(one.leg.chain), records, flow)
        if came == 0:
            continue
        if late >> one.index & 1 and one.stage != LOCKED:
            calls += _shares(records, one, legs, late)
        elif not one.left:
            calls += [_pay(one)] * (2 if came == COMMIT and one.leg.deposit else 1)
        elif came == COMMIT and one.leg.deposit and not _refunded(records, one):
            calls.append(_pay(one))
    return calls


def _pay(one: Prepared) -> Call:
    data = encode_call("Escrow", "pay", one.flow, one.leg.struct)
    return Call(one.leg.chain, one.leg.escrow, data)


def _refunded(records: Records, one: Prepared) -> bool:
    place = one.index.to_bytes(32, "big")
    return records.get(one.leg.escrow, REFUNDED, one.flow, place) is not None


def _shares(
    records: Records, one: Prepared, legs: dict[int, Prepared], late: int
) -> Iterator[Call]:
    """Yield the shares of a lost deposit that nobody has sent yet."""
    terms, ordered = one.terms.struct, [legs[at].leg.struct for at in sorted(legs)]
    for heir, other in sorted(legs.items()):
        mine = other.leg.payer == one.leg.payer or late >> heir & 1
        key = (one.flow, one.index.to_bytes(32, "big"), heir.to_bytes(32, "big"))
        if mine or records.get(one.leg.escrow, COMPENSATED, *key) is not None:
            continue
        data = encode_call("Escrow", "compensate", terms, ordered, one.index, heir)
        yield Call(one.leg.chain, one.leg.escrow, data)
