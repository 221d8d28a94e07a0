"""Who sits in the committee, read from agreed records; pure.

    Bonds records (hub) ──▶ candidates ── ceremony ──▶ group key
    Committee records (every chain) ──▶ registered epoch ──▶ Committee

The first committee is the bonded keepers with the largest bonds. An epoch counts once every chain
of the network has the same key, config and members for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from keeper.contracts import topic
from keeper.network import NetworkSpec
from keeper.observe.table import Table
from keeper.units import ChainId
from keeper.venue import bonds
from keeper.venue.bonds import BondStatus
from p2p.identity import is_peer_id
from p2p.types import Committee, Member

EPOCH_INSTALLED = topic("Committee", "EpochInstalled")


@dataclass(frozen=True, slots=True)
class Epoch:
    """A registered epoch: number, x-only group key, config digest, members' addresses in order."""

    number: int
    group_key: int
    config: bytes
    members: tuple[bytes, ...]


def bonded_peers(network: NetworkSpec, tables: Mapping[ChainId, Table]) -> dict[bytes, bytes]:
    """Return operator address → peer id of every active keeper that registered a valid one."""
    hub = network.chain(network.hub)
    records = tables[network.hub]
    peers = bonds.peers(hub, records)
    return {
        keeper: peers[keeper]
        for keeper, bond in bonds.bonds(hub, records).items()
        if bond.status is BondStatus.ACTIVE and is_peer_id(peers.get(keeper, b""))
    }


def candidates(network: NetworkSpec, tables: Mapping[ChainId, Table]) -> tuple[Member, ...] | None:
    """Return the first committee by address, or None while too few keepers are bonded."""
    peers = bonded_peers(network, tables)
    if len(peers) < network.committee_size:
        return None
    records = bonds.bonds(network.chain(network.hub), tables[network.hub])
    largest = sorted(peers, key=lambda keeper: (-records[keeper].amount, keeper))
    chosen = sorted(largest[: network.committee_size])
    return tuple(Member(keeper, peers[keeper]) for keeper in chosen)


def registered(network: NetworkSpec, tables: Mapping[ChainId, Table]) -> Epoch | None:
    """Return the newest epoch that every chain has installed alike, or None."""
    common: set[Epoch] | None = None
    for spec in network.chains:
        address, records = spec.contract("Committee"), tables.get(spec.id)
        if address is None or records is None:
            return None
        here = set()
        for (number,), data in records.records(address, EPOCH_INSTALLED):
            try:
                key, config, members = decode(("uint256", "bytes32", "address[]"), data)
            except DecodingError:
                continue
            addresses = tuple(bytes.fromhex(member[2:]) for member in members)
            here.add(Epoch(int.from_bytes(number, "big"), key, config, addresses))
        common = here if common is None else common & here
    return max(common or (), key=lambda epoch: epoch.number, default=None)


def committee_of(network: NetworkSpec, epoch: int, members: tuple[Member, ...]) -> Committee:
    """Return the committee whose config the members sign."""
    return Committee(network.id, epoch, members, network.digest())
