"""`keeper peers`: who is there, how far, how late, and what was wrong with what they said."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config
from keeper.cli.output import JsonFlag, print_json, print_table
from keeper.cli.status import fetch
from keeper.reasons import TEXTS, Reason

app = typer.Typer()

COLUMNS = ("peer", "role", "link", "round trip", "lateness", "score", "dropped")


def peer_rows(peers: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return the table's cells, members first, the best connected first."""
    order = {"committee": 0, "bonded": 1, "follower": 2}
    ranked = sorted(peers, key=lambda p: (order.get(p["role"], 3), not p["connected"], p["peer"]))
    return [
        (
            peer["peer"],
            peer["role"],
            _link(peer),
            _milliseconds(peer.get("round_trip_ms")),
            _milliseconds(peer.get("lateness_ms")),
            f"{peer['score']:.1f}",
            _dropped(peer["drops"]),
        )
        for peer in ranked
    ]


def _link(peer: Mapping[str, Any]) -> str:
    if peer["standing"] != "good":
        return str(peer["standing"])
    return "up" if peer["connected"] else "down"


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def _dropped(drops: Mapping[str, int]) -> str:
    most = sorted(drops.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{TEXTS[Reason(reason)][0]} {count}" for reason, count in most) or "-"


@app.command()
def peers(
    home: Annotated[Path, typer.Option(help="The node's home.")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Show every peer: role, link, round trip, lateness of votes, score, drops by reason."""
    settings = config.load(home.resolve())
    found = fetch(settings.http_host, settings.http_port)["peers"]
    if as_json:
        print_json(found)
        return
    print_table(COLUMNS, peer_rows(found))
