"""Reads pools and lanes from chains, for the routing graph.

    slot0, liquidity, spacing, fee ─▶ words of the tick bitmap around the price ─▶ ticks ─▶ TickBook

    a bridge's reads for a crossing ─▶ each at its chain's newest final block ─▶ Terms ─▶ Lane

Every read of a pool is bound to the same block hash. What a pool answers is checked as a state that
a pool can be in; a window of ticks is read, and a sale that leaves it ends there.
"""

from collections.abc import Mapping, Sequence

import structlog

from keeper.chain.port import BlockRef, Call, Chain, Level
from keeper.errors import RemoteFault
from keeper.reasons import Reason
from keeper.route.bridges.port import Bridge, Crossing, Read, Terms, lane_of
from keeper.route.congestion import Seen, live
from keeper.route.graph import Lane
from keeper.route.ticks import MAX_CROSSINGS, MAX_TICK, MIN_TICK, TickBook
from keeper.units import ChainId
from keeper.venue.abi import answers, calldata

log = structlog.get_logger(__name__)

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


async def read_all(
    chains: Mapping[ChainId, Chain], reads: Sequence[Read], heads: Mapping[ChainId, BlockRef]
) -> list[bytes | None]:
    """Return the answers in order, each at its chain's head in one batch.

    An answer is empty where a call reverted, and None where its chain has no head here or cannot be
    asked: one chain that is down must not hide the others.
    """
    found: list[bytes | None] = [None] * len(reads)
    for chain in sorted({read.chain for read in reads} & heads.keys()):
        places = [place for place, read in enumerate(reads) if read.chain == chain]
        try:
            replies = await _calls(
                chains[chain], [reads[place].call for place in places], heads[chain]
            )
        except RemoteFault as fault:
            log.debug("chain_not_read", chain=chain, error=str(fault))
            continue
        for place, reply in zip(places, replies, strict=True):
            found[place] = reply
    return found


async def read_heads(
    chains: Mapping[ChainId, Chain], level: Level = Level.UNSAFE
) -> dict[ChainId, BlockRef]:
    """Return the newest block of each chain that answers."""
    found = {}
    for chain, port in sorted(chains.items()):
        try:
            found[chain] = (await port.head(level)).ref
        except RemoteFault as fault:
            log.debug("chain_not_read", chain=chain, error=str(fault))
    return found


async def read_terms(
    chains: Mapping[ChainId, Chain],
    wanted: Sequence[tuple[Bridge, Crossing]],
    heads: Mapping[ChainId, BlockRef],
) -> list[Terms | None]:
    """Return the terms of crossings at these heads, or None where a chain cannot be asked."""
    reads = [bridge.quote_reads(crossing) for bridge, crossing in wanted]
    replies = await read_all(chains, [read for some in reads for read in some], heads)
    found: list[Terms | None] = []
    for (bridge, crossing), some in zip(wanted, reads, strict=True):
        mine, replies = replies[: len(some)], replies[len(some) :]
        known = [reply for reply in mine if reply is not None]
        found.append(bridge.quoted(crossing, known) if len(known) == len(some) else None)
    return found


async def read_lanes(
    chains: Mapping[ChainId, Chain],
    bridges: Sequence[Bridge],
    seen: Mapping[tuple[bytes, Crossing], Seen] | None = None,
) -> tuple[tuple[Lane, Terms], ...]:
    """Return every lane of some bridges as it is now, with its terms, as final blocks have them.

    Args:
        chains: all that the bridges join.
        bridges: what to ask.
        seen: by address and crossing, what was observed of lanes.

    Raises:
        RemoteFault: a chain cannot be read.
    """
    wanted = [(bridge, crossing) for bridge in bridges for crossing in bridge.crossings()]
    heads = {chain: (await port.head(Level.FINAL)).ref for chain, port in chains.items()}
    found = []
    for (bridge, crossing), terms in zip(
        wanted, await read_terms(chains, wanted, heads), strict=True
    ):
        if terms is None:
            where = f"chains {crossing.origin} and {crossing.destination}"
            raise RemoteFault(where, Reason.ENDPOINT_DOWN, f"{bridge.name} cannot be asked")
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
