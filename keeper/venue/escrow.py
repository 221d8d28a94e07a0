"""Atomic flows: `Escrow` records of one chain → the legs locked there and the outcomes it knows.

Prepared(flow, index, payer, token, amount, receiver)    a leg is locked; at most once a flow
Settled(flow, outcome)                                   the flow's one outcome has come here
Paid(flow, index, to, token, amount)                     the leg has left, by an outcome or escape
"""

from collections.abc import Iterator
from dataclasses import dataclass

from keeper.hashing import type_hash
from keeper.leaves import flow_leg_hash
from keeper.network import ChainSpec
from keeper.units import ChainId
from keeper.venue.port import Records
from keeper.venue.records import address_at, rows, unsigned

PREPARED = type_hash("Prepared(bytes32,uint256,address,address,uint256,address)")
SETTLED = type_hash("Settled(bytes32,uint8)")
PAID = type_hash("Paid(bytes32,uint256,address,address,uint256)")


@dataclass(frozen=True, slots=True)
class PreparedLeg:
    """A leg that its payer locked.

    Args:
        flow: id over all legs of the flow.
        index: place of this leg among them.
        chain, escrow: where it is locked.
        payer, token, amount, receiver: what the leg's hash names.
        left: whether the tokens have left the escrow again.
    """

    flow: bytes
    index: int
    chain: ChainId
    escrow: bytes
    payer: bytes
    token: bytes
    amount: int
    receiver: bytes
    left: bool = False

    @property
    def hash(self) -> bytes:
        """The leg's hash as the flow id binds it."""
        return flow_leg_hash(
            self.chain,
            self.escrow,
            payer=self.payer,
            token=self.token,
            amount=self.amount,
            receiver=self.receiver,
        )


def prepared(spec: ChainSpec, records: Records) -> Iterator[PreparedLeg]:
    """Yield every leg ever prepared on a chain, sorted by flow and index."""
    escrow = spec.contract("Escrow")
    if escrow is None:
        return
    for (flow, index), data in rows(records, escrow, PREPARED, 2, 4):
        yield PreparedLeg(
            flow=flow,
            index=int.from_bytes(index, "big"),
            chain=spec.id,
            escrow=escrow,
            payer=address_at(data, 0),
            token=address_at(data, 1),
            amount=unsigned(data, 2),
            receiver=address_at(data, 3),
            left=records.get(escrow, PAID, flow, index) is not None,
        )


def outcome(spec: ChainSpec, records: Records, flow: bytes) -> int:
    """Return the outcome a chain knows of a flow: 1 commit, 2 abort, 0 none yet."""
    escrow = spec.contract("Escrow")
    data = None if escrow is None else records.get(escrow, SETTLED, flow)
    return 0 if data is None else unsigned(data, 0)
