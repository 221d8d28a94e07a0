"""Agreed prices: per market the lower median of fresh answers, or stale.

A price is fresh when its feed published it at most `max_age_ms` before the tick starts and not
after it by more than the tick allows for clocks. Fewer than a quorum of fresh answers leave the
market stale: its last agreed price stands, and the breakers say what that stops.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from keeper.snapshot.decisions import Observed, Price

CLOCK_SLACK_MS = 15_000
"""A chain may stamp a block ahead of our clock: Ethereum lets it by 15 s."""


def agree_prices(
    markets: Sequence[bytes],
    parent: Mapping[bytes, Price],
    observed: Sequence[Observed],
    *,
    quorum: int,
    now_ms: int,
    max_age_ms: int,
) -> dict[bytes, Price]:
    """Return one price per market; a market never priced is absent."""
    answers = fresh_answers(observed, now_ms=now_ms, max_age_ms=max_age_ms)
    agreed: dict[bytes, Price] = {}
    for market in markets:
        fresh = answers.get(market, [])
        if len(fresh) >= quorum:
            agreed[market] = Price(market, fresh[(len(fresh) - 1) // 2], stale=False)
        elif market in parent:
            agreed[market] = Price(market, parent[market].price_e8, stale=True)
    return agreed


def fresh_answers(
    observed: Sequence[Observed], *, now_ms: int, max_age_ms: int
) -> dict[bytes, list[int]]:
    """Return market → fresh answers, one a member, ascending."""
    answers: dict[bytes, list[int]] = defaultdict(list)
    for observation in observed:
        for price in observation.body.prices:
            age = now_ms - price.published_at * 1000
            if price.price_e8 > 0 and -CLOCK_SLACK_MS <= age <= max_age_ms:
                answers[price.market].append(price.price_e8)
    return {market: sorted(prices) for market, prices in answers.items()}
