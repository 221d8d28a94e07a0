"""A sealed view as contracts take it: the seal, and the Merkle proof of one leaf under its root."""

from collections.abc import Sequence
from dataclasses import dataclass

from keeper.leaves import header_leaf
from keeper.merkle import merkle_proof
from keeper.snapshot.archive import Archived
from keeper.snapshot.decisions import Decision


@dataclass(frozen=True, slots=True)
class Certified:
    """A decision with what proves it: the `Seal` struct in field order, and its proof."""

    decision: Decision
    seal: tuple[int, int, bytes, int, int, int]
    proof: tuple[bytes, ...]


def seal_tuple(archived: Archived) -> tuple[int, int, bytes, int, int, int]:
    """Return (epoch, view, root, rx, ry, s).

    Raises:
        ValueError: the view has no seal here.
    """
    if archived.seal is None:
        raise ValueError(f"view {archived.header.view} is not sealed here")
    return (archived.header.epoch, archived.header.view, archived.root, *archived.seal)


def leaves_of(network: bytes, archived: Archived) -> Sequence[bytes]:
    """Return the leaves under the root in order: the header, then the decisions."""
    header = archived.header
    top = header_leaf(network, header.epoch, header.view, header.hash())
    return [top, *(decision.leaf for decision in archived.decisions)]


def certify(network: bytes, archived: Archived, leaf: bytes) -> Certified:
    """Return one decision of a sealed view with its proof.

    Raises:
        ValueError: the view has no seal here, or no such decision.
    """
    leaves = leaves_of(network, archived)
    index = leaves.index(leaf)
    proof = merkle_proof(leaves, index)
    return Certified(archived.decisions[index - 1], seal_tuple(archived), proof)
