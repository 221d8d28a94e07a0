"""The margin account's tokens: `Vault` records → collateral legs and withdrawal requests.

Balance(account, token, amount)                          collateral leg of the token's asset
WithdrawRequested(account, token, amount, to, nonce)     what a Release may answer
AccountOwner(account, owner)                             who may ask
"""

from collections.abc import Iterator
from dataclasses import dataclass

from keeper.hashing import type_hash
from keeper.legs import Leg, LegKind
from keeper.network import ChainSpec
from keeper.units import ChainId
from keeper.venue.port import Records
from keeper.venue.records import address, address_at, rows, unsigned, word

BALANCE = type_hash("Balance(bytes32,address,uint256)")
WITHDRAW_REQUESTED = type_hash("WithdrawRequested(bytes32,address,uint256,address,uint64)")
ACCOUNT_OWNER = type_hash("AccountOwner(bytes32,address)")
QUEUED = type_hash("Queued(bytes32,bytes32,address,uint256,uint64)")
FINISHED = type_hash("Finished(bytes32)")
STOPPED = type_hash("Stopped(bytes32)")
EXIT = type_hash("Exit(bytes32,uint64)")


@dataclass(frozen=True, slots=True)
class WithdrawRequest:
    """The last withdrawal an owner asked for: one per account and token."""

    chain: ChainId
    account: bytes
    token: bytes
    amount: int
    to: bytes
    nonce: int


def balances(spec: ChainSpec, records: Records) -> Iterator[tuple[bytes, bytes, int]]:
    """Yield (account, token, amount) in order, zero amounts left out."""
    for (account, token), data in rows(records, spec.contract("Vault"), BALANCE, 2, 1):
        amount = unsigned(data, 0)
        if amount:
            yield account, address(token), amount


def balance(spec: ChainSpec, records: Records, account: bytes, token: bytes) -> int:
    """Return one balance."""
    vault = spec.contract("Vault")
    data = None if vault is None else records.get(vault, BALANCE, account, word(token))
    return 0 if data is None else unsigned(data, 0)


def legs(spec: ChainSpec, records: Records) -> dict[bytes, list[Leg]]:
    """Return collateral legs; a token that the descriptor does not name counts for nothing."""
    vault = spec.contract("Vault")
    assets = {token.address: token.asset for token in spec.tokens}
    found: dict[bytes, list[Leg]] = {}
    for account, token, amount in balances(spec, records):
        if vault is not None and token in assets:
            leg = Leg(spec.id, vault, assets[token], LegKind.COLLATERAL, amount)
            found.setdefault(account, []).append(leg)
    return found


def withdraw_requests(spec: ChainSpec, records: Records) -> Iterator[WithdrawRequest]:
    """Yield the standing requests, sorted by account and token; cancelled ones are zero."""
    for (account, token), data in rows(records, spec.contract("Vault"), WITHDRAW_REQUESTED, 2, 3):
        amount = unsigned(data, 0)
        if amount:
            to, nonce = address_at(data, 1), unsigned(data, 2)
            yield WithdrawRequest(spec.id, account, address(token), amount, to, nonce)


def queued_leaves(records: Records, vault: bytes) -> dict[bytes, tuple[bytes, bytes, int]]:
    """Return leaf → (account, token, amount) of the big decisions that still wait, sorted."""
    found = {}
    for (leaf, account), data in rows(records, vault, QUEUED, 2, 3):
        ended = (records.get(vault, topic, leaf) for topic in (FINISHED, STOPPED))
        if all(record is None for record in ended):
            found[leaf] = (account, address_at(data, 0), unsigned(data, 1))
    return found


def exiting(spec: ChainSpec, records: Records, account: bytes) -> bool:
    """Return whether an account is on its way out of this vault without any keeper."""
    vault = spec.contract("Vault")
    data = None if vault is None else records.get(vault, EXIT, account)
    return data is not None and unsigned(data, 0) != 0


def totals(spec: ChainSpec, records: Records) -> dict[bytes, int]:
    """Return token → Σ balances + Σ queued: what the vault must hold of it."""
    found: dict[bytes, int] = {}
    for _, token, amount in balances(spec, records):
        found[token] = found.get(token, 0) + amount
    vault = spec.contract("Vault")
    if vault is not None:
        for _, token, amount in queued_leaves(records, vault).values():
            found[token] = found.get(token, 0) + amount
    return dict(sorted(found.items()))
