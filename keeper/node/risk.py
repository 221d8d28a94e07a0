"""The risk of the newest snapshot, as metrics and as a file that `keeper risk` reads.

newest final snapshot ─ every `EVERY_S` ─┬▶ book, marks ─▶ report (in a thread) ─▶ gauges
                                         │           └──▶ HOME/tick (replaced whole)
                                         └▶ the clearing sum (conserved.py)
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import structlog
import trio

from keeper.clear import breakers
from keeper.margin import book as books
from keeper.margin import dump
from keeper.margin.dump import TickFile
from keeper.margin.marks import Marks, Unpriced
from keeper.margin.report import export, report
from keeper.node.conserved import Conservation
from keeper.node.parts import Parts
from keeper.observe.table import Table
from keeper.snapshot import governed
from keeper.snapshot.derive import Snapshot
from keeper.units import ChainId, ceil_div
from keeper.venue.book import funding

log = structlog.get_logger(__name__)

EVERY_S = 10.0
"""A report of a million accounts takes under a second; this leaves the cores to the agreement."""
ENGINE = "numpy"
"""Not numba: compiling it would cost a node seconds and tens of megabytes at its start."""


class RiskWork:
    """Reports on whatever snapshot is newest."""

    def __init__(self, parts: Parts, newest: Callable[[], Snapshot | None]) -> None:
        self._parts, self._newest = parts, newest
        chains = {chain: watcher.chain for chain, watcher in parts.watchers.items()}
        self._conserved = Conservation(parts.network, chains, parts.metrics)
        self._seen = 0
        self._governed = b""

    async def run(self) -> None:
        """Report until cancelled."""
        while True:
            await trio.sleep(EVERY_S)
            snapshot = self._newest()
            if snapshot is None or snapshot.header.view == self._seen or not snapshot.legs:
                continue
            tables = self._tables(snapshot)
            if tables is None:
                continue
            self._seen = snapshot.header.view
            self._tell_parameters(snapshot)
            await trio.to_thread.run_sync(self._report, snapshot, tables)
            await self._conserved.check(snapshot, tables)

    def _tell_parameters(self, snapshot: Snapshot) -> None:
        """Log what became of a proposal of governance, once."""
        state = snapshot.book.rules.get(governed.STATE, b"")
        if state != self._governed:
            self._governed, now = state, governed.decode(state)
            digest = governed.in_force(self._parts.parameters, state).digest.hex()
            if now.why:
                log.warning("parameters_refused", why=now.why, in_force=digest)
            else:
                log.info("parameters_in_force", digest=digest, view=snapshot.header.view)

    def _tables(self, snapshot: Snapshot) -> dict[ChainId, Table] | None:
        """Return the tables at the snapshot's cut, or None where an index no longer holds one."""
        found = {}
        for chain, ref in snapshot.cut.items():
            index = self._parts.watchers[chain].index
            table = index.at(ref.number, ref.hash, ref.account_root)
            if table is None:
                return None
            found[chain] = table
        return found

    def _report(self, snapshot: Snapshot, tables: Mapping[ChainId, Table]) -> None:
        tick = tick_of(self._parts, snapshot, tables)
        try:
            found = report(tick.book, tick.marks, tick.parameters.breakers, engine=ENGINE)
        except Unpriced:
            return  # a market without a price yet: the next report has it
        export(found, self._parts.metrics)
        write_whole(self._parts.home / "tick", dump.dump(tick))


def tick_of(parts: Parts, snapshot: Snapshot, tables: Mapping[ChainId, Table]) -> TickFile:
    """Return a snapshot as a tick file."""
    network = parts.network
    state = snapshot.book.rules.get(governed.STATE, b"")
    parameters = governed.in_force(parts.parameters, state)
    now_ms = network.genesis_time_ms + snapshot.header.tick * network.tick_ms
    ages = {
        chain: max(0, ceil_div(now_ms - ref.timestamp * 1000, 1000))
        for chain, ref in snapshot.cut.items()
    }
    marks = Marks(
        {market: price.price_e8 for market, price in snapshot.book.prices.items()},
        funding(network, tables),
        parameters.margin,
        ages,
    )
    rows = [
        (account, entry.sequence, 0, snapshot.legs.get(account, ()))
        for account, entry in sorted(snapshot.book.registry.items(), key=lambda item: item[1].index)
    ]
    board = breakers.decode(snapshot.book.rules["breakers"]).board
    return TickFile(parameters, marks, books.build(rows), board)


def write_whole(path: Path, raw: bytes) -> None:
    """Replace a file so that a reader sees the old or the new one, never a part."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(raw)
    aside.replace(path)
