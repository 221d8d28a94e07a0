"""What a routing policy is shown of this keeper's own funds and of the lanes between them.

Only lanes between tokens that the network's descriptor names are own lanes: what arrives anywhere
else is no token that the filling policy, a bid or a repayment could spend.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import structlog

from keeper.margin.breaker import chain_scope, class_scope
from keeper.network import NetworkSpec
from keeper.route.bridges.port import Bridge, Crossing
from keeper.route.permits import Price, Quoted
from keeper.route.shipments import Place, Stock
from keeper.units import ChainId, ceil_div, symbol_text
from policies import api

log = structlog.get_logger(__name__)

GAS_UNITS = 300_000
"""Of an approval and a transfer together, for what a lane is said to cost."""
STOPPED = 2
"""Level of a breaker that stops."""
_MOST, _MOST_PLAIN = (1 << 127) - 1, (1 << 63) - 1


def own_lanes(network: NetworkSpec, bridges: Sequence[Bridge]) -> list[tuple[Bridge, Crossing]]:
    """Return the lanes between places of this network; the others are told once, and not used."""
    known = {(spec.id, one.asset): one for spec in network.chains for one in spec.tokens}
    found = []
    for bridge in bridges:
        for crossing in bridge.crossings():
            ends = [known.get((chain, crossing.asset)) for chain in _chains_of(crossing)]
            here, there = ends
            if here is None or there is None or here.decimals != there.decimals:
                why = "the network does not name its asset at both ends, in the same units"
            elif (here.address, there.address) != bridge.tokens(crossing):
                why = "its token is not the network's"
            else:
                found.append((bridge, crossing))
                continue
            log.warning("lane_not_used", bridge=bridge.name, why=why, **named(crossing))
    return found


def decimals_of(network: NetworkSpec, places: Collection[Place]) -> dict[bytes, int]:
    """Return the decimals of each asset that counts in the same units at all own places."""
    found: dict[bytes, set[int]] = {}
    for spec in network.chains:
        for token in spec.tokens:
            if (spec.id, token.asset) in places:
                found.setdefault(token.asset, set()).add(token.decimals)
    return {asset: next(iter(units)) for asset, units in found.items() if len(units) == 1}


def _chains_of(crossing: Crossing) -> tuple[ChainId, ChainId]:
    return crossing.origin, crossing.destination


def named(crossing: Crossing) -> dict[str, Any]:
    """Return a crossing as a log line names it."""
    asset = symbol_text(crossing.asset)
    return {"asset": asset, "origin": crossing.origin, "destination": crossing.destination}


def stops(shown: api.MarketView) -> Callable[[Quoted], bool]:
    """Return whether a tripped breaker stops a lane: everywhere, an end, its class, or itself."""
    scopes = {row.scope for row in shown.breakers if row.level >= STOPPED}

    def stopped(one: Quoted) -> bool:
        ends = {chain_scope(chain) for chain in _chains_of(one.crossing)}
        kind = class_scope(one.lane.security)
        return bool(scopes & {bytes(32), one.lane.bridge.ljust(32, b"\0"), kind, *ends})

    return stopped


def coin_cost(gas: api.Gas | None, price: Price | None, value: int) -> int | None:
    """Return what a transfer costs in coin, in the asset's unit, rounded up; None if not known."""
    if gas is None or price is None or price.price <= 0:
        return None
    wei = value + GAS_UNITS * gas.price_wei
    return ceil_div(wei * gas.coin_price * 10**price.decimals, 10**18 * price.price)


def holding(place: Place, one: Stock, own: int | None) -> api.Holding:
    """Return a place's row of the inventory; `own` is what own transfers changed there."""
    return api.Holding(
        place[0],
        place[1],
        _wide(one.available),
        _wide(one.in_flight),
        _wide(one.reserved),
        None if own is None else _wide(own),
    )


def quote_row(one: Quoted, most: int) -> api.BridgeQuote:
    """Return a lane as a policy sees it: `most` is what may go over it now."""
    lane = one.lane
    return api.BridgeQuote(
        lane.bridge,
        lane.origin,
        lane.destination,
        lane.asset,
        lane.fee_ppm,
        min(lane.fee_fixed, _MOST_PLAIN),
        lane.p50_ms,
        lane.p95_ms,
        lane.security.value,
        _wide(most),
        min(one.coin_cost or 0, _MOST_PLAIN),
    )


def _wide(amount: int) -> api.Wide:
    return api.Wide(max(min(amount, _MOST), -_MOST))
