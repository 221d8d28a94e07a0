"""How every verb prints: a table for people, JSON for machines, colour that can be off."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def console(*, err: bool = False) -> Console:
    """Return a console that obeys NO_COLOR and is plain when piped."""
    return Console(stderr=err, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON value on one line; bytes are 0x text."""

    def plain(item: object) -> object:
        if isinstance(item, bytes):
            return "0x" + item.hex()
        return str(item)

    sys.stdout.write(json.dumps(value, default=plain) + "\n")


def print_rows(title: str, rows: Iterable[tuple[str, object]]) -> None:
    """Print names and values as two columns."""
    table = Table(title=title, show_header=False, box=None, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, str(value))
    console().print(table)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Print a table with a header."""
    table = Table(*columns, title=title or None, title_justify="left")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console().print(table)


def print_sent(transactions: Sequence[str], title: str = "Sent") -> None:
    """Print the hashes of transactions that a verb has sent."""
    print_table(("transaction",), [(one,) for one in transactions], title)
