"""Routing: the dual router against Clarabel on the same problems, and the rebalancing programme.

CPU time of one thread, best of three; building the columns of a market is not counted for either.
Mixes of 10,000 pools over 200 tokens: products with reserves of 1 to 1000 and half of them without
a fee; half products, half weighted 80:20; and Uniswap v3 pools of five ranges each.
"""

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TypeVar

import numpy as np

from keeper.parameters import BridgeClass
from keeper.route.bound import certify, check_bound
from keeper.route.cfmm import GAP, market_of, solve_dual
from keeper.route.conic import solve_conic
from keeper.route.graph import Lane
from keeper.route.pools import (
    Concentrated,
    Pool,
    Problem,
    Product,
    Range,
    Weighted,
    arbitrage,
)
from keeper.route.rebalance import Task, rebalance
from keeper.route.risk import hazards_of, scenarios
from keeper.units import ChainId, symbol
from scripts.benches._figure import at_least, at_most, figure

T = TypeVar("T")


def cpu(run: Callable[[], T], times: int = 3) -> tuple[float, T]:
    """Return the least CPU seconds of some runs, and the answer."""
    best, answer = float("inf"), None
    for _ in range(times):
        start = time.process_time()
        answer = run()
        best = min(best, time.process_time() - start)
    assert answer is not None
    return best, answer


def network(pools: int, tokens: int, weighted: bool, seed: int = 1) -> Problem:
    """Return products as CFMMRouter.jl's bench makes them, or half products, half weighted."""
    chance = np.random.default_rng(seed)
    made: list[Pool] = []
    for place in range(pools):
        first, second = map(int, chance.choice(tokens, 2, replace=False))
        low, high = (100, 200) if weighted else (1, 1000)
        reserves = (float(chance.uniform(low, high)), float(chance.uniform(low, high)))
        gamma = 0.997 if weighted or chance.integers(2) else 1.0
        if weighted and place % 2:
            made.append(Weighted((first, second), reserves, (0.8, 0.2), gamma))
        else:
            made.append(Product((first, second), reserves, gamma))
    return arbitrage(tuple(map(float, chance.uniform(0.1, 1.0, tokens))), tuple(made))


def ticked(pools: int, tokens: int, seed: int = 1) -> Problem:
    """Return Uniswap v3 pools of five ranges each, near the prices of their tokens."""
    chance = np.random.default_rng(seed)
    worth = chance.uniform(0.1, 1.0, tokens)
    made: list[Pool] = []
    for _ in range(pools):
        first, second = map(int, chance.choice(tokens, 2, replace=False))
        price = float(worth[first] / worth[second] * chance.uniform(0.9, 1.1))
        edges = price * np.cumprod([0.8, *chance.uniform(1.02, 1.15, 5)])
        ranges = tuple(
            Range(float(low), float(high), float(chance.uniform(100, 2000)))
            for low, high in pairwise(edges)
        )
        made.append(Concentrated((first, second), price, ranges, 0.997))
    return arbitrage(tuple(map(float, worth)), tuple(made))


def lanes(chains: int, bridges: int, seed: int) -> tuple[tuple[Lane, ...], Task]:
    """Return a seeded bridge network and a task: half of the chains have, half need."""
    chance = np.random.default_rng(seed)
    kinds = list(BridgeClass)
    made = []
    for bridge in range(bridges):
        kind = kinds[bridge % len(kinds)]
        slow = (7_200_000, 1_800_000, 300_000, 60_000)[kind]
        for origin in range(chains):
            for other in range(chains):
                if origin == other or chance.random() > 0.6:
                    continue
                late = int(slow * chance.uniform(0.5, 1.5))
                made.append(
                    Lane(
                        bytes([bridge + 1]) * 20,
                        ChainId(origin + 1),
                        ChainId(other + 1),
                        symbol("USDC"),
                        int(chance.integers(1, 30)) * 10**6,
                        int(chance.integers(10, 1500)),
                        late // 2,
                        late,
                        int(chance.integers(50, 800)) * 10**9,
                        kind,
                        bytes([bridge % 5 + 1]) * 32,
                    )
                )
    half = chains // 2
    need = tuple(
        (ChainId(half + at + 1), int(chance.integers(100, 400)) * 10**9)
        for at in range(chains - half)
    )
    total = sum(amount for _, amount in need)
    surplus = tuple((ChainId(at + 1), total * 3 // (2 * half)) for at in range(half))
    gas = tuple((ChainId(at + 1), int(chance.integers(1, 40)) * 10**6) for at in range(chains))
    exposure = tuple((bytes([at + 1]) * 32, total * 2 // 3) for at in range(min(bridges, 5)))
    cases = scenarios(hazards_of(made))
    task = Task(surplus, need, 10_000_000, gas, exposure, cases, 950_000, total // 2, 50_000)
    return tuple(made), task


def pools() -> None:
    """Time, gap and ratio of the pool routers."""
    mixes = {
        "product": network(10_000, 200, False),
        "mixed": network(10_000, 200, True),
        "ticks": ticked(10_000, 200),
    }
    for kind, made in mixes.items():
        market = market_of(made)
        spent, found = cpu(partial(solve_dual, market))
        at_most(f"route.dual.{kind}.10000", spent * 1e3, "ms", 15.0)
        at_most(f"route.dual.{kind}.10000.gap", abs(found.gap) * 1e9, "ppb", GAP * 1e9)
        figure(f"route.dual.{kind}.10000.shortfall", found.shortfall * 1e9, "ppb")
    market = market_of(network(4_642, 136, True))
    mine, first = cpu(partial(solve_dual, market))
    theirs, second = cpu(partial(solve_conic, market), 1)
    figure("route.dual.mixed.4642", mine * 1e3, "ms")
    figure("route.clarabel.mixed.4642", theirs * 1e3, "ms")
    at_least("route.dual_over_clarabel.4642", theirs / mine, "x", 20.0)
    apart = abs(first.value - second.value) / abs(second.value)
    at_most("route.dual_against_clarabel.4642", apart * 1e9, "ppb", 1000)
    problem = network(4_642, 136, True)
    found = solve_dual(market_of(problem))
    sealed = certify(problem, found, int(found.value))
    spent, fault = cpu(partial(lambda: (check_bound(problem, sealed),)))
    figure("route.check.4642", spent * 1e3, "ms", "", fault == (None,))


def moves() -> None:
    """Time of the rebalancing programme, median and worst of some seeds."""
    for chains, bridges, limit in ((4, 4, 1.0), (8, 6, 1.0), (16, 8, 4.0)):
        times, optimal = [], 0
        for seed in range(5):
            offered, task = lanes(chains, bridges, seed)
            spent, found = cpu(partial(rebalance, offered, task), 1)
            times.append(spent)
            optimal += found.status == "optimal"
        name = f"route.milp.{chains}x{bridges}"
        at_most(f"{name}.median", sorted(times)[2], "s", limit)
        at_most(f"{name}.worst", max(times), "s", limit)
        figure(f"{name}.optimal", optimal, "of 5", "== 5", optimal == 5)


def main() -> None:
    """Print every figure."""
    pools()
    moves()


if __name__ == "__main__":
    main()
