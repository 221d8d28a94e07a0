"""Scores: what adds up, what decays, what never costs anything."""

import pytest

from keeper.reasons import Reason
from p2p.verdicts import (
    ACCEPT,
    FORGIVEN_AFTER_S,
    HALF_LIFE_S,
    PEERS_HELD,
    REFUSAL_MAX_S,
    REFUSAL_S,
    Ignore,
    Reject,
    Scores,
    Standing,
    TokenBucket,
)

PEER = b"peer"


def offend(scores: Scores, reason: Reason, times: int, now: float = 0.0) -> Standing:
    for _ in range(times):
        scores.judge(PEER, Reject(reason), now)
    return scores.standing(PEER, now)


def test_three_strikes() -> None:
    scores = Scores()
    assert offend(scores, Reason.MALFORMED, 1) is Standing.GOOD
    assert offend(scores, Reason.MALFORMED, 1) is Standing.MUTED
    assert offend(scores, Reason.MALFORMED, 1) is Standing.REFUSED


def test_refusal_ends_and_doubles_up_to_a_limit() -> None:
    scores, now, length = Scores(), 0.0, REFUSAL_S
    for _ in range(9):
        offend(scores, Reason.OVERSIZE, 3, now)
        assert scores.standing(PEER, now + length - 0.1) is Standing.REFUSED
        assert scores.standing(PEER, now + length) is not Standing.REFUSED
        now += length
        length = min(2 * length, REFUSAL_MAX_S)
    now += FORGIVEN_AFTER_S + REFUSAL_MAX_S
    offend(scores, Reason.OVERSIZE, 3, now)
    assert scores.standing(PEER, now + REFUSAL_S) is not Standing.REFUSED


def test_scores_halve() -> None:
    scores = Scores()
    offend(scores, Reason.MALFORMED, 1)
    before = scores.score(PEER, 0.0)
    assert scores.score(PEER, HALF_LIFE_S) == pytest.approx(before / 2)
    assert scores.standing(PEER, HALF_LIFE_S) is Standing.GOOD


@pytest.mark.parametrize("reason", [Reason.QUEUE_FULL, Reason.DUPLICATE, Reason.STALE])
def test_honest_traffic_never_mutes(reason: Reason) -> None:
    scores = Scores()
    for second in range(600):
        for _ in range(5):
            scores.judge(PEER, Ignore(reason), float(second))
    assert scores.standing(PEER, 600.0) is Standing.GOOD


def test_what_is_only_ignored_costs_little_whatever_the_reason() -> None:
    scores = Scores()
    for _ in range(100):
        scores.judge(PEER, Ignore(Reason.MALFORMED), 0.0)
    assert scores.standing(PEER, 0.0) is Standing.GOOD


def test_a_flood_of_anything_adds_up() -> None:
    scores = Scores()
    for _ in range(600):
        scores.judge(PEER, Ignore(Reason.RATE_LIMITED), 0.0)
    assert scores.standing(PEER, 0.0) is Standing.REFUSED


def test_acceptance_is_free_and_leaves_no_entry() -> None:
    scores = Scores()
    assert scores.judge(PEER, ACCEPT, 0.0) is Standing.GOOD
    assert scores.records() == ()


def test_records_carry_a_refusal_over_a_restart() -> None:
    scores = Scores()
    offend(scores, Reason.BAD_SIGNATURE, 3)
    again = Scores(scores.records())
    assert again.standing(PEER, 1.0) is Standing.REFUSED
    assert again.standing(PEER, REFUSAL_S) is not Standing.REFUSED


def test_drops_are_named_most_first() -> None:
    scores = Scores()
    scores.judge(PEER, Ignore(Reason.STALE), 0.0)
    scores.judge(PEER, Ignore(Reason.DUPLICATE), 0.0)
    scores.judge(PEER, Ignore(Reason.DUPLICATE), 0.0)
    assert scores.drops(PEER) == ((Reason.DUPLICATE, 2), (Reason.STALE, 1))


def test_strangers_cannot_grow_the_table() -> None:
    scores = Scores()
    for number in range(PEERS_HELD + 100):
        scores.judge(number.to_bytes(4, "big"), Reject(Reason.MALFORMED), 0.0)
    assert len(scores.records()) == PEERS_HELD


def test_bucket_bursts_then_flows() -> None:
    bucket = TokenBucket(rate=10.0, burst=5.0)
    assert [bucket.take(0.0) for _ in range(6)] == [True] * 5 + [False]
    assert bucket.take(0.1)
    assert not bucket.take(0.1)
    assert not bucket.take(0.05), "a clock that goes back gives nothing"
    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]
