"""Runs policies over what a node recorded: the views it saw, the bids and awards that followed.

    Viewed ─▶ child process ─▶ Act(price)     Bid, Awarded ─▶ would it have won, at what price?

A record of a node holds what happened, not a world that answers: so nothing the policy does changes
the views after it, and a task it would have won is closed when the record says it was awarded. It
wins with at least the best price another keeper revealed (the award's own price where no bid was
heard), and pays that; its profit is its own prediction at the view it bid on. On a venue without
awards (`desk`) the first act on a task counts, at no price.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trio

from keeper.units import PPM
from policies import api, sizing
from policies.api import DEBT, Account, Act, MarketView, Task
from policies.backtest import MAX_POINTS, PATIENCE_S, Score, quantile
from policies.books import Books
from policies.child import Child, PolicyFault, PolicySpec
from policies.record import (
    Awarded,
    Bid,
    Book,
    Entry,
    RecordError,
    RecordReader,
    Viewed,
    decisions_bytes,
)

Progress = Callable[[str, int], None]


def is_recorded(path: Path | str) -> bool:
    """Return whether a node wrote this record: it holds views, and no book to start a world from.

    Raises:
        RecordError: it is damaged before that shows.
    """
    for entry in RecordReader(path):
        if isinstance(entry, Book):
            return False
        if isinstance(entry, Viewed):
            return True
    return False


def entries_of(path: Path | str, desk: str) -> Iterator[Entry]:
    """Yield the views of a desk, and all bids and awards."""
    for entry in RecordReader(path):
        if isinstance(entry, (Bid, Awarded)) or (isinstance(entry, Viewed) and entry.desk == desk):
            yield entry


def count_views(path: Path | str, desk: str) -> int:
    """Return how many views of a desk a record has, checking all of it.

    Raises:
        RecordError: it is damaged, or has none.
    """
    count, others = 0, set[str]()
    for entry in RecordReader(path):
        if isinstance(entry, Viewed):
            count += entry.desk == desk
            others.add(entry.desk)
    if not count:
        known = ", ".join(sorted(repr(one) for one in others)) or "none at all"
        raise RecordError(f"{path}: holds no views of desk {desk!r}; it has {known}")
    return count


def best_of(view: MarketView, account: Account | None, task: Task) -> int:
    """Return the most one execution of a task could bring, before any price, µUSD."""
    books = Books(view)
    price, gas = books.prices.get(task.market), books.gas_cost(task.chain, task.gas_units)
    if price is None or gas is None or not task.terms:
        return 0
    size = int(task.max_size)
    if account is not None:
        held = [
            abs(leg.size)
            for leg in books.legs_at(account, task)
            if leg.market == task.market and leg.kind >= DEBT
        ]
        size = min(size, max(held, default=0) * task.close_ppm // PPM)
    value = sizing.value_floor(size, price.price, price.decimals)
    return max(0, value * max(term.bonus_ppm for term in task.terms) // PPM - gas)


@dataclass(slots=True)
class Ledger:
    """One policy's books over a record.

    Invariants: a task is won or lost once; nothing is booked for a task that was never shown.
    """

    score: Score
    me: str
    competes: bool
    shown: dict[bytes, Task] = field(default_factory=dict)
    acts: dict[bytes, Act] = field(default_factory=dict)
    bids: dict[bytes, int] = field(default_factory=dict)
    best: dict[bytes, int] = field(default_factory=dict)
    earned: dict[bytes, int] = field(default_factory=dict)

    def see(self, view: MarketView, decisions: tuple[api.Decision, ...]) -> None:
        """Take a view and what the policy decided on it."""
        score, accounts = self.score, {one.account: one for one in view.accounts}
        score.ticks += 1
        for task in view.tasks:
            if task.task not in self.shown:
                score.tasks += 1
            self.shown[task.task] = task
            most = best_of(view, accounts.get(task.account), task) - task.reserve
            self.best[task.task] = max(self.best.get(task.task, 0), most)
        for decision in decisions:
            if isinstance(decision, Act) and decision.task in self.shown:
                self.acts[decision.task] = decision
                if not self.competes and decision.task not in self.earned:
                    self._win(decision, 0)
        score.bad_debt = sum(max(0, -one.equity) for one in view.accounts if one.requirement)
        score.worst_bad_debt = max(score.worst_bad_debt, score.bad_debt)
        self.equity = sum(one.equity for one in view.accounts)

    equity: int = 0

    def hear(self, bid: Bid) -> None:
        """Take a bid that was revealed; the recording keeper's own is no rival."""
        if bid.bidder and bid.bidder.hex() != self.me:
            self.bids[bid.task] = max(bid.price, self.bids.get(bid.task, 0))

    def award(self, award: Awarded) -> None:
        """Settle a task the way its award says, had this policy bid too."""
        task, act = self.shown.get(award.task), self.acts.pop(award.task, None)
        rival = self.bids.pop(award.task, award.price)
        if task is None:
            return
        price = max(rival, task.reserve)
        if act is None or act.price < price:
            self.score.lost += 1
        else:
            self._win(act, price)

    def _win(self, act: Act, price: int) -> None:
        score, kept = self.score, act.profit - price
        score.executed += 1
        score.gross += act.profit
        score.paid += price
        score.net += kept
        score.predicted += kept
        self.earned[act.task] = self.earned.get(act.task, 0) + kept

    def sample(self) -> None:
        """Add a point to the curves."""
        curves = self.score.curves
        curves["profit"].append(self.score.net)
        curves["bad_debt"].append(self.score.bad_debt)
        curves["regret"].append(self.regret())
        curves["equity"].append(self.equity)

    def regret(self) -> int:
        """Return what the tasks could have brought at their reserves, less what was earned."""
        return sum(
            max(0, best - max(0, self.earned.get(task, 0))) for task, best in self.best.items()
        )


async def rerun_policy(
    spec: PolicySpec,
    path: Path | str,
    views: int,
    desk: str = "",
    progress: Progress = lambda _name, _done: None,
) -> Score:
    """Return the score of one policy over a node's record.

    Args:
        spec: the policy.
        path: the record.
        views: how many views it has, to space the curves.
        desk: the venue whose views are meant; empty: the network's own tasks.
        progress: told (policy, views done).

    Raises:
        PolicyFault: it broke its contract.
        RecordError: the record is damaged.
    """
    head = RecordReader(path)
    head.close()
    score = Score(spec.name, curves={"profit": [], "bad_debt": [], "regret": [], "equity": []})
    books = Ledger(score, str(head.head.get("keeper", "")), not desk)
    encode, state, digest = api.encoder().encode, b"", hashlib.blake2b(digest_size=16)
    times: list[int] = []
    every = max(1, views // MAX_POINTS)
    child = await Child.open(spec, spec.mem_mb or 512, PATIENCE_S, quiet=True)
    try:
        for entry in entries_of(path, desk):
            match entry:
                case Viewed(view=view):
                    before = trio.current_time()
                    with trio.fail_after(PATIENCE_S):
                        answer = await child.ask(encode(api.Request(view, state)), view.view)
                    times.append(int((trio.current_time() - before) * 1e6))
                    state = answer.state
                    digest.update(decisions_bytes(answer.decisions))
                    books.see(view, answer.decisions)
                    if score.ticks % every == 1 or every == 1:
                        books.sample()
                        progress(spec.name, score.ticks)
                case Bid():
                    books.hear(entry)
                case Awarded():
                    books.award(entry)
                case _:
                    continue
    except trio.TooSlowError:
        raise PolicyFault("slow", f"no answer within {PATIENCE_S:g} s") from None
    finally:
        await child.close()
    books.sample()
    score.regret, score.decisions_hash = books.regret(), digest.hexdigest()
    score.decide_p50_us, score.decide_p99_us = quantile(times, 50), quantile(times, 99)
    return score
