"""`keeper flow plan | check | reduce | draft | open | lock | status | trace | pay | escape`.

    plan    offers.json ─▶ the best route now ─▶ legs.json (keeper/cli/flow_plan.py)
    check   flow.json, plan.json ─▶ is the plan sound, and does the flow carry it out?
    reduce  an account's positions at all venues ─▶ legs.json (keeper/cli/flow_reduce.py)
    draft   legs.json ─▶ flow.json with its times, the same file for every payer
    open    flow.json ─▶ id; with a payer's key: place its deposits, or lock where there are none
    lock    with a payer's key: once all deposits are placed, lock its legs
    status  every flow of the newest certified cut: legs, outcome, what each chain has taken
    trace   one flow: its legs, then every outcome this node holds
    pay     send settled legs and lost deposits to whom they belong; anyone may
    escape  take legs back when no outcome came for days

Nobody has to announce a flow: keepers see its legs, and decide when they are the whole flow.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config, network
from keeper.cli import flow_check, flow_plan, flow_reduce
from keeper.cli.account import State, load_state, open_archive
from keeper.cli.files import read_json
from keeper.cli.onchain import ask, head_time, read_secret, send
from keeper.cli.output import JsonFlag, print_json, print_rows, print_sent, print_table
from keeper.contracts import encode_call
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError, LocalError
from keeper.keys import address_of
from keeper.network import NetworkSpec
from keeper.settle.flow import FlowState
from keeper.settle.payments import payments
from keeper.settle.terms import MAX_WAIT_S, make_flow, plain_flow, read_flow, read_legs
from keeper.units import ChainId, symbol_text
from keeper.venue import escrow
from keeper.venue.escrow import LOCKED, NOWHERE, PLEDGED, Flow, Leg, Terms

app = typer.Typer(no_args_is_help=True, help="Atomic flows: all legs on all chains, or none.")

app.command("plan")(flow_plan.plan)
app.command("reduce")(flow_reduce.reduce)
app.command("check")(flow_check.check)

Home = Annotated[Path, typer.Option(help="The node's home.")]
File = Annotated[Path, typer.Argument(help="flow.json, the same file for every payer.")]
OUTCOMES = ("waiting", "commit", "abort")
HELD = (PLEDGED, LOCKED)
GAS = 600_000


def _epoch(settings: config.Config, spec: NetworkSpec) -> int:
    committee = spec.chain(spec.hub).contract("Committee")
    if committee is None:
        raise ConfigError("the hub has no committee", where="network.json")
    (epoch,) = ask(settings, spec.hub, committee, "Committee", "current")
    return int(epoch)


@app.command()
def draft(
    legs: Annotated[list[Path], typer.Argument(help="JSON lists of legs; all become one flow.")],
    out: Annotated[Path, typer.Option(help="Where to write the flow.")],
    home: Home = Path(),
    within_s: Annotated[
        int, typer.Option("--within", min=1, max=MAX_WAIT_S, help="Seconds until all is locked.")
    ] = 900,
    deposits_s: Annotated[
        int, typer.Option("--deposits-within", min=1, help="Seconds until deposits are placed.")
    ] = 300,
    number: Annotated[int, typer.Option(help="Tell flows with the very same legs apart.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Give legs their times, and write the one flow that every payer opens."""
    settings = config.load(home.resolve())
    spec = network.load(settings.network_file)
    wanted = [leg for path in legs for leg in read_legs(spec, read_json(path), str(path))]
    now = max((head_time(settings, chain) for chain in {leg.chain for leg in wanted}), default=0)
    arm_by = now + deposits_s if any(leg.deposit for leg in wanted) else 0
    terms = Terms(_epoch(settings, spec), number, arm_by, now + within_s)
    flow = make_flow(spec.id, terms, wanted)
    out.write_text(json.dumps(plain_flow(flow), indent=2) + "\n")
    _print_flow(flow, [], as_json)


@app.command("open")
def open_flow(
    file: File,
    home: Home = Path(),
    key: Annotated[Path | None, typer.Option(help="Act for this payer: its key file.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show a flow and its id; with a key, place the payer's deposits, or lock if it has none."""
    settings = config.load(home.resolve())
    flow = read_flow(network.load(settings.network_file), read_json(file), str(file))
    function = "pledge" if flow.terms.arm_by else "prepare"
    sent = [] if key is None else _enter(settings, flow, read_secret(key), function)
    _print_flow(flow, sent, as_json)


@app.command()
def lock(
    file: File,
    key: Annotated[Path, typer.Option(help="The payer's key file.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Lock a payer's legs; refused while a deposit is missing: till then nobody has to lock."""
    settings = config.load(home.resolve())
    flow = read_flow(network.load(settings.network_file), read_json(file), str(file))
    for at, leg in enumerate(flow.legs):
        if flow.terms.arm_by and _stage(settings, flow, at) < PLEDGED:
            raise ConfigError(
                f"the deposit of leg {at} is not placed",
                where=f"chain {leg.chain}",
                remedy="wait for its payer; after arm_by the flow ends and deposits come back",
            )
    _print_flow(flow, _enter(settings, flow, read_secret(key), "prepare"), as_json)


def _stage(settings: config.Config, flow: Flow, index: int) -> int:
    leg = flow.legs[index]
    (stage,) = ask(settings, leg.chain, leg.escrow, "Escrow", "stage", flow.id, leg.hash)
    return int(stage)


def _enter(settings: config.Config, flow: Flow, secret: bytes, function: str) -> list[str]:
    """Approve, then pledge or lock every leg of one payer that is not; return the transactions."""
    payer, sent, mine = address_of(secret), list[str](), False
    wanted = LOCKED if function == "prepare" else PLEDGED
    for index, leg in enumerate(flow.legs):
        if leg.payer != payer:
            continue
        mine = True
        stage = _stage(settings, flow, index)
        if stage >= wanted:
            continue
        due = (leg.due if wanted == LOCKED else 0) + (0 if stage else leg.deposit)
        enter = encode_call("Escrow", function, *flow.entry(index))
        calls = [Send(leg.escrow, enter, gas=GAS)]
        if due:
            approve = encode_call("DevToken", "approve", leg.escrow, due)
            calls.insert(0, Send(leg.token, approve, gas=200_000))
        sent += send(settings, leg.chain, secret, calls)
    if not mine:
        raise ConfigError(
            f"no leg is paid by 0x{payer.hex()}", where="--key", remedy="give a payer's key"
        )
    return sent


def _print_flow(flow: Flow, sent: list[str], as_json: bool) -> None:
    value = {"flow": flow.id, **plain_flow(flow), "transactions": sent}
    if as_json:
        print_json(value)
        return
    terms = flow.terms
    rows = [("id", "0x" + flow.id.hex()), ("epoch", terms.epoch), ("number", terms.number)]
    rows += [("deposits by", terms.arm_by or "none"), ("locked by", terms.lock_by)]
    print_rows("Flow", rows)
    cells = [
        (leg.index, leg.chain, "0x" + leg.payer.hex(), leg.amount, leg.deposit, effect(leg))
        for leg in flow.legs
    ]
    print_table(("leg", "chain", "payer", "amount", "deposit", "does"), cells, "Legs")
    print_sent(sent)


def effect(leg: Leg) -> str:
    """Return what a leg does on commit, in words."""
    if leg.reduces:
        account = int.from_bytes(leg.receiver, "big")
        return f"reduces {symbol_text(leg.market)} of account {account}"
    if leg.vault == NOWHERE:
        return f"pays 0x{leg.receiver[12:].hex()}"
    return f"pays into account 0x{leg.receiver.hex()}"


def flows_of(state: State) -> list[dict[str, Any]]:
    """Return every flow of the certified tables, sorted by id."""
    rows = {row.flow: row for row in FlowState.decode(state.book.rules["flow"]).rows}
    found: dict[bytes, dict[str, Any]] = {}
    for spec in state.spec.chains:
        records = state.tables.get(spec.id)
        if records is None:
            continue
        for one in escrow.prepared(spec, records):
            came, late = escrow.outcome(spec, records, one.flow)
            start = {"flow": one.flow, "outcome": 0, "late": 0}
            start |= {"arm_by": one.terms.arm_by, "lock_by": one.terms.lock_by, "legs": []}
            flow = found.setdefault(one.flow, start)
            row = rows.get(one.flow)
            flow["outcome"] = max(flow["outcome"], came, 0 if row is None else row.outcome)
            flow["late"] |= late | (0 if row is None else row.late)
            flow["legs"].append(_leg(one, came, late))
    for flow in found.values():
        flow["outcome"] = OUTCOMES[flow["outcome"]]
        flow["late"] = [at for at in range(16) if flow["late"] >> at & 1]
        flow["legs"].sort(key=lambda leg: leg["index"])
    return [flow for _, flow in sorted(found.items())]


def _leg(one: escrow.Prepared, came: int, late: int) -> dict[str, Any]:
    done = "reduced" if one.leg.reduces else "paid"
    left = {0: "escaped", 1: done, 2: "returned"}[came]
    held = "locked" if one.stage == LOCKED else "deposit placed"
    if one.stage == PLEDGED and late >> one.index & 1:
        held = "deposit lost"
    return {
        "index": one.index,
        "chain": one.leg.chain,
        "payer": one.leg.payer,
        "token": one.leg.token,
        "amount": one.leg.amount,
        "deposit": one.leg.deposit,
        "does": effect(one.leg),
        "settled": OUTCOMES[came],
        "state": left if one.left else held,
    }


def _find(state: State, name: str) -> dict[str, Any]:
    prefix = name.removeprefix("0x").lower()
    found = [flow for flow in flows_of(state) if flow["flow"].hex().startswith(prefix)]
    if len(found) != 1:
        raise ConfigError(
            f"{len(found)} flows begin with {name!r}", where="FLOW", remedy="keeper flow status"
        )
    return found[0]


Name = Annotated[str, typer.Argument(help="The id of a flow, or how it begins.")]


@app.command()
def status(
    name: Annotated[str, typer.Argument(help="How the id begins; every flow if empty.")] = "",
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Show flows of the newest certified cut."""
    state = load_state(home)
    found = [_find(state, name)] if name else flows_of(state)
    if as_json:
        print_json(found)
        return
    names = ("index", "chain", "amount", "does", "settled", "state")
    cells = [
        (flow["flow"].hex()[:16], flow["outcome"], *(leg[name] for name in names))
        for flow in found
        for leg in flow["legs"]
    ]
    columns = ("flow", "outcome", "leg", "chain", "amount", "does", "its chain says", "leg is")
    print_table(columns, cells, "Flows")


@app.command()
def trace(name: Name, home: Home = Path(), as_json: JsonFlag = False) -> None:
    """Show one flow, and every outcome for it that this node holds, oldest first."""
    flow = _find(load_state(home), name)
    _, _, archive = open_archive(home)
    found = [
        {
            "view": view.header.view,
            "sealed": view.seal is not None,
            "chain": decision.chain,
            "outcome": OUTCOMES[int(decision.fields[1])],  # type: ignore[arg-type]  # its layout
            "until_block": decision.expiry,
        }
        for view in archive.since(0)
        for decision in view.decisions
        if decision.kind == "FlowOutcome" and decision.fields[0] == flow["flow"]
    ]
    if as_json:
        print_json(flow | {"decisions": found})
        return
    rows = [("id", "0x" + flow["flow"].hex()), ("outcome", flow["outcome"])]
    rows += [("late", ", ".join(f"leg {at}" for at in flow["late"]) or "nobody")]
    rows += [
        (
            f"leg {leg['index']}",
            f"{leg['amount']} on chain {leg['chain']}, {leg['does']}: {leg['state']}",
        )
        for leg in flow["legs"]
    ]
    print_rows("Flow", rows)
    cells = [tuple(row.values()) for row in found]
    print_table(("view", "sealed", "chain", "outcome", "until block"), cells, "Outcomes")


@app.command()
def pay(
    name: Name,
    key: Annotated[Path, typer.Option(help="Key file of whoever pays the gas.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Send every settled leg and every lost deposit to whom they belong."""
    state = load_state(home)
    flow, secret = _find(state, name), read_secret(key)
    settings = config.load(home.resolve())
    sent, refused = list[str](), list[tuple[ChainId, str]]()
    for call in payments(state.spec, state.tables, flow["flow"]):
        try:
            sent += send(settings, call.chain, secret, [Send(call.to, call.data, gas=GAS)])
        except LocalError as error:  # one that nobody can be paid keeps nobody else waiting
            refused.append((call.chain, str(error)))
    if as_json:
        rows = [{"chain": chain, "error": error} for chain, error in refused]
        print_json({"flow": flow["flow"], "transactions": sent, "refused": rows})
    else:
        print_sent(sent)
        if refused:
            print_table(("chain", "why"), refused, "Refused")
    if refused:
        raise typer.Exit(1)


@app.command()
def escape(
    file: File,
    key: Annotated[Path, typer.Option(help="The payer's key file.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Take a payer's legs back when no outcome came for days: for a quorum that is lost for good.

    An escrow refuses it before, and where there is an outcome. It trades atomicity away: an outcome
    that comes after all finds these legs gone.
    """
    settings = config.load(home.resolve())
    flow = read_flow(network.load(settings.network_file), read_json(file), str(file))
    secret, sent = read_secret(key), list[str]()
    payer = address_of(secret)
    for leg in flow.legs:
        if leg.payer == payer and _stage(settings, flow, leg.index) in HELD:
            data = encode_call("Escrow", "escape", flow.id, leg.struct)
            sent += send(settings, leg.chain, secret, [Send(leg.escrow, data, gas=GAS)])
    _print_flow(flow, sent, as_json)
