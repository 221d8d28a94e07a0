"""Keepers with couriers, as nodes compose them: real libp2p, real executors, the real contracts."""

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import trio

from keeper.chain.port import Chain
from keeper.execute.intent import Lane, Mode
from keeper.execute.lane_keys import lane_address, lane_key
from keeper.execute.ledger import Ledger
from keeper.execute.service import Executor
from keeper.keys import Keys, address_of
from keeper.network import Token
from keeper.node.courier import Couriers
from keeper.store import Store
from keeper.units import ChainId
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_text
from p2p.port import Limits, Topic
from tests.support.bridge_home import write_home
from tests.support.hyperlane_contracts import KEYS, THRESHOLD, USDC, VERIFIER, Bridged, Site
from tests.support.p2p_contract import id_of, seed_of


def section(world: Bridged) -> dict[str, Any]:
    """Return the route as an operator writes it."""
    chains = {
        str(end.chain): {
            "domain": end.domain,
            "router": "0x" + end.router.hex(),
            "mailbox": "0x" + end.mailbox.hex(),
            "hook": "0x" + end.hook.hex(),
            "module": "0x" + end.ism.hex(),
            "token": "0x" + end.token.hex() if end.token else "",
        }
        for end in world.route.ends
    }
    return {
        "kind": "hyperlane", "asset": "USDC", "threshold": THRESHOLD, "p95_s": 60,
        "validators": ["0x" + address_of(key).hex() for key in KEYS], "chains": chains,
    }  # fmt: skip


def couriers_of(world: Bridged, executor: object, network: object, key: bytes) -> Couriers:
    return composed(world.sites, {"usdc": section(world)}, executor, network, key)


def composed(
    sites: Mapping[ChainId, Site],
    sections: Mapping[str, Mapping[str, Any]],
    executor: object,
    network: object,
    key: bytes,
) -> Couriers:
    """Compose what a member composes, with the parts that a courier uses."""
    watchers = {chain: SimpleNamespace(chain=site.chain) for chain, site in sites.items()}
    parts = SimpleNamespace(
        keys=Keys(key, b""), network=SimpleNamespace(id=VERIFIER), watchers=watchers,
        executor=executor, p2p=network,
    )  # fmt: skip
    config = SimpleNamespace(home=Path("home"), bridges=sections)
    return Couriers(cast(Any, parts), cast(Any, config))


def home_of(world: Bridged, home: Path) -> None:
    """Write what `keeper init` writes, and the route's section."""
    urls = {chain: site.shop.anvil.url for chain, site in world.sites.items()}
    tokens = {end.chain: Token(USDC, end.token or end.router, 6) for end in world.route.ends}
    write_home(home, VERIFIER, urls, {"usdc": section(world)}, tokens)


def network_of(me: int, ports: list[int]) -> Libp2pNetwork:
    """Return a keeper's network among as many others as there are ports."""
    known = tuple(
        f"/ip4/127.0.0.1/tcp/{ports[other]}/p2p/{peer_id_text(id_of(other))}"
        for other in range(len(ports))
        if other != me
    )
    made = Libp2pNetwork(seed_of(me), f"/ip4/127.0.0.1/tcp/{ports[me]}", known, Limits())
    made.allow(frozenset(map(id_of, range(len(ports)))), frozenset())
    return made


def executor_of(store: Store, chains: dict[ChainId, Chain], key: bytes) -> Executor:
    """Return the live executor of a keeper's settlement lane."""
    lanes = {(chain, Lane.SETTLEMENT): lambda: lane_key(key, Lane.SETTLEMENT) for chain in chains}
    return Executor(Ledger(store), chains, Mode.LIVE, lanes, poll_s=0.02)


async def serve(network: Libp2pNetwork, couriers: Couriers) -> None:
    while True:
        item = await network.inbox.receive()
        if item.road == Topic.MESSAGES:
            network.report(item.peer, couriers.take(item.peer, item.frame))


async def fund(world: Bridged, account: bytes) -> None:
    """Give an account coin on every chain."""
    for site in world.sites.values():
        request = ["0x" + account.hex(), hex(10**18)]
        await site.shop.anvil.rpc.call("anvil_setBalance", request)


async def keeper(world: Bridged, me: int, ports: list[int], nursery: trio.Nursery) -> bytes:
    """Run one keeper's courier; return the account that pays for its deliveries."""
    network = network_of(me, ports)
    await nursery.start(network.run)
    store = Store(":memory:")
    chains: dict[ChainId, Chain] = {chain: site.chain for chain, site in world.sites.items()}
    executor = executor_of(store, chains, KEYS[me])
    couriers = couriers_of(world, executor, network, KEYS[me])

    async def work() -> None:
        with closing(store):  # only once nobody works on it
            async with trio.open_nursery() as own:
                for run in (executor.run, couriers.run):
                    own.start_soon(run)

    nursery.start_soon(work)
    nursery.start_soon(serve, network, couriers)
    account = lane_address(KEYS[me], Lane.SETTLEMENT)
    await fund(world, account)
    return account
