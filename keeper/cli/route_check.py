"""`keeper route check`: is somebody else's plan what it says, and how far from the best?"""

from pathlib import Path
from typing import Annotated

import typer

from keeper.cli.files import read_json
from keeper.cli.output import JsonFlag, print_json, print_rows
from keeper.errors import ConfigError
from keeper.route.files import graph_of
from keeper.route.plans import plain_plan, quote_of, read_plan
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

    Every hop is computed again over your own graph, and its bound is proven from its prices. What
    was asked is the plan's: is it what you would ask? The exit status is 1 if it is refused.
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
    sealed, asked = found.certificate, plain_plan(claimed)["request"]
    fault = check_quote(mine, found.request, found, most_gap)
    if as_json:
        print_json({"check": fault or "ok", "gap_ppb": sealed.gap_ppb, "request": asked})
    else:
        ends = f"{asked['from']} to {asked['to']}"
        rows: list[tuple[str, object]] = [("asked", f"{asked['amount']} from {ends}")]
        rows += [("within", f"{asked['deadline_ms']} ms")] if asked["deadline_ms"] else []
        rows += [("at most", f"{most} behind {one}") for one, most in asked["limits"].items()]
        rows += [("not over", bridge) for bridge in asked["exclude"]]
        rows += [("sent", found.sent)]
        rows += [("delivered, at least", found.delivered), ("no plan delivers over", sealed.bound)]
        rows += [("gap", f"{sealed.gap_ppb} ppb"), ("check", fault or "ok")]
        print_rows("Plan", rows)
    if fault:
        raise typer.Exit(1)
