"""`keeper run`: run the node of a home until it is stopped."""

import contextlib
import dataclasses
import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import structlog
import trio
import typer

from keeper import config, keys, network
from keeper.node.node import Node
from p2p.frost.keyfile import QUICK, SAFE

app = typer.Typer()


def start_logging(level: str, *, as_json: bool) -> None:
    """Send structured log lines to stderr."""
    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )


@app.command()
def run(
    home: Annotated[Path, typer.Option(help="The node's home.")] = Path(),
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_json: Annotated[bool, typer.Option(help="Log JSON lines.")] = False,
    follow: Annotated[
        bool, typer.Option(help="Only follow: no bids, no transactions, whatever the mode is.")
    ] = False,
    quick_keys: Annotated[
        bool, typer.Option(help="Cheap key files, for devnets whose keys guard nothing.")
    ] = False,
    record: Annotated[
        Path | None, typer.Option(help="Record the agreement's inputs here, for `keeper replay`.")
    ] = None,
) -> None:
    """Run the keeper. Stop it with Ctrl-C or SIGTERM; it goes on from its database."""
    start_logging(log_level, as_json=log_json)
    settings = config.load(home.resolve())
    if follow:
        settings = dataclasses.replace(settings, mode="off")
    opened = keys.load(settings.keys, settings.password())
    spec, work = network.load(settings.network_file), QUICK if quick_keys else SAFE
    with contextlib.ExitStack() as stack:
        opener = None if record is None else Records(record, stack).open
        trio.run(_run, Node(settings, spec, opened, work, opener))


class Records:
    """One flight record an epoch: PATH for the first, PATH.EPOCH for each after it."""

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self._path, self._stack, self._opened = path, stack, False

    def open(self, epoch: int) -> BinaryIO:
        """Open the record of an epoch; a file that exists is never written to."""
        path = self._path
        if self._opened:
            path = path.with_name(f"{path.name}.{epoch}")
        self._opened = True
        return self._stack.enter_context(path.open("xb"))


async def _run(node: Node) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, nursery.cancel_scope)
        await node.run()


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            scope.cancel()
            return
