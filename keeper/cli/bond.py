"""`keeper bond`: put a bond at stake, add to it, leave, withdraw, look at it."""

from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import trio
import typer
from eth_utils.address import to_checksum_address

from keeper import config, keys, network
from keeper.chain.http import HttpRpc
from keeper.cli.output import JsonFlag, print_json, print_rows
from keeper.contracts import decode_result, encode_call
from keeper.devnet.wallet import Send, Wallet
from keeper.errors import ConfigError
from keeper.network import NetworkSpec
from keeper.venue.bonds import BondStatus

app = typer.Typer(no_args_is_help=True, help="Bonds on the hub chain.")

Home = Annotated[Path, typer.Option(help="The node's home.")]


def wei_of(text: str) -> int:
    """Return an amount of coin in wei.

    Raises:
        ConfigError: the text is no positive decimal number with at most 18 places.
    """
    try:
        wei = Decimal(text) * 10**18
    except InvalidOperation:
        wei = Decimal(0)
    if wei <= 0 or wei != wei.to_integral_value():
        raise ConfigError(f"{text!r} is no amount of coin", where="--amount", remedy="like 2.5")
    return int(wei)


def _open(home: Path) -> tuple[config.Config, NetworkSpec, keys.Keys, bytes]:
    settings = config.load(home.resolve())
    spec = network.load(settings.network_file)
    contract = spec.chain(spec.hub).contract("Bonds")
    if contract is None:
        raise ConfigError("the hub has no Bonds contract", where=str(settings.network_file))
    return settings, spec, keys.load(settings.keys, settings.password()), contract


async def _send(
    settings: config.Config, spec: NetworkSpec, secret: bytes, to: bytes, data: bytes, value: int
) -> str:
    rpc = HttpRpc(settings.endpoints[spec.hub][0])
    try:
        sent = await Wallet(rpc, spec.hub, secret).send(Send(to, data, value, gas=500_000))
    finally:
        await rpc.aclose()
    return sent[0].transaction


async def _stake(
    settings: config.Config, spec: NetworkSpec, contract: bytes, keeper: bytes
) -> dict[str, Any]:
    rpc = HttpRpc(settings.endpoints[spec.hub][0])
    try:
        call = {
            "to": to_checksum_address(contract),
            "data": "0x" + encode_call("Bonds", "stake", keeper).hex(),
        }
        raw = bytes.fromhex((await rpc.call("eth_call", [call, "latest"]))[2:])
    finally:
        await rpc.aclose()
    ((amount, locked, until, no_shows, status),) = decode_result("Bonds", "stake", raw)
    return {
        "keeper": to_checksum_address(keeper),
        "bond_wei": amount,
        "locked_wei": locked,
        "until": until,
        "no_shows": no_shows,
        "status": BondStatus(status).name.lower(),
    }


@app.command()
def join(
    admin: Annotated[str, typer.Option(help="Address that alone may leave and withdraw.")],
    amount: Annotated[str, typer.Option(help="First bond in the hub's coin, like 2.5.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Become a keeper: register the peer id and put the first bond at stake.

    The admin key must be another key than the operator's: keep it offline.
    """
    sent = join_bond(home, admin, amount)
    settings, spec, opened, contract = _open(home)
    _show(settings, spec, contract, opened.address, sent, as_json)


BOND = "100"
"""What a devnet's keepers put at stake."""


def join_bond(home: Path, admin: str, amount: str) -> str:
    """Send the joining transaction of a home and return its hash."""
    settings, spec, opened, contract = _open(home)
    owner = bytes.fromhex(admin.removeprefix("0x"))
    data = encode_call("Bonds", "join", owner, opened.peer_id)
    return trio.run(_send, settings, spec, opened.operator, contract, data, wei_of(amount))


@app.command()
def post(
    amount: Annotated[str, typer.Option(help="To add, in the hub's coin, like 2.5.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Add to the bond."""
    settings, spec, opened, contract = _open(home)
    data = encode_call("Bonds", "post", opened.address)
    value = wei_of(amount)
    sent = trio.run(_send, settings, spec, opened.operator, contract, data, value)
    _show(settings, spec, contract, opened.address, sent, as_json)


def _admin_key(path: Path) -> bytes:
    try:
        raw = bytes.fromhex(path.read_text().strip().removeprefix("0x"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read the admin key: {error}", where=str(path), remedy="64 hex digits"
        ) from error
    return raw


AdminKey = Annotated[Path, typer.Option(help="File with the admin's private key in hex.")]


@app.command()
def leave(admin_key: AdminKey, home: Home = Path(), as_json: JsonFlag = False) -> None:
    """Begin to leave: the bond stays at stake for the unbonding period."""
    settings, spec, opened, contract = _open(home)
    data = encode_call("Bonds", "leave", opened.address)
    sent = trio.run(_send, settings, spec, _admin_key(admin_key), contract, data, 0)
    _show(settings, spec, contract, opened.address, sent, as_json)


@app.command()
def withdraw(
    admin_key: AdminKey,
    to: Annotated[str, typer.Option(help="Address to pay.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Take the bond out after the unbonding period."""
    settings, spec, opened, contract = _open(home)
    receiver = bytes.fromhex(to.removeprefix("0x"))
    data = encode_call("Bonds", "withdraw", opened.address, receiver)
    sent = trio.run(_send, settings, spec, _admin_key(admin_key), contract, data, 0)
    _show(settings, spec, contract, opened.address, sent, as_json)


@app.command()
def status(home: Home = Path(), as_json: JsonFlag = False) -> None:
    """Show the bond."""
    settings, spec, opened, contract = _open(home)
    _show(settings, spec, contract, opened.address, "", as_json)


def _show(
    settings: config.Config,
    spec: NetworkSpec,
    contract: bytes,
    keeper: bytes,
    transaction: str,
    as_json: bool,
) -> None:
    value = trio.run(_stake, settings, spec, contract, keeper)
    if transaction:
        value["transaction"] = transaction
    if as_json:
        print_json(value)
    else:
        print_rows("Bond", value.items())
