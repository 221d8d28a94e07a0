"""What decisions on their way take from an account, and what is left for the next one.

    tokens    a release or a transfer in flight has already taken them from their vault
    limits    a credit counts as used in full until it expires, whether it has arrived or not
    free      = equity to open − max(R, worst R that living credits still allow)

The worst is over any positions that the venues would accept within their limits: a venue knows its
own flat ratio, the certified model adds latency, concentration and scenarios. That holds as long as
a venue's ratio is not below the `initial_ppm` that governance set.

A venue with a living credit may hold any position its limit allows, also one that no longer hedges
another venue, so its limit counts without offsets; a venue whose credit has expired can only be
reduced, so its positions keep theirs. Two decisions of one view count against each other too: a
rule adds what it just made to the decisions it passes here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from keeper.legs import Leg, LegKind
from keeper.margin.engine import Engine
from keeper.margin.marks import Unpriced
from keeper.network import ChainSpec, NetworkSpec
from keeper.snapshot.book import MAX_OUTSTANDING
from keeper.snapshot.decisions import Context, Decision
from keeper.units import PPM, ChainId, ceil_div
from keeper.venue import perps

Place = tuple[ChainId, bytes]
"""(chain, venue)."""
Holding = tuple[ChainId, bytes, bytes]
"""(chain, account, token)."""


def room(context: Context, most: int) -> int:
    """Return how many decisions a clearing rule may make now: half of what may be in flight.

    The other half is left to awards, outcomes and breakers, which must not wait for transfers that
    nobody brings.
    """
    return max(0, min(most, MAX_OUTSTANDING // 2 - len(context.outstanding)))


def field_bytes(decision: Decision, index: int) -> bytes:
    """Return a field that is bytes by the decision's own layout."""
    value = decision.fields[index]
    assert isinstance(value, bytes)
    return value


def field_int(decision: Decision, index: int) -> int:
    """Return a field that is an integer by the decision's own layout."""
    value = decision.fields[index]
    assert isinstance(value, int)
    return value


def taken_tokens(decisions: Iterable[Decision]) -> dict[Holding, int]:
    """Return what releases and transfers in flight take from each holding."""
    found: dict[Holding, int] = {}
    for decision in decisions:
        if decision.kind == "Release":
            token, amount = field_bytes(decision, 1), field_int(decision, 2)
        elif decision.kind == "Transfer":
            token, amount = field_bytes(decision, 2), field_int(decision, 3)
        else:
            continue
        key = (decision.chain, field_bytes(decision, 0), token)
        found[key] = found.get(key, 0) + amount
    return found


def legs_after_releases(
    network: NetworkSpec, account: bytes, legs: Sequence[Leg], decisions: Iterable[Decision]
) -> tuple[Leg, ...]:
    """Return an account's legs as if every release in flight had left."""
    gone: dict[tuple[ChainId, bytes], int] = {}
    for decision in decisions:
        if decision.kind == "Release" and field_bytes(decision, 0) == account:
            asset = asset_of(network.chain(decision.chain), field_bytes(decision, 1))
            key = (decision.chain, asset)
            gone[key] = gone.get(key, 0) + field_int(decision, 2)
    if not gone:
        return tuple(legs)
    left = []
    for leg in legs:
        if leg.kind is LegKind.COLLATERAL:
            amount = gone.get((leg.chain, leg.market), 0)
            left.append(replace(leg, size=max(0, leg.size - amount)))
        else:
            left.append(leg)
    return tuple(left)


def asset_of(spec: ChainSpec, token: bytes) -> bytes:
    """Return the asset symbol of a token, or empty bytes when the chain does not name it."""
    return next((t.asset for t in spec.tokens if t.address == token), b"")


def living_limits(context: Context, decisions: Iterable[Decision]) -> dict[bytes, dict[Place, int]]:
    """Return account → (chain, venue) → the largest limit that is, or may still come, in force."""
    found: dict[bytes, dict[Place, int]] = {}

    def count(account: bytes, place: Place, limit: int) -> None:
        limits = found.setdefault(account, {})
        limits[place] = max(limit, limits.get(place, 0))

    for spec in context.network.chains:
        records, block = context.tables.get(spec.id), context.cut.get(spec.id)
        if records is None or block is None:
            continue
        for account, credit in perps.credit_limits(spec, records).items():
            if credit.limit and block.number <= credit.expiry:
                count(account, (spec.id, credit.venue), credit.limit)
    for decision in decisions:
        if decision.kind == "Credit":
            place = (decision.chain, decision.contract)
            count(field_bytes(decision, 0), place, field_int(decision, 1))
    return found


def _largest(engine: Engine, place: Place, limit: int) -> list[Leg]:
    """Return, per priced market and side, the largest position a limit allows at a venue."""
    legs = []
    for market in engine.parameters.markets:
        price = engine.marks.prices.get(market.symbol, 0)
        if price > 0:
            notional = ceil_div(limit * PPM, market.initial_ppm)
            size = ceil_div(notional * 10 ** (market.decimals + 2), price)
            legs += [
                Leg(place[0], place[1], market.symbol, LegKind.PERP, side) for side in (size, -size)
            ]
    return legs


def _needed(engine: Engine, legs: Iterable[Leg]) -> int:
    """Return the larger of the gross and the portfolio requirement to open."""
    margin = engine.margin(engine.rows(legs))
    return max(margin.imr, margin.initial_requirement)


def worst_requirement(engine: Engine, legs: Sequence[Leg], limits: Mapping[Place, int]) -> int:
    """Return the largest requirement an account can reach within its living limits, µUSD.

    Each venue alone at its worst, summed; or all at once in one market and on one side, where the
    largest ratio of all applies to the whole; in each case beside what the account holds elsewhere.

    Raises:
        Unpriced: a leg has no price, or no market has.
    """
    rest = [leg for leg in legs if (leg.chain, leg.venue) not in limits]
    spare = (len(engine.parameters.markets) - 1) * engine.parameters.leg_cost
    alone = engine.margin(engine.rows(rest)).initial_requirement
    together: list[list[Leg]] = []
    for place, limit in sorted(limits.items()):
        if limit == 0:
            continue
        largest = _largest(engine, place, limit)
        if not largest:
            raise Unpriced("no market has a price")
        held = [leg for leg in legs if (leg.chain, leg.venue) == place]
        worst = max(_needed(engine, (leg,)) for leg in largest)
        alone += max(worst, _needed(engine, held)) + spare
        together.append(largest)
    joint = [
        engine.margin(engine.rows([*rest, *aligned])).initial_requirement
        for aligned in zip(*together, strict=True)
    ]
    return max([alone, *(need + spare * len(together) for need in joint)])


def free_collateral(engine: Engine, legs: Sequence[Leg], limits: Mapping[Place, int]) -> int | None:
    """Return what is left for another decision in µUSD, or None when a leg has no price.

    Args:
        engine: the marks of the view.
        legs: the account's legs as if every release had left.
        limits: living credits of the account per (chain, venue).
    """
    try:
        whole = engine.margin(engine.rows(legs))
        worst = worst_requirement(engine, legs, limits)
    except Unpriced:
        return None
    return whole.initial_equity - max(whole.initial_requirement, worst)


def is_fresh(context: Context, legs: Iterable[Leg]) -> bool:
    """Return whether every leg that follows a price has one that a quorum saw fresh."""
    return all(
        leg.market in context.prices and not context.prices[leg.market].stale
        for leg in legs
        if leg.size
    )
