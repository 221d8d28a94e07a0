"""Both logs keep the same promises; the one on disk keeps them over a restart."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from keeper.errors import StoreError
from keeper.hashing import keccak
from keeper.store import Store
from p2p.agreement.effects import Noted
from p2p.agreement.evidence import Evidence
from p2p.agreement.history import answer_need, answer_sync, finalized_since, verify_history
from p2p.agreement.journal import Journal
from p2p.agreement.log import Final, Log, MemoryLog, Opened, Record, StoreLog
from p2p.types import NO_DIGEST, Certificate, Committee, History, Kind, Proposal, Vote
from p2p.wire import MAX_FRAME, digest_of, encode
from tests.support.agreement_cluster import CheapSigner, Cluster, Weather, make_committee

CONFIG = keccak(b"config")
SIG = bytes(64)
BODY = Proposal(1, 3, 2, keccak(b"parent"), 7, b"payload", keccak(b"root"), (), (), 0, SIG)
DIGEST = digest_of(BODY)


def vote(kind: Kind, view: int) -> Vote:
    return Vote(1, kind, view, NO_DIGEST if kind is Kind.NULLIFY else DIGEST, 2, SIG)


def proof(kind: Kind, view: int) -> Certificate:
    digest = NO_DIGEST if kind is Kind.NULLIFY else DIGEST
    return Certificate(1, kind, view, digest, 0b111, (SIG, SIG, SIG))


@pytest.fixture(params=["memory", "disk"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Log]]:
    """Give a function that returns the log, as a program that has just started would see it."""
    memory = MemoryLog()
    stores: list[Store] = []

    def restarted() -> Log:
        if request.param == "memory":
            return memory
        for store in stores:
            store.close()
        stores.append(Store(tmp_path / "keeper.db"))
        return StoreLog(stores[-1])

    yield restarted
    for store in stores:
        store.close()


def test_an_empty_log_is_not_opened(log: Callable[[], Log]) -> None:
    restored = log().restore(1, CONFIG)
    assert not restored.opened
    assert restored.final is None
    assert (restored.votes, restored.proposals, restored.certificates) == ((), (), ())
    log().write((Opened(CONFIG),))
    assert log().restore(1, CONFIG).opened
    assert not log().restore(1, keccak(b"another")).opened


def test_what_is_needed_to_go_on_is_restored(log: Callable[[], Log]) -> None:
    old, new = replace(BODY, view=2), replace(BODY, view=4)
    written: list[Record] = [
        old, BODY, new,
        vote(Kind.NOTARIZE, 2), vote(Kind.NOTARIZE, 3), vote(Kind.FINALIZE, 3),
        vote(Kind.NULLIFY, 4),
        proof(Kind.NOTARIZE, 2), proof(Kind.NOTARIZE, 3), proof(Kind.FINALIZE, 3),
        Final(1, 3, DIGEST),
    ]  # fmt: skip
    log().write(written)
    restored = log().restore(1, CONFIG)
    assert restored.final == Final(1, 3, DIGEST)
    assert restored.final_tick == 7
    assert {(v.view, v.kind) for v in restored.votes} == {
        (3, Kind.NOTARIZE),
        (3, Kind.FINALIZE),
        (4, Kind.NULLIFY),
    }
    assert [body.view for body in restored.proposals] == [4]
    assert {(c.view, c.kind) for c in restored.certificates} == {
        (3, Kind.NOTARIZE),
        (3, Kind.FINALIZE),
    }
    assert log().proposal(1, 3, DIGEST) == BODY
    assert log().proposal(2, 3, DIGEST) is None
    assert log().certificate(1, Kind.FINALIZE, 3) == proof(Kind.FINALIZE, 3)
    assert log().certificate(1, Kind.NULLIFY, 3) is None
    assert log().votes(1, 3) == (vote(Kind.NOTARIZE, 3), vote(Kind.FINALIZE, 3))
    assert log().finals(1, 0, 5) == (Final(1, 3, DIGEST),)
    assert log().finals(1, 3, 5) == ()
    assert log().restore(2, CONFIG).final is None, "epochs do not mix"


def test_the_first_vote_of_a_kind_is_the_one_that_counts(log: Callable[[], Log]) -> None:
    first = vote(Kind.NOTARIZE, 5)
    log().write((first, replace(first, digest=keccak(b"other"))))
    assert log().votes(1, 5) == (first,)


def test_evidence_is_kept_in_order(log: Callable[[], Log]) -> None:
    pair = Evidence(CONFIG, vote(Kind.NULLIFY, 3), vote(Kind.FINALIZE, 3))
    log().write((pair,))
    log().write((replace(pair, second=vote(Kind.FINALIZE, 4)),))
    assert [one.second.view for one in log().evidence()] == [3, 4]
    assert log().evidence()[0] == pair


def test_the_whole_chain_is_told_from_the_log(log: Callable[[], Log]) -> None:
    cluster = Cluster(4, 3, weather=Weather(calm_at=1.0)).run(5.0)
    keeper = cluster.keepers[0]
    source = keeper.log
    for final in source.finals(1, 0, 1000):
        body = source.proposal(1, final.view, final.digest)
        direct = source.certificate(1, Kind.FINALIZE, final.view)
        log().write([r for r in (body, direct, final) if r is not None])
    told = list(finalized_since(log(), 1, 0))
    assert [(f.view, f.digest) for f in told] == cluster.chain(keeper)
    part = answer_sync(log(), 1, 0, 5)
    assert part is not None
    assert len(encode(part)) < MAX_FRAME
    committee, scheme = make_committee(4), CheapSigner(b"")
    assert verify_history(committee, scheme, part)
    tail = answer_sync(log(), 1, told[4].view, 1000)
    assert tail is not None
    assert tail.blocks[-1].view == told[-1].view
    assert answer_sync(log(), 1, told[-1].view) is None
    _refuses_broken_chains(committee, scheme, part)
    answers = answer_need(log(), 1, told[2].view)
    assert any(isinstance(one, Proposal) and digest_of(one) == told[2].digest for one in answers)
    assert answer_need(log(), 1, 9_999) == ()


def _refuses_broken_chains(committee: Committee, scheme: CheapSigner, part: History) -> None:
    gap = replace(part, blocks=part.blocks[:1] + part.blocks[2:])
    other = replace(part.blocks[1], payload=b"other")
    for broken in (
        gap,
        replace(part, blocks=part.blocks[:-1]),
        replace(part, blocks=()),
        replace(part, blocks=(part.blocks[0], other, *part.blocks[2:])),
        replace(part, certificate=replace(part.certificate, kind=Kind.NOTARIZE)),
    ):
        assert not verify_history(committee, scheme, broken)


def test_a_damaged_row_is_not_taken_for_a_vote(tmp_path: Path) -> None:
    store = Store(tmp_path / "keeper.db")
    log = StoreLog(store)
    log.write((vote(Kind.NOTARIZE, 5),))
    with store.durable() as rows:
        rows.execute("UPDATE agreement_votes SET raw = X'00'")
    with pytest.raises(StoreError, match="holds no Vote"):
        log.votes(1, 5)
    store.close()


def test_the_journal_keeps_notes_and_committees(tmp_path: Path) -> None:
    store = Store(tmp_path / "keeper.db")
    journal = Journal(store)
    committee = make_committee(4)
    journal.remember(committee)
    journal.remember(committee)
    assert journal.committees() == (committee,)
    assert journal.last() is None
    journal.note(1, Noted(7, "entered", (2,)), 100.5)
    journal.note(1, Noted(7, "deadline", (2,), "why"), 101.25)
    assert journal.of(1, 7) == ()
    journal.flush()
    journal.flush()
    first, second = journal.of(1, 7)
    assert (first.at_ms, first.event, first.members) == (100_500, "entered", (2,))
    assert (second.at_ms, second.detail) == (101_250, "why")
    assert journal.last() == (1, 7)
    journal.note(1, Noted(30_000, "entered"), 1.0)
    journal.flush()
    assert journal.of(1, 7) == (), "old views make room"
    for view in range(64):
        journal.note(2, Noted(view, "entered"), 1.0)
    assert journal.of(2, 0) != (), "many notes are written without being asked"
    store.close()


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_old_views_are_forgotten_and_evidence_is_not(tmp_path: Path, kind: str) -> None:
    store = Store(tmp_path / "keeper.db")
    log = MemoryLog(100) if kind == "memory" else StoreLog(store, 100)
    pair = Evidence(CONFIG, vote(Kind.NULLIFY, 3), vote(Kind.FINALIZE, 3))
    log.write((pair,))
    for view in (150, 160, 255, 256):
        body = replace(BODY, view=view)
        log.write((body, vote(Kind.NOTARIZE, view), proof(Kind.FINALIZE, view)))
        log.write((Final(1, view, DIGEST),))
    assert [final.view for final in log.finals(1, 0, 10)] == [160, 255, 256]
    assert log.proposal(1, 150, DIGEST) is None
    assert log.votes(1, 150) == ()
    assert log.certificate(1, Kind.FINALIZE, 150) is None
    assert log.certificate(1, Kind.FINALIZE, 160) is not None
    assert log.evidence() == (pair,)
    store.close()


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_the_epoch_before_is_remembered_as_long_as_its_views_are_young(
    tmp_path: Path, kind: str
) -> None:
    store = Store(tmp_path / "keeper.db")
    log = MemoryLog(100) if kind == "memory" else StoreLog(store, 100)
    for epoch, view in ((1, 150), (1, 200), (2, 256)):
        log.write((replace(BODY, epoch=epoch, view=view), Final(epoch, view, DIGEST)))
    assert [final.view for final in log.finals(1, 0, 10)] == [200], "a late member can end it"
    assert [final.view for final in log.finals(2, 0, 10)] == [256]
    store.close()
