"""Who may sit in a committee, and which committees are registered: records of the chains.

Bonds records (hub) ──▶ bonded peers ──▶ who may be called
Committee records ──▶ EpochInstalled on every chain alike ──▶ a registered epoch
                  ──▶ ChangeProposed ──▶ a change behind its timelock
                  ──▶ EpochExpires ──▶ the block in which an old key ends
"""

from collections.abc import Mapping
from dataclasses import dataclass

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from keeper.contracts import topic
from keeper.network import ChainSpec, NetworkSpec
from keeper.units import ChainId
from keeper.venue import bonds
from keeper.venue.bonds import BondStatus
from keeper.venue.port import Records
from keeper.venue.records import WORD, unsigned
from p2p.identity import is_peer_id
from p2p.types import Committee, Member

EPOCH_INSTALLED = topic("Committee", "EpochInstalled")
EPOCH_EXPIRES = topic("Committee", "EpochExpires")
CHANGE_PROPOSED = topic("Committee", "ChangeProposed")
FIRST_EPOCH = 1
"""The epoch a deployer installs: it begins at the empty state, every later one at a snapshot."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """A registered epoch: number, x-only group key, config digest, members' addresses in order."""

    number: int
    group_key: int
    config: bytes
    members: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Pending:
    """A change of committee behind its timelock on one chain; `ready_at` is a block of it."""

    group_key: int
    config: bytes
    members_hash: bytes
    ready_at: int


def bonded(
    network: NetworkSpec, tables: Mapping[ChainId, Records]
) -> dict[bytes, tuple[int, bytes]]:
    """Return operator address → (stake, peer id) of every active keeper with a valid peer id."""
    hub = network.chain(network.hub)
    records = tables[network.hub]
    peers = bonds.peers(hub, records)
    return {
        keeper: (bond.amount, peers[keeper])
        for keeper, bond in bonds.bonds(hub, records).items()
        if bond.status is BondStatus.ACTIVE and is_peer_id(peers.get(keeper, b""))
    }


def bonded_peers(network: NetworkSpec, tables: Mapping[ChainId, Records]) -> frozenset[bytes]:
    """Return the peer ids of all keepers that may be seated."""
    return frozenset(peer for _, peer in bonded(network, tables).values())


def candidates(
    network: NetworkSpec, tables: Mapping[ChainId, Records]
) -> tuple[Member, ...] | None:
    """Return the first committee by address, or None while too few keepers are bonded."""
    found = bonded(network, tables)
    if len(found) < network.committee_size:
        return None
    largest = sorted(found, key=lambda keeper: (-found[keeper][0], keeper))
    chosen = sorted(largest[: network.committee_size])
    return tuple(Member(keeper, found[keeper][1]) for keeper in chosen)


def installed(spec: ChainSpec, records: Records, number: int) -> Epoch | None:
    """Return what one chain has installed as this epoch, or None."""
    data = _record(spec, records, EPOCH_INSTALLED, number)
    try:
        key, config, members = decode(("uint256", "bytes32", "address[]"), data or b"")
    except DecodingError:
        return None
    return Epoch(number, key, config, tuple(bytes.fromhex(member[2:]) for member in members))


def registered_as(
    network: NetworkSpec, tables: Mapping[ChainId, Records], number: int
) -> Epoch | None:
    """Return the epoch of this number if every chain has installed it alike."""
    found = {
        installed(spec, tables[spec.id], number) if spec.id in tables else None
        for spec in network.chains
    }
    return found.pop() if len(found) == 1 else None


def registered(network: NetworkSpec, tables: Mapping[ChainId, Records]) -> Epoch | None:
    """Return the newest epoch that every chain has installed alike, or None."""
    newest, number = None, FIRST_EPOCH
    while (epoch := registered_as(network, tables, number)) is not None:
        newest, number = epoch, number + 1
    return newest


def _record(spec: ChainSpec, records: Records, topic_: bytes, epoch: int) -> bytes | None:
    contract = spec.contract("Committee")
    return None if contract is None else records.get(contract, topic_, epoch.to_bytes(WORD, "big"))


def pending(spec: ChainSpec, records: Records, epoch: int) -> Pending | None:
    """Return the change to an epoch that was proposed last on one chain, or None."""
    data = _record(spec, records, CHANGE_PROPOSED, epoch)
    if data is None or len(data) < 4 * WORD:
        return None
    key, ready_at = unsigned(data, 0), unsigned(data, 3)
    return Pending(key, data[WORD : 2 * WORD], data[2 * WORD : 3 * WORD], ready_at)


def last_block(spec: ChainSpec, records: Records, epoch: int) -> int | None:
    """Return the last block in which a chain takes seals of an epoch; None while it has no end."""
    data = _record(spec, records, EPOCH_EXPIRES, epoch)
    return None if data is None or len(data) < WORD else unsigned(data, 0) - 1


def committee_of(network: NetworkSpec, epoch: int, members: tuple[Member, ...]) -> Committee:
    """Return the committee whose config the members sign."""
    return Committee(network.id, epoch, members, network.digest())
