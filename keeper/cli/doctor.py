"""`keeper doctor`: look at everything a node needs, before it starts or while it runs."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from keeper.chain.evm import connect
from keeper.chain.rpc import Rpc
from keeper.cli.output import JsonFlag, console, print_json
from keeper.cli.status import fetch
from keeper.config import Config
from keeper.errors import RemoteFault, UnreachableError
from keeper.keys import Keys
from keeper.network import NetworkSpec
from keeper.node.doctor import chains, home, machine
from keeper.node.doctor.chains import ASK_S, Seen
from keeper.node.doctor.finding import Finding, Grade, bad, fine, fit, odd
from keeper.reasons import Reason

app = typer.Typer()

_MARK = {Grade.FINE: "[green]ok  [/]", Grade.ODD: "[yellow]odd [/]", Grade.BAD: "[red]BAD [/]"}


@app.command()
def doctor(
    at: Annotated[Path, typer.Option("--home", help="The node's home.")] = Path(),
    offline: Annotated[bool, typer.Option(help="Ask no endpoint and dial nobody.")] = False,
    strict: Annotated[bool, typer.Option(help="Status 1 for what is only odd, too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Check machine, home, chains and money, and say how to mend what is not right.

    Nothing is changed and nothing is sent. Status 1 if something keeps the node from its work.
    """
    found = []
    for finding in examine(at.resolve(), offline=offline):
        found.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        print_json(
            [
                {"check": f.check, "grade": f.grade.value, "says": f.says, "remedy": f.remedy}
                for f in found
            ]
        )
    else:
        count = Counter(finding.grade for finding in found)
        typer.echo(f"{count[Grade.FINE]} fine, {count[Grade.ODD]} odd, {count[Grade.BAD]} bad")
    wrong = not fit(found) or (strict and any(f.grade is not Grade.FINE for f in found))
    raise typer.Exit(int(wrong))


def _print(finding: Finding) -> None:
    out = console()
    out.print(_MARK[finding.grade], end="")
    out.print(f"{finding.check}: {finding.says}", markup=False, soft_wrap=True)
    if finding.remedy:
        out.print(f"       → {finding.remedy}", markup=False, soft_wrap=True)


def examine(folder: Path, *, offline: bool) -> Iterator[Finding]:
    """Yield every finding, as soon as it is there."""
    yield from machine.examine(folder)
    settings, finding = home.settings_of(folder)
    yield finding
    if settings is None:
        return
    spec, finding = home.descriptor(settings)
    yield finding
    yield from home.permissions(settings)
    mine, finding = home.opened(settings)
    yield finding
    yield home.database(settings)
    yield home.policies(settings)
    status = _status(settings)
    yield from home.ports(settings, status is not None)
    if status is not None:
        yield from running(status)
    if offline:
        return
    yield home.bootstrap(settings)
    if spec is not None:
        seen = trio.run(_chains, settings, spec, mine, status is not None)
        yield from seen.found
        yield machine.clock(time.time(), seen.heads)


def _status(settings: Config) -> Any:
    """Return what the running node says, or None where none runs."""
    try:
        return fetch(settings.http_host, settings.http_port, timeout_s=2.0)
    except UnreachableError:
        return None


def running(status: Any) -> Iterator[Finding]:
    """Judge what a running node says of itself."""
    try:
        reasons = [str(text) for _, text in status["health"]["reasons"]]
        dropped = sum(sum(peer["drops"].values()) for peer in status["peers"])
        linked = sum(bool(peer["connected"]) for peer in status["peers"])
        faults = dict(status.get("policy_faults", {}))
    except (KeyError, TypeError, ValueError, AttributeError):
        yield bad(
            "running",
            "something that is no keeper answers on the http port",
            "stop it, or choose another http.port in keeper.toml",
        )
        return
    if reasons:
        yield odd("running", "; ".join(reasons), "keeper status; keeper explain VIEW")
    else:
        yield fine("running", f"ready, {linked} peers linked, {dropped} messages dropped")
    if faults:
        said = ", ".join(f"{name}: {count}" for name, count in faults.items())
        yield odd("policy_faults", said, "keeper policy check")


async def _chains(settings: Config, spec: NetworkSpec, mine: Keys | None, up: bool) -> Seen:
    """Examine the chains over one transport an endpoint."""
    urls = [url for some in settings.endpoints.values() for url in some]
    open_: dict[str, Rpc] = {url: connect(url) for url in urls}

    async def ask(url: str, method: str, params: Sequence[Any]) -> Any:
        with trio.move_on_after(ASK_S):
            return await open_[url].call(method, params)
        raise RemoteFault(chains.shown(url), Reason.UNREACHABLE, f"no answer in {ASK_S:g} s")

    try:
        async with trio.open_nursery() as nursery:
            for rpc in open_.values():
                nursery.start_soon(rpc.run)
            seen = await chains.examine(settings, spec, mine, up, ask)
            nursery.cancel_scope.cancel()
    finally:
        for rpc in open_.values():
            await rpc.aclose()
    return seen
