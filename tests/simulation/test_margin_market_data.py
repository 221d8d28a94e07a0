"""Real markets: λ with J covers the worst path of crash days, a √time-only rule does not; books of
thousands of positions under −30 % keep every unit accounted for.
"""

import csv
import lzma
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from keeper.hashing import keccak
from keeper.margin.adl import absorb
from keeper.margin.latency import latency_haircut
from keeper.parameters import Parameters
from keeper.units import PPM, symbol
from tests.support.shared import shared_path

MARGIN = Parameters.devnet().margin
ETH = MARGIN.underlying_of[symbol("ETH")]
GMX = ("2025-11-11", "2025-12-11", "2025-12-15")
Bar = tuple[float, float, float]
"""(low, high, close) of a minute."""


def rows(name: str) -> Iterator[dict[str, str]]:
    with lzma.open(shared_path(f"data/{name}.csv.xz"), "rt") as file:
        yield from csv.DictReader(file)


def crash_day() -> list[Bar]:
    """Return ETH on 17 August 2023, where it fell from 1,807 to 1,595 in minutes."""

    def price(tick: str) -> float:
        return float(1.0001 ** -float(tick)) * 1e12

    found = rows("univ3-usdc-weth-polygon-2023-08-17.minute")
    return [
        (price(r["highestTick"]), price(r["lowestTick"]), price(r["closeTick"]))
        for r in found
        if r["closeTick"]
    ]


def gmx_day(day: str) -> list[Bar]:
    prices = [float(r["indexPrice"]) for r in rows(f"gmxv2-eth-usd-arbitrum-{day}.minute")]
    return [(min(a, b), max(a, b), b) for a, b in pairwise([prices[0], *prices])]


def worst_path_ppm(bars: list[Bar], minutes: int) -> int:
    """Return the largest move against a position from any close to any price within the time."""
    worst = 0.0
    for at, (_, _, close) in enumerate(bars[:-1]):
        ahead = bars[at + 1 : at + 1 + minutes]
        worst = max(worst, 1 - min(b[0] for b in ahead) / close)
        worst = max(worst, max(b[1] for b in ahead) / close - 1)
    return int(worst * PPM)


def haircut(minutes: int, jumps: bool = True) -> int:
    underlying = ETH if jumps else replace(ETH, jump_ppm=(0,) * len(ETH.jump_ppm))
    return latency_haircut(MARGIN.latency, underlying, 60 * minutes)


@pytest.mark.parametrize("minutes", [1, 5, 20, 60])
@pytest.mark.parametrize("day", ["2023-08-17", *GMX])
def test_the_haircut_covers_the_worst_path_of_every_day(day: str, minutes: int) -> None:
    bars = crash_day() if day == "2023-08-17" else gmx_day(day)
    assert len(bars) == 1_440
    worst = worst_path_ppm(bars, minutes)
    assert 0 < worst <= haircut(minutes), f"{worst} ppm over {haircut(minutes)}"


@pytest.mark.parametrize("minutes", [5, 20])
def test_the_root_of_time_alone_fails_on_the_crash(minutes: int) -> None:
    worst = worst_path_ppm(crash_day(), minutes)
    assert worst > 50_000  # the crash is in the data
    assert haircut(minutes, jumps=False) < worst


def test_even_a_larger_factor_fails_without_jumps() -> None:
    flat = replace(ETH, jump_ppm=(0,) * len(ETH.jump_ppm))
    eight = latency_haircut(replace(MARGIN.latency, k=8), flat, 300)
    assert eight < worst_path_ppm(crash_day(), 5)


def test_an_hour_of_bitcoin_never_exceeded_its_bucket() -> None:
    bars = [
        (float(r["low"]), float(r["high"]), float(r["open"])) for r in rows("btc_coinbase_1h_2024")
    ]
    worst = max(max(1 - low / start, high / start - 1) for low, high, start in bars)
    btc = MARGIN.underlying_of[symbol("BTC")]
    assert len(bars) > 6_000
    assert int(worst * PPM) <= latency_haircut(MARGIN.latency, btc, 3_600)


def test_slow_bridges_are_beyond_every_bucket() -> None:
    """Real transfers: what takes as long as the slowest percent has no value as margin."""
    times = sorted(int(r["time_difference"]) for r in rows("nomad_cctxs_withdrawals"))
    assert len(times) == 4_482
    slow = times[len(times) * 99 // 100]
    assert slow > 86_400
    assert latency_haircut(MARGIN.latency, ETH, slow) == PPM
    assert 0 < latency_haircut(MARGIN.latency, ETH, times[len(times) // 2]) < PPM


class Desk:
    """A zero-sum market: every account settles in whole µUSD and the venue takes the other side."""

    def __init__(self, seed: int, positions: int, sides: tuple[int, ...]) -> None:
        draw = random.Random(seed)
        self.price = 2_000 * 10**8
        self.cash: dict[bytes, int] = {b"insurance": 2_000_000 * PPM, b"venue": 0, b"keeper": 0}
        self.size: dict[bytes, int] = {}
        for i in range(positions):
            account = keccak(f"{seed}/{i}".encode())
            size = int(10**8 * 10 ** draw.uniform(-2, 2.5)) * draw.choice(sides)
            notional = abs(size) * self.price // 10**10
            self.cash[account] = notional * PPM // draw.randrange(2 * PPM, 20 * PPM)
            self.size[account] = size
        self.deposits = sum(self.cash.values())

    def pnl(self, account: bytes, price: int) -> int:
        return self.size[account] * (price - self.price) // 10**10

    def move(self, to: bytes, amount: int) -> None:
        self.cash[to] += amount
        self.cash[b"venue"] -= amount


@pytest.mark.parametrize(("seed", "sides"), [(1, (1, -1)), (2, (1, -1, -1)), (3, (1, 1, -1))])
def test_a_book_under_minus_thirty_percent_accounts_for_every_unit(
    seed: int, sides: tuple[int, ...]
) -> None:
    desk, bonus = Desk(seed, 13_000, sides), 5_000
    crashed = desk.price * 70 // 100
    bad_debt = 0
    sick = [a for a in sorted(desk.size) if desk.cash[a] + desk.pnl(a, crashed) <= 0]
    assert len(sick) > 1_000
    for account in sick:  # close whole: realise, pay the keeper from what is left, book the rest
        desk.move(account, desk.pnl(account, crashed))
        left = desk.cash[account]
        fee = max(0, min(left, abs(desk.size[account]) * crashed // 10**10 * bonus // PPM))
        desk.cash[account] -= fee
        desk.cash[b"keeper"] += fee
        bad_debt += max(0, -left)
        if left < 0:
            desk.cash[account] = 0
        del desk.size[account]
    assert sum(desk.cash.values()) == desk.deposits + bad_debt  # the hole is exactly the bad debt

    profits = {a: desk.pnl(a, crashed) for a in desk.size}
    done = absorb(bad_debt, desk.cash[b"insurance"], profits)
    desk.cash[b"insurance"] -= done.insurance
    for account, share in done.shares:
        desk.move(account, profits[account])
        desk.cash[account] -= share
        del desk.size[account]
    shared = sum(share for _, share in done.shares)
    assert bad_debt > 2_000_000 * PPM
    assert done.uncovered == bad_debt - done.insurance - shared
    assert (done.uncovered > 0) == (sides == (1, 1, -1))  # winners too few for so many losers
    desk.cash[b"venue"] -= done.uncovered  # the venue's own account is the other side of the rest
    assert sum(desk.cash.values()) == desk.deposits
    for account in sorted(desk.size):
        desk.move(account, desk.pnl(account, crashed))
    assert sum(desk.cash.values()) == desk.deposits
    assert min(balance for a, balance in desk.cash.items() if a != b"venue") >= 0
