"""The machine: hash backend, engines, disk, clock."""

import os
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from keeper import hashing
from keeper.margin import batch
from keeper.node.doctor.finding import Finding, bad, fine, odd

SYNCS = 21
SLOW_SYNC_S, DEAD_SYNC_S = 0.02, 0.2
"""A vote costs one sync: at 20 ms a view still ends in its tick, at 200 ms it does not."""
LEAST_FREE, FEW_FREE = 256 * 2**20, 2 * 2**30
"""Bytes free: a day of journals; a month."""
AHEAD_S = 2
"""A block from the future by more means that the clock here is behind."""
OLD_HEAD_S = 120
"""When every chain's newest block looks older, either all stand still or the clock is ahead."""


def keccak(backend: str = hashing.BACKEND) -> Finding:
    """Judge the keccak that was chosen at import."""
    if backend == "tiny-keccak":
        return fine("keccak", backend)
    return odd(
        "keccak",
        f"{backend} is several times slower than tiny-keccak",
        "pip install tiny-keccak",
    )


def engines(names: Sequence[str] | None = None) -> Finding:
    """Judge which margin engines can run."""
    names = batch.available() if names is None else names
    said = ", ".join(names)
    if batch.NUMBA in names:
        return fine("engines", said)
    return odd(
        "engines",
        f"{said}; books of many thousand accounts are slower than with numba",
        "pip install 'flowkeeper[fast]'",
    )


def sync_times(folder: Path) -> list[float]:
    """Return how long writing and syncing one page takes there, seconds a time."""
    path = folder / ".doctor"
    took = []
    try:
        with path.open("wb") as file:
            for _ in range(SYNCS):
                start = time.perf_counter()
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
                took.append(time.perf_counter() - start)
    finally:
        path.unlink(missing_ok=True)
    return took


def disk_sync(took: Sequence[float]) -> Finding:
    """Judge the latency of a durable write."""
    middle = statistics.median(took)
    said = f"a durable write takes {middle * 1000:.1f} ms (worst {max(took) * 1000:.1f} ms)"
    remedy = "put the home on a local disk with a write cache that survives power loss"
    if middle > DEAD_SYNC_S:
        return bad("disk_sync", f"{said}: votes would come too late", remedy)
    if middle > SLOW_SYNC_S:
        return odd("disk_sync", said, remedy)
    return fine("disk_sync", said)


def disk_space(free: int) -> Finding:
    """Judge the room on the home's disk."""
    said = f"{free / 2**30:.1f} GiB free"
    if free < LEAST_FREE:
        return bad("disk_space", said, "make room: a full disk stops the journal and the node")
    return (
        odd("disk_space", said, "make room soon") if free < FEW_FREE else fine("disk_space", said)
    )


def clock(now: float, heads: Sequence[int]) -> Finding:
    """Judge the clock by the newest blocks of all chains.

    Args:
        now: unix seconds here.
        heads: timestamps of the newest block of each chain that answered.
    """
    remedy = "let chrony or systemd-timesyncd keep the clock"
    if not heads:
        return odd("clock", "no chain answered to compare it with", "mend the endpoints first")
    ahead = max(heads) - now
    if ahead > AHEAD_S:
        return bad("clock", f"a block is {ahead:.0f} s in the future: this clock is behind", remedy)
    if -ahead > OLD_HEAD_S:
        return odd(
            "clock",
            f"the newest block of all chains is {-ahead:.0f} s old: they stand still, or this "
            "clock is ahead",
            remedy,
        )
    return fine("clock", f"the newest block of all chains is {max(0, -ahead):.0f} s old")


def examine(home: Path) -> list[Finding]:
    """Measure and judge the machine."""
    found = [keccak(), engines()]
    if not home.is_dir():
        return found  # the configuration's check says what to do
    try:
        found.append(disk_sync(sync_times(home)))
        found.append(disk_space(shutil.disk_usage(home).free))
    except OSError as error:
        found.append(
            bad("disk_sync", f"cannot write to the home: {error}", f"make {home} writable")
        )
    return found
