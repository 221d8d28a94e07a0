"""`keeper devnet`: a local network on real chains, of the very nodes an operator runs."""

import contextlib
import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from keeper.cli.output import JsonFlag, console, print_json, print_rows, print_table
from keeper.cli.status import fetch
from keeper.devnet import control
from keeper.devnet.cluster import Cluster, run_cluster
from keeper.devnet.feeds import Feeds, markets_of, read_series
from keeper.devnet.progress import Progress
from keeper.devnet.scenarios import flows, liquidation, quorum
from keeper.errors import ConfigError, FlowkeeperError
from keeper.units import PPM

app = typer.Typer(no_args_is_help=True, help="Start and drive a local network on real chains.")

SCENARIOS = {
    "cross-chain-liquidation": "prices fall; what must be liquidated is, and every claim is paid",
    "calm": "the same traders, no shock: nothing is liquidated",
    "quorum-lost": "too few keepers: nothing is sealed or executed, until they return",
    "flows": "collateral moves by atomic flows over three chains, on the route that is best then",
    "idle": "start, and do nothing (with --keep)",
}
LEAST_CHAINS = {"flows": 3}
POLICIES = {"flows": {"filling": "filling"}}
"""What a scenario needs beside two chains and the policy that keepers bid by."""
CACHE = Path.home() / ".cache" / "flowkeeper"
Folder = Annotated[Path, typer.Argument(help="Directory of a devnet started with --keep.")]


@app.command()
def up(
    keepers: Annotated[
        int, typer.Option("-n", "--keepers", min=1, max=16, help="Keeper processes.")
    ] = 4,
    chains: Annotated[int, typer.Option(min=2, max=4, help="Local chains.")] = 2,
    scenario: Annotated[
        str, typer.Option(help="One of " + ", ".join(SCENARIOS) + ".")
    ] = "cross-chain-liquidation",
    seed: Annotated[int, typer.Option(help="Draws the traders.")] = 1,
    traders: Annotated[int, typer.Option(min=1, max=200, help="Trader accounts.")] = 60,
    shock: Annotated[str, typer.Option(help="How the price moves, like -12%.")] = "-12%",
    prices: Annotated[
        Path | None, typer.Option(help="CSV (.xz too) of a price series to replay instead.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Where to write the report.")] = None,
    light_client: Annotated[
        bool,
        typer.Option(
            "--light-client",
            help="Keepers take as final only what a simulated beacon chain's committee signed.",
        ),
    ] = False,
    keep: Annotated[bool, typer.Option(help="Go on after the scenario, until Ctrl-C.")] = False,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where homes and logs go; a temporary one if not.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Start chains, contracts and keepers, play a scenario, check what must be true, end it all.

    Exit status 0 only if every assertion of the scenario holds. Ctrl-C ends everything it started.
    """
    if scenario not in SCENARIOS:
        raise ConfigError(
            f"there is no scenario {scenario!r}",
            where="--scenario",
            remedy="; ".join(f"{name}: {text}" for name, text in SCENARIOS.items()),
        )
    options = liquidation.Options(
        seed=seed,
        traders=traders,
        shock_ppm=0 if scenario == "calm" else move_ppm(shock),
        prices=tuple(_thinned(read_series(prices))) if prices else (),
    )
    value: dict[str, Any] = {}
    with _folder(directory) as folder, Progress(as_json=as_json) as progress:
        outcome = trio.run(
            _up, folder, keepers, chains, scenario, options, keep, progress, value, report,
            light_client,
        )  # fmt: skip
    if as_json:
        print_json({"report": value})
    elif value:
        _show(value)
    raise typer.Exit(outcome)


MAX_SERIES = 40
"""Prices replayed from a file: about one a block, so a replay ends within a minute."""


def _thinned(series: list[int]) -> list[int]:
    """Return at most `MAX_SERIES` prices of a series, its lowest and last among them."""
    if len(series) <= MAX_SERIES:
        return series
    step = len(series) // (MAX_SERIES - 2)
    chosen = {*range(0, len(series), step), series.index(min(series)), len(series) - 1}
    return [series[at] for at in sorted(chosen)]


def move_ppm(text: str) -> int:
    """Return a relative move like `-12%` in ppm.

    Raises:
        ConfigError: the text has another form, or the price would not stay positive.
    """
    try:
        percent = float(text.strip().removesuffix("%"))
    except ValueError:
        percent = -100.0
    if not -99 <= percent <= 1000:
        raise ConfigError(f"{text!r} is no move of a price", where="--shock", remedy="like -12%")
    return round(percent * PPM / 100)


@contextlib.contextmanager
def _folder(directory: Path | None) -> Iterator[Path]:
    """Yield where the devnet lives; a temporary one is removed unless something failed."""
    if directory is not None:
        if directory.exists() and any(directory.iterdir()):
            raise ConfigError(
                "the directory is not empty", where=str(directory), remedy="choose another --dir"
            )
        directory.mkdir(parents=True, exist_ok=True)
        yield directory.resolve()
        return
    folder = Path(tempfile.mkdtemp(prefix="flowkeeper-"))
    try:
        yield folder
    except FlowkeeperError:
        console(err=True).print(f"homes and logs are kept in {folder}")
        raise
    shutil.rmtree(folder)


async def _up(
    folder: Path,
    keepers: int,
    chains: int,
    scenario: str,
    options: liquidation.Options,
    keep: bool,
    progress: Progress,
    value: dict[str, Any],
    report: Path | None,
    light_client: bool,
) -> int:
    """Run everything; return the exit status."""
    async with trio.open_nursery() as nursery:
        stop = trio.CancelScope()
        nursery.start_soon(_stop_on_signal, stop)
        with stop:
            async with run_cluster(
                folder, CACHE, keepers=keepers, say=progress.say,
                chains=max(chains, LEAST_CHAINS.get(scenario, 2)), policies=POLICIES.get(scenario),
                accounts=options.traders + 20, light_client=light_client,
            ) as cluster:  # fmt: skip
                control.write(cluster)
                nursery.start_soon(progress.watch, cluster)
                value |= await _play(cluster, scenario, options, progress)
                if report is not None:
                    await trio.Path(report).write_text(json.dumps(value, indent=2) + "\n")
                if keep:
                    progress.say(f"running in {folder}; Ctrl-C ends it")
                    await Feeds(cluster, await _prices_now(cluster)).obey(folder)
        nursery.cancel_scope.cancel()
    if not value:
        progress.say("stopped")
        return 130
    return 0 if value.get("ok") else 1


async def _prices_now(cluster: Cluster) -> dict[str, int]:
    """Return the prices the keepers agree on, so that a kept devnet goes on from them."""
    seen = await cluster.wait(
        "agreed prices", lambda all_: all(v.get("prices") for v in all_.values()), 20
    )
    agreed: dict[str, int] = next(iter(seen.values()))["prices"]
    return markets_of(cluster) | agreed


async def _play(
    cluster: Cluster, scenario: str, options: liquidation.Options, progress: Progress
) -> dict[str, Any]:
    match scenario:
        case "quorum-lost":
            return await quorum.run(cluster, progress.say)
        case "flows":
            return await flows.run(cluster, progress.say)
        case "idle":
            await cluster.wait("a sealed view", liquidation.all_sealed, 60)
            return {"ok": True, "keepers": len(cluster.keepers)}
        case _:
            return await liquidation.run(cluster, options, progress.say)


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            scope.cancel()
            return


def _show(value: dict[str, Any]) -> None:
    rows = [(name, item) for name, item in value.items() if name not in {"ok", "failed"}]
    print_rows("Report", rows)
    failed = value.get("failed") or []
    verdict = "[green]every assertion holds[/]" if value["ok"] else "[red]failed[/]: "
    console().print(verdict + ("; ".join(failed)))


@app.command()
def status(folder: Folder, as_json: JsonFlag = False) -> None:
    """Show the keepers of a running devnet."""
    running = control.read(folder)
    rows = [fetch("127.0.0.1", one["http_port"]) for one in running.keepers]
    if as_json:
        print_json(rows)
        return
    columns = ("keeper", "phase", "final", "sealed", "accounts", "unhealthy", "tasks", "ready")
    print_table(
        columns,
        [
            (
                at,
                row["phase"],
                row.get("final_view", ""),
                row.get("sealed_view", ""),
                row.get("accounts", ""),
                row.get("unhealthy", ""),
                row.get("tasks", ""),
                "yes"
                if row["health"]["ready"]
                else "; ".join(t for _, t in row["health"]["reasons"]),
            )
            for at, row in enumerate(rows)
        ],
    )


@app.command()
def shock(
    folder: Folder,
    move: Annotated[str, typer.Option(help="How the price moves, like -12%.")],
    market: Annotated[str, typer.Option(help="Which market.")] = "ETH-USD",
    as_json: JsonFlag = False,
) -> None:
    """Move a price of a running devnet."""
    running = control.read(folder)
    now = fetch("127.0.0.1", running.keepers[0]["http_port"])["prices"]
    if market not in now:
        raise ConfigError(
            f"there is no market {market!r}", where="--market", remedy=f"one of {', '.join(now)}"
        )
    price = now[market] * (PPM + move_ppm(move)) // PPM
    control.wish(folder, market, price)
    value = {"market": market, "from_e8": now[market], "to_e8": price}
    if as_json:
        print_json(value)
    else:
        print_rows("The price moves with the next block", value.items())


@app.command()
def down(folder: Folder, as_json: JsonFlag = False) -> None:
    """End a running devnet and everything it started."""
    running = control.read(folder)
    running.stop()
    if as_json:
        print_json({"stopped": running.pid})
    else:
        console().print(f"the devnet of process {running.pid} ends")
