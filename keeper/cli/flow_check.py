"""`keeper flow check`: whether a flow carries a plan out, and whether the plan is a good one.

    plan.json ─▶ its lanes as this node sees them ─▶ can each carry its part, and is nothing that
                 the plan leaves out better by more than the gap?
    flow.json ─▶ every payment of the plan, and whatever else is in it

For whoever is asked to pay a part: the files are somebody else's, the state is this node's own.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config
from keeper.cli import flow_plan
from keeper.cli.account import load_state
from keeper.cli.files import read_json
from keeper.cli.output import JsonFlag, console, print_json, print_rows, print_table
from keeper.settle.lanes import graph_of, read_offers
from keeper.settle.plans import check_plan, read_planned
from keeper.settle.terms import plain_leg, read_flow
from keeper.units import PPM


def check(
    file: Annotated[Path, typer.Argument(help="flow.json, the same file for every payer.")],
    plan: Annotated[Path, typer.Option("--plan", help="plan.json of whoever planned it.")],
    offers: Annotated[Path, typer.Option("--offers", help="JSON list of makers' offers.")],
    home: Annotated[Path, typer.Option(help="The node's home.")] = Path(),
    gap_ppm: Annotated[
        int,
        typer.Option("--gap", min=0, max=PPM, help="How far below its bound it may be, in ppm."),
    ] = 1_000,
    deposit_ppm: Annotated[
        int, typer.Option("--deposit", min=0, max=PPM, help="Deposit to expect, in ppm.")
    ] = 10_000,
    as_json: JsonFlag = False,
) -> None:
    """Check the plan behind a flow before paying a part of it; status 1 if anything is wrong.

    The lanes are those of the offers, as this node sees them now: what the makers hold, owe and
    took lately, and what is stopped. What makers gave for this flow already counts as theirs.
    Legs that are no part of the plan are listed: they are for you to agree to, or not.
    """
    state = load_state(home)
    settings = config.load(home.resolve())
    flow = read_flow(state.spec, read_json(file), str(file))
    planned = read_planned(read_json(plan), str(plan))
    known = read_offers(read_json(offers), str(offers))
    place = planned.plan.request.destination
    lanes = flow_plan.conditions(state, settings, known, place, deposit_ppm, flow)
    seconds = flow_plan.seconds_held(state, planned.account)
    found = check_plan(
        state.spec,
        graph_of(state.spec, lanes),
        planned,
        flow.legs,
        deadline_ms=(seconds or 0) * 1000,
        allowed_ppb=gap_ppm * 1000,
    )
    faults = list(found.faults)
    if planned.deposit_ppm != deposit_ppm:
        expected = f"not {deposit_ppm} ppm: see --deposit"
        faults.append(f"the plan reckons with deposits of {planned.deposit_ppm} ppm, {expected}")
    if seconds == 0:
        faults.append("the account may be liquidated before anything arrives")
    beyond = [{"index": leg.index, **plain_leg(leg)} for leg in found.beyond]
    value = {
        "flow": flow.id,
        "sound": not faults,
        "faults": faults,
        "payer": planned.owner,
        "account": planned.account,
        "sent": planned.plan.sent,
        "delivered": planned.plan.delivered,
        "bound": planned.plan.bound,
        "within_s": seconds or 0,
        "beyond": beyond,
    }
    print_json(value) if as_json else _show(value, beyond)
    if faults:
        raise typer.Exit(1)


def _show(value: dict[str, Any], beyond: list[dict[str, Any]]) -> None:
    names = ("flow", "payer", "account")
    rows = [(name, "0x" + value[name].hex()) for name in names]
    rows += [(name, str(value[name])) for name in ("sent", "delivered", "bound")]
    rows += [("account holds for", f"{value['within_s']} s" if value["within_s"] else "long")]
    print_rows("Plan", rows)
    if beyond:
        cells = [
            (leg["index"], leg["chain"], leg["payer"], leg["amount"], _does(leg)) for leg in beyond
        ]
        columns = ("leg", "chain", "payer", "amount", "does")
        print_table(columns, cells, "Legs that are no part of the plan")
    for fault in value["faults"]:
        console().print(f"[red]wrong[/]: {fault}", soft_wrap=True)
    if not value["faults"]:
        console().print("the plan is sound, and the flow carries it out")


def _does(leg: dict[str, Any]) -> str:
    return f"reduces {leg['market']}" if "market" in leg else f"pays {leg['receiver']}"
