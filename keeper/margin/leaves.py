"""All leaves and all nodes of a state tree at once: by numba lanes where installed, else in Python.

Book ──▶ 192-byte rows ──▶ keccak ──▶ keccak ──▶ leaves ──▶ levels ──▶ root
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from keeper.hashing import keccak, type_hash
from keeper.margin.batch import NUMBA, PYTHON, available
from keeper.margin.book import Book
from keeper.margin.tree import STATE_TYPE, ZERO, Tree, hash_each, parents_of, zero_roots

Bytes = npt.NDArray[np.uint8]
WORD = 32


def leaf_rows(book: Book) -> Bytes:
    """Return the encoded state leaves before hashing, one row of six words per account."""
    count = len(book)
    rows = np.zeros((count, 6 * WORD), np.uint8)
    rows[:, :32] = np.frombuffer(type_hash(STATE_TYPE), np.uint8)
    for word, values in ((1, np.arange(count)), (3, book.seqs), (5, book.flags)):
        numbers = np.asarray(values, np.int64).astype(">u8").view(np.uint8).reshape(count, 8)
        rows[:, word * WORD + 24 : (word + 1) * WORD] = numbers
    for word, blob in ((2, book.accounts), (4, book.hashes)):
        rows[:, word * WORD : (word + 1) * WORD] = np.frombuffer(blob, np.uint8).reshape(count, 32)
    return rows


def state_leaves(book: Book, engine: str = PYTHON) -> list[bytes]:
    """Return the leaf hashes of a book."""
    if engine == NUMBA:
        from keeper.margin.lanes import keccak_rows

        return split(keccak_rows(keccak_rows(leaf_rows(book))))
    raw = leaf_rows(book).tobytes()
    hashed, width = keccak, 6 * WORD
    return [hashed(hashed(raw[at : at + width])) for at in range(0, len(raw), width)]


def split(rows: Bytes) -> list[bytes]:
    """Return the 32-byte rows of a matrix."""
    raw = rows.tobytes()
    return [raw[at : at + WORD] for at in range(0, len(raw), WORD)]


MANY = 32
"""From so many pairs on the lanes are worth their call."""


def hash_pairs(pairs: list[bytes]) -> list[bytes]:
    """Return the digest of every pair of 64 bytes, by numba lanes where there are many."""
    if len(pairs) < MANY:
        return hash_each(pairs)
    from keeper.margin.lanes import keccak_rows

    return split(keccak_rows(np.frombuffer(b"".join(pairs), np.uint8).reshape(-1, 2 * WORD)))


def levels(leaves: Bytes) -> list[Bytes]:
    """Return every level of a state tree under numba, leaves first and the root alone last."""
    from keeper.margin.lanes import parent_rows

    depth = (len(leaves) - 1).bit_length() if len(leaves) else 0
    zeros = zero_roots(depth)
    found = [leaves]
    for height in range(depth):
        found.append(parent_rows(found[-1], zeros[height]))
    return found


def state_root(book: Book, engine: str = PYTHON) -> bytes:
    """Return the state root of a book, keeping nothing of the tree."""
    if not len(book):
        return ZERO
    if engine == NUMBA:
        from keeper.margin.lanes import keccak_rows

        return levels(keccak_rows(keccak_rows(leaf_rows(book))))[-1].tobytes()
    level: Sequence[bytes] = state_leaves(book)
    for zero in zero_roots((len(book) - 1).bit_length())[:-1]:
        level = parents_of(level, zero)
    return level[0]


def state_tree(book: Book) -> Tree:
    """Return the state tree of a book, built by the fastest way installed."""
    if NUMBA not in available() or not len(book):
        return Tree(state_leaves(book))
    from keeper.margin.lanes import keccak_rows

    rows = levels(keccak_rows(keccak_rows(leaf_rows(book))))
    return Tree.of_levels([split(level) for level in rows], hash_pairs)
