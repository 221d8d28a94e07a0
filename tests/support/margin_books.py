"""Random accounts and parameters, extremes and sign changes included."""

import random
from dataclasses import replace

from keeper.hashing import keccak
from keeper.legs import Leg, LegKind
from keeper.margin.marks import Marks
from keeper.parameters import (
    BridgeClass,
    ChainParameters,
    LatencyParameters,
    MarginParameters,
    Parameters,
    VenueParameters,
)
from keeper.units import ChainId, symbol

CHAINS = tuple(ChainId(c) for c in (1, 10, 42161, 31337))
VENUES = tuple(bytes([n]) * 20 for n in (1, 2, 3))
ASSETS = ("USDC", "WETH", "WBTC")
MARKETS = ("ETH-USD", "BTC-USD", "SOL-USD")
PRICES = {
    symbol("USDC"): 99_990_000,
    symbol("WETH"): 1_807_12345678,
    symbol("WBTC"): 61_234_56789012,
    symbol("ETH-USD"): 1_806_98765432,
    symbol("BTC-USD"): 61_230_12345678,
    symbol("SOL-USD"): 147_65432109,
}
AGES = dict(zip(CHAINS, (3, 50, 400, 2_000), strict=True))


def parameters(local: bool = True) -> MarginParameters:
    """Return devnet parameters over four chains of four bridge classes."""
    base = Parameters.devnet(CHAINS).margin
    chains = tuple(
        ChainParameters(chain, 2, 10 * (i + 1), 5, BridgeClass(i)) for i, chain in enumerate(CHAINS)
    )
    venues = (VenueParameters(CHAINS[1], VENUES[2], 800_000),) if local else ()
    latency = LatencyParameters((60, 300, 1_200, 3_600, 14_400, 86_400), 5)
    return replace(base, chains=chains, venues=venues, latency=latency)


def funding(draw: random.Random) -> dict[tuple[ChainId, bytes, bytes], int]:
    """Return an index per market of every venue."""
    return {
        (chain, venue, symbol(market)): draw.randrange(-(10**12), 10**12)
        for chain in CHAINS
        for venue in VENUES
        for market in MARKETS
    }


def marks(seed: int = 1, local: bool = True) -> Marks:
    """Return a tick."""
    return Marks(PRICES, funding(random.Random(seed)), parameters(local), AGES)


def leg(draw: random.Random, chain: ChainId, venue: bytes, extreme: float) -> Leg:
    """Return a random leg; with probability `extreme` its numbers are at the edges."""
    kind = draw.choice([LegKind.COLLATERAL, LegKind.DEBT, LegKind.PERP, LegKind.PERP])
    edges = [0, 1, 2, 10**8 - 1, 2**31, 2**53, 2**62 - 1, 2**62, 2**63, 2**80, 10**27]
    wild = draw.random() < extreme
    if kind == LegKind.PERP:
        size = draw.choice(edges) if wild else draw.randrange(10**5, 10**11)
        size *= draw.choice([1, -1])
        quote = draw.choice(edges) if wild else draw.randrange(10**11)
        paid = draw.choice(edges) if wild else draw.randrange(10**12)
        market = symbol(draw.choice(MARKETS))
        return Leg(chain, venue, market, kind, size, -quote if size > 0 else quote, paid)
    name = draw.choice(ASSETS)
    unit = {"USDC": 10**6, "WETH": 10**18, "WBTC": 10**8}[name]
    size = draw.choice(edges) if wild else draw.randrange(1 + unit * draw.choice([1, 30, 1_000]))
    return Leg(chain, venue, symbol(name), kind, size)


def account_legs(draw: random.Random, most: int = 12, extreme: float = 0.05) -> list[Leg]:
    """Return up to `most` legs with distinct keys; mostly solvent."""
    found: dict[tuple[int, bytes, bytes, int], Leg] = {}
    for _ in range(draw.randrange(most + 1)):
        one = leg(draw, draw.choice(CHAINS), draw.choice(VENUES), extreme)
        found[one.key] = one
    return sorted(found.values(), key=lambda one: one.key)


def accounts(
    count: int, seed: int = 1, extreme: float = 0.05
) -> list[tuple[bytes, int, int, list[Leg]]]:
    """Return rows for `book.build`."""
    draw = random.Random(seed)
    return [
        (keccak(f"{seed}/{i}".encode()), i % 7, 0, account_legs(draw, extreme=extreme))
        for i in range(count)
    ]
