"""Several endpoints of one chain: ranked, hedged, broken off, and outvoted when they lie.

    ask      best ranked first; the next one joins when it is late; the first good answer wins
    agree    all are asked; `quorum` equal *decoded* answers win, whoever differs is counted a liar
    poll     all are asked; with enough answers nobody waits long for the rest
    tell     everybody gets it (broadcast); one acceptance is enough

Rank is the moving average of answer times (EWMA). After some failures in a row the circuit opens:
the endpoint is asked last until a pause has passed. Two endpoints that contradict each other are
no quorum, and nothing is returned.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import trio

from keeper.chain.rpc import Request, Rpc, RpcError
from keeper.errors import ConfigError, RemoteFault
from keeper.reasons import Reason

T = TypeVar("T")

_ALPHA = 0.2
_OPEN_AFTER = 3
"""Failures in a row."""
_OPEN_S = 5.0
_HEDGE_FACTOR = 3.0
_HEDGE_FLOOR_S = 0.05
"""Another endpoint is asked after three usual answer times, and never sooner than this."""


@dataclass(slots=True)
class Health:
    """What was measured of one endpoint."""

    rpc: Rpc
    latency_s: float = 0.05
    failures: int = 0
    open_until: float = 0.0
    asked: int = 0
    failed: int = 0
    lies: int = 0
    last_error: str = ""


class Endpoints:
    """The endpoints of one chain.

    Args:
        rpcs: at least one.
        quorum: equal answers needed where endpoints vote; a majority by default.
        attempt_s: how long one endpoint may take for one answer.
    """

    def __init__(
        self, rpcs: Sequence[Rpc], *, quorum: int | None = None, attempt_s: float = 2.0
    ) -> None:
        if not rpcs:
            raise ConfigError("a chain needs at least one endpoint")
        self.quorum = len(rpcs) // 2 + 1 if quorum is None else quorum
        if not 1 <= self.quorum <= len(rpcs):
            raise ConfigError(f"quorum {self.quorum} is not within 1 to {len(rpcs)} endpoints")
        self.health = tuple(Health(rpc) for rpc in rpcs)
        self._attempt_s = attempt_s

    async def run(self) -> None:
        """Keep the endpoints' connections alive until cancelled."""
        async with trio.open_nursery() as nursery:
            for each in self.health:
                nursery.start_soon(each.rpc.run)

    async def aclose(self) -> None:
        """Close all connections."""
        for each in self.health:
            await each.rpc.aclose()

    def ranked(self) -> list[Health]:
        """Return the endpoints, best first; those with an open circuit last."""
        now = trio.current_time()
        return sorted(
            self.health,
            key=lambda each: (max(each.open_until, now), each.latency_s * (1 + each.failures)),
        )

    async def _attempt(self, each: Health, action: Callable[[Rpc], Awaitable[T]]) -> T:
        """Ask one endpoint, and learn from how it went."""
        started = trio.current_time()
        each.asked += 1
        try:
            with trio.fail_after(self._attempt_s):
                answer = await action(each.rpc)
        except trio.TooSlowError as error:
            self._failed(each, f"no answer within {self._attempt_s} s")
            raise RemoteFault(each.rpc.name, Reason.ENDPOINT_DOWN, each.last_error) from error
        except RpcError:
            each.failures = 0
            raise
        except RemoteFault as error:
            self._failed(each, str(error))
            raise
        each.failures = 0
        each.latency_s += _ALPHA * (trio.current_time() - started - each.latency_s)
        return answer

    def _failed(self, each: Health, why: str) -> None:
        each.failures += 1
        each.failed += 1
        each.last_error = why
        if each.failures >= _OPEN_AFTER:
            each.open_until = trio.current_time() + _OPEN_S

    def lied(self, each: Health, why: str) -> None:
        """Count an endpoint whose answer was disproven or outvoted, and ask it last."""
        each.lies += 1
        each.last_error = why
        each.open_until = trio.current_time() + _OPEN_S

    async def ask(self, action: Callable[[Rpc], Awaitable[T]]) -> T:
        """Return the first good answer; the next endpoint joins when one fails or is late.

        Safe where the answer proves itself (a header by its hash, a state proof) or is a hint.

        Raises:
            RemoteFault: all failed; the fault is the last one, an execution that reverted first.
        """
        answers: list[T] = []
        faults: list[RemoteFault] = []
        progress = trio.Event()

        async def one(each: Health, scope: trio.CancelScope) -> None:
            nonlocal progress
            try:
                answers.append(await self._attempt(each, action))
                scope.cancel()
            except RemoteFault as fault:
                faults.append(fault)
                progress.set()
                progress = trio.Event()
                if fault.reason is Reason.REVERTED:
                    scope.cancel()

        async with trio.open_nursery() as nursery:
            for each in self.ranked():
                failed_before, late = progress, max(_HEDGE_FLOOR_S, _HEDGE_FACTOR * each.latency_s)
                nursery.start_soon(one, each, nursery.cancel_scope)
                with trio.move_on_after(late):
                    await failed_before.wait()
        if answers:
            return answers[0]
        raise next((f for f in faults if f.reason is Reason.REVERTED), faults[-1])

    async def agree(
        self,
        action: Callable[[Rpc], Awaitable[T]],
        merge: Callable[[T, T], T] = lambda first, _: first,
    ) -> T:
        """Return the answer that a quorum of endpoints gives.

        An error counts as an answer by its reason: a quorum of "reverted" is a revert.

        Args:
            action: what to ask.
            merge: makes one of two equal answers that may differ in what `==` leaves out.

        Raises:
            RemoteFault: NO_QUORUM, or the fault a quorum agreed on.
        """
        votes: dict[Any, list[Health]] = {}
        values: dict[Any, T] = {}
        errors: dict[Any, RpcError] = {}
        faults: list[RemoteFault] = []
        won: list[Any] = []

        async def one(each: Health, scope: trio.CancelScope) -> None:
            key: Any
            try:
                key = value = await self._attempt(each, action)
                values[key] = merge(values[key], value) if key in values else value
            except RpcError as error:
                key = error.reason, error.code
                errors.setdefault(key, error)
            except RemoteFault as fault:
                faults.append(fault)
                return
            votes.setdefault(key, []).append(each)
            if len(votes[key]) >= self.quorum:
                won.append(key)
                scope.cancel()

        asked = self.ranked()
        async with trio.open_nursery() as nursery:
            for each in asked:
                nursery.start_soon(one, each, nursery.cancel_scope)
        if not won:
            seen = [f"{len(voters)}×{_short(key)}" for key, voters in votes.items()]
            down = [f"{fault.culprit} {fault.reason.value}" for fault in faults]
            raise RemoteFault(
                "endpoints", Reason.NO_QUORUM, f"need {self.quorum}: {', '.join(seen + down)}"
            )
        for key, voters in votes.items():
            for each in voters if key != won[0] else ():
                self.lied(each, f"outvoted: said {_short(key)}")
        if won[0] in errors:
            raise errors[won[0]]
        return values[won[0]]

    async def poll(
        self,
        action: Callable[[Rpc], Awaitable[T]],
        enough: int | None = None,
        *,
        skip_open: bool = True,
    ) -> list[tuple[Health, T]]:
        """Return the endpoints' answers: everybody's, or `enough` and what comes in time then.

        Args:
            action: what to ask.
            enough: answers after which the others get as long as `ask` waits before it hedges.
            skip_open: endpoints whose circuit is open are not waited for even so long.
        """
        answers: list[tuple[Health, T]] = []
        now = trio.current_time()
        waited = {id(each) for each in self.health if each.open_until <= now or not skip_open}
        needed = len(self.health) if enough is None else enough
        full, all_in = trio.Event(), trio.Event()

        async def one(each: Health) -> None:
            try:
                answers.append((each, await self._attempt(each, action)))
            except RemoteFault as fault:
                each.last_error = str(fault)
            waited.discard(id(each))
            if len(answers) >= needed:
                full.set()
                if not waited:
                    all_in.set()

        async def hurry(scope: trio.CancelScope) -> None:
            await full.wait()
            slowest = max(each.latency_s for each, _ in answers)
            with trio.move_on_after(max(_HEDGE_FLOOR_S, _HEDGE_FACTOR * slowest)):
                await all_in.wait()
            scope.cancel()

        async with trio.open_nursery() as hurried:
            hurried.start_soon(hurry, hurried.cancel_scope)
            async with trio.open_nursery() as asked:
                for each in self.health:
                    asked.start_soon(one, each)
            hurried.cancel_scope.cancel()
        for each in self.health:
            if id(each) in waited:
                self._failed(each, "answers later than the others")
        return answers

    async def tell(self, method: str, params: Sequence[Any]) -> list[Any]:
        """Bring a call to every endpoint; return each one's result or fault.

        Once one has taken it, the others get no longer than in `poll`: they have the call by then,
        only their answers are missing.
        """
        faults: list[RemoteFault] = []

        async def one(rpc: Rpc) -> Any:
            try:
                return await rpc.call(method, params)
            except RemoteFault as fault:
                faults.append(fault)
                raise

        answers = await self.poll(one, enough=1, skip_open=False)
        return [answer for _, answer in answers] + faults

    async def call(self, method: str, params: Sequence[Any] = ()) -> Any:
        """Return the first good raw result: for hints, tools and plug-ins."""
        return await self.ask(lambda rpc: rpc.call(method, params))

    async def batch(self, requests: Sequence[Request]) -> list[Any]:
        """Return the first good batch."""
        return await self.ask(lambda rpc: rpc.batch(requests))


def _short(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 60 else text[:57] + "..."
