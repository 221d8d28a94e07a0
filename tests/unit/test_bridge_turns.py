"""Whose turn it is: the first at once, others later, ever more seldom what cannot arrive."""

from keeper.route.bridges.turns import MAX_DOUBLINGS, Turns


def test_the_first_brings_at_once_and_each_next_one_a_patience_later() -> None:
    for turn in range(4):
        turns = Turns(4, 5.0)
        assert turns.due([(b"m", turn)], 100.0) == ({b"m"} if turn == 0 else set())
        if turn:
            assert turns.due([(b"m", turn)], 100.0 + 5 * turn - 0.1) == set()
        assert turns.due([(b"m", turn)], 100.0 + 5 * turn) == {b"m"}


def test_a_try_that_failed_waits_for_the_others_and_then_twice_as_long() -> None:
    turns, now = Turns(4, 5.0), 0.0
    for tries in range(MAX_DOUBLINGS + 3):
        assert turns.due([(b"m", 0)], now) == {b"m"}
        turns.tried(b"m", now)
        wait = 20.0 * 2 ** min(tries, MAX_DOUBLINGS)
        assert turns.due([(b"m", 0)], now + wait - 0.1) == set()
        now += wait


def test_what_is_ready_no_more_is_forgotten() -> None:
    turns = Turns(4, 5.0)
    assert turns.due([(b"m", 0), (b"n", 1)], 0.0) == {b"m"}
    turns.tried(b"m", 0.0)
    assert turns.due([], 1.0) == set()
    assert turns.due([(b"m", 0), (b"n", 1)], 2.0) == {b"m"}, "it is new again"
