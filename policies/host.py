"""Runs one policy in a child process and answers for it when it misbehaves.

    MarketView ──▶ PolicyHost.decide ──pipe──▶ Child (policies/child.py, policies/worker.py)
                        │   ▲                     │
                        │   └── Answer ◀──────────┤
                        │                         └─ Fault, silence, noise, death
                        └── fault: kill, name the cause, back off, restart; after `BREAK_AFTER`
                            faults in `WINDOW_S` stay on the safe built-in for `OPEN_S`

The host never raises for what a plug-in does: `decide` always returns decisions, those of the safe
fall-back when there are no better ones. State is kept here, so a restart loses none of it.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import trio

from policies import api
from policies.child import Child, PolicyFault, PolicySpec
from policies.observer import Observer

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
BREAK_AFTER = 3
WINDOW_S = 60.0
OPEN_S = 300.0
REPLAY_VIEWS = 50
"""Views kept to compare an old child with a new one on a reload."""
__all__ = ["Child", "LatestView", "Outcome", "PolicyFault", "PolicyHost", "PolicySpec", "Reload"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one view: whose decisions they are, and why not the policy's."""

    view: int
    decisions: tuple[api.Decision, ...]
    state: bytes
    source: str
    fault: str
    elapsed_us: int


@dataclass(frozen=True, slots=True)
class Reload:
    """What a hot reload did: views compared, how many differ, and whether it was swapped in."""

    compared: int
    differ: int
    swapped: bool
    fault: str
    boot_ms: float


class PolicyHost:
    """One policy, kept alive.

    Invariants: at most one request is in flight; `decide` returns within budget + kill + one
    fall-back decision; the state handed to a child is the one of the last accepted answer.
    """

    def __init__(
        self, spec: PolicySpec, fallback: api.Policy | None = None, state: bytes = b""
    ) -> None:
        """Prepare a host; nothing starts before `run`.

        Args:
            spec: the policy.
            fallback: safe built-in that decides in this process meanwhile; it must be quick.
            state: what an earlier life of this policy ended with.
        """
        self.spec = spec
        self.faults: Counter[str] = Counter()
        self.restarts = 0
        self.last: Outcome | None = None
        self.last_fault = ""
        self._fallback: api.Policy = Observer() if fallback is None else fallback
        self._fallback_state = b""
        self._state = state
        self._child: Child | None = None
        self._nursery: trio.Nursery | None = None
        self._encode = api.encoder().encode
        self._recent: deque[tuple[api.MarketView, bytes]] = deque(maxlen=REPLAY_VIEWS)
        self._fault_times: deque[float] = deque(maxlen=BREAK_AFTER)
        self._quiet_until = 0.0
        self._busy = trio.Lock()
        self._up = trio.Event()

    @property
    def child(self) -> Child | None:
        """The running child, if any."""
        return self._child

    @property
    def state(self) -> bytes:
        """The state that the next view is decided with."""
        return self._state

    @property
    def prints(self) -> bytes:
        """The tail of what the running child printed."""
        return b"" if self._child is None else self._child.prints

    @property
    def quiet_until(self) -> float:
        """When the policy is asked again after a fault, on trio's clock."""
        return self._quiet_until

    async def kill(self, why: str) -> None:
        """End the child as a fault of the operator's making."""
        await self._blame(PolicyFault("killed", why))

    @property
    def budget_s(self) -> float:
        """Time for one view: the operator's, else the manifest's, else 50 ms."""
        ready = None if self._child is None else self._child.ready
        wish = ready.budget_ms if ready is not None else 50
        return (self.spec.budget_ms or wish) / 1000

    @property
    def broken(self) -> bool:
        """Whether the circuit breaker holds the policy off."""
        return (
            len(self._fault_times) == BREAK_AFTER
            and self._fault_times[-1] - self._fault_times[0] <= WINDOW_S
            and trio.current_time() < self._quiet_until
        )

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Own the child until cancelled; a child that cannot start is a fault, not an end."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                try:
                    await self._start()
                except PolicyFault as fault:
                    await self._blame(fault)
                self._up.set()
                task_status.started()
                await trio.sleep_forever()
            finally:
                self._up = trio.Event()
                if self._child is not None:
                    await self._child.close()
                    self._child = None
                self._nursery = None

    async def decide(self, view: api.MarketView) -> tuple[api.Decision, ...]:
        """Return decisions on a view: the policy's, or the safe fall-back's. Never raises."""
        return (await self.outcome(view)).decisions

    async def outcome(self, view: api.MarketView) -> Outcome:
        """Return decisions on a view, with whose they are and what went wrong.

        Waits for `run` to be up; the budget counts from then on.
        """
        if not self._up.is_set():
            await self._up.wait()
        async with self._busy:
            started = trio.current_time()
            try:
                answer = await self._ask(view)
            except PolicyFault as fault:
                result = self._fall_back(view, started, str(fault))
            else:
                self._recent.append((view, self._state))
                self._state = answer.state
                result = Outcome(
                    view.view, answer.decisions, answer.state, self.spec.name, "", _us(started)
                )
            self.last = result
            return result

    async def _ask(self, view: api.MarketView) -> api.Answer:
        if len(view.accounts) > api.MAX_ACCOUNTS:
            raise PolicyFault("oversize", f"a view of {len(view.accounts)} accounts")
        now = trio.current_time()
        if now < self._quiet_until:
            why = "circuit broken" if self.broken else "backing off"
            raise PolicyFault("quiet", f"{why} after {self.last_fault}")
        try:
            body = self._encode(api.Request(view, self._state))
        except OverflowError as error:  # a chain's number, not the policy's fault
            raise PolicyFault("oversize", f"the view does not fit a frame: {error}") from error
        try:
            if self._child is None:
                await self._start()
            assert self._child is not None
            with trio.fail_after(self.budget_s):
                return await self._child.ask(body, view.view)
        except trio.TooSlowError:
            fault = PolicyFault("slow", f"no answer within {self.budget_s * 1000:.0f} ms")
            await self._blame(fault)
            raise fault from None
        except PolicyFault as fault:
            await self._blame(fault)
            raise

    async def _start(self) -> None:
        assert self._nursery is not None, "PolicyHost.run is not running"
        child = await self._open(self.spec)
        self._child = child
        self._nursery.start_soon(child.drain)

    async def _open(self, spec: PolicySpec) -> Child:
        alarm_s = 2 * (spec.budget_ms or 1000) / 1000 + 1
        return await Child.open(spec, spec.mem_mb or 512, alarm_s)

    async def _blame(self, fault: PolicyFault) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.close()
        now = trio.current_time()
        self.faults[fault.cause] += 1
        self.last_fault = str(fault)
        self._fault_times.append(now)
        recent = sum(1 for time in self._fault_times if now - time <= WINDOW_S)
        step = min(self.restarts, len(BACKOFF_S) - 1)
        self._quiet_until = now + (OPEN_S if recent >= BREAK_AFTER else BACKOFF_S[step])
        self.restarts += 1

    def _fall_back(self, view: api.MarketView, started: float, fault: str) -> Outcome:
        decisions, self._fallback_state = self._fallback.decide(view, self._fallback_state)
        return Outcome(view.view, tuple(decisions), self._state, "fallback", fault, _us(started))

    async def reload(self, config: Mapping[str, Any]) -> Reload:
        """Swap in a child with another configuration, after both replayed the recent views.

        A new child that faults is dropped and the old one goes on.
        """
        assert self._nursery is not None, "PolicyHost.run is not running"
        spec = replace(self.spec, config=dict(config))
        started = trio.current_time()
        try:
            child = await self._open(spec)
        except PolicyFault as fault:
            return Reload(0, 0, False, str(fault), 0.0)
        boot_ms = (trio.current_time() - started) * 1000
        async with self._busy:
            differ = 0
            try:
                for view, state in tuple(self._recent):
                    body = self._encode(api.Request(view, state))
                    with trio.fail_after(self.budget_s):
                        new = await child.ask(body, view.view)
                    if self._child is not None:
                        with trio.fail_after(self.budget_s):
                            old = await self._child.ask(body, view.view)
                        differ += new.decisions != old.decisions
            except (PolicyFault, trio.TooSlowError) as fault:
                await child.close()
                return Reload(len(self._recent), differ, False, f"replay: {fault}", boot_ms)
            old_child, self._child, self.spec = self._child, child, spec
            self._nursery.start_soon(child.drain)
            self._quiet_until = 0.0
            self._fault_times.clear()
            self.last = None
        if old_child is not None:
            await old_child.close()
        return Reload(len(self._recent), differ, True, "", boot_ms)


def _us(started: float) -> int:
    return int((trio.current_time() - started) * 1_000_000)


class LatestView:
    """A feed of one place: a newer view replaces the one not yet taken, and is counted."""

    def __init__(self) -> None:
        self.conflated = 0
        self._view: api.MarketView | None = None
        self._fresh = trio.Event()

    def put(self, view: api.MarketView) -> None:
        """Offer the latest view; never waits."""
        if self._view is not None:
            self.conflated += 1
        self._view = view
        self._fresh.set()

    async def get(self) -> api.MarketView:
        """Wait for a view and take it."""
        while self._view is None:
            await self._fresh.wait()
        view, self._view = self._view, None
        self._fresh = trio.Event()
        return view
