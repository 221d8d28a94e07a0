"""Atomic flows: `Escrow` records of one chain → the legs there and the outcome it knows.

Prepared(flow, index, leg…, terms…, stage)               the last one says how far a leg is
Settled(flow, outcome, late)                             the flow's one outcome has come here
Paid(flow, index, to, token, amount)                     the leg has left, by an outcome or escape
"""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from keeper.hashing import type_hash
from keeper.leaves import flow_id, flow_leg_hash
from keeper.merkle import merkle_proof, merkle_root
from keeper.network import ChainSpec
from keeper.units import ChainId
from keeper.venue.port import Records
from keeper.venue.records import WORD, address_at, rows, unsigned

PREPARED = type_hash(
    "Prepared(bytes32,uint256,address,address,uint256,uint256,bytes32,address,bytes32,"
    "uint32,uint32,uint64,uint64,uint8)"
)
SETTLED = type_hash("Settled(bytes32,uint8,uint16)")
PAID = type_hash("Paid(bytes32,uint256,bytes32,address,uint256)")
PLEDGED, LOCKED = 1, 2
"""Stages of a leg: its deposit is placed; its amount is locked too."""
NOWHERE = bytes(20)
NOTHING = bytes(32)
"""The market of a leg that is a payment."""
KEPT = 1 << 15
"""Legs kept decoded and hashed: every keeper reads all open ones again in every view."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a flow's id binds beside its legs, as `Escrow.Terms`.

    Args:
        epoch: committee epoch in which it is opened.
        number: tells flows with the very same legs apart.
        arm_by: last second, by each chain's clock, for a deposit; 0 for a flow without deposits.
        lock_by: last second for a lock.
    """

    epoch: int
    number: int
    arm_by: int
    lock_by: int

    @property
    def struct(self) -> tuple[int, ...]:
        """As the contract takes it."""
        return (self.epoch, self.number, self.arm_by, self.lock_by)

    def flow_id(self, network: bytes, legs: Sequence[bytes]) -> bytes:
        """Return the id of the flow with these leg hashes, in order."""
        return flow_id(
            network,
            legs,
            epoch=self.epoch,
            number=self.number,
            arm_by=self.arm_by,
            lock_by=self.lock_by,
        )


@dataclass(frozen=True, slots=True)
class Leg:
    """Who locks how much of what on which chain, for whom; as `Escrow.Leg`.

    A leg is a payment, or where it names a market the reduction of its payer's position there.

    Args:
        chain, escrow: where.
        payer, token, amount: who gives what; in a reduction `amount` is the size to close.
        receiver: 32 bytes: an address, or whom `vault` credits; in a reduction which of the payer's
            margin accounts, as a number.
        deposit: of the token, lost by a payer that does not lock.
        vault: where the amount is deposited, or `NOWHERE`; in a reduction the venue.
        market: of the position to reduce, or `NOTHING`.
        index: its place among the flow's legs.
    """

    chain: ChainId
    escrow: bytes
    payer: bytes
    token: bytes
    amount: int
    receiver: bytes
    deposit: int = 0
    vault: bytes = NOWHERE
    market: bytes = NOTHING
    index: int = 0

    @property
    def reduces(self) -> bool:
        """Whether it reduces a position, and pays nobody."""
        return self.market != NOTHING

    @property
    def due(self) -> int:
        """What a lock takes of the token, beside the deposit."""
        return 0 if self.reduces else self.amount

    @property
    def struct(self) -> tuple[int | bytes, ...]:
        """As the contract takes it."""
        head = (self.index, self.chain, self.escrow, self.payer, self.token, self.amount)
        return (*head, self.deposit, self.receiver, self.vault, self.market)

    @property
    def hash(self) -> bytes:
        """What the flow's id binds."""
        return _leg_hash(self)


@lru_cache(maxsize=KEPT)
def _leg_hash(leg: Leg) -> bytes:
    return flow_leg_hash(
        leg.index,
        leg.chain,
        leg.escrow,
        payer=leg.payer,
        token=leg.token,
        amount=leg.amount,
        deposit=leg.deposit,
        receiver=leg.receiver,
        vault=leg.vault,
        market=leg.market,
    )


@dataclass(frozen=True, slots=True)
class Flow:
    """Terms, legs in order, and the id over both."""

    terms: Terms
    legs: tuple[Leg, ...]
    id: bytes

    @staticmethod
    def of(network: bytes, terms: Terms, legs: Sequence[Leg]) -> "Flow":
        """Return the flow of these legs, numbered in their order."""
        numbered = tuple(replace(leg, index=at) for at, leg in enumerate(legs))
        return Flow(terms, numbered, terms.flow_id(network, [leg.hash for leg in numbered]))

    def entry(self, index: int) -> tuple[object, ...]:
        """Return what `pledge` and `prepare` take for one leg: its siblings prove it."""
        hashes = [leg.hash for leg in self.legs]
        path = merkle_proof(hashes, index)
        return (self.terms.struct, merkle_root(hashes), path, self.legs[index].struct)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A leg as its chain shows it.

    Args:
        flow: id over the terms and all legs.
        leg, terms: what the id binds.
        stage: `PLEDGED` or `LOCKED`.
        left: whether the amount has left the escrow again.
    """

    flow: bytes
    leg: Leg
    terms: Terms
    stage: int
    left: bool = False

    @property
    def index(self) -> int:
        """The leg's place in its flow."""
        return self.leg.index


def prepared(spec: ChainSpec, records: Records, but: Container[bytes] = ()) -> Iterator[Prepared]:
    """Yield the legs ever pledged or locked on a chain, sorted by flow and index.

    Args:
        spec: the chain.
        records: its records.
        but: flows to leave out, before anything of them is decoded.
    """
    escrow = spec.contract("Escrow")
    for (flow, index), data in rows(records, escrow, PREPARED, 2, 12):
        if escrow is not None and flow not in but:
            one = decoded(spec.id, escrow, flow, index, data)
            left = records.get(escrow, PAID, flow, index) is not None
            yield replace(one, left=True) if left else one


@lru_cache(maxsize=KEPT)
def decoded(chain: ChainId, escrow: bytes, flow: bytes, index: bytes, data: bytes) -> Prepared:
    """Return the leg of one `Prepared` event."""
    return Prepared(
        flow=flow,
        leg=Leg(
            index=int.from_bytes(index, "big"),
            chain=chain,
            escrow=escrow,
            payer=address_at(data, 0),
            token=address_at(data, 1),
            amount=unsigned(data, 2),
            deposit=unsigned(data, 3),
            receiver=data[4 * WORD : 5 * WORD],
            vault=address_at(data, 5),
            market=data[6 * WORD : 7 * WORD],
        ),
        terms=Terms(*(unsigned(data, at) for at in range(7, 11))),
        stage=unsigned(data, 11),
    )


def outcomes(spec: ChainSpec, records: Records) -> dict[bytes, tuple[int, int]]:
    """Return flow → (1 commit or 2 abort, who was late) of every flow that a chain has settled."""
    found = rows(records, spec.contract("Escrow"), SETTLED, 1, 2)
    return {flow: (unsigned(data, 0), unsigned(data, 1)) for (flow,), data in found}


def outcome(spec: ChainSpec, records: Records, flow: bytes) -> tuple[int, int]:
    """Return what a chain knows of a flow: 1 commit, 2 abort, 0 none yet; and who was late."""
    escrow = spec.contract("Escrow")
    data = None if escrow is None else records.get(escrow, SETTLED, flow)
    return (0, 0) if data is None else (unsigned(data, 0), unsigned(data, 1))
