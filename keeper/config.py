"""One frozen `Config` per node: `keeper.toml` and the environment, checked once at start.

    HOME/keeper.toml    this file           HOME/network.json     the network's descriptor
    HOME/keys/          sealed keys         HOME/keeper.db        votes, sign lock, ledger

Nothing else reads the environment. A relative path is relative to the home. What all keepers must
share (committee, parameters) comes from the network, never from here.
"""

import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from keeper.errors import ConfigError
from keeper.units import ChainId, symbol

DEFAULT_COIN = "ETH-USD"
"""Market of a chain's native coin where `coin` of its section names none."""
MODES = ("off", "shadow", "dry", "live")
MOST_TRANSFERS = 64
"""Own transfers under way at once: each costs two reads a look."""
MOST_WINDOW_S = 7 * 86_400
"""Longest window of the routing limits: what was sent within it is kept."""

TEMPLATE = """\
# Flowkeeper node. Every value is checked when the node starts; unknown keys are refused.

[node]
# What this node may do with its keys: off (follow only), shadow (decide, tell nobody),
# dry (bid and simulate, send nothing), live.
mode = "{mode}"
# The password that opens the keys: a file only you can read, or the environment's KEEPER_PASSWORD.
password_file = "{password_file}"

[p2p]
# Where other keepers reach this node; only a public address is useful on the internet.
listen = "/ip4/127.0.0.1/tcp/{p2p_port}"
# Addresses of keepers to start from; one is enough, the rest is learned.
bootstrap = [{bootstrap}]

[http]
# /livez /readyz /metrics /status, and the dashboard; loopback unless you put a proxy before it.
host = "127.0.0.1"
port = {http_port}

# One section per chain of the network: endpoints in order of preference, and the market whose price
# is that of the chain's coin, for what gas costs: coin = "ETH-USD" unless you say otherwise.
{chains}
# Where a chain's final blocks are proven by its own consensus instead of asked for, add a section
# [light_client.CHAIN] with the beacon node and a block root you trust; see docs/light-clients.md.

[policies]
# Who decides what this node bids on: names of installed policies, or path.py:Class. What a policy
# lets you set goes into a section [policy.liquidation]; `keeper policy schema` lists it.
liquidation = "liquidation"

# Aave v3, Perpetual Protocol v2: a section [venues.NAME] each; see docs/policies.md.
# Bridges that this keeper uses, and whose messages it carries: a section [bridges.NAME].
# A policy of kind routing, `routing = "routing"` above, moves your own funds over them, within the
# limits of a section [routing] (transfer_usd = 10000, window_usd = 50000); see docs/routing.md.
"""


@dataclass(frozen=True, slots=True)
class LightClientConfig:
    """How one chain's finality is proven: a beacon node to ask, and what not to ask it.

    Args:
        beacon: http(s) address of a beacon node that serves light clients as SSZ.
        trusted_root: root of a recent final beacon block, from somebody the operator trusts.
        genesis_time: unix seconds of slot 0.
        genesis_validators_root: names the beacon chain.
        forks: (first epoch, version) from Electra on, ascending.
        seconds_per_slot, slots_per_epoch, epochs_per_period: lengths; those of the main net.
    """

    beacon: str
    trusted_root: bytes
    genesis_time: int
    genesis_validators_root: bytes
    forks: tuple[tuple[int, bytes], ...]
    seconds_per_slot: int = 12
    slots_per_epoch: int = 32
    epochs_per_period: int = 256

    def render(self, chain: ChainId) -> str:
        """Return the section of `keeper.toml`."""
        forks = ", ".join(f'"{epoch}" = "0x{version.hex()}"' for epoch, version in self.forks)
        return (
            f"\n[light_client.{chain}]\n"
            f"beacon = {_quoted(self.beacon)}\n"
            f'trusted_root = "0x{self.trusted_root.hex()}"\n'
            f"genesis_time = {self.genesis_time}\n"
            f'genesis_validators_root = "0x{self.genesis_validators_root.hex()}"\n'
            f"forks = {{ {forks} }}\n"
            f"seconds_per_slot = {self.seconds_per_slot}\n"
            f"slots_per_epoch = {self.slots_per_epoch}\n"
            f"epochs_per_period = {self.epochs_per_period}\n"
        )


@dataclass(frozen=True, slots=True)
class RoutingLimits:
    """What the routing policy may do with this keeper's own funds; whole numbers.

    Args:
        transfer_usd: most that one transfer carries.
        window_usd: most that all transfers of a window carry.
        window_s: length of that window.
        exposure_usd: most in flight that one verifier could lose.
        transfers: most under way at once.
        deadline_s: slowest lane to use, its 95th percentile.
        cost_ppm: most that a transfer may cost of what it carries: fee, coin and gas.
        coin_wei: most native coin that a bridge may ask for a transfer, besides gas.
        late_after: multiples of the 95th percentile after which a transfer is called late.
    """

    transfer_usd: int = 10_000
    window_usd: int = 50_000
    window_s: int = 3_600
    exposure_usd: int = 50_000
    transfers: int = 4
    deadline_s: int = 3_600
    cost_ppm: int = 3_000
    coin_wei: int = 10**16
    late_after: int = 4

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), 0 if one.name == "coin_wei" else 1
            if type(value) is not int or value < least:
                raise ValueError(f"routing.{one.name} is a whole number of at least {least}")
        if self.transfers > MOST_TRANSFERS or self.window_s > MOST_WINDOW_S:
            raise ValueError(
                f"routing: at most {MOST_TRANSFERS} transfers at once, a window of at most a week"
            )


@dataclass(frozen=True, slots=True)
class Config:
    """A node's settings.

    Args:
        home: directory of keys and database.
        mode: one of `MODES`.
        password_file: file whose first line opens the keys, or None.
        listen: libp2p multiaddress to listen on.
        bootstrap: multiaddresses to start from.
        http_host, http_port: where health, metrics and status are served.
        endpoints: RPC endpoints per chain, at least one each.
        policies: policy name per kind.
        coins: per chain the market whose price is its native coin's.
        policy: settings of the policy per kind, checked by the policy's own schema.
        venues: other people's venues to work on, by name; `keeper.desk.settings` reads them.
        bridges: bridges whose messages this node signs and delivers, by name;
            `keeper.route.bridges.settings` reads them.
        light_clients: how finality is proven, per chain; the others' endpoints are asked.
        routing: limits of what the routing policy moves.
    """

    home: Path
    mode: str
    password_file: Path | None
    listen: str
    bootstrap: tuple[str, ...]
    http_host: str
    http_port: int
    endpoints: dict[ChainId, tuple[str, ...]]
    policies: dict[str, str]
    light_clients: dict[ChainId, LightClientConfig]
    coins: dict[ChainId, bytes] = field(default_factory=dict)
    policy: dict[str, dict[str, Any]] = field(default_factory=dict)
    venues: dict[str, dict[str, Any]] = field(default_factory=dict)
    bridges: dict[str, dict[str, Any]] = field(default_factory=dict)
    routing: RoutingLimits = RoutingLimits()

    def settings_of(self, kind: str) -> dict[str, Any]:
        """Return the settings of the policy of a kind."""
        return dict(self.policy.get(kind, {}))

    @property
    def network_file(self) -> Path:
        """The network's descriptor."""
        return self.home / "network.json"

    @property
    def store_file(self) -> Path:
        """The node's database."""
        return self.home / "keeper.db"

    @property
    def keys(self) -> Path:
        """The directory of sealed keys."""
        return self.home / "keys"

    def password(self) -> str:
        """Return the password that opens the keys.

        Raises:
            ConfigError: neither the file nor the environment has one.
        """
        if self.password_file is not None and self.password_file.exists():
            return self.password_file.read_text().splitlines()[0].strip()
        if "KEEPER_PASSWORD" in os.environ:
            return os.environ["KEEPER_PASSWORD"]
        raise ConfigError(
            "no password to open the keys",
            where=str(self.home / "keeper.toml"),
            remedy="set node.password_file, or KEEPER_PASSWORD in the environment",
        )


KINDS = {"liquidation", "deleverage", "filling", "routing"}
"""Kinds of policies that a node runs; the others can be written, checked and backtested only."""
_SECTIONS: dict[str, set[str]] = {
    "node": {"mode", "password_file"},
    "p2p": {"listen", "bootstrap"},
    "http": {"host", "port"},
    "chains": set(),
    "policies": KINDS,
    "policy": KINDS,
    "venues": set(),
    "bridges": set(),
    "routing": {field.name for field in fields(RoutingLimits)},
    "light_client": set(),
}
_PER_CHAIN: dict[str, set[str]] = {
    "chains": {"rpc", "coin"},
    "light_client": {field.name for field in fields(LightClientConfig)},
}


def load(home: Path) -> Config:
    """Read and check `HOME/keeper.toml`.

    Raises:
        ConfigError: the file is missing, is no TOML, has an unknown key or an impossible value.
    """
    path = home / "keeper.toml"
    try:
        raw = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(
            "there is no keeper here", where=str(path), remedy="make one with `keeper init`"
        ) from error
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"cannot read the configuration: {error}", where=str(path), remedy="mend the file"
        ) from error
    _refuse_unknown(raw, path)
    try:
        return _build(home, raw)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"a setting is missing or impossible: {error}",
            where=str(path),
            remedy="compare with the commented file that `keeper init` writes",
        ) from error


def _refuse_unknown(raw: dict[str, Any], path: Path) -> None:
    for section, body in raw.items():
        known = _SECTIONS.get(section)
        if known is None:
            raise ConfigError(
                f"unknown section [{section}]",
                where=str(path),
                remedy=f"the sections are {', '.join(sorted(_SECTIONS))}",
            )
        if section in ("venues", "bridges"):
            continue
        if section in _PER_CHAIN:
            known = _PER_CHAIN[section]
            unknown = {f"{chain}.{key}" for chain, row in body.items() for key in set(row) - known}
        else:
            unknown = set(body) - known
        if unknown:
            raise ConfigError(
                f"unknown key {min(unknown)!r} in [{section}]",
                where=str(path),
                remedy=f"the keys are {', '.join(sorted(known))}",
            )


def _bytes(text: str, length: int) -> bytes:
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != length:
        raise ValueError(f"{text!r} is not {length} bytes in hex")
    return raw


def _light_client(row: dict[str, Any]) -> LightClientConfig:
    forks = [(int(epoch), _bytes(version, 4)) for epoch, version in row["forks"].items()]
    lengths = {
        name: int(row[name])
        for name in ("seconds_per_slot", "slots_per_epoch", "epochs_per_period")
        if name in row
    }
    if not forks or min(lengths.values(), default=1) < 1:
        raise ValueError("a light client needs a fork, and lengths of at least 1")
    return LightClientConfig(
        str(row["beacon"]),
        _bytes(row["trusted_root"], 32),
        int(row["genesis_time"]),
        _bytes(row["genesis_validators_root"], 32),
        tuple(sorted(forks)),
        **lengths,
    )


def _build(home: Path, raw: dict[str, Any]) -> Config:
    node, p2p, http = raw["node"], raw["p2p"], raw["http"]
    if node["mode"] not in MODES:
        raise ValueError(f"node.mode {node['mode']!r} is not one of {', '.join(MODES)}")
    if not 0 < int(http["port"]) < 65536:
        raise ValueError(f"http.port {http['port']} is no port")
    endpoints = {
        ChainId(int(chain)): tuple(str(url) for url in row["rpc"])
        for chain, row in sorted(raw["chains"].items())
    }
    for chain, urls in endpoints.items():
        if not urls:
            raise ValueError(f"chains.{chain}.rpc needs at least one endpoint")
    light = {
        ChainId(int(chain)): _light_client(row)
        for chain, row in sorted(raw.get("light_client", {}).items())
    }
    if set(light) - set(endpoints):
        raise ValueError(f"light_client.{min(set(light) - set(endpoints))} is no chain with rpc")
    password = str(node.get("password_file", ""))
    return Config(
        home=home,
        mode=str(node["mode"]),
        password_file=home / password if password else None,
        listen=str(p2p["listen"]),
        bootstrap=tuple(str(address) for address in p2p.get("bootstrap", ())),
        http_host=str(http.get("host", "127.0.0.1")),
        http_port=int(http["port"]),
        endpoints=endpoints,
        policies={str(kind): str(name) for kind, name in raw.get("policies", {}).items()},
        light_clients=light,
        coins={
            ChainId(int(chain)): symbol(str(row.get("coin", DEFAULT_COIN)))
            for chain, row in raw["chains"].items()
        },
        policy={str(kind): dict(row) for kind, row in raw.get("policy", {}).items()},
        venues={str(name): dict(row) for name, row in raw.get("venues", {}).items()},
        bridges={str(name): dict(row) for name, row in raw.get("bridges", {}).items()},
        routing=RoutingLimits(**raw.get("routing", {})),
    )


def render(
    *,
    mode: str,
    password_file: str,
    p2p_port: int,
    bootstrap: tuple[str, ...],
    http_port: int,
    endpoints: dict[ChainId, tuple[str, ...]],
) -> str:
    """Return a commented `keeper.toml`."""
    chains = "".join(
        f"[chains.{chain}]\nrpc = [{', '.join(_quoted(url) for url in urls)}]\n\n"
        for chain, urls in sorted(endpoints.items())
    )
    return TEMPLATE.format(
        mode=mode,
        password_file=password_file,
        p2p_port=p2p_port,
        bootstrap=", ".join(_quoted(address) for address in bootstrap),
        http_port=http_port,
        chains=chains,
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
