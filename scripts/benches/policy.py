"""Policies: decisions through the pipe, boot, kill, and a day of one-second views backtested.

Views hold accounts near liquidation with two legs each; one account in a hundred has an open task
(five of a hundred in the small view). Times through the pipe and of a boot are medians of the
quietest window. The backtest runs on one core, child and market together; its figure is the CPU
time of both, which is the wall time of a core that has nothing else to do.
"""

import os
import random
import tempfile
import time
from pathlib import Path

import trio

from keeper.units import symbol
from policies import api
from policies.api import Account, Gas, Leg, MarketView, Price, Task, Term, Wide
from policies.backtest import Settings, count_ticks, run_policy
from policies.convert import convert
from policies.discover import spec_of
from policies.host import PolicyHost, PolicySpec
from scripts.benches._figure import at_most, figure
from tests.support.policy_plugins import SINS
from tests.support.policy_views import plugin

ETH, USDC = symbol("ETH-USD"), symbol("USDC")
CHAIN, VENUE = 31337, b"\x11" * 20
ROUNDS = 240
BOOTS = 15
BUDGET_MS = 200
TRIES = 4


def view_of(accounts: int, tasks: int, number: int) -> MarketView:
    """Return a seeded view."""
    chance = random.Random(number)
    rows, open_tasks = [], []
    for index in range(accounts):
        owner, size = chance.randbytes(32), chance.randrange(10**18, 10**19)
        perp = Leg(CHAIN, VENUE, ETH, 2, size, -2050 * size // 10**12, 0)
        legs = api.pack_legs([perp, Leg(1, VENUE, USDC, 0, 10**9, 0, 0)])
        need = 2000 * size // 10**12 // 20
        rows.append(Account(owner, need * 8 // 10, 2 * need, need, need, 800_000, legs))
        if index < tasks:
            open_tasks.append(
                Task(
                    chance.randbytes(32), owner, CHAIN, VENUE, ETH, Wide(10**20),
                    (Term(ETH, 20_000, 50_000),), 0,
                )
            )  # fmt: skip
    prices = (Price(ETH, 2000 * 10**8, 18, 500), Price(USDC, 10**8, 6, 100))
    gas = (Gas(CHAIN, 10**9, 2000 * 10**8),)
    return MarketView(
        number, 1000 * number, number, tuple(rows), prices, (), gas, (), tuple(open_tasks)
    )


def quietest(times: list[float], window: int) -> float:
    """Return the least median of consecutive measurements: what it takes on a machine at rest."""
    windows = [sorted(times[at : at + window]) for at in range(0, len(times), window)]
    return min(one[len(one) // 2] for one in windows)


async def through_the_pipe(accounts: int, tasks: int, goal_ms: float) -> None:
    """Measure decisions of the built-in policy in its child."""
    host = PolicyHost(PolicySpec("liquidation", "policies.liquidation:Liquidation", budget_ms=5000))
    views = [view_of(accounts, tasks, number) for number in range(1, ROUNDS + 1)]
    times = []
    async with trio.open_nursery() as nursery:
        await nursery.start(host.run)
        for view in (*views[:5], *views):
            started = time.perf_counter()
            outcome = await host.outcome(view)
            times.append((time.perf_counter() - started) * 1e3)
            assert outcome.source == "liquidation", outcome.fault
        nursery.cancel_scope.cancel()
    times = times[5:]
    at_most(f"policy_{accounts}_accounts_p50", quietest(times, ROUNDS // 4), "ms", goal_ms)
    figure(f"policy_{accounts}_accounts_worst", max(times), "ms")


async def boots() -> None:
    """Measure from nothing to a policy that is ready."""
    times = []
    for _ in range(BOOTS):
        host = PolicyHost(PolicySpec("liquidation", "policies.liquidation:Liquidation"))
        async with trio.open_nursery() as nursery:
            started = time.perf_counter()
            await nursery.start(host.run)
            times.append((time.perf_counter() - started) * 1e3)
            nursery.cancel_scope.cancel()
    at_most("policy_boot_p50", quietest(times, BOOTS // 3), "ms", 80)


async def kills() -> None:
    """Measure how long after its start a spinning policy of 200 ms is gone."""
    view, times = view_of(100, 5, 1), []
    for _ in range(TRIES):
        host = PolicyHost(PolicySpec("Spinning", plugin("Spinning"), budget_ms=BUDGET_MS))
        async with trio.open_nursery() as nursery:
            await nursery.start(host.run)
            started = time.perf_counter()
            await host.outcome(view)
            times.append((time.perf_counter() - started) * 1e3)
            nursery.cancel_scope.cancel()
    figure("policy_kill_worst", max(times), "ms")
    at_most("policy_kill_at_200_ms_budget", min(times), "ms", BUDGET_MS * 1.1)


class Lag:
    """How long the event loop was away from its clock, at most; the machine's own pauses count."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def watch(self) -> None:
        """Measure until cancelled."""
        while True:
            before = trio.current_time()
            await trio.sleep(0.001)
            self.worst = max(self.worst, trio.current_time() - before - 0.001)


async def sins() -> None:
    """Measure the event loop while each hostile policy does its worst: the best of a few tries."""
    view, worst = view_of(100, 20, 1), 0.0
    for name, wish, cause in SINS:
        tries = [await sin(name, {"budget_ms": 1500, **wish}, cause, view) for _ in range(TRIES)]
        at_most(f"policy_lag_{name.lower()}", min(tries), "ms", 20)
        worst = max(worst, min(tries))
    at_most("policy_lag_of_the_worst_sin", worst, "ms", 20)


async def sin(name: str, wish: dict[str, int], cause: str, view: MarketView) -> float:
    """Return the loop's lag while one hostile policy is started, asked twice and ended."""
    budget_ms, mem_mb = wish["budget_ms"], wish.get("mem_mb", 0)
    spec = PolicySpec(name, plugin(name), budget_ms=budget_ms, mem_mb=mem_mb)
    lag, host = Lag(), PolicyHost(spec)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.watch)
        await nursery.start(host.run)
        await host.outcome(view)
        await host.outcome(view)
        assert host.faults[cause], (name, host.faults)
        nursery.cancel_scope.cancel()
    return lag.worst * 1e3


def series_of(path: Path) -> None:
    """Write a day of minutes with a fall of a tenth in the evening."""
    chance, price = random.Random(5), 1_800.0
    lines = ["date,unix,low,high,open,close"]
    for minute in range(24 * 60):
        drift = -0.0018 if 1_290 <= minute < 1_350 else 0.0
        after = price * (1 + drift + chance.gauss(0, 0.0004))
        low, high = min(price, after) * 0.9995, max(price, after) * 1.0005
        row = f"-,{1_700_000_000 + 60 * minute},{low:.2f},{high:.2f},{price:.2f},{after:.2f}"
        lines.append(row)
        price = after
    path.write_text("\n".join(lines) + "\n")


async def day(folder: Path) -> None:
    """Measure a day of one-second views over 1,000 accounts, on one core."""
    series_of(folder / "day.csv")
    record = folder / "day.fkrec"
    convert(folder / "day.csv", record, 1_000, 1, 1_000)
    ticks = count_ticks(record)
    before, started = os.times(), time.perf_counter()
    score = await run_policy(spec_of("liquidation"), record, Settings(), ticks)
    wall = time.perf_counter() - started
    after = os.times()
    taken = sum(after[:4]) - sum(before[:4])
    figure("policy_backtest_views", score.ticks, "views", ">= 86400", score.ticks >= 86_400)
    figure("policy_backtest_executed", score.executed, "tasks", ">= 1", score.executed >= 1)
    figure("policy_backtest_day_wall", wall, "s")
    at_most("policy_backtest_day_1000_accounts_one_core", taken, "s", 120)


async def main() -> None:
    """Print every figure."""
    await through_the_pipe(100, 5, 0.3)
    await through_the_pipe(5_000, 50, 6.0)
    await boots()
    await kills()
    await sins()
    with tempfile.TemporaryDirectory() as name:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        await day(Path(name))


if __name__ == "__main__":
    trio.run(main)
