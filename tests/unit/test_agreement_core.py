"""One core alone, message by message: what it refuses, what it says, what it never says."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from keeper.hashing import keccak
from keeper.reasons import Reason
from p2p.agreement.application import NotYet, Verdict, Wrong
from p2p.agreement.certificate import certificate_of
from p2p.agreement.core import RELAYED_SIZE, VIEWS_AHEAD, VIEWS_KEPT, Agreement
from p2p.agreement.effects import (
    Broadcast,
    Effect,
    Equivocated,
    Noted,
    Persist,
    Refused,
    Send,
    Timing,
)
from p2p.agreement.log import MemoryLog, Opened
from p2p.agreement.signing import sign_observation, vote_hash
from p2p.types import (
    NO_DIGEST,
    Certificate,
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
from p2p.wire import MAX_BODY, MAX_FRAME, digest_of, encode
from tests.support.agreement_cluster import CheapSigner, ToyApplication, make_committee

COMMITTEE = make_committee(4)
SIGNERS = [CheapSigner(member.address) for member in COMMITTEE.members]
TIMING = Timing(genesis=0.0, tick_s=1.0, bound_s=0.1, grace_s=0.05, skip_s=3.0, heartbeat_s=100.0)
D = keccak(b"some block")


class Obedient(ToyApplication):
    """Says what a test tells it to."""

    answer: Verdict | None = None
    fails = False

    def validate(
        self,
        parent: bytes,
        view: int,
        tick: int,
        observations: Sequence[SignedObservation],
        payload: bytes,
    ) -> Verdict:
        if self.fails:
            raise KeyError("market")
        return self.answer or super().validate(parent, view, tick, observations, payload)


class Bench:
    """A core that is not the leader of view 1, and everything it did."""

    def __init__(self, opened: bool = True) -> None:
        self.log = MemoryLog()
        if opened:
            self.log.write((Opened(COMMITTEE.config),))
        self.application = Obedient(COMMITTEE.config)
        probe = Agreement(COMMITTEE, 0, SIGNERS[0], self.application, self.log, TIMING)
        self.leader = probe.leader(1)
        self.me = next(i for i in range(4) if i not in (self.leader, probe.leader(2)))
        self.core = Agreement(
            COMMITTEE, self.me, SIGNERS[self.me], self.application, self.log, TIMING
        )
        self.others = [i for i in range(4) if i != self.me]
        self.do(self.core.start(0.5))
        self.do(self.core.tick(0.5))  # the first heartbeat

    def do(self, effects: tuple[Effect, ...]) -> tuple[Effect, ...]:
        for effect in effects:
            if isinstance(effect, Persist):
                self.log.write(effect.records)
        return effects

    def hear(self, sender: int, message: Message, now: float = 1.1) -> tuple[Effect, ...]:
        return self.do(self.core.receive(sender, message, now))


def vote(signer: int, kind: Kind, view: int, digest: bytes = D) -> Vote:
    digest = NO_DIGEST if kind is Kind.NULLIFY else digest
    signature = SIGNERS[signer].sign(vote_hash(COMMITTEE, kind, view, digest))
    return Vote(1, kind, view, digest, signer, signature)


def proof(
    kind: Kind, view: int, digest: bytes = D, signers: Sequence[int] = (0, 1, 2)
) -> Certificate:
    return certificate_of([vote(signer, kind, view, digest) for signer in signers])


def seen(tick: int, signers: Sequence[int] = (0, 1, 2)) -> tuple[SignedObservation, ...]:
    roots = (keccak(b"h"), keccak(b"p"), keccak(b"r"))
    return tuple(sign_observation(COMMITTEE, SIGNERS[i], tick, roots, b"") for i in signers)


def block(bench: Bench, view: int = 1, tick: int = 1, **changes: Any) -> Proposal:
    leader = bench.core.leader(view)
    attached = seen(tick)
    payload = bench.application.propose(COMMITTEE.config, view, tick, attached)
    assert payload is not None
    draft = Proposal(
        1, view, 0, COMMITTEE.config, tick, payload, bench.application.root(payload), attached, (),
        leader, bytes(64),
    )  # fmt: skip
    draft = replace(draft, **changes)
    signature = vote(leader, Kind.NOTARIZE, view, digest_of(draft)).signature
    return draft if "signature" in changes else replace(draft, signature=signature)


def refusals(effects: Sequence[Effect]) -> list[Reason]:
    return [effect.reason for effect in effects if isinstance(effect, Refused)]


def said(effects: Sequence[Effect]) -> list[Kind]:
    return [
        effect.message.kind
        for effect in effects
        if isinstance(effect, Broadcast) and isinstance(effect.message, Vote)
    ]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_signer_that_is_not_the_member_is_refused() -> None:
    with pytest.raises(ValueError, match="is not member 1"):
        Agreement(COMMITTEE, 1, SIGNERS[0], ToyApplication(COMMITTEE.config), MemoryLog(), TIMING)


def test_a_valid_block_gets_a_vote_after_its_body_is_written(bench: Bench) -> None:
    body = block(bench)
    effects = bench.hear(bench.leader, body)
    assert said(effects) == [Kind.NOTARIZE]
    written = [r for e in effects if isinstance(e, Persist) for r in e.records]
    assert [type(record) for record in written] == [Proposal, Vote]
    assert isinstance(effects[0], Persist)
    assert said(bench.hear(bench.leader, body)) == [], "once"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (vote(0, Kind.NOTARIZE, VIEWS_AHEAD + 2), Reason.TOO_FAR_AHEAD),
        (replace(vote(0, Kind.NOTARIZE, 1), epoch=2), Reason.OTHER_EPOCH),
        (replace(vote(0, Kind.NOTARIZE, 1), digest=keccak(b"x")), Reason.BAD_SIGNATURE),
        (proof(Kind.NOTARIZE, 1, signers=(0, 1)), Reason.BELOW_QUORUM),
        (replace(proof(Kind.NOTARIZE, 1), digest=keccak(b"x")), Reason.BAD_SIGNATURE),
        (replace(proof(Kind.NOTARIZE, 1), epoch=9), Reason.OTHER_EPOCH),
        (replace(seen(1)[0], tick=2), Reason.BAD_SIGNATURE),
        (replace(seen(1)[0], config=bytes(32)), Reason.WRONG_CONFIG),
        (Heartbeat(1, bytes(32), 1, 0, D, (), 1, 0), Reason.WRONG_CONFIG),
        (replace(seen(1)[0], epoch=2), Reason.OTHER_EPOCH),
        (Heartbeat(2, bytes(32), 1, 0, D, (), 1, 0), Reason.OTHER_EPOCH),
        (History((), proof(Kind.FINALIZE, 5)), Reason.BAD_SIGNATURE),
        (History((), replace(proof(Kind.FINALIZE, 5), epoch=2)), Reason.OTHER_EPOCH),
    ],
)
def test_what_is_refused(bench: Bench, message: Message, reason: Reason) -> None:
    sender = bench.others[0]
    if isinstance(message, Vote):
        message = replace(message, signer=sender)
    effects = bench.hear(sender, message)
    assert refusals(effects) == [reason]
    assert said(effects) == []


def passed_on(effects: Sequence[Effect]) -> dict[int, Message]:
    return {effect.member: effect.message for effect in effects if isinstance(effect, Send)}


def test_a_small_committee_passes_on_what_a_signer_said(bench: Bench) -> None:
    a, b, c = bench.others
    first = vote(a, Kind.NOTARIZE, 1)
    assert passed_on(bench.hear(a, first)) == {b: first, c: first}
    assert bench.hear(a, first) == (), "once"
    second = vote(b, Kind.NOTARIZE, 1)
    assert passed_on(bench.hear(a, second)) == {}, "it was passed on already"
    effects = bench.hear(b, vote(c, Kind.NOTARIZE, 1))
    assert any(isinstance(e, Broadcast) and isinstance(e.message, Certificate) for e in effects), (
        "what was passed on counts"
    )
    assert passed_on(bench.hear(c, vote(c, Kind.NOTARIZE, 1))) == {}, "a certificate says it"


def test_who_passes_on_a_forged_vote_answers_for_it(bench: Bench) -> None:
    a, b = bench.others[:2]
    forged = replace(vote(b, Kind.NOTARIZE, 1), digest=keccak(b"x"))
    effects = bench.hear(a, forged)
    assert [e.member for e in effects if isinstance(e, Refused)] == [a]
    assert passed_on(effects) == {}
    nobody = bench.hear(a, replace(vote(b, Kind.NOTARIZE, 1), signer=200))
    assert refusals(nobody) == [Reason.NOT_A_MEMBER]


def test_a_block_is_passed_on_without_what_nobody_checked(bench: Bench) -> None:
    bad = replace(proof(Kind.NULLIFY, 3), view=4)
    body = replace(block(bench), certificates=(bad,))
    effects = bench.hear(bench.leader, body)
    assert refusals(effects) == [Reason.BAD_SIGNATURE]
    bare = replace(body, certificates=())
    others = set(bench.others) - {bench.leader}
    assert passed_on(effects) == dict.fromkeys(others, bare)
    assert digest_of(bare) == digest_of(body)
    fresh = Bench()
    other = min(others)
    assert passed_on(fresh.hear(other, block(fresh))) == {}, "not its leader's word"


def test_two_votes_meet_at_everybody(bench: Bench) -> None:
    a, b = bench.others[:2]
    bench.hear(a, vote(a, Kind.NOTARIZE, 1))
    effects = bench.hear(b, vote(a, Kind.NOTARIZE, 1, keccak(b"what it told another")))
    assert [e.evidence.culprit for e in effects if isinstance(e, Equivocated)] == [a]


def test_in_a_larger_committee_a_vote_comes_from_its_signer() -> None:
    committee = make_committee(RELAYED_SIZE + 1)
    signers = [CheapSigner(member.address) for member in committee.members]
    log = MemoryLog()
    log.write((Opened(committee.config),))
    core = Agreement(committee, 0, signers[0], ToyApplication(committee.config), log, TIMING)
    core.start(0.5)
    signature = signers[2].sign(vote_hash(committee, Kind.NOTARIZE, 1, D))
    said_by_2 = Vote(1, Kind.NOTARIZE, 1, D, 2, signature)
    assert refusals(core.receive(1, said_by_2, 1.1)) == [Reason.BAD_SIGNATURE]
    assert passed_on(core.receive(2, said_by_2, 1.1)) == {}


def test_old_votes_are_stale(bench: Bench) -> None:
    view = VIEWS_KEPT + 5
    bench.hear(bench.others[0], proof(Kind.NULLIFY, view))
    assert bench.core.view == view + 1
    effects = bench.hear(bench.others[0], vote(bench.others[0], Kind.NOTARIZE, 2))
    assert refusals(effects) == [Reason.STALE]


def test_a_proposal_comes_from_the_leader_of_its_view(bench: Bench) -> None:
    body = block(bench)
    other = next(i for i in bench.others if i != bench.leader)
    for changed, reason in (
        (replace(body, signer=other), Reason.WRONG_LEADER),
        (replace(body, epoch=2), Reason.OTHER_EPOCH),
        (replace(body, signature=bytes(64)), Reason.BAD_SIGNATURE),
        (replace(body, tick=2), Reason.BAD_SIGNATURE),
    ):
        assert refusals(bench.hear(bench.leader, changed)) == [reason]
    far = block(bench, view=VIEWS_AHEAD + 2)
    assert refusals(bench.hear(far.signer, far)) == [Reason.TOO_FAR_AHEAD]
    assert said(bench.hear(other, body)) == [Kind.NOTARIZE], "who relays it does not matter"


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"observations": seen(1)[:2]}, "too few or repeated"),
        ({"observations": seen(1)[:2] + seen(1)[:1]}, "too few or repeated"),
        ({"observations": seen(1)[:2] + seen(2)[2:]}, "of another tick"),
        ({"observations": (*seen(1)[:2], replace(seen(1)[2], heads_root=D))}, "signature of"),
        ({"tick": 0, "observations": seen(0)}, "tick 0 after 0"),
        ({"payload": b"another"}, "payload"),
        ({"root": keccak(b"another")}, "root"),
    ],
)
def test_a_wrong_block_is_nullified_at_once(
    bench: Bench, changes: dict[str, Any], detail: str
) -> None:
    effects = bench.hear(bench.leader, block(bench, **changes))
    assert said(effects) == [Kind.NULLIFY]
    notes = [e.detail for e in effects if isinstance(e, Noted) and e.event.startswith("wrong")]
    assert len(notes) == 1
    assert detail in notes[0]


def test_an_application_that_fails_over_a_block_costs_one_view(bench: Bench) -> None:
    bench.application.fails = True
    effects = bench.hear(bench.leader, block(bench))
    assert said(effects) == [Kind.NULLIFY]
    assert any("KeyError" in e.detail for e in effects if isinstance(e, Noted))


def test_a_keeper_that_cannot_tell_says_nothing_and_votes_later(bench: Bench) -> None:
    bench.application.answer = NotYet("block 7 of chain 1")
    effects = bench.hear(bench.leader, block(bench))
    assert said(effects) == []
    assert "block 7 of chain 1" in [e.detail for e in effects if isinstance(e, Noted)]
    assert said(bench.do(bench.core.retry(1.2))) == []
    bench.application.answer = None
    assert said(bench.do(bench.core.retry(1.3))) == [Kind.NOTARIZE]
    bench.application.answer = Wrong(Reason.WRONG_CUT)
    assert said(bench.do(bench.core.retry(1.4))) == []


def test_nullify_then_notarize_is_allowed_but_never_finalize(bench: Bench) -> None:
    deadline = bench.core.deadline
    assert deadline is not None
    assert said(bench.do(bench.core.tick(deadline))) == [Kind.NULLIFY]
    body = block(bench)
    assert said(bench.hear(bench.leader, body, deadline)) == [Kind.NOTARIZE]
    effects = bench.hear(
        bench.others[0], proof(Kind.NOTARIZE, 1, digest_of(body)), deadline
    )  # fmt: skip
    assert said(effects) == []
    assert bench.core.view == 2


def test_finalize_then_nothing_else(bench: Bench) -> None:
    effects = bench.hear(bench.others[0], proof(Kind.NOTARIZE, 1))
    assert said(effects) == [Kind.FINALIZE], "R3: own vote absent"
    for other in bench.others:
        assert said(bench.hear(other, vote(other, Kind.NULLIFY, 1))) == []
    assert [v.kind for v in bench.log.votes(1, 1)] == [Kind.FINALIZE]


def test_another_notarized_block_than_ours_is_not_finalized_by_us(bench: Bench) -> None:
    bench.hear(bench.leader, block(bench))
    assert said(bench.hear(bench.others[0], proof(Kind.NOTARIZE, 1))) == []


def test_f_plus_1_nullify_votes_are_joined(bench: Bench) -> None:
    a, b = bench.others[:2]
    assert said(bench.hear(a, vote(a, Kind.NULLIFY, 1))) == []
    effects = bench.hear(b, vote(b, Kind.NULLIFY, 1))
    assert said(effects) == [Kind.NULLIFY]
    proofs = [e.message for e in effects if isinstance(e, Broadcast)]
    assert any(isinstance(m, Certificate) and m.kind is Kind.NULLIFY for m in proofs)
    assert bench.core.view == 2


def test_two_words_of_a_member_are_evidence_once(bench: Bench) -> None:
    a = bench.others[0]
    bench.hear(a, vote(a, Kind.NOTARIZE, 1))
    effects = bench.hear(a, vote(a, Kind.FINALIZE, 1, keccak(b"other")))
    found = [e.evidence for e in effects if isinstance(e, Equivocated)]
    assert [one.culprit for one in found] == [a]
    assert bench.log.evidence() == tuple(found)
    more = bench.hear(a, vote(a, Kind.NULLIFY, 1))
    assert not any(isinstance(e, Equivocated) for e in more)
    assert not any(
        isinstance(e, Equivocated) for e in bench.hear(a, vote(a, Kind.NOTARIZE, 1, keccak(b"3")))
    )


def test_two_certificates_expose_who_signed_both(bench: Bench) -> None:
    """What a network split by f + 1 liars looks like from inside, when it heals."""
    bench.hear(bench.others[0], proof(Kind.NOTARIZE, 1, signers=(0, 1, 2)))
    effects = bench.hear(bench.others[0], proof(Kind.FINALIZE, 1, keccak(b"x"), (1, 2, 3)))
    culprits = {e.evidence.culprit for e in effects if isinstance(e, Equivocated)}
    assert culprits == {1, 2} - {bench.me}


def test_questions_are_answered_from_the_log(bench: Bench) -> None:
    body = block(bench)
    bench.hear(bench.leader, body)
    effects = bench.hear(bench.others[0], Need(1))
    sent = [e.message for e in effects if isinstance(e, Send)]
    assert sent[0] == body
    assert isinstance(sent[1], Vote)
    assert bench.hear(bench.others[0], Sync(1, 0)) == ()


def test_while_a_view_does_not_end_everything_is_said_again(bench: Bench) -> None:
    bench.hear(bench.leader, block(bench))
    now = bench.core.deadline or 0.0
    bench.do(bench.core.tick(now))
    for _ in range(3):
        now = bench.core.deadline or 0.0
        effects = bench.do(bench.core.tick(now))
        assert said(effects) == [Kind.NOTARIZE, Kind.NULLIFY]


def test_a_missing_body_is_asked_of_those_who_signed_for_it(bench: Bench) -> None:
    signers = [bench.others[0], bench.others[1], bench.others[2]]
    bench.hear(bench.others[0], proof(Kind.FINALIZE, 1, signers=sorted(signers)))
    asked = set()
    for _ in range(3):
        now = bench.core.deadline or 0.0
        for effect in bench.do(bench.core.tick(now)):
            if isinstance(effect, Send) and isinstance(effect.message, Need):
                assert effect.message.view == 1
                asked.add(effect.member)
    assert asked == set(signers)


def test_a_core_that_was_not_opened_says_nothing(bench: Bench) -> None:
    silent = Bench(opened=False)
    assert said(silent.hear(silent.leader, block(silent))) == []
    deadline = silent.core.deadline or 0.0
    assert said(silent.do(silent.core.tick(deadline))) == []


def test_a_member_that_asks_too_much_is_not_answered(bench: Bench) -> None:
    bench.hear(bench.leader, block(bench))
    asker, other = bench.others[:2]
    answered = 0
    for _ in range(100):
        effects = bench.hear(asker, Need(1))
        answered += any(isinstance(effect, Send) for effect in effects)
        if refusals(effects):
            assert refusals(effects) == [Reason.RATE_LIMITED]
    assert answered == 16
    assert refusals(bench.hear(asker, Sync(1, 0))) == [Reason.RATE_LIMITED]
    assert refusals(bench.hear(other, Sync(1, 0))) == [], "others are not to blame"
    assert refusals(bench.hear(asker, Sync(1, 0), 1.4)) == [], "it is answered again after a while"


def test_a_member_that_only_claims_to_be_ahead_leaves_turns_to_others(bench: Bench) -> None:
    liar, honest = bench.others[:2]
    asked: list[int] = []
    for step in range(300):
        now = 2.0 + step * 0.01
        for member in (liar, liar, honest):  # the liar is always quicker
            beat = Heartbeat(1, COMMITTEE.config, 90, 90, D, (), 1, 0)
            effects = bench.hear(member, beat, now)
            asked += [e.member for e in effects if isinstance(e, Send)]
    assert asked.count(honest) >= 4
    assert 4 <= asked.count(liar) <= asked.count(honest) + 1
    alone = [
        e
        for step in range(300)
        for e in bench.hear(
            bench.others[2], Heartbeat(1, COMMITTEE.config, 90, 90, D, (), 1, 0), 9.0 + step * 0.01
        )
        if isinstance(e, Send)
    ]
    assert len(alone) >= 4, "who alone is ahead is asked again and again"


def test_a_clock_set_back_moves_what_is_due_with_it(bench: Bench) -> None:
    asker = bench.others[0]
    bench.hear(bench.leader, block(bench), 5000.0)
    bench.do(bench.core.tick(5000.0))
    due = bench.core.deadline
    assert due is not None
    assert 5000.0 < due < 5001.0
    for _ in range(16):
        assert any(isinstance(e, Send) for e in bench.hear(asker, Need(1), 5000.0))
    bench.hear(asker, Need(1), 1400.0)
    assert bench.core.deadline == pytest.approx(due - 3600.0)
    assert any(isinstance(e, Send) for e in bench.hear(asker, Need(1), 1400.1)), "answered again"
    assert bench.core.deadline == pytest.approx(due - 3600.0), "moved once"


def test_rejected_bodies_do_not_pile_up(bench: Bench) -> None:
    bench.application.answer = Wrong(Reason.WRONG_CUT)
    for view in range(1, 60):
        leader = bench.core.leader(view)
        if leader != bench.me:
            bench.hear(leader, block(bench, view=view))
        bench.hear(bench.others[0], proof(Kind.NULLIFY, view))
    assert bench.core.view == 60
    assert len(bench.core.chain.bodies) <= VIEWS_KEPT + 2


class Wordy(ToyApplication):
    """Decides a lot in every view."""

    def propose(
        self, parent: bytes, view: int, tick: int, observations: Sequence[SignedObservation]
    ) -> bytes | None:
        payload = super().propose(parent, view, tick, observations)
        return None if payload is None else payload + bytes(200_000)


def leading(size: Callable[[int], int]) -> tuple[Agreement, list[Proposal], list[str]]:
    """Let a core lead view 1 of 31 members that say so many bytes each; return what it did."""
    committee = make_committee(31)
    signers = [CheapSigner(member.address) for member in committee.members]
    application, log = Wordy(committee.config), MemoryLog()
    log.write((Opened(committee.config),))
    me = Agreement(committee, 0, signers[0], application, log, TIMING).leader(1)
    core = Agreement(committee, me, signers[me], application, log, TIMING)
    core.start(0.5)
    roots = (keccak(b"h"), keccak(b"p"), keccak(b"r"))
    effects: list[Effect] = []
    for member, signer in enumerate(signers):
        said_by = sign_observation(committee, signer, 1, roots, bytes(size(member)))
        effects += core.observe(said_by, 1.1)
    effects += core.tick(1.2)
    messages = [effect.message for effect in effects if isinstance(effect, Broadcast)]
    proposals = [message for message in messages if isinstance(message, Proposal)]
    return core, proposals, [effect.event for effect in effects if isinstance(effect, Noted)]


def test_liars_that_say_too_much_do_not_keep_a_leader_from_proposing() -> None:
    core, proposals, _ = leading(lambda member: MAX_BODY if member < 10 else MAX_BODY // 2)
    assert core.committee.faults == 10
    assert [len(body.observations) for body in proposals] == [core.committee.quorum]
    assert {one.signer for one in proposals[0].observations}.isdisjoint(range(10))
    assert len(encode(proposals[0])) <= MAX_FRAME


def test_a_leader_that_cannot_propose_says_so_and_goes_on() -> None:
    core, proposals, events = leading(lambda member: MAX_BODY)
    assert not proposals
    assert "proposal too large" in events
    assert said(core.tick(core.deadline or 0.0)) == [Kind.NULLIFY]
