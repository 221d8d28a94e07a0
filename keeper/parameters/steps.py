"""How far and how fast parameters move: a little, after a delay, and an old proposal expires.

    proposed ──── step_delay_s ────▶ may apply ──── step_expiry_s ────▶ expired
    each number   |new − old| ≤ step_ppm of old, or the least step
    rows          in their order; new markets, assets, chains at the end; none goes away
    names         symbols, decimals, groups, chains, classes never change: that is another network

The limits are those of the set in force, so a set cannot loosen its own step.
"""

import dataclasses
from collections.abc import Iterator

from keeper.parameters.breakers import BreakerParameters
from keeper.parameters.whole import Parameters
from keeper.units import PPM

LEAST_PPM = 1_000
"""A rate may always move by a tenth of a percent, so that it can leave zero."""
LEAST = 1
"""Any other number may always move by one."""
NAMES = frozenset({"decimals", "group", "chain", "bridge_class"})
"""Numbers that are no quantities: what they name must not become something else."""

FALLING = frozenset({"initial_ppm"})
"""A venue's own ratio is fixed with the venue, and a credit is safe only while the venue asks at
least this much: it may come down, never up again."""
GROWING = frozenset({"underlyings", "assets", "markets", "chains", "settlement_assets"})
"""Tables that may get new rows, because nobody holds anything of them yet."""


def refused_step(old: int, new: int, limits: BreakerParameters, least: int = 0) -> str | None:
    """Return why a number may not go from old to new in one step, or None."""
    most = max(abs(old) * limits.step_ppm // PPM, least)
    if abs(new - old) > most:
        return f"a step from {old} to {new} is larger than {most}"
    return None


def wait_s(proposed_at: int, now: int, limits: BreakerParameters) -> int | None:
    """Return the seconds until a proposal may apply, 0 when it may now, None when it expired."""
    ready = proposed_at + limits.step_delay_s
    if now > ready + limits.step_expiry_s:
        return None
    return max(0, ready - now)


def refused_change(old: Parameters, new: Parameters) -> str | None:
    """Return why a set may not follow another, or None: the first number that moves too far."""
    return next(_refusals("", old, new, old.breakers), None)


def _refusals(name: str, old: object, new: object, limits: BreakerParameters) -> Iterator[str]:
    if dataclasses.is_dataclass(old):
        for one in dataclasses.fields(old):
            if one.init:
                inner = f"{name}.{one.name}".lstrip(".")
                yield from _refusals(inner, getattr(old, one.name), getattr(new, one.name), limits)
    elif isinstance(old, tuple) and isinstance(new, tuple):
        grows = name.rpartition(".")[2] in GROWING
        if len(new) != len(old) and not (grows and len(new) > len(old)):
            yield f"{name} has {len(new)} rows, not {len(old)}"
        for at, (before, after) in enumerate(zip(old, new, strict=False)):
            yield from _refusals(f"{name}[{at}]", before, after, limits)
    elif isinstance(old, int) and isinstance(new, int):
        field = name.rpartition(".")[2].partition("[")[0]
        if field in NAMES and old != new:
            yield f"{name} names something and cannot change from {old} to {new}"
        elif field in FALLING and new > old:
            yield f"{name} cannot rise from {old} to {new}: venues would accept more than it covers"
        elif field not in NAMES:
            least = LEAST_PPM if field.endswith("_ppm") or field == "scenarios" else LEAST
            refused = refused_step(old, new, limits, least)
            if refused is not None:
                yield f"{name}: {refused}"
    elif old != new:
        yield f"{name} names something and cannot change"
