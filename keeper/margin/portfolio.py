"""Offsets over venues: what a whole portfolio of perps and debts requires.

    R_u = ⌈|net_u| · r_u⌉ + ⌈min(long_u, short_u) · (basis_u + bridge class)⌉   per underlying
    R   = max( Σ R_u, worst of 16 scenarios ) + leg costs

net is of ceiled notionals, r the largest ratio of the underlying's legs. A scenario moves whole
risk groups; its loss is that of perps and debts, less the premium that equity already holds back
for the debts. Collateral answers for its own risk by its haircut, so it never raises a requirement.
To open, r is the initial ratio and the loss is weighed by `initial_scenario_ppm`.

The loss is linear in the shock, so of the 16 only the extreme points matter: for an account in one
risk group the lowest and the highest shock, and `Scenarios` prepares them per set of groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keeper.parameters import MarginParameters, RiskGroup
from keeper.units import PPM, ceil_div

GROUPS = len(RiskGroup)


@dataclass(frozen=True, slots=True)
class Hedge:
    """One underlying's positions over all venues of an account.

    Args:
        long, short: Σ ceiled notional per side, µUSD.
        maintenance, initial: the largest ratios of the legs, with concentration and λ, ppm.
        chains: bit set of chains, by position in `MarginParameters.chains`.
    """

    long: int
    short: int
    maintenance: int
    initial: int
    chains: int


class Scenarios:
    """The shocks that can be worst, for each set of risk groups (a bit mask)."""

    def __init__(self, shocks: Sequence[Sequence[int]]) -> None:
        self.by_mask = tuple(self._needed(shocks, mask) for mask in range(1 << GROUPS))

    @staticmethod
    def _needed(shocks: Sequence[Sequence[int]], mask: int) -> tuple[tuple[int, ...], ...]:
        rows = {tuple(s if mask >> g & 1 else 0 for g, s in enumerate(row)) for row in shocks}
        if mask.bit_count() == 1:
            rows = {min(rows, key=sum), max(rows, key=sum)}
        return tuple(sorted(rows))

    def worst_loss(self, deltas: Sequence[int]) -> int:
        """Return the largest loss in µUSD over the scenarios, rounded up, for µUSD per group."""
        mask = sum(1 << group for group, delta in enumerate(deltas) if delta)
        gain = min(
            sum(d * s for d, s in zip(deltas, row, strict=True)) for row in self.by_mask[mask]
        )
        return -(gain // PPM)


def bridge_surcharge(parameters: MarginParameters, chains: int) -> int:
    """Return the surcharge of the worst bridge class when a bit set holds more than one chain."""
    if chains & (chains - 1) == 0:
        return 0
    classes = [c.bridge_class for i, c in enumerate(parameters.chains) if chains >> i & 1]
    return max(parameters.bridge_class_ppm[one] for one in classes)


def hedge_requirement(hedge: Hedge, ratio: int, divergence: int) -> int:
    """Return R_u in µUSD for a ratio and for basis plus surcharge, both ppm."""
    net = abs(hedge.long - hedge.short)
    hedged = min(hedge.long, hedge.short)
    return ceil_div(net * ratio, PPM) + ceil_div(hedged * divergence, PPM)
