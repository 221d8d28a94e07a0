"""One key, two machines: each obeys every rule, and knows nothing of the other."""

from dataclasses import dataclass, field
from functools import partial

from keeper.hashing import keccak
from p2p.agreement.signing import sign_observation
from p2p.types import Message
from tests.support.agreement_cluster import Keeper


@dataclass
class Half(Keeper):
    """One of the two; until the weather is calm it reaches one side of the committee only."""

    side: int = 0

    def send(self, to: int | None, message: Message) -> None:
        cluster = self.cluster
        cluster.auditor.hear(message)
        for member in range(cluster.committee.size) if to is None else (to,):
            peer = cluster.keepers[member]
            if member == self.index or not (cluster.is_calm() or self.sees(member)):
                continue
            if isinstance(peer, Twins):
                half = peer.half(self.side)
                delay = cluster.random.uniform(*cluster.weather.delay)
                cluster.at(cluster.now + delay, partial(half.hear, self.index, message))
            else:
                cluster.carry(self.index, member, message)

    def sees(self, member: int) -> bool:
        """Return whether a member is on this half's side, as other twins are."""
        other = self.cluster.keepers[member]
        return isinstance(other, Twins) or self.cluster.sides[member] == self.side

    def hear(self, sender: int, message: Message) -> None:
        Keeper.deliver(self, sender, message)

    def observe(self, tick: int) -> None:
        roots = tuple(keccak(b"%d %d %d" % (self.side, tick, part)) for part in range(3))
        observation = sign_observation(
            self.cluster.committee, self.signer, tick, (roots[0], roots[1], roots[2]), b""
        )
        self.perform(self.core.observe(observation, self.cluster.now))
        self.send(None, observation)


@dataclass
class Twins(Half):
    """The first half; carries the second one along."""

    other: Half = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.other = Half(self.cluster, self.index, side=1)

    def start(self) -> None:
        super().start()
        self.other.start()

    def half(self, side: int) -> Half:
        return self if side == self.side else self.other

    def deliver(self, sender: int, message: Message) -> None:
        for half in (self, self.other):
            if self.cluster.is_calm() or half.sees(sender):
                half.hear(sender, message)

    def observe(self, tick: int) -> None:
        super().observe(tick)
        self.other.observe(tick)
