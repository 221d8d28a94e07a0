"""What a keeper may still put at stake: Σ locks ≤ bond, over every award it holds.

    free = bond − max(locks the hub shows, locks of open awards) − penalties on their way

The hub sees a lock only when somebody brings the award there, and keeps it a while after the task
ended; the replicated state sees it at once. The larger of the two counts, so a bond is never used
twice. Only an active bond with fewer no-shows than the jail limit competes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from keeper.compete.state import Charge, OpenAward
from keeper.snapshot.decisions import Context, Decision
from keeper.venue.bonds import BondRecord, BondStatus, bonds


@dataclass(frozen=True, slots=True)
class Stakes:
    """Free bond per keeper, as awards of one view take from it; bond units.

    Invariants: nothing is ever taken beyond what is free.
    """

    free: dict[bytes, int]
    held: dict[bytes, int]

    def eligible(self) -> dict[bytes, int]:
        """Return the free bond of the keepers that may bid at all."""
        return {keeper: amount for keeper, amount in self.free.items() if amount > 0}

    def take(self, keeper: bytes, amount: int) -> None:
        """Lock an amount for one more award."""
        self.free[keeper] -= amount
        self.held[keeper] = self.held.get(keeper, 0) + 1
        assert self.free[keeper] >= 0, "locks exceed the bond"


def stakes(
    context: Context,
    awards: Iterable[OpenAward],
    charges: Iterable[Charge],
    no_shows: Mapping[bytes, int],
) -> Stakes:
    """Return what every bonded keeper may still lock; charges are not sealed yet."""
    hub = context.network.hub
    records = context.tables.get(hub)
    known: dict[bytes, BondRecord] = {}
    if records is not None:
        known = bonds(context.network.chain(hub), records)
    locked: dict[bytes, int] = {}
    held: dict[bytes, int] = {}
    for award in awards:
        keeper = award.ranks[0]
        locked[keeper] = locked.get(keeper, 0) + award.lock
        held[keeper] = held.get(keeper, 0) + 1
    charged = penalties_in_flight(context.outstanding)
    for charge in charges:
        charged[charge.keeper] = charged.get(charge.keeper, 0) + charge.amount
    limit = context.parameters.competition.jail_after
    free = {}
    for keeper, bond in known.items():
        if bond.status is BondStatus.ACTIVE and no_shows.get(keeper, 0) < limit:
            used = max(bond.locked, locked.get(keeper, 0)) + charged.get(keeper, 0)
            free[keeper] = max(0, bond.amount - used)
    return Stakes(free, held)


def penalties_in_flight(decisions: Iterable[Decision]) -> dict[bytes, int]:
    """Return keeper → Σ penalties that the hub has not taken yet."""
    found: dict[bytes, int] = {}
    for decision in decisions:
        if decision.kind == "Penalty":
            keeper, amount = decision.fields[1], decision.fields[2]
            assert isinstance(keeper, bytes)
            assert isinstance(amount, int)
            found[keeper] = found.get(keeper, 0) + amount
    return found
