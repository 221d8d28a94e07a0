"""What chains show of makers' lanes: what each kept of what it was paid, and how long it took.

    certified tables ─▶ whole flows, committed here and paid ─▶ paid on A, pays on B ─▶ fee ──┐
    logs, block times ─▶ when each step of them was ──────────────────────────────────▶ time ─┴▶
                                                                                       Delivery
The money comes from certified tables alone; logs only say when, and whoever serves them can lie
about nothing else.

A delivery's **time** is what the flow would have taken had only its maker made it wait. Steps are
deposits and locks in the order of their blocks' times, and a gap between two steps is charged to
who ends it. The maker's gaps, and the time from the last step until the destination knows the
outcome, are its delivery: from then on anyone may have it paid by one call. So somebody who lets a
maker wait until the last second, or does not fetch what came, makes nobody's lane slower. Blocks
tell time in whole seconds, so a second is added.

A delivery's **fee** is the least that, rounded up to whole units as fees are, makes what the maker
kept: a unit kept of ten is no tenth, or else a few tiny flows would make a lane look dear. What it
kept is what it was paid of an asset in the whole flow, less what it paid and its fixed fee, so
several legs are one delivery, a maker that serves two lanes in a flow kept the same share on both,
and what it passes on to itself over a third chain is one lane from the first to the last. Only what
is paid to its address and from it counts; tokens that the descriptor does not name do not. Flows
that also reduce positions are left out: they may wait for room that governance gives, not a maker.

A stranger cannot change a maker's lane: a maker pays in no flow that it did not lock. A maker can
dress up its own, at the price of gas: so a lane is never taken for cheaper than its maker asks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from keeper.network import ChainSpec, NetworkSpec
from keeper.route.congestion import FEWEST, WINDOW, Delivery
from keeper.settle.flow import COMMIT, Locked
from keeper.settle.lanes import Offer
from keeper.units import PPM, ChainId
from keeper.venue.escrow import (
    LOCKED,
    NOWHERE,
    PAID,
    PLEDGED,
    PREPARED,
    SETTLED,
    Leg,
    decoded,
    outcomes,
    prepared,
)
from keeper.venue.port import Records, Tables
from keeper.venue.records import WORD, unsigned, word

MOST_FLOWS = 1_024
"""Flows whose blocks are asked for at once, shared equally by the lanes, so that a maker with many
flows of its own takes none of another's; a lane always has enough for a quantile."""


class Logged(Protocol):
    """An event of a chain, and the block it is in."""

    @property
    def address(self) -> bytes:
        """Who logged it."""
        ...

    @property
    def topics(self) -> tuple[bytes, ...]:
        """Its topics."""
        ...

    @property
    def data(self) -> bytes:
        """Its other arguments."""
        ...

    @property
    def block(self) -> int:
        """Where it stands."""
        ...


Block = tuple[ChainId, int]
Logs = Mapping[ChainId, Sequence[Logged]]


@dataclass(frozen=True, slots=True)
class Passage:
    """A flow that went over a lane, its times not known yet.

    Args:
        fee_ppm: the least fee that makes what the maker kept.
        own, others: blocks in which the maker, and somebody else, placed a deposit or locked.
        settled: block in which the destination took the outcome.
    """

    fee_ppm: int
    own: tuple[Block, ...]
    others: tuple[Block, ...]
    settled: Block

    @property
    def blocks(self) -> frozenset[Block]:
        """Return every block whose time matters."""
        return frozenset((*self.own, *self.others, self.settled))


def passages(
    network: NetworkSpec, tables: Tables, logs: Logs, offers: Iterable[Offer]
) -> dict[Offer, tuple[Passage, ...]]:
    """Return the newest flows that went over each lane, oldest first.

    Args:
        network: the descriptor.
        tables: certified records of its chains.
        logs: of the escrows; a flow whose steps are not all there is left out.
        offers: the lanes that matter.
    """
    lanes = tuple(dict.fromkeys(offers))
    most = min(WINDOW, max(FEWEST, MOST_FLOWS // max(len(lanes), 1)))
    steps = {chain: _steps(network.chain(chain), rows) for chain, rows in logs.items()}
    found: dict[Offer, list[tuple[int, bytes, Passage]]] = {offer: [] for offer in lanes}
    for flow, legs in _committed(network, tables, frozenset(one.maker for one in lanes)):
        payers = {leg.payer for leg in legs}
        for offer in lanes:
            fee = _fee(network, tables, flow, legs, offer) if offer.maker in payers else None
            made = None if fee is None else _passage(steps, flow, legs, offer, fee)
            if made is not None:
                found[offer].append((made.settled[1], flow, made))
    return {
        offer: tuple(made for *_, made in sorted(rows, key=lambda row: row[:2])[-most:])
        for offer, rows in found.items()
    }


def deliveries(
    found: Mapping[Offer, Sequence[Passage]], times: Mapping[Block, int]
) -> dict[Offer, tuple[Delivery, ...]]:
    """Return what was seen of each lane, oldest first; a flow without all its times is left out."""
    return {
        offer: tuple(
            Delivery(one.fee_ppm, _took_ms(one, times))
            for one in rows
            if one.blocks <= times.keys()
        )
        for offer, rows in found.items()
    }


def _took_ms(one: Passage, times: Mapping[Block, int]) -> int:
    own = {times[block] for block in one.own}
    steps = sorted(own | {times[block] for block in one.others})
    waited = sum(after - before for before, after in pairwise(steps) if after in own)
    return (waited + max(0, times[one.settled] - steps[-1]) + 1) * 1_000


def _committed(
    network: NetworkSpec, tables: Tables, makers: frozenset[bytes]
) -> Iterator[tuple[bytes, tuple[Leg, ...]]]:
    """Yield the payments of flows in which a maker pays, and which all their chains committed."""
    flows: dict[bytes, Locked] = {}
    for spec in network.chains:
        if spec.id not in tables:
            continue
        came = outcomes(spec, tables[spec.id])
        for one in prepared(spec, tables[spec.id]):
            if came.get(one.flow, (0, 0))[0] == COMMIT:
                flows.setdefault(one.flow, Locked()).legs[one.index] = one
    for flow, locked in sorted(flows.items()):
        legs = locked.agreed
        if any(leg.reduces for leg in legs) or makers.isdisjoint(leg.payer for leg in legs):
            continue
        if locked.is_known(network.id, flow):
            yield flow, legs


def _fee(
    network: NetworkSpec, tables: Tables, flow: bytes, legs: Sequence[Leg], offer: Offer
) -> int | None:
    """Return the fee in ppm that a maker took, or None where the flow was not over its lane."""
    tokens = {
        (spec.id, token.address)
        for spec in network.chains
        for token in spec.tokens
        if token.asset == offer.asset
    }
    moved: dict[ChainId, int] = {}
    for leg in legs:
        pays = leg.payer == offer.maker
        gets = leg.vault == NOWHERE and leg.receiver == word(offer.maker)
        if pays == gets or (leg.chain, leg.token) not in tokens:
            continue
        if not _is_paid(tables[leg.chain], flow, leg):
            return None
        moved[leg.chain] = moved.get(leg.chain, 0) + (leg.amount if gets else -leg.amount)
    if moved.get(offer.origin, 0) <= 0 or moved.get(offer.destination, 0) >= 0:
        return None
    came = sum(amount for amount in moved.values() if amount > 0)
    kept = sum(moved.values()) - offer.fee_fixed
    return (kept - 1) * PPM // came + 1 if kept > 0 else 0


def _is_paid(records: Records, flow: bytes, leg: Leg) -> bool:
    """Return whether a leg went to its receiver: one that escaped went back to its payer."""
    data = records.get(leg.escrow, PAID, flow, leg.index.to_bytes(WORD, "big"))
    return data is not None and (data[:WORD], unsigned(data, 2)) == (leg.receiver, leg.amount)


@dataclass(frozen=True, slots=True)
class _Steps:
    """In which blocks of one chain legs were entered, by stage, and flows were settled."""

    entered: Mapping[tuple[bytes, Leg, int], int]
    settled: Mapping[bytes, int]


_NONE = _Steps({}, {})


def _steps(spec: ChainSpec, logs: Iterable[Logged]) -> _Steps:
    entered: dict[tuple[bytes, Leg, int], int] = {}
    settled: dict[bytes, int] = {}
    escrow = spec.contract("Escrow")
    for log in logs:
        if escrow is None or log.address != escrow:
            continue
        match log.topics:
            case (topic, flow, index) if topic == PREPARED and len(log.data) >= 12 * WORD:
                one = decoded(spec.id, escrow, flow, index, log.data)
                entered[flow, one.leg, one.stage] = log.block
            case (topic, flow) if topic == SETTLED:
                settled[flow] = log.block
            case _:
                pass
    return _Steps(entered, settled)


def _passage(
    steps: Mapping[ChainId, _Steps], flow: bytes, legs: Sequence[Leg], offer: Offer, fee_ppm: int
) -> Passage | None:
    """Return the blocks of a flow's steps, or None where one is not in the logs."""
    own: list[Block] = []
    others: list[Block] = []
    for leg in legs:
        entered = steps.get(leg.chain, _NONE).entered
        blocks = {stage: entered.get((flow, leg, stage)) for stage in (PLEDGED, LOCKED)}
        if blocks[LOCKED] is None:
            return None
        mine = own if leg.payer == offer.maker else others
        mine += [(leg.chain, block) for block in blocks.values() if block is not None]
    settled = steps.get(offer.destination, _NONE).settled.get(flow)
    if settled is None:
        return None
    return Passage(fee_ppm, tuple(own), tuple(others), (offer.destination, settled))
