"""The home: configuration, descriptor, keys, database, policies, ports."""

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from keeper import config, keys, network
from keeper.config import Config
from keeper.errors import FlowkeeperError, LocalError, StoreError
from keeper.keys import IDENTITY, OPERATOR, Keys
from keeper.network import NetworkSpec
from keeper.node.doctor.finding import Finding, bad, fine, odd
from keeper.parameters import Parameters
from keeper.store import Store
from p2p.host import endpoint
from policies.discover import spec_of

DIAL_S = 3.0


@dataclass(frozen=True, slots=True)
class Opened:
    """What later checks need of a home; None where it could not be had."""

    settings: Config
    spec: NetworkSpec | None
    keys: Keys | None


def _failed(check: str, error: FlowkeeperError) -> Finding:
    """Return an error as a finding: it knows what, where and what to do."""
    if isinstance(error, LocalError):
        where = f" at {error.where}" if error.where else ""
        return bad(check, f"{error.what}{where}", error.remedy or "see docs")
    return bad(check, str(error), "see docs")


def settings_of(home: Path) -> tuple[Config | None, Finding]:
    """Read the configuration."""
    try:
        settings = config.load(home)
    except LocalError as error:
        return None, _failed("configuration", error)
    return settings, fine("configuration", f"mode {settings.mode}")


def descriptor(settings: Config) -> tuple[NetworkSpec | None, Finding]:
    """Read the network descriptor and the parameters inside."""
    try:
        spec = network.load(settings.network_file)
        parameters = Parameters.decode(spec.parameters)
    except LocalError as error:
        return None, _failed("network", error)
    except ValueError as error:
        remedy = "copy network.json again from whoever deployed the contracts"
        return None, bad("network", str(error), remedy)
    missing = sorted(chain.id for chain in spec.chains if chain.id not in settings.endpoints)
    if missing:
        return spec, bad(
            "network",
            f"no endpoint for chain {missing[0]}",
            f'add [chains.{missing[0]}] with rpc = ["http://…"] to keeper.toml',
        )
    short = f"{spec.id.hex()[:8]}…, parameters {parameters.digest.hex()[:8]}…"
    return spec, fine("network", f"{len(spec.chains)} chains, network {short}")


def private(check: str, path: Path, mask: int = 0o077) -> Finding:
    """Judge who may read a file or enter a directory."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return bad(check, f"{path}: {error.strerror}", "restore it from a backup, or `keeper init`")
    if mode & mask:
        wanted = "700" if path.is_dir() else "600"
        return bad(
            check, f"others can read {path} (mode {mode & 0o777:o})", f"chmod {wanted} {path}"
        )
    return fine(check, f"{path.name}: mode {mode & 0o777:o}")


def permissions(settings: Config) -> list[Finding]:
    """Judge who may read keys and password."""
    found = [private("key_folder", settings.keys, 0o022)]
    shares = sorted(settings.keys.glob("share-*.key"))
    own = (settings.keys / OPERATOR, settings.keys / IDENTITY)
    found += [private("key_files", path) for path in (*own, *shares)]
    if settings.password_file is not None and settings.password_file.exists():
        found.append(private("password", settings.password_file))
    return found


def opened(settings: Config) -> tuple[Keys | None, Finding]:
    """Open the keys with the password, as the node will."""
    try:
        mine = keys.load(settings.keys, settings.password())
    except LocalError as error:
        return None, _failed("keys", error)
    return mine, fine("keys", f"operator 0x{mine.address.hex()}")


def database(settings: Config) -> Finding:
    """Judge the database, and whether a vote could be cast twice for want of one."""
    voted = sorted(settings.keys.glob("epoch-*.voted"))
    if not settings.store_file.exists():
        if voted:
            return bad(
                "database",
                f"{settings.store_file.name} is gone, but this keeper has voted ({voted[-1].name})",
                "restore it from a backup: without it this keeper could contradict its own votes",
            )
        return fine("database", "will be made at the first start")
    try:
        Store(settings.store_file, read_only=True).close()
    except StoreError as error:
        return _failed("database", error)
    return fine("database", f"{settings.store_file.stat().st_size / 2**20:.1f} MiB, undamaged")


def policies(settings: Config) -> Finding:
    """Judge whether the policies named are installed."""
    for kind, name in settings.policies.items():
        try:
            spec_of(name)
        except LookupError as error:
            remedy = "see `keeper policy list`, or mend [policies] in keeper.toml"
            return bad("policies", f"{kind}: {error}", remedy)
    return fine("policies", ", ".join(f"{k} = {n}" for k, n in settings.policies.items()) or "none")


def _bindable(host: str, port: int) -> OSError | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error
    return None


def port(check: str, host: str, number: int, running: bool) -> Finding:
    """Judge whether the node can listen there."""
    error = _bindable(host, number)
    if error is None:
        return fine(check, f"{host}:{number} is free")
    if running and error.errno == errno.EADDRINUSE:
        return fine(check, f"{host}:{number} is held by the running node")
    return bad(
        check,
        f"cannot listen on {host}:{number}: {error.strerror}",
        "stop what listens there, or choose another port in keeper.toml",
    )


def ports(settings: Config, running: bool) -> list[Finding]:
    """Judge the p2p and the http port."""
    try:
        host, number = endpoint(settings.listen)
    except LocalError as error:
        return [_failed("p2p_port", error)]
    found = [
        port("p2p_port", host, number, running),
        port("http_port", settings.http_host, settings.http_port, running),
    ]
    if host.startswith("127.") and any("/127." not in one for one in settings.bootstrap):
        found.append(
            odd(
                "p2p_port",
                f"listens on {host}, where other machines cannot reach it",
                "set p2p.listen to /ip4/0.0.0.0/tcp/PORT or a public address",
            )
        )
    return found


def _dial(host: str, number: int) -> None:
    socket.create_connection((host, number), timeout=DIAL_S).close()


def bootstrap(settings: Config, dial: Callable[[str, int], None] = _dial) -> Finding:
    """Judge whether one keeper to start from can be reached."""
    if not settings.bootstrap:
        return odd(
            "bootstrap", "no keeper to start from", "set p2p.bootstrap to a known keeper's address"
        )
    whys = []
    for address in settings.bootstrap:
        try:
            dial(*endpoint(address))
        except LocalError as error:
            whys.append(f"{address}: {error.what}")
        except OSError as error:
            whys.append(f"{address}: {error}")
        else:
            return fine("bootstrap", f"{address} answers")
    return odd("bootstrap", "; ".join(whys), "ask another operator for an address that answers")
