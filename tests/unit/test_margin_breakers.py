"""Every breaker trips on its rule, stays shut, releases only as its rule says, and says why."""

from dataclasses import replace

import pytest

from keeper.margin.breaker import (
    EVERYWHERE,
    GRADES,
    HELD,
    Action,
    Board,
    Level,
    Rule,
    allowed,
    chain_scope,
    changes,
    class_scope,
    explain,
    next_board,
    scope_text,
)
from keeper.margin.flow import NetOutflow, Refused, TokenBucket
from keeper.margin.readings import (
    AgeReading,
    BlockReading,
    CascadeReading,
    ExposureReading,
    FinalityBroken,
    Lifted,
    NegativeAccount,
    OracleReading,
    OutflowReading,
    Paused,
    Reading,
    Unpaused,
)
from keeper.parameters import Parameters
from keeper.units import BlockNumber, ChainId, symbol

LIMITS = Parameters.devnet().breakers
ETH = symbol("ETH-USD")
CHAIN = ChainId(10)
HERE = chain_scope(CHAIN)
VAULT_USDC = symbol("USDC@vault")
GOOD = OracleReading(ETH, 2_000, 10, 2_000, 100)


def step(board: Board, *readings: Reading, now: int = 1_000) -> Board:
    return next_board(board, readings, now, LIMITS)


def negative(block: int, account: bytes = b"\xaa" * 32) -> NegativeAccount:
    return NegativeAccount(CHAIN, BlockNumber(block), account, -5)


TRIPS: list[tuple[Rule, Reading, bytes, str]] = [
    (Rule.ORACLE, replace(GOOD, age_s=121), ETH, "121 s old"),
    (Rule.ORACLE, replace(GOOD, price=2_201), ETH, "from its mean"),
    (Rule.ORACLE, replace(GOOD, price=1_799), ETH, "from its mean"),
    (Rule.ORACLE, replace(GOOD, confidence_ppm=20_001), ETH, "uncertain by 2.00 %"),
    (Rule.ORACLE, replace(GOOD, price=0), ETH, "no positive price"),
    (Rule.STATE_AGE, AgeReading(CHAIN, 61), HERE, "61 s old"),
    (Rule.STATE_AGE, AgeReading(CHAIN, 601), HERE, "counts nothing"),
    (Rule.CURSE, FinalityBroken(CHAIN, "block 7 was replaced"), HERE, "block 7"),
    (Rule.NEGATIVE, negative(100), HERE, "until block 150"),
    (Rule.CASCADE, CascadeReading(1_000_001, 0, 10), EVERYWHERE, "multiplier is 100.00 %"),
    (Rule.CASCADE, CascadeReading(0, 10**9 + 1, 10**9), EVERYWHERE, "bad debt"),
    (Rule.OUTFLOW, OutflowReading(VAULT_USDC, 10**12, 699_999_999_999, 2_000), VAULT_USDC, "left"),
    (Rule.EXPOSURE, ExposureReading((500, 0, 0, 500)), class_scope(3), "multisig"),
    (Rule.PAUSE, Paused(HERE), HERE, "paused"),
]


@pytest.mark.parametrize(("rule", "reading", "scope", "word"), TRIPS)
def test_a_breaker_trips_and_stays_shut(
    rule: Rule, reading: Reading, scope: bytes, word: str
) -> None:
    board = step((), reading)
    assert [(t.rule, t.scope) for t in board] == [(rule, scope)]
    assert word in board[0].why
    for action, level in board[0].grades:
        found, whys = allowed(board, action, [scope])
        assert found == level > Level.CLOSED
        assert board[0].why in whys[0]
        assert rule.value in whys[0]
    assert step(board, now=1_001) == board  # nothing was said about it
    assert step(board, reading, now=1_900)[0].since == 1_000
    other = symbol("ELSEWHERE")
    if scope != EVERYWHERE:
        assert allowed(board, Action.WITHDRAW, [other])[0] == Level.CLOSED


NOT_TRIPS: list[Reading] = [
    GOOD,
    replace(GOOD, age_s=120, price=2_200, confidence_ppm=20_000),
    AgeReading(CHAIN, 60),
    CascadeReading(1_000_000, 10**9, 10**9),
    CascadeReading(0, LIMITS.bad_debt_begin - 1, 0),
    OutflowReading(VAULT_USDC, 10**12, 700_000_000_000, 2_000),
    OutflowReading(VAULT_USDC, LIMITS.outflow_begin - 1, 0, 2_000),
    ExposureReading((850, 0, 0, 150)),
    ExposureReading((0, 0, 0, 0)),
    BlockReading(CHAIN, BlockNumber(5)),
    Unpaused(HERE),
    Lifted(HERE),
]


@pytest.mark.parametrize("reading", NOT_TRIPS)
def test_at_the_limit_nothing_trips(reading: Reading) -> None:
    assert step((), reading) == ()


RELEASES: list[tuple[Reading, list[Reading], Reading]] = [
    (replace(GOOD, age_s=500), [replace(GOOD, age_s=121)], GOOD),
    (AgeReading(CHAIN, 700), [AgeReading(CHAIN, 61)], AgeReading(CHAIN, 60)),
    (
        FinalityBroken(CHAIN, "x"),
        [AgeReading(CHAIN, 1), BlockReading(CHAIN, BlockNumber(9)), Lifted(ETH), Unpaused(HERE)],
        Lifted(HERE),
    ),
    (
        negative(100),
        [BlockReading(CHAIN, BlockNumber(149)), BlockReading(ChainId(1), BlockNumber(9_999))],
        BlockReading(CHAIN, BlockNumber(150)),
    ),
    (CascadeReading(2_000_000, 0, 1), [CascadeReading(1_000_001, 0, 1)], CascadeReading(1, 0, 1)),
    (
        ExposureReading((0, 0, 0, 1)),
        [ExposureReading((84, 0, 0, 16))],
        ExposureReading((85, 0, 0, 15)),
    ),
]


@pytest.mark.parametrize(("trip", "shut", "release"), RELEASES)
def test_a_breaker_releases_only_by_its_rule(
    trip: Reading, shut: list[Reading], release: Reading
) -> None:
    board = step((), trip)
    rules = {t.rule for t in board}
    for reading in shut:
        board = step(board, reading, now=10**9)
        assert rules <= {t.rule for t in board}
    if rules <= HELD:
        assert step(board, release, now=10**9 + LIMITS.hold_s - 1) == board  # not good for long
    assert step(board, release, now=10**9 + LIMITS.hold_s) == ()


def test_a_reading_that_hovers_at_its_limit_keeps_its_breaker_shut() -> None:
    board, boards = step((), replace(GOOD, age_s=500)), set()
    for now in range(1_000, 1_100, 3):
        reading = GOOD if now % 2 else replace(GOOD, price=2_201)
        board = step(board, reading, now=now)
        boards.add(tuple((trip.rule, trip.grades, trip.since) for trip in board))
    assert len(boards) == 1  # so contracts are told once


def test_the_gate_starts_again_with_every_negative_account() -> None:
    board = step((), negative(100), negative(120), negative(110))
    assert board[0].until == 170
    assert step(board, BlockReading(CHAIN, BlockNumber(150)))
    assert not step(board, BlockReading(CHAIN, BlockNumber(170)))


def test_liquidations_wait_for_the_grace_after_a_pause() -> None:
    board = step((), Paused(HERE), now=100)
    assert allowed(board, Action.OPEN, [HERE])[0] == Level.STOP
    assert allowed(board, Action.REDUCE, [HERE])[0] == Level.CLOSED
    board = step(board, Unpaused(HERE), now=200)
    assert allowed(board, Action.OPEN, [HERE])[0] == Level.CLOSED
    level, whys = allowed(board, Action.LIQUIDATE, [HERE])
    assert level == Level.STOP
    assert "repaired" in whys[0]
    assert step(board, Unpaused(HERE), now=300) == board  # asking again does not prolong it
    assert step(board, now=200 + LIMITS.grace_s - 1) == board
    assert step(board, now=200 + LIMITS.grace_s) == ()
    assert step(step(board, Paused(HERE), now=250), now=10**9)  # paused again: no end by itself


def test_an_outflow_lapses_with_its_window() -> None:
    state = NetOutflow(VAULT_USDC, 1_000, 10**12, 10**12)
    state = state.flow(-200_000_000_000, 1_500, LIMITS)
    assert step((), state.reading(LIMITS)) == ()
    state = state.flow(-200_000_000_000, 2_000, LIMITS)
    board = step((), state.reading(LIMITS), now=2_000)
    assert allowed(board, Action.WITHDRAW, [VAULT_USDC])[0] == Level.STOP
    assert allowed(board, Action.REDUCE, [VAULT_USDC])[0] == Level.CLOSED
    assert step(board, now=4_599) == board
    assert step(board, now=4_600) == ()
    state = state.flow(-1, 4_600, LIMITS)
    assert (state.before, state.left) == (600_000_000_000, 599_999_999_999)
    assert step((), state.reading(LIMITS), now=4_600) == ()


def test_the_strictest_grade_holds_and_every_reason_is_told() -> None:
    board = step((), replace(GOOD, age_s=999), Paused(ETH), CascadeReading(2_000_000, 0, 1))
    level, whys = allowed(board, Action.LIQUIDATE, [ETH])
    assert level == Level.STOP
    assert len(whys) == 3
    curse = step(board, FinalityBroken(CHAIN, "x"))
    assert allowed(curse, Action.REDUCE, [HERE])[0] == Level.CURSED
    assert allowed(curse, Action.SIGN, [HERE])[0] == Level.CURSED


def test_changes_are_what_contracts_need() -> None:
    none: Board = ()
    tripped = step(none, negative(1))
    assert changes(none, tripped) == [(HERE, Action.WITHDRAW, Level.STOP)]
    assert changes(tripped, none) == [(HERE, Action.WITHDRAW, Level.CLOSED)]
    assert changes(tripped, tripped) == []
    both = step(tripped, AgeReading(CHAIN, 61))
    assert changes(tripped, both) == [
        (HERE, Action.OPEN, Level.STOP),
        (HERE, Action.INCREASE, Level.STOP),
    ]


def test_the_board_does_not_depend_on_the_order_of_unrelated_readings() -> None:
    readings: list[Reading] = [Paused(HERE), replace(GOOD, age_s=999), negative(5)]
    assert step((), *readings) == step((), *reversed(readings))


def test_reducing_is_stopped_by_nothing_but_a_curse() -> None:
    for rule, grades in GRADES.items():
        assert (Action.REDUCE in dict(grades)) == (rule is Rule.CURSE)


def test_every_rule_explains_itself() -> None:
    for rule in Rule:
        text = explain(rule)
        assert rule.value in text
        assert "Lets go" in text
    assert scope_text(EVERYWHERE) == "everywhere"
    assert scope_text(b"\xff" * 32) == "ff" * 32


# --- buckets --------------------------------------------------------------------------------------


def test_a_bucket_refills_and_says_how_long_to_wait() -> None:
    bucket = TokenBucket(1_000, 10, 1_000, 0)
    taken = bucket.take(900, 5)
    assert isinstance(taken, TokenBucket)
    assert taken.tokens == 100
    refused = taken.take(150, 7)
    assert isinstance(refused, Refused)
    assert refused.wait_s == 3
    assert "120 left" in refused.why
    assert isinstance(taken.take(150, 10), TokenBucket)
    assert isinstance(taken.take(150, 9), Refused)
    above = taken.take(1_001, 10**9)
    assert isinstance(above, Refused)
    assert above.wait_s is None
    assert taken.filled(10**9).tokens == 1_000
    assert taken.filled(1) == taken  # a clock that goes back gives nothing
    stuck = TokenBucket(10, 0, 0, 0).take(1, 5)
    assert isinstance(stuck, Refused)
    assert stuck.wait_s is None
    with pytest.raises(ValueError, match="negative"):
        bucket.take(-1, 0)
