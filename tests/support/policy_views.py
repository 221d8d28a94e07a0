"""Small seeded market views for policy tests."""

import random
from pathlib import Path

from keeper.units import symbol
from policies.api import (
    Account,
    Gas,
    Leg,
    MarketView,
    Price,
    Task,
    Term,
    Wide,
    pack_legs,
)

ETH, USDC = symbol("ETH-USD"), symbol("USDC")
CHAIN, VENUE = 31337, b"\x11" * 20
PLUGINS = Path(__file__).with_name("policy_plugins.py")


def plugin(name: str) -> str:
    return f"{PLUGINS}:{name}"


def market_view(number: int = 1, accounts: int = 20, tasks: int | None = None) -> MarketView:
    """Return a view whose accounts are all short of their requirement."""
    chance = random.Random(number)
    rows, open_tasks = [], []
    for _ in range(accounts):
        owner = chance.randbytes(32)
        size = chance.randrange(10**18, 5 * 10**18)
        legs = pack_legs(
            [
                Leg(CHAIN, VENUE, ETH, 2, size, -2050 * size // 10**12, 0),
                Leg(1, VENUE, USDC, 0, 300_000_000, 0, 0),
            ]
        )
        need = 2000 * size // 10**12 // 20
        rows.append(Account(owner, need * 8 // 10, need * 2, need, need, 800_000, legs))
        open_tasks.append(
            Task(
                chance.randbytes(32),
                owner,
                CHAIN,
                VENUE,
                ETH,
                Wide(10**20),
                (Term(ETH, 20_000, 50_000),),
                0,
                10_000_000,
            )
        )
    return MarketView(
        number,
        1_000 * number,
        chance.getrandbits(60),
        tuple(rows),
        (Price(ETH, 2000 * 10**8, 18, 500), Price(USDC, 10**8, 6, 100)),
        (),
        (Gas(CHAIN, 10**9, 2000 * 10**8),),
        (),
        tuple(open_tasks if tasks is None else open_tasks[:tasks]),
        bond_free=10**12,
    )
