"""Views to check a policy on when there is no record: a crash, with something in it for every kind.

prices fall ─▶ tasks      own funds drain on one chain, are spare on another, lanes between them
orders come and go        all of it from a seed, the same on every machine
"""

import hashlib

import msgspec

from policies.api import BridgeQuote, Holding, MarketView, Order, Wide
from policies.convert import CHAIN, ETH, PRICE_UNIT, USDC, book_of
from policies.market import World

OTHER = 10
"""A second chain, where this keeper's funds are spare."""
VIEWS, ACCOUNTS = 40, 60
USD = 10**6


def crash(count: int = VIEWS, accounts: int = ACCOUNTS) -> list[MarketView]:
    """Return the views of a fall by a quarter, one a second."""
    world = World(book_of(2_000 * PRICE_UNIT, 1_700_000_000_000, accounts, 7))
    views = []
    for step in range(count):
        prices = ((ETH, (2_000 - 12 * step) * PRICE_UNIT), (USDC, PRICE_UNIT))
        views.append(stocked(world.tick(world.now_ms + 1_000, prices), step))
    return views


def stocked(view: MarketView, step: int) -> MarketView:
    """Return the view with own funds that drain, lanes that refill them, and an order or two."""
    lanes = ((b"\x0a" * 20, 400, 0, 900_000, 1), (b"\x0b" * 20, 900, USD, 90_000, 0))
    return msgspec.structs.replace(
        view,
        inventory=(
            Holding(OTHER, USDC, Wide(3_000_000 * USD)),
            Holding(CHAIN, USDC, Wide(max(0, 2_000_000 - 49_000 * step) * USD)),
        ),
        bridges=tuple(
            BridgeQuote(
                bridge, OTHER, CHAIN, USDC, fee_ppm, fee_fixed, late // 2, late, security,
                Wide(500_000 * USD),
            )
            for bridge, fee_ppm, fee_fixed, late, security in lanes
        ),
        orders=tuple(_order(view, step, number) for number in range(step % 3)),
    )  # fmt: skip


def _order(view: MarketView, step: int, number: int) -> Order:
    name = f"{step // 5}/{number}".encode()
    asked = (5_000 + 100 * number) * USD
    return Order(
        order=hashlib.blake2b(name, digest_size=32).digest(),
        origin=OTHER,
        destination=CHAIN,
        settler=b"\x0c" * 20,
        given=USDC,
        given_amount=Wide(asked + asked // 100),
        asked=USDC,
        asked_amount=Wide(asked),
        deadline_ms=view.now_ms + 60_000,
    )
