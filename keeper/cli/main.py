"""The `keeper` command: one lazily imported file per group of verbs.

`GROUPS` is the whole table: a group's module is imported only when its verb is used, so `--help`
and tab-completion stay quick.
"""

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from keeper import __version__
from keeper.errors import FlowkeeperError

GROUPS: dict[str, tuple[str, str]] = {
    # verb: (module with `app`, one line of help)
    "devnet": ("keeper.cli.devnet", "Start and drive a local network on real chains."),
    "init": ("keeper.cli.init", "Make a node home: configuration and sealed keys."),
    "bond": ("keeper.cli.bond", "Put a bond at stake, leave, withdraw, claim."),
    "committee": ("keeper.cli.committee", "Make the committee's shared key together."),
    "run": ("keeper.cli.run", "Run the node of a home."),
    "join": ("keeper.cli.join", "Join a running local devnet with one more keeper."),
    "policy": ("keeper.cli.policy", "Write, check, backtest and promote policies."),
    "doctor": ("keeper.cli.doctor", "What would keep this node from its work, and the remedy."),
    "status": ("keeper.cli.status", "What a running node does."),
    "peers": ("keeper.cli.peers", "Who is there, how far, how late, and what was dropped."),
    "snapshot": (
        "keeper.cli.snapshot",
        "Look at certified views, prove an account, check a proof.",
    ),
    "account": ("keeper.cli.account", "Legs, margin and decisions of one account."),
    "flow": ("keeper.cli.flow", "Atomic flows over several chains."),
    "intent": ("keeper.cli.intent", "Orders that say what must arrive where (ERC-7683)."),
    "challenge": ("keeper.cli.challenge", "Stop a big decision by its chain's own history."),
    "auction": ("keeper.cli.auction", "Tasks, rounds and awards."),
    "route": ("keeper.cli.route", "The best way between two places, with its bound."),
    "tx": ("keeper.cli.tx", "What this keeper sent to chains, and why."),
    "risk": ("keeper.cli.risk", "Liquidation at risk, stress and exposure of a tick."),
    "evidence": ("keeper.cli.evidence", "Proof that a member said two things."),
    "explain": ("keeper.cli.explain", "Why a view was final, skipped or late."),
    "replay": ("keeper.cli.replay", "Replay a flight record, bit by bit."),
    "parameters": ("keeper.cli.parameters", "The set in force, and proposals to move it."),
    "breaker": ("keeper.cli.breaker", "Which circuit breakers are open, and why."),
}


RECURSION = 1_000
"""Python's own limit, put back: py_ecc, which eth-account imports, makes it 100,000, and then a
deeply nested answer of an endpoint or a plug-in overruns the C stack and ends the process."""


class LazyGroup(TyperGroup):
    """A group whose commands are imported when asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs in table order."""
        return list(GROUPS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one verb's module and return its command."""
        if cmd_name not in GROUPS:
            return None
        module, text = GROUPS[cmd_name]
        command = typer.main.get_command(importlib.import_module(module).app)
        sys.setrecursionlimit(RECURSION)
        command.name, command.short_help = cmd_name, text
        return command


app = typer.Typer(
    cls=LazyGroup,
    help="Flowkeeper: an open keeper network for cross-chain derivatives.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and end."),
) -> None:
    """Flowkeeper: an open keeper network for cross-chain derivatives."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command; an expected error is one paragraph on stderr and status 1."""
    try:
        app()
    except BaseException as error:
        cause = error
        while isinstance(cause, BaseExceptionGroup):  # a nursery's: the first is the reason
            cause = cause.exceptions[0]
        if not isinstance(cause, FlowkeeperError):
            raise
        typer.secho(f"error: {cause}", fg=typer.colors.RED, err=True)
        sys.exit(1)
