"""Books of accounts for the benches: six legs each on two chains, a few near their limit."""

import random
from array import array

import numpy as np

from keeper.hashing import keccak
from keeper.legs import LegKind
from keeper.margin.book import Book
from keeper.margin.marks import Marks
from keeper.parameters import Parameters
from keeper.units import ChainId, symbol

CHAINS = (ChainId(31337), ChainId(31338))
VENUES = (b"\x01" * 20, b"\x02" * 20)
PRICES = {
    symbol("USDC"): 100_000_000,
    symbol("WETH"): 2_000_00000000,
    symbol("ETH-USD"): 2_000_00000000,
    symbol("BTC-USD"): 60_000_00000000,
    symbol("SOL-USD"): 150_00000000,
}
MARKETS = ("ETH-USD", "BTC-USD", "SOL-USD")
LEGS = 6


def marks(scale_ppm: int = 1_000_000) -> Marks:
    """Return a tick; all prices but the stable asset's are scaled."""
    stable = symbol("USDC")
    prices = {k: v if k == stable else v * scale_ppm // 1_000_000 for k, v in PRICES.items()}
    funding = {(c, v, symbol(m)): 5 for c, v in zip(CHAINS, VENUES, strict=True) for m in MARKETS}
    margin = Parameters.devnet(CHAINS).margin
    return Marks(prices, funding, margin, dict.fromkeys(CHAINS, 5))


def book(count: int, seed: int = 1) -> Book:
    """Return a book: per chain one collateral; four perps over both; leverage mostly 1 to 5."""
    draw = np.random.default_rng(seed)
    coins = [
        (int(LegKind.COLLATERAL), c, v, symbol("USDC")) for c, v in zip(CHAINS, VENUES, strict=True)
    ]
    perps = [
        (int(LegKind.PERP), c, v, symbol(m))
        for c, v in zip(CHAINS, VENUES, strict=True)
        for m in MARKETS
    ]
    keys = sorted(coins + perps)
    at = {key: i for i, key in enumerate(keys)}
    notional = np.exp(draw.normal(9.0, 1.3, (count, 4)))  # dollars per position
    long = draw.random((count, 4)) < 0.55
    market = draw.integers(0, 3, (count, 4))
    prices = np.array([PRICES[symbol(m)] / 1e8 for m in MARKETS])[market]
    size = (notional / prices * 1e8).astype(np.int64) * np.where(long, 1, -1)
    entry = prices * (1 + draw.normal(0, 0.01, (count, 4)))
    quote = (-size / 1e8 * entry * 1e6).astype(np.int64)
    margin = notional.sum(axis=1) / np.clip(draw.lognormal(1.1, 0.6, count), 0.3, 12.0)
    part = draw.random(count)
    coin = np.stack([margin * part, margin * (1 - part)], axis=1) * 1e6
    columns = np.zeros((4, count, LEGS), np.int64)
    first, second = (at[key] for key in coins)
    venue = np.array([0, 0, 1, 1])
    perp_at = np.array([[at[perps[v * 3 + m]] for m in range(3)] for v in range(2)])
    columns[0, :, 0], columns[0, :, 1] = first, second
    # the two positions of one venue are in two different markets
    market[:, 1] = np.where(market[:, 1] == market[:, 0], (market[:, 0] + 1) % 3, market[:, 1])
    market[:, 3] = np.where(market[:, 3] == market[:, 2], (market[:, 2] + 1) % 3, market[:, 3])
    prices = np.array([PRICES[symbol(m)] / 1e8 for m in MARKETS])[market]
    size = (notional / prices * 1e8).astype(np.int64) * np.where(long, 1, -1)
    quote = (-size / 1e8 * prices * (1 + draw.normal(0, 0.01, (count, 4))) * 1e6).astype(np.int64)
    columns[0, :, 2:] = perp_at[venue, market]
    columns[1, :, :2], columns[1, :, 2:], columns[2, :, 2:] = coin.astype(np.int64), size, quote
    flat = [array("q", column.tobytes()) for column in columns]
    ids = b"".join(keccak(i.to_bytes(8, "big")) for i in range(count))
    hashes = random.Random(seed).randbytes(32 * count)
    return Book(
        keys=[(k, c, v, m) for k, c, v, m in keys],
        scales=[1] * len(keys),
        accounts=bytearray(ids),
        hashes=bytearray(hashes),
        seqs=array("q", np.ones(count, np.int64).tobytes()),
        flags=array("q", np.zeros(count, np.int64).tobytes()),
        starts=array("q", np.arange(0, LEGS * count + 1, LEGS, dtype=np.int64).tobytes()),
        key=flat[0],
        size=flat[1],
        quote=flat[2],
        funding=flat[3],
    )
