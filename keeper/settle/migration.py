"""Collateral to where it is needed, as one flow: need → route → legs.

    health, floor ─▶ need ─▶ quote over live lanes ─▶ legs: owner ─▶ maker        on the origin
                                                            maker ─▶ next maker   on the way
                                                            maker ─▶ account      at the venue

A route of n hops is a flow of n + 1 payments on as many chains: nobody ever pays with what has not
come yet, since all legs happen or none. What leaves a vault first passes that vault's own limits.
"""

from dataclasses import replace

from keeper.network import NetworkSpec
from keeper.route.graph import Graph, Lane, Place
from keeper.route.quote import Quote, Request, quote
from keeper.units import PPM, ceil_div
from keeper.venue.escrow import NOWHERE, Leg
from keeper.venue.records import word

_CRUMBS = 16
"""Units that rounding may leave unsent: no more than a flow has legs."""
_NOISE_PPM = 10
"""Share that an optimiser's own noise may leave: it drops flows below 10**-6 of the largest."""
_TRIES = 8
"""Each try adds what the one before fell short: fees are rates, so two or three are enough."""


def need(equity: int, requirement: int, health_ppm: int) -> int:
    """Return µUSD that lift an account to a health, rounded up; 0 if it is there."""
    return max(0, ceil_div(requirement * health_ppm, PPM) - equity)


def units_of(micro_usd: int, price_e8: int, decimals: int, haircut_ppm: int) -> int:
    """Return the least amount of a token that counts for so much as collateral."""
    return ceil_div(micro_usd * 10 ** (decimals + 2) * PPM, price_e8 * (PPM - haircut_ppm))


def delivering(graph: Graph, request: Request) -> Quote | None:
    """Return the best plan that delivers at least the request's amount, or None.

    The quote's own amount is what is sent: the amount asked for, and what the way costs.
    """
    wanted = request.amount
    for tried in range(_TRIES):
        found = _without_crumbs(graph, quote(graph, request))
        if found.delivered >= wanted:
            return found
        unsent = request.amount - found.sent
        if not found.hops or unsent > _CRUMBS + request.amount * _NOISE_PPM // PPM:
            return None  # no more goes through
        # a unit more each time: rounding may eat one that is asked for
        more = wanted - found.delivered + tried
        request = replace(request, amount=request.amount + more)
    return None


def _without_crumbs(graph: Graph, found: Quote) -> Quote:
    """Return the plan without makers that bring nothing: each is a payment more to wait for.

    An optimiser leaves a little on ways that are dearer by next to nothing.
    """
    sizes: dict[bytes, int] = {}
    for hop in found.hops:
        if isinstance(hop.edge.way, Lane):
            maker = hop.edge.way.bridge
            sizes[maker] = max(sizes.get(maker, 0), hop.amount)
    without = found.request.exclude
    for maker in sorted(sizes, key=lambda maker: (sizes[maker], maker)):
        other = quote(graph, replace(found.request, exclude=without | {maker}))
        if other.delivered >= found.delivered:
            without |= {maker}
            # the bound stays that of all lanes: a peer is to see what was left out
            sealed = replace(found.certificate, value=other.delivered)
            found = replace(
                found,
                hops=other.hops,
                sent=other.sent,
                delivered=other.delivered,
                certificate=sealed,
            )
    return found


def legs_of(
    network: NetworkSpec,
    found: Quote,
    *,
    owner: bytes,
    account: bytes,
    deposit_ppm: int,
) -> tuple[Leg, ...]:
    """Return the payments that carry a route out, the owner's first.

    Args:
        network: the descriptor.
        found: a route over lanes of makers.
        owner: 20 bytes, who pays at the origin.
        account: margin account at the destination.
        deposit_ppm: every leg's deposit, as a share of its amount.

    Raises:
        ValueError: the route swaps on its way, which a payment cannot.
        KeyError: a chain lacks an escrow, a vault or the token.
    """
    pays: dict[Place, list[tuple[bytes, int]]] = {found.request.origin: [(owner, found.sent)]}
    gets: dict[Place, list[tuple[bytes, bytes, int]]] = {}
    for hop in found.hops:
        if not isinstance(hop.edge.way, Lane):
            raise ValueError("a flow pays, it does not swap: leave pools out of the route")
        maker, start, end = hop.edge.way.bridge, hop.edge.origin, hop.edge.destination
        gets.setdefault(start, []).append((word(maker), NOWHERE, hop.amount))
        pays.setdefault(end, []).append((maker, hop.least_out))
    target = found.request.destination
    vault = network.chain(target.chain).contract("Vault")
    if vault is None:
        raise KeyError(f"chain {target.chain} has no vault")
    gets.setdefault(target, []).append((account, vault, found.delivered))
    order = [found.request.origin, *sorted(gets.keys() - {found.request.origin})]
    return tuple(
        _leg(network, place, *payment, deposit_ppm)
        for place in order
        for payment in _matched(pays.get(place, []), gets[place])
    )


def _matched(
    pays: list[tuple[bytes, int]], gets: list[tuple[bytes, bytes, int]]
) -> list[tuple[bytes, bytes, bytes, int]]:
    """Return (payer, receiver, vault, amount): who gets first is paid by who pays first.

    Nobody pays itself, and what is left over by rounding stays with who would have paid it.
    """
    made: dict[tuple[bytes, bytes, bytes], int] = {}
    rest = list(pays)
    for receiver, vault, amount in gets:
        left = amount
        while left and rest:
            payer, has = rest[0]
            part = min(left, has)
            left -= part
            rest[0] = (payer, has - part)
            if has == part:
                rest.pop(0)
            if word(payer) != receiver:
                key = (payer, receiver, vault)
                made[key] = made.get(key, 0) + part
    return [(*key, amount) for key, amount in made.items()]


def _leg(
    network: NetworkSpec,
    place: Place,
    payer: bytes,
    receiver: bytes,
    vault: bytes,
    amount: int,
    deposit_ppm: int,
) -> Leg:
    spec = network.chain(place.chain)
    token = next((one.address for one in spec.tokens if one.asset == place.asset), None)
    escrow = spec.contract("Escrow")
    if escrow is None or token is None:
        raise KeyError(f"chain {place.chain} lacks an escrow, or the token")
    return Leg(
        chain=spec.id,
        escrow=escrow,
        payer=payer,
        token=token,
        amount=amount,
        receiver=receiver,
        deposit=ceil_div(amount * deposit_ppm, PPM),
        vault=vault,
    )
