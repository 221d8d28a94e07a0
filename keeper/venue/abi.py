"""Calls and answers of contracts that are not ours, in their own ABI."""

from collections.abc import Sequence
from typing import Any

from eth_abi.abi import decode, encode
from eth_abi.exceptions import EncodingError

from keeper.hashing import keccak


def calldata(signature: str, *values: Any) -> bytes:
    """Return selector and arguments of `name(type,…)`; tuples are written as `(a,b)`.

    Raises:
        ValueError: a value is not of its type.
    """
    types = _types(signature.partition("(")[2][:-1])
    try:
        return keccak(signature.encode())[:4] + encode(types, values)
    except EncodingError as error:
        raise ValueError(f"{signature}: {error}") from error


def _types(text: str) -> list[str]:
    """Return the comma separated types of a signature, tuples kept whole."""
    found, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            found.append(text[start:place])
            start = place + 1
    return [*found, text[start:]] if text else []


def answers(types: Sequence[str], data: bytes) -> tuple[Any, ...]:
    """Return a call's decoded answer.

    Raises:
        ValueError: the data is not of these types.
    """
    try:
        values: tuple[Any, ...] = decode(types, data)
    except Exception as error:
        raise ValueError(f"an answer of {len(data)} bytes is not {','.join(types)}") from error
    return values


def address(value: object) -> bytes:
    """Return the 20 bytes of an address that eth-abi decoded to text."""
    return bytes.fromhex(str(value).removeprefix("0x"))
