"""Makes records out of published price series, so a backtest needs no node of one's own.

    univ3  timestamp, openTick, lowestTick, highestTick, closeTick   price = 1.0001**-tick · 10**12
    gmx    timestamp, indexPrice                                     per minute
    ohlc   date, unix, low, high, open, close                        per hour

A period's path is open → low → high → close at its quarters, straight in between: the flash crash
inside a minute is kept. Accounts are drawn from a seed: perp longs and shorts, and lenders, each
opened at the first price with a leverage that some move in the series can break. Nothing is read
but the named file.
"""

import csv
import lzma
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TextIO, cast

from keeper.units import symbol
from policies.api import (
    COLLATERAL,
    DEBT,
    PERP,
    Account,
    Depth,
    Gas,
    Holding,
    Leg,
    MarketView,
    Price,
    Task,
    Term,
    Wide,
    pack_legs,
)
from policies.record import Book, Market, RecordWriter

PRICE_UNIT = 10**8
ETH, USDC = symbol("ETH-USD"), symbol("USDC")
CHAIN = 137
PERPS, POOL, DEX = b"\x01" * 20, b"\x02" * 20, b"\x03" * 20
PERP_TERM = Term(ETH, 20_000, 50_000)
LENDING_TERM = Term(ETH, 50_000, 825_000)


@dataclass(frozen=True, slots=True)
class Bar:
    """One period of a series; prices in 10**-8 USD."""

    at_ms: int
    open: int
    low: int
    high: int
    close: int


def _open(path: Path) -> TextIO:
    if path.suffix == ".xz":
        return cast(TextIO, lzma.open(path, "rt", encoding="utf-8", newline=""))
    return path.open(encoding="utf-8", newline="")


def _tick_price(tick: str) -> int:
    with localcontext() as context:
        context.prec = 40
        return int(Decimal("1.0001") ** -int(tick) * 10**12 * PRICE_UNIT)


def _price(text: str) -> int:
    return int(Decimal(text) * PRICE_UNIT)


def _ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000


def bars_of(path: Path) -> Iterator[Bar]:
    """Yield the bars of a series file, whichever of the three forms it has.

    Raises:
        ValueError: its columns are of none of them.
    """
    with _open(path) as file:
        rows = csv.DictReader(file)
        columns = set(rows.fieldnames or ())
        last = 0
        for row in rows:
            if "closeTick" in columns:
                # A higher tick is a lower price of ETH in USDC.
                yield Bar(
                    _ms(row["timestamp"]),
                    _tick_price(row["openTick"]),
                    _tick_price(row["highestTick"]),
                    _tick_price(row["lowestTick"]),
                    _tick_price(row["closeTick"]),
                )
            elif "indexPrice" in columns:
                price = _price(row["indexPrice"])
                start = last or price
                yield Bar(_ms(row["timestamp"]), start, min(start, price), max(start, price), price)
                last = price
            elif {"unix", "low", "high", "open", "close"} <= columns:
                yield Bar(
                    int(row["unix"]) * 1000,
                    _price(row["open"]),
                    _price(row["low"]),
                    _price(row["high"]),
                    _price(row["close"]),
                )
            else:
                raise ValueError(f"{path}: knows neither ticks, index prices nor open/high/low")


def path_of(bars: list[Bar], step_ms: int) -> Iterator[tuple[int, int]]:
    """Yield (time, price) every `step_ms` along the bars."""
    for index, bar in enumerate(bars):
        end = bars[index + 1].at_ms if index + 1 < len(bars) else 2 * bar.at_ms - bars[-2].at_ms
        length = end - bar.at_ms
        corners = (bar.open, bar.low, bar.high, bar.close)
        for offset in range(0, length, step_ms):
            place = offset * 3
            part = min(2, place // length)
            left, right = corners[part], corners[part + 1]
            yield bar.at_ms + offset, left + (right - left) * (place - part * length) // length


def book_of(price: int, at_ms: int, accounts: int, seed: int) -> MarketView:
    """Return accounts opened at a price: half perps, half lenders, at leverage that may break."""
    chance = random.Random(seed)
    rows = []
    for _ in range(accounts):
        owner = chance.randbytes(32)
        size = chance.randrange(5, 500) * 10**17
        worth = size * price // 10**20
        if chance.random() < 0.5:
            # Requirement 5 %: collateral of 6 to 60 % of the notional is 1 to 55 % from the edge.
            side = 1 if chance.random() < 0.7 else -1
            cash = worth * chance.randrange(60_000, 600_000) // 1_000_000
            legs = [
                Leg(CHAIN, PERPS, ETH, PERP, side * size, -side * worth, 0),
                Leg(CHAIN, PERPS, USDC, COLLATERAL, cash, 0, 0),
            ]
        else:
            # Threshold 82.5 %: a debt of 40 to 80 % of the collateral breaks at 3 to 52 % down.
            debt = worth * chance.randrange(400_000, 800_000) // 1_000_000
            legs = [
                Leg(CHAIN, POOL, ETH, COLLATERAL, size, 0, 0),
                Leg(CHAIN, POOL, USDC, DEBT, debt, 0, 0),
            ]
        rows.append(Account(owner, 0, 0, 0, 0, 0, pack_legs(legs)))
    depth = tuple(
        (Wide(size * 10**18), impact)
        for size, impact in ((10, 3_500), (50, 6_000), (200, 15_000), (800, 50_000))
    )
    return MarketView(
        0,
        at_ms,
        seed,
        tuple(rows),
        (Price(ETH, price, 18, 0), Price(USDC, PRICE_UNIT, 6, 0)),
        (Depth(CHAIN, DEX, ETH, depth),),
        (Gas(CHAIN, 30 * 10**9, PRICE_UNIT),),
        (Holding(CHAIN, USDC, Wide(2_000_000 * 10**6)),),
        (
            Task(b"", b"", CHAIN, PERPS, ETH, Wide(2**100), (PERP_TERM,), 0, 0, 400_000),
            Task(
                b"", b"", CHAIN, POOL, USDC, Wide(2**100), (LENDING_TERM,), 0, 0, 450_000,
                close_ppm=500_000,
            ),
        ),
        bond_free=10**12,
    )  # fmt: skip


def convert(series: Path, out: Path, accounts: int, seed: int, step_ms: int) -> int:
    """Write the record of a series and return how many ticks it has.

    Raises:
        ValueError: the series has too few rows, or an unknown form.
    """
    bars = list(bars_of(series))
    if len(bars) < 2:
        raise ValueError(f"{series}: needs at least two rows, has {len(bars)}")
    out.unlink(missing_ok=True)
    count = 0
    head = {"series": series.name, "accounts": accounts, "seed": seed, "step_ms": step_ms}
    with RecordWriter(out, head) as record:
        record.append(Book(book_of(bars[0].open, bars[0].at_ms, accounts, seed)))
        for at_ms, price in path_of(bars, step_ms):
            record.append(Market(at_ms, ((ETH, price), (USDC, PRICE_UNIT))))
            count += 1
    return count
