"""Uniswap v3, unmodified: what a sale would bring, and the sale.

    quote_reads ─▶ QuoterV2 at several sizes ─▶ depth curve: (size, impact against a price)
    swap(step)  ─▶ SwapRouter.exactInputSingle with the least amount the policy accepts

The quoter simulates the very swap, fee and ticks included, so a curve's impact is all of the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keeper.chain.port import Call as Read
from keeper.plan import Step, StepKind
from keeper.units import PPM, ChainId
from keeper.venue.abi import answers, calldata
from keeper.venue.port import Call

_QUOTE = "quoteExactInputSingle((address,address,uint256,uint24,uint160))"
_SWAP = "exactInputSingle((address,address,uint24,address,uint256,uint256,uint256,uint160))"


@dataclass(frozen=True, slots=True)
class Pair:
    """One direction of one pool.

    Args:
        chain: where.
        router, quoter: SwapRouter and QuoterV2.
        sold, bought: token addresses; `sold_asset`, `bought_asset` their 32-byte symbols.
        fee: of the pool, in its own unit of 10**-6.
        sold_decimals, bought_decimals: of the tokens.
    """

    chain: ChainId
    router: bytes
    quoter: bytes
    sold: bytes
    bought: bytes
    sold_asset: bytes
    bought_asset: bytes
    fee: int
    sold_decimals: int
    bought_decimals: int


def quote_reads(pair: Pair, sizes: Sequence[int]) -> tuple[Read, ...]:
    """Return one read per size of what selling it would bring."""
    return tuple(
        Read(pair.quoter, calldata(_QUOTE, (pair.sold, pair.bought, size, pair.fee, 0)))
        for size in sizes
    )


def quoted(data: bytes) -> int:
    """Return the amount bought, from a quoter's answer."""
    return int(answers(("uint256", "uint160", "uint32", "uint256"), data)[0])


def depth_of(
    pair: Pair, sizes: Sequence[int], outputs: Sequence[bytes], prices: tuple[int, int]
) -> tuple[tuple[int, int], ...]:
    """Return (size, impact in ppm) points against the prices of (sold, bought), never falling.

    A pool that pays more than the agreed price counts as no impact: its price is not to be relied
    on.
    """
    points, worst = [], 0
    for size, data in zip(sizes, outputs, strict=True):
        worth = size * prices[0] * 10**pair.bought_decimals
        brings = quoted(data) * prices[1] * 10**pair.sold_decimals
        worst = max(worst, PPM - brings * PPM // worth if worth else 0)
        points.append((size, worst))
    return tuple(points)


def swap(pair: Pair, step: Step, recipient: bytes, deadline_s: int) -> Call:
    """Return the call of a SWAP step.

    Raises:
        ValueError: the step is of another kind or another pair.
    """
    names = dict(step.args)
    if step.kind is not StepKind.SWAP or names.get("asset_in") != pair.sold_asset:
        raise ValueError(f"step {step.id!r} does not sell what this pair sells")
    amount, least = names["amount"], names["least_out"]
    if names.get("asset_out") != pair.bought_asset or not isinstance(amount, int):
        raise ValueError(f"step {step.id!r} does not buy what this pair buys")
    fields = (pair.sold, pair.bought, pair.fee, recipient, deadline_s, amount, least, 0)
    return Call(pair.chain, pair.router, calldata(_SWAP, fields))
