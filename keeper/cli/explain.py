"""`keeper explain VIEW`: why a view was final, skipped or late, and whose messages prove it.

Read from the node's own log and journal: what it saw, in its own time. The signers of a
certificate are proof; everything else is this node's word.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from keeper import config
from keeper.cli.output import JsonFlag, console, print_json, print_table
from keeper.errors import ConfigError
from keeper.store import Store
from p2p.agreement.journal import Entry, Journal
from p2p.agreement.leader import leader_of
from p2p.agreement.log import StoreLog
from p2p.types import Certificate, Committee, Kind

app = typer.Typer()

_SENTENCES = {
    "entered": "This keeper entered the view; member {members} leads it.",
    "leader silent": "Leader {members} had been silent while a quorum spoke: not waited for.",
    "proposal": "The proposal of member {members} arrived.",
    "deadline": "The deadline passed without a certificate; leader {members} gave no valid block.",
    "not yet": "This keeper could not judge the proposal yet: it lacked {detail}.",
    "notarized": "A quorum notarized the block: members {members}.",
    "nullified": "A quorum nullified the view: members {members}.",
    "finalized": "A quorum finalized the block: members {members}.",
    "equivocation": "Member {members} signed two things that exclude each other.",
    "proposal too large": "This keeper led, but its proposal was larger than a frame.",
    "signing again": "This keeper signs again after it had lost its log.",
}


@dataclass(frozen=True, slots=True)
class Story:
    """What a node can tell of a view."""

    verdict: str
    leader: int | None
    lines: tuple[tuple[str, str], ...]
    absent: tuple[int, ...]


def tell(
    committee: Committee | None,
    entries: tuple[Entry, ...],
    certificates: dict[Kind, Certificate],
    is_final: bool,
    view: int,
) -> Story:
    """Return the story of a view from what was kept about it."""
    events = {entry.event for entry in entries}
    proof = certificates.get(Kind.FINALIZE) or certificates.get(Kind.NOTARIZE)
    if is_final:
        verdict = "final"
        if Kind.FINALIZE not in certificates:
            verdict += ", carried by a later view"
        if "deadline" in events or Kind.NULLIFY in certificates:
            verdict += ", but late"
    elif Kind.NULLIFY in certificates:
        proof = certificates[Kind.NULLIFY]
        verdict = "skipped: " + _why(entries)
    elif proof is not None:
        verdict = "notarized, not final"
    else:
        verdict = "open: no certificate reached this keeper"
    lines = tuple((_clock(entry.at_ms), _sentence(entry)) for entry in entries)
    leader = leader_of(committee.config, view, committee.size) if committee else None
    signed = proof.signers if proof else ()
    everyone = range(committee.size) if committee and proof else ()
    return Story(verdict, leader, lines, tuple(m for m in everyone if m not in signed))


def _why(entries: tuple[Entry, ...]) -> str:
    for entry in entries:
        if entry.event.startswith("wrong"):
            return f"the leader's block is {entry.event} {entry.detail}".rstrip()
    events = {entry.event for entry in entries}
    if "leader silent" in events:
        return "its leader was silent while a quorum spoke"
    if "equivocation" in events:
        return "its leader or a voter said two things"
    if "not yet" in events:
        return "too many keepers lacked data to judge the block in time"
    if "proposal" in events:
        return "a block arrived, but its votes did not reach a quorum in time"
    return "no valid proposal arrived before the deadline"


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]


def _sentence(entry: Entry) -> str:
    members = ", ".join(str(member) for member in entry.members)
    known = _SENTENCES.get(entry.event)
    if known is not None:
        return known.format(members=members, detail=entry.detail)
    return f"{entry.event} (member {members}) {entry.detail}".rstrip()


@app.command()
def run(
    view: Annotated[int, typer.Argument(help="Number of the view; 0 is the newest.")] = 0,
    epoch: Annotated[int, typer.Option(help="Epoch; 0 is the newest.")] = 0,
    home: Annotated[Path, typer.Option(help="The node's home.")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Say why a view was final, skipped or late, and whose messages prove it."""
    path = config.load(home.resolve()).store_file
    if not path.exists():
        raise ConfigError("this home has no database yet", where=str(path), remedy="keeper run")
    store = Store(path)
    try:
        journal, log = Journal(store), StoreLog(store)
        newest = journal.last() or (0, 0)
        epoch, view = epoch or newest[0], view or newest[1]
        committee = next((one for one in journal.committees() if one.epoch == epoch), None)
        entries = journal.of(epoch, view)
        held = {kind: proof for kind in Kind if (proof := log.certificate(epoch, kind, view))}
        final = any(one.view == view for one in log.finals(epoch, view - 1, 1))
    finally:
        store.close()
    if not entries and not held and not final:
        raise ConfigError(
            f"this node knows nothing of view {view} of epoch {epoch}",
            remedy="it was not running then, or the view is older than its journal",
        )
    story = tell(committee, entries, held, final, view)
    if as_json:
        print_json(
            {
                "epoch": epoch,
                "view": view,
                "verdict": story.verdict,
                "leader": story.leader,
                "signers": {kind.name.lower(): proof.signers for kind, proof in held.items()},
                "did_not_sign": story.absent,
                "events": story.lines,
            }
        )
        return
    console().print(f"View {view} of epoch {epoch}: {story.verdict}")
    if story.leader is not None:
        console().print(f"Leader: member {story.leader}")
    for kind, proof in held.items():
        console().print(f"{kind.name.lower()} certificate: members {list(proof.signers)}")
    if story.absent:
        console().print(f"Not in it: members {list(story.absent)}")
    print_table(("time (UTC)", "what this keeper saw"), story.lines)
