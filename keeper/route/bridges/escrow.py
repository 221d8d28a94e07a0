"""The native escrow as a bridge: a maker pays there what it is paid here, both or neither.

    leg 0  sender ─▶ maker       on the origin        prepare, by this keeper
    leg 1  maker  ─▶ sender      on the destination   prepare, by the maker
    both locked and final ─▶ COMMIT under the keepers' seal ─▶ paid;   otherwise ABORT ─▶ returned

Who can break it is the committee, whatever the maker. Both legs go to known accounts: the sender is
paid on its own address. A payment into a margin account is a flow of its own (`keeper.settle`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from keeper.chain.port import Call, Log
from keeper.network import ChainSpec, NetworkSpec
from keeper.parameters import BridgeClass
from keeper.route.bridges.port import Crossing, Delivery, Read, Send, Stage, Terms, Timing, Transfer
from keeper.units import PPM, ChainId, ceil_div
from keeper.venue.abi import address, answers, calldata
from keeper.venue.escrow import LOCKED, PAID, PREPARED, Flow, Leg, decoded
from keeper.venue.escrow import Terms as FlowTerms
from keeper.venue.records import word

COMMIT, ABORT = 1, 2
GONE = 3
"""A leg that has left the escrow."""
_TERMS = "(uint32,uint32,uint64,uint64)"
_LEG = "(uint256,uint64,address,address,address,uint256,uint256,bytes32,address,bytes32)"
_PREPARE = f"prepare({_TERMS},bytes32,bytes32[],{_LEG})"


@dataclass(frozen=True, slots=True)
class Price:
    """What a maker keeps of what it is paid, and the most it takes."""

    fee_ppm: int
    fee_fixed: int
    capacity: int


class Escrow:
    """One maker's offers for an asset.

    Args:
        network: where the escrows and tokens are.
        maker: 20 bytes, the same account on every chain.
        asset: 32-byte symbol.
        offers: what the maker asks for each crossing, as (origin, destination).
        flow: times and number of the next flow; they and the legs make its id.
        deposit_ppm: deposit of each leg, as a share of its amount; none without `flow.arm_by`.
        verifier: the committee, 32 bytes.
        timing: from the first lock to the payment.
    """

    name = "escrow"
    security = BridgeClass.BONDED

    def __init__(
        self,
        network: NetworkSpec,
        maker: bytes,
        asset: bytes,
        offers: Mapping[tuple[ChainId, ChainId], Price],
        flow: FlowTerms,
        *,
        verifier: bytes,
        timing: Timing,
        deposit_ppm: int = 0,
    ) -> None:
        self._network, self._maker, self._asset = network, maker, asset
        self._offers = {Crossing(*pair, asset): price for pair, price in offers.items()}
        self._flow, self._deposit_ppm = flow, deposit_ppm
        self.verifier, self.timing = verifier, timing

    def crossings(self) -> tuple[Crossing, ...]:
        """Return the crossings on offer."""
        return tuple(sorted(self._offers))

    def address(self, crossing: Crossing) -> bytes:
        """Return the maker: an escrow carries for many, and a plan names whom it pays."""
        del crossing
        return self._maker

    def tokens(self, crossing: Crossing) -> tuple[bytes, bytes]:
        """Return the network's token of the asset on either chain."""
        return self._token(crossing.origin), self._token(crossing.destination)

    def quote_reads(self, crossing: Crossing) -> tuple[Read, ...]:
        """Return whether both escrows are there, and what the maker holds."""
        delay = calldata("escape_delay()")
        places = (crossing.origin, crossing.destination)
        funds = calldata("balanceOf(address)", self._maker)
        token = self._token(crossing.destination)
        return (
            *(Read(chain, Call(self._escrow(chain), delay)) for chain in places),
            Read(crossing.destination, Call(token, funds)),
        )

    def quoted(self, crossing: Crossing, replies: Sequence[bytes]) -> Terms:
        """Return the maker's terms, with what it could pay now as the most it takes."""
        price = self._offers[crossing]
        try:
            here, there, funds = (answers(("uint256",), reply)[0] for reply in replies)
        except ValueError:
            return Terms(fault="its contracts do not answer as an escrow does")
        fault = "" if here and there else "an escrow has no escape"
        room = min(price.capacity, funds * PPM // (PPM + self._deposit_ppm))
        return Terms(price.fee_fixed, price.fee_ppm, 0, room, fault)

    def sends(
        self, crossing: Crossing, amount: int, sender: bytes, recipient: bytes, terms: Terms
    ) -> tuple[Send, ...]:
        """Return the approval and the lock of the sender's leg.

        Raises:
            ValueError: the recipient is not the sender.
        """
        if recipient != sender:
            raise ValueError("the escrow pays the sender's own address on the destination")
        flow = self.flow(crossing, amount, sender, terms)
        here, mine = crossing.origin, flow.legs[0]
        total = amount + mine.deposit
        allow = calldata("approve(address,uint256)", mine.escrow, total)
        lock = calldata(_PREPARE, *flow.entry(0))
        return (Send(here, mine.token, allow), Send(here, mine.escrow, lock))

    def flow(self, crossing: Crossing, amount: int, sender: bytes, terms: Terms) -> Flow:
        """Return the flow that moves an amount; the maker locks its second leg."""
        brings = amount - ceil_div(amount * terms.fee_ppm, PPM) - terms.fee_fixed
        here = self._leg(crossing.origin, sender, amount, self._maker)
        there = self._leg(crossing.destination, self._maker, brings, sender)
        return Flow.of(self._network.id, self._flow, (here, there))

    def sent(self, crossing: Crossing, logs: Sequence[Log]) -> tuple[Transfer, ...]:
        """Return the flows of this offer whose first leg some logs lock.

        A flow's id is computed again from the legs it must have: what else was locked is no
        transfer of this bridge.
        """
        escrow, found = self._escrow(crossing.origin), []
        price = self._offers[crossing]
        terms = Terms(price.fee_fixed, price.fee_ppm)
        for log in logs:
            if log.address != escrow or log.topics[0] != PREPARED or len(log.topics) != 3:
                continue
            _, flow, index = log.topics
            one = decoded(crossing.origin, escrow, flow, index, log.data)
            if one.index or one.stage != LOCKED:
                continue
            legs = self.flow(crossing, one.leg.amount, one.leg.payer, terms).legs
            if Flow.of(self._network.id, one.terms, legs).id == flow:
                payload = b"".join(leg.hash for leg in legs)
                found.append(Transfer(flow, crossing, one.leg.payer, legs[1].amount, payload))
        return tuple(found)

    def arrival_reads(self, transfer: Transfer) -> tuple[Read, ...]:
        """Return outcome and stage of both legs."""
        crossing = transfer.crossing
        sides = (
            (crossing.origin, transfer.payload[:32]),
            (crossing.destination, transfer.payload[32:]),
        )
        return tuple(
            Read(chain, Call(self._escrow(chain), data))
            for chain, leg in sides
            for data in (
                calldata("outcome(bytes32)", transfer.id),
                calldata("stage(bytes32,bytes32)", transfer.id, leg),
            )
        )

    def stage(self, transfer: Transfer, replies: Sequence[bytes]) -> Stage:
        """Return READY while the maker's leg is locked, then what the outcome made of it.

        A leg that escaped before a late COMMIT has gone as well: `delivery` tells the two apart.
        """
        del transfer
        try:
            numbers = [answers(("uint8",), reply)[0] for reply in replies]
            here, mine, there, theirs = numbers
        except ValueError:
            return Stage.SENT
        if there == COMMIT and theirs != LOCKED:
            return Stage.ARRIVED
        if here == ABORT and mine == GONE:
            return Stage.RETURNED
        return Stage.READY if theirs == LOCKED else Stage.SENT

    def witnesses(self, transfer: Transfer) -> tuple[bytes, ...]:
        """Return the escrow of the destination."""
        return (self._escrow(transfer.crossing.destination),)

    def delivery(self, transfer: Transfer, logs: Sequence[Log]) -> Delivery | None:
        """Return the payment of the maker's leg to the sender."""
        escrow = self._escrow(transfer.crossing.destination)
        token = self._token(transfer.crossing.destination)
        topics = (PAID, transfer.id, (1).to_bytes(32, "big"))
        for log in logs:
            if log.address != escrow or log.topics != topics:
                continue
            to, paid, amount = answers(("bytes32", "address", "uint256"), log.data)
            due = (word(transfer.recipient), token, transfer.amount)
            if (to, address(paid), amount) == due:
                return Delivery(transfer, log.block, log.transaction)
        return None

    def _leg(self, chain: ChainId, payer: bytes, amount: int, receiver: bytes) -> Leg:
        leg = Leg(chain, self._escrow(chain), payer, self._token(chain), amount, word(receiver))
        if not self._flow.arm_by:
            return leg
        return replace(leg, deposit=ceil_div(amount * self._deposit_ppm, PPM))

    def _spec(self, chain: ChainId) -> ChainSpec:
        return self._network.chain(chain)

    def _escrow(self, chain: ChainId) -> bytes:
        found = self._spec(chain).contract("Escrow")
        if found is None:
            raise KeyError(f"chain {chain} has no escrow")
        return found

    def _token(self, chain: ChainId) -> bytes:
        for token in self._spec(chain).tokens:
            if token.asset == self._asset:
                return token.address
        raise KeyError(f"chain {chain} has no such token")
