"""What flows may close at venues: governance's limit per market and window of blocks.

    reductions of a flow ─▶ (chain, market) → µUSD ─┬─ more than a whole window     ─▶ never
                                                    ├─ more than what is left of it ─▶ it waits
                                                    └─ fits                         ─▶ taken

An owner may reduce a position at its venue whenever it likes. What many owners close at once by
one certified outcome each is another matter: the venue trades at the oracle's price, whatever the
amount, so flows share the limit that liquidations have (`liquidation.window_value`).
"""

from collections.abc import Iterable, Mapping, Sequence

from keeper.legs import LegKind
from keeper.snapshot.decisions import Context
from keeper.units import ChainId, ceil_div
from keeper.venue.escrow import Leg

Market = tuple[ChainId, bytes]
Windows = dict[Market, tuple[int, int]]
"""Chain and market → the window by its number, and what flows have closed in it, µUSD."""


def possible(context: Context, legs: Iterable[Leg]) -> bool:
    """Return whether the venues of the network can ever close what the legs reduce.

    A leg at another venue would be taken for done and never be.
    """
    known = context.parameters.margin.market_of
    for leg in legs:
        venue = context.network.chain(leg.chain).contract("Perps")
        if leg.reduces and (leg.vault != venue or leg.market not in known):
            return False
    found = closed(context, legs)
    most = context.parameters.liquidation.window_value
    return found is None or all(value <= most for value in found.values())


def closed(context: Context, legs: Iterable[Leg]) -> dict[Market, int] | None:
    """Return what legs close at each market, µUSD rounded up; None while one has no fresh price.

    What is no longer open is not counted: a promise without a position takes nobody's room.
    """
    found: dict[Market, int] = {}
    for leg in legs:
        if not leg.reduces:
            continue
        price = context.prices.get(leg.market)
        if price is None or price.stale:
            return None
        unit = 10 ** (context.parameters.margin.market_of[leg.market].decimals + 2)
        key = (leg.chain, leg.market)
        size = min(leg.amount, _open(context, leg))
        found[key] = found.get(key, 0) + ceil_div(size * price.price_e8, unit)
    return found


def _open(context: Context, leg: Leg) -> int:
    account = context.network.account(leg.payer, int.from_bytes(leg.receiver, "big"))
    place = (leg.chain, leg.vault, leg.market, LegKind.PERP)
    for one in context.legs.get(account, ()):
        if (one.chain, one.venue, one.market, one.kind) == place:
            return abs(one.size)
    return 0


def running(context: Context, windows: Mapping[Market, Sequence[int]]) -> Windows:
    """Return the windows that still run, others forgotten: so there is one a market at most."""
    return {
        key: (number, value)
        for key, (number, value) in windows.items()
        if number == _number(context, key[0])
    }


def take(context: Context, windows: Windows, legs: Iterable[Leg]) -> bool:
    """Return whether the windows have room for what legs close, and take it if they have."""
    found = closed(context, legs)
    if found is None:
        return False
    most = context.parameters.liquidation.window_value
    after = {key: value + windows.get(key, (0, 0))[1] for key, value in found.items()}
    if any(value > most for value in after.values()):
        return False
    windows |= {key: (_number(context, key[0]), value) for key, value in after.items()}
    return True


def _number(context: Context, chain: ChainId) -> int:
    at = context.cut.get(chain)
    blocks = context.parameters.liquidation.window_blocks
    return -1 if at is None else at.number // blocks
