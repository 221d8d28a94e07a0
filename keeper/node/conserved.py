"""Whether every unit is somewhere, once, in the newest snapshot: checked while the node runs.

newest final snapshot ─▶ clearing sums ─┐
balanceOf(vault) at the cut's blocks ───┴─▶ faults ─▶ gauges, one log line each

More tokens than are counted are no fault: anybody may send some to a vault.
"""

from collections.abc import Mapping
from typing import Protocol

import structlog
import trio
from eth_abi.abi import encode

from keeper.chain.port import BlockRef
from keeper.clear.conservation import clearing_sums, faults
from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.metrics import Metrics
from keeper.network import NetworkSpec
from keeper.observe.table import Table
from keeper.snapshot.derive import Snapshot
from keeper.units import BlockNumber, ChainId

log = structlog.get_logger(__name__)

BALANCE_OF = keccak(b"balanceOf(address)")[:4]

Held = dict[tuple[ChainId, bytes], int]
"""(chain, token) → what the token contract says the vault holds."""


class Reads(Protocol):
    """A chain that answers calls at a block."""

    async def call(self, to: bytes, data: bytes, at: BlockRef) -> bytes:
        """Return what a contract answers, or raise `RemoteFault`."""
        ...


class Conservation:
    """Checks the clearing sum of snapshots."""

    def __init__(
        self, network: NetworkSpec, chains: Mapping[ChainId, Reads], metrics: Metrics
    ) -> None:
        self._network, self._chains = network, chains
        self._faults = metrics.gauge(
            "keeper_clearing_faults", "Sums that do not add up in the newest checked view."
        )
        self._view = metrics.gauge("keeper_clearing_checked_view", "Newest view that was summed.")
        self._unread = metrics.counter(
            "keeper_clearing_unread_total", "Vault balances that could not be read.", ("chain",)
        )

    async def check(self, snapshot: Snapshot, tables: Mapping[ChainId, Table]) -> tuple[str, ...]:
        """Check one snapshot and return what does not add up, one sentence each.

        Args:
            snapshot: final.
            tables: the records of each chain at its cut.
        """
        rules = snapshot.book.rules
        sums = await trio.to_thread.run_sync(clearing_sums, self._network, tables, rules)
        held = {
            place: min(amount, sums.held.get(place, 0))
            for place, amount in (await self._held(snapshot)).items()
        }
        found = faults(self._network, sums, held)
        for text in found:
            log.error("not_conserved", view=snapshot.header.view, what=text)
        self._faults.set(len(found))
        self._view.set(snapshot.header.view)
        return found

    async def _held(self, snapshot: Snapshot) -> Held:
        """Return what vaults hold at the cut; a token that cannot be read is counted and left."""
        found: Held = {}
        for chain, ref in snapshot.cut.items():
            spec = self._network.chain(chain)
            vault = spec.contract("Vault")
            if vault is None:
                continue
            at = BlockRef(chain, BlockNumber(ref.number), ref.hash)
            for token in spec.tokens:
                data = BALANCE_OF + encode(("address",), (vault,))
                try:
                    answer = await self._chains[chain].call(token.address, data, at)
                except RemoteFault:
                    self._unread.labels(str(chain)).inc()
                    continue
                found[chain, token.address] = int.from_bytes(answer[:32], "big")
        return found
