"""Hyperlane warp routes: a token router on each chain, checked by a multisig of keepers.

    origin        router.transferRemote ─▶ Mailbox: Dispatch(sender, destination, …, message)
    validators    sign the message's checkpoint                    keeper/route/bridges/multisig.py
    destination   Mailbox.process(metadata, message) ─▶ ISM ─▶ router.handle: ReceivedTransferRemote

Routers are mutable, so their health is read: the remote router of each is the other one, and what
checks a router's messages is the multisig this network knows, with its validators and threshold.
Contracts: npm @hyperlane-xyz/core 5.11.5 (Apache-2.0), unmodified.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keeper.chain.port import Call, Log
from keeper.hashing import type_hash
from keeper.parameters import BridgeClass
from keeper.route.bridges.message import decode_hyperlane
from keeper.route.bridges.port import (
    UNBOUNDED,
    Crossing,
    Delivery,
    Read,
    Send,
    Stage,
    Terms,
    Timing,
    Transfer,
    crossings_between,
)
from keeper.units import ChainId
from keeper.venue.abi import address, answers, calldata

DISPATCH = type_hash("Dispatch(address,uint32,bytes32,bytes)")
PROCESSED = type_hash("ProcessId(bytes32)")
RECEIVED = type_hash("ReceivedTransferRemote(uint32,bytes32,uint256)")
INSERTED = type_hash("InsertedIntoTree(bytes32,uint32)")


@dataclass(frozen=True, slots=True)
class End:
    """A warp route's end on one chain.

    Args:
        chain: where; `domain` is its number in Hyperlane.
        router: the token router, 20 bytes.
        mailbox, hook, ism: Mailbox, MerkleTreeHook and the multisig that checks what comes in.
        token: what the router holds as collateral, or empty where it mints and burns.
        first_block: from which a courier reads the hook's leaves.
    """

    chain: ChainId
    domain: int
    router: bytes
    mailbox: bytes
    hook: bytes
    ism: bytes
    token: bytes = b""
    first_block: int = 0


def word(address_: bytes) -> bytes:
    """Return an address as Hyperlane's 32-byte word."""
    return address_.rjust(32, b"\0")


class Hyperlane:
    """One asset's warp route over two or more chains."""

    name = "hyperlane"

    def __init__(
        self,
        asset: bytes,
        ends: Sequence[End],
        validators: Sequence[bytes],
        threshold: int,
        *,
        verifier: bytes,
        timing: Timing,
        security: BridgeClass = BridgeClass.BONDED,
    ) -> None:
        self.asset, self.validators, self.threshold = asset, tuple(validators), threshold
        self.verifier, self.timing, self.security = verifier, timing, security
        self.ends = tuple(sorted(ends, key=lambda end: end.chain))
        self._ends = {end.chain: end for end in ends}
        self._domains = {end.domain: end for end in ends}

    def end(self, chain: ChainId) -> End:
        """Return the end on a chain.

        Raises:
            KeyError: the route does not go there.
        """
        return self._ends[chain]

    def crossings(self) -> tuple[Crossing, ...]:
        """Return every ordered pair of chains."""
        return crossings_between(self._ends, self.asset)

    def address(self, crossing: Crossing) -> bytes:
        """Return the router on the origin."""
        return self._ends[crossing.origin].router

    def tokens(self, crossing: Crossing) -> tuple[bytes, bytes]:
        """Return the collateral of each end; a router that mints and burns is its own token."""
        here, there = self._pair(crossing)
        return here.token or here.router, there.token or there.router

    def quote_reads(self, crossing: Crossing) -> tuple[Read, ...]:
        """Return fee, remote ends, who checks on arrival, the collateral, and the tokens held."""
        here, there = self._pair(crossing)
        reads = [
            Read(here.chain, Call(here.router, calldata("quoteGasPayment(uint32)", there.domain))),
            Read(here.chain, Call(here.router, calldata("routers(uint32)", there.domain))),
            Read(there.chain, Call(there.router, calldata("routers(uint32)", here.domain))),
            Read(there.chain, Call(there.mailbox, calldata("recipientIsm(address)", there.router))),
            Read(there.chain, Call(there.ism, calldata("validatorsAndThreshold(bytes)", b""))),
        ]
        if there.token:
            data = calldata("balanceOf(address)", there.router)
            reads.append(Read(there.chain, Call(there.token, data)))
        holds = calldata("wrappedToken()")
        reads += [Read(end.chain, Call(end.router, holds)) for end in (here, there) if end.token]
        return tuple(reads)

    def quoted(self, crossing: Crossing, replies: Sequence[bytes]) -> Terms:
        """Return the terms; a route that is not set up as this network knows it is at fault."""
        here, there = self._pair(crossing)
        kinds = (("uint256",), ("bytes32",), ("bytes32",), ("address",), ("address[]", "uint8"))
        try:
            (fee,), (out,), (back,), (ism,), (validators, threshold) = (
                answers(types, data) for types, data in zip(kinds, replies, strict=False)
            )
            room = answers(("uint256",), replies[5])[0] if there.token else UNBOUNDED
            collateral = [end.token for end in (here, there) if end.token]
            held = [answers(("address",), one)[0] for one in replies[6 if there.token else 5 :]]
        except (ValueError, IndexError):
            return Terms(fault="its contracts do not answer as a warp route does")
        fault = ""
        if out != word(there.router) or back != word(here.router):
            fault = "its routers do not name each other"
        elif [address(one) for one in held] != collateral:
            fault = "a router of it holds another token"
        elif address(ism) != there.ism:
            fault = "another module checks its messages"
        elif (tuple(map(address, validators)), threshold) != (self.validators, self.threshold):
            fault = "its multisig has other validators or another threshold"
        return Terms(value=fee, capacity=room, fault=fault)

    def sends(
        self, crossing: Crossing, amount: int, sender: bytes, recipient: bytes, terms: Terms
    ) -> tuple[Send, ...]:
        """Return the approval, where the origin holds collateral, and the transfer."""
        del sender
        here, there = self._pair(crossing)
        data = calldata(
            "transferRemote(uint32,bytes32,uint256)", there.domain, word(recipient), amount
        )
        transfer = Send(here.chain, here.router, data, terms.value)
        if not here.token:
            return (transfer,)
        allow = calldata("approve(address,uint256)", here.router, amount)
        return (Send(here.chain, here.token, allow), transfer)

    def sent(self, crossing: Crossing, logs: Sequence[Log]) -> tuple[Transfer, ...]:
        """Return the transfers that this route's router dispatched over a crossing."""
        here, _ = self._pair(crossing)
        found = []
        for log in logs:
            if log.address != here.mailbox or log.topics[:2] != (DISPATCH, word(here.router)):
                continue
            transfer = self.read(answers(("bytes",), log.data)[0])
            if transfer is not None and transfer.crossing == crossing:
                found.append(transfer)
        return tuple(found)

    def read(self, raw: bytes) -> Transfer | None:
        """Return the transfer of a message, or None if it is not one of this route."""
        try:
            message = decode_hyperlane(raw)
        except ValueError:
            return None
        here, there = (self._domains.get(one) for one in (message.origin, message.destination))
        if here is None or there is None or here is there:
            return None
        if (message.sender, message.recipient) != (word(here.router), word(there.router)):
            return None
        if len(message.body) < 64 or any(message.body[:12]):
            return None
        crossing = Crossing(here.chain, there.chain, self.asset)
        amount = int.from_bytes(message.body[32:64], "big")
        return Transfer(message.id, crossing, message.body[12:32], amount, raw)

    def arrival_reads(self, transfer: Transfer) -> tuple[Read, ...]:
        """Return whether the destination's mailbox has the message."""
        there = self._ends[transfer.crossing.destination]
        call = Call(there.mailbox, calldata("delivered(bytes32)", transfer.id))
        return (Read(there.chain, call),)

    def stage(self, transfer: Transfer, replies: Sequence[bytes]) -> Stage:
        """Return ARRIVED once the mailbox says so."""
        del transfer
        try:
            done = answers(("bool",), replies[0])[0]
        except (ValueError, IndexError):
            return Stage.SENT
        return Stage.ARRIVED if done else Stage.SENT

    def witnesses(self, transfer: Transfer) -> tuple[bytes, ...]:
        """Return mailbox and router of the destination."""
        there = self._ends[transfer.crossing.destination]
        return there.mailbox, there.router

    def delivery(self, transfer: Transfer, logs: Sequence[Log]) -> Delivery | None:
        """Return the transaction that processed the message and paid the recipient the amount."""
        here, there = self._pair(transfer.crossing)
        origin = here.domain.to_bytes(32, "big")
        paid = (RECEIVED, origin, word(transfer.recipient))
        for log in logs:
            if log.address != there.mailbox or log.topics != (PROCESSED, transfer.id):
                continue
            for other in logs:
                if (
                    other.transaction == log.transaction
                    and other.address == there.router
                    and other.topics == paid
                    and int.from_bytes(other.data, "big") == transfer.amount
                ):
                    return Delivery(transfer, log.block, log.transaction)
        return None

    def _pair(self, crossing: Crossing) -> tuple[End, End]:
        return self._ends[crossing.origin], self._ends[crossing.destination]


def process(end: End, metadata: bytes, message: bytes) -> Send:
    """Return the transaction that delivers a message. Anyone may send it."""
    return Send(end.chain, end.mailbox, calldata("process(bytes,bytes)", metadata, message))
