"""`keeper tx`: what this keeper wanted done on chains, what it signed, and what became of it.

    list       the newest tasks, one line each
    show       one task with every transaction signed for it
    explain    its story in sentences, and what to do if it did not succeed

Reads the node's ledger; a running node is not disturbed. A task is named by the start of its id or
of one of its transaction hashes.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config
from keeper.cli.output import JsonFlag, console, print_json, print_rows, print_table
from keeper.errors import ConfigError
from keeper.execute.intent import State, Status
from keeper.execute.ledger import Attempt, Event, Ledger, Task
from keeper.reasons import long, short
from keeper.store import Store

app = typer.Typer(no_args_is_help=True, help="Transactions of this keeper.")

Home = Annotated[Path, typer.Option(help="The node's home.")]
Name = Annotated[str, typer.Argument(help="Start of a task id or of a transaction hash, in hex.")]

_SENTENCES = {
    "planned": "It was written down before anything else happened.",
    "signed": "A transaction was signed and stored before it was sent.",
    "sent": "An endpoint took it.",
    "mined": "A block contains it.",
    "final": "That block cannot change any more.",
    "dropped": "It was given up before anything was signed; it cost nothing.",
    "superseded": "Its nonce went to another transaction.",
}


def _ledger(home: Path) -> tuple[Store, Ledger]:
    path = config.load(home.resolve()).store_file
    if not path.exists():
        raise ConfigError("this home has no ledger yet", where=str(path), remedy="keeper run")
    store = Store(path)
    return store, Ledger(store)


def _find(ledger: Ledger, name: str) -> Task:
    text = name.removeprefix("0x")
    if not text or any(digit not in "0123456789abcdefABCDEF" for digit in text):
        raise ConfigError(f"{name!r} is no hex text", remedy="keeper tx list shows task ids")
    keys = ledger.find(text)
    if len(keys) != 1:
        what = f"{len(keys)} tasks start" if keys else "no task starts"
        raise ConfigError(f"{what} with {name}", remedy="keeper tx list shows task ids")
    task = ledger.task(keys[0])
    assert task is not None, "a key that was found has a task"
    return task


def _status(task: Task) -> str:
    """Return the end of a closed task, or the state of an open one."""
    return task.state.value if task.open else task.outcome.status.value


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "hash": attempt.hash,
        "cancels": attempt.cancels,
        "tip_wei": attempt.offer.tip,
        "max_fee_wei": attempt.offer.max_fee,
        "gas": attempt.gas,
        "signed_at_block": attempt.block,
    }


def _json(task: Task) -> dict[str, Any]:
    intent, outcome = task.intent, task.outcome
    return {
        "task": intent.key,
        "chain": intent.chain,
        "lane": intent.lane.value,
        "state": task.state.value,
        "status": _status(task),
        "reason": outcome.reason.value if outcome.reason else None,
        "why": intent.why,
        "to": intent.to,
        "data": intent.data,
        "value_wei": intent.value,
        "deadline_block": intent.deadline,
        "fee_cap_wei": intent.fee_cap,
        "sender": task.sender,
        "nonce": task.nonce,
        "transaction": outcome.transaction or None,
        "block": outcome.block or None,
        "fee_wei": outcome.fee,
        "attempts": [_attempt(attempt) for attempt in task.attempts],
    }


@app.command("list")
def list_tasks(
    home: Home = Path(),
    state: Annotated[State | None, typer.Option(help="Only tasks in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
    as_json: JsonFlag = False,
) -> None:
    """Show the newest tasks."""
    store, ledger = _ledger(home)
    try:
        tasks = ledger.recent(limit, state)
    finally:
        store.close()
    if as_json:
        print_json([_json(task) for task in tasks])
        return
    print_table(
        ("task", "chain", "lane", "nonce", "status", "why"),
        [
            (
                task.intent.key.hex()[:12],
                task.intent.chain,
                task.intent.lane.value,
                "–" if task.nonce is None else task.nonce,
                _status(task) + (f": {short(reason)}" if (reason := task.outcome.reason) else ""),
                task.intent.why,
            )
            for task in tasks
        ],
    )


@app.command()
def show(name: Name, home: Home = Path(), as_json: JsonFlag = False) -> None:
    """Show one task and every transaction signed for it."""
    store, ledger = _ledger(home)
    try:
        task = _find(ledger, name)
    finally:
        store.close()
    shown = _json(task)
    if as_json:
        print_json(shown)
        return
    attempts = shown.pop("attempts")
    plain = {
        key: "0x" + value.hex() if isinstance(value, bytes) else value
        for key, value in shown.items()
    }
    print_rows("Task", [(key, "–" if value is None else value) for key, value in plain.items()])
    print_table(
        ("transaction", "for", "tip", "max fee", "gas", "at block"),
        [
            (
                "0x" + each["hash"].hex(),
                "cancelling" if each["cancels"] else "the task",
                each["tip_wei"],
                each["max_fee_wei"],
                each["gas"],
                each["signed_at_block"],
            )
            for each in attempts
        ],
    )


def advice(task: Task) -> str:
    """Return what an operator should know about a task as it stands."""
    match task.outcome.status:
        case Status.SUCCEEDED:
            return "It succeeded." if not task.open else "It is mined; its block may still change."
        case Status.REVERTED:
            return "It was mined and reverted: nothing happened, and the gas is paid."
        case Status.SUPERSEDED | Status.DROPPED:
            reason = task.outcome.reason
            return "It was not done." + (f" {long(reason)}" if reason else "")
        case Status.RECORDED | Status.REHEARSED | Status.REFUSED:
            return "It is still open: a running node looks at it at every block."


@app.command()
def explain(name: Name, home: Home = Path(), as_json: JsonFlag = False) -> None:
    """Tell the story of one task."""
    store, ledger = _ledger(home)
    try:
        task = _find(ledger, name)
        story = ledger.story(task.intent.key)
    finally:
        store.close()
    if as_json:
        print_json(
            {
                "task": task.intent.key,
                "story": [
                    {"at": event.at, "state": event.state, "text": event.text} for event in story
                ],
                "advice": advice(task),
            }
        )
        return
    out = console()
    out.print(f"Task {task.intent.key.hex()}: {task.intent.why or 'no reason given'}")
    for event in story:
        out.print(_line(event))
    out.print(advice(task))


def _line(event: Event) -> str:
    when = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{when}  {event.state:<10} {_SENTENCES[event.state]} {event.text}".rstrip()
