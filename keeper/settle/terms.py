"""The terms of a flow before anything is locked: legs in order, nonce, id.

    legs.json ─▶ legs ─▶ hashes ─┐
    epoch, number ─▶ nonce ──────┴─▶ id      payers check the file they share, then lock their legs

Whoever agrees to a flow computes its id from the legs itself; an id that somebody sends is nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keeper.errors import ConfigError
from keeper.leaves import flow_id, flow_leg_hash
from keeper.network import ChainSpec, NetworkSpec
from keeper.settle.flow import NUMBERS, flow_nonce
from keeper.units import ChainId, symbol_text

MAX_LEGS = 16
"""As Escrow.vy says."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One leg: who locks how much of what on which chain, for whom."""

    chain: ChainId
    escrow: bytes
    payer: bytes
    token: bytes
    amount: int
    receiver: bytes

    @property
    def hash(self) -> bytes:
        """What the flow's id binds."""
        return flow_leg_hash(
            self.chain,
            self.escrow,
            payer=self.payer,
            token=self.token,
            amount=self.amount,
            receiver=self.receiver,
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """A whole flow."""

    nonce: bytes
    legs: tuple[Leg, ...]
    id: bytes

    @property
    def hashes(self) -> list[bytes]:
        """The leg hashes in order, as `prepare` wants them."""
        return [leg.hash for leg in self.legs]


def make_terms(network: bytes, epoch: int, number: int, legs: Sequence[Leg]) -> Terms:
    """Return the flow over these legs.

    Args:
        network: 32-byte id.
        epoch: committee epoch.
        number: which of the flows with these very legs in this epoch.
        legs: all legs in order.

    Raises:
        ConfigError: there are no or too many legs, two are the same, or the number is too large.
    """
    if not 0 < len(legs) <= MAX_LEGS or len(set(legs)) != len(legs):
        raise ConfigError(
            f"a flow of {len(legs)} legs cannot be opened",
            where="legs",
            remedy=f"1 to {MAX_LEGS} legs, each different",
        )
    if not 0 <= number < NUMBERS:
        raise ConfigError(f"{number} is no number of a flow", where="number", remedy="0 to 63")
    nonce = flow_nonce(epoch, number)
    return Terms(nonce, tuple(legs), flow_id(network, nonce, [leg.hash for leg in legs]))


def read_legs(spec: NetworkSpec, rows: object, where: str) -> tuple[Leg, ...]:
    """Return the legs of a JSON file: chain, payer, token, amount, receiver in each row.

    Raises:
        ConfigError: a field is missing or impossible, or a chain has no escrow.
    """
    try:
        return tuple(_leg(spec, row) for row in rows)  # type: ignore[attr-defined]  # caught below
    except (AttributeError, KeyError, TypeError, ValueError) as error:
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
    amount = row["amount"]
    if type(amount) is not int or amount <= 0:
        raise ValueError(f"amount {amount!r} is no positive integer of the token's smallest unit")
    return Leg(
        chain=chain.id,
        escrow=escrow,
        payer=read_address(row["payer"]),
        token=read_token(chain, row["token"]),
        amount=amount,
        receiver=read_address(row["receiver"]),
    )


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
