"""ERC-7683's structs hash as a wallet hashes them, from type strings written out here."""

from typing import Any

import pytest
from eth_account.messages import encode_typed_data

from keeper.contracts import abi_type, artifact
from keeper.hashing import keccak, type_hash
from keeper.intent import order as intent
from keeper.intent.order import (
    FillInstruction,
    GaslessOrder,
    OnchainOrder,
    Order,
    Output,
    ResolvedOrder,
    decode_order,
    resolve,
    word,
)
from keeper.venue.intents import OPEN, RESOLVED

A, B = b"\xaa" * 20, b"\xbb" * 20
W = tuple(keccak(bytes([at])) for at in range(6))
ORDER = Order(A, 100, W[0], 90, W[1], W[2], 31_502, W[3])
TYPES: dict[str, str] = {
    # as the ERC writes the structs
    "GaslessCrossChainOrder": (
        "address originSettler,address user,uint256 nonce,uint256 originChainId,"
        "uint32 openDeadline,uint32 fillDeadline,bytes32 orderDataType,bytes orderData"
    ),
    "OnchainCrossChainOrder": "uint32 fillDeadline,bytes32 orderDataType,bytes orderData",
    "ResolvedCrossChainOrder": (
        "address user,uint256 originChainId,uint32 openDeadline,uint32 fillDeadline,"
        "bytes32 orderId,Output[] maxSpent,Output[] minReceived,FillInstruction[] fillInstructions"
    ),
    "Output": "bytes32 token,uint256 amount,bytes32 recipient,uint256 chainId",
    "FillInstruction": "uint64 destinationChainId,bytes32 destinationSettler,bytes originData",
    "Order": (
        "address inputToken,uint256 inputAmount,bytes32 outputToken,uint256 outputAmount,"
        "bytes32 recipient,bytes32 vault,uint64 destinationChain,bytes32 destinationSettler"
    ),
}
DOMAIN = {"name": "Flowkeeper Intents", "version": "1", "chainId": 31_501}


def names(struct: str) -> list[str]:
    return [field.split(" ")[1] for field in TYPES[struct].split(",")]


def wallet(struct: str, values: tuple[Any, ...], *inner: str) -> tuple[bytes, bytes]:
    """Return (struct hash, digest) by a wallet's own encoder."""
    types = {
        name: [
            dict(zip(("type", "name"), field.split(" "), strict=True))
            for field in TYPES[name].split(",")
        ]
        for name in (struct, *inner)
    }
    domain = {**DOMAIN, "verifyingContract": "0x" + A.hex()}
    made = encode_typed_data(domain, types, dict(zip(names(struct), values, strict=True)))
    digest = keccak(b"\x19" + made.version + made.header + made.body)
    return bytes(made.body), digest


def hexed(raw: bytes) -> str:
    return "0x" + raw.hex()


@pytest.mark.parametrize(
    ("name", "mine"),
    [
        ("GaslessCrossChainOrder", intent.GASLESS),
        ("OnchainCrossChainOrder", intent.ONCHAIN),
        ("ResolvedCrossChainOrder", intent.RESOLVED),
        ("Output", intent.OUTPUT),
        ("FillInstruction", intent.FILL_INSTRUCTION),
        ("Order", intent.ORDER),
    ],
)
def test_type_strings_are_those_of_the_standard(name: str, mine: str) -> None:
    assert mine == f"{name}({TYPES[name]})"


def test_a_signed_order_hashes_as_a_wallet_hashes_it() -> None:
    data = ORDER.encode()
    mine = GaslessOrder(A, B, 7, 31_501, 1_000, 2_000, data)
    values = (hexed(A), hexed(B), 7, 31_501, 1_000, 2_000, type_hash(intent.ORDER), data)
    assert (mine.struct_hash(), mine.digest()) == wallet("GaslessCrossChainOrder", values)


def test_the_other_structs_hash_as_a_wallet_hashes_them() -> None:
    data = ORDER.encode()
    onchain = OnchainOrder(2_000, data)
    values = (2_000, type_hash(intent.ORDER), data)
    assert onchain.struct_hash() == wallet("OnchainCrossChainOrder", values)[0]
    fields = (hexed(A), 100, W[0], 90, W[1], W[2], 31_502, W[3])
    assert ORDER.struct_hash() == wallet("Order", fields)[0]
    output, fill = Output(W[0], 1, W[1], 5), FillInstruction(9, W[2], b"data")
    assert output.struct_hash() == wallet("Output", (W[0], 1, W[1], 5))[0]
    assert fill.struct_hash() == wallet("FillInstruction", (9, W[2], b"data"))[0]
    resolved = ResolvedOrder(B, 1, 2, 3, W[4], (output,), (output, output), (fill,))
    row = dict(zip(names("Output"), (W[0], 1, W[1], 5), strict=True))
    one = dict(zip(names("FillInstruction"), (9, W[2], b"data"), strict=True))
    whole = (hexed(B), 1, 2, 3, W[4], [row], [row, row], [one])
    inner = ("Output", "FillInstruction")
    assert resolved.struct_hash() == wallet("ResolvedCrossChainOrder", whole, *inner)[0]


def test_the_abi_is_that_of_the_standard() -> None:
    signatures = {
        f"{e['name']}({','.join(abi_type(i) for i in e['inputs'])})"
        for e in artifact("Intents").abi
        if e["type"] in ("function", "event")
    }
    gasless = "(address,address,uint256,uint256,uint32,uint32,bytes32,bytes)"
    onchain = "(uint32,bytes32,bytes)"
    assert {
        f"open({onchain})",
        f"openFor({gasless},bytes,bytes)",
        f"resolve({onchain})",
        f"resolveFor({gasless},bytes)",
        "fill(bytes32,bytes,bytes)",
        f"Open(bytes32,{RESOLVED})",
    } <= signatures
    assert type_hash(f"Open(bytes32,{RESOLVED})") == OPEN


def test_order_data_reads_back_and_other_data_is_refused() -> None:
    assert decode_order(ORDER.encode()) == ORDER
    with pytest.raises(ValueError, match="no Order"):
        decode_order(ORDER.encode()[:-32])
    foreign = OnchainOrder(2_000, ORDER.encode(), W[5])
    with pytest.raises(ValueError, match="another order type"):
        resolve(W[0], 1, A, user=B, nonce=0, order=foreign)
    assert word(A) == bytes(12) + A
