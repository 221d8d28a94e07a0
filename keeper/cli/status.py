"""`keeper status`: what a running node says of itself."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config
from keeper.cli.output import JsonFlag, print_json, print_rows
from keeper.errors import UnreachableError

app = typer.Typer()


def fetch(host: str, port: int, path: str = "/status", timeout_s: float = 5.0) -> Any:
    """Return the JSON a node serves.

    Raises:
        UnreachableError: the node does not answer.
    """
    url = f"http://{host}:{port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return json.load(error)
    except (OSError, ValueError) as error:
        raise UnreachableError(
            f"the node does not answer: {error}", where=url, remedy="is `keeper run` running?"
        ) from error


@app.command()
def status(
    home: Annotated[Path, typer.Option(help="The node's home.")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Show what the running node does: phase, views, seals, accounts, health."""
    settings = config.load(home.resolve())
    value = fetch(settings.http_host, settings.http_port)
    if as_json:
        print_json(value)
        return
    health = value.pop("health")
    reasons = "; ".join(text for _, text in health["reasons"])
    print_rows("Keeper", [("ready", "yes" if health["ready"] else f"no: {reasons}")])
    print_rows("", [(name, item) for name, item in value.items() if item not in (None, [], {})])
