"""`keeper risk`: liquidation at risk, stress, concentration and exposure of one tick."""

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.errors import LocalError
from keeper.margin import dump
from keeper.margin.batch import available
from keeper.margin.plot import dollars, percent, svg
from keeper.margin.report import HEALTH_EDGES, Report, report
from keeper.parameters import BridgeClass
from keeper.units import PPM

app = typer.Typer()


@app.command()
def risk(
    tick: Annotated[Path, typer.Argument(help="A tick file (keeper.margin.dump).")],
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="Dollars that move the market by a factor e; as agreed if unset."),
    ] = None,
    engine: Annotated[str, typer.Option(help="python, numpy or numba; the best by default.")] = "",
    plot: Annotated[Path | None, typer.Option("--svg", help="Write the curve here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what a falling or rising market would liquidate, and what it would leave unpaid."""
    if engine and engine not in available():
        raise typer.BadParameter(f"{engine} is not one of {', '.join(available())}")
    found = reported(dump.read(tick), depth, engine)
    if plot is not None:
        plot.write_text(svg(found))
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        _print(found)


def reported(tick: dump.TickFile, depth: int | None, engine: str = "") -> Report:
    """Return the risk of a tick.

    Raises:
        LocalError: a leg of it has no price or parameters.
    """
    try:
        asked = (depth or 0) * PPM
        return report(tick.book, tick.marks, tick.parameters.breakers, asked, engine=engine)
    except ValueError as error:
        remedy = "dump the tick again once every market has a price"
        raise LocalError(f"the tick cannot be valued: {error}", remedy=remedy) from error


def _print(found: Report) -> None:
    print_rows(
        "Accounts",
        [
            ("count", found.count),
            ("unhealthy / watched", f"{found.unhealthy} / {found.watched}"),
            ("equity", dollars(found.equity)),
            ("IMR / MMR", f"{dollars(found.imr)} / {dollars(found.mmr)}"),
            ("notional", dollars(found.gross)),
            ("concentration (HHI)", found.hhi),
            ("market depth", dollars(found.depth)),
            ("cascade multiplier", f"{found.multiplier_ppm / PPM:.2f} (alarm above 1)"),
        ],
    )
    edges = [f"{edge / PPM:g}" for edge in HEALTH_EDGES]
    names = [f"below {edges[0]}", *(f"{a} … {b}" for a, b in pairwise(edges))]
    bins = zip([*names, f"from {edges[-1]}"], found.histogram, strict=True)
    print_table(("health", "accounts"), bins, "Health")
    columns = ("move", "liquidated", "bad debt", "after the cascade")
    for title, points in (("Prices fall", found.points), ("Prices rise", found.rising)):
        rows = [
            (
                percent(p.fall_ppm),
                dollars(p.liquidated),
                dollars(p.bad_debt),
                percent(p.cascade_ppm),
            )
            for p in points
        ]
        print_table(columns, rows, title)
    stresses = [(s.name, s.unhealthy, dollars(s.bad_debt)) for s in found.stresses]
    print_table(("scenario", "unhealthy", "bad debt"), stresses, "Stress")
    exposed = zip((c.name.lower() for c in BridgeClass), map(dollars, found.exposure), strict=True)
    print_table(("bridge class", "collateral"), exposed, "Exposure")
    print_table(("chain", "state age"), [(c, f"{age} s") for c, age in found.ages], "Age")
