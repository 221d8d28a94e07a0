"""`keeper flow open | status | trace | pay`: atomic flows over several chains.

    open    legs.json ─▶ id; with a payer's key: approve and lock the legs that are this payer's
    status  every flow of the newest certified cut: legs, outcome, what each chain has taken
    trace   one flow: its legs, then every outcome this node holds
    pay     send settled legs to whom they belong; anyone may

Nobody has to announce a flow: keepers see locked legs, and decide when they are the whole flow.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config, network
from keeper.cli.account import State, load_state, open_archive
from keeper.cli.onchain import ask, read_secret, send
from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.contracts import encode_call
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError
from keeper.keys import address_of
from keeper.network import NetworkSpec
from keeper.settle.flow import decode_rows
from keeper.settle.terms import Terms, make_terms, read_legs
from keeper.venue import escrow

app = typer.Typer(no_args_is_help=True, help="Atomic flows: all legs on all chains, or none.")

Home = Annotated[Path, typer.Option(help="The node's home.")]
OUTCOMES = ("waiting", "commit", "abort")


def _epoch(settings: config.Config, spec: NetworkSpec) -> int:
    committee = spec.chain(spec.hub).contract("Committee")
    if committee is None:
        raise ConfigError("the hub has no committee", where="network.json")
    (epoch,) = ask(settings, spec.hub, committee, "Committee", "current")
    return int(epoch)


@app.command("open")
def open_flow(
    legs: Annotated[Path, typer.Argument(help="JSON list of legs, the same file for every payer.")],
    home: Home = Path(),
    key: Annotated[Path | None, typer.Option(help="Lock this payer's legs: its key file.")] = None,
    number: Annotated[int, typer.Option(help="Tell flows with the very same legs apart.")] = 0,
    epoch: Annotated[int, typer.Option(help="Committee epoch; the current one if 0.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Compute a flow's id from its legs, and lock the legs of one payer."""
    settings = config.load(home.resolve())
    spec = network.load(settings.network_file)
    try:
        rows = json.loads(legs.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the legs: {error}", where=str(legs)) from error
    wanted = read_legs(spec, rows, str(legs))
    terms = make_terms(spec.id, epoch or _epoch(settings, spec), number, wanted)
    sent = [] if key is None else _lock(settings, terms, read_secret(key))
    value = {"flow": terms.id, "nonce": terms.nonce, "legs": terms.hashes, "transactions": sent}
    if as_json:
        print_json(value)
        return
    print_rows("Flow", [("id", "0x" + terms.id.hex()), ("nonce", "0x" + terms.nonce.hex())])
    cells = [
        (at, leg.chain, "0x" + leg.payer.hex(), leg.amount, "0x" + leg.receiver.hex())
        for at, leg in enumerate(terms.legs)
    ]
    print_table(("leg", "chain", "payer", "amount", "receiver"), cells, "Legs")
    print_table(("transaction",), [(one,) for one in sent], "Sent")


def _lock(settings: config.Config, terms: Terms, secret: bytes) -> list[str]:
    """Approve and lock every leg of one payer; return the transactions."""
    payer, sent = address_of(secret), list[str]()
    for index, leg in enumerate(terms.legs):
        if leg.payer == payer:
            approve = encode_call("DevToken", "approve", leg.escrow, leg.amount)
            prepare = encode_call(
                *("Escrow", "prepare", terms.nonce, terms.hashes, index),
                *(leg.token, leg.amount, leg.receiver),
            )
            calls = [Send(leg.token, approve, gas=200_000), Send(leg.escrow, prepare, gas=600_000)]
            sent += send(settings, leg.chain, secret, calls)
    if not sent:
        raise ConfigError(
            f"no leg is paid by 0x{payer.hex()}", where="--key", remedy="give a payer's key"
        )
    return sent


def flows_of(state: State) -> list[dict[str, Any]]:
    """Return every flow of the certified tables, sorted by id."""
    rows = {row.flow: row for row in decode_rows(state.book.rules["flow"])}
    found: dict[bytes, dict[str, Any]] = {}
    for spec in state.spec.chains:
        records = state.tables.get(spec.id)
        if records is None:
            continue
        for leg in escrow.prepared(spec, records):
            came = escrow.outcome(spec, records, leg.flow)
            flow = found.setdefault(leg.flow, {"flow": leg.flow, "outcome": 0, "legs": []})
            row = rows.get(leg.flow)
            flow["outcome"] = max(flow["outcome"], came, 0 if row is None else row.outcome)
            flow["legs"].append(_leg(leg, came))
    for flow in found.values():
        flow["outcome"] = OUTCOMES[flow["outcome"]]
        flow["legs"].sort(key=lambda leg: leg["index"])
    return [flow for _, flow in sorted(found.items())]


def _leg(leg: escrow.PreparedLeg, came: int) -> dict[str, Any]:
    left = {0: "escaped", 1: "paid", 2: "returned"}[came]
    return {
        "index": leg.index,
        "chain": leg.chain,
        "payer": leg.payer,
        "token": leg.token,
        "amount": leg.amount,
        "receiver": leg.receiver,
        "settled": OUTCOMES[came],
        "state": left if leg.left else "locked",
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
    names = ("index", "chain", "amount", "settled", "state")
    cells = [
        (flow["flow"].hex()[:16], flow["outcome"], *(leg[name] for name in names))
        for flow in found
        for leg in flow["legs"]
    ]
    columns = ("flow", "outcome", "leg", "chain", "amount", "its chain says", "leg is")
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
    rows += [
        (f"leg {leg['index']}", f"{leg['amount']} on chain {leg['chain']}: {leg['state']}")
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
    """Send every settled leg to its receiver, or back to its payer."""
    state = load_state(home)
    flow, secret = _find(state, name), read_secret(key)
    settings = config.load(home.resolve())
    sent: list[str] = []
    for leg in flow["legs"]:
        if leg["settled"] != OUTCOMES[0] and leg["state"] == "locked":
            contract = state.spec.chain(leg["chain"]).contract("Escrow")
            call = Send(contract, encode_call("Escrow", "pay", flow["flow"], leg["index"]))
            sent += send(settings, leg["chain"], secret, [call])
    if as_json:
        print_json({"flow": flow["flow"], "transactions": sent})
        return
    print_table(("transaction",), [(one,) for one in sent], "Sent")
