"""`keeper policy` over records and copies: backtest, replay, shadow, explain, drill.

a converted series ─▶ backtest            a node's record ─▶ backtest, replay, shadow, explain
a copy of its chains ─▶ drill
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import trio
import typer

from keeper.cli.output import JsonFlag, console, print_json, print_rows, print_table
from keeper.cli.policy_common import (
    ConfigFile,
    PolicyName,
    Step,
    plain_errors,
    read_config,
    with_progress,
)
from keeper.config import load as load_config
from keeper.drill.report import Drill
from keeper.errors import ConfigError
from keeper.network import load as load_network
from policies import backtest as backtests
from policies import discover, replay, report, rerun
from policies.api import Decision
from policies.host import PolicySpec
from policies.record import Decided, Entry, RecordReader


def backtest(
    record: Annotated[
        Path, typer.Argument(help="A node's record, or one of `keeper policy convert`.")
    ],
    policy: Annotated[str, typer.Option(help="Policy to test.")] = "liquidation",
    versus: Annotated[
        list[str] | None, typer.Option("--vs", help="Others to set beside it.")
    ] = None,
    config: ConfigFile = None,
    delay: Annotated[int, typer.Option(min=1, help="Ticks from a bid to its execution.")] = 2,
    rival_ppm: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Share the rival bids.")
    ] = 500_000,
    no_show_ppm: Annotated[int, typer.Option(min=0, max=1_000_000, help="Awards missed.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the missed awards.")] = 1,
    desk: Annotated[
        str, typer.Option(help="Venue of a node's record; none: the network's own tasks.")
    ] = "",
    html: Annotated[Path | None, typer.Option(help="Write the report as one HTML page.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run policies over a record: executed, profit after costs, bad debt left, regret.

    A converted record is a world that answers, with a rival; --delay, --rival-ppm, --no-show-ppm
    and --seed set it up. A node's record is what happened: a policy wins what it would have won
    against the bids that were revealed.
    """
    settings: backtests.Settings | None = None
    with plain_errors():
        specs = [discover.spec_of(policy, read_config(config))]
        specs += [discover.spec_of(name) for name in versus or ()]
        if rerun.is_recorded(record):
            ticks = rerun.count_views(record, desk)
            run = partial(rerun.rerun_policy, path=record, views=ticks, desk=desk)
        else:
            settings = backtests.Settings(delay, rival_ppm, no_show_ppm, seed)
            ticks = backtests.count_ticks(record)
            run = partial(backtests.run_policy, path=record, settings=settings, ticks=ticks)
        scores = with_progress(
            ticks,
            as_json,
            lambda step: [trio.run(partial(run, spec, progress=step)) for spec in specs],
        )
    if html is not None:
        html.write_text(report.page(scores, settings, record.name), encoding="utf-8")
    if as_json:
        print_json(report.as_json(scores, settings, record.name))
        return
    columns = ("", *(score.policy for score in scores))
    print_table(columns, report.rows(scores), f"{record.name}: {ticks} ticks, money in USD")
    for score in scores:
        console().print(
            f"{score.policy} decided in {score.decide_p50_us} µs (p50),"
            f" {score.decide_p99_us} µs (p99)"
        )
    if html is not None:
        console().print(f"report: {html}")


def drill_network(home: Path, spec: PolicySpec, cache: Path) -> Callable[[Step], Drill]:
    """Return the drill of a node's network."""
    from keeper.drill import network as drills

    loaded = load_config(home)
    network = load_network(loaded.network_file)
    endpoints = {chain: urls[0] for chain, urls in loaded.endpoints.items()}
    parent = drills.newest_of(loaded.store_file)
    return lambda step: trio.run(
        partial(drills.drill, network, endpoints, spec, cache, parent, step)
    )


def drill_pool(
    rpc: str,
    chain: int,
    contracts: tuple[str, str, str],
    token: list[str],
    falls: str,
    from_block: int,
    spec: PolicySpec,
    cache: Path,
) -> Callable[[Step], Drill]:
    """Return the drill of an Aave v3 pool."""
    from keeper.drill import aave as drills

    if not rpc:
        raise ValueError("name a node with --home, or an Aave v3 pool with --rpc and --pool")
    tokens = dict(one.split("=", 1) for one in token)
    target = drills.target_of(rpc, chain, contracts, tokens, falls, from_block)
    return lambda step: trio.run(partial(drills.drill, target, spec, cache, step))


def follow(record: Path, seconds: float) -> Iterator[Entry]:
    """Yield a record's entries, and those a node appends until `seconds` have passed."""
    until = time.monotonic() + seconds
    seen = 0
    while True:
        for entry in islice(RecordReader(record), seen, None):
            seen += 1
            yield entry
        if time.monotonic() >= until:
            return
        time.sleep(min(0.5, max(0.0, until - time.monotonic())))


def drill(
    home: Annotated[
        Path | None, typer.Option(help="Node whose network is copied; or name an Aave pool below.")
    ] = None,
    policy: Annotated[str, typer.Option(help="Policy to drill.")] = "liquidation",
    config: ConfigFile = None,
    rpc: Annotated[str, typer.Option(help="Endpoint of the pool's chain.")] = "",
    chain: Annotated[int, typer.Option(help="Id of that chain.")] = 1,
    pool: Annotated[str, typer.Option(help="Aave v3 Pool.")] = "",
    data: Annotated[str, typer.Option(help="Aave v3 protocol data provider.")] = "",
    oracle: Annotated[str, typer.Option(help="Aave v3 oracle.")] = "",
    token: Annotated[
        list[str] | None, typer.Option(help="SYMBOL=ADDRESS of a reserve; repeat.")
    ] = None,
    falls: Annotated[str, typer.Option(help="Symbol of the collateral whose price falls.")] = "",
    from_block: Annotated[int, typer.Option(help="Look for borrowers from here.")] = 0,
    cache: Annotated[Path, typer.Option(help="Where the local chain's binary is kept.")] = Path(
        ".cache/anvil"
    ),
    as_json: JsonFlag = False,
) -> None:
    """Make every account liquidatable on a local copy, and liquidate each.

    With --home the whole network of a node is copied, and prices move down and up until every
    position was closed through a certified award. With --rpc and --pool it is one Aave v3 pool,
    whose collateral falls. Nothing is sent to what was copied. Ends with status 1 when an account
    was not liquidated.
    """
    with plain_errors():
        spec = discover.spec_of(policy, read_config(config), budget_ms=5_000)
        if home is not None:
            work = drill_network(home, spec, cache)
        else:
            work = drill_pool(
                rpc, chain, (pool, data, oracle), token or [], falls, from_block, spec, cache
            )
        found = with_progress(None, as_json, work)
    if as_json:
        print_json(found.as_json())
    else:
        rows = [
            (x.account, "yes" if x.liquidated else "NO", x.closes, report.money(x.realised), x.why)
            for x in found.lines
        ]
        print_table(("account", "liquidated", "closes", "realised USD", "why"), rows)
        console().print(f"{found.liquidated} of {found.accounts} accounts liquidated")
    if not found.complete:
        raise typer.Exit(1)


def shadow(
    policy: PolicyName,
    record: Annotated[Path, typer.Argument(help="Record that a running node writes.")],
    seconds: Annotated[float, typer.Option(min=0, help="How long to follow it.")] = 0.0,
    config: ConfigFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Decide on a node's live snapshots without bond or key, and compare with the winners."""
    with plain_errors():
        spec = discover.spec_of(policy, read_config(config))
        found = trio.run(replay.compare, spec, follow(record, seconds))
    if as_json:
        print_json(asdict(found))
        return
    print_rows(f"{policy} in the shadow", list(asdict(found).items()))


def replay_(
    record: Annotated[Path, typer.Argument(help="Record of a node, of this machine or another.")],
    policy: Annotated[str, typer.Option(help="Policy that decided.")] = "liquidation",
    config: ConfigFile = None,
    desk: Annotated[str, typer.Option(help="Venue; none: the network's own tasks.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Ask a policy everything a node asked it, and compare the decisions byte for byte.

    Ends with status 1 at the first difference: another policy, another configuration, or one that
    is not pure.
    """
    with plain_errors():
        spec = discover.spec_of(policy, read_config(config))
        found = trio.run(replay.replay, spec, record, desk)
    facts = {**asdict(found), "same": not found.different}
    print_json(facts) if as_json else print_rows(f"{policy} over {record}", list(facts.items()))
    if found.different:
        raise typer.Exit(1)


def explain(
    task: Annotated[str, typer.Argument(help="Task id in hex, or its first digits.")],
    record: Annotated[Path, typer.Argument(help="Record of the node that decided.")],
    policy: Annotated[str | None, typer.Option(help="Ask this policy again and compare.")] = None,
    config: ConfigFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Tell what was decided about a task, on which view, and what came of it."""
    with plain_errors():
        found = replay.tasks_like(record, task)
        if len(found) != 1:
            raise ConfigError(
                f"{len(found)} tasks start with {task!r}",
                where=str(record),
                remedy="give more of its digits",
            )
        story = replay.story_of(record, found[0])
        again = None
        if policy is not None:
            spec = discover.spec_of(policy, read_config(config))
            again = trio.run(replay.replay, spec, record)
    lines = [_line(entry, decision) for entry, decision in story.decisions]
    facts: dict[str, Any] = {
        "task": story.task,
        "decisions": lines,
        "views": [{"view": view, "hash": digest} for view, digest in story.views],
        "bids": [one.price for one in story.bids],
        "awards": [{"price": one.price, "ranks": list(one.ranks)} for one in story.awards],
        "transactions": [one.hash for one in story.sent],
        "receipts": [
            {
                "status": x.status,
                "gas_used": x.gas_used,
                "predicted": x.predicted,
                "realised": x.realised,
            }
            for x in story.received
        ],
        "replay": None if again is None else asdict(again),
    }
    if as_json:
        print_json(facts)
        return
    print_rows(f"task {story.task.hex()}", [(key, facts[key]) for key in facts if key != "task"])


def _line(entry: Decided, decision: Decision) -> dict[str, Any]:
    return {
        "view": entry.view,
        "by": entry.source,
        "what": type(decision).__name__.lower(),
        "why": decision.why,
        "fault": entry.fault,
    }
