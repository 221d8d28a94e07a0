"""`keeper replay RECORD`: feed recorded inputs to the same core and compare bit by bit.

Status 0: the core did again exactly what it did. Status 1: it did something else, and where.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.errors import ConfigError
from p2p.agreement.effects import Effect, Equivocated, Finalized, Noted, Refused
from p2p.agreement.replay import Mismatch, replay

app = typer.Typer()


@app.command()
def run(
    record: Annotated[Path, typer.Argument(help="A flight record of the agreement.")],
    view: Annotated[int, typer.Option(help="Show what happened in this view.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Replay a record: inputs, the answers the core got, and the digest of every effect."""
    inputs: Counter[str] = Counter()
    effects_seen: Counter[str] = Counter()
    story: list[tuple[str, str]] = []
    finals, last, difference = 0, 0, ""
    try:
        with record.open("rb") as file:
            for now, happened, effects in replay(file, str(record)):
                inputs[type(happened).__name__.lower()] += 1
                for effect in effects:
                    effects_seen[type(effect).__name__.lower()] += 1
                    if isinstance(effect, Finalized):
                        finals, last = finals + 1, effect.view
                    if view and (line := _told(effect, view)):
                        story.append((f"{now:.3f}", line))
    except OSError as error:
        raise ConfigError(f"cannot read the record: {error}", where=str(record)) from error
    except Mismatch as error:
        difference = str(error)
    result = {
        "identical": not difference,
        "difference": difference,
        "inputs": sum(inputs.values()),
        "effects": sum(effects_seen.values()),
        "final_blocks": finals,
        "last_final_view": last,
    }
    if as_json:
        print_json(result | {"by_input": inputs, "by_effect": effects_seen, "story": story})
    else:
        print_rows(f"Replay of {record.name}", result.items())
        if view:
            print_table(("time", "what"), story, title=f"View {view}")
    if difference:
        raise typer.Exit(1)


def _told(effect: Effect, view: int) -> str:
    match effect:
        case Noted() if effect.view == view:
            return f"{effect.event} {list(effect.members)} {effect.detail}".strip()
        case Finalized() if effect.view == view:
            return f"final 0x{effect.digest.hex()[:16]}"
        case Equivocated() if effect.evidence.view == view:
            return f"member {effect.evidence.culprit} said two things"
        case Refused() if f"view {view}" in effect.detail:
            return f"refused a message of member {effect.member}: {effect.reason.value}"
        case _:
            return ""
