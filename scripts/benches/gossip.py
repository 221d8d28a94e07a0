"""Direct streams and gossip at n = 4, 7, 16 with js-libp2p beside them in the same run.

Every node is a process; all share this machine. Latency is CLOCK_MONOTONIC from send to receive
across processes; CPU is user plus system of the nodes over remote deliveries. `--quick` leaves out
n = 16 and shortens the soak.
"""

import json
import os
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from keeper.hashing import keccak
from p2p.agreement.quorum import quorum
from p2p.agreement.signing import EcdsaSigner, recover
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_text
from p2p.port import Inbound, Road, Topic
from scripts.benches._figure import at_least, at_most, figure
from tests.support.p2p_contract import id_of, seed_of
from tests.support.p2p_js import JsNode, missing
from tests.support.p2p_ports import free_ports

BYTES = 1024
PROPOSE, PREPARE, COMMIT = 0, 1, 2
Job = Callable[["Node"], Any]


@dataclass
class Node:
    """One node of a run, in its own process."""

    index: int
    size: int
    network: Libp2pNetwork
    start: float

    def take(self, item: Inbound, trips: list[float]) -> None:
        """Note how long a stamped frame was under way."""
        trips.append(time.monotonic() - struct.unpack(">d", item.frame[:8])[0])


def child(index: int, size: int, ports: list[int], start: float, job: Job) -> dict[str, Any]:
    """Run one node and return what its job measured."""
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
            others = members - {network.me}
            with trio.move_on_after(30):
                while not all(map(network.is_linked, others)):  # noqa: ASYNC110  # start only
                    await trio.sleep(0.05)
            node = Node(index, size, network, start)
            await trio.sleep(max(0.0, start - time.monotonic()))
            result: dict[str, Any] = await job(node)
            result["rss"] = resident()
            nursery.cancel_scope.cancel()
        return result

    return trio.run(main)


def resident() -> float:
    """Return MiB held by this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20


def run(size: int, job: Job, setup_s: float) -> list[dict[str, Any]]:
    """Fork `size` nodes, run a job on all, and return their results."""
    ports, start = free_ports(size), time.monotonic() + setup_s
    pipes = []
    for index in range(size):
        reads, writes = os.pipe()
        if os.fork() == 0:
            os.close(reads)
            result = child(index, size, ports, start, job)
            with os.fdopen(writes, "w") as out:
                json.dump(result, out)
            os._exit(0)
        os.close(writes)
        pipes.append(reads)
    results = []
    for reads in pipes:
        with os.fdopen(reads) as source:
            results.append(json.load(source))
    for _ in range(size):
        os.wait()
    return results


def rounds(pace_s: float, count: int) -> Job:
    """Return a job: three hops of signed messages, propose, prepare by q, commit by q."""

    async def job(node: Node) -> dict[str, Any]:
        signer, took = EcdsaSigner(seed_of(node.index)), []
        votes: Counter[tuple[int, int]] = Counter()
        needed = quorum(node.size)

        def say(kind: int, number: int, stamp: float) -> None:
            body = struct.pack(">BId", kind, number, stamp) + bytes(
                BYTES if kind == PROPOSE else 64
            )
            node.network.broadcast(body + signer.sign(keccak(body)))
            hear(kind, number, stamp)

        def hear(kind: int, number: int, stamp: float) -> None:
            if kind == PROPOSE:
                say(PREPARE, number, stamp)
                return
            votes[kind, number] += 1
            if votes[kind, number] == needed:
                if kind == PREPARE:
                    say(COMMIT, number, stamp)
                else:
                    took.append(time.monotonic() - stamp)

        async def listen() -> None:
            while True:
                item = await node.network.inbox.receive()
                body, signature = item.frame[:-64], item.frame[-64:]
                assert recover(keccak(body), signature) is not None
                hear(*struct.unpack(">BId", body[:13]))

        cpu = time.process_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for number in range(count):
                await trio.sleep(max(0.0, node.start + number * pace_s - time.monotonic()))
                if number % node.size == node.index:
                    say(PROPOSE, number, time.monotonic())
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        return {"took": took, "cpu": time.process_time() - cpu}

    return job


def stream(rate: float, seconds: float, gossip: bool) -> Job:
    """Return a job: stamped messages at a rate, over one of the roads."""

    async def job(node: Node) -> dict[str, Any]:
        trips: list[float] = []

        async def listen() -> None:
            while True:
                node.take(await node.network.inbox.receive(), trips)

        count = int(rate * seconds)
        tasks: list[int] = []
        memory: list[float] = []
        cpu = time.process_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for number in range(count):
                await trio.sleep(max(0.0, node.start + number / rate - time.monotonic()))
                frame = struct.pack(">dI", time.monotonic(), number) + bytes(BYTES - 12)
                if gossip:
                    node.network.publish(Topic.BIDS, frame)
                else:
                    node.network.broadcast(frame)
                if number % max(1, count // 20) == 0:
                    tasks.append(trio.lowlevel.current_statistics().tasks_living)
                    memory.append(resident())
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        return {
            "trips": trips, "sent": count, "cpu": time.process_time() - cpu,
            "tasks": tasks, "memory": memory,
        }  # fmt: skip

    return job


def percentile(values: list[float], share: float) -> float:
    """Return a percentile in milliseconds."""
    ordered = sorted(values)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 9e9


def report(name: str, size: int, results: list[dict[str, Any]]) -> tuple[float, float, float]:
    """Print rate, loss and latency of a stream run; return (lost share, p99 ms, CPU ms)."""
    trips = [trip for result in results for trip in result["trips"]]
    due = sum(result["sent"] for result in results) * (size - 1)
    cpu = 1000 * sum(result["cpu"] for result in results) / max(1, len(trips))
    lost, p99 = 1 - len(trips) / due, percentile(trips, 0.99)
    figure(f"{name} n={size} deliveries", len(trips), "messages")
    figure(f"{name} n={size} p50", percentile(trips, 0.5), "ms")
    figure(f"{name} n={size} memory of a node", max(r["rss"] for r in results), "MiB")
    return lost, p99, cpu


def js_stream(size: int, rate: float, seconds: float) -> list[dict[str, Any]]:
    """Run the gossip stream on js-libp2p nodes."""
    ports = free_ports(size)
    nodes = [JsNode(seed_of(i), ports[i], Topic.BIDS) for i in range(size)]
    try:
        for node in nodes:
            node.until("ready")
        for i, node in enumerate(nodes):
            for j in range(i):
                node.tell(dial=f"/ip4/127.0.0.1/tcp/{ports[j]}/p2p/{peer_id_text(id_of(j))}")
                node.until("dialled")
        deadline = time.monotonic() + 20
        for node in nodes:
            while time.monotonic() < deadline:
                node.tell(peers=True)
                if node.until("peers")["mesh"] == size - 1:
                    break
                time.sleep(0.1)
        for node in nodes:
            node.tell(measure={"rate": rate, "seconds": seconds, "bytes": BYTES})
        results = [node.until("sent") for node in nodes]
    finally:
        for node in nodes:
            node.stop()
    for result in results:
        result["rss"] /= 2**20
    return results


def compare(size: int, rate: float, seconds: float, js: bool) -> None:
    """Print direct, gossip and js figures of one size, with the goals that apply to it."""
    setup = 4 + size
    lost, p99, direct_cpu = report("direct", size, run(size, stream(rate, seconds, False), setup))
    at_most(f"direct n={size} lost", lost, "share", 0)
    figure(f"direct n={size} p99", p99, "ms")
    at_most(f"direct n={size} CPU per delivery", direct_cpu, "ms", 0.4)
    lost, p99, gossip_cpu = report("gossip", size, run(size, stream(rate, seconds, True), setup))
    (at_most if size == 7 else _plain)(f"gossip n={size} lost", lost, "share", 0)
    (at_most if size == 7 else _plain)(f"gossip n={size} p99", p99, "ms", 50)
    figure(f"gossip n={size} CPU per delivery", gossip_cpu, "ms")
    if js:
        lost, p99, js_cpu = report("js-libp2p gossip", size, js_stream(size, rate, seconds))
        figure(f"js-libp2p gossip n={size} lost", lost, "share")
        figure(f"js-libp2p gossip n={size} p99", p99, "ms")
        figure(f"js-libp2p gossip n={size} CPU per delivery", js_cpu, "ms")
        at_most(f"direct n={size} CPU against js-libp2p", direct_cpu / js_cpu, "ratio", 0.5)
        at_most(f"gossip n={size} CPU against js-libp2p", gossip_cpu / js_cpu, "ratio", 0.8)


def _plain(name: str, value: float, unit: str, limit: float) -> bool:
    del limit
    return figure(name, value, unit)


def hops(size: int, limit: float | None, pace_s: float, count: int) -> None:
    """Print the latency of three signed hops."""
    results = run(size, rounds(pace_s, count), 4 + size)
    took = [value for result in results for value in result["took"]]
    at_least(f"three signed hops n={size} decided", len(took) / (count * size), "share", 1)
    figure(f"three signed hops n={size} p50", percentile(took, 0.5), "ms")
    name, p99 = f"three signed hops n={size} p99", percentile(took, 0.99)
    if limit is None:
        figure(name, p99, "ms")
    else:
        at_most(name, p99, "ms", limit)


def soak(seconds: float) -> None:
    """Print how memory and tasks move under traffic."""
    results = run(4, stream(20, seconds, True), 8)
    drift = [r["memory"][-1] - r["memory"][len(r["memory"]) // 4] for r in results]
    at_most(f"memory drift over {seconds:g} s of gossip", max(map(abs, drift)), "MiB", 5)
    change = max(abs(r["tasks"][-1] - r["tasks"][len(r["tasks"]) // 4]) for r in results)
    at_most(f"task drift over {seconds:g} s of gossip", change, "tasks", 3)
    at_most("memory of a node after the soak", max(r["rss"] for r in results), "MiB", 110)


def flood() -> None:
    """Print how honest traffic feels a flood of garbage."""
    from p2p.port import Role
    from tests.support.p2p_arena import FLOOR_S, Arena
    from tests.support.p2p_attacker import Attacker

    async def garbage(attacker: Attacker) -> None:
        link = await attacker.stream(Road.CONSENSUS)
        while True:
            await link.write(b"\x00\x00\x00\x0a\x02\x01" + bytes(8))
            await trio.sleep(0.0005)

    arena = Arena()
    try:
        seen = arena.attack(garbage, Role.COMMITTEE, seconds=3).attacked
    finally:
        arena.stop()
    ratio = seen["p99"] / max(seen["twin_p99"], FLOOR_S)
    at_most("honest p99 in a flood of garbage against an unharmed twin", ratio, "ratio", 2)


def main() -> None:
    """Print every figure."""
    quick, reason = "--quick" in sys.argv, missing()
    if reason:
        sys.stderr.write(f"without js-libp2p: {reason}\n")
    hops(4, 15, 0.2, 60)
    hops(7, 60, 0.2, 60)
    compare(4, 20, 5, not reason)
    compare(7, 20, 5, not reason)
    if not quick:
        hops(16, None, 0.5, 30)
        compare(16, 2, 5, not reason)
    flood()
    soak(10 if quick else 60)


if __name__ == "__main__":
    main()
