"""What leaves each vault: the agreed tables' totals, over windows, as the breaker judges them.

    Vault records ─▶ Σ balances + Σ queued per token ─▶ NetOutflow in the token's own unit
                                                        └─ at the agreed price ─▶ OutflowReading

Deposits count against withdrawals, so who moves in and out uses nothing up. The breaker contract
counts what it is asked to let out; this sees everything that left, exits without keepers included.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from keeper.margin.flow import NetOutflow
from keeper.margin.readings import OutflowReading
from keeper.snapshot.decisions import Context
from keeper.units import PRICE_DECIMALS, QUOTE_DECIMALS, ChainId
from keeper.venue import vault

Windows = Mapping[tuple[ChainId, bytes], NetOutflow]
"""(chain, token) → its window."""


def token_scope(token: bytes) -> bytes:
    """Return what a vault and its breaker call a token: its address as 32 bytes."""
    return token.rjust(32, b"\0")


def follow(context: Context, windows: Windows, now: int) -> dict[tuple[ChainId, bytes], NetOutflow]:
    """Return the windows after a view; a token that is seen first begins with what is there."""
    after = dict(windows)
    for spec, records in context.seen_chains():
        held = vault.totals(spec, records)
        for token in spec.tokens:
            total, place = held.get(token.address, 0), (spec.id, token.address)
            known = windows.get(place)
            if known is None:
                known = NetOutflow(token_scope(token.address), now, total, total)
            after[place] = known.flow(total - known.left, now, context.parameters.breakers)
    return after


def readings(context: Context, windows: Windows) -> Iterable[OutflowReading]:
    """Yield what the breaker judges, in µUSD; a token without an agreed price is not judged."""
    for (chain, address), window in sorted(windows.items()):
        token = next((t for t in context.network.chain(chain).tokens if t.address == address), None)
        price = None if token is None else context.prices.get(token.asset)
        if token is None or price is None:
            continue
        divisor = 10 ** (token.decimals + PRICE_DECIMALS - QUOTE_DECIMALS)
        before, left = (n * price.price_e8 // divisor for n in (window.before, window.left))
        valued = replace(window, before=before, left=left)
        yield valued.reading(context.parameters.breakers)


def encode(windows: Windows) -> list[list[object]]:
    """Return windows as plain rows; amounts may pass 64 bits, so they travel as text."""
    return [
        [chain, token, one.began, str(one.before), str(one.left)]
        for (chain, token), one in sorted(windows.items())
    ]


def decode(
    rows: Iterable[tuple[int, bytes, int, str, str]],
) -> dict[tuple[ChainId, bytes], NetOutflow]:
    """Return the windows of plain rows."""
    return {
        (ChainId(chain), token): NetOutflow(token_scope(token), began, int(before), int(left))
        for chain, token, began, before, left in rows
    }
