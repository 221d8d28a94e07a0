"""A hedged pair on two venues, and the flow that reduces both sides or none.

collateral on the hub ─▶ credit at both venues ─▶ long here, short there
a healthier account is wanted ─▶ the same share of both ─▶ one flow ─▶ both are smaller
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from keeper.devnet.cluster import Cluster
from keeper.devnet.deploy import FEE_PPM
from keeper.devnet.ledgers import ChainFacts
from keeper.devnet.parties import Party
from keeper.devnet.traders import USD, Desk, make_trader
from keeper.devnet.wallet import Sent
from keeper.legs import Leg
from keeper.margin.engine import Engine
from keeper.settle.deleverage import Plan, legs_of, plan, reducible
from keeper.units import PPM, ChainId
from keeper.venue.book import accounts
from keeper.venue.escrow import Leg as FlowLeg

COLLATERAL, LEVERAGE_PPM = 10_000 * USD, 3 * PPM
TARGET_PPM = 1_500_000
"""What the reduction must make of the health, in parts of what it was."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """What was planned for the pair's account: its positions, and what to close of each."""

    account: bytes
    plan: Plan


class Hedge:
    """One owner of a long at one venue and a short of the same size at another."""

    def __init__(
        self, cluster: Cluster, at: int, price_e8: int, venues: tuple[ChainId, ChainId]
    ) -> None:
        self._cluster, self.venues = cluster, venues
        long = make_trader(cluster, at, COLLATERAL, LEVERAGE_PPM, price_e8)
        short = replace(long, on_hub=0, size=-long.size)
        self.owner, self.account = long.owner, long.account
        self.party = Party("hedger", long.secret)
        chains = [cluster.spec.chain(chain) for chain in venues]
        self._desks = [
            Desk(cluster, [one], chain) for one, chain in zip((long, short), chains, strict=True)
        ]

    async def ask(self) -> None:
        """Deposit, and ask for credit at both venues."""
        for desk in self._desks:
            await desk.fund()
            await desk.deposit_and_ask()

    async def credited(self) -> bool:
        """Return whether both credits are there."""
        return all([await desk.credited() for desk in self._desks])

    async def open(self) -> dict[ChainId, Sequence[Sent]]:
        """Open both sides."""
        return {
            chain: await desk.open() for chain, desk in zip(self.venues, self._desks, strict=True)
        }

    def positions(self, facts: Mapping[ChainId, ChainFacts]) -> list[Leg]:
        """Return what is open now, by the chains' own records."""
        return reducible(self._cluster.spec, self._legs(facts))

    def _legs(self, facts: Mapping[ChainId, ChainFacts]) -> tuple[Leg, ...]:
        tables = {chain: one.table for chain, one in facts.items()}
        return accounts(self._cluster.spec, tables)[self.account]

    def reduction(
        self, facts: Mapping[ChainId, ChainFacts], engine: Engine
    ) -> tuple[Reduced, tuple[FlowLeg, ...]]:
        """Return what to close of both sides now, and the legs of the flow that does it."""
        legs = self._legs(facts)
        target = engine.margin(engine.rows(legs)).health_ppm * TARGET_PPM // PPM
        positions = self.positions(facts)
        fees = {(leg.chain, leg.market): FEE_PPM for leg in positions}
        found = plan(engine, legs, positions, fees, target)
        assert found is not None, "closing half of a hedged pair frees half of its requirement"
        made = legs_of(self._cluster.spec, found, self.owner, 0)
        return Reduced(self.account, found), made
