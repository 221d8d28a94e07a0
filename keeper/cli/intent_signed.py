"""`keeper intent sign | open-for`: orders that a user only signs, and anybody opens.

order.json, key ─▶ GaslessCrossChainOrder ─▶ EIP-712 signature ─▶ signed.json
signed.json ─▶ is it the user's signature? may the settler take the input? ─▶ openFor

The user lets the settler take the input once, and needs no coin for gas from then on.
"""

import json
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from keeper import config, network
from keeper.cli.intent_order import asked, print_order, read_object, read_order, settler_of
from keeper.cli.onchain import ask, head_time, read_secret, send
from keeper.cli.output import JsonFlag
from keeper.contracts import encode_call
from keeper.devnet.wallet import Send
from keeper.ecdsa import sign as sign_digest
from keeper.ecdsa import signer_of
from keeper.errors import ConfigError
from keeper.intent.order import GaslessOrder, OnchainOrder, ResolvedOrder, decode_order, resolve
from keeper.keys import address_of
from keeper.network import NetworkSpec

Home = Annotated[Path, typer.Option(help="The node's home.")]
GAS = 800_000
_NUMBERS = ("nonce", "origin_chain", "open_deadline", "fill_deadline")
_BYTES = ("origin_settler", "user", "order_data", "order_data_type")


def sign(
    order: Annotated[Path, typer.Argument(help="JSON object of the order.")],
    key: Annotated[Path, typer.Option(help="Key file of the user who gives the input.")],
    out: Annotated[Path, typer.Option(help="Where to write the signed order.")],
    home: Home = Path(),
    open_within_s: Annotated[
        int, typer.Option("--open-within", min=1, help="Seconds in which it may be opened.")
    ] = 600,
    as_json: JsonFlag = False,
) -> None:
    """Sign an order that anybody may open; its user pays no gas.

    The settler takes the input when it is opened: the user must have approved it for the token.
    """
    settings = config.load(home.resolve())
    spec, row = network.load(settings.network_file), read_object(order)
    origin, wanted = read_order(spec, row, str(order))
    secret = read_secret(key)
    now = head_time(settings, origin.id)
    inner = asked(home, row, wanted, now)
    signed = GaslessOrder(
        origin_settler=settler_of(origin),
        user=address_of(secret),
        nonce=secrets.randbits(256),  # used once, in no order
        origin_chain=origin.id,
        open_deadline=min(now + open_within_s, inner.fill_deadline),
        fill_deadline=inner.fill_deadline,
        order_data=inner.order_data,
    )
    out.write_text(json.dumps(plain(signed, sign_digest(secret, signed.digest())), indent=2) + "\n")
    print_order(_resolved(spec, signed), [], as_json)


def plain(order: GaslessOrder, signature: bytes) -> dict[str, Any]:
    """Return what `signed_order` reads."""
    numbers = {name: getattr(order, name) for name in _NUMBERS}
    texts = {name: "0x" + getattr(order, name).hex() for name in _BYTES}
    return numbers | texts | {"signature": "0x" + signature.hex()}


def signed_order(row: dict[str, Any], where: str) -> tuple[GaslessOrder, bytes]:
    """Return an order and its user's signature.

    Raises:
        ConfigError: a field is missing or impossible, or it is not the user's signature.
    """
    try:
        fields: dict[str, Any] = {name: row[name] for name in _NUMBERS}
        if any(type(value) is not int or value < 0 for value in fields.values()):
            raise ValueError("nonce, chain and deadlines are non-negative integers")
        fields |= {name: bytes.fromhex(row[name].removeprefix("0x")) for name in _BYTES}
        signature = bytes.fromhex(row["signature"].removeprefix("0x"))
        order = GaslessOrder(**fields)
        decode_order(order.order_data)
        if signer_of(order.digest(), signature) != order.user:
            raise ValueError("it is not the user's signature")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"cannot read the signed order: {type(error).__name__} {error}",
            where=where,
            remedy="keeper intent sign makes one",
        ) from error
    return order, signature


def open_for(
    file: Annotated[Path, typer.Argument(help="What keeper intent sign wrote.")],
    key: Annotated[Path, typer.Option(help="Key file of whoever pays the gas.")],
    home: Home = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Open an order that its user has signed."""
    settings = config.load(home.resolve())
    spec = network.load(settings.network_file)
    order, signature = signed_order(read_object(file), str(file))
    origin = next((one for one in spec.chains if one.id == order.origin_chain), None)
    if origin is None or origin.contract("Intents") != order.origin_settler:
        raise ConfigError("its settler is none of this network's", where=str(file))
    inner = decode_order(order.order_data)
    (lets,) = ask(
        *(settings, origin.id, inner.input_token, "DevToken", "allowance"),
        *(order.user, order.origin_settler),
    )
    if lets < inner.input_amount:
        raise ConfigError(
            f"the user lets the settler take {lets} of the {inner.input_amount} that it gives",
            where=f"token 0x{inner.input_token.hex()} on chain {origin.id}",
            remedy="the user approves the settler once",
        )
    data = encode_call("Intents", "openFor", _struct(order), signature, b"")
    sent = send(settings, origin.id, read_secret(key), [Send(order.origin_settler, data, gas=GAS)])
    print_order(_resolved(spec, order), sent, as_json)


def _struct(order: GaslessOrder) -> tuple[object, ...]:
    head = (order.origin_settler, order.user, order.nonce, order.origin_chain)
    times = (order.open_deadline, order.fill_deadline)
    return (*head, *times, order.order_data_type, order.order_data)


def _resolved(spec: NetworkSpec, order: GaslessOrder) -> ResolvedOrder:
    return resolve(
        spec.id,
        order.origin_chain,
        order.origin_settler,
        user=order.user,
        nonce=order.nonce,
        order=OnchainOrder(order.fill_deadline, order.order_data, order.order_data_type),
        open_deadline=order.open_deadline,
    )
