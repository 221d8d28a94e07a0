"""A policy may do anything to itself and nothing to the node."""

import math
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec
import pytest
import trio

from policies.api import Act, Skip
from policies.host import Child, LatestView, PolicyFault, PolicyHost, PolicySpec
from tests.support.policy_plugins import SINS
from tests.support.policy_views import market_view, plugin


@asynccontextmanager
async def running(name: str, **wish: int) -> AsyncIterator[PolicyHost]:
    spec = PolicySpec(
        name,
        name if ":" in name else plugin(name),
        budget_ms=wish.get("budget_ms", 0),
        mem_mb=wish.get("mem_mb", 0),
    )
    host = PolicyHost(spec)
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        yield host
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("name", "wish", "cause"), SINS, ids=[sin[0] for sin in SINS])
async def test_a_sin_is_caught_and_named_and_the_node_unharmed(
    name: str, wish: dict[str, int], cause: str
) -> None:
    view = market_view()
    with trio.fail_after(20):
        async with running(name, **{"budget_ms": 1500, **wish}) as host:
            outcome = await host.outcome(view)
            if outcome.source == name:  # the first call may pass before the sin shows
                outcome = await host.outcome(view)
            assert outcome.source == "fallback"
            assert all(isinstance(one, Skip) for one in outcome.decisions)
            assert len(outcome.decisions) == len(view.tasks)
            assert host.faults[cause] == 1, host.faults
            assert host.last_fault.startswith(cause)
            # whatever it did to itself, the next child decides as if nothing had been
            host.spec = replace(host.spec, target=plugin("Honest"), budget_ms=5_000, mem_mb=0)
            await trio.sleep_until(host.quiet_until)
            assert (await host.outcome(view)).fault == ""


async def test_a_view_that_comes_before_the_host_is_up_waits_for_it() -> None:
    host = PolicyHost(PolicySpec("Honest", plugin("Honest"), budget_ms=2000))
    async with trio.open_nursery() as nursery:
        with trio.fail_after(10):
            nursery.start_soon(host.run)
            outcome = await host.outcome(market_view())
        assert outcome.source == "Honest", outcome.fault
        nursery.cancel_scope.cancel()


async def test_a_killed_policy_leaves_no_process() -> None:
    async with running("Spinning", budget_ms=200) as host:
        child = host.child
        assert child is not None
        await host.outcome(market_view())
        assert child.process.returncode == -signal.SIGKILL
        assert host.child is None
        with pytest.raises(ProcessLookupError):
            os.killpg(child.process.pid, 0)


async def test_prints_neither_corrupt_frames_nor_block() -> None:
    async with running("Printing", budget_ms=3000) as host:
        for number in (1, 2, 3):
            outcome = await host.outcome(market_view(number))
            assert outcome.source == "Printing", outcome.fault
        assert b"xxx" in host.prints


async def test_modules_may_be_imported_while_deciding() -> None:
    async with running("Alarmed", budget_ms=3000) as host:
        outcome = await host.outcome(market_view())
        assert outcome.source == "Alarmed", outcome.fault


async def test_state_survives_a_restart_and_backoff_ends() -> None:
    async with running("Carried", budget_ms=2000) as host:
        outcomes = [await host.outcome(market_view()) for _ in range(3)]
        assert outcomes[-1].state == (3).to_bytes(8, "big")
        await host.kill("test")
        assert (await host.outcome(market_view())).fault.startswith("quiet")
        await trio.sleep_until(host.quiet_until)
        outcome = await host.outcome(market_view())
        assert outcome.source == "Carried"
        assert outcome.state == (4).to_bytes(8, "big")


async def test_three_faults_in_a_minute_break_the_circuit() -> None:
    async with running("Crashing", budget_ms=2000) as host:
        for _ in range(3):
            await trio.sleep_until(host.quiet_until)
            await host.outcome(market_view())
        assert host.broken
        assert host.faults["exception"] == 3
        outcome = await host.outcome(market_view())
        assert "circuit broken" in outcome.fault
        assert host.faults["exception"] == 3


async def test_a_hot_reload_replays_both_and_swaps() -> None:
    async with running("Honest", budget_ms=2000) as host:
        for number in range(1, 6):
            await host.decide(market_view(number))
        report = await host.reload({"amount": 7})
        assert (report.compared, report.differ, report.swapped) == (5, 5, True)
        act = (await host.decide(market_view()))[0]
        assert isinstance(act, Act)
        assert act.price == 7
        refused = await host.reload({"amount": "seven"})
        assert not refused.swapped
        assert "schema" in refused.fault
        assert (await host.outcome(market_view())).source == "Honest"


async def test_an_oversized_view_is_refused_before_it_blocks_the_loop() -> None:
    view = market_view(accounts=1)
    big = type(view)(view.view, view.now_ms, view.seed, view.accounts * 20_001)
    async with running("Honest") as host:
        outcome = await host.outcome(big)
    assert outcome.fault.startswith("oversize")


async def test_a_number_no_frame_can_hold_is_answered_by_the_fall_back() -> None:
    view = market_view(accounts=1)
    huge = msgspec.structs.replace(view, bond_free=1 << 70)
    async with running("Honest", budget_ms=2000) as host:
        outcome = await host.outcome(huge)
        assert outcome.source == "fallback"
        assert outcome.fault.startswith("oversize")
        assert not host.faults, "the policy did nothing"
        assert (await host.outcome(view)).source == "Honest"


async def test_frames_split_anywhere_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running("Honest", budget_ms=5000) as host:
        child = host.child
        assert child is not None
        read = os.read
        monkeypatch.setattr("policies.child.os.read", lambda fd, _limit: read(fd, 1))
        outcome = await host.outcome(market_view(accounts=3))
        assert outcome.source == "Honest", outcome.fault


async def test_the_feed_keeps_the_latest_view_only() -> None:
    feed = LatestView()
    for number in (1, 2, 3):
        feed.put(market_view(number, accounts=1))
    assert (await feed.get()).view == 3
    assert feed.conflated == 2
    with trio.move_on_after(0.01) as scope:
        await feed.get()
    assert scope.cancelled_caught


async def test_an_unknown_plug_in_is_a_fault_with_its_name() -> None:
    with pytest.raises(PolicyFault, match="No module named 'nowhere'"):
        await Child.open(PolicySpec("x", "nowhere:X"), 256, math.pi)
