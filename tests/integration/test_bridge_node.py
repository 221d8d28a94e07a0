"""Four keepers as nodes compose them: real libp2p, real executors, Hyperlane's real contracts."""

import json
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
from typer.testing import CliRunner

from keeper.cli.main import app
from keeper.errors import ConfigError
from keeper.reasons import Reason
from keeper.route.bridges.multisig import FRAME
from keeper.route.bridges.port import Stage, Terms
from keeper.route.files import graph_of
from p2p.verdicts import ACCEPT, Ignore, Reject
from tests.support.anvil import anvil_binary
from tests.support.bridge_node import couriers_of, home_of, keeper
from tests.support.hyperlane_contracts import CHAINS, KEYS, VERIFIER, bridged
from tests.support.p2p_ports import free_ports

pytestmark = [pytest.mark.anvil, pytest.mark.npm, pytest.mark.libp2p]
__all__ = ["anvil_binary"]


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


async def test_keepers_over_gossip_deliver_a_transfer_once(anvil_binary: Path) -> None:
    async with bridged(anvil_binary) as world, AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        ports = free_ports(len(KEYS))
        executors = [await keeper(world, me, ports, nursery) for me in range(len(KEYS))]
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
