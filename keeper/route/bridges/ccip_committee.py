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
from keeper.ecdsa import sign, signer_of
from keeper.keys import address_of
from keeper.reasons import Reason
from keeper.route.bridges.ccip import MESSAGE_SENT, signed_digest
from keeper.route.bridges.ccip_lane import Ccip
from keeper.route.bridges.message import decode_ccip
from keeper.route.bridges.multisig import MAX_EARLY, MAX_WAITING
from keeper.route.bridges.origin import Ready, Signed, Watch
from keeper.route.bridges.port import Bridge, Transfer
from keeper.units import BlockNumber, ChainId

CCIP_FRAME = 8 + 32 + 65
"""Selector of the origin, message id, signature."""
MAX_ARRIVED = 1024
"""Ids of arrived messages remembered, so that late frames about them are not kept as early ones."""


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
        self._tokens, self._key = tuple(tokens), key
        self._committee, end = tokens[0].committee, tokens[0].end(chain)
        self._order, self._me = self._committee.signers, address_of(key)
        if self._me not in self._order:
            raise ValueError("this keeper is no signer of the committee")
        self.watch = Watch(
            chain,
            start=BlockNumber(min(token.end(chain).first_block for token in tokens)),
            addresses=(end.on_ramp,),
            topics=(MESSAGE_SENT,),
            keepers=len(self._order),
            frame=CCIP_FRAME,
            head=end.selector.to_bytes(8, "big"),
        )
        self._waiting: dict[bytes, _Waiting] = {}
        self._early: dict[bytes, list[tuple[bytes, bytes]]] = {one: [] for one in self._order}
        self._arrived: dict[bytes, None] = {}

    def read(self, logs: Sequence[Log], answers: Sequence[bytes]) -> tuple[Signed, ...]:
        """Take logs of final blocks; return what was signed. There is nothing to check them by."""
        del answers
        return tuple(
            Signed(transfer.id, self._sign(token, transfer), log.block)
            for log in logs
            for token in self._tokens
            for crossing in token.crossings()
            if crossing.origin == self.watch.chain
            for transfer in token.sent(crossing, [log])
        )

    def _sign(self, token: Ccip, transfer: Transfer) -> bytes:
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
        return self._frame(waiting)

    def receive(self, frame: bytes) -> Reason | None:
        """Take a peer's frame; return why it is not accepted, if it is not."""
        if len(frame) != CCIP_FRAME:
            return Reason.MALFORMED
        name, signature = frame[8:40], frame[40:]
        if not self.watch.about(frame):
            return Reason.WRONG_CONFIG
        signer = signer_of(signed_digest(self._committee.tag, name), signature)
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
        least = self._committee.threshold
        return tuple(
            self._delivery(name, waiting)
            for name, waiting in self._waiting.items()
            if len(waiting.signatures) >= least
        )

    def waiting(self) -> tuple[tuple[Bridge, Transfer], ...]:
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
        return self.watch.head + waiting.transfer.id + waiting.signatures[self._me]

    def _delivery(self, name: bytes, waiting: _Waiting) -> Ready:
        chosen = sorted(waiting.signatures)[: self._committee.threshold]
        signatures = {signer: waiting.signatures[signer] for signer in chosen}
        turn = (self._order.index(self._me) - waiting.number) % len(self._order)
        return Ready(name, turn, waiting.token.deliver(waiting.transfer, signatures))
