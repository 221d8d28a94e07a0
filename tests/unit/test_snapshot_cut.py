"""The cut and the prices follow the many, never a minority."""

from keeper.observe.observation import ObservationBody, SeenHead, SeenPrice
from keeper.snapshot.cut import choose_cut
from keeper.snapshot.decisions import CutBlock, Observed, Price
from keeper.snapshot.prices import agree_prices
from keeper.units import ChainId

CHAIN = ChainId(1)
MARKET = b"ETH-USD".ljust(32, b"\0")


def head(number: int, salt: int = 0) -> SeenHead:
    return SeenHead(CHAIN, number, bytes([number, salt]) * 16, bytes(32), number)


def seen(*rows: list[SeenHead]) -> list[Observed]:
    return [
        Observed(member, bytes([member]) * 20, ObservationBody(1, tuple(heads)))
        for member, heads in enumerate(rows)
    ]


def cut(observed: list[Observed], parent: int | None = None) -> int | None:
    before = {}
    if parent is not None:
        one = head(parent)
        before = {CHAIN: CutBlock(CHAIN, one.number, one.hash, one.account_root, one.timestamp)}
    chosen = choose_cut([CHAIN], before, observed, faults=1, quorum=3)
    return chosen[CHAIN].number if CHAIN in chosen else None


def test_the_highest_block_that_enough_name_and_pass() -> None:
    assert cut(seen([head(7), head(8), head(9)], [head(7), head(8)], [head(8)], [head(9)])) == 8


def test_one_member_alone_cannot_move_the_cut() -> None:
    assert cut(seen([head(99)], [head(7)], [head(7)], [head(7)])) == 7


def test_a_minority_ahead_waits_for_a_quorum_of_heights() -> None:
    assert cut(seen([head(9)], [head(9)], [head(7)])) is None
    assert cut(seen([head(8), head(9)], [head(8), head(9)], [head(8)])) == 8


def test_the_cut_never_goes_back() -> None:
    assert cut(seen([head(5)], [head(5)], [head(5)]), parent=6) == 6


def test_conflicting_blocks_of_one_height_stop_the_chain() -> None:
    rows = seen([head(8)], [head(8)], [head(8, 1)], [head(8, 1)])
    assert cut(rows, parent=6) == 6


def prices(answers: list[int], ages_s: list[int], parent: int | None = None) -> Price | None:
    observed = [
        Observed(
            member,
            bytes(20),
            ObservationBody(1, (), (SeenPrice(MARKET, answer, 1_000 - age),)),
        )
        for member, (answer, age) in enumerate(zip(answers, ages_s, strict=True))
    ]
    before = {} if parent is None else {MARKET: Price(MARKET, parent, stale=False)}
    agreed = agree_prices([MARKET], before, observed, quorum=3, now_ms=1_000_000, max_age_ms=60_000)
    return agreed.get(MARKET)


def test_the_lower_median_of_fresh_answers() -> None:
    assert prices([10, 20, 30, 40], [0, 0, 0, 0]) == Price(MARKET, 20, stale=False)


def test_a_liar_cannot_move_the_median_outside_honest_answers() -> None:
    assert prices([100, 101, 102, 10**15], [0, 0, 0, 0]) == Price(MARKET, 101, stale=False)


def test_fewer_than_a_quorum_of_fresh_answers_is_stale() -> None:
    assert prices([10, 20, 30], [0, 0, 61], parent=15) == Price(MARKET, 15, stale=True)
    assert prices([10, 20, 30], [0, 0, 61]) is None


def test_a_price_from_the_future_is_not_fresh() -> None:
    assert prices([10, 20, 30], [0, 0, -16], parent=15) == Price(MARKET, 15, stale=True)
