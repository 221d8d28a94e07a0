"""The clearing sums: every unit is somewhere, once, in every snapshot.

    per chain    Σ vault balances + Σ queued      = tokens the vault holds
    per venue    Σ realised                       = 0      the house takes the other side
    per venue    Σ settled                        = 0      a transfer moves two entries
    over chains  Σ unsettled legs                 = 0
                 Σ collateral legs per asset      = Σ deposits − Σ releases

With the two zero sums, Σ equity before haircuts over all accounts, house and insurance included, is
the value of the tokens held plus nothing: what one side has not realised yet the other side owes.
All sums are integers, so equality is to the unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from keeper.legs import LegKind
from keeper.network import NetworkSpec
from keeper.units import ChainId, symbol_text
from keeper.venue import perps, vault
from keeper.venue.book import LEDGER_STATE, accounts
from keeper.venue.ledger import decode
from keeper.venue.port import Tables


@dataclass(frozen=True, slots=True)
class Sums:
    """Both sides of the clearing sum at one cut.

    Args:
        held: (chain, token) → Σ balances + Σ queued: what the vault must hold.
        assets: asset → Σ collateral legs of all accounts, over chains.
        queued: asset → Σ queued, over chains.
        realised: chain → Σ realised of its venue.
        settled: chain → Σ settled of its venue.
        unsettled: Σ unsettled legs of all accounts, µUSD.
    """

    held: Mapping[tuple[ChainId, bytes], int]
    assets: Mapping[bytes, int]
    queued: Mapping[bytes, int]
    realised: Mapping[ChainId, int]
    settled: Mapping[ChainId, int]
    unsettled: int


def clearing_sums(network: NetworkSpec, tables: Tables, rules: Mapping[str, bytes]) -> Sums:
    """Return the sums at a cut.

    Args:
        network: the descriptor.
        tables: the records of each chain at the cut.
        rules: states of the decision rules in the parent's book, as for `accounts`.
    """
    ledger = decode(rules.get(LEDGER_STATE, b"")).advance(tables, {})
    held: dict[tuple[ChainId, bytes], int] = {}
    queued: dict[bytes, int] = {}
    realised: dict[ChainId, int] = {}
    settled: dict[ChainId, int] = {}
    vaults: dict[ChainId, bytes] = {}
    for spec in network.chains:
        records, at = tables.get(spec.id), spec.contract("Vault")
        if records is None:
            continue
        for token, amount in vault.totals(spec, records).items():
            held[spec.id, token] = amount
        realised[spec.id] = sum(perps.realised(spec, records).values())
        settled[spec.id] = 0
        if at is not None:
            vaults[spec.id] = at
            names = {token.address: token.asset for token in spec.tokens}
            for _, token, amount in vault.queued_leaves(records, at).values():
                if token in names:
                    queued[names[token]] = queued.get(names[token], 0) + amount
    for (chain, _, _), amount in ledger.settled.items():
        settled[chain] = settled.get(chain, 0) + amount
    assets: dict[bytes, int] = {}
    unsettled = 0
    for legs in accounts(network, tables, rules).values():
        for leg in legs:
            if leg.kind is LegKind.COLLATERAL:
                assets[leg.market] = assets.get(leg.market, 0) + leg.size
            elif vaults.get(leg.chain) == leg.venue:
                unsettled += leg.quote
    return Sums(held, assets, queued, realised, settled, unsettled)


def imbalances(
    network: NetworkSpec,
    tables: Tables,
    rules: Mapping[str, bytes],
    held: Mapping[tuple[ChainId, bytes], int] | None = None,
) -> tuple[str, ...]:
    """Return what does not add up, one sentence each; nothing when all is conserved.

    Args:
        network: the descriptor.
        tables: the records of each chain at the cut.
        rules: states of the decision rules in the parent's book.
        held: what the token contracts say each vault holds at the cut, where it was asked.
    """
    return faults(network, clearing_sums(network, tables, rules), held)


def faults(
    network: NetworkSpec, sums: Sums, held: Mapping[tuple[ChainId, bytes], int] | None = None
) -> tuple[str, ...]:
    """Return what does not add up in sums already made; see `imbalances`."""
    found = [
        f"chain {chain}: realised results sum to {total}, not 0"
        for chain, total in sorted(sums.realised.items())
        if total
    ]
    found += [
        f"chain {chain}: settled results sum to {total}, not 0"
        for chain, total in sorted(sums.settled.items())
        if total
    ]
    if sums.unsettled:
        found.append(f"unsettled results sum to {sums.unsettled}, not 0")
    for asset in sorted(sums.assets.keys() | sums.queued.keys()):
        legs = sums.assets.get(asset, 0) + sums.queued.get(asset, 0)
        vaults = sum(
            sums.held.get((spec.id, token.address), 0)
            for spec in network.chains
            for token in spec.tokens
            if token.asset == asset
        )
        if legs != vaults:
            found.append(f"{symbol_text(asset)}: accounts hold {legs}, vaults {vaults}")
    for (chain, token), amount in sorted((held or {}).items()):
        counted = sums.held.get((chain, token), 0)
        if counted != amount:
            found.append(
                f"chain {chain}: the vault holds {amount} of 0x{token.hex()}, accounts {counted}"
            )
    return tuple(found)
