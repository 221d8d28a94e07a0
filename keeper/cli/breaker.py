"""`keeper breaker list | explain`: which breakers are open, what they hold back, and why."""

from pathlib import Path
from typing import Annotated

import typer

from keeper.cli.output import JsonFlag, print_json, print_table
from keeper.cli.risk import reported
from keeper.margin import dump
from keeper.margin.breaker import GRADES, Board, Rule, explain, next_board, scope_text
from keeper.margin.readings import AgeReading, ExposureReading, Reading
from keeper.margin.report import cascade_reading
from keeper.units import PPM

app = typer.Typer(no_args_is_help=True, help="Circuit breakers: which are open, and why.")


def judged(tick: dump.TickFile, depth: int | None, insurance: int | None) -> Board:
    """Return the board of a tick file: its own trips, and those that follow from its figures."""
    limits = tick.parameters.breakers
    found = reported(tick, depth)
    readings: list[Reading] = [AgeReading(chain, age) for chain, age in found.ages]
    readings.append(ExposureReading(found.exposure))
    if insurance is not None:
        readings.append(cascade_reading(found, insurance))
    return next_board(tick.board, readings, max((t.since for t in tick.board), default=0), limits)


@app.command("list")
def list_(
    tick: Annotated[Path, typer.Argument(help="A tick file (keeper.margin.dump).")],
    depth: Annotated[
        int | None,
        typer.Option(min=1, help="Dollars that move the market by a factor e; as agreed if unset."),
    ] = None,
    insurance: Annotated[
        int | None, typer.Option(min=0, help="Dollars in the insurance fund: judges cascades too.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the breakers that are open."""
    fund = None if insurance is None else insurance * PPM
    board = judged(dump.read(tick), depth, fund)
    if as_json:
        rows = [
            {
                "rule": trip.rule.value,
                "scope": scope_text(trip.scope),
                "grades": {a.name.lower(): g.name.lower() for a, g in trip.grades},
                "until": trip.until,
                "why": trip.why,
            }
            for trip in board
        ]
        print_json(rows)
    elif not board:
        typer.echo("every breaker is closed")
    else:
        cells = [
            (
                trip.rule.value,
                scope_text(trip.scope),
                ", ".join(f"{a.name.lower()} {g.name.lower()}" for a, g in trip.grades),
                trip.why,
            )
            for trip in board
        ]
        print_table(("breaker", "scope", "holds back", "why"), cells)


@app.command("explain")
def explain_(
    rule: Annotated[Rule | None, typer.Argument(help="One breaker; all without it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what a breaker is for, what it holds back and when it lets go."""
    rules = list(Rule) if rule is None else [rule]
    if as_json:
        print_json(
            {
                one.value: {
                    "text": explain(one),
                    "grades": {a.name.lower(): g.name.lower() for a, g in GRADES[one]},
                }
                for one in rules
            }
        )
        return
    typer.echo("\n\n".join(explain(one) for one in rules))
