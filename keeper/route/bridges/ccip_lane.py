"""CCIP as a lane: a token with a pool on each chain, its messages signed by keepers.

    origin        Router.ccipSend(token, amount) ─▶ pool locks or burns ─▶ TokenTransferV1
    keepers       sign the id of the message it is in            keeper/route/bridges/ccip.py
    destination   OffRamp.execute ─▶ verifier ─▶ pool releases or mints ─▶ recipient

Terms are what the contracts say: the router's fee in the native coin; the pool's fee, which a 2.0
pool may take in basis points of the amount, rounded down; and as capacity what the outbound bucket
here, the inbound bucket there, and the lock box there let through now. What must be so of the
contracts is in `ccip_facts.py`. Last, the pool there is asked in rehearsal to pay out one unit: a
right to mint that was taken away is seen before anything is sent.
"""

from collections.abc import Mapping, Sequence

from keeper.chain.port import Call, Log
from keeper.hashing import type_hash
from keeper.parameters import BridgeClass
from keeper.route.bridges.ccip import (
    EXECUTED,
    STATE_CHANGED,
    committee_proof,
    execute,
    fee_read,
    message_of,
    send,
    signed_digest,
    stage_of,
    state_read,
)
from keeper.route.bridges.ccip import Message as Sending
from keeper.route.bridges.ccip_facts import CcipEnd, Committee, facts, word
from keeper.route.bridges.message import (
    CcipTokens,
    ccip_extra_args,
    decode_ccip,
    decode_ccip_tokens,
)
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
from keeper.venue.abi import answers, calldata

PAID_OUT = type_hash("ReleasedOrMinted(uint64,address,address,address,uint256)")
BPS = 10_000
FINAL = bytes(4)
"""Ask for full finality; faster messages have buckets and fees of their own."""
_BUCKET = "(uint128,uint32,bool,uint128,uint128)"
"""Tokens in it, when, whether it counts, its size, tokens a second."""
_POOL_FEE = ("uint256", "uint32", "uint32", "uint16", "bool")
_PAY_OUT = "releaseOrMint((bytes,uint64,address,uint256,address,bytes,bytes,bytes),bytes4)"


class Ccip:
    """One token's pools over two or more chains."""

    name = "ccip"

    def __init__(
        self,
        asset: bytes,
        decimals: int,
        ends: Sequence[CcipEnd],
        committee: Committee,
        *,
        verifier: bytes,
        timing: Timing,
        security: BridgeClass = BridgeClass.BONDED,
    ) -> None:
        self.asset, self.decimals, self.committee = asset, decimals, committee
        self.verifier, self.timing, self.security = verifier, timing, security
        self.ends = tuple(sorted(ends, key=lambda end: end.chain))
        self._ends = {end.chain: end for end in ends}
        self._selectors = {end.selector: end for end in ends}

    def end(self, chain: ChainId) -> CcipEnd:
        """Return the end on a chain.

        Raises:
            KeyError: the token does not go there.
        """
        return self._ends[chain]

    def crossings(self) -> tuple[Crossing, ...]:
        """Return every ordered pair of chains."""
        return crossings_between(self._ends, self.asset)

    def address(self, crossing: Crossing) -> bytes:
        """Return the pool on the origin: routers serve all tokens, a pool one."""
        return self._ends[crossing.origin].pool

    def tokens(self, crossing: Crossing) -> tuple[bytes, bytes]:
        """Return the token that leaves on the origin and the one that arrives."""
        here, there = self._pair(crossing)
        return here.token, there.token

    def quote_reads(self, crossing: Crossing) -> tuple[Read, ...]:
        """Return the facts' reads; then fees, both buckets, the payout in rehearsal, the funds."""
        here, there = self._pair(crossing)
        held = facts(here, there, self.committee, self.decimals)
        buckets = "getCurrentRateLimiterState(uint64,bool)"
        pool_fee = calldata(
            "getFee(address,uint64,uint256,address,bytes4,bytes)",
            here.token, there.selector, 1, bytes(20), FINAL, b"",
        )  # fmt: skip
        reads = [
            fee_read(here.chain, here.router, there.selector, _sending(here, 1, here.router)),
            Read(here.chain, Call(here.pool, pool_fee)),
            Read(here.chain, Call(here.pool, calldata(buckets, there.selector, False))),
            Read(there.chain, Call(there.pool, calldata(buckets, here.selector, False))),
            Read(there.chain, Call(there.pool, self._pay_out(here, there), sender=there.off_ramp)),
        ]
        if there.lock_box:
            data = calldata("balanceOf(address)", there.lock_box)
            reads.append(Read(there.chain, Call(there.token, data)))
        return (*(fact.read for fact in held), *reads)

    def quoted(self, crossing: Crossing, replies: Sequence[bytes]) -> Terms:
        """Return the terms; a lane that is not as this network knows it is at fault."""
        here, there = self._pair(crossing)
        held = facts(here, there, self.committee, self.decimals)
        figures = replies[len(held) :]
        if len(figures) != 5 + bool(there.lock_box):
            return Terms(capacity=0, fault="its contracts were not all asked")
        judged = (fact.judge(reply) for fact, reply in zip(held, replies, strict=False))
        fault = next(filter(None, judged), "")
        try:
            (value,), (*_, bps, _) = (
                answers(("uint256",), figures[0]),
                answers(_POOL_FEE, figures[1]),
            )
            room = min(_tokens(figures[2], 0), _tokens(figures[3], 1))
            if there.lock_box:
                room = min(room, answers(("uint256",), figures[5])[0])
            if bps >= BPS:
                raise ValueError(f"a fee of {bps} basis points")
        except ValueError:
            return Terms(
                capacity=0, fault=fault or "its contracts do not say what they ask or take"
            )
        if room > 0 and figures[4] != (1).to_bytes(32, "big"):
            fault = fault or "its pool would not pay out"
        # the pool counts what is left after its fee, rounded up
        capacity = min(room * BPS // (BPS - bps), UNBOUNDED)
        return Terms(fee_ppm=bps * 100, value=value, capacity=capacity, fault=fault)

    def sends(
        self, crossing: Crossing, amount: int, sender: bytes, recipient: bytes, terms: Terms
    ) -> tuple[Send, ...]:
        """Return the router's allowance, and the message that moves the amount."""
        del sender
        here, there = self._pair(crossing)
        allow = calldata("approve(address,uint256)", here.router, amount)
        message = _sending(here, amount, recipient)
        return (
            Send(here.chain, here.token, allow),
            send(here.chain, here.router, there.selector, message, terms.value),
        )

    def sent(self, crossing: Crossing, logs: Sequence[Log]) -> tuple[Transfer, ...]:
        """Return the transfers of this token that the on-ramp sent over a crossing."""
        here, there = self._pair(crossing)
        raws = (message_of(here.on_ramp, there.selector, log) for log in logs)
        found = (self.read(raw) for raw in raws if raw)
        return tuple(one for one in found if one is not None and one.crossing == crossing)

    def read(self, raw: bytes) -> Transfer | None:
        """Return the transfer of a message, or None if it is no plain transfer of this token.

        A message with data or gas calls its receiver, which may refuse it for ever.
        """
        try:
            message = decode_ccip(raw)
            tokens = decode_ccip_tokens(message.token_transfer)
        except ValueError:
            return None
        here, there = (self._selectors.get(one) for one in (message.source, message.destination))
        if here is None or there is None or here is there:
            return None
        if (message.on_ramp, message.off_ramp) != (word(here.on_ramp), there.off_ramp):
            return None
        if message.data or message.receive_gas or message.finality != FINAL:
            return None
        paid = self._tokens(here, there, tokens.amount, tokens.receiver)
        if tokens != paid or message.receiver != tokens.receiver or len(tokens.receiver) != 20:
            return None
        crossing = Crossing(here.chain, there.chain, self.asset)
        return Transfer(message.id, crossing, tokens.receiver, tokens.amount, raw)

    def arrival_reads(self, transfer: Transfer) -> tuple[Read, ...]:
        """Return whether the destination's off-ramp has executed the message."""
        there = self._ends[transfer.crossing.destination]
        return (state_read(there.chain, there.off_ramp, transfer.id),)

    def stage(self, transfer: Transfer, replies: Sequence[bytes]) -> Stage:
        """Return ARRIVED once the off-ramp says so."""
        del transfer
        return stage_of(replies[0]) if len(replies) == 1 else Stage.SENT

    def witnesses(self, transfer: Transfer) -> tuple[bytes, ...]:
        """Return the contracts on the destination whose logs show a delivery."""
        there = self._ends[transfer.crossing.destination]
        return there.off_ramp, there.pool

    def digest(self, transfer: Transfer) -> bytes:
        """Return what a keeper signs of a transfer that is final on its origin."""
        return signed_digest(self.committee.tag, transfer.id)

    def deliver(self, transfer: Transfer, signatures: Mapping[bytes, bytes]) -> Send:
        """Return the transaction that delivers a transfer: signer → its signature of the digest."""
        there = self._ends[transfer.crossing.destination]
        proof = committee_proof(self.committee.tag, signatures)
        return execute(there.chain, there.off_ramp, transfer.payload, [there.resolver], [proof])

    def delivery(self, transfer: Transfer, logs: Sequence[Log]) -> Delivery | None:
        """Return the transaction that executed the message and paid the recipient the amount."""
        here, there = self._pair(transfer.crossing)
        origin = here.selector.to_bytes(32, "big")
        payout = (there.token, there.off_ramp, transfer.recipient)
        paid = b"".join(map(word, payout)) + transfer.amount.to_bytes(32, "big")
        for log in logs:
            if log.address != there.off_ramp or not _executed(log, origin, transfer.id):
                continue
            for other in logs:
                if (
                    other.transaction == log.transaction
                    and other.address == there.pool
                    and other.topics == (PAID_OUT, origin)
                    and other.data == paid
                ):
                    return Delivery(transfer, log.block, log.transaction)
        return None

    def _pay_out(self, here: CcipEnd, there: CcipEnd) -> bytes:
        """Return the call by which an off-ramp has its pool pay out one unit, to the router."""
        pool_data = self.decimals.to_bytes(32, "big")
        asked = (
            word(here.router), here.selector, there.router, 1, there.token, word(here.pool),
            pool_data, b"",
        )  # fmt: skip
        return calldata(_PAY_OUT, asked, FINAL)

    def _tokens(self, here: CcipEnd, there: CcipEnd, amount: int, receiver: bytes) -> CcipTokens:
        """Return what a message of this token says of it."""
        pool_data = self.decimals.to_bytes(32, "big")
        return CcipTokens(
            amount, word(here.pool), word(here.token), there.token, receiver, pool_data
        )

    def _pair(self, crossing: Crossing) -> tuple[CcipEnd, CcipEnd]:
        return self._ends[crossing.origin], self._ends[crossing.destination]


def _sending(here: CcipEnd, amount: int, recipient: bytes) -> Sending:
    """Return a message that only moves tokens: no data, no gas for a receiver, paid in coin."""
    extra = ccip_extra_args(0, True)
    return word(recipient), b"", [(here.token, amount)], bytes(20), extra


def _tokens(reply: bytes, place: int) -> int:
    """Return what a pool's outbound (0) or inbound (1) bucket lets through.

    Raises:
        ValueError: it is no pair of buckets.
    """
    tokens, _, counts, size, _ = answers((_BUCKET, _BUCKET), reply)[place]
    return min(tokens, size) if counts else UNBOUNDED


def _executed(log: Log, origin: bytes, message: bytes) -> bool:
    """Return whether a log says that a message from a chain was executed."""
    if len(log.topics) != 4 or log.topics[0] != STATE_CHANGED:
        return False
    return (log.topics[1], log.topics[3]) == (origin, message) and (
        int.from_bytes(log.data[:32], "big") == EXECUTED
    )
