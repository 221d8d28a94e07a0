"""A whole flow before anything is locked: legs in order, terms, id.

    legs.json ─▶ draft(times) ─▶ flow.json ─▶ read_flow ─▶ Flow ─▶ id     payers share flow.json,
                                                                          check it, pledge and lock

Whoever agrees to a flow computes its id from the file itself; an id that somebody sends is nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from keeper.errors import ConfigError
from keeper.network import ChainSpec, NetworkSpec
from keeper.units import ChainId, symbol, symbol_text
from keeper.venue.escrow import NOWHERE, Flow, Leg, Terms
from keeper.venue.records import word

MAX_LEGS = 16
MAX_WAIT_S = 86_400
"""Both as Escrow.vy says."""
MIN_LOCK_S = 60
"""Least time between the last deposit and the last lock: some finalities of a fast chain, so that
whoever deposits last cannot make the others late."""


def make_flow(
    network: bytes, terms: Terms, legs: Sequence[Leg], least_lock_s: int = MIN_LOCK_S
) -> Flow:
    """Return the flow over these legs.

    Args:
        network: 32-byte id.
        terms: its times, epoch and number.
        legs: in order.
        least_lock_s: seconds between the last deposit and the last lock, at least.

    Raises:
        ConfigError: the legs or the terms are not such that the flow could ever commit.
    """
    if not 0 < len(legs) <= MAX_LEGS:
        raise ConfigError(
            f"a flow of {len(legs)} legs cannot be opened",
            where="legs",
            remedy=f"1 to {MAX_LEGS} legs",
        )
    if bool(terms.arm_by) != any(leg.deposit for leg in legs):
        raise ConfigError(
            "deposits and the time for them come together",
            where="arm_by",
            remedy="give at least one leg a deposit, or leave arm_by 0",
        )
    if terms.arm_by and terms.lock_by - terms.arm_by < least_lock_s:
        raise ConfigError(
            f"{terms.lock_by - terms.arm_by} s to lock after the last deposit are too few",
            where="lock_by",
            remedy=f"at least {least_lock_s} s",
        )
    if not 0 <= terms.number < 1 << 32 or not 0 <= terms.epoch < 1 << 32:
        raise ConfigError("epoch and number are 32-bit integers", where="terms")
    return Flow.of(network, terms, legs)


def read_flow(spec: NetworkSpec, value: object, where: str) -> Flow:
    """Return the flow of a JSON object: epoch, number, arm_by, lock_by, legs.

    Raises:
        ConfigError: a field is missing or impossible, or a chain has no escrow.
    """
    try:
        numbers = [value[key] for key in ("epoch", "number", "arm_by", "lock_by")]  # type: ignore[index]  # caught below
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("epoch, number and times are non-negative integers")
        terms, rows = Terms(*numbers), value["legs"]  # type: ignore[index]  # caught below
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"cannot read the flow: {type(error).__name__} {error}",
            where=where,
            remedy="keeper flow draft makes such a file from a list of legs",
        ) from error
    return make_flow(spec.id, terms, read_legs(spec, rows, where))


def plain_flow(flow: Flow) -> dict[str, Any]:
    """Return what `read_flow` reads, for a file that payers share."""
    terms = flow.terms
    return {
        "epoch": terms.epoch,
        "number": terms.number,
        "arm_by": terms.arm_by,
        "lock_by": terms.lock_by,
        "legs": [plain_leg(leg) for leg in flow.legs],
    }


def plain_leg(leg: Leg) -> dict[str, Any]:
    """Return the row of a leg that `read_legs` reads."""
    row: dict[str, Any] = {
        "chain": leg.chain,
        "payer": "0x" + leg.payer.hex(),
        "token": "0x" + leg.token.hex(),
        "amount": leg.amount,
        "deposit": leg.deposit,
    }
    into = {"into": "0x" + leg.vault.hex()} if leg.vault != NOWHERE else {}
    if leg.reduces:
        account = int.from_bytes(leg.receiver, "big")
        return row | {"market": symbol_text(leg.market), "account": account} | into
    receiver = leg.receiver if into else leg.receiver[12:]
    return row | {"receiver": "0x" + receiver.hex()} | into


def read_legs(spec: NetworkSpec, rows: object, where: str) -> tuple[Leg, ...]:
    """Return the legs of a JSON list.

    Each has chain, payer, amount, and may have a deposit. A payment has a token and a receiver: an
    address, or an account of 32 bytes, credited by the chain's vault or by `into`, a contract's
    name or address. A reduction has a market and which of the payer's margin accounts (`account`,
    0 if not said), at the chain's venue or at `into`; its token is that of its deposit.

    Raises:
        ConfigError: a field is missing or impossible, or a chain has no escrow.
    """
    try:
        return tuple(_leg(spec, row) for row in rows)  # type: ignore[attr-defined]  # caught below
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ConfigError(
            f"cannot read the legs: {type(error).__name__} {error}",
            where=where,
            remedy='[{"chain": 31501, "payer": 0x…, "token": "USDC", "amount": 1, "receiver": …}]',
        ) from error


def _leg(spec: NetworkSpec, row: Mapping[str, Any]) -> Leg:
    chain = spec.chain(ChainId(int(row["chain"])))
    escrow = chain.contract("Escrow")
    if escrow is None:
        raise ValueError(f"chain {chain.id} has no escrow")
    amount, deposit = row["amount"], row.get("deposit", 0)
    if type(amount) is not int or type(deposit) is not int or amount <= 0 or deposit < 0:
        raise ValueError("amount and deposit are integers of the token's smallest unit")
    leg = Leg(
        chain=chain.id,
        escrow=escrow,
        payer=read_address(row["payer"]),
        token=NOWHERE if "market" in row and not deposit else read_token(chain, row["token"]),
        amount=amount,
        receiver=b"",
        deposit=deposit,
    )
    if "market" in row:
        account = row.get("account", 0)
        if type(account) is not int or not 0 <= account < 1 << 256:
            raise ValueError("account is the number of one of the payer's margin accounts")
        venue = _contract(chain, row.get("into", "Perps"))
        receiver, market = account.to_bytes(32, "big"), symbol(row["market"])
        return replace(leg, receiver=receiver, vault=venue, market=market)
    raw = bytes.fromhex(row["receiver"].removeprefix("0x"))
    receiver = raw if len(raw) == 32 else word(read_address(row["receiver"]))
    into = row.get("into", "Vault" if len(raw) == 32 else None)
    vault = NOWHERE if into is None else _contract(chain, into)
    return replace(leg, receiver=receiver, vault=vault)


def _contract(chain: ChainSpec, text: str) -> bytes:
    """Return the address of a contract that the descriptor names, or that is given as itself."""
    if text.startswith("0x"):
        return read_address(text)
    address = chain.contract(text)
    if address is None:
        raise ValueError(f"chain {chain.id} has no {text}")
    return address


def read_address(text: str) -> bytes:
    """Return 20 bytes.

    Raises:
        ValueError: the text is something else.
    """
    raw = bytes.fromhex(text.removeprefix("0x"))
    if len(raw) != 20 or not any(raw):
        raise ValueError(f"{text!r} is no address")
    return raw


def read_token(chain: ChainSpec, text: str) -> bytes:
    """Return a token's address, given as itself or as a symbol of the chain.

    Raises:
        ValueError: it is neither.
    """
    named = {symbol_text(token.asset): token.address for token in chain.tokens}
    return named[text] if text in named else read_address(text)
