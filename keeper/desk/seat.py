"""A policy's seat in the node: its host, its memory across restarts, its settings, its record.

view ─▶ PolicyHost ─▶ Outcome ─▶ caller
▲   │          ├─▶ state, on disk      a restart goes on with it
│   └──────────┴─▶ Viewed, Decided     backtest, replay and explain read them
[policy.KIND] of keeper.toml, followed
"""

from collections.abc import Callable
from pathlib import Path

import structlog
import trio

from keeper.desk.reload import follow_settings
from keeper.store import Store
from policies.api import MarketView
from policies.host import Outcome, PolicyHost, PolicySpec
from policies.record import Decided, Entry, Viewed, state_hash

log = structlog.get_logger(__name__)


class Seat:
    """One policy at work.

    Args:
        kind: section of `keeper.toml` its settings come from.
        desk: the venue it works on; empty: the network's own tasks.
        policy: what runs.
        home: of the node.
        store: keeps its state.
        record: takes entries for the node's record.
    """

    def __init__(
        self,
        kind: str,
        desk: str,
        policy: PolicySpec,
        home: Path,
        store: Store,
        record: Callable[[Entry], None],
    ) -> None:
        self._kind, self._desk, self._home, self._store = kind, desk, home, store
        self._record, self._place = record, f"{kind}/{desk}/{policy.target}"
        store.table(
            "policy_state", 1, "CREATE TABLE policy_state (place TEXT PRIMARY KEY, state BLOB)"
        )
        rows = store.read("SELECT state FROM policy_state WHERE place = ?", (self._place,))
        self.host = PolicyHost(policy, state=rows[0][0] if rows else b"")

    async def run(self) -> None:
        """Keep the policy alive and its settings current until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.host.run)
            nursery.start_soon(follow_settings, self.host, self._home, self._kind)

    async def decide(self, view: MarketView) -> Outcome:
        """Return what the policy, or the safe built-in in its place, decides; never raises."""
        before = self.host.state
        outcome = await self.host.outcome(view)
        if outcome.state != before:
            with self._store.cached() as rows:
                rows.execute(
                    "INSERT OR REPLACE INTO policy_state VALUES (?, ?)",
                    (self._place, outcome.state),
                )
        for one in outcome.decisions:
            log.debug("policy", view=view.view, decision=type(one).__name__, why=one.why)
        self._record(Viewed(view, self._desk, before))
        self._record(
            Decided(
                outcome.view,
                self.host.spec.name,
                outcome.source,
                outcome.decisions,
                state_hash(outcome.state),
                outcome.fault,
                outcome.elapsed_us,
                self._desk,
            )
        )
        return outcome
