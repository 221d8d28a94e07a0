"""λ(asset, L): the haircut for the time in which value cannot be reached.

    L = age of the agreed state + finality + bridge p95 + execution, rounded up to a bucket
    λ = J(L) + k · max(σ_ewma, 2 σ_long) · √L

√time alone understates the worst path of crash days (they jump), so J is a static floor per bucket.
Above the last bucket λ is 100 %: value that nobody can reach for that long is worth nothing.
"""

from bisect import bisect_left
from math import isqrt

from keeper.parameters import ChainParameters, LatencyParameters, UnderlyingParameters
from keeper.units import PPM, ceil_div

SECONDS_PER_MINUTE = 60


def time_to_act(chain: ChainParameters, age_s: int) -> int:
    """Return L in seconds.

    Raises:
        ValueError: the age is negative.
    """
    if age_s < 0:
        raise ValueError(f"state of chain {chain.chain} is {age_s} s old: an age is not negative")
    return age_s + chain.finality_s + chain.bridge_p95_s + chain.execution_s


def bucket(latency: LatencyParameters, time_s: int) -> int | None:
    """Return the index of the least bucket that holds the time, or None above the last."""
    index = bisect_left(latency.bucket_s, time_s)
    return index if index < len(latency.bucket_s) else None


def root_up(value: int) -> int:
    """Return the square root rounded up."""
    return isqrt(value - 1) + 1 if value > 0 else 0


def latency_haircut(
    latency: LatencyParameters, underlying: UnderlyingParameters, time_s: int
) -> int:
    """Return λ in ppm, rounded up, at most 100 %."""
    index = bucket(latency, time_s)
    if index is None:
        return PPM
    sigma = max(underlying.sigma_ewma_ppm, 2 * underlying.sigma_long_ppm) * latency.k
    variance = ceil_div(sigma * sigma * latency.bucket_s[index], SECONDS_PER_MINUTE)
    return min(PPM, underlying.jump_ppm[index] + root_up(variance))
