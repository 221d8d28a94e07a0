"""`keeper account show | trace`: what the certified state says of one account, and how it came so.

    newest final view ─ cut ─▶ logs up to exactly these blocks ─▶ tables, roots as in the cut?
    book ─ prices, ledger, outstanding ──────────────────────────▶ legs, margin, what is in flight
    archive ─────────────────────────────────────────────────────▶ trace: every decision about it

Needs the node's home and its endpoints; a running node is not disturbed. Where a root differs from
the cut, the endpoint does not tell what the keepers agreed on, and the answer says so.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from keeper import config, network
from keeper.chain.http import HttpRpc
from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.errors import ConfigError
from keeper.legs import Leg
from keeper.margin.engine import AccountMargin, Engine
from keeper.margin.marks import Marks, Unpriced
from keeper.network import NetworkSpec
from keeper.observe.table import EMPTY, Log, Table
from keeper.parameters import Parameters
from keeper.snapshot import governed
from keeper.snapshot.archive import Archive, Archived
from keeper.snapshot.book import Book
from keeper.snapshot.decisions import CutBlock, Decision
from keeper.store import Store
from keeper.units import ChainId, ceil_div, symbol_text
from keeper.venue.book import accounts, funding

app = typer.Typer(no_args_is_help=True, help="Margin accounts in the certified state.")

Home = Annotated[Path, typer.Option(help="The node's home.")]
Name = Annotated[str, typer.Argument(help="Account id (32 bytes) or owner address (20), in hex.")]
Index = Annotated[int, typer.Option(help="Which of the owner's accounts.")]

SPAN = 5_000
"""Blocks asked of an endpoint at once: what public endpoints allow."""
KINDS = ("collateral", "debt", "perp")


@dataclass(frozen=True, slots=True)
class State:
    """The newest final view with everything it was derived from."""

    spec: NetworkSpec
    view: Archived
    book: Book
    tables: dict[ChainId, Table]
    differing: tuple[ChainId, ...]

    @property
    def parameters(self) -> Parameters:
        """The set in force at the view."""
        state = self.book.rules.get(governed.STATE, b"")
        return governed.in_force(Parameters.decode(self.spec.parameters), state)

    @property
    def prices(self) -> dict[bytes, int]:
        """The agreed price of every market, 10**-8 USD."""
        return {market: price.price_e8 for market, price in self.book.prices.items()}

    def engine(self) -> Engine:
        """Return the margin model at the view's marks."""
        now_ms = self.spec.genesis_time_ms + self.view.header.tick * self.spec.tick_ms
        ages = {
            ref.chain: max(0, ceil_div(now_ms - ref.timestamp * 1000, 1000))
            for ref in self.view.header.cut
        }
        marks = Marks(self.prices, funding(self.spec, self.tables), self.parameters.margin, ages)
        return Engine(marks)

    def margin(self, legs: tuple[Leg, ...]) -> AccountMargin | None:
        """Return the margin of legs at the view's marks, or None where a price is missing."""
        engine = self.engine()
        try:
            return engine.margin(engine.rows(legs))
        except Unpriced:
            return None


def open_archive(home: Path) -> tuple[config.Config, NetworkSpec, Archive]:
    """Return settings, descriptor and the archive of a home, read only.

    Raises:
        ConfigError: the home has no archive yet.
    """
    settings = config.load(home.resolve())
    path = settings.store_file
    if not path.exists():
        raise ConfigError("this home has no archive yet", where=str(path), remedy="keeper run")
    archive = Archive(Store(path, read_only=True))
    return settings, network.load(settings.network_file), archive


def account_id(spec: NetworkSpec, name: str, index: int) -> bytes:
    """Return the account a name means.

    Raises:
        ConfigError: it is neither an account id nor an address.
    """
    try:
        raw = bytes.fromhex(name.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) == 32:
        return raw
    if len(raw) == 20:
        return spec.account(raw, index)
    raise ConfigError(f"{name!r} is no account", where="ACCOUNT", remedy="give 32 or 20 hex bytes")


async def _table(rpc: HttpRpc, spec: NetworkSpec, ref: CutBlock) -> Table:
    chain = spec.chain(ref.chain)
    addresses = ["0x" + address.hex() for _, address in chain.contracts]
    table = EMPTY
    for first in range(chain.start_block, ref.number + 1, SPAN):
        last = min(ref.number, first + SPAN - 1)
        query = {"address": addresses, "fromBlock": hex(first), "toBlock": hex(last)}
        table = table.apply(
            Log(
                bytes.fromhex(row["address"][2:]),
                tuple(bytes.fromhex(topic[2:]) for topic in row["topics"]),
                bytes.fromhex(row["data"][2:]),
            )
            for row in await rpc.call("eth_getLogs", [query])
        )
    return table


async def _tables(
    settings: config.Config, spec: NetworkSpec, cut: tuple[CutBlock, ...]
) -> dict[ChainId, Table]:
    tables = {}
    for ref in cut:
        rpc = HttpRpc(settings.endpoints[ref.chain][0])
        try:
            tables[ref.chain] = await _table(rpc, spec, ref)
        finally:
            await rpc.aclose()
    return tables


def load_state(home: Path) -> State:
    """Return the newest final state of a home.

    Raises:
        ConfigError: there is no final view yet.
        RemoteFault: an endpoint does not answer.
    """
    settings, spec, archive = open_archive(home)
    view, held = archive.newest(), archive.newest_book()
    if view is None or held is None:
        raise ConfigError("no view is final here yet", where=str(home), remedy="keeper status")
    tables = trio.run(_tables, settings, spec, view.header.cut)
    differing = tuple(
        ref.chain for ref in view.header.cut if tables[ref.chain].root != ref.account_root
    )
    return State(spec, view, held[1], tables, differing)


def about(decision: Decision, account: bytes) -> bool:
    """Return whether a decision names an account."""
    return account in decision.fields


def _flight(decision: Decision) -> dict[str, Any]:
    return {
        "kind": decision.kind,
        "chain": decision.chain,
        "leaf": decision.leaf,
        "expiry": decision.expiry,
    }


def _leg(leg: Leg) -> dict[str, Any]:
    return {
        "chain": leg.chain,
        "venue": leg.venue,
        "market": symbol_text(leg.market),
        "kind": "unsettled" if leg.kind == 2 and not leg.size else KINDS[leg.kind],
        "size": leg.size,
        "quote_uusd": leg.quote,
    }


@app.command()
def show(name: Name, home: Home = Path(), index: Index = 0, as_json: JsonFlag = False) -> None:
    """Show an account's legs on every chain, its margin, and what is on its way."""
    state = load_state(home)
    account = account_id(state.spec, name, index)
    legs = accounts(state.spec, state.tables, state.book.rules).get(account, ())
    margin = state.margin(legs)
    value: dict[str, Any] = {
        "account": account,
        "view": state.view.header.view,
        "sealed": state.view.seal is not None,
        "certified": not state.differing,
        "legs": [_leg(leg) for leg in legs],
        "outstanding": [_flight(d) for d in state.book.outstanding if about(d, account)],
    }
    if margin is not None:
        value |= {
            "equity_uusd": margin.equity,
            "imr_uusd": margin.imr,
            "mmr_uusd": margin.mmr,
            "requirement_uusd": margin.requirement,
            "free_collateral_uusd": margin.free_collateral,
            "health_ppm": margin.health_ppm,
            "healthy": margin.healthy,
        }
    if as_json:
        print_json(value)
        return
    rows = [(key, item) for key, item in value.items() if not isinstance(item, list)]
    print_rows("Account", [(key, "0x" + i.hex() if isinstance(i, bytes) else i) for key, i in rows])
    columns = ("chain", "kind", "market", "size", "quote µUSD")
    cells = [
        (r["chain"], r["kind"], r["market"], r["size"], r["quote_uusd"]) for r in value["legs"]
    ]
    print_table(columns, cells, "Legs")
    flying = [(r["kind"], r["chain"], r["expiry"]) for r in value["outstanding"]]
    print_table(("decision", "chain", "until block"), flying, "On the way")


@app.command()
def trace(name: Name, home: Home = Path(), index: Index = 0, as_json: JsonFlag = False) -> None:
    """List every decision about an account that this node holds, oldest first."""
    _, spec, archive = open_archive(home)
    account = account_id(spec, name, index)
    held = archive.newest_book()
    flying = {decision.leaf for decision in held[1].outstanding} if held is not None else set()
    found = [
        {
            "view": view.header.view,
            "sealed": view.seal is not None,
            "on_its_way": decision.leaf in flying,
            **_flight(decision),
            "fields": [list(f) if isinstance(f, tuple) else f for f in decision.fields],
        }
        for view in archive.since(0)
        for decision in view.decisions
        if about(decision, account)
    ]
    if as_json:
        print_json(found)
        return
    columns = ("view", "decision", "chain", "until block", "sealed", "on its way")
    cells = [
        (r["view"], r["kind"], r["chain"], r["expiry"], r["sealed"], r["on_its_way"]) for r in found
    ]
    print_table(columns, cells, "Decisions")
