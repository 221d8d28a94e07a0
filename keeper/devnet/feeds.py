"""Keeps the devnet's price feeds fresh, and moves them: by a shock, or along a recorded series.

every `FRESH_S`: set_answer(price) on every feed      shock: the next answer is lower
"""

import csv
import lzma
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import trio

from keeper.contracts import encode_call
from keeper.devnet.cluster import Cluster
from keeper.devnet.control import take_wishes
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError
from keeper.units import PPM, symbol_text

FRESH_S = 15.0
"""How often an unchanged price is published again; keepers take none older than two minutes."""


class Feeds:
    """Owns the deployer's wallets while it runs."""

    def __init__(self, cluster: Cluster, prices: dict[str, int]) -> None:
        self.cluster, self.prices = cluster, dict(prices)
        self._moved = trio.Event()
        self._lock = trio.Lock()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self.publish()
            with trio.move_on_after(FRESH_S):
                await self._moved.wait()
            self._moved = trio.Event()

    async def obey(self, folder: Path) -> None:
        """Publish, and take up wishes that other commands leave in a directory, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            while True:
                for market, price in take_wishes(folder).items():
                    if market in self.prices:
                        await self.set(market, price)
                await trio.sleep(0.5)

    async def publish(self) -> None:
        """Publish every price now and wait until it is mined."""
        async with self._lock:
            for chain in self.cluster.spec.chains:
                sends = [
                    Send(
                        feed.address,
                        encode_call("DevFeed", "set_answer", self.prices[symbol_text(feed.market)]),
                        gas=200_000,
                    )
                    for feed in chain.feeds
                ]
                if sends:
                    await self.cluster.wallets[chain.id].send(*sends)

    async def move(self, market: str, change_ppm: int) -> int:
        """Move one price by a share of itself, publish it, and return it."""
        self.prices[market] = self.prices[market] * (PPM + change_ppm) // PPM
        await self.publish()
        return self.prices[market]

    async def set(self, market: str, price_e8: int) -> None:
        """Set and publish one price."""
        self.prices[market] = price_e8
        await self.publish()


def read_series(path: Path) -> list[int]:
    """Return prices in 10**-8 USD from a CSV with a `price` or `close` column, .xz or plain.

    Raises:
        ConfigError: the file cannot be read or has no such column.
    """
    try:
        raw = path.read_bytes()
        text = (lzma.decompress(raw) if path.suffix == ".xz" else raw).decode()
        return list(_prices(csv.DictReader(text.splitlines()), path))
    except (OSError, UnicodeDecodeError, lzma.LZMAError) as error:
        raise ConfigError(f"cannot read the prices: {error}", where=str(path)) from error


_COLUMNS: Sequence[str] = ("price", "close", "indexPrice")


def _prices(rows: "csv.DictReader[str]", path: Path) -> Iterator[int]:
    column = next((name for name in _COLUMNS if name in (rows.fieldnames or ())), None)
    ticks = next((name for name in rows.fieldnames or () if name == "closeTick"), None)
    if column is None and ticks is None:
        raise ConfigError(
            f"no price column among {', '.join(rows.fieldnames or ())}",
            where=str(path),
            remedy=f"name one of {', '.join((*_COLUMNS, 'closeTick'))}",
        )
    for row in rows:
        try:
            if column is not None:
                value = Decimal(row[column])
            else:
                value = Decimal("1.0001") ** -int(Decimal(row["closeTick"])) * 10**12
        except (InvalidOperation, ValueError):
            continue
        yield int(value * 10**8)


def markets_of(cluster: Cluster) -> dict[str, int]:
    """Return the first prices of a fresh devnet, by symbol."""
    names = {symbol_text(feed.market) for chain in cluster.spec.chains for feed in chain.feeds}
    first = {"ETH-USD": 3_000 * 10**8, "USDC": 10**8}
    assert names <= first.keys(), f"a market without a first price: {names - first.keys()}"
    return {name: first[name] for name in sorted(names)}
