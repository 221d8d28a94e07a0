"""Reads pools and lanes from chains, for the routing graph.

    slot0, liquidity, spacing, fee ─▶ words of the tick bitmap around the price ─▶ ticks ─▶ TickBook

    a bridge's reads for a crossing ─▶ each at its chain's newest final block ─▶ Terms ─▶ Lane

Every read of a pool is bound to the same block hash. What a pool answers is checked as a state that
a pool can be in; a window of ticks is read, and a sale that leaves it ends there.
"""

from collections.abc import Mapping, Sequence

from keeper.chain.port import BlockRef, Call, Chain, Level
from keeper.errors import RemoteFault
from keeper.reasons import Reason
from keeper.route.bridges.port import Bridge, Crossing, Terms, lane_of
from keeper.route.congestion import Seen, live
from keeper.route.graph import Lane
from keeper.route.ticks import MAX_CROSSINGS, MAX_TICK, MIN_TICK, TickBook
from keeper.units import ChainId
from keeper.venue.abi import answers, calldata

WINDOW = 13_864
"""Ticks to read on either side of the price: a factor of four."""
_WORD = 256
_BATCH = 256
"""Calls in one request."""
_HEAD = (
    ("slot0()", ("uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool")),
    ("liquidity()", ("uint128",)),
    ("tickSpacing()", ("int24",)),
    ("fee()", ("uint24",)),
)
_TICK = ("uint128", "int128", "uint256", "uint256", "int56", "uint160", "uint32", "bool")


async def read_ticks(
    chain: Chain, pool: bytes, at: BlockRef, window: int = WINDOW, most: int = MAX_CROSSINGS
) -> TickBook:
    """Return a Uniswap v3 pool's state at a block.

    Raises:
        RemoteFault: the chain cannot be read, or what is there is no such pool.
    """
    head = await _calls(chain, [Call(pool, calldata(name)) for name, _ in _HEAD], at)
    try:
        (price, tick, *_), (liquidity,), (spacing,), (fee,) = (
            answers(types, data) for (_, types), data in zip(_HEAD, head, strict=True)
        )
        if spacing <= 0:
            raise ValueError(f"a spacing of {spacing}")
        first = max(tick - window, MIN_TICK) // spacing // _WORD
        last = min(tick + window, MAX_TICK) // spacing // _WORD
        words = range(first, last + 1)
        reads = [Call(pool, calldata("tickBitmap(int16)", word)) for word in words]
        maps = [answers(("uint256",), data)[0] for data in await _calls(chain, reads, at)]
        ticks = [
            (word * _WORD + bit) * spacing
            for word, bits in zip(words, maps, strict=True)
            for bit in range(_WORD)
            if bits >> bit & 1
        ]
        if len(ticks) > most:
            raise ValueError(f"{len(ticks)} ticks are more than {most}")
        reads = [Call(pool, calldata("ticks(int24)", one)) for one in ticks]
        nets = [answers(_TICK, data)[1] for data in await _calls(chain, reads, at)]
        crossings = tuple(zip(ticks, nets, strict=True))
        return TickBook(spacing, fee, price, tick, liquidity, crossings, first, last)
    except ValueError as error:
        where = f"0x{pool.hex()} on chain {chain.id}"
        raise RemoteFault(where, Reason.REVERTED, f"no Uniswap v3 pool: {error}") from error


async def read_terms(chains: Mapping[ChainId, Chain], bridge: Bridge, crossing: Crossing) -> Terms:
    """Return a bridge's terms for a crossing, as final blocks have them.

    Raises:
        RemoteFault: a chain cannot be read.
    """
    replies = []
    for read in bridge.quote_reads(crossing):
        chain = chains[read.chain]
        replies += await _calls(chain, [read.call], (await chain.head(Level.FINAL)).ref)
    return bridge.quoted(crossing, replies)


async def read_lanes(
    chains: Mapping[ChainId, Chain],
    bridges: Sequence[Bridge],
    seen: Mapping[tuple[bytes, Crossing], Seen] | None = None,
) -> tuple[tuple[Lane, Terms], ...]:
    """Return every lane of some bridges as it is now, with its terms.

    Args:
        chains: all that the bridges join.
        bridges: what to ask.
        seen: by address and crossing, what was observed of lanes.

    Raises:
        RemoteFault: a chain cannot be read.
    """
    found = []
    for bridge in bridges:
        for crossing in bridge.crossings():
            terms = await read_terms(chains, bridge, crossing)
            lane = lane_of(bridge, crossing, terms)
            known = (seen or {}).get((lane.bridge, crossing), Seen())
            found.append((live(lane, known), terms))
    return tuple(found)


async def _calls(chain: Chain, calls: Sequence[Call], at: BlockRef) -> list[bytes]:
    """Return the answers; an empty one where a call reverted."""
    found: list[bytes] = []
    for start in range(0, len(calls), _BATCH):
        done = await chain.calls(calls[start : start + _BATCH], at)
        found += [one.output if one.ok else b"" for one in done]
    return found
