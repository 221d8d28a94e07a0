"""Shipments: every arrow of their drawing, what is shown of places, and what is kept of them."""

from dataclasses import replace
from typing import Any

import pytest

from keeper.chain.port import BlockRef, Log, Receipt
from keeper.hashing import keccak
from keeper.route.bridges.hyperlane import DISPATCH, word
from keeper.route.bridges.message import HyperlaneMessage
from keeper.route.bridges.port import Crossing, Stage, Terms, Transfer
from keeper.route.congestion import FEWEST
from keeper.route.shipment_book import KEPT, ShipmentBook
from keeper.route.shipments import (
    MAX_PAYLOAD,
    Facts,
    Shipment,
    State,
    Stock,
    advance,
    effects,
    stocks,
    transfer_of,
    trouble,
)
from keeper.route.traffic import Traffic, lane_now, seen_of
from keeper.store import Store
from keeper.units import BlockNumber, Wei
from tests.support.warp_world import AWAY, ENDS, HOME, USDC, WarpWorld

ME, USD, NOW = b"\x0c" * 20, 10**6, 10**9
OUT = Crossing(HOME, AWAY, USDC)
ROUTE = WarpWorld().route
SENT = Transfer(keccak(b"id"), OUT, ME, 99, b"payload")
BIG = 10**30


def shipment(number: int = 1, **changes: Any) -> Shipment:
    one = Shipment(
        number.to_bytes(32, "big"), b"task", OUT, ROUTE.address(OUT), ROUTE.verifier, 100, 99,
        BIG, NOW, 60_000, 5, "why",
    )  # fmt: skip
    return replace(one, **changes)


WANTED = shipment()
FLYING = shipment(state=State.SENT, left_ms=NOW + 1, transfer=SENT)


@pytest.mark.parametrize(
    ("before", "facts", "transfer", "state"),
    [
        (WANTED, Facts(), None, State.WANTED),
        (WANTED, Facts(planned=False), None, State.DROPPED),
        (WANTED, Facts(failed=True), None, State.DROPPED),
        (WANTED, Facts(left=True), SENT, State.WANTED),
        (WANTED, Facts(left=True, closed=True), None, State.WANTED),
        (WANTED, Facts(left=True, closed=True), SENT, State.SENT),
        (WANTED, Facts(closed=True, final=Stage.ARRIVED, paid=True), SENT, State.ARRIVED),
        (WANTED, Facts(final=Stage.ARRIVED, paid=True), SENT, State.WANTED),
        (FLYING, Facts(planned=False, failed=True), SENT, State.SENT),
        (FLYING, Facts(newest=Stage.ARRIVED), SENT, State.SENT),
        (FLYING, Facts(final=Stage.ARRIVED), SENT, State.SENT),
        (FLYING, Facts(final=Stage.ARRIVED, paid=False), SENT, State.SENT),
        (FLYING, Facts(final=Stage.ARRIVED, paid=True), SENT, State.ARRIVED),
        (FLYING, Facts(newest=Stage.RETURNED), SENT, State.SENT),
        (FLYING, Facts(final=Stage.RETURNED), SENT, State.RETURNED),
    ],
)
def test_every_arrow(
    before: Shipment, facts: Facts, transfer: Transfer | None, state: State
) -> None:
    after = advance(before, facts, transfer, NOW + 7)
    assert after.state is state
    assert (after.ended_ms == NOW + 7) is not after.open
    lost = state in (State.DROPPED, State.RETURNED)
    assert effects(after, facts)[0] == (0 if lost else 100)
    there = state is State.ARRIVED or (state is State.SENT and facts.newest is Stage.ARRIVED)
    assert effects(after, facts)[1] == (99 if there else 0)


def _places(one: Shipment, facts: Facts, home: int, away: int) -> tuple[Stock, Stock]:
    found = stocks({one.origin: home, one.destination: away}, [one], {one.id: facts}, {})
    return found[one.origin], found[one.destination]


@pytest.mark.parametrize(
    ("one", "facts", "home", "away"),
    [
        (WANTED, Facts(), 1_000, 0),
        (WANTED, Facts(left=True), 900, 0),
        (FLYING, Facts(), 900, 0),
    ],
)
def test_nothing_is_in_two_places_while_it_travels(
    one: Shipment, facts: Facts, home: int, away: int
) -> None:
    assert _places(one, facts, home, away) == (Stock(900), Stock(0, 99))


def test_what_is_written_off_took_what_had_left() -> None:
    assert effects(replace(FLYING, state=State.FORGOTTEN), Facts()) == (100, 0)
    assert effects(replace(WANTED, state=State.FORGOTTEN), Facts()) == (0, 0)


@pytest.mark.parametrize("reorg", [False, True])
def test_stocks_and_effects_tell_the_same_story(reorg: bool) -> None:
    """Available, less what own shipments did, never changes: nobody else does anything here."""
    arrived = replace(FLYING, state=State.ARRIVED, ended_ms=NOW)
    story = [
        (WANTED, Facts(), 1_000, 0),
        (WANTED, Facts(left=True), 900, 0),
        *([(WANTED, Facts(), 1_000, 0), (WANTED, Facts(left=True), 900, 0)] if reorg else []),
        (FLYING, Facts(closed=True), 900, 0),
        (FLYING, Facts(newest=Stage.ARRIVED), 900, 99),
        *([(FLYING, Facts(), 900, 0)] if reorg else []),
        (FLYING, Facts(newest=Stage.ARRIVED), 900, 99),
        (arrived, Facts(), 900, 99),
    ]
    for one, facts, home, away in story:
        here, there = _places(one, facts, home, away)
        taken, brought = effects(one, facts)
        assert (here.available + taken, there.available - brought) == (1_000, 0)
        assert there.available + there.in_flight == 99


def test_what_arrived_or_came_back_is_counted_once() -> None:
    assert _places(FLYING, Facts(newest=Stage.ARRIVED), 900, 99) == (Stock(900), Stock(99))
    back = Facts(newest=Stage.RETURNED)
    assert _places(FLYING, back, 1_000, 0) == (Stock(900), Stock(0, 99)), "until that is final"
    done = replace(FLYING, state=State.RETURNED)
    assert _places(done, Facts(), 1_000, 0) == (Stock(1_000), Stock(0))
    only = stocks({FLYING.destination: 5}, [FLYING], {}, {FLYING.destination: 3})
    assert only == {FLYING.destination: Stock(5, 99, 3)}, "a chain that is away hides no other"


def _receipt(*bodies: tuple[bytes, int, bytes], good: bool = True) -> Receipt:
    at = BlockRef(HOME, BlockNumber(3), b"\x03" * 32)
    logs = []
    for nonce, (to, amount, extra) in enumerate(bodies):
        body = word(to) + amount.to_bytes(32, "big") + extra
        ends = word(ENDS[HOME].router), int(AWAY), word(ENDS[AWAY].router)
        raw = HyperlaneMessage(nonce, int(HOME), *ends, body).encode()
        data = (32).to_bytes(32, "big") + len(raw).to_bytes(32, "big") + raw
        data += bytes(-len(raw) % 32)
        logs.append(
            Log(at, nonce, b"t", ENDS[HOME].mailbox, (DISPATCH, word(ENDS[HOME].router)), data)
        )
    return Receipt(b"t", at, good, 1, Wei(1), tuple(logs))


def test_only_a_transfer_to_the_own_account_counts() -> None:
    found = transfer_of(WANTED, ROUTE, _receipt((b"\x66" * 20, 7, b""), (ME, 99, b"")), ME)
    assert found is not None
    assert (found.amount, found.recipient) == (99, ME)
    assert transfer_of(FLYING, ROUTE, None, ME) == SENT
    for receipt in (
        None,
        _receipt((ME, 99, b""), good=False),
        _receipt((b"\x66" * 20, 99, b"")),
        _receipt((ME, 0, b"")),
        _receipt((ME, 99, bytes(MAX_PAYLOAD))),
        _receipt(),
    ):
        assert transfer_of(WANTED, ROUTE, receipt, ME) is None


def test_what_is_late_or_wrong_is_told() -> None:
    assert trouble(WANTED, Facts(), NOW + 240_000, 4) == ""
    assert "it takes 240 s" in trouble(WANTED, Facts(), NOW + 240_001, 4)
    assert trouble(FLYING, Facts(), NOW + 240_001, 4) == "", "since it left"
    assert "paid" in trouble(FLYING, Facts(final=Stage.ARRIVED, paid=False), NOW, 4)
    odd = Facts(closed=True, receipt=_receipt())
    assert "no log shows a transfer" in trouble(WANTED, odd, NOW, 4)
    assert trouble(replace(FLYING, state=State.ARRIVED), Facts(), 10**12, 4) == ""


def test_a_shipment_on_disk_is_what_was_written() -> None:
    book = ShipmentBook(Store(":memory:"))
    long = replace(FLYING, amount=BIG, transfer=replace(SENT, amount=BIG), timed=True, told=True)
    book.put(WANTED, shipment(2, state=State.DROPPED, ended_ms=7))
    book.put(replace(long, id=WANTED.id))
    assert book.all() == [
        replace(long, id=WANTED.id),
        shipment(2, state=State.DROPPED, ended_ms=7),
    ]


def test_what_is_kept_on_disk_is_bounded() -> None:
    book = ShipmentBook(Store(":memory:"))
    ended = [shipment(at, state=State.ARRIVED, decided_ms=at) for at in range(KEPT + 50)]
    open_ = shipment(10**6, decided_ms=0)
    book.put(open_, *ended)
    assert book.forget(20) == 20, "the others may count in a window"
    assert book.forget(NOW) == 30
    kept = book.all()
    assert (kept[0], len(kept)) == (open_, KEPT + 1)
    assert kept[1].decided_ms == 50


def _arrived(number: int, took: int, **changes: Any) -> Shipment:
    return shipment(
        number, state=State.ARRIVED, left_ms=NOW, ended_ms=NOW + took, transfer=SENT,
        **{"timed": True, **changes},
    )  # fmt: skip


def test_a_lane_is_what_was_seen_of_it() -> None:
    terms = Terms()
    few = [_arrived(at, 90_000) for at in range(FEWEST - 1)]
    lane = lane_now(ROUTE, OUT, terms, seen_of(few, terms, (), NOW))
    assert (lane.p50_ms, lane.p95_ms, lane.fee_ppm) == (20_000, 60_000, 0), "too few to say so"
    seen = seen_of([*few, _arrived(99, 90_000)], terms, (), NOW)
    lane = lane_now(ROUTE, OUT, terms, seen)
    assert (lane.p50_ms, lane.p95_ms, lane.fee_ppm) == (90_000, 90_000, 10_000)
    assert lane_now(ROUTE, OUT, Terms(fee_ppm=20_000), seen).fee_ppm == 20_000, "never below asked"
    fixed = Terms(fee_fixed=1)
    assert (
        lane_now(ROUTE, OUT, fixed, seen_of([*few, _arrived(99, 1)], fixed, (), NOW)).fee_ppm == 0
    )
    untimed = [_arrived(at, 90_000, timed=False) for at in range(50)]
    assert seen_of(untimed, terms, (), NOW).deliveries == ()


def test_what_is_overdue_slows_a_lane_and_takes_its_room() -> None:
    terms = Terms(capacity=1_000)
    heard = Traffic()
    for _ in range(300):
        heard.hear(ROUTE.name, OUT, 10_000)
    assert len(heard.of(ROUTE.name, OUT)) == 256
    assert heard.of(ROUTE.name, Crossing(AWAY, HOME, USDC)) == heard.of("ccip", OUT) == ()
    quick = lane_now(ROUTE, OUT, terms, seen_of((), terms, heard.of(ROUTE.name, OUT)[:20], NOW))
    assert (quick.p95_ms, quick.room) == (10_000, 1_000)
    late = [shipment(at, left_ms=NOW) for at in range(3)]
    young = lane_now(
        ROUTE, OUT, terms, seen_of(late, terms, heard.of(ROUTE.name, OUT)[:20], NOW + 60_000)
    )
    assert (young.p95_ms, young.room) == (10_000, 700), "on their way, and not late"
    jam = lane_now(
        ROUTE, OUT, terms, seen_of(late, terms, heard.of(ROUTE.name, OUT)[:20], NOW + 600_000)
    )
    assert (jam.p50_ms, jam.p95_ms) == (10_000, 600_000)
