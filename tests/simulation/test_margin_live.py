"""A book kept up to date gives what a book built anew gives, and computes far less."""

import random

import pytest

from keeper.hashing import keccak
from keeper.legs import Leg, LegKind
from keeper.margin import book as books
from keeper.margin.leaves import state_root
from keeper.margin.live import Live
from keeper.margin.marks import Marks, Unpriced
from keeper.margin.tick import assess
from keeper.units import PPM, ChainId, symbol
from tests.support import margin_books as support


def legs(draw: random.Random) -> list[Leg]:
    """Return a trader's legs: leverage from 1 to 8 on two chains."""
    chain, other = draw.sample(support.CHAINS[:2], 2)
    market = draw.choice(support.MARKETS)
    price = support.PRICES[symbol(market)]
    size = draw.randrange(10**6, 10**9) * draw.choice([1, -1])
    value = size * price // 10**10
    cash = abs(value) * PPM // draw.randrange(PPM, 8 * PPM) + 10**6
    found = [
        Leg(chain, support.VENUES[0], symbol("USDC"), LegKind.COLLATERAL, cash),
        Leg(chain, support.VENUES[1], symbol(market), LegKind.PERP, size, -value),
    ]
    if draw.random() < 0.5:
        second = symbol(draw.choice(support.MARKETS))
        found.append(Leg(other, support.VENUES[1], second, LegKind.PERP, -size // 3, value // 3))
    if draw.random() < 0.3:
        found.append(Leg(other, support.VENUES[0], symbol("WETH"), LegKind.DEBT, 10**15))
    return found


def moved(marks: Marks, draw: random.Random, most_ppm: int, age: int = 0) -> Marks:
    """Return a tick with every price and funding index moved a little, each by itself."""

    def walk(value: int) -> int:
        return max(1, value * (PPM + draw.randrange(-most_ppm, most_ppm + 1)) // PPM)

    prices = {market: walk(price) for market, price in sorted(marks.prices.items())}
    funding = {
        key: index + draw.randrange(-500, 500) for key, index in sorted(marks.funding.items())
    }
    ages = {chain: seconds + age for chain, seconds in marks.ages.items()}
    return Marks(prices, funding, marks.parameters, ages)


def start(local: bool = False) -> Marks:
    """Return a tick without funding."""
    zero = dict.fromkeys(support.funding(random.Random(1)), 0)
    return Marks(support.PRICES, zero, support.parameters(local), support.AGES)


@pytest.mark.parametrize(("seed", "local"), [(1, False), (2, False), (3, True)])
def test_a_live_book_is_a_book_built_anew(seed: int, local: bool) -> None:
    draw = random.Random(seed)
    live, held, seqs = Live(), dict[bytes, list[Leg]](), dict[bytes, int]()
    marks = start(local)
    for step in range(25):
        changed = {}
        for i in range(150 if step == 0 else draw.randrange(4)):
            known = list(held)
            old = step > 0 and draw.random() < 0.7
            account = draw.choice(known) if old else keccak(f"{seed}/{step}/{i}".encode())
            changed[account] = legs(draw)
        for account in sorted(changed):
            seqs[account] = seqs.get(account, -1) + 1
        held.update({account: changed[account] for account in sorted(changed)})
        root = live.update(changed)
        book = books.build((a, seqs[a], 0, mine) for a, mine in held.items())
        assert root == state_root(book) == live.tree.root
        marks = moved(marks, draw, draw.choice([0, 300, 3_000, 60_000]), age=300 * (step == 12))
        assert live.watched(marks) == assess(book, marks).watched


def test_a_small_move_computes_few_accounts() -> None:
    draw = random.Random(9)
    live, marks = Live(), start()
    live.update({keccak(i.to_bytes(4, "big")): legs(draw) for i in range(1_500)})
    live.watched(marks)
    needless = 0
    for _ in range(10):
        marks, before = moved(marks, draw, 100), live.computed
        named = len(live.watched(marks))
        needless += live.computed - before - named
    assert needless < 10 * len(live) // 50  # beside those it had to name, under 2 % a tick


def test_a_changed_account_alone_is_placed_anew() -> None:
    draw = random.Random(4)
    live, marks = Live(), start()
    live.update({keccak(i.to_bytes(4, "big")): legs(draw) for i in range(200)})
    watched = {one.account for one in live.watched(marks)}
    calm = next(a for a in (keccak(i.to_bytes(4, "big")) for i in range(200)) if a not in watched)
    ruined = Leg(
        support.CHAINS[0], support.VENUES[1], symbol("ETH-USD"), LegKind.PERP, 10**8, -(10**12)
    )
    before = live.computed
    live.update({calm: [ruined]})
    now = live.watched(marks)
    assert now[0].account == calm
    assert live.computed - before < len(now) + 200 // 50
    with pytest.raises(Unpriced):
        live.update(
            {calm: [Leg(ChainId(999), support.VENUES[0], symbol("USDC"), LegKind.COLLATERAL, 1)]}
        )
