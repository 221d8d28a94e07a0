"""`keeper intent open | sign | open-for | status | escape | collect`: what must arrive, not how.

    open      order.json ─▶ ERC-7683 order ─▶ id, fill instruction; with a key: approve and open
    sign      the same, only signed; open-for: anybody opens it (keeper/cli/intent_signed.py)
    status    every order of the newest certified cut: open, filled, being settled, closed
    escape    the input back, long after the deadline, when no quorum is left that could say so
    collect   what a token would not send when an order was closed

order.json: origin, input_token, input_amount, destination, output_token, output_amount, recipient
(an address; or a 32-byte margin account, then the output is deposited into it), and a deadline:
fill_within_s, or for an account health_ppm, the health that it must not fall below before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config, network
from keeper.cli import intent_signed
from keeper.cli.account import State, load_state
from keeper.cli.intent_order import asked, print_order, read_object, read_order, settler_of
from keeper.cli.onchain import ask, head_time, read_secret, send
from keeper.cli.output import JsonFlag, print_json, print_rows, print_sent, print_table
from keeper.contracts import encode_call
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError
from keeper.intent.order import OnchainOrder, Order, resolve
from keeper.keys import address_of
from keeper.settle.terms import read_address, read_token
from keeper.units import ChainId
from keeper.venue.intents import OpenOrder, fills, orders

app = typer.Typer(no_args_is_help=True, help="ERC-7683 orders, settled by the keepers' seal.")

app.command("sign")(intent_signed.sign)
app.command("open-for")(intent_signed.open_for)

Home = Annotated[Path, typer.Option(help="The node's home.")]
GAS = 600_000


@app.command("open")
def open_order(
    order: Annotated[Path, typer.Argument(help="JSON object of the order.")],
    key: Annotated[Path, typer.Option(help="Key file of the user who gives the input.")],
    home: Home = Path(),
    dry: Annotated[bool, typer.Option(help="Only show what would be opened.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Lock the input of an order on its origin."""
    settings = config.load(home.resolve())
    spec, row = network.load(settings.network_file), read_object(order)
    origin, wanted = read_order(spec, row, str(order))
    secret, settler = read_secret(key), settler_of(origin)
    user = address_of(secret)
    (nonce,) = ask(settings, origin.id, settler, "Intents", "nonces", user)
    asked_for = asked(home, row, wanted, head_time(settings, origin.id))
    made = resolve(spec.id, origin.id, settler, user=user, nonce=nonce, order=asked_for)
    sent = [] if dry else send(settings, origin.id, secret, _calls(settler, wanted, asked_for))
    print_order(made, sent, as_json)


def _calls(settler: bytes, order: Order, asked: OnchainOrder) -> list[Send]:
    struct = (asked.fill_deadline, asked.order_data_type, asked.order_data)
    return [
        Send(
            order.input_token,
            encode_call("DevToken", "approve", settler, order.input_amount),
            gas=200_000,
        ),
        Send(settler, encode_call("Intents", "open", struct), gas=800_000),
    ]


def orders_of(state: State) -> list[dict[str, Any]]:
    """Return every order of the certified tables, by origin and id."""
    delivered = {
        spec.id: fills(spec, state.tables[spec.id])
        for spec in state.spec.chains
        if spec.id in state.tables
    }
    flying = {
        decision.fields[0]: decision.kind
        for decision in state.book.outstanding
        if decision.kind in ("Filled", "Unfilled")
    }
    return [
        {
            "order": order.id,
            "origin": order.origin,
            "destination": order.destination,
            "user": order.user,
            "input_amount": order.input_amount,
            "output_amount": order.amount,
            "fill_deadline": order.fill_deadline,
            "state": _state(order, delivered.get(order.destination, {}), flying),
        }
        for spec in state.spec.chains
        if spec.id in state.tables
        for order in orders(spec, state.tables[spec.id], closed=True)
    ]


def _state(
    order: OpenOrder, delivered: Mapping[tuple[bytes, bytes], bytes], flying: Mapping[Any, str]
) -> str:
    filled = (order.id, order.data_hash) in delivered
    if order.closed:
        return "filled and paid" if filled else "refunded"
    if order.id in flying:
        return "paying the filler" if filled else "refunding"
    return "filled" if filled else "open"


@app.command()
def escape(
    name: Annotated[str, typer.Argument(help="An order's id, or how it begins.")],
    key: Annotated[Path, typer.Option(help="Key file of whoever pays the gas.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Give an order's input back to its user; the settler refuses until days after the deadline."""
    state = load_state(home)
    found = [row for row in orders_of(state) if row["order"].hex().startswith(_prefix(name))]
    if not name or len(found) != 1:
        raise ConfigError(
            f"{len(found)} orders begin with {name!r}", where="ORDER", remedy="keeper intent status"
        )
    origin = state.spec.chain(found[0]["origin"])
    call = Send(settler_of(origin), encode_call("Intents", "escape", found[0]["order"]), gas=GAS)
    _sent(send(config.load(home.resolve()), origin.id, read_secret(key), [call]), as_json)


@app.command()
def collect(
    who: Annotated[str, typer.Argument(help="Whom a settler owes something, an address.")],
    chain: Annotated[int, typer.Option(help="The settler's chain.")],
    token: Annotated[str, typer.Option(help="Its symbol or address.")],
    key: Annotated[Path | None, typer.Option(help="Key file of whoever pays the gas.")] = None,
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Send what a token refused when an order was closed; without a key, show how much it is."""
    settings = config.load(home.resolve())
    try:
        spec = network.load(settings.network_file).chain(ChainId(chain))
        owner, asset, settler = read_address(who), read_token(spec, token), settler_of(spec)
    except (KeyError, ValueError) as error:
        raise ConfigError(f"cannot collect: {error}", where="WHO, --chain or --token") from error
    (owed,) = ask(settings, spec.id, settler, "Intents", "owed", owner, asset)
    if key is None:
        if as_json:
            print_json({"owed": owed})
            return
        print_rows("Owed", [("amount", owed)])
        return
    if not owed:
        raise ConfigError("nothing is owed", where=f"chain {chain}")
    call = Send(settler, encode_call("Intents", "collect", owner, asset), gas=GAS)
    _sent(send(settings, spec.id, read_secret(key), [call]), as_json)


def _prefix(name: str) -> str:
    return name.removeprefix("0x").lower()


def _sent(sent: list[str], as_json: bool) -> None:
    if as_json:
        print_json({"transactions": sent})
        return
    print_sent(sent)


@app.command()
def status(
    name: Annotated[str, typer.Argument(help="How the id begins; every order if empty.")] = "",
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Show orders of the newest certified cut."""
    rows = orders_of(load_state(home))
    found = [row for row in rows if row["order"].hex().startswith(_prefix(name))]
    if name and not found:
        raise ConfigError(f"no order begins with {name!r}", where="ORDER")
    if as_json:
        print_json(found)
        return
    columns = ("order", "from", "to", "gives", "for", "fill until", "state")
    names = ("origin", "destination", "input_amount", "output_amount", "fill_deadline", "state")
    cells = [(row["order"].hex()[:16], *(row[name] for name in names)) for row in found]
    print_table(columns, cells, "Orders")
