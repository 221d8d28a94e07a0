"""How long an account's health holds, by what governance says its positions can lose.

    legs ─▶ net exposure per underlying ─▶ × λ(bucket) ─▶ loss by time ─▶ seconds above a floor

For the fill deadline of a margin-deadline order (keeper/intent/deadline.py). Exposures of one
underlying are netted over venues, and losses of different ones are added: none of them hedges
another.
"""

from collections.abc import Iterable, Mapping

from keeper.intent.deadline import seconds_left
from keeper.legs import Leg, LegKind
from keeper.margin.engine import AccountMargin
from keeper.margin.latency import latency_haircut
from keeper.parameters import MarginParameters
from keeper.units import PPM, ceil_div


def exposures(
    parameters: MarginParameters, prices: Mapping[bytes, int], legs: Iterable[Leg]
) -> dict[bytes, int]:
    """Return underlying → net exposure in µUSD, rounded away from zero.

    Raises:
        KeyError: a leg has no price, or is of nothing that governance knows.
    """
    found: dict[bytes, int] = {}
    for leg in legs:
        if not leg.size:
            continue
        perp = leg.kind is LegKind.PERP
        one = parameters.market_of[leg.market] if perp else parameters.asset_of[leg.market]
        value = ceil_div(abs(leg.size) * prices[leg.market], 10 ** (one.decimals + 2))
        owed = leg.kind is LegKind.DEBT or leg.size < 0
        found[one.underlying] = found.get(one.underlying, 0) + (-value if owed else value)
    return found


def losses_by_time(
    parameters: MarginParameters, exposed: Mapping[bytes, int]
) -> list[tuple[int, int]]:
    """Return (seconds, largest loss within them in µUSD) for every latency bucket."""
    return [
        (
            seconds,
            sum(
                ceil_div(
                    abs(value)
                    * latency_haircut(
                        parameters.latency, parameters.underlying_of[underlying], seconds
                    ),
                    PPM,
                )
                for underlying, value in sorted(exposed.items())
            ),
        )
        for seconds in parameters.latency.bucket_s
    ]


def seconds_above(
    parameters: MarginParameters,
    prices: Mapping[bytes, int],
    legs: Iterable[Leg],
    margin: AccountMargin,
    health_ppm: int,
) -> int:
    """Return for how long an account stays at or above a health floor; 0 if it may not.

    Raises:
        KeyError: a leg has no price, or is of nothing that governance knows.
    """
    losses = losses_by_time(parameters, exposures(parameters, prices, legs))
    return seconds_left(margin.equity, margin.requirement, losses, health_ppm)
