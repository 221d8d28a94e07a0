"""A victim, its unharmed twin and an honest peer as processes of their own, driven over pipes.

    pytest (attacker) ──TCP──► victim ◄──TCP──┐
            │                                 ├── honest: a stamped frame each 10 ms, echoed
            │                  twin   ◄──TCP──┘
            └── commands as JSON lines to all three

The victim runs the whole transport and the agreement shell. The honest peer measures both at the
same time, so what the machine does to everybody is not blamed on the attack.
"""

import json
import os
import sys
import time
from typing import Any

import structlog
import trio
import trio.lowlevel

from keeper.hashing import keccak
from keeper.metrics import Metrics
from p2p.agreement.core import Agreement
from p2p.agreement.effects import Timing
from p2p.agreement.log import MemoryLog
from p2p.agreement.signing import EcdsaSigner
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_text
from p2p.port import Limits
from p2p.service import AgreementService, Channel
from p2p.types import Committee, Member
from p2p.verdicts import ACCEPT, Verdict
from tests.support.agreement_cluster import ToyApplication
from tests.support.p2p_contract import PATIENCE_S, id_of, seed_of

VICTIM, HONEST, TWIN = 0, 1, 2
MEMBERS = (3, 4, 5)
"""Hostile members of the agreement; each attacks once, because its ban outlives a test."""
PACE_S = 0.01
LIMITS = Limits(followers=4)


def committee() -> Committee:
    """Return the committee of victim, honest peer and the members that attack as such."""
    members = tuple(
        Member(EcdsaSigner(seed_of(index)).address, id_of(index))
        for index in (VICTIM, HONEST, *MEMBERS)
    )
    return Committee(keccak(b"arena"), 1, members, keccak(b"parameters"))


def resident_bytes() -> int:
    """Return the memory this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


class Victim:
    """Echoes what the honest peer sends and tells how it is."""

    def __init__(self, port: int, index: int) -> None:
        self.metrics = Metrics()
        self.network = Libp2pNetwork(
            seed_of(index), f"/ip4/127.0.0.1/tcp/{port}", (), LIMITS, self.metrics
        )
        self.allow([], [])
        log = MemoryLog()
        core = Agreement(
            committee(), VICTIM, EcdsaSigner(seed_of(VICTIM)),
            ToyApplication(committee().config), log, Timing(genesis=time.time() + 3600),
        )  # fmt: skip
        self.service = AgreementService(
            core, self.network, log, lambda _effect: None, lambda _observation: True,
            {Channel.SEALING: self.echo},
        )  # fmt: skip

    def echo(self, peer: bytes, frame: bytes) -> Verdict:
        self.network.send(peer, bytes((Channel.SEALING,)) + frame)
        return ACCEPT

    def allow(self, members: list[str], bonded: list[str]) -> None:
        self.network.allow(
            frozenset({id_of(HONEST), *map(bytes.fromhex, members)}),
            frozenset(map(bytes.fromhex, bonded)),
        )

    def stats(self) -> dict[str, Any]:
        return {
            "rss": resident_bytes(),
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "peers": {
                row.peer.hex(): {
                    "standing": row.standing.value,
                    "connected": row.connected,
                    "score": row.score,
                    "drops": {reason.value: count for reason, count in row.drops},
                }
                for row in self.network.peers()
            },
            "metrics": {
                line.split(" ")[0]: float(line.split(" ")[1])
                for line in self.metrics.exposition().decode().splitlines()
                if line.startswith(("keeper_p2p_denied", "keeper_p2p_cut", "keeper_p2p_restarts"))
            },
        }

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.network.run)
            await nursery.start(self.service.run)
            say({"ready": True})
            async for line in lines():
                if "allow" in line:
                    self.allow(line["allow"], line.get("bonded", []))
                await trio.lowlevel.checkpoint()
                say(self.stats())
            nursery.cancel_scope.cancel()


class Honest:
    """Sends stamped frames to victim and twin and measures their way there and back."""

    def __init__(self, port: int, victim: int, twin: int) -> None:
        known = tuple(
            f"/ip4/127.0.0.1/tcp/{other}/p2p/{peer_id_text(id_of(index))}"
            for index, other in ((VICTIM, victim), (TWIN, twin))
        )
        self.network = Libp2pNetwork(seed_of(HONEST), f"/ip4/127.0.0.1/tcp/{port}", known, LIMITS)
        self.network.allow(frozenset(map(id_of, (VICTIM, HONEST, TWIN))), frozenset())
        self.trips: dict[bytes, dict[int, float]] = {id_of(VICTIM): {}, id_of(TWIN): {}}

    async def listen(self) -> None:
        while True:
            item = await self.network.inbox.receive()
            if item.frame[:1] == bytes((Channel.SEALING,)):
                number, at = json.loads(item.frame[1:])
                self.trips[item.peer][number] = time.monotonic() - at

    async def measure(self, seconds: float) -> dict[str, Any]:
        for trips in self.trips.values():
            trips.clear()
        count = int(seconds / PACE_S)
        began = trio.current_time()
        for number in range(count):
            await trio.sleep_until(began + number * PACE_S)
            for peer in self.trips:
                stamp = json.dumps([number, time.monotonic()]).encode()
                self.network.send(peer, bytes((Channel.SEALING,)) + stamp)
        with trio.move_on_after(PATIENCE_S):
            while any(len(trips) < count for trips in self.trips.values()):  # noqa: ASYNC110
                await trio.sleep(0.01)
        victim, twin = (sorted(self.trips[id_of(index)].values()) for index in (VICTIM, TWIN))
        return {
            "sent": count,
            "back": len(victim),
            "p99": victim[len(victim) * 99 // 100] if victim else 9.0,
            "twin_p99": twin[len(twin) * 99 // 100] if twin else 9.0,
        }

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.network.run)
            nursery.start_soon(self.listen)
            with trio.fail_after(60):
                while not all(map(self.network.is_linked, self.trips)):  # noqa: ASYNC110
                    await trio.sleep(0.02)
            say({"ready": True})
            async for line in lines():
                say(await self.measure(line["measure"]))
            nursery.cancel_scope.cancel()


def say(value: dict[str, Any]) -> None:
    """Print one JSON line."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def lines() -> Any:
    """Yield the commands of the test, one JSON line each, until it hangs up."""
    async with trio.lowlevel.FdStream(sys.stdin.fileno()) as stdin:
        buffer = b""
        async for chunk in stdin:
            buffer += chunk
            while b"\n" in buffer:
                line, buffer = buffer.split(b"\n", 1)
                yield json.loads(line)


def play(part: str, ports: list[int]) -> None:
    """Run one part in this process."""
    victim, twin, honest = ports
    if part == "victim":
        trio.run(Victim(victim, VICTIM).run)
    elif part == "twin":
        trio.run(Victim(twin, TWIN).run)
    else:
        trio.run(Honest(honest, victim, twin).run)


PARTS = ("victim", "twin", "honest")


def main() -> None:
    """Import once, then fork the three parts: importing costs more than an attack.

    Arguments: the ports, then the descriptor pairs each part reads and writes.
    """
    numbers = [int(argument) for argument in sys.argv[1:]]
    ports, pairs = numbers[:3], list(zip(numbers[3::2], numbers[4::2], strict=True))
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    children = []
    for part, (reads, writes) in zip(PARTS, pairs, strict=True):
        child = os.fork()
        if child == 0:
            os.dup2(reads, 0)
            os.dup2(writes, 1)
            for descriptor in numbers[3:]:
                os.close(descriptor)
            play(part, ports)
            return
        children.append(child)
    for descriptor in numbers[3:]:
        os.close(descriptor)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
