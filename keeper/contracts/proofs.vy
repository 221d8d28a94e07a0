# pragma version 0.4.3
# pragma evm-version prague
"""
@title proofs
@license Apache-2.0
@notice The seal of a decision root, and OpenZeppelin-compatible Merkle proofs under it.
@dev A module that other contracts import; it is never deployed alone.
"""

struct Seal:
    epoch: uint32
    view: uint64
    root: bytes32
    rx: uint256
    ry: uint256  # even y of the nonce point, a hint that the verifier checks
    s: uint256  # 0: the root was accepted earlier and is looked up

MAX_PROOF: constant(uint256) = 20  # a million leaves under one root


@internal
@pure
def _included(leaf: bytes32, root: bytes32, proof: DynArray[bytes32, MAX_PROOF]) -> bool:
    node: bytes32 = leaf
    for sibling: bytes32 in proof:
        if convert(node, uint256) < convert(sibling, uint256):
            node = keccak256(concat(node, sibling))
        else:
            node = keccak256(concat(sibling, node))
    return node == root
