"""A whole committee in one process on virtual time: seeded delay, loss, partition, crash.

The agreement core is the production one; only signatures are cheap (`CheapSigner`: binding to the
signer and the message, one comparison to check). A keeper that lies is a `Keeper` with one method
changed, see tests/simulation/byzantine. Same seed, same trace.
"""

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from keeper.hashing import keccak
from keeper.reasons import Reason
from p2p.agreement.application import NotYet, Valid, Verdict, Wrong
from p2p.agreement.core import Agreement
from p2p.agreement.effects import (
    Broadcast,
    Effect,
    Equivocated,
    Finalized,
    Jumped,
    Noted,
    Persist,
    Refused,
    Send,
    Timing,
)
from p2p.agreement.evidence import Evidence, verify_evidence
from p2p.agreement.history import finalized_since
from p2p.agreement.log import MemoryLog, Opened
from p2p.agreement.signing import Scheme, Signer, sign_observation, vote_hash
from p2p.agreement.votes import Tally
from p2p.types import (
    Certificate,
    Committee,
    Kind,
    Member,
    Message,
    Proposal,
    SignedObservation,
    Vote,
)
from p2p.wire import digest_of

NETWORK = keccak(b"simulated network")


class CheapSigner:
    """Signs by writing its name below the digest: as binding as a simulation needs."""

    def __init__(self, address: bytes) -> None:
        self._address = address

    @property
    def address(self) -> bytes:
        return self._address

    def sign(self, digest: bytes) -> bytes:
        return digest + self._address.rjust(32, b"\0")

    def verify(self, digest: bytes, signature: bytes, address: bytes) -> bool:
        return signature[:32] == digest and signature[44:] == address


def make_committee(size: int, epoch: int = 1) -> Committee:
    """Return a committee of cheap signers."""
    members = tuple(Member(keccak(b"member %d" % i)[-20:], b"peer %d" % i) for i in range(size))
    return Committee(NETWORK, epoch, members, keccak(b"parameters"))


class ToyApplication:
    """A payload is a digest of its parent and observations, and a mark of its author's."""

    def __init__(self, genesis: bytes) -> None:
        self.states = {genesis}
        self.lagging = False

    def propose(
        self, parent: bytes, view: int, tick: int, observations: Sequence[SignedObservation]
    ) -> bytes | None:
        if parent not in self.states:
            return None
        return self._payload(parent, tick, observations)

    def _payload(
        self, parent: bytes, tick: int, observations: Sequence[SignedObservation]
    ) -> bytes:
        return keccak(
            parent + tick.to_bytes(8, "big") + b"".join(o.signature for o in observations)
        )

    def validate(
        self,
        parent: bytes,
        view: int,
        tick: int,
        observations: Sequence[SignedObservation],
        payload: bytes,
    ) -> Verdict:
        if parent not in self.states or self.lagging:
            return NotYet("the state of the parent")
        if payload[:32] != self._payload(parent, tick, observations):
            return Wrong(Reason.WRONG_HEADER, "payload")
        return Valid(self.root(payload))

    def root(self, payload: bytes) -> bytes:
        return keccak(b"root" + payload)

    def adopt(
        self,
        digest: bytes,
        parent: bytes,
        view: int,
        tick: int,
        observations: Sequence[SignedObservation],
        payload: bytes,
    ) -> None:
        assert parent in self.states
        self.states.add(digest)


class Auditor:
    """Hears every signed word and judges with the production tally: who can be proven guilty."""

    def __init__(self, committee: Committee, scheme: Scheme) -> None:
        self._committee, self._scheme = committee, scheme
        self._tally = Tally(committee)
        self.evidence: list[Evidence] = []

    def hear(self, message: Message) -> None:
        match message:
            case Vote():
                self._vote(message)
            case Proposal():
                self._vote(
                    Vote(
                        message.epoch,
                        Kind.NOTARIZE,
                        message.view,
                        digest_of(message),
                        message.signer,
                        message.signature,
                    )
                )
            case Certificate() if len(message.signers) == len(message.signatures):
                for signer, signature in zip(message.signers, message.signatures, strict=True):
                    self._vote(
                        Vote(
                            message.epoch,
                            message.kind,
                            message.view,
                            message.digest,
                            signer,
                            signature,
                        )
                    )
            case _:
                pass

    def _vote(self, vote: Vote) -> None:
        if vote.signer >= self._committee.size or not self._tally.is_news(vote):
            return
        digest = vote_hash(self._committee, vote.kind, vote.view, vote.digest)
        address = self._committee.members[vote.signer].address
        if not self._scheme.verify(digest, vote.signature, address):
            return
        counted = self._tally.add(vote)
        if counted.contradicts is not None:
            self.evidence.append(Evidence(self._committee.config, counted.contradicts, vote))

    @property
    def guilty(self) -> set[int]:
        """Return the members that evidence, checked by the production verifier, names."""
        assert all(verify_evidence(self._committee, self._scheme, one) for one in self.evidence)
        return {one.culprit for one in self.evidence}


@dataclass(frozen=True)
class Weather:
    """What the network and the machines do until `calm_at`; after it only delays are left."""

    calm_at: float = 2.5
    loss: float = 0.25
    delay: tuple[float, float] = (0.02, 0.08)
    jitter_s: float = 0.4
    crash: float = 0.0
    partition: bool = False
    lag: float = 0.0


@dataclass
class Keeper:
    """One honest keeper: drives the core exactly as a service does."""

    cluster: "Cluster"
    index: int
    log: MemoryLog = field(default_factory=MemoryLog)
    up: bool = True
    finals: dict[int, Finalized] = field(default_factory=dict)
    evidence: list[Evidence] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    core: Agreement = field(init=False)
    wake_at: float | None = None

    def __post_init__(self) -> None:
        self.log.write((Opened(self.cluster.committee.config),))
        self.boot()

    @property
    def signer(self) -> Signer:
        return CheapSigner(self.cluster.committee.members[self.index].address)

    def boot(self) -> None:
        """Make a fresh core over what the log remembers; the application keeps its states."""
        committee = self.cluster.committee
        self.application = getattr(self, "application", None) or ToyApplication(committee.config)
        self.core = Agreement(
            committee, self.index, self.signer, self.application, self.log, self.cluster.timing
        )

    def start(self) -> None:
        self.perform(self.core.start(self.cluster.now))

    def deliver(self, sender: int, message: Message) -> None:
        if self.up:
            self.perform(self.core.receive(sender, message, self.cluster.now))

    def wake(self) -> None:
        self.perform(self.core.tick(self.cluster.now))

    def retry(self) -> None:
        self.perform(self.core.retry(self.cluster.now))

    def observe(self, tick: int) -> None:
        roots = (keccak(b"h%d" % tick), keccak(b"p%d" % tick), keccak(b"r%d" % tick))
        observation = sign_observation(self.cluster.committee, self.signer, tick, roots, b"")
        self.perform(self.core.observe(observation, self.cluster.now))
        self.send(None, observation)

    def send(self, to: int | None, message: Message) -> None:
        """Give a message to the network; `None` means every other member."""
        self.cluster.transmit(self, to, message)

    def crash(self) -> None:
        self.up = False
        self.wake_at = None

    def restart(self) -> None:
        self.up = True
        epoch = self.cluster.committee.epoch
        for final in finalized_since(self.log, epoch, max(self.finals, default=0)):
            self.finalize(final)
        self.boot()
        self.start()

    def perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            match effect:
                case Persist(records):
                    self.log.write(records)
                    if self.cluster.crashes_now(self):
                        self.crash()
                        return
                case Broadcast(message):
                    self.send(None, message)
                case Send(member, message):
                    self.send(member, message)
                case Finalized():
                    self.finalize(effect)
                case Equivocated(evidence):
                    self.evidence.append(evidence)
                case Refused():
                    self.refused.append(effect)
                case Jumped() | Noted():
                    pass
        self.cluster.schedule_wake(self)

    def finalize(self, effect: Finalized) -> None:
        known = self.finals.setdefault(effect.view, effect)
        if known.digest != effect.digest:
            self.cluster.violations.append(
                f"member {self.index} finalised view {effect.view} twice"
            )


class Cluster:
    """Keepers, their network and the virtual clock."""

    def __init__(
        self,
        size: int,
        seed: int,
        *,
        liars: Mapping[int, Callable[["Cluster", int], Keeper]] | None = None,
        weather: Weather | None = None,
        timing: Timing | None = None,
        keeper: Callable[["Cluster", int], Keeper] = Keeper,
        committee: Committee | None = None,
        scheme: Scheme | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.committee = committee or make_committee(size)
        self.weather = weather or Weather()
        self.timing = timing or Timing(
            genesis=0.0, tick_s=0.2, bound_s=0.1, grace_s=0.02, skip_s=1.5, heartbeat_s=0.5
        )
        self.now = 0.0
        self.violations: list[str] = []
        self.sent = 0
        self.trace: list[tuple[float, int, int | None, str]] | None = None
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.liars = dict(liars or {})
        self.sides = [self.random.randrange(2) for _ in range(size)]
        self.auditor = Auditor(self.committee, scheme or CheapSigner(b""))
        self.frozen = False
        self.keepers = [self.liars.get(i, keeper)(self, i) for i in range(size)]
        for one in self.keepers:
            self.at(self.random.uniform(0, 0.01), one.start)
        self.at(0.0, lambda: self._tick(1))
        if self.weather.crash:
            self.at(self.weather.calm_at, self._revive)

    @property
    def honest(self) -> list[Keeper]:
        return [one for one in self.keepers if one.index not in self.liars]

    def at(self, when: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what))

    def is_calm(self) -> bool:
        return self.now >= self.weather.calm_at

    def transmit(self, source: Keeper, to: int | None, message: Message) -> None:
        self.auditor.hear(message)
        if self.trace is not None:
            self.trace.append((self.now, source.index, to, repr(message)))
        for member in range(self.committee.size) if to is None else (to,):
            if member != source.index:
                self.carry(source.index, member, message)

    def carry(self, source: int, member: int, message: Message) -> None:
        self.sent += 1
        delay = self.random.uniform(*self.weather.delay)
        if not self.is_calm():
            if self.random.random() < self.weather.loss:
                return
            if self.weather.partition and not self._connected(source, member):
                return
            if self.weather.jitter_s:
                delay += self.random.expovariate(1 / self.weather.jitter_s)
        self.at(self.now + delay, lambda: self.keepers[member].deliver(source, message))

    def _connected(self, source: int, member: int) -> bool:
        liar = source in self.liars or member in self.liars
        return liar or self.sides[source] == self.sides[member]

    def crashes_now(self, keeper: Keeper) -> bool:
        """Return whether a machine stops between writing its log and sending."""
        if not self.weather.crash or self.is_calm() or keeper.index in self.liars:
            return False
        if self.random.random() >= self.weather.crash:
            return False
        self.at(self.now + self.random.uniform(0.05, 0.8), lambda: self._restart(keeper))
        return True

    def _restart(self, keeper: Keeper) -> None:
        if not keeper.up:
            keeper.restart()

    def _revive(self) -> None:
        for keeper in self.keepers:
            self._restart(keeper)

    def schedule_wake(self, keeper: Keeper) -> None:
        deadline = keeper.core.deadline
        if deadline is None or (keeper.wake_at is not None and keeper.wake_at <= deadline):
            return
        keeper.wake_at = max(deadline, self.now)
        self.at(keeper.wake_at, lambda: self._wake(keeper))

    def _wake(self, keeper: Keeper) -> None:
        if not keeper.up or keeper.wake_at is None or keeper.wake_at > self.now:
            return
        keeper.wake_at = None
        deadline = keeper.core.deadline
        if deadline is not None and deadline <= self.now:
            keeper.wake()
        else:
            self.schedule_wake(keeper)

    def _tick(self, tick: int) -> None:
        if self.frozen:
            return
        for keeper in self.keepers:
            if self.weather.lag:
                lags = not self.is_calm() and self.random.random() < self.weather.lag
                keeper.application.lagging = lags
            if keeper.up:
                keeper.retry()
                keeper.observe(tick)
        self.at(self.timing.start_of(tick + 1), lambda: self._tick(tick + 1))

    def step(self) -> None:
        """Let the next thing happen."""
        self.now, _, what = heapq.heappop(self._events)
        what()

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> "Cluster":
        """Run to a virtual time, or until `stop` holds after the weather is calm."""
        checks = 0
        while self._events and self._events[0][0] <= until:
            self.step()
            checks += 1
            if stop is not None and checks % 256 == 0 and self.is_calm() and stop():
                break
        return self

    def settle(self, blocks: int, until: float) -> bool:
        """Run until every honest keeper has finalised `blocks` after the storm, then let all agree.

        Returns whether that happened and all honest chains are the same.
        """
        base: dict[int, int] = {}

        def done() -> bool:
            for one in self.honest:
                base.setdefault(one.index, len(one.finals))
            return all(len(one.finals) >= base[one.index] + blocks for one in self.honest)

        self.run(until, done)
        reached = done()
        self.frozen = True
        limit = self.now + 6.0
        self.run(limit, self.are_equal)
        return reached and self.are_equal()

    def are_equal(self) -> bool:
        """Return whether all honest keepers end with the same chain."""
        first, *others = (self.chain(one) for one in self.honest)
        return all(other == first for other in others)

    def chain(self, keeper: Keeper) -> list[tuple[int, bytes]]:
        return [(view, keeper.finals[view].digest) for view in sorted(keeper.finals)]

    def is_safe(self) -> bool:
        """Return whether all honest chains are prefixes of one."""
        longest = max((self.chain(one) for one in self.honest), key=len)
        return not self.violations and all(
            self.chain(one) == longest[: len(one.finals)] for one in self.honest
        )
