"""Recursive Length Prefix, canonical only (Ethereum yellow paper, appendix B).

    b < 0x80            itself          0x80+n  n bytes          0xc0+n  a list of n bytes
                                        0xb7+m  m length bytes   0xf7+m  m length bytes

`decode` refuses every second spelling of a value, so two different byte strings never decode alike.
"""

from collections.abc import Sequence
from typing import Union

Item = Union[bytes, "list[Item]"]


def _prefix(length: int, short: int) -> bytes:
    if length < 56:
        return bytes((short + length,))
    size = (length.bit_length() + 7) // 8
    return bytes((short + 55 + size,)) + length.to_bytes(size, "big")


def encode(item: "bytes | Sequence[Item]") -> bytes:
    """Return the encoding of bytes or a nested list of bytes."""
    if isinstance(item, bytes):
        if len(item) == 1 and item[0] < 0x80:
            return item
        return _prefix(len(item), 0x80) + item
    payload = b"".join([encode(each) for each in item])
    return _prefix(len(payload), 0xC0) + payload


def integer(number: int) -> bytes:
    """Return an integer as RLP wants it: big endian, no leading zero, zero is empty."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def decode(raw: bytes) -> Item:
    """Return the item that `raw` encodes.

    Raises:
        ValueError: not canonical, truncated, or followed by more bytes.
    """
    item, end = _item(raw, 0, 0)
    if end != len(raw):
        raise ValueError("bytes after the item")
    return item


_MAX_DEPTH = 16
"""A trie node nests at most a few lists; deeper input is an attack on the stack."""


def _item(raw: bytes, at: int, depth: int) -> tuple[Item, int]:
    if at >= len(raw):
        raise ValueError("truncated")
    first = raw[at]
    if first < 0x80:
        return raw[at : at + 1], at + 1
    base = 0x80 if first < 0xC0 else 0xC0
    start, length = at + 1, first - base
    if length > 55:
        size = length - 55
        start += size
        length = int.from_bytes(raw[at + 1 : start], "big")
        if start > len(raw) or raw[at + 1] == 0 or length < 56:
            raise ValueError("length is not canonical")
    end = start + length
    if end > len(raw):
        raise ValueError("truncated")
    if base == 0x80:
        if length == 1 and raw[start] < 0x80:
            raise ValueError("a small byte has a prefix")
        return raw[start:end], end
    if depth >= _MAX_DEPTH:
        raise ValueError("nested too deeply")
    items: list[Item] = []
    while start < end:
        item, start = _item(raw, start, depth + 1)
        items.append(item)
    if start != end:
        raise ValueError("list item runs over its list")
    return items, end
