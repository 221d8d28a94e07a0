"""`keeper bond`: put a bond at stake, add to it, leave, withdraw, claim, look at it.

join, post ────────▶ operator's key, of the home      leave, withdraw, unjail ─▶ admin's key file
claim ─────────────▶ operator's key: what reports and stepping in earned
"""

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer
from eth_utils.address import to_checksum_address

from keeper import config, keys, network
from keeper.cli.onchain import ask, read_secret, send
from keeper.cli.output import JsonFlag, print_json, print_rows
from keeper.contracts import encode_call
from keeper.devnet.wallet import Send
from keeper.errors import ConfigError
from keeper.network import NetworkSpec
from keeper.venue.bonds import BondStatus

app = typer.Typer(no_args_is_help=True, help="Bonds on the hub chain.")

Home = Annotated[Path, typer.Option(help="The node's home.")]
AdminKey = Annotated[Path, typer.Option(help="File with the admin's private key in hex.")]
GAS = 500_000
BOND = "100"
"""What a devnet's keepers put at stake."""


def wei_of(text: str) -> int:
    """Return an amount of coin in wei.

    Raises:
        ConfigError: the text is no positive decimal number with at most 18 places.
    """
    try:
        wei = Decimal(text) * 10**18
    except InvalidOperation:
        wei = Decimal(0)
    if not wei.is_finite() or wei <= 0 or wei != wei.to_integral_value():
        raise ConfigError(f"{text!r} is no amount of coin", where="--amount", remedy="like 2.5")
    return int(wei)


def address_of(text: str, where: str) -> bytes:
    """Return the 20 bytes of an address.

    Raises:
        ConfigError: the text is none, or is the zero address.
    """
    try:
        raw = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) != 20 or not any(raw):
        raise ConfigError(f"{text!r} is no address", where=where, remedy="give 20 bytes in hex")
    return raw


class _Bonds:
    """The bond of one home."""

    def __init__(self, home: Path) -> None:
        self.settings = config.load(home.resolve())
        self.spec: NetworkSpec = network.load(self.settings.network_file)
        contract = self.spec.chain(self.spec.hub).contract("Bonds")
        if contract is None:
            raise ConfigError(
                "the hub has no Bonds contract", where=str(self.settings.network_file)
            )
        self.contract = contract
        self.keys = keys.load(self.settings.keys, self.settings.password())

    def send(self, secret: bytes, function: str, *args: object, value: int = 0) -> str:
        """Send one transaction and return its hash."""
        one = Send(self.contract, encode_call("Bonds", function, *args), value, gas=GAS)
        return send(self.settings, self.spec.hub, secret, [one])[0]

    def ask(self, function: str, *args: object) -> Any:
        """Return what the contract answers."""
        (value,) = ask(self.settings, self.spec.hub, self.contract, "Bonds", function, *args)
        return value

    def show(self, transaction: str, as_json: bool) -> None:
        """Print the bond as it is now."""
        keeper = self.keys.address
        amount, locked, until, no_shows, status = self.ask("stake", keeper)
        value: dict[str, Any] = {
            "keeper": to_checksum_address(keeper),
            "status": BondStatus(status).name.lower(),
            "competes": self.ask("is_active", keeper),
            "bond_wei": amount,
            "locked_wei": locked,
            "claimable_wei": self.ask("claimable", keeper),
            "until": until,
            "no_shows": no_shows,
        }
        if transaction:
            value["transaction"] = transaction
        if as_json:
            print_json(value)
            return
        if until:
            value["until"] = datetime.fromtimestamp(until, UTC).isoformat(timespec="minutes")
        print_rows("Bond", value.items())


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
    _Bonds(home).show(sent, as_json)


def join_bond(home: Path, admin: str, amount: str) -> str:
    """Send the joining transaction of a home and return its hash."""
    owner, value = address_of(admin, "--admin"), wei_of(amount)
    bonds = _Bonds(home)
    return bonds.send(bonds.keys.operator, "join", owner, bonds.keys.peer_id, value=value)


@app.command()
def post(
    amount: Annotated[str, typer.Option(help="To add, in the hub's coin, like 2.5.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Add to the bond."""
    value, bonds = wei_of(amount), _Bonds(home)
    bonds.show(bonds.send(bonds.keys.operator, "post", bonds.keys.address, value=value), as_json)


@app.command()
def leave(admin_key: AdminKey, home: Home = Path(), as_json: JsonFlag = False) -> None:
    """Begin to leave: the bond stays at stake for the unbonding period."""
    bonds = _Bonds(home)
    bonds.show(bonds.send(read_secret(admin_key), "leave", bonds.keys.address), as_json)


@app.command()
def withdraw(
    admin_key: AdminKey,
    to: Annotated[str, typer.Option(help="Address to pay.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Take the bond out after the unbonding period."""
    receiver, bonds = address_of(to, "--to"), _Bonds(home)
    sent = bonds.send(read_secret(admin_key), "withdraw", bonds.keys.address, receiver)
    bonds.show(sent, as_json)


@app.command()
def unjail(admin_key: AdminKey, home: Home = Path(), as_json: JsonFlag = False) -> None:
    """Compete again after the jail time, with a full bond."""
    bonds = _Bonds(home)
    bonds.show(bonds.send(read_secret(admin_key), "unjail", bonds.keys.address), as_json)


@app.command()
def claim(
    to: Annotated[str, typer.Option(help="Address to pay.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Take out what reports and stepping in for others earned."""
    receiver, bonds = address_of(to, "--to"), _Bonds(home)
    bonds.show(bonds.send(bonds.keys.operator, "claim", receiver), as_json)


@app.command()
def status(home: Home = Path(), as_json: JsonFlag = False) -> None:
    """Show the bond."""
    _Bonds(home).show("", as_json)
