"""What can be lost on the way: hazards per verification class, correlated by shared verifier.

    canonical < optimistic < bonded < multisig      chance to fail, ppm per day (a proposal: such
                                                    figures are judgement, so they are parameters)
    scenario = a set of verifiers fails             every lane that trusts one of them loses all
                                                    that is in flight on it

Two bridges of one validator set are one risk: the name on the bridge counts for nothing.
CVaR at α: the mean loss of the worst 1 − α of the scenarios, by probability.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from keeper.parameters import BridgeClass
from keeper.route.graph import Lane
from keeper.units import PPM, ceil_div

DAY_MS = 86_400_000
HAZARD_PPM_PER_DAY: Mapping[BridgeClass, int] = {
    BridgeClass.CANONICAL: 3,
    BridgeClass.OPTIMISTIC: 15,
    BridgeClass.BONDED: 60,
    BridgeClass.MULTISIG: 250,
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """Verifiers that fail together, and how likely it is, in 10**-12."""

    failed: frozenset[bytes]
    chance_ppt: int


def failure_ppm(lane: Lane, hazards: Mapping[BridgeClass, int] = HAZARD_PPM_PER_DAY) -> int:
    """Return the chance that the lane fails while funds are on it, in ppm, rounded up."""
    return min(ceil_div(hazards[lane.security] * max(lane.p95_ms, 1), DAY_MS), PPM)


def hazards_of(
    lanes: Iterable[Lane], hazards: Mapping[BridgeClass, int] = HAZARD_PPM_PER_DAY
) -> tuple[tuple[bytes, int], ...]:
    """Return each verifier's chance of failing within a day: the worst of its lanes, in ppm."""
    worst: dict[bytes, int] = {}
    for lane in lanes:
        worst[lane.verifier] = max(worst.get(lane.verifier, 0), hazards[lane.security])
    return tuple(sorted(worst.items()))


def scenarios(verifiers: Sequence[tuple[bytes, int]], together: int = 2) -> tuple[Scenario, ...]:
    """Return the sets of up to `together` verifiers that fail, as if set by set independent.

    What is not listed (nobody fails) loses nothing.
    """
    made = []
    for many in range(1, together + 1):
        for group in combinations(sorted(verifiers), many):
            chance = 10**12
            for _, ppm in group:
                chance = chance * ppm // PPM
            if chance:
                made.append(Scenario(frozenset(name for name, _ in group), chance))
    return tuple(made)


def loss(exposure: Mapping[bytes, int], scenario: Scenario) -> int:
    """Return what a scenario takes of what each verifier guards."""
    return sum(amount for verifier, amount in exposure.items() if verifier in scenario.failed)


def cvar(exposure: Mapping[bytes, int], cases: Sequence[Scenario], alpha_ppm: int) -> int:
    """Return the mean loss of the worst 1 − α of all outcomes, rounded up."""
    tail = left = (PPM - alpha_ppm) * 10**6
    if tail <= 0:
        return max((loss(exposure, case) for case in cases), default=0)
    total = 0
    for lost, chance in sorted((loss(exposure, case), case.chance_ppt) for case in cases)[::-1]:
        part = min(chance, left)
        total += lost * part
        left -= part
        if not left:
            break
    return ceil_div(total, tail)
