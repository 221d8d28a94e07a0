"""ERC-7683 orders: structs, EIP-712 struct hashes, and the ids this settler gives them.

    GaslessCrossChainOrder  signed by the user, opened by anyone     openFor
    OnchainCrossChainOrder  opened by the user                       open
        └─ orderData: Order ─▶ ResolvedCrossChainOrder(orderId, FillInstruction(originData))
                                                         └─ fill(orderId, originData)

The id is recomputed from what was opened, never taken from an event: two settlers of the same
standard may announce ids that their own fill does not expect. Values are plain: addresses are 20
bytes, words 32. Sources: ERC-7683 (draft), EIP-712, contracts/Intents.vy.
"""

from dataclasses import astuple, dataclass
from functools import lru_cache

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError

from keeper.hashing import abi_hash, keccak, type_hash

OUTPUT = "Output(bytes32 token,uint256 amount,bytes32 recipient,uint256 chainId)"
FILL_INSTRUCTION = (
    "FillInstruction(uint64 destinationChainId,bytes32 destinationSettler,bytes originData)"
)
GASLESS = (
    "GaslessCrossChainOrder(address originSettler,address user,uint256 nonce,uint256 originChainId,"
    "uint32 openDeadline,uint32 fillDeadline,bytes32 orderDataType,bytes orderData)"
)
ONCHAIN = "OnchainCrossChainOrder(uint32 fillDeadline,bytes32 orderDataType,bytes orderData)"
RESOLVED = (
    "ResolvedCrossChainOrder(address user,uint256 originChainId,uint32 openDeadline,"
    "uint32 fillDeadline,bytes32 orderId,Output[] maxSpent,Output[] minReceived,"
    "FillInstruction[] fillInstructions)"
)
ORDER = (
    "Order(address inputToken,uint256 inputAmount,bytes32 outputToken,uint256 outputAmount,"
    "bytes32 recipient,bytes32 vault,uint64 destinationChain,bytes32 destinationSettler)"
)
FILLED = "Filled(bytes32 orderId,bytes32 dataHash,bytes32 payee)"
UNFILLED = "Unfilled(bytes32 orderId,bytes32 dataHash)"
DOMAIN = "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
DOMAIN_NAME, DOMAIN_VERSION = "Flowkeeper Intents", "1"
NO_DEADLINE = 2**32 - 1
"""openDeadline of an order that its user opened."""

_DELIVERY = ("bytes32", "uint256", "bytes32", "bytes32", "uint32")


def _types(type_string: str) -> tuple[str, ...]:
    """Return the field types of a flat type string."""
    fields = type_string.partition("(")[2].rstrip(")").split(",")
    return tuple(field.split(" ")[0] for field in fields)


def word(address: bytes) -> bytes:
    """Return an address as ERC-7683 writes it: a 32-byte word."""
    return address.rjust(32, b"\0")


@dataclass(frozen=True, slots=True)
class Order:
    """What must arrive where for what; fields and order are those of the order type."""

    input_token: bytes
    input_amount: int
    output_token: bytes
    output_amount: int
    recipient: bytes
    """32-byte word: an address, or the margin account where `vault` is set."""
    vault: bytes
    destination_chain: int
    destination_settler: bytes

    def encode(self) -> bytes:
        """Return the order data of an ERC-7683 order."""
        return encode(_types(ORDER), astuple(self))

    def struct_hash(self) -> bytes:
        """Return the EIP-712 hash."""
        return abi_hash(("bytes32", *_types(ORDER)), (type_hash(ORDER), *astuple(self)))

    def origin_data(self, fill_deadline: int) -> bytes:
        """Return what a fill must be called with."""
        values = (self.output_token, self.output_amount, self.recipient, self.vault)
        return encode(_DELIVERY, (*values, fill_deadline))


def decode_order(data: bytes) -> Order:
    """Return the order of order data.

    Raises:
        ValueError: the data is not of this order type.
    """
    try:
        token, *rest = decode(_types(ORDER), data)
    except (DecodingError, OverflowError) as error:
        raise ValueError(f"order data of {len(data)} bytes is no Order") from error
    return Order(bytes.fromhex(token[2:]), *rest)


@lru_cache(maxsize=1 << 14)  # a filler reads all open orders again in every view
def decode_delivery(data: bytes) -> tuple[bytes, int, bytes, bytes, int]:
    """Return (output token, amount, recipient, vault, fill deadline) of origin data.

    Raises:
        ValueError: the data is not what a settler of this kind makes.
    """
    try:
        token, amount, recipient, vault, deadline = decode(_DELIVERY, data)
    except (DecodingError, OverflowError) as error:
        raise ValueError(f"origin data of {len(data)} bytes is no delivery") from error
    return token, amount, recipient, vault, deadline


@dataclass(frozen=True, slots=True)
class OnchainOrder:
    """OnchainCrossChainOrder."""

    fill_deadline: int
    order_data: bytes
    order_data_type: bytes = type_hash(ORDER)

    def struct_hash(self) -> bytes:
        """Return the EIP-712 hash."""
        types = ("bytes32", "uint32", "bytes32", "bytes32")
        data = keccak(self.order_data)
        values = (type_hash(ONCHAIN), self.fill_deadline, self.order_data_type, data)
        return abi_hash(types, values)


@dataclass(frozen=True, slots=True)
class GaslessOrder:
    """GaslessCrossChainOrder."""

    origin_settler: bytes
    user: bytes
    nonce: int
    origin_chain: int
    open_deadline: int
    fill_deadline: int
    order_data: bytes
    order_data_type: bytes = type_hash(ORDER)

    def struct_hash(self) -> bytes:
        """Return the EIP-712 hash."""
        return abi_hash(
            ("bytes32", *_types(GASLESS)[:-1], "bytes32"),
            (
                *(type_hash(GASLESS), self.origin_settler, self.user, self.nonce),
                *(self.origin_chain, self.open_deadline, self.fill_deadline),
                *(self.order_data_type, keccak(self.order_data)),
            ),
        )

    def digest(self) -> bytes:
        """Return what the user signs, in the domain of the order's settler and chain."""
        domain = abi_hash(
            ("bytes32", "bytes32", "bytes32", "uint256", "address"),
            (
                *(type_hash(DOMAIN), keccak(DOMAIN_NAME.encode())),
                *(keccak(DOMAIN_VERSION.encode()), self.origin_chain, self.origin_settler),
            ),
        )
        return keccak(b"\x19\x01" + domain + self.struct_hash())


@dataclass(frozen=True, slots=True)
class Output:
    """A token word, an amount, a recipient word and a chain id."""

    token: bytes
    amount: int
    recipient: bytes
    chain: int

    def struct_hash(self) -> bytes:
        """Return the EIP-712 hash."""
        return abi_hash(("bytes32", *_types(OUTPUT)), (type_hash(OUTPUT), *astuple(self)))


@dataclass(frozen=True, slots=True)
class FillInstruction:
    """Where and with what a filler calls `fill`."""

    destination_chain: int
    destination_settler: bytes
    origin_data: bytes

    def struct_hash(self) -> bytes:
        """Return the EIP-712 hash."""
        return abi_hash(
            ("bytes32", "uint64", "bytes32", "bytes32"),
            (
                *(type_hash(FILL_INSTRUCTION), self.destination_chain),
                *(self.destination_settler, keccak(self.origin_data)),
            ),
        )


@dataclass(frozen=True, slots=True)
class ResolvedOrder:
    """ResolvedCrossChainOrder."""

    user: bytes
    origin_chain: int
    open_deadline: int
    fill_deadline: int
    order_id: bytes
    max_spent: tuple[Output, ...]
    min_received: tuple[Output, ...]
    fill_instructions: tuple[FillInstruction, ...]

    def struct_hash(self) -> bytes:
        """Return the EIP-712 hash; the type string names the structs it refers to, by name."""
        lists = (self.max_spent, self.min_received, self.fill_instructions)
        hashes = [keccak(b"".join(item.struct_hash() for item in items)) for items in lists]
        return abi_hash(
            ("bytes32", "address", "uint256", "uint32", "uint32", *("bytes32",) * 4),
            (
                *(type_hash(RESOLVED + FILL_INSTRUCTION + OUTPUT), self.user, self.origin_chain),
                *(self.open_deadline, self.fill_deadline, self.order_id, *hashes),
            ),
        )


def order_id(
    network: bytes,
    chain: int,
    settler: bytes,
    *,
    user: bytes,
    nonce: int,
    gasless: bool,
    fill_deadline: int,
    order_data: bytes,
) -> bytes:
    """Return the id that a settler gives an order when it is opened."""
    types = ("bytes32", "uint256", "address", "address", "uint256", "bool", "uint32", "bytes32")
    values = (network, chain, settler, user, nonce, gasless, fill_deadline, keccak(order_data))
    return abi_hash(types, values)


def resolve(
    network: bytes,
    chain: int,
    settler: bytes,
    *,
    user: bytes,
    nonce: int,
    order: OnchainOrder,
    open_deadline: int | None = None,
) -> ResolvedOrder:
    """Return what the settler announces when the order is opened.

    Args:
        network: 32-byte id.
        chain: where it is opened.
        settler: contract that opens it.
        user: who gives the input.
        nonce: the user's count of orders opened, or the nonce of a signed order.
        order: deadline and order data.
        open_deadline: of a signed order; None for one that its user opens.

    Raises:
        ValueError: the order data is of another type.
    """
    if order.order_data_type != type_hash(ORDER):
        raise ValueError("another order type")
    inner = decode_order(order.order_data)
    given = Output(word(inner.input_token), inner.input_amount, bytes(32), chain)
    wanted = Output(
        inner.output_token, inner.output_amount, inner.recipient, inner.destination_chain
    )
    instruction = FillInstruction(
        inner.destination_chain, inner.destination_settler, inner.origin_data(order.fill_deadline)
    )
    return ResolvedOrder(
        user=user,
        origin_chain=chain,
        open_deadline=NO_DEADLINE if open_deadline is None else open_deadline,
        fill_deadline=order.fill_deadline,
        order_id=order_id(
            network,
            chain,
            settler,
            user=user,
            nonce=nonce,
            gasless=open_deadline is not None,
            fill_deadline=order.fill_deadline,
            order_data=order.order_data,
        ),
        max_spent=(wanted,),
        min_received=(given,),
        fill_instructions=(instruction,),
    )


def filled_event(order: bytes, data_hash: bytes, payee: bytes) -> bytes:
    """Return the event hash of a delivered order; the payee is an address as a word."""
    values = (type_hash(FILLED), order, data_hash, payee)
    return abi_hash(("bytes32",) * 4, values)


def unfilled_event(order: bytes, data_hash: bytes) -> bytes:
    """Return the event hash of an order whose deadline passed without a fill."""
    return abi_hash(("bytes32",) * 3, (type_hash(UNFILLED), order, data_hash))
