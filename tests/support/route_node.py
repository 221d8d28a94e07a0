"""A keeper's process that carries messages and moves its own funds, until it is killed.

    HOME MEMBER PORTS          HOME as `keeper init` leaves it, with bridges and a routing policy

What a member composes in an epoch, less the agreement: the view is the one of genesis, with prices.
"""

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import structlog
import trio

from keeper import config, network
from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.chain.port import Chain
from keeper.keys import Keys
from keeper.metrics import Metrics
from keeper.node.courier import Couriers
from keeper.node.market import Costs
from keeper.node.routing import routing_of
from keeper.parameters import Parameters
from keeper.snapshot.decisions import Price
from keeper.snapshot.derive import Setting, genesis
from keeper.store import Store
from keeper.units import ChainId, symbol
from policies.record import RecordFolder
from tests.support.bridge_node import executor_of, network_of, serve
from tests.support.hyperlane_contracts import KEYS

PRICES = {symbol("USDC"): 10**8, symbol("ETH-USD"): 2_000 * 10**8}


async def run(home: Path, me: int, ports: list[int]) -> None:
    settings, spec = config.load(home), network.load(home / "network.json")
    chains: dict[ChainId, Chain] = {
        chain: EvmChain(chain, urls, Depth(1)) for chain, urls in settings.endpoints.items()
    }
    store, peers = Store(settings.store_file), network_of(me, ports)
    record = RecordFolder(home / "records", {})
    executor = executor_of(store, chains, KEYS[me])
    parts = SimpleNamespace(
        home=home, network=spec, keys=Keys(KEYS[me], b""), store=store, p2p=peers,
        watchers={chain: SimpleNamespace(chain=port) for chain, port in chains.items()},
        executor=executor, metrics=Metrics(), recorder=SimpleNamespace(put=record.append),
    )  # fmt: skip
    parameters = Parameters.devnet(list(chains))
    setting = Setting(spec, parameters, spec.digest(), 1, bytes(32), (), 0, 1, ())
    start = genesis(setting)
    prices = {market: Price(market, price, False) for market, price in PRICES.items()}
    snapshot = replace(start, book=replace(start.book, prices=prices))
    costs = Costs(spec, chains, settings.coins, ())
    couriers = Couriers(cast(Any, parts), settings)
    work = routing_of(cast(Any, parts), settings, setting, costs, dict, couriers.traffic)
    assert work is not None
    work._round_s = 0.1
    async with trio.open_nursery() as nursery:
        await nursery.start(peers.run)
        for service in (executor.run, couriers.run, costs.run, work.run):
            nursery.start_soon(service)
        nursery.start_soon(serve, peers, couriers)
        view = 0
        while True:
            view += 1
            header = replace(snapshot.header, view=view, tick=view)
            work.on_final(replace(snapshot, header=header))
            await trio.sleep(0.1)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    trio.run(run, Path(sys.argv[1]), int(sys.argv[2]), [int(port) for port in sys.argv[3:]])
