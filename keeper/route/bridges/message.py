"""Message formats of two bridges, byte for byte: Hyperlane v3, and CCIP's structs and wire form.

    Hyperlane   version 1 | nonce 4 | origin 4 | sender 32 | destination 4 | recipient 32 | body
                id = keccak(message)
                what a validator signs: EIP-191 of keccak(domain hash, root, index, id)
    CCIP user   EVM2AnyMessage, Any2EVMMessage: ABI structs; extraArgs begin with a 4-byte tag
    CCIP wire   MessageV1: fixed head of 69 bytes, then fields each with its length; id = keccak
                TokenTransferV1 inside it: version, amount, then fields each with its length

Reading refuses anything that is not exactly one message. Sources: Message.sol and CheckpointLib.sol
of Hyperlane's core (Apache-2.0); Client.sol's struct layout and MessageV1Codec's field order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from keeper.hashing import keccak

HYPERLANE_VERSION = 3
HYPERLANE_HEAD = 77
"""Bytes before the body."""
CCIP_VERSION = 1

EXTRA_ARGS_V1 = bytes.fromhex("97a657c9")
EXTRA_ARGS_V2 = bytes.fromhex("181dcf10")
EVM2ANY = "(bytes,bytes,(address,uint256)[],address,bytes)"
ANY2EVM = "(bytes32,uint64,bytes,bytes,(address,uint256)[])"
_HEAD = (("version", 1), ("source", 8), ("destination", 8), ("number", 8))
_LIMITS = (("execution_gas", 4), ("receive_gas", 4))
_FIELDS = (
    *(("on_ramp", 1), ("off_ramp", 1), ("sender", 1), ("receiver", 1)),
    *(("destination_blob", 2), ("token_transfer", 2), ("data", 2)),
)
"""Variable fields in order, with the width of their length."""
_TOKEN_FIELDS = (
    *(("source_pool", 1), ("source_token", 1), ("token", 1), ("receiver", 1)),
    ("pool_data", 2),
)


class Reader:
    """Takes bytes off the front; never past the end."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._at = raw, 0

    def take(self, size: int) -> bytes:
        """Return the next bytes.

        Raises:
            ValueError: fewer are left.
        """
        part = self._raw[self._at : self._at + size]
        if len(part) != size:
            raise ValueError(f"a message of {len(self._raw)} bytes is cut short")
        self._at += size
        return part

    def number(self, size: int) -> int:
        """Return the next big-endian number."""
        return int.from_bytes(self.take(size), "big")

    def rest(self) -> bytes:
        """Return everything that is left."""
        return self.take(len(self._raw) - self._at)


@dataclass(frozen=True, slots=True)
class HyperlaneMessage:
    """A message as the Mailbox dispatches it; sender and recipient are 32-byte words."""

    nonce: int
    origin: int
    sender: bytes
    destination: int
    recipient: bytes
    body: bytes

    def encode(self) -> bytes:
        """Return the wire form."""
        if len(self.sender) != 32 or len(self.recipient) != 32:
            raise ValueError("sender and recipient are 32 bytes")
        return b"".join(
            (
                HYPERLANE_VERSION.to_bytes(1, "big"),
                self.nonce.to_bytes(4, "big"),
                self.origin.to_bytes(4, "big"),
                self.sender,
                self.destination.to_bytes(4, "big"),
                self.recipient,
                self.body,
            )
        )

    @property
    def id(self) -> bytes:
        """Message id."""
        return keccak(self.encode())


def decode_hyperlane(raw: bytes) -> HyperlaneMessage:
    """Return the message of its wire form.

    Raises:
        ValueError: it is too short or of another version.
    """
    reader = Reader(raw)
    if reader.number(1) != HYPERLANE_VERSION:
        raise ValueError("another version of Hyperlane's message")
    nonce, origin, sender = reader.number(4), reader.number(4), reader.take(32)
    destination, recipient = reader.number(4), reader.take(32)
    return HyperlaneMessage(nonce, origin, sender, destination, recipient, reader.rest())


def checkpoint_digest(origin: int, hook: bytes, root: bytes, index: int, message: bytes) -> bytes:
    """Return what a Hyperlane validator signs for a message in the origin's Merkle tree.

    Args:
        origin: Hyperlane domain.
        hook: the Merkle tree hook as a 32-byte word.
        root: of the tree.
        index: of the message in it.
        message: its id.
    """
    domain = keccak(origin.to_bytes(4, "big") + hook + b"HYPERLANE")
    inner = keccak(domain + root + index.to_bytes(4, "big") + message)
    return keccak(b"\x19Ethereum Signed Message:\n32" + inner)


def ccip_extra_args(gas_limit: int, out_of_order: bool | None = None) -> bytes:
    """Return extraArgs: version 1 with a gas limit, or version 2 with the order flag as well."""
    if out_of_order is None:
        return EXTRA_ARGS_V1 + encode(("uint256",), (gas_limit,))
    return EXTRA_ARGS_V2 + encode(("uint256", "bool"), (gas_limit, out_of_order))


def encode_evm2any(
    receiver: bytes,
    data: bytes,
    tokens: Sequence[tuple[bytes, int]],
    fee_token: bytes,
    extra_args: bytes,
) -> bytes:
    """Return an EVM2AnyMessage as `ccipSend` takes it; tokens are (address, amount)."""
    return encode([EVM2ANY], [(receiver, data, list(tokens), fee_token, extra_args)])


def decode_any2evm(raw: bytes) -> tuple[bytes, int, bytes, bytes, tuple[tuple[bytes, int], ...]]:
    """Return (message id, source selector, sender, data, tokens) of an Any2EVMMessage.

    Raises:
        ValueError: the bytes are no such struct.
    """
    try:
        ((message, source, sender, data, tokens),) = decode([ANY2EVM], raw)
    except (DecodingError, OverflowError) as error:
        raise ValueError(f"{len(raw)} bytes are no Any2EVMMessage") from error
    held = tuple((bytes.fromhex(token[2:]), amount) for token, amount in tokens)
    return message, source, sender, data, held


def _packed(value: object, layout: Sequence[tuple[str, int]]) -> bytes:
    """Return fields one after the other, each after its length."""
    fields = [(getattr(value, name), size) for name, size in layout]
    return b"".join(len(field).to_bytes(size, "big") + field for field, size in fields)


@dataclass(frozen=True, slots=True)
class CcipTokens:
    """CCIP's TokenTransferV1: what a message moves, after its pool's fee.

    Args:
        amount: in the source token's unit.
        source_pool, source_token: as words; token, receiver: addresses on the destination.
        pool_data: what the pool tells the other one: its token's decimals.
    """

    amount: int
    source_pool: bytes
    source_token: bytes
    token: bytes
    receiver: bytes
    pool_data: bytes = b""

    def encode(self) -> bytes:
        """Return the wire form.

        Raises:
            OverflowError: a field is longer than its length can say.
        """
        head = CCIP_VERSION.to_bytes(1, "big") + self.amount.to_bytes(32, "big")
        return head + _packed(self, _TOKEN_FIELDS)


def decode_ccip_tokens(raw: bytes) -> CcipTokens:
    """Return the token transfer of its wire form.

    Raises:
        ValueError: it is cut short, of another version, or more than one transfer.
    """
    reader = Reader(raw)
    if reader.number(1) != CCIP_VERSION:
        raise ValueError("another version of CCIP's token transfer")
    amount = reader.number(32)
    fields = {name: reader.take(reader.number(size)) for name, size in _TOKEN_FIELDS}
    if reader.rest():
        raise ValueError("bytes after the token transfer")
    return CcipTokens(amount, **fields)


@dataclass(frozen=True, slots=True)
class CcipMessage:
    """CCIP's MessageV1.

    Args:
        source: chain selector.
        destination: chain selector.
        number: of the message on its lane.
        execution_gas, receive_gas: gas limits.
        finality: 4 bytes.
        verifiers: hash over verifiers and executor, 32 bytes.
        on_ramp, sender: as words of the source; off_ramp, receiver: addresses there.
        destination_blob: chain family extras.
        token_transfer: encoded, or empty: at most one.
        data: payload.
    """

    source: int
    destination: int
    number: int
    execution_gas: int
    receive_gas: int
    finality: bytes
    verifiers: bytes
    on_ramp: bytes
    off_ramp: bytes
    sender: bytes
    receiver: bytes
    destination_blob: bytes = b""
    token_transfer: bytes = b""
    data: bytes = b""

    def encode(self) -> bytes:
        """Return the wire form.

        Raises:
            ValueError: a fixed field has another size.
            OverflowError: a field is longer than its length can say.
        """
        if len(self.finality) != 4 or len(self.verifiers) != 32:
            raise ValueError("finality is 4 bytes and the verifiers' hash 32")
        parts = [CCIP_VERSION.to_bytes(1, "big")]
        for name, size in (*_HEAD[1:], *_LIMITS):
            parts.append(int(getattr(self, name)).to_bytes(size, "big"))
        parts += [self.finality, self.verifiers, _packed(self, _FIELDS)]
        return b"".join(parts)

    @property
    def id(self) -> bytes:
        """Message id."""
        return keccak(self.encode())


def decode_ccip(raw: bytes) -> CcipMessage:
    """Return the message of its wire form.

    Raises:
        ValueError: it is cut short, of another version, or more than one message.
    """
    reader = Reader(raw)
    version, *head = [reader.number(size) for _, size in _HEAD]
    if version != CCIP_VERSION:
        raise ValueError("another version of CCIP's message")
    source, destination, number = head
    execution_gas, receive_gas = (reader.number(size) for _, size in _LIMITS)
    finality, verifiers = reader.take(4), reader.take(32)
    fields = {name: reader.take(reader.number(size)) for name, size in _FIELDS}
    if reader.rest():
        raise ValueError("bytes after the message")
    return CcipMessage(
        source=source,
        destination=destination,
        number=number,
        execution_gas=execution_gas,
        receive_gas=receive_gas,
        finality=finality,
        verifiers=verifiers,
        **fields,
    )
