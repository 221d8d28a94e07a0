"""What verbs of `keeper intent` share: an order's file, its deadline, and how it is shown.

order.json ─▶ origin, Order ─▶ deadline: fill_within_s, or while an account surely keeps a health
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keeper.cli.account import load_state
from keeper.cli.files import read_json
from keeper.cli.output import print_json, print_rows
from keeper.errors import ConfigError
from keeper.intent.deadline import MarginNeed, make_order
from keeper.intent.order import OnchainOrder, Order, ResolvedOrder, word
from keeper.network import ChainSpec, NetworkSpec
from keeper.settle.health import seconds_above
from keeper.settle.terms import read_token
from keeper.units import ChainId
from keeper.venue.book import accounts
from keeper.venue.records import address


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file.

    Raises:
        ConfigError: it is none.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise ConfigError("an order is a JSON object", where=str(path))
    return found


def settler_of(chain: ChainSpec) -> bytes:
    """Return a chain's settler.

    Raises:
        ValueError: it has none.
    """
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
        settler_of(origin)
        return origin, Order(
            input_token=read_token(origin, row["input_token"]),
            input_amount=amounts[0],
            output_token=word(read_token(there, row["output_token"])),
            output_amount=amounts[1],
            recipient=word(recipient),
            vault=word(vault),
            destination_chain=there.id,
            destination_settler=word(settler_of(there)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"cannot read the order: {type(error).__name__} {error}",
            where=where,
            remedy="keeper intent --help names the fields",
        ) from error


def asked(home: Path, row: Mapping[str, Any], order: Order, now: int) -> OnchainOrder:
    """Return an order with its deadline.

    Raises:
        ConfigError: it is to arrive before an account's health falls, and that may be at any time.
    """
    if "health_ppm" not in row:
        return OnchainOrder(now + int(row.get("fill_within_s", 3_600)), order.encode())
    need = _need(order, int(row["health_ppm"]))
    return make_order(need, order.input_token, order.input_amount, now, _seconds(home, need))


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
        seconds = seconds_above(
            state.parameters.margin, state.prices, legs, margin, need.health_ppm
        )
    if seconds == 0:
        raise ConfigError(
            "the account's health may fall below the floor at any time",
            where="health_ppm",
            remedy="reduce the position, or give fill_within_s",
        )
    return seconds


def print_order(made: ResolvedOrder, sent: list[str], as_json: bool) -> None:
    """Show an order, its id and what a filler needs."""
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
