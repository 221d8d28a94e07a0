"""A devnet that is killed leaves no process behind."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keeper.devnet.warden import watch

ROOT = Path(__file__).resolve().parents[2]
PARENT = """
import subprocess, sys, trio
from keeper.devnet.warden import run_warden

async def main():
    async with run_warden() as guard:
        children = [subprocess.Popen(command) for command in COMMANDS]
        for child in children[1:]:
            await guard(child.pid)
        print(*[child.pid for child in children], flush=True)
        END

trio.run(main)
"""
SLEEPER = ["sleep", "600"]
DEAF = ["sh", "-c", "trap '' TERM; echo deaf; read nothing"]

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="wardens need Linux")


@contextmanager
def parent(end: str, *commands: list[str]) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process with a warden: its first child is not guarded, the others are. Yields pidfds."""
    code = PARENT.replace("COMMANDS", repr(list(commands))).replace("END", end)
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        pids = [int(text) for text in process.stdout.readline().split()]
        held = [os.pidfd_open(pid) for pid in pids]
        try:
            yield process, held
        finally:
            process.kill()
            for fd in held:
                if not ended(fd, 0):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                os.close(fd)


def ended(fd: int, seconds: float = 30) -> bool:
    """Return whether a process has ended, waiting for it that long."""
    return bool(select.select([fd], [], [], seconds)[0])


def test_what_a_killed_devnet_started_ends() -> None:
    with parent("await trio.sleep_forever()", SLEEPER, SLEEPER, SLEEPER) as (process, held):
        stranger, *guarded = held
        assert not any(ended(fd, 0) for fd in held)
        process.kill()
        assert all(ended(fd) for fd in guarded)
        assert not ended(stranger, 0), "nobody named it"


def test_who_does_not_listen_is_killed() -> None:
    with subprocess.Popen(DEAF, stdin=-1, stdout=-1) as deaf:
        assert deaf.stdout is not None
        assert deaf.stdout.readline() == b"deaf\n"
        watch([f"{deaf.pid}\n"], patience_s=0.2)
        assert deaf.wait(timeout=30) == -signal.SIGKILL


def test_an_orderly_end_waits_for_nobody() -> None:
    end = "[child.kill() for child in children]; [child.wait() for child in children]"
    with parent(end, SLEEPER, SLEEPER) as (process, held):
        assert process.wait(timeout=30) == 0
        assert all(ended(fd, 0) for fd in held)
