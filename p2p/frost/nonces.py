"""Nonces ahead of need, so that a seal costs one round trip.

    signer       NoncePool          secret pairs in RAM, each promised to one coordinator
      │  NonceBatch(boot, first, commitments)        published ahead
      ▼
    coordinator  CommitmentBook     public points it may still spend, per signer

A pair is popped before it is used and lives nowhere else: after a crash it is gone, and nothing can
bring it back. `boot` grows with every start of a signer, so a coordinator drops what an earlier
life published. Promising a pair to one coordinator keeps two of them from spending the same one.
"""

from collections import deque
from dataclasses import dataclass

from p2p.frost.group import RandomBytes
from p2p.frost.keys import KeyShare
from p2p.frost.round1 import SigningCommitments, SigningNonces, generate_nonces
from p2p.frost.suite import Identifier

MAX_AHEAD = 64
"""Pairs one signer keeps for one coordinator: some seconds of views, a few kilobytes."""


@dataclass(frozen=True, slots=True)
class NonceHandle:
    """Names one pair of a signer: which life, and which pair of it."""

    boot: int
    counter: int


@dataclass(frozen=True, slots=True)
class PublishedNonce:
    """A handle with its public points, as a coordinator keeps it."""

    handle: NonceHandle
    commitments: SigningCommitments


@dataclass(frozen=True, slots=True)
class NonceBatch:
    """Consecutive pairs `first`, `first` + 1, … of one life of a signer."""

    boot: int
    first: int
    commitments: tuple[SigningCommitments, ...]


class NoncePool:
    """One signer's secret pairs.

    Invariants: a pair is returned by `take` at most once, only to the coordinator it was promised
    to; nothing is written anywhere.
    """

    def __init__(self, share: KeyShare, boot: int, random_bytes: RandomBytes) -> None:
        self.boot = boot
        self._share, self._random_bytes = share, random_bytes
        self._next = 0
        self._pairs: dict[Identifier, dict[int, SigningNonces]] = {}

    def publish(self, coordinator: Identifier, count: int) -> NonceBatch:
        """Make pairs for a coordinator; the oldest beyond MAX_AHEAD are destroyed."""
        first, pairs = self._next, self._pairs.setdefault(coordinator, {})
        for _ in range(count):
            pairs[self._next] = generate_nonces(self._share, self._random_bytes)
            self._next += 1
        commitments = tuple(pairs[counter].commitments for counter in range(first, self._next))
        while len(pairs) > MAX_AHEAD:
            pairs.pop(min(pairs)).wipe()
        return NonceBatch(self.boot, first, commitments)

    def take(self, coordinator: Identifier, handle: NonceHandle) -> SigningNonces | None:
        """Pop a pair, or return None: another life, another coordinator, or spent."""
        if handle.boot != self.boot:
            return None
        return self._pairs.get(coordinator, {}).pop(handle.counter, None)

    def ahead(self, coordinator: Identifier) -> int:
        """Return how many pairs a coordinator may still spend."""
        return len(self._pairs.get(coordinator, {}))

    def wipe(self) -> None:
        """Destroy every pair."""
        for pairs in self._pairs.values():
            for nonces in pairs.values():
                nonces.wipe()
        self._pairs.clear()

    def __repr__(self) -> str:
        return f"NoncePool(boot={self.boot}, hidden)"

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("a nonce pool is never pickled or copied")


class CommitmentBook:
    """The points a coordinator may still spend, per signer.

    Invariants: per signer one boot, counters strictly ascending, at most MAX_AHEAD kept; an entry
    is returned once.
    """

    def __init__(self) -> None:
        self._boots: dict[Identifier, int] = {}
        self._highest: dict[Identifier, int] = {}
        self._unused: dict[Identifier, deque[PublishedNonce]] = {}

    def add(self, identifier: Identifier, batch: NonceBatch) -> bool:
        """Take a batch; return False if it is of an earlier life or repeats counters."""
        boot = self._boots.get(identifier, -1)
        if batch.boot < boot:
            return False
        if batch.boot > boot:
            self._boots[identifier], self._highest[identifier] = batch.boot, -1
            self._unused[identifier] = deque(maxlen=MAX_AHEAD)
        if batch.first <= self._highest[identifier]:
            return False
        for offset, commitments in enumerate(batch.commitments):
            handle = NonceHandle(batch.boot, batch.first + offset)
            self._unused[identifier].append(PublishedNonce(handle, commitments))
            self._highest[identifier] = handle.counter
        return True

    def take(self, identifier: Identifier) -> PublishedNonce | None:
        """Pop the oldest unused points of a signer."""
        unused = self._unused.get(identifier)
        return unused.popleft() if unused else None

    def drop(self, identifier: Identifier) -> None:
        """Forget all points of a signer that says it no longer has them."""
        if identifier in self._unused:
            self._unused[identifier].clear()

    def ahead(self, identifier: Identifier) -> int:
        """Return how many signatures this signer is ready for."""
        return len(self._unused.get(identifier, ()))
