"""Whether a policy may be trusted to decide: pure, blind to the future, quick, well described.

    run A  hash seed 1                  the reference
    run B  hash seed 1 again            differs: it reads a clock or draws chance
    run C  hash seed 2                  differs: it iterates over a set
    run D  restarted in the middle      differs: it hides state outside `state`
    run E  the clock and views shifted  differs: it knows the record (look-ahead)
    run F  accounts and tasks shuffled  differs: it depends on how they are listed

Each run is a child process of its own, fed the same views one at a time. Later runs are judged only
if the earlier ones agree, so a finding names its cause and not its consequences. The source is read
as well, for a clock coarser than the runs are apart. A view's time is the least of the equal runs,
so that a busy machine is not the policy's fault.
"""

import ast
import importlib.util
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import trio

from policies import api
from policies.backtest import quantile
from policies.child import Child, PolicyFault, PolicySpec
from policies.discover import body_of
from policies.record import decisions_bytes

PATIENCE_S = 5.0
"""A view that takes longer ends the check: no budget is that long."""
SHIFT_VIEWS, SHIFT_MS = 1_000_003, 86_400_000 * 7 + 1
CLOCKS = frozenset(
    {
        "time.time", "time.time_ns", "time.monotonic", "time.perf_counter", "time.localtime",
        "datetime.now", "datetime.utcnow", "datetime.today", "date.today",
        "random.random", "random.randint", "random.randrange", "random.choice", "random.shuffle",
        "os.urandom", "uuid.uuid4", "uuid.uuid1", "secrets.token_bytes", "secrets.randbelow",
    }
)  # fmt: skip
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One question and its answer; `ok` is None where an earlier failure leaves it open."""

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """All findings on one policy."""

    policy: str
    views: int
    findings: tuple[Finding, ...]
    p50_us: int
    p99_us: int
    boot_ms: float

    @property
    def ok(self) -> bool:
        """Whether every question was answered with yes."""
        return all(finding.ok for finding in self.findings)


@dataclass(frozen=True, slots=True)
class _Run:
    answers: tuple[api.Answer, ...]
    times_us: tuple[int, ...]
    boot_ms: float
    ready: api.Ready | None


async def _serve(
    spec: PolicySpec, views: Sequence[api.MarketView], state: bytes, step: Callable[[], None]
) -> _Run:
    """Return the answers of a fresh child to the views.

    Raises:
        PolicyFault: the plug-in broke its contract.
    """
    encode = api.encoder().encode
    answers, times = [], []
    started = trio.current_time()
    child = await Child.open(spec, spec.mem_mb or 512, PATIENCE_S, quiet=True)
    boot_ms = (trio.current_time() - started) * 1000
    try:
        for view in views:
            before = trio.current_time()
            with trio.fail_after(PATIENCE_S):
                answer = await child.ask(encode(api.Request(view, state)), view.view)
            times.append(int((trio.current_time() - before) * 1e6))
            state = answer.state
            answers.append(answer)
            step()
    except trio.TooSlowError:
        raise PolicyFault("slow", f"no answer to a view in {PATIENCE_S:g} s") from None
    finally:
        await child.close()
    return _Run(tuple(answers), tuple(times), boot_ms, child.ready)


def first_difference(one: Sequence[api.Answer], other: Sequence[api.Answer]) -> int | None:
    """Return the index of the first answer whose decisions differ, byte for byte."""
    for index, (left, right) in enumerate(zip(one, other, strict=True)):
        if decisions_bytes(left.decisions) != decisions_bytes(right.decisions):
            return index
    return None


def shifted(view: api.MarketView) -> api.MarketView:
    """Return the same situation a week and a million views later."""
    return msgspec.structs.replace(
        view,
        view=view.view + SHIFT_VIEWS,
        now_ms=view.now_ms + SHIFT_MS,
        tasks=tuple(
            msgspec.structs.replace(
                task, deadline_ms=task.deadline_ms + SHIFT_MS if task.deadline_ms else 0
            )
            for task in view.tasks
        ),
        breakers=tuple(
            msgspec.structs.replace(one, until_ms=one.until_ms + SHIFT_MS if one.until_ms else 0)
            for one in view.breakers
        ),
        heads=tuple((chain, height + SHIFT_VIEWS) for chain, height in view.heads),
        orders=tuple(
            msgspec.structs.replace(
                one,
                deadline_ms=one.deadline_ms + SHIFT_MS,
                needed_ms=one.needed_ms + SHIFT_MS if one.needed_ms else 0,
                turn_ms=one.turn_ms + SHIFT_MS if one.turn_ms else 0,
            )
            for one in view.orders
        ),
    )


def shuffled(view: api.MarketView) -> api.MarketView:
    """Return the same situation with its lists in another order."""
    chance = random.Random(view.view)

    def mixed(items: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(chance.sample(items, len(items)))

    return msgspec.structs.replace(
        view,
        accounts=mixed(view.accounts),
        tasks=mixed(view.tasks),
        prices=mixed(view.prices),
        inventory=mixed(view.inventory),
        breakers=mixed(view.breakers),
        bridges=mixed(view.bridges),
        orders=mixed(view.orders),
    )


def _essence(decision: api.Decision, shift_ms: int) -> tuple[object, ...]:
    """Return what a decision asks for: without its words, on the unshifted clock."""
    match decision:
        case api.Act():
            return (decision.task, "act", decision.price, int(decision.size), decision.steps)
        case api.Skip():
            return (decision.task, "skip")
        case api.Defer():
            return (decision.task, "defer", decision.until_ms - shift_ms)


def _differs(one: _Run, other: _Run, shift_ms: int) -> int | None:
    for index, (left, right) in enumerate(zip(one.answers, other.answers, strict=True)):
        here = sorted((_essence(x, 0) for x in left.decisions), key=repr)
        there = sorted((_essence(x, shift_ms) for x in right.decisions), key=repr)
        if here != there:
            return index
    return None


def extremes(view: api.MarketView) -> list[api.MarketView]:
    """Return views a policy must survive: empty, priceless, penniless, huge, and zero."""
    change = msgspec.structs.replace
    huge = tuple(
        change(one, equity=-(1 << 62), requirement=1 << 62, mmr=1 << 62, imr=1 << 62)
        for one in view.accounts
    )
    zero = tuple(change(one, equity=0, requirement=0, mmr=0, imr=0) for one in view.accounts)
    return [
        api.MarketView(view.view, view.now_ms, view.seed),
        change(view, prices=()),
        change(view, prices=tuple(change(one, price=0) for one in view.prices)),
        change(view, accounts=()),
        change(view, gas=(), inventory=(), bond_free=0),
        change(view, accounts=huge),
        change(view, accounts=zero),
        change(view, tasks=view.tasks + view.tasks),
    ]


def source_of(target: str) -> Path | None:
    """Return the file of a target without importing it."""
    place = target.rpartition(":")[0]
    if place.endswith(".py"):
        return Path(place)
    spec = importlib.util.find_spec(place)
    return Path(spec.origin) if spec is not None and spec.origin else None


def clocks_in(source: str) -> list[str]:
    """Return calls of clocks and of chance in a source text, with their lines."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            tail = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            name = f"{tail}.{node.func.attr}"
            if name in CLOCKS:
                found.append(f"{name} in line {node.lineno}")
    return found


def schema_gaps(schema: dict[str, Any]) -> list[str]:
    """Return fields of a configuration schema that lack a description or a default."""
    body = body_of(schema)
    gaps = [f"{name} has no default" for name in body.get("required", [])]
    for name, entry in body.get("properties", {}).items():
        if "description" not in entry:
            gaps.append(f"{name} has no description")
    if body.get("additionalProperties", True):
        gaps.append("unknown fields are accepted: set forbid_unknown_fields")
    return gaps


class _Checker:
    def __init__(
        self, spec: PolicySpec, views: Sequence[api.MarketView], progress: Progress
    ) -> None:
        self.spec, self.views, self.progress = spec, views, progress
        self.findings: list[Finding] = []
        self.open = True

    async def run(self, label: str, views: Sequence[api.MarketView], seed: int = 1) -> _Run:
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            self.progress(label, done, len(views))

        return await _serve(replace(self.spec, hash_seed=seed), views, b"", step)

    async def judge(self, name: str, question: Callable[[], Any], good: str) -> None:
        """Add a finding: `question` returns what is wrong, or an empty text."""
        if not self.open:
            self.findings.append(Finding(name, None, "not judged: an earlier check failed"))
            return
        try:
            wrong: str = await question()
        except PolicyFault as fault:
            wrong = str(fault)
        self.findings.append(Finding(name, not wrong, wrong or good))
        self.open = not wrong


async def check_policy(
    spec: PolicySpec,
    views: Sequence[api.MarketView],
    schema: dict[str, Any] | None = None,
    progress: Progress = lambda _label, _done, _total: None,
) -> Report:
    """Return the report on a policy over a list of views.

    Args:
        spec: the policy; its `hash_seed` is not used.
        views: at least two, in the order of a record.
        schema: of its configuration, where it is known.
        progress: told (run, views done, views in all).
    """
    checker = _Checker(spec, views, progress)
    reference: list[_Run] = []
    times: list[tuple[int, ...]] = []
    half = len(views) // 2

    async def runs() -> str:
        reference.append(await checker.run("reference", views))
        times.append(reference[0].times_us)
        return ""

    async def source() -> str:
        file = source_of(spec.target)
        return ", ".join(clocks_in(file.read_text())) if file is not None else ""

    async def same(label: str, seed: int) -> str:
        other = await checker.run(label, views, seed)
        times.append(other.times_us)
        return _at(views, first_difference(reference[0].answers, other.answers))

    async def clock() -> str:
        return await same("again", 1)

    async def sets() -> str:
        return await same("hash seed", 2)

    async def hidden() -> str:
        first = reference[0].answers[:half]
        rest = await _serve(
            replace(spec, hash_seed=1), views[half:], first[-1].state if first else b"", _nothing
        )
        return _at(views, first_difference(reference[0].answers, first + rest.answers))

    async def ahead() -> str:
        other = await checker.run("shifted", [shifted(view) for view in views])
        return _at(views, _differs(reference[0], other, SHIFT_MS))

    async def listed() -> str:
        other = await checker.run("shuffled", [shuffled(view) for view in views])
        return _at(views, _differs(reference[0], other, 0))

    async def hard() -> str:
        await checker.run("extremes", extremes(views[-1]))
        return ""

    async def described() -> str:
        return ", ".join(schema_gaps(schema)) if schema is not None else ""

    async def quick() -> str:
        ready = reference[0].ready
        budget_ms = spec.budget_ms or (ready.budget_ms if ready else 50)
        p99 = quantile(_least(times), 99)
        return f"p99 {p99} µs of a budget of {budget_ms} ms" if p99 > budget_ms * 1000 else ""

    await checker.judge("contract", runs, f"answered {len(views)} views")
    await checker.judge("clock or chance", clock, "two equal runs agree")
    await checker.judge("source", source, "calls no clock and no chance")
    await checker.judge("set order", sets, "two hash seeds agree")
    await checker.judge("hidden state", hidden, f"a restart after view {half} changes nothing")
    await checker.judge("look-ahead", ahead, "a shifted clock changes nothing")
    await checker.judge("permutation", listed, "the order of accounts changes nothing")
    await checker.judge("extremes", hard, "survives empty, priceless, huge and zero views")
    await checker.judge("schema", described, "every field has a range, a default, a description")
    await checker.judge("budget", quick, "p99 is within the budget")
    boot_ms = reference[0].boot_ms if reference else 0.0
    return Report(
        spec.name,
        len(views),
        tuple(checker.findings),
        quantile(_least(times), 50),
        quantile(_least(times), 99),
        boot_ms,
    )


def _nothing() -> None:
    """Count no view."""


def _at(views: Sequence[api.MarketView], index: int | None) -> str:
    return "" if index is None else f"decisions differ from view {views[index].view} on"


def _least(runs: Sequence[Sequence[int]]) -> list[int]:
    """Return each view's least time over equal runs: what the policy takes, not the machine."""
    return [min(times) for times in zip(*runs, strict=True)]
