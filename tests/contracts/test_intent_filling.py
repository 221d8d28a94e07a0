"""Orders as a filler sees them, and a filler at work on the real settlers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio

from keeper.execute.intent import Intent, Lane, Outcome, Status
from keeper.hashing import keccak
from keeper.intent.order import word
from keeper.legs import Leg, LegKind
from keeper.margin.engine import Engine
from keeper.margin.marks import Marks
from keeper.metrics import Metrics
from keeper.parameters import Parameters
from keeper.settle.filler import TURN_MS, Filler, Turns
from keeper.settle.filling import Deliverable, deliverable, needed_ms, orders_of
from keeper.snapshot.decisions import Price
from keeper.snapshot.derive import Snapshot
from keeper.units import ChainId, symbol
from keeper.venue.port import Call
from policies import api
from policies.api import MarketView
from policies.filling import Filling, FillingConfig
from policies.host import Outcome as Decided
from tests.contracts.test_intent_settlement import bring_all, fill, opened, wanted
from tests.support.contracts import World
from tests.support.flow_net import FIRST, LAG, PURSE, Net, rolled_back, small_world

USDC, ETH = symbol("USDC"), symbol("ETH-USD")
USD = 10**6


@pytest.fixture(scope="module")
def deployed() -> list[World]:
    return [small_world(FIRST + at) for at in range(3)]


@pytest.fixture
def net(deployed: list[World]) -> Iterator[Net]:
    with rolled_back(deployed):
        yield Net(deployed)


def seen(net: Net) -> list[Deliverable]:
    return list(deliverable(net.spec, net.records()))


def test_what_is_delivered_by_its_calls_is_paid(net: Net) -> None:
    resolved = opened(net, wanted(net))
    (one,) = seen(net)
    assert (one.open.id, one.given, one.asked) == (resolved.order_id, USDC, USDC)
    for call in one.calls(net.worlds[0].actor("dave")):
        net.do(call, "bob")
    assert seen(net) == []  # delivered, and not closed yet
    assert bring_all(net) == ["Filled"]
    assert net.held(0, "dave") == PURSE + 100
    assert [net.held(1, who) for who in ("bob", "carol")] == [PURSE - 90, PURSE + 90]
    assert net.conserved()


@pytest.mark.parametrize(
    "changes",
    [
        {"destination_chain": 5},
        {"destination_settler": word(b"\x01" * 20)},
        {"output_token": word(b"\x02" * 20)},
        {"output_token": b"\x03" * 32},
        {"vault": word(b"\x04" * 20)},
    ],
    ids=["chain", "settler", "token", "no address", "vault"],
)
def test_what_no_keeper_could_deliver_is_not_shown(net: Net, changes: dict[str, Any]) -> None:
    opened(net, wanted(net, **changes))
    assert seen(net) == []


def test_a_false_delivery_hides_nothing(net: Net) -> None:
    order = wanted(net)
    resolved = opened(net, order)
    fill(net, resolved, replace(order, output_amount=1).origin_data(resolved.fill_deadline))
    assert [one.open.id for one in seen(net)] == [resolved.order_id]


def test_those_that_give_most_are_shown_first(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keeper.settle.filling.MAX_ORDERS", 2)
    for nonce, amount in enumerate((5, 7, 6)):
        opened(net, wanted(net, input_amount=amount * 10), nonce=nonce)
    found = {one.open.id: one for one in seen(net)}
    prices = {USDC: Price(USDC, 10**8, False)}
    snapshot = replace(net.snapshot, book=replace(net.snapshot.book, prices=prices))
    parameters = Parameters.devnet([FIRST, FIRST + 1])
    shown = orders_of(net.spec, parameters, snapshot, found, {})
    assert sorted(one.given_amount for one in shown) == [60, 70]
    assert [one.order for one in shown] == sorted(one.order for one in shown)


# --- what an account needs


def needed(net: Net, dollars: int, delivered: int, **order: Any) -> int:
    """Return until when an account needs a delivery: long 1 ETH at 2,000, and some dollars."""
    chains = [ChainId(FIRST), ChainId(FIRST + 1)]
    parameters = Parameters.devnet(chains)
    account, vault = keccak(b"account"), b"\x07" * 20
    legs = (
        Leg(chains[0], vault, USDC, LegKind.COLLATERAL, dollars * USD, 0),
        Leg(chains[1], b"\x08" * 20, ETH, LegKind.PERP, 10**8, -2_000 * USD),
    )
    prices = {USDC: 10**8, ETH: 2_000 * 10**8}
    engine = Engine(Marks(prices, {}, parameters.margin, dict.fromkeys(chains, 0)))
    margins = {account: engine.margin(engine.rows(legs))}
    opened(net, wanted(net, output_amount=delivered * USD))
    (one,) = seen(net)
    terms = {"recipient": account, "vault": word(vault), **order}
    one = replace(one, order=replace(one.order, **terms))
    snapshot = replace(net.snapshot, margins=margins, legs={account: legs})
    return needed_ms(parameters, snapshot, prices, one, 1_000_000)


def test_an_account_near_its_limit_needs_what_lifts_it_in_time(net: Net) -> None:
    assert needed(net, 120, 100) >= 1_000_000


def test_who_is_well_needs_nothing(net: Net) -> None:
    assert needed(net, 1_000, 100) == 0


def test_too_little_is_no_rescue(net: Net) -> None:
    assert needed(net, 50, 1) == 0


def test_what_goes_elsewhere_is_no_rescue(net: Net) -> None:
    assert needed(net, 120, 100, recipient=keccak(b"other")) == 0


# --- the filler


@dataclass
class Bank:
    """The parts of a node around a filler, on a net: every transaction is bob's."""

    net: Net
    sent: list[Intent] = field(default_factory=list)
    fail: Status | None = None

    async def submit(self, intent: Intent, *, settled: bool = True) -> Outcome:
        assert not settled
        assert intent.lane is Lane.SETTLEMENT
        await trio.lowlevel.checkpoint()
        self.sent.append(intent)
        if self.fail is not None:
            return Outcome(intent.key, self.fail)
        self.net.do(Call(intent.chain, intent.to, intent.data), "bob")
        return Outcome(intent.key, Status.SUCCEEDED)


@dataclass
class Seen:
    """One chain as a watcher shows it."""

    net: Net
    place: int

    @property
    def index(self) -> "Seen":
        return self

    @property
    def chain(self) -> "Seen":
        return self

    def at(self, number: int, block: bytes, root: bytes) -> Any:
        found = [one for one in self.net.blocks[self.place] if one.hash == block]
        return found[0].table if found else None

    async def head(self) -> "Seen":
        return self

    @property
    def ref(self) -> None:
        return None

    async def call(self, to: bytes, data: bytes, at: Any) -> bytes:
        who = data[-20:]
        world = self.net.worlds[self.place]
        return int(world.call("DevToken", "balanceOf", who).value).to_bytes(32, "big")


class Host:
    """A host that asks the policy in this process."""

    def __init__(self, config: FillingConfig) -> None:
        self.policy, self.views = Filling(config), list[MarketView]()

    async def run(self) -> None:
        await trio.sleep_forever()

    async def decide(self, view: MarketView) -> Decided:
        self.views.append(view)
        decisions, state = self.policy.decide(view, b"")
        return Decided(view.view, tuple(decisions), state, "filling", "", 0)


FREE = FillingConfig(
    least_profit=0, least_profit_ppm=0, return_ppm=0, holding_ppm_per_day=0, gas_units=21_000
)


def make_filler(net: Net, bank: Bank, host: Host, turns: Turns) -> Filler:
    chains: Sequence[ChainId] = [spec.id for spec in net.spec.chains]
    watchers: Any = {chain: Seen(net, at) for at, chain in enumerate(chains)}
    executor: Any = bank
    policy: Any = host
    bob = net.worlds[0].actor("bob")
    parameters = Parameters.devnet(chains)

    def show(snapshot: Snapshot) -> MarketView:
        return MarketView(
            view=snapshot.header.view,
            now_ms=net.spec.genesis_time_ms + snapshot.header.tick * net.spec.tick_ms,
            seed=1,
            prices=(api.Price(USDC, 10**8, 6, 0),),
            gas=tuple(api.Gas(chain, 10**9, 3_000 * 10**8) for chain in chains),
        )

    return Filler(net.spec, parameters, executor, watchers, policy, show, bob, turns, Metrics())


async def follow(net: Net, filler: Filler, views: int = 1) -> None:
    """Let a filler see some views, and finish what it starts."""
    for _ in range(views):
        net.mine()
        net.view()
        filler.on_final(net.snapshot)
        await trio.testing.wait_all_tasks_blocked()


def rich(net: Net) -> None:
    """Give alice and bob enough for an order that pays its gas."""
    for world in net.worlds:
        for who in ("alice", "bob"):
            world.call("DevToken", "mint", world.actor(who), 1_000 * USD)


async def test_a_filler_delivers_once_and_is_paid(net: Net) -> None:
    rich(net)
    resolved = opened(net, wanted(net, input_amount=100 * USD, output_amount=99 * USD))
    bank, host = Bank(net), Host(FREE)
    filler = make_filler(net, bank, host, Turns(0, 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(filler.run)
        await follow(net, filler, LAG + 2)  # the order is final in the second view
        assert [intent.to for intent in bank.sent] == [
            net.worlds[1].at["DevToken"],
            net.worlds[1].at["Intents"],
        ]
        await follow(net, filler, LAG + 3)
        assert len(bank.sent) == 2  # it is open until the delivery is final, and not done again
        nursery.cancel_scope.cancel()
    assert net.held(1, "carol") == PURSE + 99 * USD
    (made,) = net.outstanding()
    assert (made.kind, made.fields[0]) == ("Filled", resolved.order_id)
    net.bring(made)
    assert net.held(0, "bob") == PURSE + 1_100 * USD


async def test_a_policy_that_repeats_itself_delivers_once(net: Net) -> None:
    rich(net)
    opened(net, wanted(net, input_amount=100 * USD, output_amount=99 * USD))
    bank, host = Bank(net), Host(FREE)
    said = host.policy.decide
    host.policy.decide = lambda view, state: (2 * said(view, state)[0], b"")
    filler = make_filler(net, bank, host, Turns(0, 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(filler.run)
        await follow(net, filler, LAG + 3)
        nursery.cancel_scope.cancel()
    assert len(bank.sent) == 2


async def test_members_take_turns(net: Net) -> None:
    rich(net)
    resolved = opened(net, wanted(net, input_amount=100 * USD, output_amount=99 * USD))
    first = int.from_bytes(resolved.order_id[:4], "big") % 4
    bank, host = Bank(net), Host(FREE)
    filler = make_filler(net, bank, host, Turns((first + 1) % 4, 4))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(filler.run)
        await follow(net, filler, LAG + 2)
        assert bank.sent == []
        (order,) = host.views[0].orders
        assert order.turn_ms == host.views[0].now_ms + TURN_MS
        net.tick += TURN_MS // net.spec.tick_ms
        await follow(net, filler)
        assert len(bank.sent) == 2
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_approved_is_not_filled_nor_tried_for_ever(net: Net) -> None:
    rich(net)
    opened(net, wanted(net, input_amount=100 * USD, output_amount=99 * USD))
    bank = Bank(net, fail=Status.REVERTED)
    filler = make_filler(net, bank, Host(FREE), Turns(0, 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(filler.run)
        await follow(net, filler, LAG + 4)
        nursery.cancel_scope.cancel()
    assert len(bank.sent) == 1


async def test_what_others_of_this_keeper_are_about_to_take_is_not_spent(net: Net) -> None:
    rich(net)
    opened(net, wanted(net, input_amount=100 * USD, output_amount=99 * USD))
    bank, host, place = Bank(net), Host(FREE), (net.worlds[1].chain, USDC)
    leaving = {place: net.held(1, "bob") - 98 * USD}
    filler = make_filler(net, bank, host, Turns(0, 1))
    filler.spoken_for = lambda: leaving
    async with trio.open_nursery() as nursery:
        nursery.start_soon(filler.run)
        await follow(net, filler, LAG + 2)
        assert bank.sent == []
        assert host.views[0].inventory[0].reserved == leaving[place]
        leaving[place] -= USD
        await follow(net, filler)
        assert len(bank.sent) == 2
        nursery.cancel_scope.cancel()


async def test_funds_are_read_from_the_chain_and_bound_what_is_taken(net: Net) -> None:
    rich(net)
    for nonce in range(2):
        opened(net, wanted(net, input_amount=100 * USD, output_amount=99 * USD), nonce=nonce)
    world = net.worlds[1]
    spare = net.held(1, "bob") - 150 * USD  # enough for one of them
    world.call("DevToken", "transfer", world.actor("dave"), spare, sender="bob")
    bank, host = Bank(net), Host(FREE)
    filler = make_filler(net, bank, host, Turns(0, 1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(filler.run)
        await follow(net, filler, LAG + 4)
        nursery.cancel_scope.cancel()
    assert len(bank.sent) == 2
    (holding,) = host.views[0].inventory
    assert (holding.chain, holding.available) == (world.chain, 150 * USD)
