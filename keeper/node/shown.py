"""The newest snapshots of a node, as it shows them: the final one, and the sealed one to prove."""

from typing import Any

from keeper.margin.proof import dumps
from keeper.snapshot.archive import Archive
from keeper.snapshot.derive import Setting, Snapshot
from keeper.snapshot.show import account_of, prove_account

WAITING = 8
"""Final snapshots kept until their seal comes: a seal is late by a view or two."""


class Shown:
    """Answers questions about accounts from the newest sealed snapshot."""

    def __init__(self, setting: Setting, archive: Archive, group_key: int) -> None:
        self._setting, self._archive, self._group_key = setting, archive, group_key
        self.newest: Snapshot | None = None
        self.sealed: Snapshot | None = None
        self._waiting: dict[int, Snapshot] = {}

    def on_final(self, snapshot: Snapshot) -> None:
        """Take the newest final snapshot."""
        self.newest = snapshot
        self._waiting[snapshot.header.view] = snapshot
        while len(self._waiting) > WAITING:
            del self._waiting[next(iter(self._waiting))]

    def on_seal(self, view: int) -> None:
        """Note that a view is sealed and archived."""
        snapshot = self._waiting.get(view)
        if snapshot is not None:
            self.sealed = snapshot

    def account(self, account: bytes) -> dict[str, Any] | None:
        """Return what the newest sealed snapshot says of an account."""
        return None if self.sealed is None else account_of(self.sealed, account)

    def proofs(self, account: bytes) -> list[str]:
        """Return proof files of an account in the newest sealed snapshot; none if unknown."""
        sealed = self.sealed
        archived = None if sealed is None else self._archive.get(sealed.header.view)
        if sealed is None or archived is None or account not in sealed.book.registry:
            return []
        facts = prove_account(self._setting, sealed, archived, self._group_key, account)
        return [dumps(fact) for fact in facts]
