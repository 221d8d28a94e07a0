"""Which committees there are, as this node's own index of the chains has them; its only judge.

Committee records of every chain ─▶ epochs ─┐
Bonds records of the hub ─▶ peers ──────────┴─▶ Committee, if its config is the registered one
journal: committees seen before ────────────┘   (a member may have changed its peer since)
"""

from collections.abc import Mapping

from keeper.network import NetworkSpec
from keeper.observe.service import Watcher
from keeper.observe.table import Table
from keeper.store import Store
from keeper.units import ChainId
from keeper.venue import bonds
from keeper.venue.committee import Epoch, committee_of, registered, registered_as
from p2p.agreement.journal import Journal
from p2p.types import Committee, Member


class Registry:
    """Reads the newest final blocks."""

    def __init__(
        self, network: NetworkSpec, watchers: Mapping[ChainId, Watcher], store: Store
    ) -> None:
        self._network, self._watchers, self._journal = network, watchers, Journal(store)

    def tables(self) -> dict[ChainId, Table]:
        """Return the newest table of every chain whose index has begun."""
        return {
            chain: watcher.index.newest.table
            for chain, watcher in self._watchers.items()
            if watcher.index.newest is not None
        }

    def newest(self) -> Epoch | None:
        """Return the newest epoch that every chain has."""
        return registered(self._network, self.tables())

    def epoch(self, number: int) -> Epoch | None:
        """Return an epoch that every chain has."""
        return registered_as(self._network, self.tables(), number)

    def committee(self, epoch: Epoch) -> Committee | None:
        """Return the committee of an epoch, or None if its members' peers are not known here."""
        hub = self._network.hub
        peers = bonds.peers(self._network.chain(hub), self.tables()[hub])
        members = tuple(Member(address, peers.get(address, b"")) for address in epoch.members)
        now = committee_of(self._network, epoch.number, members)
        if now.config == epoch.config:
            return now
        return next((c for c in self._journal.committees() if c.config == epoch.config), None)

    def newest_committee(self) -> Committee | None:
        """Return the committee of the newest epoch, or None where it is not known here."""
        newest = self.newest()
        return None if newest is None else self.committee(newest)
