"""One keeper in CCIP's committee, for the messages of one chain, and as their relayer: no I/O.

    final CCIPMessageSent, a transfer of ours ─▶ sign keccak(tag, id) ─▶ frame
    peers' frames ─▶ recover the signer ─▶ t of them ─▶ ready: the delivery, signed by t

Signed is only what is final and reads as a plain transfer between the configured pools: the tokens
are locked or burned by then. A message carries its own id, so there is no tree to keep: what an
endpoint withholds is not signed here, and t of the others are enough.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from keeper.chain.port import Log
from keeper.reasons import Reason
from keeper.route.bridges.ccip import signed_digest
from keeper.route.bridges.ccip_lane import Ccip
from keeper.route.bridges.message import decode_ccip
from keeper.route.bridges.multisig import MAX_EARLY, MAX_WAITING, address_of, sign, signer_of
from keeper.route.bridges.port import Send, Transfer
from keeper.units import ChainId

CCIP_FRAME = 8 + 32 + 65
"""Selector of the origin, message id, signature."""
MAX_ARRIVED = 1024
"""Ids of arrived messages remembered, so that late frames about them are not kept as early ones."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A delivery that can be brought, and this keeper's place in the order of who does first."""

    id: bytes
    turn: int
    send: Send


@dataclass(slots=True)
class _Waiting:
    token: Ccip
    transfer: Transfer
    number: int
    signatures: dict[bytes, bytes] = field(default_factory=dict)


class Signer:
    """One keeper's part for the messages of one on-ramp.

    Invariants: at most `MAX_WAITING` transfers, `MAX_EARLY` early frames per signer and
    `MAX_ARRIVED` ids are kept; a signature counts once, for a signer of the committee.

    Args:
        tokens: what is served; they share a committee, and on this chain selector and on-ramp.
        chain: the origin.
        key: this keeper's, whose address is one of the signers.
    """

    def __init__(self, tokens: Sequence[Ccip], chain: ChainId, key: bytes) -> None:
        self._tokens, self._chain, self._key = tuple(tokens), chain, key
        first = tokens[0]
        self.committee, end = first.committee, first.end(chain)
        self.selector, self.on_ramp = end.selector, end.on_ramp
        self._order = self.committee.signers
        self._me = address_of(key)
        if self._me not in self._order:
            raise ValueError("this keeper is no signer of the committee")
        self._waiting: dict[bytes, _Waiting] = {}
        self._early: dict[bytes, list[tuple[bytes, bytes]]] = {one: [] for one in self._order}
        self._arrived: dict[bytes, None] = {}

    def sent(self, logs: Sequence[Log]) -> tuple[tuple[bytes, bytes], ...]:
        """Take logs of final blocks; return (message id, frame) of what was signed."""
        found = []
        for log in logs:
            for token in self._tokens:
                for crossing in token.crossings():
                    if crossing.origin == self._chain:
                        found += [self._sign(token, one) for one in token.sent(crossing, [log])]
        return tuple(found)

    def _sign(self, token: Ccip, transfer: Transfer) -> tuple[bytes, bytes]:
        if transfer.id not in self._waiting and len(self._waiting) >= MAX_WAITING:
            # the oldest goes: one that nobody can deliver must not block those after it
            del self._waiting[next(iter(self._waiting))]
        number = decode_ccip(transfer.payload).number
        waiting = self._waiting.setdefault(transfer.id, _Waiting(token, transfer, number))
        waiting.signatures[self._me] = sign(self._key, token.digest(transfer))
        for signer, frames in self._early.items():
            for name, signature in frames:
                if name == transfer.id:
                    waiting.signatures[signer] = signature
            self._early[signer] = [one for one in frames if one[0] != transfer.id]
        return transfer.id, self._frame(waiting)

    def receive(self, frame: bytes) -> Reason | None:
        """Take a peer's frame; return why it is not accepted, if it is not."""
        if len(frame) != CCIP_FRAME:
            return Reason.MALFORMED
        name, signature = frame[8:40], frame[40:]
        if int.from_bytes(frame[:8], "big") != self.selector:
            return Reason.WRONG_CONFIG
        signer = signer_of(signed_digest(self.committee.tag, name), signature)
        if signer is None or signer not in self._early:
            return Reason.BAD_SIGNATURE
        if name in self._arrived:
            return Reason.STALE
        waiting = self._waiting.get(name)
        if waiting is not None:
            if signer in waiting.signatures:
                return Reason.DUPLICATE
            waiting.signatures[signer] = signature
            return None
        early = self._early[signer]
        if any(held == name for held, _ in early):
            return Reason.DUPLICATE
        self._early[signer] = [*early, (name, signature)][-MAX_EARLY:]
        return None

    def ready(self) -> tuple[Ready, ...]:
        """Return what has enough signatures, oldest first."""
        least = self.committee.threshold
        return tuple(
            self._delivery(name, waiting)
            for name, waiting in self._waiting.items()
            if len(waiting.signatures) >= least
        )

    def waiting(self) -> tuple[tuple[Ccip, Transfer], ...]:
        """Return the signed transfers not known to have arrived."""
        return tuple((one.token, one.transfer) for one in self._waiting.values())

    def frames(self) -> tuple[bytes, ...]:
        """Return this keeper's frames of what has not arrived, for peers that missed them."""
        return tuple(self._frame(waiting) for waiting in self._waiting.values())

    def arrived(self, name: bytes) -> None:
        """Forget a transfer that has arrived."""
        self._waiting.pop(name, None)
        self._arrived[name] = None
        if len(self._arrived) > MAX_ARRIVED:
            del self._arrived[next(iter(self._arrived))]

    def _frame(self, waiting: _Waiting) -> bytes:
        head = self.selector.to_bytes(8, "big") + waiting.transfer.id
        return head + waiting.signatures[self._me]

    def _delivery(self, name: bytes, waiting: _Waiting) -> Ready:
        chosen = sorted(waiting.signatures)[: self.committee.threshold]
        signatures = {signer: waiting.signatures[signer] for signer in chosen}
        turn = (self._order.index(self._me) - waiting.number) % len(self._order)
        return Ready(name, turn, waiting.token.deliver(waiting.transfer, signatures))
