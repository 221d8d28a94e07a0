"""The one writer of the ledger: what has gathered meanwhile is one durable transaction.

    write(changes) ─┐
    write(changes) ─┼─▶ gathered ─▶ Ledger.apply, one thread ─▶ on disk ─▶ each writer goes on
    write(changes) ─┘                                                  └─▶ who waits looks

Nobody goes on before his write is on disk. A change that the ledger refuses fails its writer alone.
"""

import time
from collections.abc import Callable, Sequence

import trio

from keeper.errors import LocalError
from keeper.execute.ledger import Change, Ledger, Moved, Task

_Write = tuple[Sequence[Change], trio.Event, list[LocalError]]


class Journal:
    """Group commit, and the news of what was committed.

    Args:
        ledger: where it is written.
        clock: tells unix seconds, for the story of each task.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float] = time.time) -> None:
        self._ledger, self._clock = ledger, clock
        self._gathered: list[_Write] = []
        self._work = trio.Event()
        self._limit = trio.CapacityLimiter(1)
        self._news: dict[bytes, trio.Event] = {}

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._work.wait()
            self._work = trio.Event()
            batch, self._gathered = self._gathered, []
            await trio.to_thread.run_sync(self._commit, batch, limiter=self._limit)
            for changes, done, _ in batch:
                done.set()
                for change in changes:
                    if isinstance(change, Moved):
                        self._tell(change.key)

    def _commit(self, batch: Sequence[_Write]) -> None:
        now = int(self._clock())
        try:
            self._ledger.apply([change for changes, _, _ in batch for change in changes], now)
        except LocalError:
            for changes, _, errors in batch:
                try:
                    self._ledger.apply(changes, now)
                except LocalError as error:
                    errors.append(error)

    async def write(self, *changes: Change) -> None:
        """Return when the changes are on disk.

        Raises:
            LocalError: the ledger refuses them.
        """
        done, errors = trio.Event(), list[LocalError]()
        self._gathered.append((changes, done, errors))
        self._work.set()
        await done.wait()
        if errors:
            raise errors[0]

    async def task(self, key: bytes) -> Task | None:
        """Return a task as it is on disk."""
        return await trio.to_thread.run_sync(self._ledger.task, key)

    async def until(self, key: bytes, holds: Callable[[Task], bool]) -> Task:
        """Return a task once something holds of it; it is looked at whenever it moves.

        Raises:
            LocalError: there is no such task.
        """
        while True:
            moved = self._news.setdefault(key, trio.Event())
            task = await self.task(key)
            if task is None or holds(task):
                self._tell(key)
                if task is None:
                    raise LocalError("no such task", where=key.hex())
                return task
            await moved.wait()

    def _tell(self, key: bytes) -> None:
        """Wake whoever waits for a task; each looks for himself."""
        event = self._news.pop(key, None)
        if event is not None:
            event.set()
