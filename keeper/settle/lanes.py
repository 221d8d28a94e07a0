"""Lanes of the native escrow: makers who pay on one chain for what they are paid on another.

    offers.json ─▶ Offer ─┬─ what the maker holds there, less what it owes flows ─▶ capacity
                          ├─ governance's limit per lane                          ─▶ capacity
                          ├─ deliveries that chains show (seen.py)                ─▶ fee, time
                          └─ a breaker's stop for the maker, at either end        ─▶ cursed

An offer is only a wish to be asked: nothing is owed before the maker places its own deposit, so a
false offer costs a try. Who can break such a lane is the committee, whatever the maker: all of them
share one verifier.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keeper.errors import ConfigError
from keeper.network import NetworkSpec
from keeper.parameters import BridgeClass
from keeper.route.congestion import Delivery, Seen, live
from keeper.route.graph import Graph, Lane, Place
from keeper.settle.terms import MAX_LEGS, read_address
from keeper.units import PPM, ChainId, symbol, symbol_text
from keeper.venue.escrow import PLEDGED, outcome, prepared
from keeper.venue.port import Tables

MAX_OFFERS = 1_024
"""Offers of one file: far more lanes than a route can use."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A maker's terms for one direction.

    Args:
        maker: 20 bytes, the same account on both chains.
        origin, destination, asset: where it is paid, and where it pays.
        fee_ppm, fee_fixed: what it keeps of what it is paid.
        p50_ms, p95_ms: from the first deposit to the outcome where it pays, as it says.
    """

    maker: bytes
    origin: ChainId
    destination: ChainId
    asset: bytes
    fee_ppm: int
    p50_ms: int
    p95_ms: int
    fee_fixed: int = 0

    @property
    def lane(self) -> tuple[bytes, ChainId, ChainId, bytes]:
        """What a route names it by: maker, origin, destination, asset."""
        return self.maker, self.origin, self.destination, self.asset

    @property
    def scope(self) -> bytes:
        """What a breaker stops to stop this maker's lanes at a chain."""
        return self.maker.ljust(32, b"\0")


@dataclass(frozen=True, slots=True)
class Condition:
    """What is known of a lane now.

    Args:
        funds: what the maker holds at the destination; it pays its deposit from it too.
        owed: what it still has to lock there for open flows.
        limit: the most that governance lets one lane carry.
        deposit_ppm: deposit of every leg, as a share of its amount.
        stopped: a breaker stops it at one of its ends.
        deliveries: what was seen of it, oldest first.
    """

    funds: int
    owed: int
    limit: int
    deposit_ppm: int = 0
    stopped: bool = False
    deliveries: tuple[Delivery, ...] = ()


def owed(
    network: NetworkSpec, tables: Tables, but: Container[bytes] = ()
) -> dict[tuple[Place, bytes], int]:
    """Return (place, payer) → what payers placed deposits for and have not locked yet.

    Args:
        network: the descriptor.
        tables: certified records of its chains.
        but: flows that do not count.
    """
    found: dict[tuple[Place, bytes], int] = {}
    for spec in network.chains:
        records = tables.get(spec.id)
        if records is None:
            continue
        assets = {token.address: token.asset for token in spec.tokens}
        for one in prepared(spec, records, but):
            asset = assets.get(one.leg.token)
            open_ = one.stage == PLEDGED and not one.left and not one.leg.reduces
            if asset is not None and open_ and not outcome(spec, records, one.flow)[0]:
                key = (Place(spec.id, asset), one.leg.payer)
                found[key] = found.get(key, 0) + one.leg.amount
    return found


def lane_of(network: NetworkSpec, offer: Offer, now: Condition) -> Lane:
    """Return an offer's lane as it is now."""
    free = max(0, now.funds - now.owed) * PPM // (PPM + now.deposit_ppm)
    rounding = MAX_LEGS if now.deposit_ppm else 0  # every leg's deposit is rounded up
    lane = Lane(
        bridge=offer.maker,
        origin=offer.origin,
        destination=offer.destination,
        asset=offer.asset,
        fee_fixed=offer.fee_fixed,
        fee_ppm=offer.fee_ppm,
        p50_ms=offer.p50_ms,
        p95_ms=offer.p95_ms,
        capacity=min(max(0, free - rounding), now.limit),
        security=BridgeClass.BONDED,
        verifier=network.id,
    )
    seen = live(lane, Seen(now.deliveries, cursed=now.stopped))
    # what a maker asks for is paid, whatever others paid before
    return replace(seen, fee_ppm=max(seen.fee_ppm, offer.fee_ppm))


def graph_of(network: NetworkSpec, offers: Mapping[Offer, Condition]) -> Graph:
    """Return the lanes of all offers, as they are now."""
    lanes = sorted(
        (lane_of(network, offer, now) for offer, now in offers.items()),
        key=lambda lane: (lane.origin, lane.destination, lane.asset, lane.bridge),
    )
    return Graph(lanes=tuple(lanes))


def read_offers(rows: object, where: str) -> tuple[Offer, ...]:
    """Return the offers of a JSON list.

    Raises:
        ConfigError: it is no such list.
    """
    try:
        if not isinstance(rows, Sequence) or len(rows) > MAX_OFFERS:
            raise ValueError(f"a list of at most {MAX_OFFERS} offers")
        offers = tuple(_offer(row) for row in rows)
        if len({offer.lane for offer in offers}) < len(offers):
            raise ValueError("two offers of one maker for one lane")
        return offers
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"cannot read the offers: {type(error).__name__} {error}",
            where=where,
            remedy='[{"maker": 0x…, "origin": 31501, "destination": 31502, "asset": "USDC", '
            '"fee_ppm": 300, "p50_ms": 10000, "p95_ms": 20000}]',
        ) from error


def _offer(row: Mapping[str, Any]) -> Offer:
    offer = Offer(
        maker=read_address(row["maker"]),
        origin=ChainId(int(row["origin"])),
        destination=ChainId(int(row["destination"])),
        asset=symbol(row["asset"]),
        fee_ppm=int(row["fee_ppm"]),
        p50_ms=int(row["p50_ms"]),
        p95_ms=int(row["p95_ms"]),
        fee_fixed=int(row.get("fee_fixed", 0)),
    )
    if offer.origin == offer.destination or not 0 <= offer.fee_ppm < PPM:
        raise ValueError("a lane joins two chains for less than all that is sent")
    if offer.fee_fixed < 0 or not 0 < offer.p50_ms <= offer.p95_ms:
        raise ValueError("fees are not negative, and p50 is at most p95")
    return offer


def plain_offers(offers: Sequence[Offer]) -> list[dict[str, Any]]:
    """Return what `read_offers` reads."""
    return [
        {
            "maker": "0x" + offer.maker.hex(),
            "origin": offer.origin,
            "destination": offer.destination,
            "asset": symbol_text(offer.asset),
            "fee_ppm": offer.fee_ppm,
            "fee_fixed": offer.fee_fixed,
            "p50_ms": offer.p50_ms,
            "p95_ms": offer.p95_ms,
        }
        for offer in offers
    ]
