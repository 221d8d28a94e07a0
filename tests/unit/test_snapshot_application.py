"""The application: payloads are byte-equal everywhere, and a lie in any field is named."""

from dataclasses import replace

import msgpack
import pytest

from keeper.hashing import keccak
from keeper.observe.observation import ObservationBody
from keeper.reasons import Reason
from keeper.snapshot.application import SnapshotApplication
from keeper.snapshot.book import book_from_bytes, decision_row
from keeper.snapshot.decisions import Decision
from keeper.snapshot.derive import Snapshot
from keeper.snapshot.header import header_from_row
from p2p.agreement.application import NotYet, Valid, Wrong
from p2p.types import SignedObservation
from tests.support.snapshots import (
    CHAIN,
    CONFIG,
    EchoRule,
    MemoryTables,
    application,
    balance_log,
    body,
    run_views,
    signed,
)

ALICE = keccak(b"alice")


def world(blocks: int = 3) -> MemoryTables:
    tables = MemoryTables()
    for number in range(1, blocks + 1):
        tables.add(number, [balance_log(ALICE, number * 1_000_000)])
    return tables


def proposal(
    tables: MemoryTables,
) -> tuple[SnapshotApplication, list[SignedObservation], bytes]:
    leader = application(tables, (EchoRule(),))
    observations = [
        signed(member, body(1, [tables.head(2), tables.head(3)])) for member in range(3)
    ]
    payload = leader.propose(CONFIG, 1, 1, observations)
    assert payload is not None
    return leader, observations, payload


def test_a_payload_recomputed_by_another_keeper_is_byte_equal() -> None:
    tables = world()
    leader, observations, payload = proposal(tables)
    other = application(tables, (EchoRule(),))
    assert other.propose(CONFIG, 1, 1, observations) == payload
    assert other.validate(CONFIG, 1, 1, observations, payload) == Valid(leader.root(payload))


def test_the_snapshot_marks_the_accounts_of_the_cut() -> None:
    tables = world()
    leader, observations, payload = proposal(tables)
    leader.adopt(keccak(b"1"), CONFIG, 1, 1, observations, payload)
    state = leader.states[keccak(b"1")]
    assert state.cut[CHAIN].number == 3
    assert state.margins[ALICE].equity > 0
    assert state.header.totals.equity == state.margins[ALICE].equity
    assert state.header.totals.accounts == 1


def test_three_keepers_agree_on_ten_views() -> None:
    tables = world()
    keepers = {member: application(tables, (EchoRule(),)) for member in range(3)}
    payloads = run_views(keepers, [tables.head(3)], 10)
    assert len(set(payloads)) == 10
    newest = {keccak(list(k.states.values())[-1].book.encode()) for k in keepers.values()}
    assert len(newest) == 1


def lie(payload: bytes, change: str) -> bytes:
    header_row, decisions, bodies = msgpack.unpackb(payload)
    header = header_from_row(header_row)
    zero = keccak(b"lie")
    if change == "cut":
        header = replace(header, cut=(replace(header.cut[0], number=2),))
    elif change == "decisions":
        decision = Decision("Echo", CHAIN, b"\x11" * 20, b"\x09", zero, (9,))
        decisions = [decision_row(decision)]
    elif change == "missing decision":
        decisions = []
    elif change == "attachment":
        bodies = [b"nobody asked for this"]
    elif change == "totals":
        header = replace(header, totals=replace(header.totals, equity=1))
    else:
        header = replace(header, **{change: zero if change.endswith(("root", "hash")) else 99})
    packed: bytes = msgpack.packb([header.to_row(), decisions, bodies])
    return packed


@pytest.mark.parametrize(
    ("change", "reason", "field"),
    [
        ("cut", Reason.WRONG_CUT, "cut"),
        ("price_root", Reason.WRONG_PRICES, "price_root"),
        ("state_root", Reason.WRONG_HEADER, "state_root"),
        ("watch_root", Reason.WRONG_HEADER, "watch_root"),
        ("book_hash", Reason.WRONG_HEADER, "book_hash"),
        ("totals", Reason.WRONG_HEADER, "totals"),
        ("tick", Reason.WRONG_HEADER, "tick"),
        ("view", Reason.WRONG_HEADER, "view"),
        ("epoch", Reason.WRONG_HEADER, "epoch"),
        ("decisions", Reason.WRONG_DECISIONS, "Echo"),
        ("missing decision", Reason.WRONG_DECISIONS, "Echo"),
        ("attachment", Reason.MALFORMED, "attaches too much"),
    ],
)
def test_a_leader_that_lies_is_refused_with_the_field(
    change: str, reason: Reason, field: str
) -> None:
    tables = world()
    _, observations, payload = proposal(tables)
    verdict = application(tables, (EchoRule(),)).validate(
        CONFIG, 1, 1, observations, lie(payload, change)
    )
    assert isinstance(verdict, Wrong)
    assert verdict.reason is reason
    assert field in verdict.detail


def test_an_observation_whose_body_is_not_what_was_signed_is_refused() -> None:
    tables = world()
    _, observations, payload = proposal(tables)
    forged = replace(observations[0], heads_root=keccak(b"other"))
    verdict = application(tables, (EchoRule(),)).validate(
        CONFIG, 1, 1, [forged, *observations[1:]], payload
    )
    assert isinstance(verdict, Wrong)
    assert verdict.reason is Reason.WRONG_OBSERVATIONS


def test_an_observation_of_another_tick_is_refused() -> None:
    leader = application(world())
    late = signed(0, body(2, []))
    assert leader.check_observation(replace(late, tick=1)) is Reason.MALFORMED
    assert leader.check_observation(late) is None


def test_a_dropped_observation_changes_the_payload_or_is_below_quorum() -> None:
    tables = world()
    _, observations, payload = proposal(tables)
    verdict = application(tables, (EchoRule(),)).validate(CONFIG, 1, 1, observations[:2], payload)
    assert isinstance(verdict, Wrong)


def test_a_keeper_that_lacks_a_block_waits_instead_of_refusing() -> None:
    tables = world()
    leader, observations, payload = proposal(tables)
    behind = world(2)
    other = application(behind, (EchoRule(),))
    verdict = other.validate(CONFIG, 1, 1, observations, payload)
    assert isinstance(verdict, NotYet)
    assert "31501:3" in verdict.missing
    behind.add(3, [balance_log(ALICE, 3_000_000)])
    assert other.validate(CONFIG, 1, 1, observations, payload) == Valid(leader.root(payload))


def test_a_keeper_whose_own_table_differs_does_not_vote() -> None:
    tables = world()
    _, observations, payload = proposal(tables)
    different = world(2)
    different.add(3, [balance_log(ALICE, 7)])
    verdict = application(different, (EchoRule(),)).validate(CONFIG, 1, 1, observations, payload)
    assert isinstance(verdict, NotYet)


def test_an_unknown_parent_is_waited_for() -> None:
    tables = world()
    _, observations, payload = proposal(tables)
    verdict = application(tables).validate(keccak(b"?"), 1, 1, observations, payload)
    assert verdict == NotYet(Reason.MISSING_PARENT.value)


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", msgpack.packb([1, 2, 3]), msgpack.packb([[], [], []]), b"\x93\x90"]
)
def test_garbage_is_malformed(payload: bytes) -> None:
    tables = world()
    _, observations, _ = proposal(tables)
    verdict = application(tables).validate(CONFIG, 1, 1, observations, payload)
    assert isinstance(verdict, Wrong)
    assert verdict.reason is Reason.MALFORMED


def test_a_reveal_reported_by_enough_must_be_attached() -> None:
    tables = world()
    reveal = b"a bid"
    seen = ObservationBody(1, (tables.head(3),), body(1, []).prices, (), (keccak(reveal),))
    observations = [signed(member, seen) for member in range(3)]
    leader = application(tables, (EchoRule(),))
    assert leader.propose(CONFIG, 1, 1, observations) is None
    leader.offer(reveal)
    payload = leader.propose(CONFIG, 1, 1, observations)
    assert payload is not None
    other = application(tables, (EchoRule(),))
    assert isinstance(other.validate(CONFIG, 1, 1, observations, payload), Valid)
    header, decisions, _ = msgpack.unpackb(payload)
    stripped = msgpack.packb([header, decisions, []])
    verdict = other.validate(CONFIG, 1, 1, observations, stripped)
    assert isinstance(verdict, Wrong)
    assert verdict.reason is Reason.MISSING_BODY


def newest(keeper: SnapshotApplication) -> Snapshot:
    return list(keeper.states.values())[-1]


def test_a_book_survives_its_bytes_and_bad_bytes_are_refused() -> None:
    tables = world()
    keeper = application(tables, (EchoRule(),))
    run_views({0: keeper}, [tables.head(3)], 3)
    book = newest(keeper).book
    assert book_from_bytes(book.encode()) == book
    assert newest(keeper).header.book_hash == book.hash()
    with pytest.raises(ValueError, match="book"):
        book_from_bytes(book.encode() + b"\0")
