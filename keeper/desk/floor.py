"""All desks of a node: opened when their chains answer, run side by side, shown in its status."""

from collections.abc import Callable, Mapping
from typing import Any

import structlog
import trio

from keeper.chain.port import Chain
from keeper.config import Config
from keeper.desk.service import KIND, Desk, Tools
from keeper.desk.settings import VenueSpec, open_venue, venues_of
from keeper.errors import ConfigError, RemoteFault
from keeper.execute.service import Executor
from keeper.metrics import Metrics
from keeper.store import Store
from keeper.units import ChainId
from policies.discover import spec_of
from policies.record import Entry

log = structlog.get_logger(__name__)

RETRY_S = 2.0


class Floor:
    """The desks of one node; nothing runs and nothing is read before `run`."""

    def __init__(
        self,
        config: Config,
        chains: Mapping[ChainId, Chain],
        store: Store,
        executor: Executor,
        keeper: bytes,
        record: Callable[[Entry], None],
        metrics: Metrics,
    ) -> None:
        """Check the configured venues.

        Raises:
            ConfigError: a section is wrong, its chain is none of the node's, or there is no such
                policy.
        """
        where = str(config.home / "keeper.toml")
        self._specs = venues_of(config.venues, where)
        for spec in self._specs:
            if spec.chain not in chains:
                known = ", ".join(str(one) for one in chains)
                raise ConfigError(
                    f"[venues.{spec.name}]: this node has no chain {spec.chain}",
                    where=where,
                    remedy=f"one of {known}",
                )
        self._chains, self._trouble = chains, dict[str, str]()
        self._policy = None
        if self._specs:
            name = config.policies.get(KIND, KIND)
            try:
                self._policy = spec_of(name, config.settings_of(KIND))
            except LookupError as error:
                raise ConfigError(str(error), where=where, remedy="`keeper policy list`") from error
        self._tools = Tools(
            config.home,
            store,
            executor,
            keeper,
            record,
            metrics,
            {chain: trio.Lock() for chain in chains},
        )
        self.desks: list[Desk] = []

    async def run(self) -> None:
        """Work on every venue until cancelled."""
        async with trio.open_nursery() as nursery:
            for spec in self._specs:
                nursery.start_soon(self._one, spec)

    async def _one(self, spec: VenueSpec) -> None:
        desk = await self._open(spec)
        self.desks.append(desk)
        await desk.run()

    async def _open(self, spec: VenueSpec) -> Desk:
        """Return the desk of a venue, asking again until its contracts answer as they should."""
        assert self._policy is not None
        while True:
            try:
                venue = await open_venue(spec, self._chains[spec.chain], self._tools.keeper)
            except (RemoteFault, ValueError) as fault:
                if self._trouble.get(spec.name) != str(fault):
                    log.warning("venue_waits", venue=spec.name, error=str(fault))
                self._trouble[spec.name] = str(fault)
                await trio.sleep(RETRY_S)
                continue
            self._trouble.pop(spec.name, None)
            return Desk(spec.name, venue, spec.first_block, self._policy, self._tools)

    def status(self) -> list[dict[str, Any]]:
        """Return what /status shows: every desk, and venues that could not be opened yet."""
        waiting = [{"venue": name, "trouble": why} for name, why in self._trouble.items()]
        return [desk.status() for desk in self.desks] + waiting
