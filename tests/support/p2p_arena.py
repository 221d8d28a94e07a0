"""The arena of hostile tests: victim, twin and honest processes, and an attacker in ours.

Bounds: p99 of honest traffic with the victim at most twice that with the twin at the same time (a
p99 below 10 ms counts as 10 ms: below that the scheduler of a shared machine decides), nothing
honest lost, memory within 48 MiB, no task left. An attack that harms does so every time, so the
latency is judged by the best of three attempts; everything else by each.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
import trio.lowlevel

from keeper.reasons import Reason
from p2p.guards import NETWORK_FAULTS
from p2p.port import Role
from tests.support.p2p_attacker import Attacker
from tests.support.p2p_contract import PATIENCE_S, id_of, seed_of
from tests.support.p2p_ports import free_ports
from tests.support.p2p_victim import MEMBERS, PARTS, VICTIM

ROOT = Path(__file__).resolve().parents[2]
ATTACK_S = 1.5
FLOOR_S = 0.010
ATTEMPTS = 3
MEMORY_BYTES = 48 * 1024 * 1024
TASKS = 12
_fresh = itertools.count(10)

Attack = Callable[[Attacker], Awaitable[None]]


class Part:
    """One process of the arena, which answers JSON lines."""

    def __init__(self) -> None:
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        self.theirs = (reads, writes)
        self._input = os.fdopen(self._to, "w")
        self._output = os.fdopen(self._from)

    def tell(self, **command: Any) -> None:
        self._input.write(json.dumps(command) + "\n")
        self._input.flush()

    def read(self) -> dict[str, Any]:
        line = self._output.readline()
        assert line, "the process ended"
        value: dict[str, Any] = json.loads(line)
        return value

    def ask(self, **command: Any) -> dict[str, Any]:
        self.tell(**command)
        return self.read()

    def hang_up(self) -> None:
        self._input.close()

    def close(self) -> None:
        self._output.close()


@dataclass
class Outcome:
    """What an attack did."""

    attacker: bytes
    attacked: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]
    seen: dict[str, Any] = field(default_factory=dict)

    @property
    def drops(self) -> dict[str, int]:
        """Return what the victim holds against the attacker, by reason."""
        row = self.after["peers"].get(self.attacker.hex())
        return {} if row is None else dict(row["drops"])

    @property
    def standing(self) -> str:
        """Return the attacker's standing."""
        return str(self.after["peers"][self.attacker.hex()]["standing"])

    def denied(self, reason: Reason) -> float:
        """Return how many handshakes were refused for a reason during the attack."""
        name = f'keeper_p2p_denied_total{{reason="{reason.value}"}}'
        return float(self.after["metrics"].get(name, 0.0) - self.before["metrics"].get(name, 0.0))

    @property
    def is_slowed(self) -> bool:
        """Return whether honest traffic felt the attack."""
        limit = 2 * max(self.attacked["twin_p99"], FLOOR_S)
        return bool(self.attacked["p99"] > limit)

    def check_unharmed(self) -> None:
        """Assert that nobody honest felt it."""
        assert self.attacked["back"] == self.attacked["sent"], self.attacked
        assert not self.is_slowed, self.attacked
        assert self.after["rss"] - self.before["rss"] <= MEMORY_BYTES
        assert self.after["tasks"] - self.before["tasks"] <= TASKS
        restarts = "keeper_p2p_restarts_total"
        assert self.after["metrics"][restarts] == self.before["metrics"][restarts]

    def check_cut_off(self, reason: Reason) -> None:
        """Assert that the offender is named with this reason, and out."""
        assert self.drops.get(reason.value), self.drops
        assert self.standing == "refused", (self.standing, self.drops)


class Arena:
    """Victim and honest peer, for a whole session."""

    def __init__(self) -> None:
        ports = free_ports(3)
        self.port = ports[0]
        self.parts = [Part() for _ in PARTS]
        self.victim, _, self.honest = self.parts
        theirs = [descriptor for part in self.parts for descriptor in part.theirs]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.p2p_victim", *map(str, ports + theirs)],
            cwd=ROOT,
            pass_fds=theirs,
        )
        for descriptor in theirs:
            os.close(descriptor)
        for part in self.parts:
            part.read()
        self._members = iter(MEMBERS)

    def attack(
        self,
        attack: Attack,
        role: Role,
        seconds: float = ATTACK_S,
        until: Reason | None = None,
    ) -> Outcome:
        """Run an attack from fresh identities with a role, and return what it did.

        Args:
            attack: what the peer does, again and again.
            role: what it is to the victim.
            seconds: how long, while honest traffic is measured.
            until: it goes on, if need be, until this cuts it off; a crowded machine is slow.
        """
        outcome = self._attack(attack, bytes([0xA0, next(_fresh)]) * 16, role, seconds, until)
        for _ in range(ATTEMPTS - 1):
            if outcome.is_slowed:
                seed = bytes([0xA0, next(_fresh)]) * 16
                outcome = self._attack(attack, seed, role, seconds, until)
        return outcome

    def attack_as_member(self, attack: Attack, until: Reason | None = None) -> Outcome:
        """Run an attack from identities that are members of the agreement."""
        first = seed_of(next(self._members))
        outcome = self._attack(attack, first, Role.COMMITTEE, ATTACK_S, until)
        for member in self._members:
            if outcome.is_slowed:
                again = seed_of(member)
                outcome = self._attack(attack, again, Role.COMMITTEE, ATTACK_S, until)
        return outcome

    def _is_cut_off(self, peer: bytes, reason: Reason) -> bool:
        row = self.victim.ask(stats=True)["peers"].get(peer.hex(), {"drops": {}})
        return row.get("standing") == "refused" and bool(row["drops"].get(reason.value))

    def _attack(
        self, attack: Attack, seed: bytes, role: Role, seconds: float, until: Reason | None
    ) -> Outcome:
        attacker = Attacker(seed, f"/ip4/127.0.0.1/tcp/{self.port}", id_of(VICTIM))
        me = [attacker.me.hex()]
        before = self.victim.ask(
            allow=me if role is Role.COMMITTEE else [],
            bonded=me if role is Role.BONDED else [],
        )
        self.honest.tell(measure=seconds)

        async def come_back() -> None:
            while True:  # a hostile peer comes back as long as it can
                with suppress(*NETWORK_FAULTS):
                    await attack(attacker)
                await trio.sleep(0.02)

        async def main() -> None:
            async with attacker.running(), trio.open_nursery() as nursery:
                nursery.start_soon(come_back)
                await trio.sleep(seconds)
                with trio.move_on_after(PATIENCE_S):
                    while until and not await trio.to_thread.run_sync(  # noqa: ASYNC110
                        self._is_cut_off, attacker.me, until
                    ):
                        await trio.sleep(0.1)
                nursery.cancel_scope.cancel()

        trio.run(main)
        attacked = self.honest.read()
        after = self.victim.ask(stats=True)
        return Outcome(attacker.me, attacked, before, after)

    def stop(self) -> None:
        """End all processes."""
        for part in self.parts:
            part.hang_up()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        for part in self.parts:
            part.close()
