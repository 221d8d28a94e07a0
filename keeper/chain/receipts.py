"""Logs that prove themselves: a block's receipts rebuilt into the trie its header names.

    eth_getBlockReceipts ─▶ RLP of each receipt ─▶ ordered trie ─▶ root == header.receipts_root

So one endpoint suffices: it can neither invent a log, nor hide one, nor change a byte; only the
transaction a log is said to come from is not under this root. Costs one hash and some encoding per
receipt (yellow paper §4.4.1, EIP-2718).
"""

from collections.abc import Sequence
from typing import Any

from keeper.chain import codec, mpt, rlp
from keeper.chain.port import Header, Log
from keeper.hashing import keccak


def ordered_root(values: Sequence[bytes]) -> bytes:
    """Return the root of the trie that maps rlp(index) to each value."""
    pairs = sorted((mpt.nibbles(rlp.encode(rlp.integer(i))), v) for i, v in enumerate(values))
    if not pairs:
        return mpt.EMPTY_ROOT
    return keccak(rlp.encode(_node(pairs, 0)))


def _node(pairs: Sequence[tuple[bytes, bytes]], depth: int) -> list[rlp.Item]:
    """Return the node over sorted (path, value) pairs that agree in their first `depth` nibbles."""
    first, last = pairs[0][0], pairs[-1][0]
    if len(pairs) == 1:
        return [_packed(first[depth:], leaf=True), pairs[0][1]]
    shared = depth
    while shared < len(first) and first[shared] == last[shared]:
        shared += 1
    if shared > depth:
        return [_packed(first[depth:shared], leaf=False), _reference(_node(pairs, shared))]
    branch: list[rlp.Item] = [b""] * 17
    start = 0
    if len(first) == depth:
        branch[16], start = pairs[0][1], 1
    while start < len(pairs):
        nibble, end = pairs[start][0][depth], start
        while end < len(pairs) and pairs[end][0][depth] == nibble:
            end += 1
        branch[nibble] = _reference(_node(pairs[start:end], depth + 1))
        start = end
    return branch


def _reference(node: list[rlp.Item]) -> rlp.Item:
    """Return how a parent names a node: its hash, or itself if that is shorter."""
    raw = rlp.encode(node)
    return keccak(raw) if len(raw) >= 32 else node


def _packed(path: bytes, *, leaf: bool) -> bytes:
    """Return the hex-prefix encoding of a path."""
    flag = 2 * leaf + len(path) % 2
    digits = bytes([flag]) + (b"" if flag & 1 else b"\0") + path
    return bytes([16 * high + low for high, low in zip(digits[::2], digits[1::2], strict=True)])


def receipt_rlp(entry: dict[str, Any]) -> bytes:
    """Return one receipt as its trie holds it: type byte, then status, gas, bloom, logs.

    Raises:
        ValueError: malformed.
    """
    kind = codec.quantity(entry.get("type") or "0x0")
    logs: list[rlp.Item] = [
        [
            codec.data(each["address"], 20),
            [codec.data(topic, 32) for topic in each["topics"]],
            codec.data(each["data"]),
        ]
        for each in entry["logs"]
    ]
    body = rlp.encode(
        [
            rlp.integer(codec.quantity(entry["status"])),
            rlp.integer(codec.quantity(entry["cumulativeGasUsed"])),
            codec.data(entry["logsBloom"], 256),
            logs,
        ]
    )
    return body if kind == 0 else bytes([kind]) + body


def proven_logs(header: Header, entries: Any) -> tuple[Log, ...]:
    """Return all logs of a block from its receipts, if these are the header's.

    Raises:
        BadProof: the receipts are not those of this block.
        ValueError: malformed.
    """
    if not isinstance(entries, list):
        raise ValueError("receipts are no list")
    try:
        if ordered_root([receipt_rlp(entry) for entry in entries]) != header.receipts_root:
            raise mpt.BadProof("receipts do not hash to the header's root")
        logs = codec.logs(header.ref.chain, [each for entry in entries for each in entry["logs"]])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"receipt lacks a field: {error}") from error
    if any(log.block != header.ref for log in logs):
        raise mpt.BadProof("a log names another block")
    if [log.position for log in logs] != list(range(len(logs))):
        raise mpt.BadProof("logs are not numbered in order")
    return logs
