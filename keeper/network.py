"""The network descriptor: which contracts on which chains make up one Flowkeeper network.

Every keeper of a network holds the same descriptor; its digest is part of the committee's config,
so two keepers with different descriptors cannot even exchange a vote. `keeper init` copies it from
a file that whoever deployed the contracts publishes.

    network ─ hub chain (Bonds)
            └ chains ─ contracts: Committee Snapshots Vault [Perps Awards Breaker Escrow Intents]
                     └ tokens: asset symbol, address, decimals
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keeper.errors import ConfigError
from keeper.hashing import abi_hash, keccak
from keeper.units import ChainId, symbol, symbol_text

CONTRACTS = (
    "Committee",
    "Snapshots",
    "Vault",
    "Perps",
    "Awards",
    "Bonds",
    "Breaker",
    "Escrow",
    "Intents",
)


@dataclass(frozen=True, slots=True)
class Token:
    """An asset on one chain: 32-byte symbol, 20-byte address, decimals of the token."""

    asset: bytes
    address: bytes
    decimals: int


@dataclass(frozen=True, slots=True)
class Feed:
    """Where a market's price is published: 32-byte symbol, 20-byte aggregator address."""

    market: bytes
    address: bytes


@dataclass(frozen=True, slots=True)
class ChainSpec:
    """One chain of the network.

    Args:
        id: chain id.
        contracts: sorted (name, 20-byte address) pairs; names from `CONTRACTS`.
        tokens: assets a vault on this chain takes, sorted by asset.
        feeds: price feeds keepers read on this chain, sorted by market.
        start_block: block the contracts were deployed in; logs are read from here on.
        finality_depth: blocks below the head that count as final where the chain has no tag.
    """

    id: ChainId
    contracts: tuple[tuple[str, bytes], ...]
    tokens: tuple[Token, ...] = ()
    feeds: tuple[Feed, ...] = ()
    start_block: int = 0
    finality_depth: int = 2

    def contract(self, name: str) -> bytes | None:
        """Return the address of a contract, or None where this chain has none."""
        return dict(self.contracts).get(name)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A whole network; chains are sorted by id.

    Args:
        id: 32-byte network id, inside every signature and leaf.
        genesis_time_ms: unix milliseconds of tick 0.
        tick_ms: length of a tick.
        hub: chain that holds the bonds.
        chains: all chains, sorted by id.
        parameters: canonical bytes of what governance set (keeper.parameters).
        committee_size: bonded keepers that make up the first committee.
    """

    id: bytes
    genesis_time_ms: int
    tick_ms: int
    hub: ChainId
    chains: tuple[ChainSpec, ...]
    parameters: bytes = b""
    committee_size: int = 4

    def chain(self, chain: ChainId) -> ChainSpec:
        """Return one chain.

        Raises:
            KeyError: the network does not have it.
        """
        for spec in self.chains:
            if spec.id == chain:
                return spec
        raise KeyError(chain)

    def account(self, owner: bytes, index: int = 0) -> bytes:
        """Return the account id of an owner's `index`-th account."""
        return abi_hash(("bytes32", "address", "uint256"), (self.id, owner, index))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return {
            "network": "0x" + self.id.hex(),
            "genesis_time_ms": self.genesis_time_ms,
            "tick_ms": self.tick_ms,
            "hub": self.hub,
            "parameters": "0x" + self.parameters.hex(),
            "committee_size": self.committee_size,
            "chains": [
                {
                    "id": chain.id,
                    "contracts": {name: "0x" + at.hex() for name, at in chain.contracts},
                    "tokens": [
                        {
                            "asset": symbol_text(token.asset),
                            "address": "0x" + token.address.hex(),
                            "decimals": token.decimals,
                        }
                        for token in chain.tokens
                    ],
                    "feeds": {
                        symbol_text(feed.market): "0x" + feed.address.hex() for feed in chain.feeds
                    },
                    "start_block": chain.start_block,
                    "finality_depth": chain.finality_depth,
                }
                for chain in self.chains
            ],
        }

    def digest(self) -> bytes:
        """Return the 32-byte digest of the whole descriptor."""
        return keccak(json.dumps(self.to_json(), sort_keys=True, separators=(",", ":")).encode())


def _raw(text: str, size: int) -> bytes:
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != size:
        raise ValueError(f"{text!r} must have {size} bytes")
    return raw


def _chain_from_json(row: dict[str, Any]) -> ChainSpec:
    unknown = set(row["contracts"]) - set(CONTRACTS)
    if unknown:
        raise ValueError(f"unknown contracts {sorted(unknown)}")
    return ChainSpec(
        ChainId(row["id"]),
        tuple(sorted((name, _raw(at, 20)) for name, at in row["contracts"].items())),
        tuple(
            sorted(
                (
                    Token(symbol(t["asset"]), _raw(t["address"], 20), int(t["decimals"]))
                    for t in row["tokens"]
                ),
                key=lambda token: token.asset,
            )
        ),
        tuple(
            sorted(
                (Feed(symbol(market), _raw(at, 20)) for market, at in row["feeds"].items()),
                key=lambda feed: feed.market,
            )
        ),
        int(row["start_block"]),
        int(row["finality_depth"]),
    )


def from_json(value: dict[str, Any], where: str = "network descriptor") -> NetworkSpec:
    """Return the descriptor that `to_json` wrote.

    Raises:
        ConfigError: a field is missing, of the wrong type, or unknown.
    """
    try:
        spec = NetworkSpec(
            _raw(value["network"], 32),
            int(value["genesis_time_ms"]),
            int(value["tick_ms"]),
            ChainId(value["hub"]),
            tuple(sorted((_chain_from_json(row) for row in value["chains"]), key=lambda c: c.id)),
            bytes.fromhex(value["parameters"].removeprefix("0x")),
            int(value["committee_size"]),
        )
        spec.chain(spec.hub)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"cannot read the network descriptor: {type(error).__name__} {error}",
            where=where,
            remedy="copy network.json again from whoever deployed the contracts",
        ) from error
    return spec


def load(path: Path) -> NetworkSpec:
    """Read a descriptor file.

    Raises:
        ConfigError: the file is missing, is no JSON, or says something impossible.
    """
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read the network descriptor: {error}",
            where=str(path),
            remedy="copy network.json from whoever deployed the contracts",
        ) from error
    return from_json(value, str(path))
