"""Nodes of a bench as forked processes on loopback: real libp2p, one clock, one result each.

    run(size, job) ── fork ──► node 0 … n−1: full mesh, then `job(node)` from a common moment on
                   ◄────────── what each job returned, as JSON, with memory and CPU

All share this machine, and CLOCK_MONOTONIC.
"""

import json
import os
import signal
import statistics
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import structlog
import trio
from libp2p.network.swarm import Swarm

from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_text
from p2p.port import Inbound
from tests.support.p2p_contract import id_of, seed_of
from tests.support.p2p_ports import free_ports

LOOK_S = 0.23
"""How often a node looks how much it holds; in step with nothing that a node does."""
LINKED_S = 60.0
"""How long a full mesh may take on a crowded machine; nothing is measured before."""
MESHED_S = 2.5
"""Gossip meshes form at a heartbeat of one second."""


@dataclass
class Holdings:
    """Memory in MiB, tasks and streams of a node, looked at again and again."""

    memory: list[float] = field(default_factory=list)
    tasks: list[float] = field(default_factory=list)
    streams: list[float] = field(default_factory=list)

    async def watch(self, network: Libp2pNetwork) -> None:
        """Look until cancelled."""
        while True:
            self.memory.append(resident())
            self.tasks.append(trio.lowlevel.current_statistics().tasks_living)
            self.streams.append(streams_of(network))
            await trio.sleep(LOOK_S)


@dataclass
class Node:
    """One node of a run, in its own process."""

    index: int
    size: int
    network: Libp2pNetwork
    start: float

    async def until(self, seconds: float) -> None:
        """Wait until so long after the start."""
        await trio.sleep(max(0.0, self.start + seconds - time.monotonic()))


Job = Callable[[Node], Awaitable[dict[str, Any]]]


def stamp(number: int, size: int) -> bytes:
    """Return a frame of `size` bytes that says when it left."""
    return struct.pack(">dI", time.monotonic(), number) + bytes(size - 12)


def age(item: Inbound) -> float:
    """Return how long a stamped frame was under way, in seconds."""
    sent: float = struct.unpack(">d", item.frame[:8])[0]
    return time.monotonic() - sent


def resident() -> float:
    """Return MiB held by this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def streams_of(network: Libp2pNetwork) -> int:
    """Return the streams open on all connections of a node."""
    if network._host is None:
        return 0
    swarm = network._host.get_network()
    assert isinstance(swarm, Swarm)
    return sum(len(connection.get_streams()) for connection in swarm.get_connections())


def drift(series: Sequence[float]) -> float:
    """Return by how much the typical value of the last quarter is above that of the second.

    A moment does not count: a link that a crowded machine lost and made again is no leak.
    """
    quarter = len(series) // 4
    late, early = series[-quarter:], series[quarter : 2 * quarter]
    return statistics.median(late) - statistics.median(early)


def percentile_ms(values: Sequence[float], share: float) -> float:
    """Return a percentile in milliseconds of values in seconds."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 9e9


def _child(
    index: int, size: int, ports: list[int], job: Job, told: int, tell: int
) -> dict[str, Any]:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    known = tuple(
        f"/ip4/127.0.0.1/tcp/{ports[i]}/p2p/{peer_id_text(id_of(i))}"
        for i in range(size)
        if i != index
    )
    network = Libp2pNetwork(seed_of(index), f"/ip4/127.0.0.1/tcp/{ports[index]}", known)
    members = frozenset(map(id_of, range(size)))
    network.allow(members, frozenset())

    async def main() -> dict[str, Any]:
        async with trio.open_nursery() as nursery:
            await nursery.start(network.run)
            with trio.fail_after(LINKED_S):
                while not all(map(network.is_linked, members - {network.me})):  # noqa: ASYNC110
                    await trio.sleep(0.05)
            os.write(tell, b".")
            os.close(tell)  # once nobody holds it, whoever did not write is dead
            start = await trio.to_thread.run_sync(os.read, told, 8)
            node = Node(index, size, network, struct.unpack(">d", start)[0])
            await node.until(0.0)
            cpu = time.process_time()
            result = await job(node)
            result |= {"cpu": time.process_time() - cpu, "rss": resident()}
            nursery.cancel_scope.cancel()
        return result

    return trio.run(main)


class Crowded(Exception):
    """The nodes did not get as far as measuring."""


def run(size: int, job: Job) -> list[dict[str, Any]]:
    """Fork `size` nodes, run a job on all from a common moment on, and return their results.

    Raises:
        Crowded: a node found no full mesh in time, or ended early.
    """
    ports = free_ports(size)
    ready, tell = os.pipe()
    children, starts, results = [], [], []
    for index in range(size):
        told, start = os.pipe()
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                result = _child(index, size, ports, job, told, tell)
                os.write(writes, json.dumps(result).encode())
            finally:
                os._exit(0)
        os.close(told)
        os.close(writes)
        children.append(child)
        starts.append(start)
        results.append(os.fdopen(reads))
    os.close(tell)
    try:
        for _ in range(size):
            if not os.read(ready, 1):
                raise Crowded(f"{size} nodes were not linked within {LINKED_S:g} s")
        moment = struct.pack(">d", time.monotonic() + MESHED_S)
        for start in starts:
            os.write(start, moment)
        return [_result(source) for source in results]
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        for descriptor in (*starts, ready):
            os.close(descriptor)
        for source in results:
            source.close()


def _result(source: TextIO) -> dict[str, Any]:
    text = source.read()
    if not text:
        raise Crowded("a node ended early")
    result: dict[str, Any] = json.loads(text)
    return result
