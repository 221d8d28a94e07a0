"""Positions at several venues reduced together: a health to reach → legs of one flow.

    legs of the account ─▶ perps at venues beside an escrow ─▶ the same share of each ─▶ flow legs
                                                               └ the least that reaches the health,
                                                                 bisected on the margin model itself

The same share of every position: what hedges another keeps hedging it, and since all happen or
none, no side is left open. Closing is at the mark, less the venue's fee, against the account.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from keeper.legs import Leg, LegKind
from keeper.margin.close import closed_row
from keeper.margin.engine import AccountMargin, Engine
from keeper.network import NetworkSpec
from keeper.units import PPM, ChainId, ceil_div
from keeper.venue.escrow import NOWHERE
from keeper.venue.escrow import Leg as FlowLeg


@dataclass(frozen=True, slots=True)
class Plan:
    """What to close of which positions.

    Args:
        closes: (position, size to close), by position.
        before, after: the account's margin now, and when all of it is closed at the mark.
    """

    closes: tuple[tuple[Leg, int], ...]
    before: AccountMargin
    after: AccountMargin

    def values(self, engine: Engine) -> dict[tuple[ChainId, bytes], int]:
        """Return what is closed at each market, µUSD rounded up, as governance limits it."""
        found: dict[tuple[ChainId, bytes], int] = {}
        for leg, size in self.closes:
            rate, key = engine.marks.rate(leg), (leg.chain, leg.market)
            found[key] = found.get(key, 0) + ceil_div(size * rate.price, rate.divisor)
        return found


def reducible(network: NetworkSpec, legs: Iterable[Leg]) -> list[Leg]:
    """Return the positions that a flow can reduce, by place."""
    venues = {
        chain.id: chain.contract("Perps") for chain in network.chains if chain.contract("Escrow")
    }
    found = (leg for leg in legs if leg.kind is LegKind.PERP and leg.size)
    there = (leg for leg in found if venues.get(leg.chain) == leg.venue)
    return sorted(there, key=lambda leg: leg.key)


def plan(
    engine: Engine,
    legs: Sequence[Leg],
    positions: Sequence[Leg],
    fees: Mapping[tuple[ChainId, bytes], int],
    health_ppm: int,
) -> Plan | None:
    """Return the least reduction that reaches a health, or None if closing all does not.

    Args:
        engine: of the tick.
        legs: all of the account's.
        positions: those of them to reduce, by the same share.
        fees: what a venue takes of what is closed, ppm, per chain and market.
        health_ppm: to reach, at least healthy in every sense.

    Raises:
        Unpriced: a leg has no price or parameters.
    """
    rows, places = engine.rows(legs), [legs.index(leg) for leg in positions]

    def closes(share: int) -> list[int]:
        return [ceil_div(abs(leg.size) * share, PPM) for leg in positions]

    def after(share: int) -> AccountMargin:
        changed = list(rows)
        for at, leg, size in zip(places, positions, closes(share), strict=True):
            changed[at], _ = closed_row(rows[at], size, fees[leg.chain, leg.market])
        return engine.margin(changed)

    def reached(margin: AccountMargin) -> bool:
        return margin.healthy and margin.health_ppm >= health_ppm

    before = engine.margin(rows)
    if reached(before):
        return Plan((), before, before)
    if not reached(after(PPM)):
        return None
    low, high = 0, PPM  # never reached, always reached
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(after(middle)) else (middle, high)
    return Plan(tuple(zip(positions, closes(high), strict=True)), before, after(high))


def legs_of(network: NetworkSpec, found: Plan, owner: bytes, index: int) -> tuple[FlowLeg, ...]:
    """Return the legs of the flow that carries a plan out.

    Args:
        network: the descriptor.
        found: what to close.
        owner: 20 bytes, who locks the legs.
        index: which of the owner's margin accounts it is.
    """
    made = []
    for leg, size in found.closes:
        escrow = network.chain(leg.chain).contract("Escrow")
        assert escrow is not None, "a reducible position is beside an escrow"
        receiver = index.to_bytes(32, "big")
        made.append(
            FlowLeg(leg.chain, escrow, owner, NOWHERE, size, receiver, 0, leg.venue, leg.market)
        )
    return tuple(made)
