"""One chain's messages, as one keeper signs, believes and delivers them: what every kind has. Pure.

    logs of final blocks ─▶ read ─▶ Signed: frames for all other keepers
    peers' frames ─▶ receive ─▶ enough of them ─▶ ready: deliveries and whose turn they are
    waiting: signed and not known to have arrived ─▶ arrived(id) ─▶ forgotten

Who reads chains, keeps time and sends is the courier (`service.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from keeper.chain.port import BlockRef, Call, Log
from keeper.reasons import Reason
from keeper.route.bridges.port import Bridge, Send, Transfer
from keeper.units import BlockNumber, ChainId


@dataclass(frozen=True, slots=True)
class Watch:
    """What a courier reads for an origin, and how it knows frames about it.

    Args:
        chain: the origin; `start` is the block from which it is read.
        addresses, topics: whose logs, and their first topics.
        keepers: how many take turns.
        frame: bytes of a frame; `head` is what each begins with.
        checks: asked at the last block whose logs were read, and handed over with these.
    """

    chain: ChainId
    start: BlockNumber
    addresses: tuple[bytes, ...]
    topics: tuple[bytes, ...]
    keepers: int
    frame: int
    head: bytes
    checks: tuple[Call, ...] = ()

    def about(self, frame: bytes) -> bool:
        """Return whether a frame is about this origin, going by its size and how it begins."""
        return len(frame) == self.frame and frame.startswith(self.head)


@dataclass(frozen=True, slots=True)
class Signed:
    """A message that this keeper signed: the frame that says so, and the block it was sent in."""

    id: bytes
    frame: bytes
    block: BlockRef


@dataclass(frozen=True, slots=True)
class Ready:
    """A delivery that can be brought, and this keeper's place in the order of who does first."""

    id: bytes
    turn: int
    send: Send


class Origin(Protocol):
    """One keeper's part for the messages of one chain."""

    @property
    def watch(self) -> Watch:
        """What is read for it."""
        ...

    def read(self, logs: Sequence[Log], answers: Sequence[bytes]) -> tuple[Signed, ...]:
        """Take the logs of further final blocks, and what the checks answer after them.

        Raises:
            ValueError: some are withheld or made up. All is forgotten, to be read from the start.
        """
        ...

    def receive(self, frame: bytes) -> Reason | None:
        """Take a peer's frame; return why it is not accepted, if it is not."""
        ...

    def ready(self) -> tuple[Ready, ...]:
        """Return what has enough signatures, oldest first."""
        ...

    def waiting(self) -> tuple[tuple[Bridge, Transfer], ...]:
        """Return the signed transfers not known to have arrived, with who knows how to ask."""
        ...

    def frames(self) -> tuple[bytes, ...]:
        """Return this keeper's frames of what has not arrived, for peers that missed them."""
        ...

    def arrived(self, name: bytes) -> None:
        """Forget a transfer that has arrived."""
        ...
