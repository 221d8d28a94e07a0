"""`keeper route`: the best way between two places, its bound, and why the rest was left out."""

from pathlib import Path
from typing import Annotated, Any

import typer

from keeper.cli import (
    route_check,
    route_lanes,
    route_pools,
    route_rebalance,
    route_shipments,
)
from keeper.cli.output import JsonFlag, console, print_json, print_rows, print_table
from keeper.errors import ConfigError
from keeper.route.files import graph_of, place_of, place_text
from keeper.route.graph import Graph, Place
from keeper.route.plans import plain_plan, plan_of
from keeper.route.quote import Quote, Request, check_quote, name_of, quote

app = typer.Typer(no_args_is_help=True)
app.command("lanes")(route_lanes.lanes)
app.command("pools")(route_pools.pools)
app.command("check")(route_check.check)
app.command("rebalance")(route_rebalance.plan)
app.command("shipments")(route_shipments.shipments)
app.command("forget")(route_shipments.forget)

GraphFile = Annotated[Path, typer.Option("--graph", help="The lanes and pools, as JSON.")]
Origin = Annotated[str, typer.Option("--from", help="Where the funds are, as chain:SYMBOL.")]
Target = Annotated[str, typer.Option("--to", help="Where they are wanted, as chain:SYMBOL.")]
Amount = Annotated[int, typer.Option(min=1, help="In 10**-decimals of the asset.")]
Deadline = Annotated[int, typer.Option(min=0, help="Seconds until delivery; 0: none.")]
Limits = Annotated[
    list[str] | None, typer.Option("--limit", help="Most behind a verifier: 0x…=amount.")
]


def _limits(texts: list[str] | None) -> tuple[tuple[bytes, int], ...]:
    found = []
    for text in texts or ():
        verifier, _, amount = text.partition("=")
        try:
            found.append((bytes.fromhex(verifier.removeprefix("0x")), int(amount)))
        except ValueError as error:
            raise ConfigError(f"{text!r} is not a limit; write 0x…=amount") from error
    return tuple(found)


def _ask(
    path: Path, origin: str, target: str, amount: int, deadline: int, limits: list[str] | None
) -> tuple[Graph, Quote]:
    try:
        graph = graph_of(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(path)) from error
    start, end = place_of(origin), place_of(target)
    if start == end:
        raise ConfigError(f"{origin} is both ends of the route")
    return graph, quote(graph, Request(start, end, amount, deadline * 1000, _limits(limits)))


@app.command("quote")
def quote_(
    graph: GraphFile,
    origin: Origin,
    target: Target,
    amount: Amount,
    deadline: Deadline = 0,
    limit: Limits = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the best plan, hop by hop; with --json a plan that others can check."""
    read, found = _ask(graph, origin, target, amount, deadline, limit)
    if as_json:
        print_json(_plain(read, found))
        return
    rows = [
        (
            name_of(hop.edge.way),
            place_text(hop.edge.origin),
            hop.amount,
            place_text(hop.edge.destination),
            hop.least_out,
            f"{hop.done_ms / 1000:g} s",
        )
        for hop in found.hops
    ]
    print_table(("through", "from", "amount", "to", "at least", "by"), rows, "Route")
    _print_sum(found)


@app.command()
def explain(
    graph: GraphFile,
    origin: Origin,
    target: Target,
    amount: Amount,
    deadline: Deadline = 0,
    limit: Limits = None,
    as_json: JsonFlag = False,
) -> None:
    """Draw the plan, what was left out and why, and check its bound as a peer would."""
    read, found = _ask(graph, origin, target, amount, deadline, limit)
    fault = check_quote(read, found.request, found, 10**9)
    if as_json:
        print_json({**_plain(read, found), "check": fault or "ok"})
        return
    for line in drawn(found):
        console().print(line, markup=False)
    if found.left_out:
        print_table(("left out", "why"), found.left_out)
    _print_sum(found)
    console().print(f"peer's check: {fault or 'ok'}", markup=False)


def _plain(graph: Graph, found: Quote) -> dict[str, Any]:
    """Return the plan, for `keeper route check`, and what is of use to a person beside it."""
    return {
        "plan": plain_plan(plan_of(graph, found)),
        "gap_ppb": found.certificate.gap_ppb,
        "latency_ms": found.latency_ms,
        "router": found.solver,
        "through": [{"way": name_of(h.edge.way), "done_ms": h.done_ms} for h in found.hops],
        "left_out": [{"way": way, "why": why} for way, why in found.left_out],
    }


def drawn(found: Quote) -> list[str]:
    """Return the plan as a tree of lines from the origin to the destination."""
    lines = [f"{place_text(found.request.origin)}  {found.sent}"]

    def grow(place: Place, indent: str) -> None:
        hops = [hop for hop in found.hops if hop.edge.origin == place]
        for at, hop in enumerate(hops):
            last = at == len(hops) - 1
            lines.append(
                f"{indent}{'└' if last else '├'}─ {hop.amount} ─▶ {name_of(hop.edge.way)}"
                f" ─▶ {place_text(hop.edge.destination)}  {hop.least_out}"
                f"  by {hop.done_ms / 1000:g} s"
            )
            first = next(one for one in found.hops if one.edge.destination == hop.edge.destination)
            if first is hop:  # what several hops feed is drawn once
                grow(hop.edge.destination, indent + ("   " if last else "│  "))

    grow(found.request.origin, "")
    return lines


def _print_sum(found: Quote) -> None:
    sealed = found.certificate
    print_rows(
        "",
        [
            ("sent", found.sent),
            ("delivered, at least", found.delivered),
            ("no plan delivers over", sealed.bound),
            ("gap", f"{sealed.gap_ppb} ppb"),
            ("latency (p95)", f"{found.latency_ms / 1000:g} s"),
            ("router", found.solver),
        ],
    )
