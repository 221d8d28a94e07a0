"""A chain's warp messages, for one keeper: its multisig's Validator, fed from logs. No I/O.

Mailbox: Dispatch ─┬─▶ Validator ─▶ frames      the root of the own tree must be the hook's at
hook: Inserted ────┘                            that very block, or all leaves are read again
"""

from collections.abc import Sequence

from keeper.chain.port import Call, Log
from keeper.reasons import Reason
from keeper.route.bridges.hyperlane import DISPATCH, INSERTED, Hyperlane, process
from keeper.route.bridges.multisig import FRAME, Bring, Validator
from keeper.route.bridges.origin import Ready, Signed, Watch
from keeper.route.bridges.port import Bridge, Send, Transfer
from keeper.units import BlockNumber, ChainId
from keeper.venue.abi import answers as decoded
from keeper.venue.abi import calldata


class WarpOrigin:
    """One keeper's part for the warp messages of one chain.

    Args:
        routes: what is served; they share validators, and on each chain mailbox and hook.
        chain: the origin.
        key: this keeper's, whose address is one of the validators.
    """

    def __init__(self, routes: Sequence[Hyperlane], chain: ChainId, key: bytes) -> None:
        self._routes, self._key = tuple(routes), key
        end = self._end = routes[0].end(chain)
        self.watch = Watch(
            chain,
            start=BlockNumber(min(route.end(chain).first_block for route in routes)),
            addresses=(end.mailbox, end.hook),
            topics=(DISPATCH, INSERTED),
            keepers=len(routes[0].validators),
            frame=FRAME,
            head=end.domain.to_bytes(4, "big"),
            checks=(Call(end.hook, calldata("root()")),),
        )
        self._validator = self._new()

    def _new(self) -> Validator:
        end, first = self._end, self._routes[0]
        return Validator(
            end.domain, end.hook, first.validators, first.threshold, self._key,
            lambda raw: any(route.read(raw) is not None for route in self._routes),
        )  # fmt: skip

    def read(self, logs: Sequence[Log], answers: Sequence[bytes]) -> tuple[Signed, ...]:
        """Take the logs of further final blocks, and the hook's root after them.

        Raises:
            ValueError: a log is not what its contract emits, or a leaf is missing or made up.
        """
        try:
            signed = [one for log in logs for one in self._take(log)]
            if [self._validator.tree.root] != list(answers):
                raise ValueError("the leaves read do not give the hook's root")
        except ValueError:
            self._validator = self._new()
            raise
        return tuple(signed)

    def _take(self, log: Log) -> list[Signed]:
        end, kind = self._end, log.topics[:1]
        if (log.address, kind) == (end.mailbox, (DISPATCH,)):
            self._validator.dispatched(decoded(("bytes",), log.data)[0])
        elif (log.address, kind) == (end.hook, (INSERTED,)):
            message, index = decoded(("bytes32", "uint32"), log.data)
            frame = self._validator.inserted(message, index)
            return [Signed(message, frame, log.block)] if frame is not None else []
        return []

    def receive(self, frame: bytes) -> Reason | None:
        """Take a peer's frame; return why it is not accepted, if it is not."""
        return self._validator.receive(frame)

    def ready(self) -> tuple[Ready, ...]:
        """Return what has enough signatures, oldest first."""
        return tuple(
            Ready(one.id, one.turn, self._delivery(one)) for one in self._validator.ready()
        )

    def waiting(self) -> tuple[tuple[Bridge, Transfer], ...]:
        """Return the signed transfers not known to have arrived."""
        return tuple(map(self._transfer, self._validator.messages()))

    def frames(self) -> tuple[bytes, ...]:
        """Return this keeper's frames of what has not arrived, for peers that missed them."""
        return self._validator.frames()

    def arrived(self, name: bytes) -> None:
        """Forget a transfer that has arrived."""
        self._validator.delivered(name)

    def _delivery(self, one: Bring) -> Send:
        route, transfer = self._transfer(one.message)
        return process(route.end(transfer.crossing.destination), one.metadata, one.message)

    def _transfer(self, message: bytes) -> tuple[Hyperlane, Transfer]:
        for route in self._routes:
            transfer = route.read(message)
            if transfer is not None:
                return route, transfer
        raise AssertionError("only served messages wait")
