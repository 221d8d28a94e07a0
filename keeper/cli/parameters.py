"""`keeper parameters`: which set is in force, what is proposed, and a proposal of one's own."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config
from keeper.cli.account import State, load_state
from keeper.cli.onchain import read_secret, send
from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.contracts import encode_call
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError
from keeper.parameters import Parameters
from keeper.parameters.steps import refused_change, wait_s
from keeper.parameters.text import differences, parse, plain
from keeper.snapshot import governed

app = typer.Typer(no_args_is_help=True, help="The numbers that all keepers share.")

Home = Annotated[Path, typer.Option(help="The node's home.")]


def waiting(state: State) -> dict[str, Any] | None:
    """Return what is proposed and not judged yet, or None."""
    found = governed.proposal(state.spec, state.tables)
    known = governed.decode(state.book.rules.get(governed.STATE, b""))
    if found is None or not found[1] or governed.digest_of_proposal(*found) == known.settled:
        return None
    at, raw = found
    now = (state.spec.genesis_time_ms + state.view.header.tick * state.spec.tick_ms) // 1000
    left = wait_s(at, now, state.parameters.breakers)
    try:
        new = Parameters.decode(raw)
    except ValueError as error:
        return {"at": at, "wait_s": left, "refused": str(error), "changes": []}
    changes = list(differences(state.parameters, new))
    return {
        "at": at,
        "wait_s": left,
        "refused": refused_change(state.parameters, new),
        "changes": changes,
    }


@app.command()
def show(
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Show the set in force at the newest final view, what is proposed, and what was refused.

    With --json the whole set is under "set": edit it and give it to `propose`.
    """
    state = load_state(home)
    known = governed.decode(state.book.rules.get(governed.STATE, b""))
    open_ = waiting(state)
    if as_json:
        print_json(
            {
                "digest": state.parameters.digest,
                "refused": known.why or None,
                "proposed": open_,
                "set": plain(state.parameters),
            }
        )
        return
    rows: list[tuple[str, object]] = [
        ("digest", "0x" + state.parameters.digest.hex()),
        ("since", "a proposal" if known.adopted else "the beginning"),
    ]
    if known.why:
        rows.append(("last refusal", known.why))
    if open_ is not None:
        left = open_["wait_s"]
        rows.append(("proposed", "expired" if left is None else f"judged in {left} s"))
        if open_["refused"]:
            rows.append(("will be refused", open_["refused"]))
    print_rows("Parameters in force", rows)
    if open_ is not None:
        print_table(("field", "now", "proposed"), open_["changes"], "Proposed changes")


@app.command()
def propose(
    file: Annotated[Path, typer.Argument(help="The set as JSON, from `show --json`.")],
    key: Annotated[Path, typer.Option(help="File with the governor's key, 64 hex digits.")],
    home: Home = Path(),
    dry: Annotated[bool, typer.Option(help="Judge it and show it, send nothing.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Propose a set on the hub's breaker; keepers judge its steps and wait the delay.

    It replaces a proposal that still waits. What keepers would refuse is not sent.
    """
    state = load_state(home)
    try:
        value = json.loads(file.read_text())
        new = parse(value.get("set", value) if isinstance(value, dict) else value)
    except (OSError, ValueError) as error:
        remedy = "start from `keeper parameters show --json`"
        raise ConfigError(f"not a set: {error}", where=str(file), remedy=remedy) from error
    refused = refused_change(state.parameters, new)
    if refused is not None:
        raise ConfigError(f"keepers would refuse it: {refused}", where=str(file))
    changes = list(differences(state.parameters, new))
    spec = state.spec
    breaker = spec.chain(spec.hub).contract("Breaker")
    if breaker is None:
        raise ConfigError("the hub has no Breaker contract", where="network.json")
    sent = []
    if not dry:
        data = encode_call("Breaker", "propose_parameters", new.encode())
        settings = config.load(home.resolve())
        sent = send(settings, spec.hub, read_secret(key), [Send(breaker, data)])
    if as_json:
        print_json({"digest": new.digest, "changes": changes, "sent": sent})
        return
    print_table(("field", "now", "proposed"), changes, "Changes")
    delay = state.parameters.breakers.step_delay_s
    said = "not sent" if dry else f"proposed in {sent[0]}; keepers judge it in {delay} s"
    typer.echo(said)
