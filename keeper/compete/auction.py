"""Freeze, reveal, rank: the sealed second-price auction as pure functions of agreed payloads.

    f + 1 reports of a commitment ─▶ frozen        late bids lose by certificate, not by a clock
    f + 1 reports of its reveal   ─▶ its body must be attached to the proposal
    order: bid ↓, then keccak(task, bidder) ↑      price: second bid, at least the reserve

A keeper that has won more than its share of the last awards yields to the next bidder within ε.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from keeper.hashing import keccak
from keeper.parameters import CompetitionParameters
from keeper.snapshot.decisions import Observed
from keeper.units import PPM

MAX_BIDDERS = 32
"""Bidders of one round: those with most at stake, so that nobody floods it with small bonds."""
MAX_OPENED = 32
"""Bodies attached in one view: 70 kB at most, a quarter of a proposal; the rest in the next."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """The commitments of one round, sorted by bidder; cheats committed to two things at once."""

    commitments: tuple[tuple[bytes, bytes], ...]
    cheats: tuple[tuple[bytes, bytes], ...]


def freeze(
    observed: Iterable[Observed], view: int, faults: int, eligible: Mapping[bytes, int]
) -> Frozen:
    """Return what f + 1 observers report for a round, of the bidders with most at stake.

    Args:
        observed: the observations attached to the proposal.
        view: the round.
        faults: f.
        eligible: keepers that may bid, and their free bond.
    """
    reports = Counter(
        (seen.bidder, seen.commitment)
        for one in observed
        for seen in one.body.commitments
        if seen.view == view and seen.bidder in eligible
    )
    certified: dict[bytes, list[bytes]] = {}
    for (bidder, commitment), count in sorted(reports.items()):
        if count > faults:
            certified.setdefault(bidder, []).append(commitment)
    single = {bidder: seen[0] for bidder, seen in certified.items() if len(seen) == 1}
    largest = sorted(single, key=lambda bidder: (-eligible[bidder], bidder))[:MAX_BIDDERS]
    return Frozen(
        tuple((bidder, single[bidder]) for bidder in sorted(largest)),
        tuple((bidder, seen[0]) for bidder, seen in certified.items() if len(seen) > 1),
    )


def reported_reveals(
    observed: Iterable[Observed], commitments: Iterable[bytes], faults: int
) -> frozenset[bytes]:
    """Return those commitments whose reveals f + 1 observers hold."""
    known = frozenset(commitments)
    reports = Counter(reveal for one in observed for reveal in one.body.reveals if reveal in known)
    return frozenset(reveal for reveal, count in reports.items() if count > faults)


@dataclass(frozen=True, slots=True)
class Offer:
    """One eligible bid for one task, µUSD."""

    bidder: bytes
    price: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Who may act in which order, and what the first pays, µUSD."""

    ranks: tuple[bytes, ...]
    price: int


def settle(
    task: bytes,
    offers: Sequence[Offer],
    reserve: int,
    recent: Sequence[bytes],
    rules: CompetitionParameters,
) -> Outcome | None:
    """Return the outcome of an auction, or None when no offer reaches the reserve.

    Args:
        task: its id.
        offers: one per bidder.
        reserve: least price, µUSD.
        recent: winners of the last awards.
        rules: ranks, share and distance.
    """
    order = sorted(
        (offer for offer in offers if offer.price >= reserve),
        key=lambda offer: (-offer.price, keccak(task + offer.bidder)),
    )
    if not order:
        return None
    first = _first(order, recent, rules)
    order = [order[first], *order[:first], *order[first + 1 :]]
    winner = order[0]
    others = [offer.price for offer in order[1:] if offer.price <= winner.price]
    price = max([reserve, *others])
    return Outcome(tuple(offer.bidder for offer in order[: rules.ranks]), price)


def _first(order: Sequence[Offer], recent: Sequence[bytes], rules: CompetitionParameters) -> int:
    """Return the index of the winner: the best bid, unless its bidder has more than its share."""
    wins: Mapping[bytes, int] = Counter(recent)

    def above_share(bidder: bytes) -> bool:
        return wins.get(bidder, 0) * PPM > rules.recent_awards * rules.share_ppm

    if not above_share(order[0].bidder):
        return 0
    least = order[0].price * (PPM - rules.rival_ppm)
    for index, offer in enumerate(order):
        if offer.price * PPM >= least and not above_share(offer.bidder):
            return index
    return 0
