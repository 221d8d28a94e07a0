"""A committee of signers on virtual time: messages are late, lost, repeated, or lied in."""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from keeper.units import Instant
from p2p.frost import messages, signer
from p2p.frost.messages import SigningMessage
from p2p.frost.signer import Setup, Signer, Timing
from p2p.frost.signlock import Locks
from p2p.frost.suite import Identifier
from tests.support.frost import deal, seeded

NETWORK = b"\x07" * 32
Filter = Callable[[int, int, SigningMessage], Sequence[SigningMessage]]
"""(from, to, message) → what really arrives; a Byzantine member or a bad wire is one of these."""


def honest(sender: int, receiver: int, message: SigningMessage) -> Sequence[SigningMessage]:
    """Deliver as sent."""
    return (message,)


@dataclass
class Net:
    """All signers, the wire between them, and what they learnt."""

    min_signers: int
    max_signers: int
    seed: int = 0
    timing: Timing = field(default_factory=Timing)
    filter: Filter = honest
    delay: tuple[float, float] = (0.01, 0.05)
    down: set[int] = field(default_factory=set)
    slow: dict[int, float] = field(default_factory=dict)
    """Extra seconds on everything a member sends."""
    through_bytes: bool = False

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.group, self.shares = deal(self.min_signers, self.max_signers, seed=self.seed)
        self.now = 0.0
        self.queue: list[tuple[float, int, int, int, SigningMessage]] = []
        self.count = 0
        self.effects: dict[int, list[signer.Effect]] = {}
        self.sent: list[tuple[int, int, SigningMessage]] = []
        self.locks: dict[tuple[int, int], bytes] = {}
        self.signers: dict[int, Signer] = {}
        for member in range(self.max_signers):
            self.boot(member, 1)

    def boot(self, member: int, life: int) -> None:
        """Start a member, with the locks it had."""
        setup = Setup(self.shares[Identifier(member + 1)], NETWORK, 1, self.leaders, self.timing)
        held = {view: d for (who, view), d in self.locks.items() if who == member}
        self.signers[member] = Signer(
            setup,
            boot=life,
            random_bytes=seeded((self.seed, member, life)),
            locks=Locks(held, 0),
        )
        self.effects.setdefault(member, [])
        if member not in self.down:
            self.perform(member, self.signers[member].start(Instant(self.now)))

    def leaders(self, view: int) -> Sequence[int]:
        """Rotate by view."""
        return [(view + k) % self.max_signers for k in range(self.max_signers)]

    def perform(self, member: int, effects: Sequence[signer.Effect]) -> None:
        """Carry out one member's effects, in order."""
        for effect in effects:
            self.effects[member].append(effect)
            match effect:
                case signer.Send():
                    self.send(member, effect.member, effect.message)
                case signer.Broadcast():
                    for other in range(self.max_signers):
                        if other != member:
                            self.send(member, other, effect.message)
                case signer.PersistLock():
                    held = self.locks.setdefault((member, effect.view), effect.digest)
                    assert held == effect.digest
                case signer.Sealed() | signer.Refused():
                    pass

    def send(self, sender: int, receiver: int, message: SigningMessage) -> None:
        """Queue what the wire makes of a message."""
        self.sent.append((sender, receiver, message))
        for altered in self.filter(sender, receiver, message):
            self.count += 1
            late = self.slow.get(sender, 0.0)
            arrival = self.now + late + self.chance.uniform(*self.delay)
            heapq.heappush(self.queue, (arrival, self.count, sender, receiver, altered))

    def final(self, view: int, root: bytes, members: Sequence[int] | None = None) -> None:
        """Tell members that a view is final."""
        for member in members if members is not None else range(self.max_signers):
            if member not in self.down:
                self.perform(
                    member, self.signers[member].sign_request(Instant(self.now), view, root)
                )

    def run(self, until: float) -> None:
        """Deliver and tick until a virtual time."""
        while True:
            due = [
                (s.deadline, m)
                for m, s in self.signers.items()
                if s.deadline is not None and m not in self.down
            ]
            next_tick = min(due, default=(float("inf"), -1))
            next_mail = self.queue[0][0] if self.queue else float("inf")
            if min(next_tick[0], next_mail) > until:
                self.now = until
                return
            if next_mail <= next_tick[0]:
                self.now, _, sender, receiver, message = heapq.heappop(self.queue)
                if receiver not in self.down:
                    self.perform(receiver, self.deliver(sender, receiver, message))
            else:
                self.now = max(self.now, next_tick[0])
                ticked = self.signers[next_tick[1]]
                self.perform(next_tick[1], ticked.tick(Instant(self.now)))

    def deliver(
        self, sender: int, receiver: int, message: SigningMessage
    ) -> tuple[signer.Effect, ...]:
        """Hand a message over, through its bytes if asked to."""
        if self.through_bytes:
            raw = messages.encode(self.group.suite, message)
            assert messages.is_signing_frame(raw)
            message = messages.decode(self.group.suite, raw)
        return self.signers[receiver].receive(sender, message, Instant(self.now))

    def sealed(self, member: int) -> dict[int, signer.Sealed]:
        """Return the seals a member learnt, by view."""
        return {e.view: e for e in self.effects[member] if isinstance(e, signer.Sealed)}

    def refusals(self, member: int) -> list[signer.Refused]:
        """Return what a member refused."""
        return [e for e in self.effects[member] if isinstance(e, signer.Refused)]
