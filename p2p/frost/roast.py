"""One signature in spite of silent, late and lying signers (ROAST, Ruffing et al. 2022, §4).

    ready ── open(): t of them ──▶ attempt k ── all shares right ──▶ signature
      ▲                              │  │
      │  share arrived               │  └─ share wrong, or refused ──▶ excluded for good
      └──────────────────────────────┘
    who has not answered is pending: it enters no other attempt until it does

A new attempt is opened when the caller has waited long enough, or a culprit is known. Every attempt
that fails is spoiled by a member that spoils no other, so n − t bad members cost at most n − t + 1
attempts. Shares are checked one by one only once an attempt is late or its sum is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from p2p.frost.aggregate import Culprits, Signature, aggregate, verify_share
from p2p.frost.keys import GroupKey
from p2p.frost.nonces import CommitmentBook, PublishedNonce
from p2p.frost.round1 import sorted_commitments
from p2p.frost.round2 import Session, SignatureShare, SigningPackage
from p2p.frost.suite import Identifier


@dataclass(frozen=True, slots=True)
class Attempt:
    """One FROST session: its number, and each signer's nonce, ascending by signer."""

    number: int
    nonces: tuple[PublishedNonce, ...]

    @property
    def signers(self) -> tuple[Identifier, ...]:
        """Who is asked for a share."""
        return tuple(nonce.commitments.identifier for nonce in self.nonces)


@dataclass(slots=True)
class _Open:
    attempt: Attempt
    session: Session
    shares: dict[Identifier, SignatureShare] = field(default_factory=dict)
    late: bool = False

    @property
    def missing(self) -> tuple[Identifier, ...]:
        return tuple(i for i in self.session.identifiers if i not in self.shares)


class Coordinator:
    """Collects the shares of one message.

    Invariants: a signer is pending in at most one attempt; an excluded signer is asked no more; at
    most n − t + 1 attempts are opened; a nonce is spent in one attempt.
    """

    def __init__(
        self,
        group: GroupKey,
        message: bytes,
        book: CommitmentBook,
        preference: Sequence[Identifier] = (),
    ) -> None:
        self._group, self._message, self._book = group, message, book
        rank = {identifier: place for place, identifier in enumerate(preference)}
        self._order = sorted(group.identifiers, key=lambda i: (rank.get(i, len(rank)), i))
        self._open: dict[int, _Open] = {}
        self._pending: set[Identifier] = set()
        self.excluded: set[Identifier] = set()
        self.opened = 0
        self.signature: Signature | None = None

    def open(self) -> Attempt | None:
        """Start an attempt with t ready signers, or return None if fewer are ready."""
        self._audit()
        ready = [i for i in self._order if self._is_ready(i)][: self._group.min_signers]
        if len(ready) < self._group.min_signers or self.signature is not None:
            return None
        nonces = [nonce for i in sorted(ready) if (nonce := self._book.take(i)) is not None]
        package = SigningPackage(
            self._message, sorted_commitments([nonce.commitments for nonce in nonces])
        )
        attempt = Attempt(self.opened, tuple(nonces))
        self.opened += 1
        try:
            session = Session(self._group, package)
        except ValueError:  # points that cancel out, which takes a signer that aims at it
            return None
        self._open[attempt.number] = _Open(attempt, session)
        self._pending.update(ready)
        return attempt

    def _is_ready(self, identifier: Identifier) -> bool:
        idle = identifier not in self._pending and identifier not in self.excluded
        return idle and self._book.ahead(identifier) > 0

    def _audit(self) -> None:
        """Check every share of attempts that did not finish in time."""
        for attempt in self._open.values():
            attempt.late = True
            for share in attempt.shares.values():
                if not verify_share(attempt.session, share):
                    self.excluded.add(share.identifier)

    def take(self, number: int, share: SignatureShare) -> Signature | Culprits | None:
        """Take a share; return the signature, newly found culprits, or None to go on waiting."""
        attempt, i = self._open.get(number), share.identifier
        if attempt is None or i not in attempt.missing or self.signature is not None:
            return None
        self._pending.discard(i)
        if attempt.late and not verify_share(attempt.session, share):
            self.excluded.add(i)
            return Culprits((i,))
        attempt.shares[i] = share
        if attempt.missing:
            return None
        result = aggregate(attempt.session, attempt.shares)
        if isinstance(result, Signature):
            self.signature = result
        else:
            self.excluded.update(result.identifiers)
        del self._open[number]
        return result

    def refuse(self, number: int, identifier: Identifier) -> bool:
        """Exclude a signer that says it cannot sign; return whether it was asked to."""
        attempt = self._open.get(number)
        if attempt is None or identifier not in attempt.missing:
            return False
        self._pending.discard(identifier)
        self.excluded.add(identifier)
        return True

    @property
    def waiting(self) -> tuple[tuple[Attempt, tuple[Identifier, ...]], ...]:
        """Open attempts, and who has not answered each."""
        return tuple(
            (held.attempt, tuple(i for i in held.missing if i not in self.excluded))
            for held in self._open.values()
        )

    @property
    def is_blocked(self) -> bool:
        """Whether no open attempt can finish any more, so that waiting is in vain."""
        return all(
            self.excluded.intersection(held.session.identifiers) for held in self._open.values()
        )
