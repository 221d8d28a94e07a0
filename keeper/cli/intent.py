"""`keeper intent open | status`: orders that say what must arrive where, and not how.

    open    order.json ─▶ ERC-7683 order ─▶ id, fill instruction; with a key: approve and open
    status  every order of the newest certified cut: open, filled, being settled, closed

order.json: origin, input_token, input_amount, destination, output_token, output_amount, recipient
(an address; or a 32-byte margin account, then the output is deposited into it), and a deadline:
fill_within_s, or for an account health_ppm, the health that it must not fall below before.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config, network
from keeper.cli.account import State, load_state
from keeper.cli.onchain import ask, head_time, read_secret, send
from keeper.cli.output import JsonFlag, print_json, print_rows, print_table
from keeper.contracts import encode_call
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError
from keeper.intent.deadline import MarginNeed, make_order
from keeper.intent.order import OnchainOrder, Order, ResolvedOrder, resolve, word
from keeper.keys import address_of
from keeper.network import ChainSpec, NetworkSpec
from keeper.settle.health import seconds_above
from keeper.settle.terms import read_token
from keeper.units import ChainId
from keeper.venue.book import accounts
from keeper.venue.intents import OpenOrder, fills, orders
from keeper.venue.records import address

app = typer.Typer(no_args_is_help=True, help="ERC-7683 orders, settled by the keepers' seal.")

Home = Annotated[Path, typer.Option(help="The node's home.")]


def _settler(chain: ChainSpec) -> bytes:
    settler = chain.contract("Intents")
    if settler is None:
        raise ValueError(f"chain {chain.id} has no settler")
    return settler


def read_order(spec: NetworkSpec, row: Mapping[str, Any], where: str) -> tuple[ChainSpec, Order]:
    """Return origin and order of a JSON object.

    Raises:
        ConfigError: a field is missing or impossible.
    """
    try:
        origin = spec.chain(ChainId(int(row["origin"])))
        there = spec.chain(ChainId(int(row["destination"])))
        recipient = bytes.fromhex(row["recipient"].removeprefix("0x"))
        vault = there.contract("Vault") if len(recipient) == 32 else bytes(32)
        if len(recipient) not in (20, 32) or vault is None:
            raise ValueError("recipient is neither an address nor an account of a vault there")
        amounts = (row["input_amount"], row["output_amount"])
        if any(type(amount) is not int or amount <= 0 for amount in amounts):
            raise ValueError("amounts are positive integers of the token's smallest unit")
        _settler(origin)
        return origin, Order(
            input_token=read_token(origin, row["input_token"]),
            input_amount=amounts[0],
            output_token=word(read_token(there, row["output_token"])),
            output_amount=amounts[1],
            recipient=word(recipient),
            vault=word(vault),
            destination_chain=there.id,
            destination_settler=word(_settler(there)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"cannot read the order: {type(error).__name__} {error}",
            where=where,
            remedy="keeper intent --help names the fields",
        ) from error


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
    spec = network.load(settings.network_file)
    try:
        row = json.loads(order.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the order: {error}", where=str(order)) from error
    origin, wanted = read_order(spec, row, str(order))
    secret, settler = read_secret(key), _settler(origin)
    user = address_of(secret)
    (nonce,) = ask(settings, origin.id, settler, "Intents", "nonces", user)
    now = head_time(settings, origin.id)
    if "health_ppm" in row:
        need = _need(wanted, int(row["health_ppm"]))
        seconds = _seconds(home, need)
        asked = make_order(need, wanted.input_token, wanted.input_amount, now, seconds)
    else:
        asked = OnchainOrder(now + int(row.get("fill_within_s", 3_600)), wanted.encode())
    made = resolve(spec.id, origin.id, settler, user=user, nonce=nonce, order=asked)
    sent = [] if dry else send(settings, origin.id, secret, _calls(settler, wanted, asked))
    _print_opened(made, sent, as_json)


def _need(order: Order, health_ppm: int) -> MarginNeed:
    """Return what an order brings as the need of the account that it goes into.

    Raises:
        ConfigError: it goes to an address, which has no health.
    """
    if not any(order.vault):
        raise ConfigError(
            "an address has no health", where="health_ppm", remedy="name a margin account"
        )
    return MarginNeed(
        account=order.recipient,
        chain=order.destination_chain,
        settler=address(order.destination_settler),
        vault=address(order.vault),
        token=address(order.output_token),
        amount=order.output_amount,
        health_ppm=health_ppm,
    )


def _seconds(home: Path, need: MarginNeed) -> int:
    """Return how long an account's health surely stays above its floor.

    Raises:
        ConfigError: no time is left, or the account or its health is not known.
    """
    state = load_state(home)
    legs = accounts(state.spec, state.tables, state.book.rules).get(need.account, ())
    margin = state.margin(legs)
    seconds = 0
    if legs and margin is not None:
        prices = {market: price.price_e8 for market, price in state.book.prices.items()}
        seconds = seconds_above(state.parameters.margin, prices, legs, margin, need.health_ppm)
    if seconds == 0:
        raise ConfigError(
            "the account's health may fall below the floor at any time",
            where="health_ppm",
            remedy="reduce the position, or give fill_within_s",
        )
    return seconds


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


def _print_opened(made: ResolvedOrder, sent: list[str], as_json: bool) -> None:
    (fill,) = made.fill_instructions
    value = {
        "order": made.order_id,
        "origin": made.origin_chain,
        "fill_deadline": made.fill_deadline,
        "destination": fill.destination_chain,
        "settler": fill.destination_settler,
        "origin_data": fill.origin_data,
        "transactions": sent,
    }
    if as_json:
        print_json(value)
        return
    rows = [(key, "0x" + v.hex() if isinstance(v, bytes) else v) for key, v in value.items()]
    print_rows("Order", rows)


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
def status(
    name: Annotated[str, typer.Argument(help="How the id begins; every order if empty.")] = "",
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Show orders of the newest certified cut."""
    prefix = name.removeprefix("0x").lower()
    found = [row for row in orders_of(load_state(home)) if row["order"].hex().startswith(prefix)]
    if name and not found:
        raise ConfigError(f"no order begins with {name!r}", where="ORDER")
    if as_json:
        print_json(found)
        return
    columns = ("order", "from", "to", "gives", "for", "fill until", "state")
    names = ("origin", "destination", "input_amount", "output_amount", "fill_deadline", "state")
    cells = [(row["order"].hex()[:16], *(row[name] for name in names)) for row in found]
    print_table(columns, cells, "Orders")
