"""`keeper policy`: write, check, backtest and promote policies; each verb has `--json`.

new ─▶ check ─▶ backtest ─▶ shadow ─▶ promote off → shadow → dry → live
                    ▲ convert            ▲ explain reads what the node recorded
"""

from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated

import trio
import typer

from keeper.cli import policy_runs
from keeper.cli.output import JsonFlag, console, print_json, print_rows, print_table
from keeper.cli.policy_common import (
    ConfigFile,
    PolicyName,
    plain_errors,
    read_config,
    with_progress,
)
from keeper.cli.policy_modes import promote_home
from policies import backtest as backtests
from policies import check as checks
from policies import convert as converter
from policies import discover, scaffold, situations
from policies.api import Kind, MarketView
from policies.host import PolicySpec
from policies.market import World
from policies.record import RecordReader, Viewed

app = typer.Typer(
    no_args_is_help=True,
    help="Write, check, backtest and promote policies.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def views_for(record: Path | None) -> list[MarketView]:
    """Return views to check a policy on: a node's, a converted record's, or a built-in crash."""
    if record is None:
        return situations.crash()
    views = [
        entry.view for entry in islice(RecordReader(record), 10_000) if isinstance(entry, Viewed)
    ]
    if views:
        return views[:200]
    start, market = backtests.load(record)
    world = World(start)
    ticks = list(market)
    return [world.tick(one.at_ms, one.prices) for one in ticks[:: max(1, len(ticks) // 100)]]


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Lower-case Python name, such as half_close.")],
    kind: Annotated[Kind, typer.Option(help="What it decides about.")] = Kind.LIQUIDATION,
    folder: Annotated[Path, typer.Option(help="Where to make it.")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Write a package with a working policy, a test, a configuration and a README."""
    with plain_errors():
        files = scaffold.write(folder, name, kind)
    title = "".join(part.capitalize() for part in name.split("_"))
    target = f"{folder / name / name}.py:{title}"
    if as_json:
        print_json({"files": [str(file) for file in files], "policy": target})
        return
    print_rows(f"made {folder / name}", [(file.name, file) for file in files])
    console().print(f"next: keeper policy check {target}")


@app.command(name="list")
def list_policies(as_json: JsonFlag = False) -> None:
    """List installed policies; none of their code is run here."""
    found = discover.installed()
    if as_json:
        print_json([asdict(one) for one in found])
        return
    rows = [(one.name, one.target, f"{one.distribution} {one.version}") for one in found]
    print_table(("name", "target", "from"), rows)


@app.command()
def schema(policy: PolicyName, as_json: JsonFlag = False) -> None:
    """Show what a policy is and what an operator may set."""
    with plain_errors():
        _, target = discover.resolve(policy)
        about = discover.describe(target)
    if as_json:
        print_json(about)
        return
    print_rows(
        policy, [(key, about[key]) for key in ("summary", "kind", "api", "budget_ms", "mem_mb")]
    )
    rows = [
        (
            field,
            entry.get("default", "required"),
            f"{entry.get('minimum', '')} .. {entry.get('maximum', '')}".strip(" ."),
            "live" if entry.get("updatable") else "restart",
            entry.get("description", ""),
        )
        for field, entry in discover.fields_of(about["schema"]).items()
    ]
    print_table(("field", "default", "range", "changes", "meaning"), rows)


@app.command()
def check(
    policy: PolicyName,
    config: ConfigFile = None,
    record: Annotated[Path | None, typer.Option(help="Record to take views from.")] = None,
    budget_ms: Annotated[int, typer.Option(help="Budget to hold; 0 is the policy's own.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Check that a policy is pure, blind to the future, quick and described.

    Ends with status 1 when it is not.
    """
    with plain_errors():
        spec = discover.spec_of(policy, read_config(config), budget_ms)
        views = views_for(record)
        about = discover.describe(spec.target)
        found = with_progress(
            len(views),
            as_json,
            lambda step: trio.run(
                checks.check_policy,
                spec,
                views,
                about["schema"],
                lambda label, done, _total: step(label, done),
            ),
        )
    if as_json:
        print_json({**asdict(found), "ok": found.ok})
    else:
        marks = {True: "[green]ok[/]", False: "[red]FAILED[/]", None: "-"}
        print_table(
            ("check", "", "finding"), [(x.name, marks[x.ok], x.detail) for x in found.findings]
        )
        console().print(
            f"{found.views} views, boot {found.boot_ms:.0f} ms,"
            f" p50 {found.p50_us} µs, p99 {found.p99_us} µs"
        )
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def convert(
    series: Annotated[Path, typer.Argument(help="CSV (or .xz) of ticks, index prices or bars.")],
    out: Annotated[Path, typer.Argument(help="Record to write.")],
    accounts: Annotated[int, typer.Option(min=1, help="Accounts to open.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of their sizes and leverage.")] = 1,
    step_s: Annotated[int, typer.Option(min=1, help="Seconds between two views.")] = 10,
    as_json: JsonFlag = False,
) -> None:
    """Make a record for backtests out of a price series."""
    with plain_errors():
        ticks = converter.convert(series, out, accounts, seed, step_s * 1000)
    facts = {"record": str(out), "ticks": ticks, "accounts": accounts, "bytes": out.stat().st_size}
    print_json(facts) if as_json else print_rows("record", list(facts.items()))


app.command()(policy_runs.backtest)
app.command(name="replay")(policy_runs.replay_)
app.command()(policy_runs.shadow)
app.command()(policy_runs.explain)
app.command()(policy_runs.drill)


@app.command()
def promote(
    policy: PolicyName,
    home: Annotated[Path, typer.Option(help="Home of the node.")],
    to: Annotated[str, typer.Option(help="off, shadow, dry or live.")] = "shadow",
    as_json: JsonFlag = False,
) -> None:
    """Set a node's policy and move it one rung: off → shadow → dry → live.

    Going up one rung at a time is enforced, and beyond shadow the checks must pass first; going
    down is always allowed. The node reads its configuration when it starts.
    """
    with plain_errors():
        _, target = discover.resolve(policy)
        kind = discover.describe(target)["kind"]
        found = promote_home(home, kind, policy, to, partial(_checked, policy))
    print_json(found) if as_json else print_rows(f"{policy} at {home}", list(found.items()))


def _checked(policy: str) -> bool:
    spec: PolicySpec = discover.spec_of(policy)
    schema_of = discover.describe(spec.target)["schema"]
    return trio.run(checks.check_policy, spec, views_for(None), schema_of).ok
