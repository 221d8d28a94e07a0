"""Strict Merkle-Patricia proofs: an account, a slot, or their absence, under a state root.

    root ─keccak─▶ node ─child by nibble─▶ node ─ ... ─▶ leaf | dead end

Every node given must be used and must hash to what its parent says; a node shorter than 32 bytes
stands inside its parent; every length, prefix and integer must be canonical. So exactly one proof
exists for a fact (yellow paper, appendix D), but for the empty trie, which clients prove with no
node or with the empty node.
"""

from collections.abc import Sequence

from keeper.chain import rlp
from keeper.hashing import keccak

EMPTY_ROOT = keccak(b"\x80")
EMPTY_CODE = keccak(b"")


class BadProof(ValueError):
    """The proof does not lead from the root to the fact."""


def nibbles(raw: bytes) -> bytes:
    """Return the hex digits of bytes, one per byte."""
    return bytes.fromhex("".join(["0" + digit for digit in raw.hex()]))


def _segment(packed: rlp.Item) -> tuple[bytes, bool]:
    """Return (nibbles, is a leaf) of a hex-prefix encoded path."""
    if not isinstance(packed, bytes) or not packed:
        raise BadProof("path is empty")
    digits = nibbles(packed)
    flag = digits[0]
    if flag > 3 or (not flag & 1 and digits[1] != 0):
        raise BadProof("path prefix is not canonical")
    return (digits[1:] if flag & 1 else digits[2:]), bool(flag & 2)


def prove(root: bytes, key: bytes, proof: Sequence[bytes]) -> bytes | None:
    """Return the value at `keccak`-hashed `key`, or None if its absence is proven.

    Raises:
        BadProof: the nodes prove neither.
    """
    if root == EMPTY_ROOT:
        if proof and list(proof) != [b"\x80"]:
            raise BadProof("nodes under the empty root")
        return None
    used, path = 0, nibbles(key)
    want: rlp.Item = root
    value: rlp.Item = b""
    while True:
        if isinstance(want, bytes):
            if used >= len(proof):
                raise BadProof("proof ends too early")
            raw = proof[used]
            if keccak(raw) != want:
                raise BadProof(f"node {used} does not hash to what its parent says")
            used += 1
            try:
                node = rlp.decode(raw)
            except ValueError as error:
                raise BadProof(f"node {used - 1}: {error}") from error
        else:
            node = want
        found, child, path = _descend(node, path)
        if child is None:
            value = found
            break
        want = child
    if used != len(proof):
        raise BadProof("nodes after the end of the path")
    if not isinstance(value, bytes):
        raise BadProof("value is a list")
    return value or None


def _descend(node: rlp.Item, path: bytes) -> tuple[rlp.Item, rlp.Item | None, bytes]:
    """Return (value, None, path) at the end of the path, or (empty, child, rest of the path)."""
    if not isinstance(node, list):
        raise BadProof("node is no list")
    if len(node) == 17:
        if not path:
            return node[16], None, path
        child, path = node[path[0]], path[1:]
    elif len(node) == 2:
        segment, leaf = _segment(node[0])
        if leaf:
            return (node[1] if segment == path else b""), None, path
        if not segment:
            raise BadProof("extension without a path")
        if path[: len(segment)] != segment:
            return b"", None, path
        child, path = node[1], path[len(segment) :]
        if child == b"":
            raise BadProof("extension to nowhere")
    else:
        raise BadProof(f"node has {len(node)} items")
    if child == b"":
        return b"", None, path
    if isinstance(child, bytes) and len(child) != 32:
        raise BadProof("child is neither a hash nor a node")
    if isinstance(child, list) and len(rlp.encode(child)) >= 32:
        raise BadProof("a long node stands inside its parent")
    return b"", child, path


def _integer(raw: rlp.Item) -> int:
    if not isinstance(raw, bytes) or raw[:1] == b"\0" or len(raw) > 32:
        raise BadProof("integer is not canonical")
    return int.from_bytes(raw, "big")


def prove_account(
    root: bytes, address: bytes, proof: Sequence[bytes]
) -> tuple[int, int, bytes, bytes]:
    """Return (nonce, balance, storage root, code hash) of an account; an absent one is empty.

    Raises:
        BadProof: the nodes do not prove it.
    """
    raw = prove(root, keccak(address), proof)
    if raw is None:
        return 0, 0, EMPTY_ROOT, EMPTY_CODE
    try:
        fields = rlp.decode(raw)
    except ValueError as error:
        raise BadProof(f"account: {error}") from error
    if not isinstance(fields, list) or len(fields) != 4:
        raise BadProof("account does not have four fields")
    nonce, balance, storage, code = fields
    if not isinstance(storage, bytes) or not isinstance(code, bytes):
        raise BadProof("account roots are lists")
    if len(storage) != 32 or len(code) != 32:
        raise BadProof("account roots are not 32 bytes")
    return _integer(nonce), _integer(balance), storage, code


def prove_slot(storage_root: bytes, slot: int, proof: Sequence[bytes]) -> int:
    """Return the value of a storage slot; an absent one is 0, and so is one that stores a zero.

    Ethereum deletes what becomes zero, anvil stores it. Under one root only one of them is true.

    Raises:
        BadProof: the nodes do not prove it.
    """
    raw = prove(storage_root, keccak(slot.to_bytes(32, "big")), proof)
    if raw is None:
        return 0
    try:
        return _integer(rlp.decode(raw))
    except BadProof:
        raise
    except ValueError as error:
        raise BadProof(f"slot: {error}") from error
