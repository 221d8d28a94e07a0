"""Who has what at stake: `Bonds` records of the hub chain.

Bond(keeper, amount, locked, status)     status 1 active, 2 leaving, 3 jailed, 4 tombstoned
Peer(keeper, peer)                       libp2p peer id
Slashed(keeper, evidence, amount, to)    evidence: the task, for a penalty
"""

from dataclasses import dataclass
from enum import IntEnum

from keeper.hashing import type_hash
from keeper.network import ChainSpec
from keeper.venue.port import Records
from keeper.venue.records import WORD, address, rows, unsigned, word

BOND = type_hash("Bond(address,uint256,uint256,uint8)")
PEER = type_hash("Peer(address,bytes)")
SLASHED = type_hash("Slashed(address,bytes32,uint256,address)")
MAX_PEER_BYTES = 128


class BondStatus(IntEnum):
    """What a bonded keeper may do; only an active one competes."""

    NONE = 0
    ACTIVE = 1
    LEAVING = 2
    JAILED = 3
    TOMBSTONED = 4


@dataclass(frozen=True, slots=True)
class BondRecord:
    """A keeper's stake in the bond token's smallest unit (µUSD), and how much of it is locked."""

    keeper: bytes
    amount: int
    locked: int
    status: BondStatus

    @property
    def free(self) -> int:
        """Return what an award may still lock; nothing unless the keeper is active."""
        if self.status is not BondStatus.ACTIVE:
            return 0
        return max(0, self.amount - self.locked)


def bonds(spec: ChainSpec, records: Records) -> dict[bytes, BondRecord]:
    """Return keeper → bond, sorted by keeper."""
    found = {}
    for (keeper,), data in rows(records, spec.contract("Bonds"), BOND, 1, 3):
        status = unsigned(data, 2)
        if status in BondStatus.__members__.values():
            who = address(keeper)
            found[who] = BondRecord(who, unsigned(data, 0), unsigned(data, 1), BondStatus(status))
    return found


def is_punished(spec: ChainSpec, records: Records, keeper: bytes, task: bytes) -> bool:
    """Return whether a keeper has paid for a task or commitment; it pays once."""
    at = spec.contract("Bonds")
    return at is not None and records.get(at, SLASHED, word(keeper), task) is not None


def peers(spec: ChainSpec, records: Records) -> dict[bytes, bytes]:
    """Return keeper → libp2p peer id bytes; malformed entries are left out."""
    found = {}
    for (keeper,), data in rows(records, spec.contract("Bonds"), PEER, 1, 2):
        length = unsigned(data, 1)
        body = data[2 * WORD :]
        if 0 < length <= min(len(body), MAX_PEER_BYTES):
            found[address(keeper)] = body[:length]
    return found
