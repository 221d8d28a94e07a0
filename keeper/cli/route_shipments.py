"""`keeper route shipments | forget`: what the routing policy moved, and what became of it."""

from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config
from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.cli.status import fetch
from keeper.errors import ConfigError, StoreError, UnreachableError
from keeper.route.shipment_book import ShipmentBook
from keeper.route.shipments import Shipment, State
from keeper.store import Store
from keeper.units import symbol_text

Home = Annotated[Path, typer.Option(help="The node's home.")]


def shipments(
    home: Home = Path(),
    going: Annotated[bool, typer.Option("--open", help="Only those on their way.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List this keeper's own transfers over bridges, the newest first.

    "late" ones take far too long, or are not as they should be: `keeper status` says which of the
    two, and their bridge is not used until they end.
    """
    found = [one for one in reversed(_read(home)) if one.open or not going]
    rows = [_plain(one) for one in found]
    if as_json:
        print_json(rows)
        return
    if not rows:
        print_rows("", [("shipments", "none")])
        return
    cells = [
        (
            row["shipment"][:12],
            row["asset"],
            f"{row['origin']} → {row['destination']}",
            row["amount"],
            f"{row['state']}, late" if row["late"] else row["state"],
        )
        for row in rows
    ]
    print_table(("shipment", "asset", "from → to", "amount", "state"), cells, "Shipments")


def forget(
    shipment: Annotated[str, typer.Argument(help="Its id, or the first digits.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Write off a transfer that will never end, so that its bridge may be used again.

    Stop the node first. What was sent then counts no longer as on its way, nor behind its verifier;
    should it arrive after all, it is there.
    """
    settings = config.load(home.resolve())
    with suppress(UnreachableError):
        fetch(settings.http_host, settings.http_port, "/livez")
        raise ConfigError(
            "the node is running, and would not see it",
            where=str(settings.home),
            remedy="stop it, write the transfer off, and start it again",
        )
    found = [one for one in _read(home) if one.id.hex().startswith(shipment.removeprefix("0x"))]
    if len(found) != 1:
        raise ConfigError(
            f"{len(found)} shipments start with {shipment!r}",
            where=str(settings.store_file),
            remedy="`keeper route shipments` lists them; give more of its digits",
        )
    (one,) = found
    if not (one.open and one.told):
        raise ConfigError(
            f"shipment {one.id.hex()[:12]} is {one.state.value}, and not late",
            where=str(settings.store_file),
            remedy="only one that is on its way and late can be written off",
        )
    after = replace(one, state=State.FORGOTTEN, why=f"{one.why}; written off")
    with closing(Store(settings.store_file)) as store:
        ShipmentBook(store).put(after)
    print_json(_plain(after)) if as_json else print_rows("written off", list(_plain(after).items()))


def _read(home: Path) -> list[Shipment]:
    settings = config.load(home.resolve())
    try:
        with closing(Store(settings.store_file, read_only=True)) as store:
            return ShipmentBook(store).all()
    except StoreError as error:
        raise ConfigError(
            "no transfers are kept here",
            where=str(settings.store_file),
            remedy='run the node with routing = "routing" in [policies] first',
        ) from error


def _plain(one: Shipment) -> dict[str, Any]:
    return {
        "shipment": one.id.hex(),
        "asset": symbol_text(one.crossing.asset),
        "origin": one.crossing.origin,
        "destination": one.crossing.destination,
        "amount": one.amount,
        "state": one.state.value,
        "late": one.open and one.told,
        "decided_ms": one.decided_ms,
        "left_ms": one.left_ms,
        "ended_ms": one.ended_ms,
        "why": one.why,
    }
