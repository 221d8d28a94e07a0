"""`keeper route check`: is somebody else's plan what it says, and how far from the best?"""

from pathlib import Path
from typing import Annotated

import typer

from keeper.cli.files import read_json
from keeper.cli.output import JsonFlag, print_json, print_rows
from keeper.errors import ConfigError
from keeper.route.files import graph_of, place_text
from keeper.route.plans import quote_of, read_plan
from keeper.route.quote import check_quote


def check(
    plan: Annotated[Path, typer.Argument(help="A plan, as `keeper route quote --json` writes it.")],
    graph: Annotated[Path, typer.Option(help="Your own view of lanes and pools.")],
    most_gap: Annotated[
        int, typer.Option("--gap", min=0, help="Most below its bound to accept, in ppb.")
    ] = 1_000_000,
    as_json: JsonFlag = False,
) -> None:
    """Check a plan before you pay for it: nothing is solved, and nothing it says is believed.

    Every hop is computed again over your own graph, and its bound is proven from its prices. The
    exit status is 1 if it is refused.
    """
    try:
        mine = graph_of(graph.read_text("utf-8"), str(graph))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(graph)) from error
    value = read_json(plan)
    claimed = read_plan(value.get("plan") if isinstance(value, dict) else None, str(plan))
    found = quote_of(mine, claimed)
    if isinstance(found, str):
        raise ConfigError(found, where=str(plan), remedy="does the graph have its ways?")
    request, sealed = found.request, found.certificate
    fault = check_quote(mine, request, found, most_gap)
    if as_json:
        print_json({"check": fault or "ok", "gap_ppb": sealed.gap_ppb})
    else:
        ends = f"{place_text(request.origin)} to {place_text(request.destination)}"
        rows = [("asked", f"{request.amount} from {ends}"), ("sent", found.sent)]
        rows += [("delivered, at least", found.delivered), ("no plan delivers over", sealed.bound)]
        rows += [("gap", f"{sealed.gap_ppb} ppb"), ("check", fault or "ok")]
        print_rows("Plan", rows)
    if fault:
        raise typer.Exit(1)
