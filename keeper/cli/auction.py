"""`keeper auction list | show`: tasks, rounds and awards in the newest final view of this node.

    open     a position that must be closed and is not awarded yet
    awarded  ranks, price, windows in blocks of the target chain, what ended or will end it

A task or an award is named by the start of its id, or of the account it is about.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from keeper.cli.account import open_archive
from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.compete.state import AwardState, Flying, OpenAward, decode
from keeper.compete.task import Task
from keeper.errors import ConfigError
from keeper.snapshot.archive import Archive
from keeper.units import symbol_text

app = typer.Typer(no_args_is_help=True, help="The competition for tasks.")

Home = Annotated[Path, typer.Option(help="The node's home.")]


def _state(archive: Archive, home: Path) -> tuple[int, AwardState]:
    held = archive.newest_book()
    if held is None or "award" not in held[1].rules:
        raise ConfigError("no view is final here yet", where=str(home), remedy="keeper status")
    return held[0], decode(held[1].rules["award"])


def _task(task: Task) -> dict[str, Any]:
    return {
        "task": task.id,
        "account": task.target.account,
        "chain": task.target.chain,
        "market": symbol_text(task.target.market),
        "since_view": task.view,
        "size": task.size,
        "value_uusd": task.value,
        "bonus_uusd": task.bonus,
        "reserve_uusd": task.reserve,
    }


def _penalty(one: Flying) -> dict[str, Any]:
    return {
        "task": one.charge.task,
        "keeper": one.charge.keeper,
        "wei": one.charge.amount,
        "until": one.until,
    }


def _award(award: OpenAward) -> dict[str, Any]:
    return _task(award.task) | {
        "price_uusd": award.price,
        "ranks": list(award.ranks),
        "lock": award.lock,
        "start": award.start,
        "exclusive_until": award.start + award.exclusive,
        "step": award.step,
        "open_at": award.open_at,
        "last": award.last,
        "ill_ever_since": award.ill,
        "void_on_its_way": bool(award.voiding),
    }


@app.command("list")
def list_(home: Home = Path(), as_json: JsonFlag = False) -> None:
    """List open tasks, rounds and awards."""
    _, _, archive = open_archive(home)
    view, state = _state(archive, home)
    if as_json:
        print_json(
            {
                "view": view,
                "collecting": state.collecting,
                "revealing": [[r.view, len(r.frozen), len(r.opened)] for r in state.revealing],
                "tasks": [_task(task) for task in state.tasks],
                "awards": [_award(award) for award in state.awards],
                "no_shows": [list(row) for row in state.no_shows],
                "penalties": [_penalty(one) for one in state.flying],
            }
        )
        return
    rounds = ", ".join(f"{r.view}: {len(r.opened)}/{len(r.frozen)}" for r in state.revealing)
    print_rows(
        f"View {view}",
        [("collecting for", state.collecting or "no round"), ("revealing", rounds or "no round")],
    )
    columns = ("task", "account", "chain", "market", "size", "reserve µUSD", "since view")
    print_table(
        columns,
        [
            (
                task.id.hex()[:12],
                task.target.account.hex()[:12],
                task.target.chain,
                symbol_text(task.target.market),
                task.size,
                task.reserve,
                task.view,
            )
            for task in state.tasks
        ],
        "Open tasks",
    )
    awarded = ("task", "winner", "ranks", "price µUSD", "blocks", "state")
    print_table(awarded, [_award_row(award) for award in state.awards], "Awards")
    if state.flying:
        due = [(one.charge.keeper.hex()[:8], one.charge.amount, one.until) for one in state.flying]
        print_table(("keeper", "wei", "until block of the hub"), due, "Penalties on their way")


def _award_row(award: OpenAward) -> tuple[object, ...]:
    blocks = f"{award.start}…{award.start + award.exclusive}…{award.open_at}…{award.last}"
    status = "to be voided" if award.voiding else "open"
    winner = "0x" + award.ranks[0].hex()[:8]
    return (award.task.id.hex()[:12], winner, len(award.ranks), award.price, blocks, status)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Start of a task id or of an account id, in hex.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Show one task, and every decision about it that this node holds."""
    _, _, archive = open_archive(home)
    _, state = _state(archive, home)
    wanted = name.removeprefix("0x").lower()
    found: dict[str, dict[str, Any]] = {}
    for task in state.tasks:
        found[task.id.hex()] = _task(task) | {"state": "open"}
    for award in state.awards:
        found[award.task.id.hex()] = _award(award) | {"state": "awarded"}
    history = [
        (view.header.view, decision)
        for view in archive.since(0)
        for decision in view.decisions
        if decision.kind in ("Award", "Attestation", "Penalty")
    ]
    for _, decision in history:
        if decision.kind == "Award":
            row: dict[str, Any] = {
                "task": decision.key,
                "account": decision.fields[1],
                "state": "ended",
            }
            found.setdefault(decision.key.hex(), row)
    matching = {
        task: row
        for task, row in found.items()
        if task.startswith(wanted) or row["account"].hex().startswith(wanted)
    }
    if not wanted or not matching:
        raise ConfigError(f"no task {name!r} is known here", remedy="keeper auction list")
    value = [
        row
        | {
            "decisions": [
                {"view": view, "kind": decision.kind, "chain": decision.chain}
                for view, decision in history
                if bytes.fromhex(task) in (decision.key, decision.fields[0])
            ]
        }
        for task, row in sorted(matching.items())
    ]
    if as_json:
        print_json(value)
        return
    for row in value:
        decisions = row.pop("decisions")
        print_rows("Task", [(key, _text(item)) for key, item in row.items()])
        cells = [(one["view"], one["kind"], one["chain"]) for one in decisions]
        print_table(("view", "decision", "chain"), cells)


def _text(item: object) -> object:
    if isinstance(item, bytes):
        return "0x" + item.hex()
    if isinstance(item, list):
        return ", ".join(str(_text(one)) for one in item)
    return item
