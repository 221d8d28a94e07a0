"""How tasks ended: `Awards` records of a venue chain.

Executed(task, account, keeper, rank, market, size, bonus, spent)   done, by whom, at what cost
NoShow(task, keeper, amount)                                   rank 0 let its window pass
Voided(task)                                                   the account had healed
"""

from collections.abc import Iterator
from dataclasses import dataclass

from keeper.hashing import type_hash
from keeper.network import ChainSpec
from keeper.units import ChainId
from keeper.venue.port import Records
from keeper.venue.records import address, rows, unsigned

EXECUTED = type_hash("Executed(bytes32,bytes32,address,uint256,bytes32,uint256,uint256,uint256)")
NO_SHOW = type_hash("NoShow(bytes32,address,uint256)")
VOIDED = type_hash("Voided(bytes32)")


@dataclass(frozen=True, slots=True)
class Execution:
    """A task carried out; size in 10**-decimals of the market, bonus in µUSD, spent in wei."""

    chain: ChainId
    task: bytes
    account: bytes
    keeper: bytes
    rank: int
    market: bytes
    size: int
    bonus: int
    spent: int


@dataclass(frozen=True, slots=True)
class Absence:
    """A keeper that did not deliver, and what it loses, µUSD."""

    chain: ChainId
    task: bytes
    keeper: bytes
    amount: int


def executions(spec: ChainSpec, records: Records) -> Iterator[Execution]:
    """Yield the executed tasks, sorted by task."""
    for (task, account, keeper), data in rows(records, spec.contract("Awards"), EXECUTED, 3, 5):
        rank, *amounts = (unsigned(data, index) for index in (0, 2, 3, 4))
        yield Execution(spec.id, task, account, address(keeper), rank, data[32:64], *amounts)


def absences(spec: ChainSpec, records: Records) -> Iterator[Absence]:
    """Yield the keepers that did not show, sorted by task."""
    for (task, keeper), data in rows(records, spec.contract("Awards"), NO_SHOW, 2, 1):
        yield Absence(spec.id, task, address(keeper), unsigned(data, 0))


def voided(spec: ChainSpec, records: Records) -> frozenset[bytes]:
    """Return the tasks that ended without anybody's fault."""
    return frozenset(task for (task,), _ in rows(records, spec.contract("Awards"), VOIDED, 1, 0))
