"""The safe built-in: it looks, says what it saw, and asks for nothing.

It is what the host falls back to while another policy is down, and what a new node runs first.
"""

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from policies.api import Decision, Kind, Manifest, MarketView, Skip


class ObserverConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The observer has nothing to set."""


class Observer:
    """Skips every task, with the account's health as the reason."""

    manifest: ClassVar[Manifest] = Manifest(kind=Kind.OBSERVER, config=ObserverConfig)

    def __init__(self, config: ObserverConfig | None = None) -> None:
        self._config = config

    def decide(self, view: MarketView, state: bytes) -> tuple[Sequence[Decision], bytes]:
        """Return one skip per open task."""
        health = {account.account: account.health_ppm for account in view.accounts}
        return [
            Skip(task.task, f"observing, health {health.get(task.account, 0)} ppm")
            for task in view.tasks
        ], state
