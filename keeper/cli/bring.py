"""`keeper snapshot bring`: certified decisions to their contracts, by anyone.

archive, newest book ─▶ decisions that no chain has shown yet ─▶ seal and proof ─▶ one transaction

Members of the committee bring them by themselves. This is for when they do not, or not fast enough.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from keeper.cli.account import open_archive
from keeper.cli.onchain import read_secret, send
from keeper.cli.output import JsonFlag, print_json, print_sent, print_table
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError
from keeper.settle.seals import certify
from keeper.settle.service import CARRIED
from keeper.snapshot.archive import Archive
from keeper.snapshot.decisions import Decision
from keeper.venue.calls import bring as call_of

GAS = 1_500_000


def waiting(archive: Archive) -> list[Decision]:
    """Return what is decided, and not yet seen on its chain."""
    held = archive.newest_book()
    found = () if held is None else held[1].outstanding
    return [decision for decision in found if decision.kind in CARRIED]


def bring(
    name: Annotated[str, typer.Argument(help="A decision's leaf, or how it begins.")] = "",
    key: Annotated[Path | None, typer.Option(help="Key file of whoever pays the gas.")] = None,
    home: Annotated[Path, typer.Option(help="The node's home.")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Bring a certified decision to its chain; without a key, list what waits for that.

    Contracts take a decision from anybody: the seal is what counts.
    """
    settings, spec, archive = open_archive(home)
    prefix = name.removeprefix("0x").lower()
    found = [one for one in waiting(archive) if one.leaf.hex().startswith(prefix)]
    if key is None:
        _show(archive, found, as_json)
        return
    if not prefix or len(found) != 1:
        raise ConfigError(
            f"{len(found)} decisions that wait begin with {name!r}",
            where="LEAF",
            remedy="keeper snapshot bring, without a key, lists them",
        )
    (decision,) = found
    archived = archive.find_leaf(decision.leaf, 0)
    if archived is None:
        raise ConfigError(
            "its seal is not here yet", where=str(home), remedy="wait for it: keeper status"
        )
    certified = certify(spec.id, archived, decision.leaf)
    call = call_of(decision, certified.seal, certified.proof)
    sent = send(settings, call.chain, read_secret(key), [Send(call.to, call.data, gas=GAS)])
    if as_json:
        print_json({"leaf": decision.leaf, "transactions": sent})
        return
    print_sent(sent, f"Brought {decision.kind}")


def _show(archive: Archive, found: list[Decision], as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "leaf": decision.leaf,
            "kind": decision.kind,
            "chain": decision.chain,
            "sealed": archive.find_leaf(decision.leaf, 0) is not None,
            "until_block": decision.expiry,
        }
        for decision in found
    ]
    if as_json:
        print_json(rows)
        return
    cells = [(row["leaf"].hex()[:16], *list(row.values())[1:]) for row in rows]
    print_table(("leaf", "kind", "chain", "sealed", "until block"), cells, "Waiting")
