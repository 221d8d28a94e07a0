"""A crash through the product's own rules: −30 %, all closed, and every unit accounted for.

Longs lose what shorts win. Who cannot pay is paid for by the insurance fund, then by the winners
pro rata; the clearing sum is checked in every view on the way.
"""

import random
from dataclasses import replace

import pytest

from keeper.clear.conservation import imbalances
from keeper.clear.transfer import TransferRule
from keeper.margin.engine import Engine
from keeper.margin.marks import Marks
from keeper.parameters import Parameters
from tests.support.clearing_world import (
    E8,
    ETH,
    HOUSE,
    INSURANCE,
    NETWORK,
    UNIT,
    USD,
    A,
    B,
    World,
    trader,
)

PAIRS = 400
PRICE = 2_000
BASE = Parameters.devnet([A, B])
PARAMETERS = replace(BASE, clearing=replace(BASE.clearing, netting_ticks=1, transfer_minimum=1))


def crowd(seed: int, fund: int) -> tuple[World, dict[bytes, int]]:
    """Return a world of longs and shorts of equal sizes, and what each put in, µUSD."""
    draw, net = random.Random(seed), World(rules=(TransferRule(),), parameters=PARAMETERS)
    deposits: dict[bytes, int] = {}
    for i in range(PAIRS):
        size = int(UNIT * 10 ** draw.uniform(-2, 1.5))
        notional = size * PRICE * USD // UNIT
        long, short = trader(2 * i), trader(2 * i + 1)
        for who, side, least in ((long, 1, 2), (short, -1, 1)):
            deposits[who] = notional * 10 // draw.randrange(10 * least, 200)
            net.deposit(who, draw.choice([A, B]), deposits[who])
            net.chains[B].set_position(who, ETH, side * size, -side * notional)
    net.deposit(INSURANCE, A, fund)
    deposits[INSURANCE] = fund
    net.view()
    return net, deposits


def checked_view(net: World) -> int:
    """Decide a view, bring what it decided, check every sum; return how many decisions it made."""
    made = net.view().decisions
    for decision in made:
        net.bring(decision)
    tables = {chain: net.at(ref) for chain, ref in net.snapshot.cut.items()}
    seen = {chain: table for chain, table in tables.items() if table is not None}
    held = {(c, t): net.moved.get((c, t), 0) for c in (A, B) for t in tokens(net, c)}
    assert imbalances(NETWORK, seen, net.snapshot.book.rules, held) == ()
    return len(made)


def tokens(net: World, chain: int) -> list[bytes]:
    return [token.address for token in NETWORK.chain(net.chains[chain].id).tokens]


def has(net: World, account: bytes) -> int:
    return net.balance(account, A) + net.balance(account, B)


@pytest.mark.parametrize(("seed", "fund"), [(1, 300_000 * USD), (2, 10**7 * USD)])
def test_a_crash_leaves_every_unit_somewhere(seed: int, fund: int) -> None:
    net, deposits = crowd(seed, fund)
    net.prices[ETH] = PRICE * E8 * 70 // 100
    profits = {who: net.close(who) for who in deposits if who != INSURANCE}
    assert sum(profits.values()) == 0
    quiet = 0
    for _ in range(60):
        quiet = 0 if checked_view(net) else quiet + 1
        if quiet == 3:
            break
    assert quiet == 3
    bad_debt = sum(max(0, -deposits[who] - gain) for who, gain in profits.items())
    insured = fund - has(net, INSURANCE)
    won = {who: gain for who, gain in profits.items() if gain > 0}
    shared = sum(gain - (has(net, who) - deposits[who]) for who, gain in won.items())
    assert bad_debt > 100_000 * USD
    assert insured == min(fund, bad_debt)
    assert shared == bad_debt - insured  # what the fund could not, the winners bear, to the unit
    assert (shared > 0) == (seed == 1)
    for who, gain in profits.items():
        if gain < 0:
            assert has(net, who) == max(0, deposits[who] + gain)
        assert has(net, who) >= 0
    assert has(net, HOUSE) == 0
    assert sum(has(net, who) for who in deposits) == sum(deposits.values())


def test_the_engine_sees_the_same_hole_as_the_clearing() -> None:
    net, deposits = crowd(3, 0)
    crashed = PRICE * E8 * 70 // 100
    prices = dict(net.prices) | {ETH: crashed}
    engine = Engine(Marks(prices, {}, PARAMETERS.margin, {A: 1, B: 1}))
    hole = 0
    for who in deposits:
        legs = net.snapshot.legs.get(who, ())
        rows = [(rate._replace(weight=10**6), *rest) for rate, *rest in engine.rows(legs)]
        hole += max(0, -engine.margin(rows).equity)  # before haircuts, as cash is
    net.prices[ETH] = crashed
    profits = {who: net.close(who) for who in deposits if who != INSURANCE}
    assert hole == sum(max(0, -deposits[who] - gain) for who, gain in profits.items())
