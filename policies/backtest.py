"""Runs policies over a record of market data, each in a world of its own, against the same rival.

    record ─▶ World.tick ─▶ view ─▶ child process ─▶ Act(price)
                 ▲                                      │ sealed bids, second price
                 └── settle after `delay` ticks ◀── winner (or the rival, or a no-show)

The code that decides is the code that trades: the same child, the same frames. The rival bids a
fixed share of what a close would bring and takes what the policy leaves, so a policy that bids too
little or too late loses tasks, and one that waits for ever does not profit from an empty market.
Regret is measured per task: what its best moment would have brought at the reserve, less what was
earned. Same record, same policy, same settings: same report, byte for byte.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

from keeper.units import PPM
from policies import api
from policies.api import Act, MarketView, Task, Wide
from policies.books import is_lending
from policies.child import Child, PolicyFault, PolicySpec
from policies.market import World
from policies.record import Book, Market, RecordError, RecordReader, decisions_bytes

PATIENCE_S = 5.0
MAX_POINTS = 600
"""Points of a plotted curve: more than a page has pixels helps nobody."""
Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How the world answers.

    Args:
        delay: ticks from bid to execution.
        rival_ppm: share of a close's profit the rival bids; 0 is no rival.
        no_show_ppm: how often an award of the policy is not executed.
        seed: of the no-shows.
    """

    delay: int = 2
    rival_ppm: int = 500_000
    no_show_ppm: int = 0
    seed: int = 1


@dataclass(slots=True)
class Score:
    """What one policy came to, µUSD."""

    policy: str
    ticks: int = 0
    tasks: int = 0
    executed: int = 0
    lost: int = 0
    void: int = 0
    no_shows: int = 0
    volume: int = 0
    gross: int = 0
    paid: int = 0
    net: int = 0
    predicted: int = 0
    bad_debt: int = 0
    worst_bad_debt: int = 0
    max_inventory: int = 0
    regret: int = 0
    decide_p50_us: int = 0
    decide_p99_us: int = 0
    decisions_hash: str = ""
    curves: dict[str, list[int]] = field(default_factory=dict)

    def table(self) -> dict[str, Any]:
        """Return the numbers that follow from record, policy and settings: no curve, no time."""
        row = asdict(self)
        for name in ("curves", "decide_p50_us", "decide_p99_us"):
            del row[name]
        return row


@dataclass(slots=True)
class _Pending:
    due: int
    task: Task
    size: int
    price: int
    predicted: int
    ours: bool
    shows: bool


class _Bench:
    """One policy in one world."""

    def __init__(self, name: str, start: MarketView, settings: Settings) -> None:
        self.world = World(start)
        self.score = Score(name, curves={"profit": [], "bad_debt": [], "regret": [], "equity": []})
        self.settings = settings
        self._chance = random.Random(settings.seed)
        self._pending: dict[bytes, _Pending] = {}
        self._best: dict[bytes, int] = {}
        self._earned: dict[bytes, int] = {}
        self._hash = hashlib.blake2b(digest_size=16)
        self.times_us: list[int] = []

    def view(self, at_ms: int, prices: tuple[tuple[bytes, int], ...]) -> MarketView:
        """Settle what is due at the new prices and return what the policy is shown."""
        view = self.world.tick(at_ms, prices)
        self.score.ticks += 1
        due = [one for one in self._pending.values() if one.due <= self.score.ticks]
        for pending in due:
            del self._pending[pending.task.task]
            self._settle(pending)
        if due:
            self.world.number -= 1
            view = self.world.tick(at_ms, prices)
        for task in view.tasks:
            if task.task not in self._best:
                self._best[task.task] = 0
                self.score.tasks += 1
            self._best[task.task] = max(
                self._best[task.task], self.world.best_profit(task) - task.reserve
            )
        open_tasks = tuple(task for task in view.tasks if task.task not in self._pending)
        inventory = tuple(self._held(one) for one in view.inventory)
        self.score.worst_bad_debt = max(self.score.worst_bad_debt, self.world.bad_debt)
        return msgspec.structs.replace(view, tasks=open_tasks, inventory=inventory)

    def _held(self, holding: api.Holding) -> api.Holding:
        """Return a holding less what open awards will repay."""
        reserved = sum(
            one.size
            for one in self._pending.values()
            if one.ours and is_lending(one.task) and one.task.market == holding.asset
        )
        self.score.max_inventory = max(self.score.max_inventory, reserved)
        return msgspec.structs.replace(
            holding, reserved=Wide(min(int(holding.available), reserved))
        )

    def _settle(self, pending: _Pending) -> None:
        score, task = self.score, pending.task
        if not pending.shows:
            score.no_shows += 1
            score.net -= task.lock
            return
        settled = self.world.settle(task, pending.size)
        if settled is None:
            score.void += pending.ours
            return
        if not pending.ours:
            score.lost += 1
            return
        score.executed += 1
        score.volume += settled.volume
        score.gross += settled.profit
        score.paid += pending.price
        score.net += settled.profit - pending.price
        score.predicted += pending.predicted
        self._earned[task.task] = self._earned.get(task.task, 0) + settled.profit - pending.price

    def award(self, view: MarketView, decisions: tuple[api.Decision, ...]) -> None:
        """Let the policy and the rival bid; the better bid is executed later, at second price."""
        self._hash.update(decisions_bytes(decisions))
        acts = {one.task: one for one in decisions if isinstance(one, Act)}
        for task in view.tasks:
            act = acts.get(task.task)
            ours = act.price if act is not None and act.price >= task.reserve else None
            most = self.world.best_profit(task)
            theirs = most * self.settings.rival_ppm // PPM if self.settings.rival_ppm else -1
            rival = theirs if most > 0 and theirs >= task.reserve else None
            due = self.score.ticks + self.settings.delay
            if act is not None and ours is not None and (rival is None or ours >= rival):
                shows = self._chance.randrange(PPM) >= self.settings.no_show_ppm
                price = task.reserve if rival is None else rival
                self._pending[task.task] = _Pending(
                    due, task, int(act.size), price, act.profit - price, True, shows
                )
            elif rival is not None:
                self._pending[task.task] = _Pending(
                    due, task, int(task.max_size), rival, 0, False, True
                )

    def sample(self) -> None:
        """Add a point to the curves."""
        curves = self.score.curves
        curves["profit"].append(self.score.net)
        curves["bad_debt"].append(self.world.bad_debt)
        curves["regret"].append(self._regret())
        curves["equity"].append(self.world.worth())

    def _regret(self) -> int:
        return sum(
            max(0, best - max(0, self._earned.get(task, 0))) for task, best in self._best.items()
        )

    def finish(self) -> Score:
        """Close the books and return the score."""
        score, times = self.score, self.times_us
        score.bad_debt = self.world.bad_debt
        score.regret = self._regret()
        score.decisions_hash = self._hash.hexdigest()
        score.decide_p50_us, score.decide_p99_us = quantile(times, 50), quantile(times, 99)
        return score


def load(path: Path | str) -> tuple[MarketView, Iterator[Market]]:
    """Return the start of a record and its market ticks.

    Raises:
        RecordError: it is damaged, or holds no book to start from.
    """
    entries = iter(RecordReader(path))
    for entry in entries:
        if isinstance(entry, Book):
            return entry.view, (one for one in entries if isinstance(one, Market))
    raise RecordError(f"{path}: holds no book of accounts; make one with `keeper policy convert`")


async def run_policy(
    spec: PolicySpec,
    path: Path | str,
    settings: Settings,
    ticks: int,
    progress: Progress = lambda _name, _done: None,
) -> Score:
    """Return the score of one policy over a record.

    Args:
        spec: the policy.
        path: the record.
        settings: of the world.
        ticks: how many the record has, to space the curves.
        progress: told (policy, ticks done).

    Raises:
        PolicyFault: it broke its contract.
        RecordError: the record is damaged.
    """
    start, market = load(path)
    bench = _Bench(spec.name, start, settings)
    encode = api.encoder().encode
    state = b""
    every = max(1, ticks // MAX_POINTS)
    child = await Child.open(spec, spec.mem_mb or 512, PATIENCE_S, quiet=True)
    try:
        for tick in market:
            view = bench.view(tick.at_ms, tick.prices)
            before = trio.current_time()
            with trio.fail_after(PATIENCE_S):
                answer = await child.ask(encode(api.Request(view, state)), view.view)
            bench.times_us.append(int((trio.current_time() - before) * 1e6))
            state = answer.state
            bench.award(view, answer.decisions)
            if bench.score.ticks % every == 1 or every == 1:
                bench.sample()
                progress(spec.name, bench.score.ticks)
    except trio.TooSlowError:
        raise PolicyFault("slow", f"no answer within {PATIENCE_S:g} s") from None
    finally:
        await child.close()
    bench.sample()
    return bench.finish()


def quantile(times: Sequence[int], percent: int) -> int:
    """Return a quantile of times by nearest rank; 0 where there are none."""
    ranked = sorted(times)
    return ranked[min(len(ranked) - 1, len(ranked) * percent // 100)] if ranked else 0


def count_ticks(path: Path | str) -> int:
    """Return how many market ticks a record has, checking all of it.

    Raises:
        RecordError: it is damaged.
    """
    return sum(1 for _ in load(path)[1])
