"""Seals final views: one member's signer and coordinator, as a pure state machine.

    start(now)                     → nonces published ahead to every member
    sign_request(now, view, root)  the block of this view is final here
    receive(member, message, now)  a `p2p.frost.messages` message, sender authenticated
    tick(now)                      at `deadline`, or later
                  ▼ effects, to be performed in order
    Send, Broadcast     messages           PersistLock   durable before any later effect
    Sealed              the signature      Refused       who broke which rule

        leader(view)                     other members
          │ SignRequest(nonces of t) ─────▶ │ final here? same root? lock, sign
          │ ◀────────── Share + fresh nonce │            one round trip
          │ Seal ──────────────────────────▶│ every member checks the signature

The first of `leaders(view)` coordinates at once, the k-th after k · fallback_s without a seal; each
runs `p2p.frost.roast`. A nonce is promised to one coordinator, so several may work side by side. A
member signs only the digest it computes from its own final block, never one from the wire, and only
what the sign lock allows. Drive it so (`SqliteSignLock` is the lock, members are indices from 0):

    lock = SqliteSignLock(store); signer = Signer(Setup(share, network, epoch, leaders),
        boot=lock.next_boot(), locks=lock.load(epoch), random_bytes=os.urandom)
    perform(signer.start(now))
    perform(signer.sign_request(now, finalized.view, finalized.root))
    perform(signer.receive(member, messages.decode(suite, raw), now)); perform(signer.tick(now))
    PersistLock(epoch, view, digest) → lock.acquire(epoch, view, digest)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from keeper.hashing import abi_hash, type_hash
from keeper.reasons import Reason
from keeper.units import Instant
from p2p.frost.aggregate import Culprits, Signature, verify
from p2p.frost.group import RandomBytes
from p2p.frost.keys import KeyShare
from p2p.frost.messages import (
    Nonces,
    Refusal,
    Seal,
    Share,
    SigningMessage,
    SignRequest,
    WantNonces,
)
from p2p.frost.nonces import MAX_AHEAD, CommitmentBook, NoncePool
from p2p.frost.roast import Attempt, Coordinator
from p2p.frost.round2 import Session, SignatureShare, SigningPackage, sign
from p2p.frost.signlock import Locks
from p2p.frost.suite import Identifier

WINDOW = 64
"""Views remembered below the newest: more than a chain of seals that wait for a repair."""
HELD = 4
"""Requests kept per member for views that are not final here yet."""

_SEAL = type_hash("Seal(bytes32 network,uint32 epoch,uint64 view,bytes32 root)")
_TYPES = ("bytes32", "bytes32", "uint32", "uint64", "bytes32")


def seal_digest(network: bytes, epoch: int, view: int, root: bytes) -> bytes:
    """Return the 32 bytes that a seal signs, as `Committee.vy` computes them."""
    return abi_hash(_TYPES, (_SEAL, network, epoch, view, root))


@dataclass(frozen=True, slots=True)
class Timing:
    """Durations in seconds, and how many nonces each coordinator holds ahead."""

    patience_s: float = 0.3
    """How long an attempt may take before another is opened; about two message bounds."""
    fallback_s: float = 1.0
    """How much longer each next leader waits before it coordinates too."""
    ahead: int = 8
    """Nonces published per coordinator: a leader seals this many views without an answer."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Who signs what: this member's key share, the domain, and who coordinates a view."""

    share: KeyShare
    network: bytes
    epoch: int
    leaders: Callable[[int], Sequence[int]]
    """View → member indices, best first; those absent come last, all at once."""
    timing: Timing = field(default_factory=Timing)


@dataclass(frozen=True, slots=True)
class Send:
    """Send to one member."""

    member: int
    message: SigningMessage


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send to every other member."""

    message: SigningMessage


@dataclass(frozen=True, slots=True)
class PersistLock:
    """Lock the view to the digest, durably, before any later effect; if that fails, stop."""

    epoch: int
    view: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """The group signed the root of a view; the signature was checked. Once per view."""

    epoch: int
    view: int
    root: bytes
    signature: Signature


@dataclass(frozen=True, slots=True)
class Refused:
    """A member's message was not taken, or its share was wrong."""

    member: int
    reason: Reason
    detail: str = ""


Effect = Send | Broadcast | PersistLock | Sealed | Refused


@dataclass(slots=True)
class _View:
    """A view that is final here."""

    root: bytes
    digest: bytes
    deadline: Instant
    coordinator: Coordinator | None = None
    patience: float = 0.0
    served: dict[int, dict[int, tuple[SignRequest, Share | Refusal]]] = field(default_factory=dict)
    """Per coordinator and attempt: what was asked and answered, so a repeat gets the same bytes."""


class Signer:
    """One member's side of sealing.

    Invariants: a nonce pair gives at most one share; a share is returned only after a PersistLock
    of its view and digest, and never for a second digest of a view; all state is bounded by WINDOW,
    HELD and the nonce pool.
    """

    def __init__(
        self, setup: Setup, *, boot: int, random_bytes: RandomBytes, locks: Locks | None = None
    ) -> None:
        self._setup, self._group = setup, setup.share.group
        self.me = setup.share.identifier - 1
        self._pool = NoncePool(setup.share, boot, random_bytes)
        self._book = CommitmentBook()
        self._locks = dict(locks.digests) if locks else {}
        self._floor = locks.floor if locks else 0
        self._views: dict[int, _View] = {}
        self._seals: dict[int, Seal] = {}
        self._held: dict[int, list[SignRequest]] = {}
        self._now = Instant(0.0)
        self.deadline: Instant | None = None

    @property
    def members(self) -> range:
        """All member indices."""
        return range(self._group.max_signers)

    def seal_of(self, view: int) -> Seal | None:
        """Return the seal of a recent view."""
        return self._seals.get(view)

    # ---- inputs

    def start(self, now: Instant) -> tuple[Effect, ...]:
        """Publish nonces to every member, once; who misses them for want of a link asks again."""
        self._now = now
        effects: list[Effect] = []
        for member in self.members:
            fresh = self._publish(member, self._setup.timing.ahead)
            if member == self.me:
                self._book.add(Identifier(member + 1), fresh.batch(Identifier(member + 1)))
            else:
                effects.append(Send(member, fresh))
        return tuple(effects)

    def sign_request(self, now: Instant, view: int, root: bytes) -> tuple[Effect, ...]:
        """Take note that the block of a view is final here, and have it sealed."""
        self._now = now
        if view in self._views or view in self._seals or self._is_old(view):
            return ()
        digest = seal_digest(self._setup.network, self._setup.epoch, view, root)
        leaders = list(self._setup.leaders(view))
        rank = leaders.index(self.me) if self.me in leaders else len(leaders)
        wait = rank * self._setup.timing.fallback_s
        self._views[view] = _View(root, digest, Instant(now + wait))
        effects: list[Effect] = []
        for member, held in sorted(self._held.items()):
            for request in [request for request in held if request.view == view]:
                held.remove(request)
                effects += self._serve(member, request)
        if rank == 0:
            effects += self._coordinate(view)
        return self._done(effects)

    def receive(
        self, member: int, message: SigningMessage, now: Instant | None = None
    ) -> tuple[Effect, ...]:
        """Take a message of a member; without `now`, time is that of the last call that told it."""
        if now is not None:
            self._now = now
        if member not in self.members or member == self.me:
            return (Refused(member, Reason.NOT_A_MEMBER),)
        if message.epoch != self._setup.epoch:
            return (Refused(member, Reason.OTHER_EPOCH, f"epoch {message.epoch}"),)
        match message:
            case Nonces():
                return self._done(self._stock(member, message))
            case SignRequest():
                return self._done(self._requested(member, message))
            case Share():
                return self._done(self._shared(member, message))
            case Refusal():
                return self._done(self._refused(member, message))
            case WantNonces():
                return self._done(self._wanted(member))
            case Seal():
                return self._done(self._sealed(member, message))

    def tick(self, now: Instant) -> tuple[Effect, ...]:
        """Open the attempts and take over the views that are due."""
        self._now = now
        effects: list[Effect] = []
        for view in sorted(self._views):
            if view in self._views and self._views[view].deadline <= now:
                effects += self._coordinate(view)
        return self._done(effects)

    # ---- signer

    def _publish(self, member: int, count: int) -> Nonces:
        batch = self._pool.publish(Identifier(member + 1), count)
        return Nonces.of(self._setup.epoch, batch)

    def _wanted(self, member: int) -> list[Effect]:
        if self._pool.ahead(Identifier(member + 1)) >= MAX_AHEAD:
            return [Refused(member, Reason.RATE_LIMITED, "holds enough nonces")]
        return [Send(member, self._publish(member, self._setup.timing.ahead))]

    def _requested(self, member: int, request: SignRequest) -> list[Effect]:
        if request.view in self._seals:
            return [Send(member, self._seals[request.view])]
        if request.view in self._views:
            return self._serve(member, request)
        if self._is_old(request.view):
            return [Refused(member, Reason.STALE, f"view {request.view}")]
        held = self._held.setdefault(member, [])
        held.append(request)
        del held[:-HELD]
        return []

    def _serve(self, member: int, request: SignRequest) -> list[Effect]:
        """Answer a request for a view that is final here."""
        state = self._views[request.view]
        served = state.served.setdefault(member, {})
        if request.attempt in served:
            asked, answer = served[request.attempt]
            if asked != request:
                return [Refused(member, Reason.DUPLICATE, f"attempt {request.attempt}")]
            return [Send(member, answer)]
        if request.root != state.root:
            return [Refused(member, Reason.OTHER_ROOT, f"view {request.view}")]
        if len(served) > self._group.max_signers - self._group.min_signers:
            return [Refused(member, Reason.TOO_MANY_ATTEMPTS, f"view {request.view}")]
        made = self._make_share(member, request, state)
        if isinstance(made, Refused):
            return [made]
        fresh = self._publish(member, 1)
        if made is None:
            refusal = Refusal(self._setup.epoch, request.view, request.attempt, fresh)
            served[request.attempt] = request, refusal
            return [Refused(member, Reason.SPENT_NONCE), Send(member, refusal)]
        share = Share(self._setup.epoch, request.view, request.attempt, made.z, fresh)
        served[request.attempt] = request, share
        self._locks[request.view] = state.digest
        lock = PersistLock(self._setup.epoch, request.view, state.digest)
        return [lock, Send(member, share)]

    def _make_share(
        self, member: int, request: SignRequest, state: _View
    ) -> SignatureShare | Refused | None:
        """Return the share, None if the nonce is gone, or what is wrong with the request."""
        if self._locks.get(request.view, state.digest) != state.digest:
            return Refused(self.me, Reason.EQUIVOCATION, f"view {request.view} is locked")
        own = [
            e for e in request.entries if e.commitments.identifier == self._setup.share.identifier
        ]
        if len(own) != 1:
            return Refused(member, Reason.MALFORMED, "asked without own nonce")
        try:
            commitments = tuple(entry.commitments for entry in request.entries)
            session = Session(self._group, SigningPackage(state.digest, commitments))
        except ValueError as error:
            return Refused(member, Reason.MALFORMED, str(error))
        nonces = self._pool.take(Identifier(member + 1), own[0].handle)
        if nonces is None:
            return None
        if nonces.commitments != own[0].commitments:
            nonces.wipe()
            return Refused(member, Reason.MALFORMED, "changed own commitments")
        return sign(session, self._setup.share, nonces)

    # ---- coordinator

    def _stock(self, member: int, nonces: Nonces) -> list[Effect]:
        identifier = Identifier(member + 1)
        if nonces.points and not self._book.add(identifier, nonces.batch(identifier)):
            return [Refused(member, Reason.STALE, f"nonces of life {nonces.boot}")]
        effects: list[Effect] = []
        for view, state in sorted(self._views.items()):
            if state.coordinator and not state.coordinator.waiting:
                effects += self._open(view, state)
        return effects

    def _coordinate(self, view: int) -> list[Effect]:
        """Start coordinating a view, or go on with one that takes too long."""
        state = self._views[view]
        if state.coordinator is None:
            first = [Identifier(member + 1) for member in (self.me, *self._setup.leaders(view))]
            state.coordinator = Coordinator(self._group, state.digest, self._book, first)
            state.patience = self._setup.timing.patience_s
            return self._open(view, state)
        effects = self._open(view, state)
        if effects:
            return effects
        state.patience = min(state.patience * 2, 32 * self._setup.timing.patience_s)
        state.deadline = Instant(self._now + state.patience)
        for attempt, missing in state.coordinator.waiting:
            request = self._request(view, state, attempt)
            effects += [Send(i - 1, request) for i in missing if i - 1 != self.me]
        return effects

    def _request(self, view: int, state: _View, attempt: Attempt) -> SignRequest:
        return SignRequest(self._setup.epoch, view, state.root, attempt.number, attempt.nonces)

    def _open(self, view: int, state: _View) -> list[Effect]:
        """Open an attempt if t signers are ready; ask those without nonces for more."""
        assert state.coordinator is not None
        attempt = state.coordinator.open()
        state.deadline = Instant(self._now + state.patience)
        effects: list[Effect] = [
            Send(i - 1, WantNonces(self._setup.epoch))
            for i in self._group.identifiers
            if self._book.ahead(i) == 0 and i - 1 != self.me
        ]
        if attempt is None:
            return effects
        request = self._request(view, state, attempt)
        effects += [Send(i - 1, request) for i in attempt.signers if i - 1 != self.me]
        if self.me + 1 in attempt.signers:
            effects += self._sign_own(view, state, request)
        return effects

    def _sign_own(self, view: int, state: _View, request: SignRequest) -> list[Effect]:
        """Answer one's own request, without the wire."""
        result: list[Effect] = []
        for effect in self._serve(self.me, request):
            if not isinstance(effect, Send):
                result.append(effect)
            elif isinstance(effect.message, Share):
                result += self._shared(self.me, effect.message)
            elif isinstance(effect.message, Refusal):
                result += self._refused(self.me, effect.message)
        return result

    def _shared(self, member: int, share: Share) -> list[Effect]:
        effects = self._stock(member, share.fresh)
        state = self._views.get(share.view)
        if state is None or state.coordinator is None:
            return effects
        made = SignatureShare(Identifier(member + 1), share.z)
        result = state.coordinator.take(share.attempt, made)
        if isinstance(result, Signature):
            seal = Seal(self._setup.epoch, share.view, state.root, result)
            return [*effects, Broadcast(seal), *self._finish(seal)]
        if isinstance(result, Culprits):
            effects += [Refused(i - 1, Reason.BAD_SHARE) for i in result.identifiers]
            if state.coordinator.is_blocked:
                effects += self._open(share.view, state)
        return effects

    def _refused(self, member: int, refusal: Refusal) -> list[Effect]:
        identifier, state = Identifier(member + 1), self._views.get(refusal.view)
        asked = (
            state is not None
            and state.coordinator is not None
            and state.coordinator.refuse(refusal.attempt, identifier)
        )
        if not asked or state is None or state.coordinator is None:
            return [Refused(member, Reason.STALE, "refusal of nothing asked")]
        self._book.drop(identifier)
        effects = self._stock(member, refusal.fresh)
        if state.coordinator.is_blocked:
            effects += self._open(refusal.view, state)
        return effects

    def _sealed(self, member: int, seal: Seal) -> list[Effect]:
        if seal.view in self._seals or self._is_old(seal.view):
            return []
        digest = seal_digest(self._setup.network, self._setup.epoch, seal.view, seal.root)
        if not verify(self._group, digest, seal.signature):
            return [Refused(member, Reason.BAD_SIGNATURE, f"seal of view {seal.view}")]
        return self._finish(seal)

    # ---- both

    def _is_old(self, view: int) -> bool:
        newest = max(self._seals.keys() | self._views.keys(), default=0)
        return view < self._floor or view < newest - WINDOW

    def _finish(self, seal: Seal) -> list[Effect]:
        self._seals[seal.view] = seal
        self._views.pop(seal.view, None)
        return [Sealed(seal.epoch, seal.view, seal.root, seal.signature)]

    def _done(self, effects: list[Effect]) -> tuple[Effect, ...]:
        """Forget what is old, and set the deadline."""
        if len(self._views) + len(self._seals) > WINDOW:
            for kept in (self._views, self._seals, self._locks):
                for view in [view for view in kept if self._is_old(view)]:
                    del kept[view]
        for held in self._held.values():
            held[:] = [r for r in held if not self._is_old(r.view) and r.view not in self._seals]
        self.deadline = min((state.deadline for state in self._views.values()), default=None)
        return tuple(effects)
