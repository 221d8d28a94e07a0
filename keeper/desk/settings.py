"""`[venues.NAME]` of `keeper.toml`: which of other people's venues this node works on.

    [venues.aave]                              [venues.perp]
    kind = "aave_v3"                           kind = "perp_v2"
    chain = 42161                              chain = 10
    pool = "0x…"  data = "0x…"                 clearing = "0x…"  balance = "0x…"
    oracle = "0x…"                             config = "0x…"  base = "0x…"
    tokens = { WETH = "0x…", USDC = "0x…" }    market = "ETH-USD"
    coin = "WETH"                              coin_feed = "0x…"
    router = "0x…"  quoter = "0x…"             first_block = 0
    sales = ["WETH USDC 500"]
    first_block = 0

Contracts are named, never searched for. `coin` is the reserve whose price is the chain's coin's;
`sales` name Uniswap v3 pools as sold, bought and fee; without them what is seized is kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from keeper.chain.port import Chain
from keeper.desk.aave import AaveVenue
from keeper.desk.perp import PerpVenue
from keeper.desk.venue import Venue, outputs
from keeper.errors import ConfigError
from keeper.units import ChainId, symbol
from keeper.venue import aave_v3, perp_v2, uniswap_v3

_COMMON = {"kind", "chain", "first_block"}
_KEYS = {
    "aave_v3": {"pool", "data", "oracle", "tokens", "coin", "router", "quoter", "sales"},
    "perp_v2": {"clearing", "balance", "config", "base", "market", "coin_feed"},
}
_OPTIONAL = {"first_block", "router", "quoter", "sales"}


@dataclass(frozen=True, slots=True)
class AaveSpec:
    """An Aave v3 deployment as configured; its reserves' terms are read when it is opened.

    Args:
        market: the pool without reserves.
        tokens: (32-byte symbol, address).
        coin: symbol of the reserve priced as the native coin.
        router, quoter: of Uniswap v3, or empty.
        sales: (sold symbol, bought symbol, fee).
    """

    market: aave_v3.Market
    tokens: tuple[tuple[bytes, bytes], ...]
    coin: bytes
    router: bytes = b""
    quoter: bytes = b""
    sales: tuple[tuple[bytes, bytes, int], ...] = ()


@dataclass(frozen=True, slots=True)
class PerpSpec:
    """A Perpetual Protocol v2 market as configured."""

    market: perp_v2.Market
    coin_feed: bytes


@dataclass(frozen=True, slots=True)
class VenueSpec:
    """One section: its name, its chain, where its history begins, and what it is."""

    name: str
    chain: ChainId
    first_block: int
    what: AaveSpec | PerpSpec


def venues_of(sections: Mapping[str, Mapping[str, Any]], where: str) -> tuple[VenueSpec, ...]:
    """Return the configured venues by name.

    Raises:
        ConfigError: a key is unknown or missing, or a value is impossible.
    """
    found = []
    for name, row in sorted(sections.items()):
        try:
            found.append(_venue(name, row))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"[venues.{name}]: {_said(error)}",
                where=where,
                remedy="docs/policies.md shows a whole section of each kind",
            ) from error
    return tuple(found)


def _said(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def _venue(name: str, row: Mapping[str, Any]) -> VenueSpec:
    kind = row["kind"]
    if kind not in _KEYS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(sorted(_KEYS))}")
    unknown = set(row) - _COMMON - _KEYS[kind]
    if unknown:
        raise ValueError(f"unknown key {min(unknown)!r}")
    missing = (_KEYS[kind] | _COMMON) - set(row) - _OPTIONAL
    if missing:
        raise KeyError(min(missing))
    chain = ChainId(int(row["chain"]))
    what = _aave(chain, row) if kind == "aave_v3" else _perp(chain, row)
    return VenueSpec(name, chain, int(row.get("first_block", 0)), what)


def _aave(chain: ChainId, row: Mapping[str, Any]) -> AaveSpec:
    pool, data, oracle = (address_of(row[key]) for key in ("pool", "data", "oracle"))
    market = aave_v3.Market(chain, pool, data, oracle)
    tokens = {symbol(name): address_of(text) for name, text in row["tokens"].items()}
    sales = tuple(_sale(text, tokens) for text in row.get("sales", ()))
    if symbol(row["coin"]) not in tokens:
        raise ValueError(f"coin {row['coin']!r} is none of the tokens")
    if not sales:
        return AaveSpec(market, tuple(sorted(tokens.items())), symbol(row["coin"]))
    return AaveSpec(
        market,
        tuple(sorted(tokens.items())),
        symbol(row["coin"]),
        address_of(row["router"]),
        address_of(row["quoter"]),
        sales,
    )


def _sale(text: str, tokens: Mapping[bytes, bytes]) -> tuple[bytes, bytes, int]:
    sold, bought, fee = text.split()
    pair = symbol(sold), symbol(bought)
    if not set(pair) <= set(tokens):
        raise ValueError(f"sale {text!r} names none of the tokens")
    return *pair, int(fee)


def _perp(chain: ChainId, row: Mapping[str, Any]) -> PerpSpec:
    keys = ("clearing", "balance", "config", "base")
    clearing, balance, config, base = (address_of(row[key]) for key in keys)
    market = perp_v2.Market(chain, clearing, balance, config, base, symbol(row["market"]))
    return PerpSpec(market, address_of(row["coin_feed"]))


def address_of(text: str) -> bytes:
    """Return the 20 bytes of an address.

    Raises:
        ValueError: the text is none.
    """
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 20:
        raise ValueError(f"{text!r} is no address")
    return raw


async def open_venue(spec: VenueSpec, chain: Chain, keeper: bytes) -> Venue:
    """Return the venue, its fixed terms read from its contracts.

    Raises:
        RemoteFault: the chain cannot be asked.
        ValueError: a contract answers something else than its ABI says.
    """
    match spec.what:
        case PerpSpec(market, coin_feed):
            return PerpVenue(chain, market, keeper, coin_feed)
        case AaveSpec() as what:
            pool = await read_reserves(chain, what.market, what.tokens)
            return AaveVenue(chain, pool, _pairs(what, pool), keeper, what.coin)


async def read_reserves(
    chain: Chain, market: aave_v3.Market, tokens: tuple[tuple[bytes, bytes], ...]
) -> aave_v3.Market:
    """Return a market with the reserves of these tokens, sorted by asset.

    Raises:
        RemoteFault: the chain cannot be asked.
        ValueError: a token is no reserve of the market.
    """
    reads = [aave_v3.reserve_read(market, token) for _, token in tokens]
    found = await outputs(chain, reads, (await chain.head()).ref)
    reserves = [
        aave_v3.reserve_of(asset, token, data)
        for (asset, token), data in zip(tokens, found, strict=True)
    ]
    return replace(market, reserves=tuple(sorted(reserves, key=lambda one: one.asset)))


def _pairs(what: AaveSpec, market: aave_v3.Market) -> tuple[uniswap_v3.Pair, ...]:
    pairs = []
    for sold, bought, fee in what.sales:
        out, into = market.reserve(sold), market.reserve(bought)
        pairs.append(
            uniswap_v3.Pair(
                market.chain, what.router, what.quoter, out.token, into.token, sold, bought, fee,
                out.decimals, into.decimals,
            )
        )  # fmt: skip
    return tuple(pairs)
