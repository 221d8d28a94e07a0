"""Every bridge behind one port: what it asks, how to send, and how to know that it arrived.

    quote_reads ─▶ answers at final blocks ─▶ Terms (fee, coin, room, fault) ─▶ Lane of the graph
    sends(step) ─▶ Sends ─▶ receipt logs ─▶ sent ─▶ Transfer (its id, what must arrive, where)
    arrival_reads(transfer) ─▶ answers ─▶ Stage              logs of a final block ─▶ delivery

An adapter is pure: it says what to read and judges the answers. Who reads does so at final blocks,
so that a stage reached is never taken back. A fault makes the lane cursed: a bridge whose own
contracts are not set up as this network expects them carries nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from keeper.chain.port import BlockRef, Call, Log
from keeper.parameters import BridgeClass
from keeper.plan import Step, StepKind
from keeper.route.graph import Lane
from keeper.units import PPM, ChainId, ceil_div

UNBOUNDED = 1 << 128
"""The room of a lane whose bridge names none."""


class Stage(IntEnum):
    """How far a transfer is."""

    SENT = 0
    READY = 1
    ARRIVED = 2
    RETURNED = 3


@dataclass(frozen=True, slots=True, order=True)
class Crossing:
    """One direction for one asset."""

    origin: ChainId
    destination: ChainId
    asset: bytes


@dataclass(frozen=True, slots=True)
class Read:
    """A call to be read on a chain."""

    chain: ChainId
    call: Call


@dataclass(frozen=True, slots=True)
class Send:
    """A transaction without gas, nonce, fee or key.

    Args:
        chain, to, data: the call.
        value: native coin that goes with it.
    """

    chain: ChainId
    to: bytes
    data: bytes
    value: int = 0


@dataclass(frozen=True, slots=True)
class Terms:
    """What a bridge asks for a crossing now.

    Args:
        fee_fixed, fee_ppm: taken from what goes in.
        value: native coin of the origin that a send costs besides gas.
        capacity: most that it takes.
        fault: why it must not be used, or empty.
    """

    fee_fixed: int = 0
    fee_ppm: int = 0
    value: int = 0
    capacity: int = UNBOUNDED
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Something on its way.

    Args:
        id: of the bridge, 32 bytes.
        crossing: from where to where.
        recipient: 20 bytes on the destination.
        amount: what arrives.
        payload: what the bridge needs to deliver it.
    """

    id: bytes
    crossing: Crossing
    recipient: bytes
    amount: int
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Delivery:
    """Proof that a transfer arrived: the logs of one transaction in one block."""

    transfer: Transfer
    block: BlockRef
    transaction: bytes


@dataclass(frozen=True, slots=True)
class Timing:
    """Advertised time from send to final delivery, until a lane has been seen often enough."""

    p50_ms: int
    p95_ms: int


class Bridge(Protocol):
    """One bridge over the chains it joins."""

    @property
    def name(self) -> str:
        """Short name for an operator."""
        ...

    @property
    def security(self) -> BridgeClass:
        """How it is verified."""
        ...

    @property
    def verifier(self) -> bytes:
        """Who can break it, 32 bytes: bridges with the same verifier are one risk."""
        ...

    @property
    def timing(self) -> Timing:
        """Advertised times."""
        ...

    def crossings(self) -> tuple[Crossing, ...]:
        """Return every crossing it offers, sorted."""
        ...

    def address(self, crossing: Crossing) -> bytes:
        """Return what a plan step names as its venue: a contract on the origin, 20 bytes."""
        ...

    def tokens(self, crossing: Crossing) -> tuple[bytes, bytes]:
        """Return the token it takes on the origin and the one it gives on the destination."""
        ...

    def quote_reads(self, crossing: Crossing) -> tuple[Read, ...]:
        """Return what must be read to quote a crossing."""
        ...

    def quoted(self, crossing: Crossing, answers: Sequence[bytes]) -> Terms:
        """Return the terms; an answer that is not what a sound bridge says is a fault of it."""
        ...

    def sends(
        self, crossing: Crossing, amount: int, sender: bytes, recipient: bytes, terms: Terms
    ) -> tuple[Send, ...]:
        """Return the transactions that send an amount, in order."""
        ...

    def sent(self, crossing: Crossing, logs: Sequence[Log]) -> tuple[Transfer, ...]:
        """Return what the logs of one transaction on the origin sent over this crossing."""
        ...

    def arrival_reads(self, transfer: Transfer) -> tuple[Read, ...]:
        """Return what tells how far a transfer is."""
        ...

    def stage(self, transfer: Transfer, answers: Sequence[bytes]) -> Stage:
        """Return how far a transfer is; what cannot be understood is no progress."""
        ...

    def witnesses(self, transfer: Transfer) -> tuple[bytes, ...]:
        """Return the contracts on the destination whose logs show a delivery."""
        ...

    def delivery(self, transfer: Transfer, logs: Sequence[Log]) -> Delivery | None:
        """Return the proof of delivery in the logs of a block on the destination, if it is there.

        A proof is as final as the block: ask with the logs of final ones.
        """
        ...


def crossings_between(chains: Iterable[ChainId], asset: bytes) -> tuple[Crossing, ...]:
    """Return every ordered pair of chains for an asset, sorted."""
    joined = sorted(chains)
    return tuple(Crossing(a, b, asset) for a in joined for b in joined if a != b)


def brings(terms: Terms, amount: int) -> int:
    """Return what arrives of an amount under some terms, rounded down; maybe nothing, or less."""
    return amount - ceil_div(amount * terms.fee_ppm, PPM) - terms.fee_fixed


def lane_of(bridge: Bridge, crossing: Crossing, terms: Terms, coin_cost: int = 0) -> Lane:
    """Return the lane of a crossing under its terms.

    Args:
        bridge: who carries it.
        crossing: which direction.
        terms: as quoted.
        coin_cost: what `terms.value` is worth in the asset's unit, rounded up.
    """
    return Lane(
        bridge.address(crossing),
        crossing.origin,
        crossing.destination,
        crossing.asset,
        terms.fee_fixed + coin_cost,
        terms.fee_ppm,
        bridge.timing.p50_ms,
        bridge.timing.p95_ms,
        terms.capacity,
        bridge.security,
        bridge.verifier,
        cursed=bool(terms.fault),
    )


def step_sends(
    bridges: Sequence[Bridge], step: Step, sender: bytes, terms: Terms, most_value: int
) -> tuple[Send, ...]:
    """Return the transactions of a BRIDGE step: its venue names the bridge.

    Args:
        bridges: those this keeper uses.
        step: with `amount`, `asset`, `destination` and `least_out`; `recipient` if not the sender.
        sender: whose funds move.
        terms: the bridge's terms now.
        most_value: native coin that the transfer may cost; a bridge names its own price.

    Raises:
        ValueError: it is no such step, no bridge carries it, it costs too much, or the terms bring
            less than it asks.
    """
    names = dict(step.args)
    amount, asset, destination = (names.get(name) for name in ("amount", "asset", "destination"))
    if step.kind is not StepKind.BRIDGE or not (
        isinstance(amount, int) and isinstance(asset, bytes) and isinstance(destination, int)
    ):
        raise ValueError(f"step {step.id!r} does not say what to send over which bridge")
    crossing = Crossing(step.chain, ChainId(destination), asset)
    recipient, least = names.get("recipient", sender), names.get("least_out", 0)
    if not isinstance(recipient, bytes) or len(recipient) != 20 or not isinstance(least, int):
        raise ValueError(f"step {step.id!r} has a recipient or a least amount that is none")
    for bridge in bridges:
        if crossing in bridge.crossings() and bridge.address(crossing) == step.venue:
            if terms.fault:
                raise ValueError(f"{bridge.name} must not be used: {terms.fault}")
            if terms.value > most_value:
                raise ValueError(f"{bridge.name} asks {terms.value} wei, above {most_value}")
            if amount > terms.capacity:
                raise ValueError(f"{bridge.name} takes at most {terms.capacity}")
            arrives = brings(terms, amount)
            if arrives < max(least, 1):
                raise ValueError(f"{bridge.name} brings {arrives}, and {least} is asked for")
            return bridge.sends(crossing, amount, sender, recipient, terms)
    raise ValueError(f"no bridge 0x{step.venue.hex()} carries step {step.id!r}")
