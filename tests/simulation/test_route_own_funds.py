"""A node's own funds over a warp route in memory: what runs short is filled, once, whatever breaks.

    a place runs short ─▶ policy ─▶ permit ─▶ shipment ─▶ executor ─▶ a stranger delivers ─▶ ARRIVED

The chains, the adapter, the executor and the store are those of the node; the contracts are Python.
"""

import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from msgspec import structs
from typer.testing import CliRunner

from keeper import config
from keeper.chain.port import Chain
from keeper.chain.simulated import Reverted
from keeper.cli.route import app
from keeper.config import RoutingLimits
from keeper.devnet.chains import mnemonic_key
from keeper.errors import RemoteFault
from keeper.execute.fees import Schedule
from keeper.execute.intent import Lane, Mode
from keeper.execute.intent import State as Task
from keeper.execute.ledger import Change, Ledger
from keeper.execute.service import Executor
from keeper.execute.signer import Signer
from keeper.metrics import Metrics
from keeper.node.routing import RoutingWork
from keeper.reasons import Reason
from keeper.route.shipment_book import ShipmentBook
from keeper.route.shipments import Shipment, State
from keeper.route.traffic import Traffic
from keeper.store import Store
from keeper.venue.abi import calldata
from policies import api
from policies.host import Outcome
from policies.routing import Routing, RoutingConfig
from tests.support.warp_world import AWAY, ENDS, HOME, USDC, WarpWorld

SECRET = mnemonic_key(0)
ME = Signer(SECRET).address
USD = 10**6
FLOOR = 300 * USD
WIDE = RoutingLimits(transfer_usd=10_000, window_usd=50_000)
PATIENT = {lane: Schedule(patience=10_000) for lane in Lane}
VIEW = api.MarketView(
    view=1, now_ms=1_000, seed=1, prices=(api.Price(USDC, 10**8, 6, 0),),
    gas=(api.Gas(HOME, 10**9, 2_000 * 10**8), api.Gas(AWAY, 10**9, 2_000 * 10**8)),
)  # fmt: skip


class Died(BaseException):
    """The process was killed here."""


@dataclass
class Fuse:
    """Ends the process at one step; None: never."""

    left: int | None = None
    names: list[str] = field(default_factory=list)

    def step(self, name: str) -> None:
        self.names.append(name)
        if self.left == 0:
            raise Died(name)
        if self.left is not None:
            self.left -= 1


class FusedLedger(Ledger):
    fuse: Fuse

    def apply(self, changes: Iterable[Change], at: int) -> None:
        listed = list(changes)
        name = ",".join(str(getattr(one, "state", type(one).__name__)) for one in listed)
        self.fuse.step(f"before {name}")
        super().apply(listed, at)
        self.fuse.step(f"after {name}")


class FusedBook(ShipmentBook):
    fuse: Fuse

    def put(self, *shipments: Shipment) -> None:
        name = ",".join(one.state.value for one in shipments)
        self.fuse.step(f"before {name}")
        super().put(*shipments)
        self.fuse.step(f"after {name}")


@dataclass
class Fixed:
    """The built-in policy, in this process; it remembers what it was shown."""

    config: RoutingConfig = field(default_factory=lambda: RoutingConfig(floor=FLOOR))
    state: bytes = b""
    views: list[api.MarketView] = field(default_factory=list)
    acts: int = 0
    greedy: bool = False

    async def run(self) -> None:
        await trio.sleep_forever()

    async def decide(self, view: api.MarketView) -> Outcome:
        self.views.append(view)
        if self.greedy:
            rows = tuple(structs.replace(one, capacity=api.Wide(10**12)) for one in view.bridges)
            view = structs.replace(view, bridges=rows)
        decisions, self.state = Routing(self.config).decide(view, self.state)
        self.acts += sum(isinstance(one, api.Act) for one in decisions)
        return Outcome(view.view, tuple(decisions), self.state, "policy", "", 0)


@dataclass
class Node:
    """One life of the process."""

    world: WarpWorld
    router: RoutingWork
    policy: Fixed
    ledger: Ledger
    executor: Executor
    nursery: trio.Nursery
    metrics: Metrics

    async def round(self, clock: "Clock", seconds: float = 5.0, deliver: bool = False) -> None:
        """Mine a block, let the lanes work, and let the router look and decide once."""
        self.world.mine()
        clock.now += seconds
        if deliver:
            await self.world.deliver()
        await self.settle()
        self.router.on_final(None)  # type: ignore[arg-type]  # `show` does not look at it
        self.router._newest = self.router._newest or object()  # type: ignore[assignment]
        await self.router._round(self.nursery)
        await self.settle()

    async def settle(self) -> None:
        """Let the lanes work until nothing can happen before another block."""
        with trio.fail_after(20):
            while not self.quiet():
                for lane in self.executor._lanes.values():
                    lane.wake.set()
                await trio.lowlevel.checkpoint()

    def quiet(self) -> bool:
        for chain in self.world.chains.values():
            mined = {name: one for block in chain._blocks for name, one in block.receipts.items()}
            final = len(chain._blocks) - 1 - 2
            for task in self.ledger.open_tasks(chain.id, Lane.SETTLEMENT):
                found = [mined[each.hash] for each in task.attempts if each.hash in mined]
                seen = task.state is Task.MINED and found and found[0].block.number > final
                if not (seen or (task.state is Task.SENT and not found)):
                    return False
        follower = self.router.follower
        for one in follower.shipments:
            if one.id in follower._sending:
                main = self.ledger.task(one.main_key) or self.ledger.task(one.key(0, last=False))
                if main is None or main.state is not Task.SENT:
                    return False
        return True

    @property
    def shipments(self) -> tuple[Shipment, ...]:
        return self.router.follower.shipments

    def stock(self, chain: int) -> api.Holding:
        return next(row for row in self.policy.views[-1].inventory if row.chain == chain)


@dataclass
class Clock:
    now: float = 1_000.0


@asynccontextmanager
async def life(
    world: WarpWorld,
    path: Path,
    clock: Clock,
    fuse: Fuse | None = None,
    mode: Mode = Mode.LIVE,
    limits: RoutingLimits = WIDE,
    chains: dict[Any, Chain] | None = None,
) -> AsyncIterator[Node]:
    """Start the process from its store."""
    store, metrics, policy = Store(path / "keeper.db"), Metrics(), Fixed()
    ledger, book = FusedLedger(store), FusedBook(store)
    ledger.fuse = book.fuse = fuse or Fuse()
    ports: dict[Any, Chain] = dict(world.chains) if chains is None else chains
    keys = {(chain, Lane.SETTLEMENT): lambda: SECRET for chain in world.chains}
    executor = Executor(ledger, ports, mode, keys, schedules=PATIENT, poll_s=60)
    router = RoutingWork(
        world.network, executor, ports, [world.route], policy, lambda _: VIEW, ME, limits, book,
        dict, Traffic(), metrics, clock=lambda: clock.now,
    )  # fmt: skip
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(executor.run)
            yield Node(world, router, policy, ledger, executor, nursery, metrics)
            nursery.cancel_scope.cancel()
    finally:
        store.close()


def short(amount: int = 1_000 * USD) -> WarpWorld:
    """Funds at home, none away."""
    world = WarpWorld()
    world.mine(3)
    world.fund(HOME, ME, amount)
    world.fund(AWAY, ME, 0)
    world.mine(3)
    return world


async def ended(node: Node, clock: Clock, rounds: int = 40) -> None:
    """Go on, with a stranger who delivers, until nothing is under way and nothing is wanted."""
    for _ in range(rounds):
        await node.round(clock, deliver=True)
        if not any(one.open for one in node.shipments) and node.stock(AWAY).available >= FLOOR:
            return
    raise AssertionError([(one.state, one.why) for one in node.shipments])


async def test_a_place_that_runs_short_is_filled_once(tmp_path: Path) -> None:
    world, clock = short(), Clock()
    async with life(world, tmp_path, clock) as node:
        await node.round(clock)
        (one,) = node.shipments
        assert (one.state, one.amount) == (State.WANTED, FLOOR)
        assert node.router.follower.leaving() == {(HOME, USDC): FLOOR}, "nobody else may spend it"
        for _ in range(6):
            await node.round(clock)
            home, away = node.stock(HOME), node.stock(AWAY)
            assert (home.available, away.in_flight) == (700 * USD, FLOOR), "counted once, always"
        (one,) = node.shipments
        assert (one.state, one.left_ms > 0) == (State.SENT, True)
        assert node.router.follower.leaving() == {}
        assert len(await world.dispatched(HOME)) == 1
        assert node.policy.acts == 1
        await world.deliver()
        await node.round(clock)
        assert (node.stock(AWAY).available, node.stock(AWAY).in_flight) == (FLOOR, 0)
        assert node.shipments[0].open, "its arrival is not final yet"
        await ended(node, clock)
        (one,) = node.shipments
        assert (one.state, one.timed) == (State.ARRIVED, True)
        told = [row for view in node.policy.views for row in view.inventory if row.own]
        assert [(row.chain, row.own) for row in told] == [(HOME, -FLOOR), (AWAY, FLOOR)]
        assert node.policy.views[0].inventory[0].own is None, "the first view knows nothing before"
        assert one.ended_ms - one.left_ms >= 30_000
        assert world.held(HOME, ME) + world.held(AWAY, ME) == 1_000 * USD
        (row,) = node.router.status()["shipments"]
        assert (row["state"], row["trouble"], row["age_s"]) == ("arrived", "", None)
        assert node.metrics.registry.get_sample_value(
            "keeper_shipments_total", {"state": "arrived"}
        ) == 1  # fmt: skip


async def lives(world: WarpWorld, path: Path, clock: Clock, fuse: Fuse) -> bool:
    """Run until the end or until the fuse; return whether it reached the end."""
    try:
        async with life(world, path, clock, fuse) as node:
            await ended(node, clock)
    except BaseException as error:
        if not _killed(error):
            raise
        return False
    return True


def _killed(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_killed(one) for one in error.exceptions)
    return isinstance(error, Died | trio.Cancelled)


async def test_a_kill_at_every_step_sends_nothing_twice(tmp_path: Path) -> None:
    names: list[str] = []
    for step in range(80):
        world, clock, path = short(), Clock(), tmp_path / str(step)
        path.mkdir()
        fuse = Fuse(step)
        done = await lives(world, path, clock, fuse)
        if done:
            break
        names.append(fuse.names[-1])
        clock.now += 20
        assert await lives(world, path, clock, Fuse())
        sent = await world.dispatched(HOME)
        assert len(sent) == 1, names[-1]
        assert (world.held(HOME, ME), world.held(AWAY, ME)) == (700 * USD, FLOOR)
    else:
        pytest.fail("it never finished")
    for wanted in ("wanted", "sent", "arrived", "Planned", "Signed", "mined", "final"):
        assert {f"before {wanted}", f"after {wanted}"} <= set(names), names
    assert names.index("after wanted") < names.index("before Planned"), "on disk before it is sent"


class Forgetful(FusedBook):
    """The control: it remembers nothing over a restart."""

    def all(self) -> list[Shipment]:
        return []


async def test_without_its_book_a_node_sends_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, clock = short(), Clock()
    async with life(world, tmp_path, clock) as node:
        while not await world.dispatched(HOME):
            await node.round(clock)
    monkeypatch.setattr(f"{__name__}.FusedBook", Forgetful)
    async with life(world, tmp_path, clock) as node:
        for _ in range(4):
            await node.round(clock)
    assert len(await world.dispatched(HOME)) == 2


async def test_what_an_origins_reorganisation_takes_back_is_not_in_flight(tmp_path: Path) -> None:
    world, clock = short(), Clock()
    async with life(world, tmp_path, clock) as node:
        home = world.chains[HOME]
        while not await world.dispatched(HOME):
            await node.round(clock)
        home.contracts[ENDS[HOME].router] = _closed(home.contracts[ENDS[HOME].router])
        home.reorg(1)
        home.forget()
        assert await world.dispatched(HOME) == []
        for _ in range(60):  # until its deadline: the executor brings the same bytes again
            await node.round(clock)
            if not node.shipments[0].open:
                break
        assert node.shipments[0].state is State.DROPPED
        assert (node.stock(HOME).available, node.stock(AWAY).in_flight) == (1_000 * USD, 0)
        told = [row for view in node.policy.views for row in view.inventory if row.own]
        assert [(row.chain, int(row.own or 0)) for row in told] == [(HOME, -FLOOR), (HOME, FLOOR)]
        home.contracts[ENDS[HOME].router] = world._router(ENDS[HOME])
        clock.now += 60
        await ended(node, clock)
        assert [one.state for one in node.shipments][-1] is State.ARRIVED
        assert world.held(AWAY, ME) >= FLOOR
        assert len(await world.dispatched(HOME)) == sum(
            one.state is State.ARRIVED for one in node.shipments
        )


def _closed(router: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """A router that takes no transfer."""

    def run(frame: Any) -> bytes:
        if (
            frame.call.data[:4]
            == calldata("transferRemote(uint32,bytes32,uint256)", 1, bytes(32), 1)[:4]
        ):
            raise Reverted
        return router(frame)

    return run


async def test_one_that_is_late_is_told_and_stays_in_flight(tmp_path: Path) -> None:
    world, clock = short(), Clock()
    async with life(world, tmp_path, clock) as node:
        for _ in range(6):
            await node.round(clock)
        assert node.router.status()["shipments"][0]["trouble"] == ""
        await node.round(clock, seconds=240)
        (row,) = node.router.status()["shipments"]
        assert "more than 4 times its usual most" in row["trouble"]
        assert node.metrics.registry.get_sample_value("keeper_shipments_late") == 1
        for _ in range(3):
            await node.round(clock)
        assert (node.policy.acts, int(node.stock(AWAY).in_flight)) == (1, FLOOR)
        assert node.policy.views[-1].bridges == ()
    async with life(world, tmp_path, clock) as node:  # and after a restart
        await node.round(clock)
        assert (node.policy.acts, int(node.stock(AWAY).in_flight)) == (0, FLOOR)
        await ended(node, clock)
        assert (node.shipments[0].timed, node.shipments[0].told) == (False, True)
        assert node.metrics.registry.get_sample_value("keeper_shipments_late") == 0


async def test_a_bridge_that_is_not_as_known_is_never_used(tmp_path: Path) -> None:
    world, clock = short(), Clock()
    world.fault = True
    async with life(world, tmp_path, clock) as node:
        for _ in range(3):
            await node.round(clock)
        assert node.policy.views[-1].bridges == ()
        world.fault = False
        await node.round(clock)
        assert node.shipments, "the control: as it should be, it is used"


def command(home: Path, *words: str) -> Any:
    found = CliRunner().invoke(app, [*words, "--home", str(home), "--json"])
    assert found.exit_code == 0, found.exception
    return json.loads(found.output)


async def test_an_operator_can_write_off_what_will_never_end(tmp_path: Path) -> None:
    world, clock = short(), Clock()
    text = config.render(
        mode="live", password_file="", p2p_port=0, bootstrap=(), http_port=1,
        endpoints={HOME: ("http://x",)},
    )  # fmt: skip
    (tmp_path / "keeper.toml").write_text(text)
    async with life(world, tmp_path, clock) as node:
        for _ in range(4):
            await node.round(clock)
        name = node.shipments[0].id.hex()
    refused = CliRunner().invoke(app, ["forget", name, "--home", str(tmp_path)])
    assert "and not late" in str(refused.exception)
    async with life(world, tmp_path, clock) as node:
        await node.round(clock, seconds=300)
    (row,) = command(tmp_path, "shipments", "--open")
    assert (row["state"], row["late"], row["shipment"]) == ("sent", True, name)
    assert command(tmp_path, "forget", name[:8])["state"] == "forgotten"
    assert command(tmp_path, "shipments", "--open") == []
    assert "forgotten" in CliRunner().invoke(app, ["shipments", "--home", str(tmp_path)]).output
    assert "0 shipments" in str(CliRunner().invoke(
        app, ["forget", "ffff", "--home", str(tmp_path)]
    ).exception)  # fmt: skip
    async with life(world, tmp_path, clock) as node:
        await node.round(clock)
        assert node.stock(AWAY).own == 0, "what will not come is no demand"
        assert (node.policy.acts, len(node.policy.views[-1].bridges)) == (1, 2)


@pytest.mark.parametrize("sin", ["divert", "unpaid"])
async def test_funds_that_a_bridge_took_for_itself_are_told(tmp_path: Path, sin: str) -> None:
    world, clock = short(), Clock()
    world.divert = b"\x66" * 20 if sin == "divert" else b""
    world.unpaid = sin == "unpaid"
    async with life(world, tmp_path, clock) as node:
        for _ in range(12):
            await node.round(clock, deliver=True)
        (row,) = node.router.status()["shipments"]
        assert "no log shows" in row["trouble"]
        assert node.shipments[0].open, "its value stays behind that verifier's limit"
        assert len(await world.dispatched(HOME)) == 1, "it is given nothing more"
        assert node.policy.views[-1].bridges == ()
    world.divert, world.unpaid = b"", False
    async with life(world, tmp_path, clock) as node:
        await node.round(clock)
        assert node.policy.views[-1].bridges == (), "nor after a restart"


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.SHADOW, Mode.DRY])
async def test_other_modes_send_nothing(tmp_path: Path, mode: Mode) -> None:
    world, clock = short(), Clock()
    async with life(world, tmp_path, clock, mode=mode) as node:
        for _ in range(3):
            await node.round(clock)
        assert node.shipments == ()
        assert bool(node.policy.acts) is (mode is not Mode.OFF)
    assert await world.dispatched(HOME) == []
    assert world.held(HOME, ME) == 1_000 * USD


class Away:
    """A chain that nobody can ask."""

    id = AWAY

    def __getattr__(self, _: str) -> Any:
        async def ask(*_: object) -> Any:
            raise RemoteFault("endpoint", Reason.ENDPOINT_DOWN)

        return ask


async def test_a_chain_that_is_away_moves_nothing_and_hides_nothing(tmp_path: Path) -> None:
    world, clock = short(), Clock()
    ports: dict[Any, Any] = {HOME: world.chains[HOME], AWAY: world.chains[AWAY]}
    async with life(world, tmp_path, clock, chains=ports) as node:
        for _ in range(6):
            await node.round(clock)
        ports[AWAY] = Away()
        node.router._chains = node.router.follower._chains = ports
        await node.round(clock)
        seen = node.policy.views[-1]
        assert (seen.bridges, [row.chain for row in seen.inventory]) == ((), [HOME])
        assert node.shipments[0].open
        ports[AWAY] = world.chains[AWAY]
        await ended(node, clock)


async def test_what_is_over_a_limit_goes_in_parts(tmp_path: Path) -> None:
    world, clock = short(), Clock()
    tight = RoutingLimits(200, 250, window_s=600, cost_ppm=20_000)
    async with life(world, tmp_path, clock, limits=tight) as node:
        node.policy.config = RoutingConfig(floor=FLOOR, max_cost_ppm=20_000)  # coin weighs more
        for _ in range(8):
            await node.round(clock)
        assert [one.amount for one in node.shipments] == [200 * USD, 50 * USD]
        assert [one.capacity for one in node.policy.views[-1].bridges] == [0, 0]
        assert node.router.status()["refused"] == 0
        await node.round(clock, seconds=600, deliver=True)
        await ended(node, clock)
        assert sum(one.amount for one in node.shipments) == FLOOR


async def test_limits_are_kept_whatever_the_policy_says(tmp_path: Path) -> None:
    world, clock = short(), Clock()
    async with life(world, tmp_path, clock, limits=RoutingLimits(transfer_usd=299)) as node:
        node.policy.greedy = True
        for _ in range(3):
            await node.round(clock)
        assert node.policy.acts == 3
        assert node.shipments == ()
        assert node.router.status()["refused"] == 1
