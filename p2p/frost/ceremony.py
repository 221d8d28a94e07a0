"""A whole key generation between n members, as a pure state machine (after ChillDKG).

    HELLO     every operator signs the hash of the terms      all n ──▶
    COMMIT    polynomial commitment, proof of knowledge       all n, checked ──▶
    DEAL      one sealed box per member, for all to see       all n ──▶
              a bad box: COMPLAINT names the dealer, who must REVEAL that box; one of the two lied
    CONFIRM   signature over what was seen of every dealer    all n, equal ──▶ Completed
    at any step EXPOSE shows what somebody signed: two different words are its author's end
    at the end a CERTIFICATE of all n confirms completes whoever was told something else

No key is used before all n signed the same transcript. Every failure names who caused it; the
caller starts again without them. Broadcasts are repeated every `resend_s`, so a link may come up at
any time. With `terms.old` the old members deal their shares of that key anew (`p2p.frost.reshare`):
the key stays, all shares change, and a member that lost its share gets one. Drive it so:

    ceremony = Ceremony(terms, host_seed, random_bytes=os.urandom, timing=CeremonyTiming())
    perform(ceremony.start(now)); perform(ceremony.receive(member, Signed.decode(raw)))
    perform(ceremony.tick(now))                      # at ceremony.deadline
    Broadcast(signed) → send signed.encode() to every other host
    Completed(share, recovery) → save the share sealed, keep recovery.encode(); tick on for linger_s
    Failed(faults) → tell the operator; `ceremony.missing` names who is waited for meanwhile
"""

from collections.abc import Iterable
from dataclasses import dataclass

from keeper.units import Instant
from p2p import identity
from p2p.frost import boxes
from p2p.frost.dkg import Blame, Fault, Participant, share_fits
from p2p.frost.group import RandomBytes
from p2p.frost.keys import KeyShare
from p2p.frost.reshare import Reshaper
from p2p.frost.secret import Secret
from p2p.frost.suite import Identifier
from p2p.frost.transcript import (
    NO_SESSION,
    Kind,
    Recovery,
    Signed,
    Terms,
    open_share,
    pack,
    pack_package,
    pack_words,
    seen_by,
    session_of,
    unpack,
    unpack_confirm,
    unpack_deal,
    unpack_hello,
    unpack_package,
    unpack_words,
)

_STEPS = (Kind.HELLO, Kind.COMMIT, Kind.DEAL, Kind.CONFIRM)


@dataclass(frozen=True, slots=True)
class CeremonyTiming:
    """Durations in seconds."""

    join_s: float = 600.0
    """How long operators wait for each other's Hello."""
    step_s: float = 30.0
    """How long any later step may take."""
    resend_s: float = 1.0
    linger_s: float = 15.0
    """How long a member that is done goes on repeating its words for those that are not."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send to every other host."""

    message: Signed


@dataclass(frozen=True, slots=True)
class Completed:
    """All n members confirmed; the share is ready to be saved, then used."""

    share: KeyShare
    recovery: Recovery


@dataclass(frozen=True, slots=True)
class Failed:
    """The ceremony is over; who is to blame, sorted by member index."""

    faults: tuple[tuple[int, Fault], ...]


Effect = Broadcast | Completed | Failed


class Ceremony:
    """One member's side; members are indices into `terms.hosts`.

    Invariants: one word per member and kind is kept, a second different one ends the ceremony with
    its author named; `Completed` or `Failed` is returned once, and never both.
    """

    def __init__(
        self,
        terms: Terms,
        host_seed: Secret,
        *,
        random_bytes: RandomBytes,
        timing: CeremonyTiming | None = None,
        share: KeyShare | None = None,
    ) -> None:
        """Prepare one member; `share` is a dealer's share of the old key in a reshare."""
        self.terms, self._old_share = terms, share
        self._seed, self._random_bytes = host_seed, random_bytes
        self._timing = timing or CeremonyTiming()
        self.me = terms.hosts.index(identity.peer_id_of(host_seed.reveal()))
        self._participant: Participant | Reshaper | None = None
        self._session = NO_SESSION
        self._early: dict[tuple[Kind, int], Signed] = {}
        self._words: dict[tuple[Kind, int], Signed] = {}
        self._disputes: list[Signed] = []
        self._ephemeral: dict[int, Secret] = {}
        self._revealed: dict[tuple[int, int], Secret | None] = {}
        self._accused: dict[int, set[int]] = {}
        self._deviants: set[int] = set()
        self._step = Kind.HELLO
        self._share: KeyShare | None = None
        self._now, self._ends = Instant(0.0), Instant(0.0)
        self.outcome: Completed | Failed | None = None
        self.deadline: Instant | None = None

    @property
    def step(self) -> Kind:
        """Where the ceremony stands."""
        return self._step

    @property
    def missing(self) -> tuple[int, ...]:
        """Whose word of this step has not arrived."""
        return tuple(i for i in self._speakers(self._step) if (self._step, i) not in self._words)

    def _speakers(self, kind: Kind) -> tuple[int, ...]:
        """Return who has to say a word of this kind."""
        if kind in (Kind.COMMIT, Kind.DEAL):
            return self.terms.dealing
        return tuple(range(len(self.terms.hosts)))

    # ---- inputs

    def start(self, now: Instant) -> tuple[Effect, ...]:
        """Say hello; call once."""
        self._now, self._ends = now, Instant(now + self._timing.join_s)
        hello = pack([self.terms.digest(), self._random_bytes(32)])
        return self._after([self._say(Kind.HELLO, hello)])

    def receive(self, member: int, message: Signed) -> tuple[Effect, ...]:
        """Take a word that arrived from a member; it must be signed by that member."""
        known = 0 <= member < len(self.terms.hosts) and member != self.me
        if not known or self.outcome is not None:
            return ()
        if self._step is Kind.HELLO and message.kind is not Kind.HELLO:
            self._early[message.kind, member] = message
            return ()
        return self._after(self._take(member, message))

    def _take(self, member: int, message: Signed) -> list[Effect]:
        session = NO_SESSION if message.kind is Kind.HELLO else self._session
        if not message.is_by(self.terms.hosts[member], session):
            return []
        try:
            if message.kind is Kind.HELLO:
                return self._hello(member, message)
            if message.kind in _STEPS:
                return self._hold(member, message)
            return self._dispute(member, message)
        except (ValueError, TypeError):
            return self._fail([(member, Fault.BAD_MESSAGE)])

    def tick(self, now: Instant) -> tuple[Effect, ...]:
        """Repeat own words; end the step if its time is over."""
        self._now = now
        if self.outcome is None and now >= self._ends:
            return self._after(self._expire())
        own = [word for (_, member), word in sorted(self._words.items()) if member == self.me]
        return self._after([Broadcast(word) for word in (*own[-2:], *self._disputes)])

    # ---- steps

    def _say(self, kind: Kind, body: bytes) -> Effect:
        session = NO_SESSION if kind is Kind.HELLO else self._session
        signed = Signed.make(session, kind, body, self._seed)
        if kind in _STEPS:
            self._words[kind, self.me] = signed
        else:
            self._disputes.append(signed)
        return Broadcast(signed)

    def _hello(self, member: int, message: Signed) -> list[Effect]:
        """Take a hello; before the session stands, a restarted member may say another."""
        if unpack_hello(message.body)[0] != self.terms.digest():
            return self._fail([(member, Fault.WRONG_CONFIG)])
        if self._step is Kind.HELLO:
            self._words[Kind.HELLO, member] = message
        return []

    def _hold(self, author: int, word: Signed) -> list[Effect]:
        """Keep a signed word; a second different one ends the ceremony.

        Of two confirms the fitting one counts: others may have completed with it.
        """
        if author not in self._speakers(word.kind):
            return []
        held = self._words.setdefault((word.kind, author), word)
        if held.body == word.body:
            return []
        if word.kind is Kind.CONFIRM:
            own = self._words.get((Kind.CONFIRM, self.me))
            if own is not None and own.body == word.body:
                self._words[Kind.CONFIRM, author] = word
            return []
        shown = self._say(Kind.EXPOSE, pack([author, *self._show(held)]))
        return [shown, *self._fail([(author, Fault.EQUIVOCATION)])]

    def _after(self, effects: list[Effect]) -> tuple[Effect, ...]:
        """Take every step that is complete, then set the deadline."""
        while self.outcome is None and not self.missing and not self._accused:
            step = self._step
            effects += self._complete(step)
            if self._step is step:
                break
        if self._is_over:
            self.deadline = None
        else:
            resend = Instant(self._now + self._timing.resend_s)
            self.deadline = min(resend, self._ends) if self.outcome is None else resend
        return tuple(effects)

    @property
    def _is_over(self) -> bool:
        return self.outcome is not None and self._now >= self._ends

    def _enter(self, step: Kind, body: bytes | None) -> list[Effect]:
        self._step = step
        self._ends = Instant(self._now + self._timing.step_s)
        return [] if body is None else [self._say(step, body)]

    def _complete(self, step: Kind) -> list[Effect]:
        if step is Kind.HELLO:
            return self._commit()
        if step is Kind.COMMIT:
            return self._deal()
        if step is Kind.DEAL:
            return self._check_deals()
        return self._compare()

    def _word(self, kind: Kind, member: int) -> Signed:
        return self._words[kind, member]

    def _all(self, kind: Kind) -> tuple[Signed, ...]:
        return tuple(self._word(kind, member) for member in self._speakers(kind))

    def _commit(self) -> list[Effect]:
        self._session = session_of(self.terms, self._all(Kind.HELLO))
        self._participant = self._new_participant()
        deals = self.me in self.terms.dealing
        body = pack_package(self._participant.round1()) if deals else None
        effects = self._enter(Kind.COMMIT, body)
        for (_, member), message in sorted(self._early.items()):
            effects += self._take(member, message)
        self._early.clear()
        return effects

    def _new_participant(self) -> Participant | Reshaper:
        terms, me = self.terms, Identifier(self.me + 1)
        if terms.old is None:
            return Participant(
                terms.suite,
                me,
                terms.identifiers,
                terms.min_signers,
                self._random_bytes,
                context=self._session,
            )
        return Reshaper(
            terms.old,
            self._old_share,
            me,
            [Identifier(dealer + 1) for dealer in terms.dealers],
            terms.identifiers,
            terms.min_signers,
            self._random_bytes,
            self._session,
        )

    def _deal(self) -> list[Effect]:
        assert self._participant is not None
        suite, packages, bad = self.terms.suite, {}, []
        for dealer in self.terms.dealing:
            i = Identifier(dealer + 1)
            try:
                packages[i] = unpack_package(suite, i, self._word(Kind.COMMIT, i - 1).body)
            except ValueError:
                bad.append((i - 1, Fault.BAD_MESSAGE))
        if bad:
            return self._denounce(Kind.COMMIT, bad)
        shares = self._participant.round2(packages)
        if isinstance(shares, Blame):
            faults = [(i - 1, fault) for i, fault in shares.faults]
            return self._denounce(Kind.COMMIT, faults)
        if self.me not in self.terms.dealing:
            return self._enter(Kind.DEAL, None)
        sealed = []
        for i in self.terms.identifiers:
            share = shares[i] if i - 1 != self.me else self._participant.own_share()
            host = identity.public_key_of(self.terms.hosts[i - 1])
            box, ephemeral = boxes.seal(share, host, self._random_bytes)
            sealed.append(box)
            self._ephemeral[i - 1] = ephemeral
            share.wipe()
        return self._enter(Kind.DEAL, pack(sealed))

    def _check_deals(self) -> list[Effect]:
        assert self._participant is not None
        host, shares = identity.public_key_of(self.terms.hosts[self.me]), {}
        bad: list[tuple[int, Fault]] = []
        doubtful: list[int] = []
        for dealer in self.terms.dealing:
            i = Identifier(dealer + 1)
            try:
                box = unpack_deal(self.terms, self._word(Kind.DEAL, i - 1).body)[self.me]
            except ValueError:
                bad.append((i - 1, Fault.BAD_MESSAGE))
                continue
            share = open_share(self.terms.suite, boxes.open_own(box, host, self._seed))
            if share is None:
                doubtful.append(i - 1)
            else:
                shares[i] = share
        if bad:
            return self._denounce(Kind.DEAL, bad)
        if not doubtful:
            result = self._participant.finalize(shares)
            if isinstance(result, KeyShare):
                self._share = result
                seen = seen_by(self.terms, self._all(Kind.COMMIT), self._all(Kind.DEAL))
                return self._enter(Kind.CONFIRM, pack(seen))
            doubtful = [i - 1 for i, _ in result.faults]
        return [self._accuse(dealer) for dealer in doubtful]

    def _compare(self) -> list[Effect]:
        """Compare what all members saw of every dealer."""
        own = unpack_confirm(self.terms, self._word(Kind.CONFIRM, self.me).body)
        differing, deviants = set(), set()
        for member in range(len(self.terms.hosts)):
            try:
                seen = unpack_confirm(self.terms, self._word(Kind.CONFIRM, member).body)
            except ValueError:
                deviants.add(member)
                continue
            other = {
                i for i, (mine, theirs) in enumerate(zip(own, seen, strict=True)) if mine != theirs
            }
            differing |= other
            deviants |= {member} if other else set()
        if not deviants:
            return self._finish()
        if deviants != self._deviants:
            self._deviants = deviants
            dealers = sorted(differing.intersection(self.terms.dealing))
            return [self._say(Kind.EXPOSE, self._copies(dealer)) for dealer in dealers]
        return []

    def _finish(self) -> list[Effect]:
        assert self._share is not None
        recovery = Recovery(
            self.terms,
            self._all(Kind.HELLO),
            self._all(Kind.COMMIT),
            self._all(Kind.DEAL),
            self._all(Kind.CONFIRM),
        )
        self.outcome = Completed(self._share, recovery)
        self._ends = Instant(self._now + self._timing.linger_s)
        self._wipe()
        certificate = self._say(Kind.CERTIFICATE, pack(pack_words(recovery.confirms)))
        return [certificate, self.outcome]

    def _certified(self, body: bytes) -> list[Effect]:
        """Take all n confirms from a member that completed."""
        own = self._words.get((Kind.CONFIRM, self.me))
        words = unpack_words(Kind.CONFIRM, unpack(body))
        if own is None or len(words) != len(self.terms.hosts):
            raise ValueError("certificate without this member")
        for host, word in zip(self.terms.hosts, words, strict=True):
            if word.body != own.body or not word.is_by(host, self._session):
                raise ValueError("certificate of another transcript")
        for member, word in enumerate(words):
            self._words[Kind.CONFIRM, member] = word
        return []

    # ---- disputes

    @staticmethod
    def _show(word: Signed) -> list[object]:
        return [int(word.kind), word.body, word.signature]

    def _copies(self, dealer: int) -> bytes:
        """Return a dealer's two messages as this member holds them."""
        held = self._word(Kind.COMMIT, dealer), self._word(Kind.DEAL, dealer)
        return pack([dealer, *self._show(held[0]), *self._show(held[1])])

    def _denounce(self, kind: Kind, faults: list[tuple[int, Fault]]) -> list[Effect]:
        """Fail over public words, and show them: others may hold different ones."""
        shown = [
            self._say(Kind.EXPOSE, pack([member, *self._show(self._word(kind, member))]))
            for member, _ in faults
        ]
        return [*shown, *self._fail(faults)]

    def _accuse(self, dealer: int) -> Effect:
        self._accused.setdefault(dealer, set()).add(self.me)
        self._ends = Instant(self._now + self._timing.step_s)
        return self._say(Kind.COMPLAINT, self._copies(dealer))

    def _dispute(self, member: int, message: Signed) -> list[Effect]:
        if message.kind is Kind.REVEAL:
            return self._revealed_by(member, message.body)
        if message.kind is Kind.CERTIFICATE:
            return self._certified(message.body)
        dealer, *fields = unpack(message.body)
        if type(dealer) is not int or not 0 <= dealer < len(self.terms.hosts):
            raise ValueError("names nobody")
        if message.kind is Kind.COMPLAINT and dealer not in self.terms.dealing:
            raise ValueError("complains about a member that does not deal")
        words = [Signed(Kind(fields[k]), *fields[k + 1 : k + 3]) for k in range(0, len(fields), 3)]
        for word in words:
            if word.kind not in _STEPS[1:] or not word.is_by(
                self.terms.hosts[dealer], self._session
            ):
                raise ValueError("shows what the dealer did not sign")
            if found := self._hold(dealer, word):
                return found
        if message.kind is Kind.EXPOSE or member in self._accused.get(dealer, ()):
            return []
        if [word.kind for word in words] != [Kind.COMMIT, Kind.DEAL]:
            raise ValueError("complains about nothing")
        self._accused.setdefault(dealer, set()).add(member)
        self._ends = Instant(self._now + self._timing.step_s)
        if dealer != self.me:
            return self._judge(dealer, member)
        body = pack([member, self._ephemeral[member].reveal()])
        return [self._say(Kind.REVEAL, body), *self._revealed_by(self.me, body)]

    def _revealed_by(self, dealer: int, body: bytes) -> list[Effect]:
        """Open the disputed box with what the dealer showed."""
        accuser, ephemeral = unpack(body)
        if type(accuser) is not int or not 0 <= accuser < len(self.terms.hosts):
            raise ValueError("other fields")
        deal = self._words.get((Kind.DEAL, dealer))
        if deal is None or type(ephemeral) is not bytes:
            raise ValueError("reveals a box it did not deal")
        box = unpack_deal(self.terms, deal.body)[accuser]
        host = identity.public_key_of(self.terms.hosts[accuser])
        plain = boxes.open_public(box, host, ephemeral)
        self._revealed[dealer, accuser] = open_share(self.terms.suite, plain)
        return self._judge(dealer, accuser)

    def _judge(self, dealer: int, accuser: int) -> list[Effect]:
        """Decide between a dealer and its accuser, once both have spoken."""
        if accuser not in self._accused.get(dealer, ()) or (dealer, accuser) not in self._revealed:
            return []
        share = self._revealed[dealer, accuser]
        commit, suite = self._word(Kind.COMMIT, dealer), self.terms.suite
        try:
            package = unpack_package(suite, Identifier(dealer + 1), commit.body)
        except ValueError:
            return self._fail([(dealer, Fault.BAD_MESSAGE)])
        if share is not None and share_fits(suite, package.commitment, accuser + 1, share):
            return self._fail([(accuser, Fault.FALSE_COMPLAINT)])
        return self._fail([(dealer, Fault.BAD_SHARE)])

    def _expire(self) -> list[Effect]:
        """End a step whose time is over, and say who kept it."""
        if self._accused:
            return self._fail((dealer, Fault.BAD_SHARE) for dealer in self._accused)
        if self.missing:
            return self._fail((member, Fault.MISSING) for member in self.missing)
        # they confirmed another transcript, and nobody showed that a dealer signed two
        return self._fail((member, Fault.FALSE_CONFIRM) for member in self._deviants)

    def _fail(self, faults: Iterable[tuple[int, Fault]]) -> list[Effect]:
        if self.outcome is not None:
            return []
        self.outcome = Failed(tuple(sorted(set(faults))))
        self._ends = Instant(self._now + self._timing.linger_s)
        self._wipe()
        return [self.outcome]

    def _wipe(self) -> None:
        if self._participant is not None:
            self._participant.wipe()
        for secret in self._ephemeral.values():
            secret.wipe()

    def __repr__(self) -> str:
        return f"Ceremony(member {self.me}, {self._step.name}, hidden)"

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("a ceremony is never pickled or copied")
