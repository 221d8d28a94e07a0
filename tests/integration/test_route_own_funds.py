"""A keeper's process fills a place that runs short over the real warp route, killed on the way.

three keepers carry messages        the fourth carries too, and its routing policy moves its funds
SIGKILL after its transfer is sent, before it is mined ─▶ started again ─▶ arrived, once
"""

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from functools import partial
from pathlib import Path
from sqlite3 import OperationalError

import pytest
import trio
from typer.testing import CliRunner

from keeper.cli.main import app
from keeper.cli.policy_modes import promote_home
from keeper.errors import StoreError
from keeper.execute.intent import Lane
from keeper.execute.intent import State as Task
from keeper.execute.lane_keys import lane_address
from keeper.execute.ledger import Ledger
from keeper.network import load
from keeper.route.bridges.hyperlane import DISPATCH
from keeper.route.shipment_book import ShipmentBook
from keeper.route.shipments import Shipment, State
from keeper.store import Store
from keeper.units import BlockNumber
from policies.record import Decided, RecordReader
from tests.support.anvil import anvil_binary
from tests.support.bridge_node import fund, home_of, keeper
from tests.support.hyperlane_contracts import CHAINS, KEYS, Bridged, bridged
from tests.support.p2p_ports import free_ports

pytestmark = [pytest.mark.anvil, pytest.mark.npm, pytest.mark.libp2p]
__all__ = ["anvil_binary"]
ROOT = Path(__file__).resolve().parents[2]
HOME, AWAY = CHAINS
USD = 10**6
FLOOR = 300 * USD
ME = lane_address(KEYS[0], Lane.SETTLEMENT)
LIMITS = """
[policy.routing]
floor = 300000000
max_cost_ppm = 500000
[routing]
transfer_usd = 400
cost_ppm = 500000
coin_wei = 1000000000000000000
"""


@asynccontextmanager
async def process(home: Path, ports: list[int]) -> AsyncIterator[trio.Process]:
    """Run the fourth keeper, and kill it with SIGKILL at the end."""
    words = ["-m", "tests.support.route_node", str(home), "0", *map(str, ports)]
    start = partial(trio.run_process, [sys.executable, *words], cwd=ROOT, check=False)
    async with trio.open_nursery() as nursery:
        running = await nursery.start(start)
        try:
            yield running
        finally:
            running.kill()


def on_disk(home: Path) -> tuple[list[Shipment], list[Task | None]]:
    """Return the shipments and the states of their tasks, as the process left them."""
    with (
        suppress(StoreError, OperationalError),
        closing(Store(home / "keeper.db", read_only=True)) as store,
    ):
        shipments, ledger = ShipmentBook(store).all(), Ledger(store)
        tasks = [ledger.task(one.main_key) for one in shipments]
        return shipments, [None if task is None else task.state for task in tasks]
    return [], []  # it has not begun


async def dispatched(world: Bridged) -> int:
    chain = world.sites[HOME].chain
    head = await chain.head()
    box = world.route.end(HOME).mailbox
    return len(await chain.history([box], BlockNumber(0), head.ref, [DISPATCH]))


async def mining(world: Bridged) -> None:
    while True:
        for site in world.sites.values():
            await site.shop.anvil.mine()
        await trio.sleep(0.05)


async def test_a_keepers_own_policy_fills_a_place_once_over_a_kill(
    anvil_binary: Path, tmp_path: Path
) -> None:
    async with bridged(anvil_binary) as world, AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        home_of(world, tmp_path)
        for mode in ("shadow", "dry", "live"):
            promote_home(tmp_path, "routing", "routing", mode, lambda: True)
        toml = tmp_path / "keeper.toml"
        toml.write_text(toml.read_text() + LIMITS)
        ports = free_ports(len(KEYS))
        for other in range(1, len(KEYS)):
            await keeper(world, other, ports, nursery)
        await fund(world, ME)
        await world.token.tx("mint", 1_000 * USD)
        checked = world.sites[HOME].shop.web3.to_checksum_address("0x" + ME.hex())
        await world.token.tx("transfer", checked, 1_000 * USD)
        anvil = world.sites[HOME].shop.anvil
        for site in world.sites.values():
            await site.shop.anvil.mine(2)
        await anvil.rpc.call("evm_setAutomine", [False])
        with trio.fail_after(60):
            async with process(tmp_path, ports):
                while True:
                    shipments, tasks = on_disk(tmp_path)
                    if tasks == [Task.SENT]:
                        break
                    if shipments:
                        pending = await anvil.rpc.call("txpool_status", [])
                        if int(pending["pending"], 16) and tasks == [None]:
                            await anvil.mine()  # the approval
                    await trio.sleep(0.02)
            (one,) = shipments
            assert (one.state, one.amount) == (State.WANTED, FLOOR)
            assert await dispatched(world) == 0, "killed before it was mined"
            await anvil.rpc.call("evm_setAutomine", [True])
            nursery.start_soon(mining, world)
            async with process(tmp_path, ports):
                while True:
                    shipments, _ = on_disk(tmp_path)
                    if not shipments[0].open:
                        break
                    await trio.sleep(0.1)
        assert [(row.id, row.state) for row in shipments] == [(one.id, State.ARRIVED)]
        assert await dispatched(world) == 1, "sent once"
        assert await world.token.call("balanceOf", checked) == 1_000 * USD - FLOOR
        assert await world.synthetic.call("balanceOf", checked) == FLOOR
        count = await anvil.rpc.call("eth_getTransactionCount", ["0x" + ME.hex(), "latest"])
        assert int(count, 16) == 2, "an approval and a transfer"
        await explained(tmp_path, one)


async def explained(home: Path, one: Shipment) -> None:
    """The record says why it was moved, as for other policies."""
    (record,) = (home / "records").glob("*.fkrec")
    acts = [row for row in RecordReader(record) if isinstance(row, Decided)]
    assert acts[0].desk == "funds"
    run = partial(CliRunner().invoke, app, ["policy", "explain", one.task.hex(), str(record)])
    done = await trio.to_thread.run_sync(run)
    assert done.exit_code == 0, done.output
    assert "is 300000000 short" in done.output.replace("\n", " ")
    assert load(home / "network.json").chain(HOME).tokens
