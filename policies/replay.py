"""Reading decisions back: why a task was bid on, and whether the policy would say so again.

`explain` collects everything a record holds about one task and asks the policy the same question in
a fresh child; `compare` follows a record that a node is writing and sets a policy that sends
nothing beside the keeper that won.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from policies import api
from policies.api import Act, Decision, MarketView
from policies.child import Child, PolicyFault, PolicySpec
from policies.record import (
    Awarded,
    Bid,
    Decided,
    Entry,
    Received,
    RecordReader,
    Sent,
    Viewed,
    decisions_bytes,
    view_hash,
)

PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Story:
    """All a record says of one task."""

    task: bytes
    decisions: tuple[tuple[Decided, Decision], ...]
    views: tuple[tuple[int, bytes], ...]
    bids: tuple[Bid, ...]
    awards: tuple[Awarded, ...]
    sent: tuple[Sent, ...]
    received: tuple[Received, ...]


def tasks_like(path: Path, prefix: bytes | str) -> list[bytes]:
    """Return the tasks of a record whose hex starts with `prefix`."""
    text = prefix.hex() if isinstance(prefix, bytes) else prefix.lower().removeprefix("0x")
    found = {
        decision.task
        for entry in RecordReader(path)
        if isinstance(entry, Decided)
        for decision in entry.decisions
        if decision.task.hex().startswith(text)
    }
    return sorted(found)


def story_of(path: Path, task: bytes) -> Story:
    """Return what a record holds about a task.

    Raises:
        RecordError: the record is damaged.
    """
    decisions: list[tuple[Decided, Decision]] = []
    hashes: dict[tuple[str, int], bytes] = {}
    bids, awards, sent, received = [], [], [], []
    for entry in RecordReader(path):
        match entry:
            case Viewed(view=view, desk=desk):
                hashes[desk, view.view] = view_hash(view)
            case Decided():
                decisions.extend((entry, one) for one in entry.decisions if one.task == task)
            case Bid() if entry.task == task:
                bids.append(entry)
            case Awarded() if entry.task == task:
                awards.append(entry)
            case Sent() if entry.task == task:
                sent.append(entry)
            case Received() if entry.task == task:
                received.append(entry)
            case _:
                continue
    views = tuple((one.view, hashes.get((one.desk, one.view), b"")) for one, _ in decisions)
    return Story(
        task, tuple(decisions), views, tuple(bids), tuple(awards), tuple(sent), tuple(received)
    )


@dataclass(frozen=True, slots=True)
class Replay:
    """How a second run of the same policy over the same views went.

    `digest` hashes every decision of the second run: equal digests are equal decisions.
    """

    views: int
    different: tuple[int, ...]
    digest: str = ""


async def replay(spec: PolicySpec, path: Path, desk: str = "") -> Replay:
    """Return whether a policy decides on a record's views as it did.

    Views that the fall-back answered are not shown: the policy never saw them, nor did its state.

    Raises:
        PolicyFault: it broke its contract.
        RecordError: the record is damaged.
    """
    different: list[int] = []
    digest, count = hashlib.blake2b(digest_size=16), 0
    async with _Asker(spec) as asker:
        view: MarketView | None = None
        for entry in RecordReader(path):
            if isinstance(entry, Viewed) and entry.desk == desk:
                view = entry.view
                asker.carry(entry.state)
            elif isinstance(entry, Decided) and entry.desk == desk and view is not None:
                if entry.view != view.view or entry.source == "fallback":
                    continue
                answer = decisions_bytes(await asker.ask(view))
                digest.update(answer)
                count += 1
                if answer != decisions_bytes(entry.decisions):
                    different.append(view.view)
    return Replay(count, tuple(different), digest.hexdigest())


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a policy would have bid on tasks that were awarded."""

    views: int
    bids: int
    awarded: int
    would_win: int
    would_lose: int
    unseen: int
    profit: int


async def compare(spec: PolicySpec, entries: Iterator[Entry]) -> Shadow:
    """Return how a policy that sends nothing does beside the real winners of the network's tasks.

    Raises:
        PolicyFault: it broke its contract.
    """
    best: dict[bytes, Act] = {}
    views = awarded = win = lose = unseen = profit = 0
    async with _Asker(spec) as asker:
        for entry in entries:
            if isinstance(entry, Viewed) and not entry.desk:
                views += 1
                asker.carry(entry.state)
                for decision in await asker.ask(entry.view):
                    if isinstance(decision, Act):
                        best[decision.task] = decision
            elif isinstance(entry, Awarded):
                awarded += 1
                act = best.get(entry.task)
                if act is None:
                    unseen += 1
                elif act.price > entry.price:
                    win += 1
                    profit += act.profit - entry.price
                else:
                    lose += 1
    return Shadow(views, len(best), awarded, win, lose, unseen, profit)


class _Asker:
    """A child that is asked one view after the other, with its state carried along."""

    def __init__(self, spec: PolicySpec) -> None:
        self._spec, self._state = spec, b""
        self._encode = api.encoder().encode
        self._child: Child | None = None

    async def __aenter__(self) -> "_Asker":
        self._child = await Child.open(self._spec, self._spec.mem_mb or 512, PATIENCE_S, quiet=True)
        return self

    async def __aexit__(self, *_: Any) -> None:
        if self._child is not None:
            await self._child.close()

    def carry(self, state: bytes | None) -> None:
        """Take over the state that the record says was carried into the next view."""
        self._state = self._state if state is None else state

    async def ask(self, view: MarketView) -> tuple[Decision, ...]:
        """Return the decisions on a view."""
        assert self._child is not None
        try:
            with trio.fail_after(PATIENCE_S):
                answer = await self._child.ask(
                    self._encode(api.Request(view, self._state)), view.view
                )
        except trio.TooSlowError:
            raise PolicyFault("slow", f"no answer within {PATIENCE_S:g} s") from None
        self._state = answer.state
        return answer.decisions
