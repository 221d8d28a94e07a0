"""Tick-simplex seen by one keeper: a pure state machine, every transition in this file.

                 proposal valid          q × N                     q × F
    enter v ───────────────────▶ N(v,d) ───────▶ F(v,d), enter v+1 ───────▶ final, with ancestors
       │  deadline, wrong, silent leader
       └────────────▶ Z(v) ── q × Z ──▶ enter v+1          (f+1 × Z: join; any certificate: follow)

Rules R1 to R7 are in docs/agreement.md; after Simplex (Chan, Pass, eprint 2023/463) and
Commonware's specification of it. How a service drives it:

    core = Agreement(committee, me, signer, application, log, timing)
    perform(core.start(now))
    with trio.move_on_after(core.deadline - now): sender, message = await inbox.receive()
    perform(core.receive(sender, message, now))        or, if nothing came: perform(core.tick(now))

`now` is unix time in seconds; safety depends on no clock, and one that is set costs views. Effects
are performed in order; `Persist` comes first and must be durable before the rest is performed.
"""

from dataclasses import replace

from keeper.reasons import Reason
from p2p.agreement.application import Application, NotYet, Valid, Wrong, judge
from p2p.agreement.certificate import certificate_of, verify_certificate
from p2p.agreement.chain import Chain, Place, Start
from p2p.agreement.effects import (
    Broadcast,
    Effect,
    Equivocated,
    Jumped,
    Noted,
    Persist,
    Refused,
    Send,
    Timing,
)
from p2p.agreement.evidence import Evidence
from p2p.agreement.history import (
    answer_need,
    answer_sync,
    finalized_of,
    verify_history,
    without_certificates,
)
from p2p.agreement.leader import leader_of
from p2p.agreement.log import Final, Log, Opened, Record
from p2p.agreement.observations import Observations
from p2p.agreement.presence import HISTORY_COST, Courtesy, Doppelganger, Presence
from p2p.agreement.signing import Signer, verify_observation, vote_hash
from p2p.agreement.votes import Tally, may_sign
from p2p.types import (
    NO_DIGEST,
    VERSION,
    Certificate,
    Committee,
    Heartbeat,
    History,
    Kind,
    Message,
    Need,
    Proposal,
    SignedObservation,
    Sync,
    Vote,
)
from p2p.wire import MAX_CERTIFICATES, digest_of, fits

VIEWS_AHEAD = 8
"""Votes and proposals further ahead are not held: a keeper that far behind asks instead."""
VIEWS_KEPT = 16
"""Views behind the current one whose votes are counted: late evidence still finds its pair."""
BACKOFF = 1.5
"""A view without finality makes the next one this much longer …"""
BACKOFF_STEPS = 6
"""… at most so many times (11.4 ×)."""
VIEW_BOUNDS = 3
"""A view's deadline in message bounds D: observations, proposal and votes each take one."""
RESEND_BOUNDS = 2
"""Messages are said again every so many D while a view does not end."""
_DONE = {Kind.NOTARIZE: "notarized", Kind.NULLIFY: "nullified", Kind.FINALIZE: "finalized"}
RELAYED_SIZE = 4
"""Largest committee whose members pass on what a signer said, so that two quick links beat a slow
one: 16 messages more a view at n = 4, where one slow link of three is felt most; 185 at n = 7."""
SYNC_LAG = 2
"""A member whose final view is further ahead than this is asked for history."""


class Agreement:
    """One keeper's part in one epoch.

    Invariants: per view this keeper signs at most one digest over {N, F} and never Z with F; what
    it signed is in the `Persist` that precedes the message; `view` and the final view never fall.
    """

    def __init__(
        self,
        committee: Committee,
        me: int,
        signer: Signer,
        application: Application,
        log: Log,
        timing: Timing,
        begins: Start = Start(),  # noqa: B008 - frozen
    ) -> None:
        """Make a machine that has not started; nothing is read or sent yet.

        `begins` is the zero start too where it is not known: history tells it later.

        Raises:
            ValueError: the signer is not member `me`.
        """
        if committee.members[me].address != signer.address:
            raise ValueError(f"signer 0x{signer.address.hex()} is not member {me}")
        self.committee, self.me, self.timing = committee, me, timing
        self.chain = Chain(Place(begins.view, committee.config), begins.tick)
        self.view = 0
        self.closed_at: int | None = None
        self.heads: tuple[tuple[int, int], ...] = ()
        self._signer, self._application, self._log = signer, application, log
        self._tally = Tally(committee)
        self._mine: dict[int, dict[Kind, Vote]] = {}
        self._floor = 1
        self._observations = Observations()
        self._presence = Presence(committee, me, timing.skip_s)
        self._courtesy = Courtesy(RESEND_BOUNDS * timing.bound_s)
        self._doppelganger: Doppelganger | None = None
        self._waiting: dict[int, Proposal] = {}
        self._stored: set[Place] = set()
        self._failures = 0
        self._view_deadline: float | None = None
        self._resend_at: float | None = None
        self._need_at: float | None = None
        self._propose_at: float | None = None
        self._heartbeat_at: float | None = None
        self._sync_at = 0.0
        self._asked_at: dict[int, float] = {}
        """When each member was last asked for history: one that lies must leave turns to others."""
        self._needs_sent = 0
        self._now = 0.0
        self._moved = False
        """A view, certificate or body came: what is lacking must be looked at again."""
        self._writes: list[Record] = []
        self._out: list[Effect] = []

    # what a driver sees

    @property
    def deadline(self) -> float | None:
        """Return when `tick` must be called at the latest; None before the start."""
        moments = (
            self._view_deadline,
            self._resend_at,
            self._need_at,
            self._propose_at,
            self._heartbeat_at,
        )
        return min((moment for moment in moments if moment is not None), default=None)

    @property
    def final(self) -> Place:
        """Return the last final block."""
        return self.chain.final

    @property
    def may_vote(self) -> bool:
        """Return whether this keeper signs at present."""
        return self.closed_at is None and self._doppelganger is None

    def leader(self, view: int) -> int:
        """Return who leads a view."""
        return leader_of(self.committee.config, view, self.committee.size)

    def start(self, now: float) -> tuple[Effect, ...]:
        """Take up where the log ends; a log that was not opened for this config only watches."""
        restored = self._log.restore(self.committee.epoch, self.committee.config)
        if restored.final is not None:
            place = Place(restored.final.view, restored.final.digest)
            self.chain.finish(place, restored.final_tick)
        self._floor = max(1, self.chain.final.view)
        if not restored.opened:
            self._doppelganger = Doppelganger(self.committee)
        for vote in restored.votes:
            self._mine.setdefault(vote.view, {})[vote.kind] = vote
            self._tally.add(vote)
        for certificate in restored.certificates:
            self.chain.add_certificate(certificate)
        for body in restored.proposals:
            place = Place(body.view, digest_of(body))
            self.chain.bodies[place] = body
            self._stored.add(place)
        self._now = now
        self._presence.start(now)
        self._heartbeat_at = now
        self._settle(now)
        self._enter(max(self.chain.top() + 1, *self._mine, 1), now)
        return self._flush(now)

    def receive(self, sender: int, message: Message, now: float) -> tuple[Effect, ...]:
        """Take one message of a member whose link is authenticated."""
        self._read_clock(now)
        self._presence.heard(sender, now)
        match message:
            case Vote():
                self._on_vote(sender, message, now)
            case Certificate():
                self._on_certificate(sender, message, now)
            case Proposal():
                self._on_proposal(sender, message, now)
            case SignedObservation():
                self._on_observation(sender, message, now)
            case Need():
                self._on_need(sender, message, now)
            case Sync():
                self._on_sync(sender, message, now)
            case History():
                self._on_history(sender, message, now)
            case Heartbeat():
                self._on_heartbeat(sender, message, now)
        return self._flush(now)

    def observe(self, observation: SignedObservation, now: float) -> tuple[Effect, ...]:
        """Take an observation from gossip, or this keeper's own.

        The driver hands over only observations whose body its application accepts.
        """
        self._read_clock(now)
        self._on_observation(observation.signer, observation, now)
        return self._flush(now)

    def tick(self, now: float) -> tuple[Effect, ...]:
        """Do what is due."""
        self._read_clock(now)
        if self._view_deadline is not None and now >= self._view_deadline:
            self._failures += 1
            self._note(self.view, "deadline", (self.leader(self.view),))
            self._nullify(now)
        if self._resend_at is not None and now >= self._resend_at:
            self._resend(now)
        if self._need_at is not None and now >= self._need_at:
            self._ask(now)
        if self._propose_at is not None and now >= self._propose_at:
            self._propose(now)
        if self._heartbeat_at is not None and now >= self._heartbeat_at:
            self._heartbeat_at = now + self.timing.heartbeat_s
            self._out.append(Broadcast(self.heartbeat(now)))
        return self._flush(now)

    def retry(self, now: float) -> tuple[Effect, ...]:
        """Ask the application again: what it waited for may have come."""
        self._read_clock(now)
        for place in sorted(self.chain.adopted, key=lambda place: place.view):
            self._adopt(place, self.chain.bodies[place])
        self._reconsider(now)
        self._propose(now)
        return self._flush(now)

    def close(self, view: int, now: float) -> tuple[Effect, ...]:
        """End the epoch at a final view: sign nothing more, keep answering those who are late."""
        self._read_clock(now)
        self.closed_at = view
        self._view_deadline = self._resend_at = self._propose_at = None
        proof = self._log.certificate(self.committee.epoch, Kind.FINALIZE, self.chain.final.view)
        if proof is not None:
            self._out.append(Broadcast(proof))
        return self._flush(now)

    def jump(self, history: History, now: float) -> tuple[Effect, ...]:
        """Adopt a certified tail of the chain without what is before it: state sync of a late node.

        A `Jumped` goes before the final blocks; the application has, or will fetch, the state
        after the first block's parent.
        """
        self._read_clock(now)
        if not verify_history(self.committee, self._signer, history):
            return self._flush(now)
        self._skip_to(history)
        self._take_history(history, now)
        return self._flush(now)

    def show(self, heads: tuple[tuple[int, int], ...], now: float) -> None:
        """Set what heartbeats carry from now on: (chain, height) pairs."""
        self.heads = heads

    def heartbeat(self, now: float) -> Heartbeat:
        """Return where this keeper stands."""
        final = self.chain.final
        return Heartbeat(
            self.committee.epoch, self.committee.config, self.view, final.view, final.digest,
            self.heads, VERSION, max(0, int(now * 1000)),
        )  # fmt: skip

    def _read_clock(self, now: float) -> None:
        """Keep what is due as far away as it was when the machine's clock is set back."""
        back, self._now = self._now - now, now
        if back <= 0:
            return

        def nearer(moment: float | None) -> float | None:
            return None if moment is None else moment - back

        self._view_deadline = nearer(self._view_deadline)
        self._resend_at, self._need_at = nearer(self._resend_at), nearer(self._need_at)
        self._propose_at = nearer(self._propose_at)
        self._heartbeat_at = nearer(self._heartbeat_at)
        self._sync_at -= back
        self._asked_at = {member: at - back for member, at in self._asked_at.items()}

    # R1, R7: views

    def _enter(self, view: int, now: float) -> None:
        self.view = view
        self._moved = True
        self._resend_at = self._propose_at = self._view_deadline = None
        self._forget(view)
        if self.closed_at is not None:
            return
        leader = self.leader(view)
        self._note(view, "entered", (leader,))
        if self._presence.is_silent(leader, now):
            self._note(view, "leader silent", (leader,))
            self._nullify(now)
        else:
            parent = self.chain.parent_for(view)
            tick = self.chain.tick_of(parent) if parent else None
            begins = now if tick is None else max(now, self.timing.start_of(tick + 1))
            patience = BACKOFF ** min(self._failures, BACKOFF_STEPS)
            bounds = VIEW_BOUNDS * self.timing.bound_s * patience
            self._view_deadline = begins + self.timing.grace_s + bounds
        if self.view == view:
            self._propose(now)
        if self.view == view:
            self._reconsider(now)

    def _forget(self, view: int) -> None:
        low = view - VIEWS_KEPT
        self._floor = max(self._floor, low)
        self._tally.prune(low)
        for old in [old for old in self._mine if old < low]:
            del self._mine[old]
        for old in [old for old in self._waiting if old < view]:
            del self._waiting[old]
        self.chain.drop_rejected(low, self._stored)
        self._stored = {place for place in self._stored if place.view >= self.chain.final.view}

    def _advance(self, now: float) -> None:
        while self.chain.top() >= self.view > 0:
            self._enter(self.chain.top() + 1, now)

    # R1, R2: proposals

    def _propose(self, now: float) -> None:
        mine = self._mine.get(self.view, {})
        self._propose_at = None
        if self.leader(self.view) != self.me or mine or not self.may_vote:
            return
        parent = self.chain.parent_for(self.view)
        if parent is None or not self.chain.is_adopted(parent):
            return
        after = self.chain.tick_of(parent)
        tick = None if after is None else self._tick_to_propose(after, now)
        if tick is None:
            return
        draft = self._draft(parent, tick)
        if draft is not None:
            digest = digest_of(draft)
            body = replace(draft, signature=self._sign(Kind.NOTARIZE, self.view, digest))
            self._hold(Place(self.view, digest), body, adopt=True)
            self._cast(Kind.NOTARIZE, self.view, digest, now, body)

    def _draft(self, parent: Place, tick: int) -> Proposal | None:
        """Return the unsigned block that follows a parent, or None when it cannot be made here."""
        proofs = self.chain.proofs(parent, self.view, MAX_CERTIFICATES)
        for observations in self._observations.choices(tick, self.committee.quorum):
            payload = self._application.propose(parent.digest, self.view, tick, observations)
            if payload is None:
                return None
            root = self._application.root(payload)
            draft = Proposal(
                self.committee.epoch, self.view, parent.view, parent.digest, tick, payload, root,
                observations, proofs, self.me, bytes(64),
            )  # fmt: skip
            if fits(draft):
                return draft
        self._note(self.view, "proposal too large", (self.me,))
        return None

    def _tick_to_propose(self, after: int, now: float) -> int | None:
        current = self.timing.tick_at(now)
        if current <= after:
            self._propose_at = self.timing.start_of(after + 1)
            return None
        for tick in self._observations.ticks(after, current):
            ready = self._observations.ready_at(tick, self.committee.size, self.timing.grace_s)
            if ready is not None and ready <= now:
                return tick
            if ready is not None:
                self._propose_at = min(ready, self._propose_at or ready)
        return None

    def _on_proposal(self, sender: int, body: Proposal, now: float) -> None:
        if body.epoch != self.committee.epoch:
            self._refuse(sender, Reason.OTHER_EPOCH)
        elif body.signer != self.leader(body.view):
            self._refuse(sender, Reason.WRONG_LEADER, f"view {body.view}")
        elif body.view <= self.chain.final.view:
            pass  # an answer that came late
        elif body.view > self.view + VIEWS_AHEAD and not self._wants(body):
            self._refuse(sender, Reason.TOO_FAR_AHEAD, f"view {body.view}")
        else:
            self._take_proposal(sender, body, now)

    def _wants(self, body: Proposal) -> bool:
        return self.chain.missing_body() == Place(body.view, digest_of(body))

    def _take_proposal(self, sender: int, body: Proposal, now: float) -> None:
        place = Place(body.view, digest_of(body))
        vote = Vote(
            body.epoch, Kind.NOTARIZE, body.view, place.digest, body.signer, body.signature
        )  # fmt: skip
        known = self._tally.holds(vote)
        if not known and not self._is_signed(vote):
            self._refuse(sender, Reason.BAD_SIGNATURE, f"proposal of view {body.view}")
            return
        for certificate in body.certificates:
            self._on_certificate(sender, certificate, now)
        if body.view <= self.chain.final.view:
            return
        rivals = [held for held in self.chain.bodies if held.view == place.view]
        if place not in self.chain.bodies and (
            not rivals
            or self.chain.certified(place.view) == place
            or self.chain.missing_body() == place
        ):
            self._note(body.view, "proposal", (body.signer,))
            self.chain.bodies[place] = body
            # bare: its certificates are not checked, and who passes them on would answer for them
            self._pass_on(sender, without_certificates(body))
        if not known:
            self._count(vote, now)
        self._settle(now)
        self._advance(now)
        if body.view >= self.view and place in self.chain.bodies:
            self._waiting.setdefault(body.view, body)
            self._reconsider(now)

    def _reconsider(self, now: float) -> None:
        body = self._waiting.get(self.view)
        if body is None or Kind.NOTARIZE in self._mine.get(self.view, {}) or not self.may_vote:
            return
        parent = Place(body.parent_view, body.parent)
        if not self.chain.justifies(parent, body.view) or not self.chain.is_adopted(parent):
            return
        verdict = self._judge(body, parent)
        match verdict:
            case Valid():
                place = Place(body.view, digest_of(body))
                self._hold(place, body, adopt=True)
                self._cast(Kind.NOTARIZE, place.view, place.digest, now)
            case Wrong():
                self._note(body.view, f"wrong: {verdict.reason}", (body.signer,), verdict.detail)
                del self._waiting[body.view]
                self._nullify(now)
            case NotYet():
                self._note(body.view, "not yet", (self.me,), verdict.missing)

    def _judge(self, body: Proposal, parent: Place) -> Valid | Wrong | NotYet:
        """R2: what a keeper checks before it votes for a block."""
        seen = body.observations
        signers = {observation.signer for observation in seen}
        if len(signers) != len(seen) or len(seen) < self.committee.quorum:
            return Wrong(Reason.WRONG_OBSERVATIONS, "too few or repeated")
        if any(observation.tick != body.tick for observation in seen):
            return Wrong(Reason.WRONG_OBSERVATIONS, "of another tick")
        before = self.chain.tick_of(parent)
        if before is None or body.tick <= before:
            return Wrong(Reason.WRONG_OBSERVATIONS, f"tick {body.tick} after {before}")
        for observation in seen:
            if not self._observations.known(observation) and not verify_observation(
                self.committee, self._signer, observation
            ):
                return Wrong(Reason.WRONG_OBSERVATIONS, f"signature of member {observation.signer}")
        verdict = judge(self._application, body.parent, body.view, body.tick, seen, body.payload)
        if isinstance(verdict, Valid) and verdict.root != body.root:
            return Wrong(Reason.WRONG_DECISIONS, "root")
        return verdict

    def _hold(self, place: Place, body: Proposal, *, adopt: bool = False) -> None:
        self.chain.bodies[place] = body
        if place not in self._stored:
            self._stored.add(place)
            self._writes.append(body)
        if adopt and place not in self.chain.adopted:
            self.chain.adopted.add(place)
            self._adopt(place, body)

    def _adopt(self, place: Place, body: Proposal) -> None:
        self._application.adopt(
            place.digest, body.parent, body.view, body.tick, body.observations, body.payload
        )

    # R2 to R5: votes

    def _cast(
        self, kind: Kind, view: int, digest: bytes, now: float, body: Proposal | None = None
    ) -> None:
        held = self._mine.get(view, {})
        signed = {other: vote.digest for other, vote in held.items()}
        if not self.may_vote or view < self._floor or not may_sign(signed, kind, digest):
            return
        signature = body.signature if body is not None else self._sign(kind, view, digest)
        vote = Vote(self.committee.epoch, kind, view, digest, self.me, signature)
        self._mine.setdefault(view, {})[kind] = vote
        self._writes.append(vote)
        self._out.append(Broadcast(vote if body is None else body))
        self._count(vote, now)

    def _nullify(self, now: float) -> None:
        self._view_deadline = None
        if self._resend_at is None:
            self._resend_at = now + RESEND_BOUNDS * self.timing.bound_s
        self._cast(Kind.NULLIFY, self.view, NO_DIGEST, now)

    def _on_vote(self, sender: int, vote: Vote, now: float) -> None:
        if vote.epoch != self.committee.epoch:
            self._refuse(sender, Reason.OTHER_EPOCH)
        elif vote.signer >= self.committee.size:
            self._refuse(sender, Reason.NOT_A_MEMBER, f"vote in view {vote.view}")
        elif vote.signer != sender and not self._relays:
            self._refuse(sender, Reason.BAD_SIGNATURE, "a vote is sent by its signer")
        elif vote.view > self.view + VIEWS_AHEAD:
            self._refuse(sender, Reason.TOO_FAR_AHEAD, f"view {vote.view}")
        elif vote.view < self.view - VIEWS_KEPT:
            self._refuse(sender, Reason.STALE, f"view {vote.view}")
        elif not self._tally.is_news(vote) or self._is_settled(vote):
            pass  # said before, or a certificate says it already
        elif not self._is_signed(vote):
            self._refuse(sender, Reason.BAD_SIGNATURE, f"vote in view {vote.view}")
        else:
            self._count(vote, now)
            if not self._is_settled(vote):
                self._pass_on(sender, vote)

    @property
    def _relays(self) -> bool:
        return self.committee.size <= RELAYED_SIZE

    def _pass_on(self, sender: int, message: Vote | Proposal) -> None:
        """Give what its signer told us to the others, once, in a committee small enough."""
        if self._relays and sender == message.signer:
            others = set(range(self.committee.size)) - {self.me, sender}
            self._out.extend(Send(other, message) for other in sorted(others))

    def _is_settled(self, vote: Vote) -> bool:
        return self.chain.holds(vote.kind, vote.view, vote.digest) and not self._tally.contradicts(
            vote
        )

    def _count(self, vote: Vote, now: float) -> None:
        counted = self._tally.add(vote)
        self._expose(vote, counted.contradicts)
        if not counted.fresh:
            return
        if counted.count >= self.committee.quorum:
            self._accept(certificate_of(self._tally.votes(vote.kind, vote.view, vote.digest)), now)
        elif (
            vote.kind is Kind.NULLIFY
            and vote.view == self.view
            and counted.count > self.committee.faults
        ):
            self._nullify(now)

    def _expose(self, vote: Vote, contradicted: Vote | None) -> None:
        if contradicted is None:
            return
        evidence = Evidence(self.committee.config, contradicted, vote)
        self._writes.append(evidence)
        self._out.append(Equivocated(evidence))
        self._note(vote.view, "equivocation", (vote.signer,))

    # R3, R5, R6, R7: certificates

    def _on_certificate(self, sender: int, certificate: Certificate, now: float) -> None:
        if certificate.epoch != self.committee.epoch:
            self._refuse(sender, Reason.OTHER_EPOCH)
            return
        if self.chain.holds(certificate.kind, certificate.view, certificate.digest):
            return
        known = self._tally.votes(certificate.kind, certificate.view, certificate.digest)
        if len(certificate.signatures) < self.committee.quorum:
            self._refuse(sender, Reason.BELOW_QUORUM, f"view {certificate.view}")
        elif not verify_certificate(self.committee, self._signer, certificate, known):
            self._refuse(sender, Reason.BAD_SIGNATURE, f"certificate of view {certificate.view}")
        else:
            self._hear_signers(certificate)
            self._accept(certificate, now)

    def _hear_signers(self, certificate: Certificate) -> None:
        """Count a certificate's votes as said: whoever signed something else is exposed."""
        if not self.view - VIEWS_KEPT <= certificate.view <= self.view + VIEWS_AHEAD:
            return
        for signer, signature in zip(certificate.signers, certificate.signatures, strict=True):
            vote = Vote(
                certificate.epoch, certificate.kind, certificate.view, certificate.digest, signer,
                signature,
            )  # fmt: skip
            if signer != self.me and self._tally.is_news(vote):
                self._expose(vote, self._tally.add(vote).contradicts)

    def _accept(self, certificate: Certificate, now: float) -> None:
        if not self.chain.add_certificate(certificate):
            return
        self._writes.append(certificate)
        self._out.append(Broadcast(certificate))
        self._note(certificate.view, _DONE[certificate.kind], certificate.signers)
        if certificate.kind is Kind.NOTARIZE:
            self._cast(Kind.FINALIZE, certificate.view, certificate.digest, now)
        elif certificate.kind is Kind.FINALIZE:
            self._failures = 0
        self._settle(now)
        self._advance(now)

    def _settle(self, now: float) -> None:
        """Finalise what can be, adopt what became a possible parent, judge what waited for it."""
        self._moved = True
        tip = self.chain.finalizing
        path = self.chain.path(Place(tip.view, tip.digest)) if tip else None
        for place in path or ():
            assert tip is not None
            body = self.chain.bodies[place]
            self._hold(place, body, adopt=True)
            self._writes.append(Final(body.epoch, place.view, place.digest))
            self._out.append(finalized_of(body, place.digest, tip))
            self.chain.finish(place, body.tick)
        while ready := self.chain.adoptable():
            for place in ready:
                self._hold(place, self.chain.bodies[place], adopt=True)
        if self._doppelganger and self._doppelganger.is_over(
            self.chain.top(), self.chain.final.view
        ):
            self._doppelganger = None
            self._floor = max(self._floor, self.chain.final.view + 1)
            self._writes.append(Opened(self.committee.config))
            self._note(self.view, "signing again", (self.me,))
        if self.view > 0:
            self._reconsider(now)
            self._propose(now)

    # R4: repair

    def _resend(self, now: float) -> None:
        """Say again what others may lack to leave this view."""
        for view in (self.view - 1, self.view):
            for kind, vote in sorted(self._mine.get(view, {}).items()):
                own = self.chain.bodies.get(Place(view, vote.digest))
                leads = kind is Kind.NOTARIZE and own is not None and own.signer == self.me
                self._out.append(Broadcast(own if leads and own else vote))
        before = self.view - 1
        tops = [self.chain.notarized.get(before), self.chain.nullified.get(before)]
        proof = self.chain.finalizing or self._log.certificate(
            self.committee.epoch, Kind.FINALIZE, self.chain.final.view
        )
        self._out.extend(Broadcast(held) for held in (*tops, proof) if held is not None)
        self._resend_at = now + RESEND_BOUNDS * self.timing.bound_s

    def _lacking(self) -> tuple[int, tuple[int, ...]] | None:
        """Return the view to ask about and who must know, or None."""
        place = self.chain.missing_body()
        if place is not None:
            proof = self.chain.notarized.get(place.view)
            return place.view, proof.signers if proof else ()
        gap = self.chain.first_gap(self.view)
        return (gap, ()) if gap is not None else None

    def _ask(self, now: float) -> None:
        """Ask one member after the other, those first who signed for it."""
        lacking = self._lacking()
        self._need_at, self._moved = None, True
        if lacking is None or self.committee.size == 1:
            return
        view, signers = lacking
        everyone = [i for i in range(self.committee.size) if i != self.me]
        asked = [i for i in signers if i != self.me] or everyone
        self._needs_sent += 1
        self._out.append(Send(asked[(self._needs_sent + self.me) % len(asked)], Need(view)))

    def _on_sync(self, sender: int, sync: Sync, now: float) -> None:
        if not self._courtesy.grants(sender, HISTORY_COST, now):
            self._refuse(sender, Reason.RATE_LIMITED, "history")
            return
        answer = answer_sync(self._log, sync.epoch, sync.from_view)
        if answer is not None:
            self._out.append(Send(sender, answer))

    def _on_need(self, sender: int, need: Need, now: float) -> None:
        if not self._courtesy.grants(sender, 1, now):
            self._refuse(sender, Reason.RATE_LIMITED, f"view {need.view}")
            return
        self._out.extend(
            Send(sender, answer)
            for answer in answer_need(self._log, self.committee.epoch, need.view)
        )

    def _on_history(self, sender: int, history: History, now: float) -> None:
        if history.certificate.epoch != self.committee.epoch:
            self._refuse(sender, Reason.OTHER_EPOCH, "history")
        elif history.certificate.view <= self.chain.final.view:
            pass  # an answer that came late
        elif not verify_history(self.committee, self._signer, history):
            self._refuse(sender, Reason.BAD_SIGNATURE, "history")
        else:
            first, far = history.blocks[0], self.chain.final.view + VIEWS_KEPT
            if first.parent_view > far or first.parent == self.committee.config:
                self._skip_to(history)
            self._take_history(history, now)
            if len(history.blocks) > 1:  # one at a time would keep us behind for ever
                self._asked_at.pop(sender, None)

    def _skip_to(self, history: History) -> None:
        """Take the parent of a certified tail for final: what is before it, nobody told."""
        first, before = history.blocks[0], self.chain.final.view
        if first.parent_view > before:
            self.chain.finish(Place(first.parent_view, first.parent), 0)
            self._out.append(Jumped(before, first.parent_view, first.parent))

    def _take_history(self, history: History, now: float) -> None:
        for body in history.blocks:
            if body.view > self.chain.final.view:
                self.chain.bodies.setdefault(Place(body.view, digest_of(body)), body)
        self._accept(history.certificate, now)
        self._sync_at = now

    def _on_heartbeat(self, sender: int, beat: Heartbeat, now: float) -> None:
        if beat.epoch != self.committee.epoch:
            self._refuse(sender, Reason.OTHER_EPOCH, f"epoch {beat.epoch}")
            return
        if beat.config != self.committee.config:
            self._refuse(sender, Reason.WRONG_CONFIG, f"epoch {beat.epoch}")
            return
        if self._doppelganger is not None:
            self._doppelganger.claim(sender, beat.view)
            self._settle(now)
        lag = beat.final_view - self.chain.final.view
        is_behind = lag > SYNC_LAG or (lag > 0 and self._failures > 0)
        if is_behind and now >= self._sync_at and self._has_turn(sender, now):
            self._sync_at = now + RESEND_BOUNDS * self.timing.bound_s
            self._asked_at[sender] = now
            self._out.append(Send(sender, Sync(self.committee.epoch, self.chain.final.view)))

    def _has_turn(self, member: int, now: float) -> bool:
        """Return whether a member may be asked for history: f liars leave two of f + 2 turns."""
        turn = RESEND_BOUNDS * self.timing.bound_s
        asked = self._asked_at.get(member)
        return asked is None or now - asked >= (self.committee.faults + 2) * turn

    def _on_observation(self, sender: int, observation: SignedObservation, now: float) -> None:
        current = self.timing.tick_at(now)
        if observation.epoch != self.committee.epoch:
            self._refuse(sender, Reason.OTHER_EPOCH, f"epoch {observation.epoch}")
        elif observation.config != self.committee.config:
            self._refuse(sender, Reason.WRONG_CONFIG, f"epoch {observation.epoch}")
        elif not self._observations.takes(observation, current):
            pass  # held already, or of no use any more
        elif not verify_observation(self.committee, self._signer, observation):
            self._refuse(sender, Reason.BAD_SIGNATURE, f"observation of tick {observation.tick}")
        else:
            self._observations.prune(current)
            self._observations.add(observation, now, self.committee.quorum)
            self._propose(now)

    # signing and leaving

    def _sign(self, kind: Kind, view: int, digest: bytes) -> bytes:
        return self._signer.sign(vote_hash(self.committee, kind, view, digest))

    def _is_signed(self, vote: Vote) -> bool:
        return self._signer.verify(
            vote_hash(self.committee, vote.kind, vote.view, vote.digest),
            vote.signature,
            self.committee.members[vote.signer].address,
        )

    def _refuse(self, member: int, reason: Reason, detail: str = "") -> None:
        self._out.append(Refused(member, reason, detail))

    def _note(self, view: int, event: str, members: tuple[int, ...] = (), detail: str = "") -> None:
        self._out.append(Noted(view, event, members, detail))

    def _flush(self, now: float) -> tuple[Effect, ...]:
        """Hand over what one input caused, what must be durable first."""
        if self._moved:
            self._moved = False
            if self._lacking() is None:
                self._need_at = None
            elif self._need_at is None:
                self._need_at = now + self.timing.bound_s
        writes, out = tuple(self._writes), tuple(self._out)
        self._writes, self._out = [], []
        return ((Persist(writes),) if writes else ()) + out
