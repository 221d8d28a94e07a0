"""Ends what a devnet started when the devnet itself is gone, however it went.

    devnet ──"PID"──▶ warden        each child is held by a pidfd: a number used again is never hit
       ✗ SIGKILL          └─ the pipe ends ─▶ SIGTERM to all that still live, then SIGKILL

Only the devnet holds the writing end, so the pipe ends exactly when it does. After an orderly end
nobody is left and the warden goes too. Linux only; elsewhere children outlive a killed devnet.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress

import trio

Guard = Callable[[int], Awaitable[None]]
"""Names a process that is to end with us."""

PATIENCE_S = 10.0
"""A keeper that is asked to end has closed its database by then."""


@asynccontextmanager
async def run_warden() -> AsyncIterator[Guard]:
    """Run a warden for the length of the block; yield how to name it a child."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "keeper.devnet.warden"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    stream = process.stdin

    async def guard(pid: int) -> None:
        await stream.send_all(b"%d\n" % pid)

    try:
        yield guard
    finally:
        with trio.CancelScope(shield=True):
            await stream.aclose()
            await process.wait()


def watch(names: Iterable[str], patience_s: float = PATIENCE_S) -> None:
    """Hold the processes named, one number a line; end them when there are no more lines."""
    held = []
    for name in names:
        with suppress(ProcessLookupError):
            held.append(os.pidfd_open(int(name)))
    poll = select.poll()
    for fd in held:
        poll.register(fd, select.POLLIN)
        _send(fd, signal.SIGTERM)
    end, left = time.monotonic() + patience_s, set(held)
    while left and time.monotonic() < end:
        for fd, _ in poll.poll(1_000 * (end - time.monotonic())):
            poll.unregister(fd)
            left.discard(fd)
    for fd in left:
        _send(fd, signal.SIGKILL)


def _send(fd: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, number)


if __name__ == "__main__":
    if hasattr(os, "pidfd_open"):
        watch(sys.stdin)
    else:
        sys.stdin.read()
