"""A key generation between members on virtual time, where one may say what it likes."""

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from keeper.units import Instant
from p2p import identity
from p2p.frost import ceremony
from p2p.frost.ceremony import Ceremony, CeremonyTiming
from p2p.frost.dkg import Fault
from p2p.frost.keys import KeyShare
from p2p.frost.secret import Secret
from p2p.frost.suite import TR, Suite
from p2p.frost.transcript import Recovery, Signed, Terms
from tests.support.frost import seeded

Wire = Callable[["Ceremonies", int, int, Signed], Sequence[Signed]]
"""(net, from, to, word) → what really arrives."""


def honest(net: "Ceremonies", sender: int, receiver: int, word: Signed) -> Sequence[Signed]:
    """Deliver as said."""
    return (word,)


@dataclass
class Ceremonies:
    """All members of one ceremony and the wire between them."""

    min_signers: int
    max_signers: int
    seed: int = 0
    suite: Suite = TR
    wire: Wire = honest
    down: set[int] = field(default_factory=set)
    liars: set[int] = field(default_factory=set)
    """Members whose own machine may fall over their lies."""
    others: dict[int, bytes] = field(default_factory=dict)
    """Members that agree on another config."""
    old: Sequence[KeyShare] = ()
    """Shares of a key to deal anew, in member order."""
    dealers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.now, self.count = 0.0, 0
        self.seeds = [
            Secret(bytes(seeded((self.seed, "host", i))(32))) for i in range(self.max_signers)
        ]
        hosts = tuple(identity.peer_id_of(seed.reveal()) for seed in self.seeds)
        self.terms = Terms(
            *(self.suite, self.min_signers, hosts, b"\x07" * 32, 1, b"\x01" * 32),
            old=self.old[0].group if self.old else None,
            dealers=self.dealers,
        )
        self.queue: list[tuple[float, int, int, int, bytes]] = []
        self.outcomes: dict[int, ceremony.Completed | ceremony.Failed] = {}
        self.members = [self._member(i) for i in range(self.max_signers)]

    def _member(self, index: int) -> Ceremony:
        config = self.others.get(index, self.terms.config)
        terms = replace(self.terms, config=config)
        share = self.old[index] if index in self.dealers else None
        draw = seeded((self.seed, "ceremony", index))
        timing = CeremonyTiming(join_s=20.0, step_s=6.0, linger_s=4.0)
        seed = self.seeds[index]
        return Ceremony(terms, seed, random_bytes=draw, timing=timing, share=share)

    def perform(self, member: int, effects: Sequence[ceremony.Effect]) -> None:
        """Carry out one member's effects."""
        for effect in effects:
            match effect:
                case ceremony.Broadcast(message):
                    for other in range(self.max_signers):
                        if other != member:
                            self.post(member, other, message)
                case ceremony.Completed() | ceremony.Failed():
                    assert member not in self.outcomes
                    self.outcomes[member] = effect

    def post(self, sender: int, receiver: int, word: Signed) -> None:
        """Queue what the wire makes of a word."""
        for altered in self.wire(self, sender, receiver, word):
            self.count += 1
            arrival = self.now + self.chance.uniform(0.01, 0.2)
            frame = altered.encode()
            heapq.heappush(self.queue, (arrival, self.count, sender, receiver, frame))

    def run(self, until: float = 200.0) -> "Ceremonies":
        """Start everybody who is up, at slightly different times, and run to the end."""
        starts = [(self.chance.uniform(0, 3), i) for i in range(self.max_signers)]
        waiting = sorted(start for start in starts if start[1] not in self.down)
        while True:
            due = [
                (m.deadline, i)
                for i, m in enumerate(self.members)
                if m.deadline is not None and i not in self.down
            ]
            events = [min(due, default=(float("inf"), -1))[0]]
            events.append(self.queue[0][0] if self.queue else float("inf"))
            events.append(waiting[0][0] if waiting else float("inf"))
            self.now = max(self.now, min(events))
            if min(events) > until:
                return self
            if waiting and events[2] == min(events):
                _, i = waiting.pop(0)
                self.perform(i, self.members[i].start(Instant(self.now)))
            elif self.queue and events[1] == min(events):
                _, _, sender, receiver, frame = heapq.heappop(self.queue)
                started = receiver not in self.down and all(w[1] != receiver for w in waiting)
                if started:
                    word = Signed.decode(frame)
                    try:
                        self.perform(receiver, self.members[receiver].receive(sender, word))
                    except ValueError:
                        assert receiver in self.liars
                        self.down.add(receiver)
            else:
                _, i = min(due)
                self.perform(i, self.members[i].tick(Instant(self.now)))

    def forge(self, member: int, word: Signed, body: bytes) -> Signed:
        """Return a word with another body, properly signed by its author."""
        return Signed.make(self.members[member]._session, word.kind, body, self.seeds[member])

    def shares(self) -> list[KeyShare]:
        """Return all key shares of a ceremony that everybody completed."""
        done = [self.outcomes[i] for i in range(self.max_signers)]
        assert all(isinstance(outcome, ceremony.Completed) for outcome in done), done
        return [outcome.share for outcome in done if isinstance(outcome, ceremony.Completed)]

    def recovery(self) -> Recovery:
        """Return the public record."""
        outcome = self.outcomes[0]
        assert isinstance(outcome, ceremony.Completed)
        return outcome.recovery

    def blamed(self, culprit: int, fault: Fault | None = None) -> None:
        """Check that every other member names exactly this culprit."""
        for i in range(self.max_signers):
            if i == culprit or i in self.down:
                continue
            outcome = self.outcomes[i]
            assert isinstance(outcome, ceremony.Failed), f"member {i} got {outcome}"
            assert [member for member, _ in outcome.faults] == [culprit], f"{i}: {outcome}"
            if fault is not None:
                assert outcome.faults[0][1] is fault, f"{i}: {outcome}"
