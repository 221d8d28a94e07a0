"""Merkle trees over given leaves, compatible with OpenZeppelin's SimpleMerkleTree.

    root = h(h(l0 l1) h(l2 l3))      h hashes a sorted pair, so a proof needs no left or right

The tree is the complete binary tree in an array that OpenZeppelin builds: leaves fill it from the
back. Leaves are already hashed (twice, see `keeper.hashing.leaf_hash`), so an inner node can never
pass as a leaf. An empty list has the zero root.
"""

from collections.abc import Sequence

from keeper.hashing import keccak

EMPTY_ROOT = bytes(32)


def hash_pair(a: bytes, b: bytes) -> bytes:
    """Return keccak of the two nodes, smaller first."""
    return keccak(a + b if a < b else b + a)


def _tree(leaves: Sequence[bytes]) -> list[bytes]:
    size = 2 * len(leaves) - 1
    nodes = [b""] * size
    for index, leaf in enumerate(leaves):
        nodes[size - 1 - index] = leaf
    for index in range(size - 1 - len(leaves), -1, -1):
        nodes[index] = hash_pair(nodes[2 * index + 1], nodes[2 * index + 2])
    return nodes


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root of the leaves in their order; 32 zero bytes for none."""
    return _tree(leaves)[0] if leaves else EMPTY_ROOT


def merkle_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the siblings from leaf `index` up to the root."""
    nodes = _tree(leaves)
    at = len(nodes) - 1 - index
    proof = []
    while at > 0:
        proof.append(nodes[at + 1 if at % 2 else at - 1])
        at = (at - 1) // 2
    return tuple(proof)


def verify_proof(root: bytes, leaf: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether the leaf belongs to the root."""
    node = leaf
    for sibling in proof:
        node = hash_pair(node, sibling)
    return node == root
