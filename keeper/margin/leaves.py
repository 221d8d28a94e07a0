"""All leaves and all nodes of a state tree at once: by numba lanes where installed, else in Python.

Book ──▶ 192-byte rows ──▶ keccak ──▶ keccak ──▶ leaves ──▶ levels ──▶ root
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from keeper.hashing import keccak, type_hash
from keeper.margin.batch import NUMBA, PYTHON, available
from keeper.margin.book import Book
from keeper.margin.tree import STATE_TYPE, ZERO, Tree, check_changes, parents_of, zero_roots

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


def levels(leaves: Bytes) -> list[Bytes]:
    """Return every level of a state tree under numba, leaves first and the root alone last."""
    from keeper.margin.lanes import parent_rows

    depth = (len(leaves) - 1).bit_length() if len(leaves) else 0
    zeros = zero_roots(depth)
    found = [leaves]
    for height in range(depth):
        found.append(parent_rows(found[-1], zeros[height]))
    return found


class LaneTree:
    """`Tree` over arrays, for very many leaves: the same roots, proofs and refusals, under numba.

    Invariants: those of `Tree`; level k is the first `_counts[k]` rows of its array.
    """

    def __init__(self, leaves: Bytes) -> None:
        self._arrays = [level.view(np.uint64).reshape(-1, 4) for level in levels(leaves)]
        self._counts = [len(array) for array in self._arrays]
        self._leaves = set(split(leaves)) - {ZERO}
        if len(self._leaves) != int(leaves.any(axis=1).sum()):
            raise ValueError("a leaf occurs twice")
        self._zeros = zero_roots(len(self._arrays))

    def __len__(self) -> int:
        return self._counts[0]

    @property
    def root(self) -> bytes:
        """Return the root."""
        return self._row(len(self._arrays) - 1, 0)

    def leaf(self, index: int) -> bytes:
        """Return the leaf hash at an index.

        Raises:
            IndexError: there is no such leaf.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"leaf {index} of {len(self)}")
        return self._row(0, index)

    def _row(self, height: int, index: int) -> bytes:
        inside = index < self._counts[height]
        return self._arrays[height][index].tobytes() if inside else self._zeros[height]

    def update(self, changes: Mapping[int, bytes]) -> bytes:
        """Set leaves by index and return the new root; see `Tree.update`.

        Raises:
            ValueError: an index leaves a gap, or a leaf is already there.
        """
        if not changes:
            return self.root
        from keeper.margin.lanes import hash_parents

        order = sorted(changes)
        going = check_changes(changes, order, len(self), self._leaves, self.leaf)
        self._leaves -= going
        self._leaves.update(leaf for leaf in changes.values() if leaf != ZERO)
        rows = np.frombuffer(b"".join(changes[index] for index in order), np.uint64).reshape(-1, 4)
        indices = np.array(order, np.int64)
        self._fit(0, order[-1] + 1)
        self._arrays[0][indices] = rows
        while order[-1] >> (len(self._arrays) - 1):
            self._arrays.append(np.zeros((0, 4), np.uint64))
            self._counts.append(0)
            self._zeros = zero_roots(len(self._arrays))
        for height in range(len(self._arrays) - 1):
            new = self._counts[height + 1] == 0
            count = self._counts[height]
            indices = np.arange((count + 1) // 2) if new else np.unique(indices >> 1)
            self._fit(height + 1, int(indices[-1]) + 1)
            below, above = self._arrays[height], self._arrays[height + 1]
            hash_parents(below, count, self._zeros[height], indices, above)
        return self.root

    def _fit(self, height: int, count: int) -> None:
        """Make room for so many rows; an array grows by doubling."""
        array = self._arrays[height]
        if count > len(array):
            larger = np.zeros((max(count, 2 * len(array)), 4), np.uint64)
            larger[: len(array)] = array
            self._arrays[height] = larger
        elif not array.flags.writeable:
            self._arrays[height] = array.copy()
        self._counts[height] = max(self._counts[height], count)

    def proof(self, index: int) -> list[bytes]:
        """Return the siblings from the leaf up.

        Raises:
            IndexError: there is no such leaf.
        """
        self.leaf(index)
        heights = range(len(self._arrays) - 1)
        return [self._row(height, (index >> height) ^ 1) for height in heights]


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


def state_tree(book: Book) -> Tree | LaneTree:
    """Return the state tree of a book, of the fastest kind installed."""
    if NUMBA not in available():
        return Tree(state_leaves(book))
    from keeper.margin.lanes import keccak_rows

    if not len(book):
        return LaneTree(np.zeros((0, WORD), np.uint8))
    return LaneTree(keccak_rows(keccak_rows(leaf_rows(book))))
