"""Every account's legs over all chains: what the snapshot marks.

    Vault records ──▶ collateral legs ─┐
    Perps records ──▶ perp legs ───────┼─▶ account → sorted legs
    Realised − settled ──▶ one leg ────┘   unsettled profit or loss counts at once, moves later

The unsettled leg is a perp leg of size 0 whose quote is the amount: it has no notional, so it needs
no margin and follows no price; a gain weighs like any profit that is not realised yet. It stands at
the vault of the venue's chain, so it never shares a key with a position.
"""

from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache

from keeper.legs import Leg, LegKind
from keeper.network import ChainSpec, NetworkSpec
from keeper.units import ChainId
from keeper.venue import perps, vault
from keeper.venue.ledger import Ledger, decode
from keeper.venue.port import Records, Tables, VenueReader

READERS: tuple[VenueReader, ...] = (vault.legs, perps.legs)

LEDGER_STATE = "transfer"
"""Name of the decision rule whose state is the ledger's bytes."""


class SystemAccount(IntEnum):
    """Accounts owned by the addresses 0 to 3, which nobody can sign for."""

    INSURANCE = 0
    COMMITTEE = 1
    CONSISTENCY = 2
    PROTOCOL = 3


def system_account(network: NetworkSpec, which: SystemAccount) -> bytes:
    """Return a receiver of prices that winners paid; insurance also pays what nobody can."""
    return network.account(int(which).to_bytes(20, "big"))


def house_account(network: NetworkSpec, chain: ChainId) -> bytes:
    """Return the account that takes the other side of everything realised at a chain's venue.

    Raises:
        KeyError: the chain has no venue.
    """
    venue = network.chain(chain).contract("Perps")
    if venue is None:
        raise KeyError(chain)
    return network.account(venue)


def pot_account(network: NetworkSpec, venue: bytes) -> bytes:
    """Return the account in which a venue collects prices until it splits them."""
    return network.account(venue, 1)


@lru_cache(maxsize=8)
def system_accounts(network: NetworkSpec) -> frozenset[bytes]:
    """Return every account that belongs to no trader: they are never liquidated."""
    found = {system_account(network, which) for which in SystemAccount}
    for spec in network.chains:
        venue = spec.contract("Perps")
        if venue is not None:
            found |= {house_account(network, spec.id), pot_account(network, venue)}
    return frozenset(found)


def accounts(
    network: NetworkSpec, tables: Tables, rules: Mapping[str, bytes] | None = None
) -> dict[bytes, tuple[Leg, ...]]:
    """Return account → legs sorted by key, over every chain that has a table.

    Args:
        network: the descriptor.
        tables: the records of each chain at the cut.
        rules: states of the decision rules in the parent's book; without them nothing has been
            cleared yet.
    """
    ledger = decode((rules or {}).get(LEDGER_STATE, b"")).advance(tables, {})
    found: dict[bytes, list[Leg]] = {}
    for spec in network.chains:
        records = tables.get(spec.id)
        if records is None:
            continue
        for reader in READERS:
            for account, legs in reader(spec, records).items():
                found.setdefault(account, []).extend(legs)
        for account, leg in _unsettled_legs(spec, records, ledger).items():
            found.setdefault(account, []).append(leg)
    return {
        account: tuple(sorted(found[account], key=lambda leg: leg.key)) for account in sorted(found)
    }


def unsettled(spec: ChainSpec, records: Records, ledger: Ledger) -> dict[bytes, int]:
    """Return account → µUSD realised at this chain's venue and not yet cleared; no zeros.

    The ledger is advanced to the same cut as the records.
    """
    venue = spec.contract("Perps")
    if venue is None:
        return {}
    found = {}
    for account, total in perps.realised(spec, records).items():
        amount = total - ledger.settled.get((spec.id, venue, account), 0)
        if amount:
            found[account] = amount
    for (chain, at, account), amount in ledger.settled.items():
        if chain == spec.id and at == venue and account not in found:
            total = perps.realised_of(spec, records, account)
            if total != amount:
                found[account] = total - amount
    return dict(sorted(found.items()))


def _unsettled_legs(spec: ChainSpec, records: Records, ledger: Ledger) -> dict[bytes, Leg]:
    at, markets = spec.contract("Vault"), perps.markets(spec, records)
    if at is None or not markets:
        return {}
    return {
        account: Leg(spec.id, at, markets[0], LegKind.PERP, 0, amount)
        for account, amount in unsettled(spec, records, ledger).items()
    }


def funding(network: NetworkSpec, tables: Tables) -> dict[tuple[ChainId, bytes, bytes], int]:
    """Return (chain, venue, market) → funding index."""
    found = {}
    for spec in network.chains:
        records, venue = tables.get(spec.id), spec.contract("Perps")
        if records is not None and venue is not None:
            for market, index in perps.funding(spec, records).items():
                found[spec.id, venue, market] = index
    return found
