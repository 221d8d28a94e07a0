"""The state tree, and leaves whose proofs verify in OpenZeppelin's MerkleProof and npm package.

    leaf = keccak(keccak(abi.encode(type hash, fields…)))       node = keccak(min(a, b) ‖ max(a, b))

`Tree` is for state: capacity 2^d, missing leaves are 32 zero bytes, the capacity doubles on growth,
a change hashes only its path again. Sorted pairs lose the position, so a state leaf carries its
index. Decisions and watch lists are trees of any number of leaves (keeper/merkle.py); one verifier,
`keeper.merkle.verify_proof`, serves both. Leaves are double hashed, so no inner node can pass as
one. There are no proofs of absence.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from keeper.hashing import keccak, type_hash
from keeper.merkle import hash_pair

ZERO = bytes(32)
MAX_DEPTH = 20
"""Contracts take `proof: DynArray[bytes32, 20]`: about a million leaves."""

STATE_TYPE = "State(uint256 index,bytes32 account,uint64 seq,bytes32 legsHash,uint32 flags)"
WATCH_TYPE = (
    "Watch(bytes32 account,int256 equity,uint256 imr,uint256 mmr,uint256 healthPpm,uint64 epoch)"
)
PRICE_TYPE = "Price(bytes32 market,uint256 price)"
_STATE, _WATCH, _PRICE = (type_hash(text) for text in (STATE_TYPE, WATCH_TYPE, PRICE_TYPE))


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def state_leaf(index: int, account: bytes, seq: int, legs_hash: bytes, flags: int = 0) -> bytes:
    """Return the price-free leaf of one account.

    Args:
        index: position in the tree, so that a proof shows where the leaf is.
        account: 32 bytes.
        seq: how often the account's legs have changed.
        legs_hash: `keeper.legs.legs_hash` of them.
        flags: bit set for the snapshot's own use.
    """
    return keccak(
        keccak(b"".join((_STATE, _word(index), account, _word(seq), legs_hash, _word(flags))))
    )


def watch_leaf(
    account: bytes, equity: int, imr: int, mmr: int, health_ppm: int, epoch: int
) -> bytes:
    """Return the leaf of an account near its limit; a negative health is written as 0."""
    words = (
        _WATCH,
        account,
        equity.to_bytes(32, "big", signed=True),
        _word(imr),
        _word(mmr),
        _word(max(0, health_ppm)),
        _word(epoch),
    )
    return keccak(keccak(b"".join(words)))


def price_leaf(market: bytes, price: int) -> bytes:
    """Return the leaf of one price, 10**-8 USD."""
    return keccak(keccak(_PRICE + market + _word(price)))


def zero_roots(depth: int) -> list[bytes]:
    """Return the roots of empty trees of depth 0 … depth."""
    roots = [ZERO]
    for _ in range(depth):
        roots.append(keccak(roots[-1] + roots[-1]))
    return roots


def check_changes(
    changes: Mapping[int, bytes],
    indices: Sequence[int],
    count: int,
    known: set[bytes],
    leaf: Callable[[int], bytes],
) -> set[bytes]:
    """Return the leaves that changes replace, or refuse the changes.

    Args:
        changes: leaves by index.
        indices: the sorted indices of them.
        count: leaves of the tree so far.
        known: all its leaves but zero ones.
        leaf: its leaf at an index.

    Raises:
        ValueError: an index leaves a gap, or a leaf is already there.
    """
    new = [index for index in indices if index >= count]
    if indices[0] < 0 or new != list(range(count, count + len(new))):
        raise ValueError(f"a leaf would leave a gap after {count}")
    going = {leaf(index) for index in indices if index < count}
    coming = [one for one in changes.values() if one != ZERO]
    if len(set(coming)) != len(coming):
        raise ValueError("a leaf occurs twice")
    if any(one in known and one not in going for one in coming):
        raise ValueError("a leaf is already there")
    return going


class Tree:
    """A tree of capacity 2^depth over leaf hashes, kept up to date.

    Invariants: level 0 holds the leaves without padding; level k + 1 holds the parents of level k;
    a node whose leaves are all missing is not stored; no leaf that is not zero occurs twice.
    """

    def __init__(self, leaves: Iterable[bytes] = (), depth: int = 0) -> None:
        first = list(leaves)
        distinct = set(first)
        if len(distinct) - (ZERO in distinct) != len(first) - first.count(ZERO):
            raise ValueError("a leaf occurs twice")
        self.depth = max(depth, (len(first) - 1).bit_length() if first else 0)
        self._leaves = distinct - {ZERO}
        self._zeros = zero_roots(self.depth + 1)
        self._levels = [first]
        for height in range(self.depth):
            self._levels.append(parents_of(self._levels[height], self._zeros[height]))

    def __len__(self) -> int:
        return len(self._levels[0])

    @property
    def root(self) -> bytes:
        """Return the root; of an empty tree, that of zero leaves."""
        top = self._levels[self.depth]
        return top[0] if top else self._zeros[self.depth]

    def leaf(self, index: int) -> bytes:
        """Return the leaf hash at an index."""
        return self._levels[0][index]

    def copy(self) -> "Tree":
        """Return a tree of the same leaves that changes by itself; nothing is hashed."""
        twin = Tree()
        twin.depth, twin._zeros = self.depth, self._zeros
        twin._leaves, twin._levels = set(self._leaves), [list(level) for level in self._levels]
        return twin

    def append(self, leaves: Iterable[bytes]) -> None:
        """Add leaves behind the last; the capacity doubles as often as is needed."""
        start = len(self)
        self.update({start + i: leaf for i, leaf in enumerate(leaves)})

    def update(self, changes: Mapping[int, bytes]) -> bytes:
        """Set leaves by index and return the new root; only their paths are hashed again.

        Args:
            changes: an index may be at most the next free one once those before it are set.

        Raises:
            ValueError: an index leaves a gap, or a leaf is already there.
        """
        if not changes:
            return self.root
        indices = sorted(changes)
        base = self._levels[0]
        self._leaves -= check_changes(changes, indices, len(base), self._leaves, base.__getitem__)
        while indices[-1] >> self.depth:
            self._grow()
        for index in indices:
            if index == len(base):
                base.append(changes[index])
            else:
                base[index] = changes[index]
        self._leaves.update(leaf for leaf in changes.values() if leaf != ZERO)
        for height in range(self.depth):
            indices = self._raise_level(height, indices)
        return self.root

    def _grow(self) -> None:
        self._levels.append(parents_of(self._levels[self.depth], self._zeros[self.depth]))
        self.depth += 1
        self._zeros = zero_roots(self.depth + 1)

    def _raise_level(self, height: int, indices: Sequence[int]) -> list[int]:
        """Hash the parents of changed nodes of one level and return their indices."""
        below, above, zero = self._levels[height], self._levels[height + 1], self._zeros[height]
        parents = list(dict.fromkeys([index >> 1 for index in indices]))
        padded = len(below) & 1
        if padded:
            below.append(zero)
        pairs = []
        for parent in parents:
            left = below[2 * parent]
            right = below[2 * parent + 1]
            pairs.append(left + right if left < right else right + left)
        if padded:
            below.pop()
        if parents[-1] >= len(above):
            above.extend([ZERO] * (parents[-1] + 1 - len(above)))
        hashed = keccak
        for parent, pair in zip(parents, pairs, strict=True):
            above[parent] = hashed(pair)
        return parents

    def proof(self, index: int) -> list[bytes]:
        """Return the siblings from the leaf up.

        Raises:
            IndexError: there is no such leaf.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"leaf {index} of {len(self)}")
        path = []
        for height in range(self.depth):
            level, sibling = self._levels[height], index ^ 1
            path.append(level[sibling] if sibling < len(level) else self._zeros[height])
            index >>= 1
        return path


def parents_of(level: Sequence[bytes], zero: bytes) -> list[bytes]:
    """Return the parents of a level, a missing last node being `zero`."""
    hashed = keccak
    whole = len(level) & ~1
    parents = [
        hashed(a + b if a < b else b + a)
        for a, b in zip(level[0:whole:2], level[1:whole:2], strict=True)
    ]
    if len(level) & 1:
        parents.append(hash_pair(level[-1], zero))
    return parents
