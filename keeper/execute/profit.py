"""What a task earned, read from its receipts and nothing else.

    Σ ERC-20 Transfer to us − Σ from us − Σ gas paid      each valued at an agreed price

A reverted receipt carries no logs and still pays gas. A coin without a price is named, never
counted as zero. Values in µUSD: gains floored, costs ceiled.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from keeper.chain.port import Receipt
from keeper.hashing import type_hash
from keeper.units import PRICE_DECIMALS, QUOTE_DECIMALS, ChainId, ceil_div

TRANSFER = type_hash("Transfer(address,address,uint256)")
NATIVE = b""

Coin = tuple[ChainId, bytes]
"""(chain, token contract), or (chain, NATIVE)."""


@dataclass(frozen=True, slots=True)
class Price:
    """10**-8 dollars for one whole coin of 10**decimals units."""

    price_e8: int
    decimals: int


@dataclass(frozen=True, slots=True)
class Profit:
    """What a task earned.

    Args:
        net: coin → units, gas included, zero entries left out; sorted.
        usd_e6: value of all priced coins in µUSD.
        unpriced: coins in `net` that have no price: the value is not known while there are any.
    """

    net: tuple[tuple[Coin, int], ...]
    usd_e6: int
    unpriced: tuple[Coin, ...]


def net_flows(receipts: Iterable[Receipt], holder: bytes) -> dict[Coin, int]:
    """Return coin → units that came to `holder` minus what left it, gas included."""
    net: dict[Coin, int] = {}
    topic = holder.rjust(32, b"\0")
    for receipt in receipts:
        chain = receipt.block.chain
        native = (chain, NATIVE)
        net[native] = net.get(native, 0) - receipt.fee
        for log in receipt.logs:
            if len(log.topics) != 3 or log.topics[0] != TRANSFER or len(log.data) != 32:
                continue
            amount = int.from_bytes(log.data, "big")
            sign = (log.topics[2] == topic) - (log.topics[1] == topic)
            coin = (chain, log.address)
            net[coin] = net.get(coin, 0) + sign * amount
    return {coin: units for coin, units in net.items() if units}


def profit(receipts: Iterable[Receipt], holder: bytes, prices: Mapping[Coin, Price]) -> Profit:
    """Return what `holder` earned by these receipts."""
    net = sorted(net_flows(receipts, holder).items())
    total, unpriced = 0, []
    for coin, units in net:
        price = prices.get(coin)
        if price is None:
            unpriced.append(coin)
            continue
        scale = 10 ** (price.decimals + PRICE_DECIMALS - QUOTE_DECIMALS)
        total += (
            units * price.price_e8 // scale
            if units > 0
            else -ceil_div(-units * price.price_e8, scale)
        )
    return Profit(tuple(net), total, tuple(unpriced))
