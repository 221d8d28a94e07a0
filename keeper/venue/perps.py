"""The reference venue: `Perps` records → perp legs, credits, realised totals, funding.

Position(account, market, size, quote, funding)    perp leg
CreditRequested(account, limit, nonce)             what a Credit may answer
CreditSet(account, limit, nonce, expiry)           the limit in force
Realised(account, total)                           cumulative µUSD; Σ over accounts is 0
Funding(market, index)                             10**-12
"""

from collections.abc import Iterator
from dataclasses import dataclass

from keeper.hashing import type_hash
from keeper.legs import Leg, LegKind
from keeper.network import ChainSpec
from keeper.units import ChainId
from keeper.venue.port import Records
from keeper.venue.records import rows, signed, unsigned

POSITION = type_hash("Position(bytes32,bytes32,int256,int256,int256)")
CREDIT_REQUESTED = type_hash("CreditRequested(bytes32,uint256,uint64)")
CREDIT_SET = type_hash("CreditSet(bytes32,uint256,uint64,uint64)")
REALISED = type_hash("Realised(bytes32,int256)")
FUNDING = type_hash("Funding(bytes32,int256)")


@dataclass(frozen=True, slots=True)
class CreditRequest:
    """The last limit an owner asked for at a venue, absolute µUSD."""

    chain: ChainId
    venue: bytes
    account: bytes
    limit: int
    nonce: int


@dataclass(frozen=True, slots=True)
class CreditLimit:
    """The limit in force at a venue until block `expiry` of its chain."""

    chain: ChainId
    venue: bytes
    account: bytes
    limit: int
    nonce: int
    expiry: int


def legs(spec: ChainSpec, records: Records) -> dict[bytes, list[Leg]]:
    """Return perp legs; closed positions are left out."""
    venue = spec.contract("Perps")
    found: dict[bytes, list[Leg]] = {}
    for (account, market), data in rows(records, venue, POSITION, 2, 3):
        size, quote, funding = signed(data, 0), signed(data, 1), signed(data, 2)
        if venue is not None and (size or quote):
            leg = Leg(spec.id, venue, market, LegKind.PERP, size, quote, funding)
            found.setdefault(account, []).append(leg)
    return found


def markets(spec: ChainSpec, records: Records) -> tuple[bytes, ...]:
    """Return the markets that the venue has recorded anything about, sorted."""
    venue = spec.contract("Perps")
    known = {market for (market,), _ in rows(records, venue, FUNDING, 1, 1)}
    known |= {market for (_, market), _ in rows(records, venue, POSITION, 2, 3)}
    return tuple(sorted(known))


def credit_requests(spec: ChainSpec, records: Records) -> Iterator[CreditRequest]:
    """Yield the last request per account, sorted by account."""
    venue = spec.contract("Perps")
    for (account,), data in rows(records, venue, CREDIT_REQUESTED, 1, 2):
        if venue is not None:
            yield CreditRequest(spec.id, venue, account, unsigned(data, 0), unsigned(data, 1))


def credit_limits(spec: ChainSpec, records: Records) -> dict[bytes, CreditLimit]:
    """Return account → the limit last set at this chain's venue, expired or not."""
    venue = spec.contract("Perps")
    found = {}
    for (account,), data in rows(records, venue, CREDIT_SET, 1, 3):
        if venue is not None:
            numbers = (unsigned(data, 0), unsigned(data, 1), unsigned(data, 2))
            found[account] = CreditLimit(spec.id, venue, account, *numbers)
    return found


def realised(spec: ChainSpec, records: Records) -> dict[bytes, int]:
    """Return account → cumulative realised µUSD at this chain's venue, the venue's own included."""
    venue = spec.contract("Perps")
    return {account: signed(data, 0) for (account,), data in rows(records, venue, REALISED, 1, 1)}


def realised_of(spec: ChainSpec, records: Records, account: bytes) -> int:
    """Return one account's cumulative realised µUSD at this chain's venue."""
    venue = spec.contract("Perps")
    data = None if venue is None else records.get(venue, REALISED, account)
    return 0 if data is None else signed(data, 0)


def funding(spec: ChainSpec, records: Records) -> dict[bytes, int]:
    """Return market → funding index."""
    venue = spec.contract("Perps")
    return {market: signed(data, 0) for (market,), data in rows(records, venue, FUNDING, 1, 1)}
