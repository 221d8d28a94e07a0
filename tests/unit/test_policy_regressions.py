"""Defects that other people's bots had, each kept as a test here or where its code lives."""

from pathlib import Path

import msgspec
import pytest
import trio

from keeper.execute.intent import Lane, Mode, Outcome, Status
from keeper.execute.modes import equip
from keeper.units import ChainId
from policies.api import Act, Holding, MarketView, Skip, Task, Term, Wide
from policies.deleverage import task_of
from policies.host import PolicyHost, PolicySpec
from policies.liquidation import Liquidation, LiquidationConfig
from policies.routing import Routing, RoutingConfig
from policies.situations import crash
from tests.support.policy_views import CHAIN, ETH, USDC, market_view, plugin

ROOT = Path(__file__).resolve().parents[2]
change = msgspec.structs.replace

ELSEWHERE: list[tuple[str, str, str]] = [
    (
        "fifty concurrent sends take fifty nonces",
        "tests/integration/test_execute_anvil.py",
        "test_fifty_concurrent_sends_take_fifty_nonces",
    ),
    (
        "a reverted receipt is not success",
        "tests/simulation/test_execute_lanes.py",
        "test_a_reverted_receipt_is_no_success",
    ),
    (
        "restart between sign and send, send and receipt",
        "tests/integration/test_execute_crash.py",
        "test_sigkill_at_every_step",
    ),
    (
        "urgent is not delayed by stuck housekeeping",
        "tests/simulation/test_execute_lanes.py",
        "test_stuck_housekeeping_does_not_delay_an_urgent_one",
    ),
    (
        "zero bids meet a reserve",
        "tests/unit/test_compete_award.py",
        "test_below_the_reserve_nobody_wins",
    ),
    (
        "frames split anywhere still parse",
        "tests/integration/test_policy_host.py",
        "test_frames_split_anywhere_parse",
    ),
]


@pytest.mark.parametrize(("defect", "file", "name"), ELSEWHERE, ids=[x[0] for x in ELSEWHERE])
def test_it_is_held_where_its_code_lives(defect: str, file: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / file).read_text(), defect


def test_repeat_events_for_one_account_are_checked_again() -> None:
    policy, state = Liquidation(), b""
    view = market_view(1, accounts=1)
    sizes = []
    for equity_ppm in (900_000, 700_000, 500_000):
        account = view.accounts[0]
        sicker = change(account, equity=account.requirement * equity_ppm // 1_000_000)
        (found,), state = policy.decide(change(view, accounts=(sicker,)), state)
        assert isinstance(found, Act)
        sizes.append(found.size)
    assert sizes == sorted(set(sizes)), "the same task is sized anew, not remembered"


def test_duplicate_tasks_are_suppressed() -> None:
    view = market_view(1, accounts=3)
    once, _ = Liquidation().decide(view, b"")
    twice, _ = Liquidation().decide(change(view, tasks=view.tasks + view.tasks), b"")
    assert list(once) == list(twice)
    assert len({one.task for one in twice}) == 3
    assert task_of(b"a") == task_of(b"a"), "one reduction per account is open at a time"


def test_a_reverted_outcome_never_counts_as_done() -> None:
    assert not Outcome(b"k", Status.REVERTED).succeeded
    assert not Outcome(b"k", Status.SUPERSEDED).succeeded


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.SHADOW, Mode.DRY])
def test_no_signer_is_made_outside_live_mode(mode: Mode) -> None:
    def key() -> bytes:
        raise AssertionError("a key was asked for")

    assert not equip(mode, {(ChainId(1), Lane.URGENT): key}).sends


async def test_a_transient_error_does_not_use_up_a_cooldown() -> None:
    config = {"max_volume": 10**12, "window_ms": 60_000}
    spec = PolicySpec("liquidation", "policies.liquidation:Liquidation", config, budget_ms=5_000)
    host = PolicyHost(spec)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        first = await host.outcome(market_view(1, accounts=2))
        await host.kill("transient")
        failed = await host.outcome(market_view(2, accounts=2))
        assert failed.source == "fallback"
        assert failed.state == first.state, "the volume window is as before the failure"
        await trio.sleep_until(host.quiet_until)
        after = await host.outcome(market_view(2, accounts=2))
        assert after.source == "liquidation"
        nursery.cancel_scope.cancel()
    straight, _ = Liquidation(LiquidationConfig(max_volume=10**12)).decide(
        market_view(2, accounts=2), first.state
    )
    assert after.decisions == tuple(straight)


async def test_a_parameter_change_invalidates_what_was_planned() -> None:
    host = PolicyHost(PolicySpec("Honest", plugin("Honest"), budget_ms=5_000))
    view = market_view(1, accounts=1)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        await host.decide(view)
        assert host.last is not None
        await host.reload({"amount": 9})
        assert host.last is None, "nothing decided under the old settings is left to act on"
        (found,) = await host.decide(view)
        assert isinstance(found, Act)
        assert found.price == 9
        nursery.cancel_scope.cancel()


def test_unreadable_pending_state_blocks_spending() -> None:
    """Funds that cannot be read are no funds; funds on their way are not there yet."""
    view = market_view(1, accounts=1)
    lending = Task(
        b"t" * 32, view.accounts[0].account, CHAIN, view.tasks[0].venue, ETH, Wide(10**20),
        (Term(USDC, 50_000, 800_000),), 0,
    )  # fmt: skip
    debt = change(
        view.accounts[0],
        legs=view.accounts[0].legs.replace(b"\x02" + b"\0" * 8, b"\x01" + b"\0" * 8),
    )
    blind = change(view, accounts=(debt,), tasks=(lending,), inventory=())
    flying = change(blind, inventory=(Holding(CHAIN, ETH, Wide(0), Wide(10**20)),))
    for one in (blind, flying):
        (found,), _ = Liquidation().decide(one, b"")
        assert isinstance(found, Skip)
        assert "no free" in found.why


def test_a_rebalance_waits_while_pending_state_is_unreadable() -> None:
    """A place that cannot be read is left out of a view: nothing moves to it, nor from it."""
    config = RoutingConfig(floor=1_000_000 * 10**6)
    short = crash(30)[-1]

    def moves(view: MarketView) -> int:
        decisions, _ = Routing(config).decide(view, b"")
        return sum(isinstance(one, Act) for one in decisions)

    assert moves(short) == 1
    for blind in (short.inventory[:1], short.inventory[1:]):
        assert moves(change(short, inventory=blind)) == 0
    (spare, low) = short.inventory
    coming = change(low, in_flight=Wide(5_000_000 * 10**6))
    assert moves(change(short, inventory=(spare, coming))) == 0, "what is on its way is counted"


def test_a_bid_below_the_reserve_is_never_made() -> None:
    view = market_view(1, accounts=1)
    (free,), _ = Liquidation().decide(view, b"")
    assert isinstance(free, Act)
    dear = change(view, tasks=(change(view.tasks[0], reserve=free.price + 1),))
    (found,), _ = Liquidation().decide(dear, b"")
    assert isinstance(found, Skip)
    assert "reserve" in found.why


def test_a_missing_price_refuses_instead_of_skipping_the_check() -> None:
    view = market_view(1, accounts=1)
    for prices in ((), view.prices[1:], (change(view.prices[0], price=0), view.prices[1])):
        (found,), _ = Liquidation().decide(change(view, prices=prices), b"")
        assert isinstance(found, Skip)
        assert "no price for ETH-USD" in found.why
