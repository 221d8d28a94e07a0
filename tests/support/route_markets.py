"""Problems and graphs for the routing tests: the published examples, and seeded networks."""

import numpy as np

from keeper.parameters import BridgeClass
from keeper.route.graph import Graph, Lane, Place, Swap, TickSwap
from keeper.route.pools import (
    Bridge,
    Pool,
    Problem,
    Product,
    Total,
    Weighted,
    arbitrage,
    liquidation,
)
from keeper.route.ticks import TickBook, sqrt_ratio, tick_at
from keeper.units import ChainId, symbol

USDC, WETH = symbol("USDC"), symbol("WETH")
HOME, AWAY = ChainId(1), ChainId(10)
START, END = Place(HOME, USDC), Place(AWAY, USDC)


def two_pools() -> Problem:
    """CFMMRouter.jl, README: two pools of different prices, no fee."""
    return arbitrage(
        (1.0, 1.0),
        (Product((0, 1), (1e6, 1e6), 1.0), Product((0, 1), (1e3, 2e3), 1.0)),
    )


def three_pools() -> Problem:
    """CFMMRouter.jl, examples/arbitrage.jl: as above, and a weighted pool."""
    weighted = Weighted((0, 1), (1e4, 2e4), (0.4, 0.6), 1.0)
    return arbitrage((1.0, 1.0), (*two_pools().pools, weighted))


_TRIANGLE: tuple[Pool, ...] = (
    Product((0, 1), (1e3, 1e4), 0.997),
    Product((1, 2), (1e3, 1e2), 0.997),
    Product((0, 2), (1e3, 2e4), 0.997),
)


def basket() -> Problem:
    """CFMMRouter.jl, examples/liquidate.jl: a basket into the first token."""
    return liquidation(0, (0.0, 10.0, 100.0), _TRIANGLE)


def one_swap() -> Problem:
    """CFMMRouter.jl, examples/liquidate.jl: ten of the first token into the second."""
    return liquidation(1, (10.0, 0.0, 0.0), _TRIANGLE)


def five_markets() -> Problem:
    """cfmm-routing-code, arbitrage.py: a pool of four tokens, three products, a constant sum."""
    return arbitrage(
        (1.5, 10.0, 2.0, 3.0),
        (
            Weighted((0, 1, 2, 3), (4.0,) * 4, (4.0, 3.0, 2.0, 1.0), 0.998),
            Product((0, 1), (10.0, 1.0), 0.997),
            Product((1, 2), (1.0, 5.0), 0.997),
            Product((2, 3), (40.0, 50.0), 0.997),
            Total((2, 3), (10.0, 10.0), 0.999),
        ),
    )


def five_assets() -> Problem:
    """cfmm-routing-code, liquidation.py: everything into the last of five tokens."""
    return liquidation(
        4,
        (2.0, 1.0, 3.0, 5.0, 10.0),
        (
            Weighted((0, 1, 2, 3, 4), (4.0,) * 5, (5.0, 4.0, 3.0, 2.0, 1.0), 0.998),
            Product((0, 1), (10.0, 1.0), 0.997),
            Product((2, 3), (1.0, 5.0), 0.997),
            Product((3, 4), (40.0, 50.0), 0.997),
            Total((3, 4), (10.0, 10.0), 0.999),
        ),
    )


def two_assets(tendered: float) -> Problem:
    """cfmm-routing-code, two-asset.py: the first token into the third."""
    return Problem(
        (0.0, 0.0, 1.0),
        (tendered, 0.0, 0.0),
        (
            Weighted((0, 1, 2), (3.0, 0.2, 1.0), (3.0, 2.0, 1.0), 0.98),
            Product((0, 1), (10.0, 1.0), 0.99),
            Product((1, 2), (1.0, 10.0), 0.96),
            Product((0, 2), (20.0, 50.0), 0.97),
            Total((0, 2), (10.0, 10.0), 0.99),
        ),
    )


def network(pools: int, tokens: int, seed: int, kinds: int = 2) -> Problem:
    """Return an arbitrage problem over seeded pools: products, and weighted ones if two kinds.

    The generator of arXiv 2404.00765: reserves in [100, 200], weights (0.8, 0.2), fee 0.3 %.
    """
    chance = np.random.default_rng(seed)
    made: list[Pool] = []
    for place in range(pools):
        first, second = map(int, chance.choice(tokens, 2, replace=False))
        one, two = map(float, chance.uniform(100, 200, 2))
        if place % kinds:
            made.append(Weighted((first, second), (one, two), (0.8, 0.2), 0.997))
        else:
            made.append(Product((first, second), (one, two), 0.997))
    return arbitrage(tuple(map(float, chance.uniform(0.5, 1.5, tokens))), tuple(made))


def bridged(seed: int) -> Problem:
    """Return a swap over two to four chains of three to five tokens, joined by bridges."""
    chance = np.random.default_rng(seed)
    chains, kinds = int(chance.integers(2, 5)), int(chance.integers(3, 6))
    tokens = chains * kinds
    made: list[Pool] = []
    for place in range(int(chance.integers(8, 30))):
        base = int(chance.integers(chains)) * kinds
        first, second = (base + int(slot) for slot in chance.choice(kinds, 2, replace=False))
        one = float(chance.uniform(100, 200))
        two = one * float(chance.uniform(0.8, 1.25))
        if place % 2:
            made.append(Weighted((first, second), (4 * one, two), (0.8, 0.2), 0.997))
        else:
            made.append(Product((first, second), (one, two), 0.997))
    for _ in range(int(chance.integers(4, 16))):
        origin, other = map(int, chance.choice(chains, 2, replace=False))
        kind = int(chance.integers(kinds))
        made.append(
            Bridge(
                (origin * kinds + kind, other * kinds + kind),
                float(chance.uniform(0.995, 1.0)),
                float(chance.uniform(10, 50)),
                float(chance.uniform(300, 5000)),
                int(chance.integers(-1, 2)),
            )
        )
    made.append(Bridge((0, kinds), 0.99, 100.0, 4000.0, 0))
    made.append(Product((kinds, tokens - 1), (150.0, 150.0), 0.997))
    worth, held = [0.0] * tokens, [0.0] * tokens
    worth[tokens - 1], held[0] = 1.0, 20.0
    return Problem(tuple(worth), tuple(held), tuple(made), (15.0, 12.0))


def lane(number: int, **changes: object) -> Lane:
    """Return a lane from home to away, 0.05 % and a minute, with some fields changed."""
    fields: dict[str, object] = {
        "bridge": bytes([number]) * 20,
        "origin": HOME,
        "destination": AWAY,
        "asset": USDC,
        "fee_fixed": 0,
        "fee_ppm": 500,
        "p50_ms": 30_000,
        "p95_ms": 60_000,
        "capacity": 10**12,
        "security": BridgeClass.BONDED,
        "verifier": bytes([number]) * 32,
    }
    return Lane(**{**fields, **changes})  # type: ignore[arg-type]  # a test's shorthand


def small_graph() -> Graph:
    """Return two chains, three pools and four lanes, one of them cursed."""
    return Graph(
        (
            Swap(HOME, b"\x11" * 20, (USDC, WETH), (10**13, 5 * 10**21), 3000),
            Swap(AWAY, b"\x12" * 20, (USDC, WETH), (2 * 10**12, 10**21), 3000),
            Swap(AWAY, b"\x13" * 20, (USDC, WETH), (10**12, 125 * 10**18), 3000, (8, 2)),
        ),
        (
            lane(1, fee_ppm=100, fee_fixed=10**6, p95_ms=900_000),
            lane(2, capacity=2 * 10**11),
            lane(3, fee_ppm=400, fee_fixed=10**5, p95_ms=30_000, capacity=10**11),
            lane(4, fee_ppm=1, cursed=True),
        ),
    )


def tick_book(seed: int, ranges: int = 6, spacing: int = 10) -> TickBook:
    """Return a pool near price one with liquidity everywhere and seeded ranges on top."""
    chance = np.random.default_rng(seed)
    edge = 887_272 // spacing * spacing
    nets = {-edge: 10**22, edge: -(10**22)}
    price = sqrt_ratio(0) + 10**8 * int(chance.integers(10**18))
    tick, liquidity = tick_at(price), 10**22
    for _ in range(ranges):
        middle, half = int(chance.integers(-300, 300)), int(chance.integers(1, 200))
        amount = int(chance.integers(1, 1000)) * 10**20
        low, high = (middle - half) * spacing, (middle + half) * spacing
        nets[low] = nets.get(low, 0) + amount
        nets[high] = nets.get(high, 0) - amount
        liquidity += amount if low <= tick < high else 0
    crossings = tuple(sorted((tick, net) for tick, net in nets.items() if net))
    word = edge // spacing // 256
    return TickBook(spacing, 500, price, tick, liquidity, crossings, -word - 1, word)


def tick_swap(number: int, seed: int) -> TickSwap:
    """Return a pool of USDC and WETH on the home chain."""
    return TickSwap(HOME, bytes([number]) * 20, (USDC, WETH), tick_book(seed))
