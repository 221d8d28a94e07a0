"""Four keepers as nodes compose them: real libp2p, real executors, Hyperlane's real contracts."""

import json
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from typer.testing import CliRunner

from keeper import config
from keeper.cli.main import app
from keeper.errors import ConfigError
from keeper.execute.intent import Lane, Mode
from keeper.execute.lane_keys import lane_address, lane_key
from keeper.execute.ledger import Ledger
from keeper.execute.service import Executor
from keeper.keys import Keys
from keeper.network import ChainSpec, NetworkSpec
from keeper.node.courier import Couriers
from keeper.reasons import Reason
from keeper.route.bridges.multisig import FRAME, address_of
from keeper.route.bridges.port import Stage, Terms
from keeper.route.files import graph_of
from keeper.store import Store
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_text
from p2p.port import Limits, Topic
from p2p.verdicts import ACCEPT, Ignore, Reject
from tests.support.anvil import anvil_binary
from tests.support.hyperlane_contracts import CHAINS, KEYS, THRESHOLD, VERIFIER, Bridged, bridged
from tests.support.p2p_contract import id_of, seed_of
from tests.support.p2p_ports import free_ports

pytestmark = [pytest.mark.anvil, pytest.mark.npm, pytest.mark.libp2p]
__all__ = ["anvil_binary"]


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
    """Compose what a member composes, with the parts that a courier uses."""
    watchers = {chain: SimpleNamespace(chain=site.chain) for chain, site in world.sites.items()}
    parts = SimpleNamespace(
        keys=Keys(key, b""), network=SimpleNamespace(id=VERIFIER), watchers=watchers,
        executor=executor, p2p=network,
    )  # fmt: skip
    config = SimpleNamespace(home=Path("home"), bridges={"usdc": section(world)})
    return Couriers(cast(Any, parts), cast(Any, config))


def home_of(world: Bridged, home: Path) -> None:
    """Write what `keeper init` writes, and the route's section."""
    text = config.render(
        mode="off", password_file="", p2p_port=0, bootstrap=(), http_port=1,
        endpoints={chain: (site.shop.anvil.url,) for chain, site in world.sites.items()},
    )  # fmt: skip
    row = section(world)
    chains = row.pop("chains")
    text += "[bridges.usdc]\n" + "".join(f"{name} = {json.dumps(row[name])}\n" for name in row)
    for chain, body in chains.items():
        text += f"[bridges.usdc.chains.{chain}]\n"
        text += "".join(f"{name} = {json.dumps(body[name])}\n" for name in body)
    (home / "keeper.toml").write_text(text)
    specs = tuple(ChainSpec(chain, (), ()) for chain in sorted(world.sites))
    spec = NetworkSpec(VERIFIER, 1_700_000_000_000, 500, specs[0].id, specs)
    (home / "network.json").write_text(json.dumps(spec.to_json()))


async def test_lanes_are_shown_as_the_contracts_have_them(
    anvil_binary: Path, tmp_path: Path
) -> None:
    async with bridged(anvil_binary) as world:
        home_of(world, tmp_path)
        for site in world.sites.values():
            await site.shop.anvil.mine(3)

        async def shown(*options: str) -> str:
            words = ["route", "lanes", "--home", str(tmp_path), *options]
            run = partial(CliRunner().invoke, app, words)
            done = await trio.to_thread.run_sync(run)
            assert done.exit_code == 0, done.output
            return done.output

        first, second = json.loads(await shown("--json"))["lanes"]
        assert (first["cursed"], second["cursed"]) == (False, False)
        assert (first["origin"], first["verifier"]) == (CHAINS[0], "0x" + VERIFIER.hex())
        assert second["capacity"] == "0", "nothing is locked there yet"
        assert "sound" in await shown()
        graph = tmp_path / "graph.json"
        graph.write_text(await shown("--json"))
        assert graph_of(graph.read_text(), "graph").lanes[0].bridge == world.route.ends[0].router
        await world.synthetic.tx("enrollRemoteRouter", CHAINS[0], b"\x66" * 32)
        await world.sites[CHAINS[1]].shop.anvil.mine(3)
        assert [row["cursed"] for row in json.loads(await shown("--json"))["lanes"]] == [True, True]


async def serve(network: Libp2pNetwork, couriers: Couriers) -> None:
    while True:
        item = await network.inbox.receive()
        if item.road == Topic.MESSAGES:
            network.report(item.peer, couriers.take(item.peer, item.frame))


async def test_keepers_over_gossip_deliver_a_transfer_once(anvil_binary: Path) -> None:
    async with bridged(anvil_binary) as world, AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        ports = free_ports(len(KEYS))
        executors = []
        for me, key in enumerate(KEYS):
            known = tuple(
                f"/ip4/127.0.0.1/tcp/{ports[other]}/p2p/{peer_id_text(id_of(other))}"
                for other in range(len(KEYS))
                if other != me
            )
            network = Libp2pNetwork(seed_of(me), f"/ip4/127.0.0.1/tcp/{ports[me]}", known, Limits())
            network.allow(frozenset(map(id_of, range(len(KEYS)))), frozenset())
            await nursery.start(network.run)
            lanes = {(chain, Lane.SETTLEMENT): lambda key=key: lane_key(key, Lane.SETTLEMENT)
                     for chain in CHAINS}  # fmt: skip
            store = Store(":memory:")
            stack.callback(store.close)
            chains = {chain: site.chain for chain, site in world.sites.items()}
            executor = Executor(Ledger(store), chains, Mode.LIVE, lanes, poll_s=0.02)
            executors.append(lane_address(key, Lane.SETTLEMENT))
            couriers = couriers_of(world, executor, network, key)
            for run in (executor.run, couriers.run):
                nursery.start_soon(run)
            nursery.start_soon(serve, network, couriers)
        for site in world.sites.values():
            for account in executors:
                request = ["0x" + account.hex(), hex(10**18)]
                await site.shop.anvil.rpc.call("anvil_setBalance", request)

        here, there = (world.sites[chain] for chain in CHAINS)
        alice = here.shop.people[5]
        await world.token.tx("mint", 10**9, sender=alice)
        terms: Terms = await world.terms(0)
        crossing = world.route.crossings()[0]
        raw = bytes.fromhex(alice[2:])
        sends = world.route.sends(crossing, 10**9, raw, raw, terms)
        receipts = await here.run(sends, alice)
        (transfer,) = world.route.sent(crossing, receipts[-1].logs)
        with trio.fail_after(45):
            while True:
                replies = await world.answers(world.route.arrival_reads(transfer))
                if world.route.stage(transfer, replies) is Stage.ARRIVED:
                    break
                await trio.lowlevel.checkpoint()
        assert await world.synthetic.call("balanceOf", alice) == 10**9
        counts = [
            int(await there.shop.anvil.rpc.call(
                "eth_getTransactionCount", ["0x" + account.hex(), "latest"]
            ), 16)
            for account in executors
        ]  # fmt: skip
        assert sum(counts) == 1, "one keeper paid for the delivery"


async def test_a_keeper_that_is_no_validator_carries_nothing(anvil_binary: Path) -> None:
    async with bridged(anvil_binary) as world:
        said: list[bytes] = []
        network = SimpleNamespace(publish=lambda _topic, frame: said.append(frame))
        idle = couriers_of(world, None, network, b"\x07" * 32)
        await idle.run()
        assert idle.take(b"peer", b"anything") is ACCEPT
        assert said == []
        mine = couriers_of(world, None, network, KEYS[0])
        assert mine.take(b"peer", b"short") == Reject(Reason.MALFORMED)
        other = world.sites.pop(CHAINS[1])
        with pytest.raises(ConfigError, match="which the network does not have"):
            couriers_of(world, None, network, KEYS[0])
        world.sites[CHAINS[1]] = other
        strange = CHAINS[0].to_bytes(4, "big") + bytes(FRAME - 4)
        assert mine.take(b"peer", strange) == Ignore(Reason.BAD_SIGNATURE)
