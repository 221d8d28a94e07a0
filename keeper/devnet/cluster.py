"""A local network: chains, contracts, and keeper processes that an operator could have started.

    anvils ─▶ contracts ─▶ network.json ─▶ per keeper: `keeper init`, `keeper bond join`,
                                                       `keeper run` (own process, home, ports)
    every keeper has generated the same key ─▶ Committee.genesis on every chain

Each keeper runs the very command an operator runs. Everything lives under one directory; all that
was started is ended again, also when something fails, and by a warden where the devnet is killed.
"""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from keeper import home as home_folder
from keeper import network as descriptor
from keeper.config import LightClientConfig
from keeper.contracts import encode_call
from keeper.devnet.beacon_node import run_beacon
from keeper.devnet.chains import Anvil, AnvilSpec, ensure_anvil, free_port, run_anvil
from keeper.devnet.deploy import Market, account_id, deploy_chain, install_committee
from keeper.devnet.wallet import Send, Wallet, broadcast
from keeper.devnet.warden import Guard, run_warden
from keeper.errors import LocalError
from keeper.execute.intent import Lane
from keeper.execute.lane_keys import lane_address
from keeper.hashing import keccak
from keeper.keys import Keys
from keeper.network import NetworkSpec
from keeper.parameters import Parameters
from keeper.units import ChainId, symbol
from keeper.web.client import get_json
from p2p.frost.keyfile import QUICK
from p2p.identity import peer_id_text

FIRST_CHAIN = 31501
TICK_MS = 500
BOND_WEI = 100 * 10**18
PASSWORD = "devnet"
KEEPER_FUNDS_WEI = 200 * 10**18
LANE_FUNDS_WEI = 50 * 10**18
READY_S = 90.0
"""A cluster of seven on two cores has generated its key in well under a minute."""
STOP_S = 10.0

Say = Callable[[str], None]


@dataclass(slots=True)
class KeeperProcess:
    """One keeper: its home, its ports, and the process while it runs."""

    index: int
    home: Path
    http_port: int
    p2p_port: int
    peer: str = ""
    keys: Keys | None = None
    process: trio.Process | None = None
    restarts: int = 0
    guard: Guard | None = None

    async def start(self) -> None:
        """Run `keeper run` on this home."""
        with (self.home / "keeper.log").open("ab") as output:
            self.process = await trio.lowlevel.open_process(
                [
                    *keeper_command(),
                    "run",
                    "--home",
                    str(self.home),
                    "--quick-keys",
                    "--log-json",
                    "--log-level",
                    os.environ.get("KEEPER_LOG_LEVEL", "info"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        if self.guard is not None:
            await self.guard(self.process.pid)

    def kill(self) -> None:
        """End the process at once, as a power loss would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)

    async def stop(self) -> None:
        """End the process politely, then not."""
        if self.process is None:
            return
        self.process.terminate()
        with trio.move_on_after(STOP_S):
            await self.process.wait()
            self.process = None
            return
        self.process.kill()
        await self.process.wait()
        self.process = None

    async def status(self) -> dict[str, Any] | None:
        """Return what the node says of itself, or None while it does not answer."""
        value = await get_json("127.0.0.1", self.http_port, "/status")
        return value if isinstance(value, dict) else None

    async def ready(self) -> dict[str, Any] | None:
        """Return what /readyz says, or None while it does not answer."""
        value = await get_json("127.0.0.1", self.http_port, "/readyz")
        return value if isinstance(value, dict) else None


@dataclass(slots=True)
class Cluster:
    """A running local network."""

    folder: Path
    chains: dict[ChainId, Anvil]
    spec: NetworkSpec
    parameters: Parameters
    wallets: dict[ChainId, Wallet]
    keepers: list[KeeperProcess] = field(default_factory=list)
    light_clients: dict[ChainId, LightClientConfig] = field(default_factory=dict)
    guard: Guard | None = None
    policies: Mapping[str, str] = field(default_factory=dict)

    @property
    def hub(self) -> Anvil:
        """The chain that holds the bonds and most collateral."""
        return self.chains[self.spec.hub]

    async def wait(
        self,
        what: str,
        ask: Callable[[Mapping[int, dict[str, Any]]], bool],
        seconds: float,
        keepers: list[KeeperProcess] | None = None,
    ) -> dict[int, dict[str, Any]]:
        """Poll the keepers' status until `ask` holds for all that answer.

        Raises:
            LocalError: it did not come true in time; the last statuses are in the message.
        """
        chosen = self.keepers if keepers is None else keepers
        seen: dict[int, dict[str, Any]] = {}
        with trio.move_on_after(seconds):
            while True:
                seen = {}
                for keeper in chosen:
                    self._check_alive(keeper)
                    value = await keeper.status()
                    if value is not None:
                        seen[keeper.index] = value
                if len(seen) == len(chosen) and ask(seen):
                    return seen
                await trio.sleep(0.2)
        shown = {index: _short(value) for index, value in seen.items()}
        raise LocalError(
            f"{what} did not happen in {seconds:g} s: {shown}",
            where=str(self.folder),
            remedy="look into keeper-*/keeper.log there",
        )

    def _check_alive(self, keeper: KeeperProcess) -> None:
        if keeper.process is not None and keeper.process.poll() is not None:
            tail = (keeper.home / "keeper.log").read_text(errors="replace").splitlines()[-3:]
            raise LocalError(
                f"keeper {keeper.index} ended with status {keeper.process.returncode}: "
                + " ".join(tail),
                where=str(keeper.home / "keeper.log"),
            )


def _short(value: dict[str, Any]) -> dict[str, Any]:
    names = ("phase", "view", "final_view", "sealed_view", "missing")
    return {name: value.get(name) for name in names} | {"health": value["health"]["reasons"]}


def keeper_command() -> list[str]:
    """Return the command that an operator types as `keeper`."""
    return [sys.executable, "-m", "keeper"]


@asynccontextmanager
async def run_cluster(
    folder: Path,
    cache: Path,
    *,
    keepers: int,
    chains: int,
    say: Say,
    accounts: int = 80,
    light_client: bool = False,
    policies: Mapping[str, str] | None = None,
) -> AsyncIterator[Cluster]:
    """Run a whole local network for the length of the block.

    Args:
        folder: where homes, descriptor and logs go; it exists.
        cache: where the anvil binary is kept.
        keepers: how many keepers, all in the first committee.
        chains: how many chains; the first is the hub, the others are venues.
        say: told what happens now.
        accounts: funded accounts per chain, for the deployer and the traders.
        light_client: every chain has a simulated beacon, and keepers take only what it proves.
        policies: policies by kind that every keeper runs beside the one it bids by.
    """
    say("starting chains (the first time, anvil is fetched)")
    binary = await trio.to_thread.run_sync(ensure_anvil, cache)
    async with AsyncExitStack() as stack:
        guard = await stack.enter_async_context(run_warden())
        anvils = {}
        for index in range(chains):
            spec = AnvilSpec(ChainId(FIRST_CHAIN + index), accounts=accounts)
            anvils[spec.chain] = await stack.enter_async_context(run_anvil(binary, spec, guard))
        say("deploying contracts")
        cluster = await _deploy(folder, anvils, keepers)
        cluster.guard = guard
        cluster.policies = policies or {}
        if light_client:
            say("starting a simulated beacon for every chain")
            for chain, anvil in anvils.items():
                beacon = run_beacon(anvil.url, folder / f"beacon-{chain}.log", guard)
                cluster.light_clients[chain] = await stack.enter_async_context(beacon)
        stack.push_async_callback(_stop_all, cluster)
        say(f"making {keepers} keepers and their bonds")
        await _make_keepers(cluster, keepers)
        for one in cluster.keepers:
            await one.start()
        say("generating the group key")
        await _found(cluster)
        say("the committee's key is registered on every chain")
        yield cluster


async def _stop_all(cluster: Cluster) -> None:
    with trio.CancelScope(shield=True):
        async with trio.open_nursery() as nursery:
            for one in cluster.keepers:
                nursery.start_soon(one.stop)


async def _deploy(folder: Path, anvils: dict[ChainId, Anvil], keepers: int) -> Cluster:
    network = keccak(b"flowkeeper devnet" + secrets.token_bytes(16))
    parameters = Parameters.devnet(list(anvils))
    receivers = [account_id(network, bytes(19) + bytes([at])) for at in range(4)]
    markets = [Market(symbol("ETH-USD"), 3_000 * 10**8)]
    wallets = {chain: Wallet(anvil.rpc, chain, anvil.key(0)) for chain, anvil in anvils.items()}
    hub = min(anvils)
    specs = [
        await deploy_chain(
            wallets[chain],
            network,
            parameters,
            hub=chain == hub,
            venue=chain != hub,
            markets=markets,
            assets=[("USDC", 10**8)],
            receivers=receivers,
        )
        for chain in sorted(anvils)
    ]
    now_ms = int(
        int(
            (await anvils[hub].rpc.call("eth_getBlockByNumber", ["latest", False]))["timestamp"], 16
        )
        * 1000
    )
    spec = NetworkSpec(network, now_ms, TICK_MS, hub, tuple(specs), parameters.encode(), keepers)
    (folder / "network.json").write_text(json.dumps(spec.to_json(), indent=2) + "\n")
    (folder / "password").write_text(PASSWORD + "\n")
    (folder / "password").chmod(0o600)
    return Cluster(folder, anvils, descriptor.load(folder / "network.json"), parameters, wallets)


async def _make_keepers(cluster: Cluster, count: int) -> None:
    ports = [free_port() for _ in range(2 * count)]
    for at in range(count):
        bootstrap = tuple(address_of_peer(one) for one in cluster.keepers[:1])
        http_port, p2p_port = ports[2 * at : 2 * at + 2]
        home = cluster.folder / f"keeper-{at}"
        one = KeeperProcess(at, home, http_port, p2p_port, guard=cluster.guard)
        cluster.keepers.append(make_home(cluster, one, bootstrap))
    await fund(cluster, cluster.keepers)
    await join(cluster, cluster.keepers)


def address_of_peer(one: KeeperProcess) -> str:
    """Return the address other keepers start from."""
    return f"/ip4/127.0.0.1/tcp/{one.p2p_port}/p2p/{one.peer}"


def make_home(cluster: Cluster, one: KeeperProcess, bootstrap: tuple[str, ...]) -> KeeperProcess:
    """Make a keeper's home as `keeper init` does."""
    made = home_folder.make(
        one.home,
        cluster.folder / "network.json",
        {chain: (anvil.url,) for chain, anvil in cluster.chains.items()},
        PASSWORD,
        mode="live",
        p2p_port=one.p2p_port,
        http_port=one.http_port,
        bootstrap=bootstrap,
        password_file=cluster.folder / "password",
        work=QUICK,
    )
    with (one.home / "keeper.toml").open("a") as file:  # whose last section is [policies]
        file.writelines(f'{kind} = "{name}"\n' for kind, name in cluster.policies.items())
        file.writelines(client.render(chain) for chain, client in cluster.light_clients.items())
    one.keys, one.peer = made, peer_id_text(made.peer_id)
    return one


async def fund(cluster: Cluster, keepers: Sequence[KeeperProcess]) -> None:
    """Give every lane of these keepers coin on every chain."""
    for wallet in cluster.wallets.values():
        await wallet.send(
            *(
                Send(
                    lane_address(one.keys.operator, lane),
                    value=KEEPER_FUNDS_WEI if lane is Lane.URGENT else LANE_FUNDS_WEI,
                    gas=21_000,
                )
                for one in keepers
                if one.keys is not None
                for lane in Lane
            )
        )


async def join(cluster: Cluster, keepers: Sequence[KeeperProcess]) -> None:
    """Put every keeper's bond at stake, as `keeper bond join` does."""
    hub = cluster.hub
    bonds = cluster.spec.chain(cluster.spec.hub).contract("Bonds")
    admin = cluster.wallets[cluster.spec.hub].address
    raws = []
    for one in keepers:
        assert one.keys is not None
        data = encode_call("Bonds", "join", admin, one.keys.peer_id)
        wallet = Wallet(hub.rpc, hub.chain, one.keys.operator)
        raws += await wallet.sign([Send(bonds, data, BOND_WEI, gas=500_000)])
    await broadcast(hub.rpc, raws)


async def _found(cluster: Cluster) -> None:
    """Wait until every keeper generated the same key, and register it on every chain."""

    def agreed(seen: Mapping[int, dict[str, Any]]) -> bool:
        keys = {json.dumps(value["generated"], sort_keys=True) for value in seen.values()}
        return len(keys) == 1 and "null" not in keys

    seen = await cluster.wait("a common group key", agreed, READY_S)
    made = next(iter(seen.values()))["generated"]
    await install_committee(
        cluster.wallets,
        cluster.spec.chains,
        epoch=made["epoch"],
        group_key=int(made["group_key"], 16),
        config=bytes.fromhex(made["config"][2:]),
        members=[bytes.fromhex(member[2:]) for member in made["members"]],
    )
