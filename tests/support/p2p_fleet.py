"""Keepers as real processes: transport and agreement, driven and watched over pipes.

    test ── JSON lines ──► zygote (imports once) ── fork ──► node 0, node 1, …
         ◄──────────── states, one line each 50 ms, on one shared pipe ──────┘

A node is what production runs below the application: libp2p host, agreement shell, SQLite log. Its
blocks mean nothing (`ToyApplication`). Killing is SIGKILL; a restarted node has the same identity,
port and log. Times are CLOCK_MONOTONIC, which all processes share.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
import trio

from keeper.hashing import keccak
from keeper.store import Store
from p2p.agreement.core import Agreement
from p2p.agreement.effects import Effect, Finalized, Timing
from p2p.agreement.history import finalized_since
from p2p.agreement.log import MemoryLog, Opened, StoreLog
from p2p.agreement.signing import EcdsaSigner, sign_observation
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_text
from p2p.port import Limits
from p2p.scorebook import StoredScores
from p2p.service import AgreementService
from p2p.sync import Follower, HistoryServer
from p2p.types import Committee, Member
from tests.support.agreement_cluster import ToyApplication
from tests.support.p2p_contract import id_of, seed_of
from tests.support.p2p_ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
TICK_S = 0.3
STATE_S = 0.05


def committee_of(size: int) -> Committee:
    """Return the committee of the first nodes."""
    members = tuple(
        Member(EcdsaSigner(seed_of(index)).address, id_of(index)) for index in range(size)
    )
    return Committee(keccak(b"fleet"), 1, members, keccak(b"parameters"))


class Node:
    """One keeper, or a follower if its index is beyond the committee."""

    def __init__(self, index: int, size: int, ports: list[int], home: str, genesis: float) -> None:
        self.index, self.committee = index, committee_of(size)
        self.store = Store(f"{home}/{index}.db")
        bootstrap = 0 if index else 1
        known = (f"/ip4/127.0.0.1/tcp/{ports[bootstrap]}/p2p/{peer_id_text(id_of(bootstrap))}",)
        self.network = Libp2pNetwork(
            seed_of(index), f"/ip4/127.0.0.1/tcp/{ports[index]}", known, Limits(followers=4),
            None, StoredScores(self.store),
        )  # fmt: skip
        self.members = frozenset(map(id_of, range(size)))
        self.network.allow(self.members, frozenset())
        self.timing = Timing(genesis, TICK_S, bound_s=0.15, heartbeat_s=0.3)
        self.final: tuple[int, str] = (0, "")
        self.chain: dict[int, str] = {}

    def tell(self, effect: Effect) -> None:
        if isinstance(effect, Finalized):
            self.final = (effect.view, effect.digest.hex())
            self.chain[effect.view] = effect.digest.hex()

    async def keep(self, nursery: trio.Nursery) -> None:
        signer = EcdsaSigner(seed_of(self.index))
        log = StoreLog(self.store)
        if not log.restore(1, self.committee.config).opened:
            log.write((Opened(self.committee.config),))
        application = ToyApplication(self.committee.config)
        for final in finalized_since(log, 1, 0):
            application.states.add(final.digest)
            self.tell(final)
        core = Agreement(self.committee, self.index, signer, application, log, self.timing)
        service = AgreementService(core, self.network, log, self.tell, lambda _seen: True)
        HistoryServer(log, lambda: 1).attach(self.network)
        await nursery.start(service.run)
        roots = (bytes(32), bytes(32), bytes(32))
        while True:
            tick = self.timing.tick_at(time.time()) + 1
            await trio.sleep(max(0.0, self.timing.start_of(tick) - time.time()))
            await service.observe(sign_observation(self.committee, signer, tick, roots, b""))

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(self.network.run)
            self.say(listening=True)
            nursery.start_soon(self.report)
            nursery.start_soon(self.obey)
            if self.index < self.committee.size:
                await self.keep(nursery)
            else:
                follower = Follower(self.committee, self.network, MemoryLog(), self.tell)
                await nursery.start(follower.run)

    def say(self, **state: Any) -> None:
        line = json.dumps({"node": self.index, "at": time.monotonic(), **state}) + "\n"
        os.write(1, line.encode())

    async def report(self) -> None:
        while True:
            linked = [i for i in range(len(self.members)) if self.network.is_linked(id_of(i))]
            self.say(linked=linked, final=self.final[0], digest=self.final[1])
            await trio.sleep(STATE_S)

    async def obey(self) -> None:
        async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
            async for chunk in stdin:
                for line in chunk.splitlines():
                    others = frozenset(map(id_of, json.loads(line)))
                    self.network.allow(others, frozenset())


def main() -> None:
    """Be the zygote: fork, signal and address nodes as told."""
    size, genesis, home = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    ports = [int(argument) for argument in sys.argv[4:]]
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    children: dict[int, tuple[int, int]] = {}
    for line in sys.stdin:
        verb, index, *rest = json.loads(line)
        if verb == "start":
            reads, writes = os.pipe()
            child = os.fork()
            if child == 0:
                os.dup2(reads, 0)
                os.close(writes)
                trio.run(Node(index, size, ports, home, genesis).run)
                return
            os.close(reads)
            children[index] = (child, writes)
        elif verb == "signal":
            os.kill(children[index][0], rest[0])
            if rest[0] == signal.SIGKILL:
                os.waitpid(children.pop(index)[0], 0)
        elif verb == "tell":
            os.write(children[index][1], (json.dumps(rest[0]) + "\n").encode())
    for child, _ in children.values():
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


class Crowding:
    """How many times slower than alone this machine runs us, felt by a little work now and then."""

    def __init__(self) -> None:
        self._wall = self._cpu = self._felt_at = 0.0

    def feel(self) -> None:
        """Work for two milliseconds, at most every fifty."""
        wall, cpu = time.monotonic(), time.process_time()
        if wall - self._felt_at < 0.05:
            return
        while time.process_time() - cpu < 0.002:
            sum(range(100))
        self._felt_at = time.monotonic()
        self._wall += self._felt_at - wall
        self._cpu += time.process_time() - cpu

    @property
    def factor(self) -> float:
        """Return wall time over CPU time of that work; 1 on a machine with room."""
        return max(1.0, self._wall / self._cpu) if self._cpu else 1.0


class Fleet:
    """The test's side."""

    def __init__(self, size: int, home: Path, followers: int = 0) -> None:
        self.size = size
        ports = [str(port) for port in free_ports(size + followers)]
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "tests.support.p2p_fleet",
                str(size), str(time.time()), str(home), *ports,
            ],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.states: dict[int, dict[str, Any]] = {}
        self.chains: dict[int, dict[int, str]] = {}
        self.linked_at: dict[int, float] = {}
        self.listening_at: dict[int, float] = {}
        self.crowding = Crowding()
        """Of the last wait."""
        self._buffer = b""

    def order(self, *words: Any) -> None:
        """Tell the zygote."""
        assert self.process.stdin is not None
        self.process.stdin.write((json.dumps(words) + "\n").encode())
        self.process.stdin.flush()

    def start(self, *indices: int) -> None:
        """Start nodes."""
        for index in indices:
            self.states.pop(index, None)
            self.listening_at.pop(index, None)
            self.order("start", index)

    def until(self, fact: Callable[[], Any], within: float) -> None:
        """Read states until a fact holds.

        Raises:
            AssertionError: it did not in time.
        """
        assert self.process.stdout is not None
        source, deadline = self.process.stdout.fileno(), time.monotonic() + within
        self.crowding = Crowding()
        while not fact():
            self.crowding.feel()
            left = deadline - time.monotonic()
            assert left > 0, (within, self.states)
            if select.select([source], [], [], left)[0]:
                self._buffer += os.read(source, 65536)
                *lines, self._buffer = self._buffer.split(b"\n")
                for line in lines:
                    self._took(json.loads(line))

    def _took(self, state: dict[str, Any]) -> None:
        node = state["node"]
        if "listening" in state:
            self.listening_at[node] = state["at"]
            return
        self.states[node] = state
        if state["final"]:
            self.chains.setdefault(node, {})[state["final"]] = state["digest"]

    def meshed(self, *indices: int) -> bool:
        """Return whether these nodes are all linked with each other."""
        wanted = set(indices)
        return all(
            wanted - {i} <= set(self.states.get(i, {"linked": []})["linked"]) for i in wanted
        )

    def reached(self, view: int, *indices: int) -> bool:
        """Return whether these nodes have a final view at least so high."""
        return all(self.states.get(i, {"final": 0})["final"] >= view for i in indices)

    def top(self) -> int:
        """Return the highest final view seen."""
        return max((state["final"] for state in self.states.values()), default=0)

    def check_one_chain(self) -> None:
        """Assert that no two nodes finalised different blocks in a view."""
        merged: dict[int, str] = {}
        for chain in self.chains.values():
            for view, digest in chain.items():
                assert merged.setdefault(view, digest) == digest, f"two blocks in view {view}"

    def stop(self) -> None:
        """End everything."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process.stdout.close()


if __name__ == "__main__":
    main()
