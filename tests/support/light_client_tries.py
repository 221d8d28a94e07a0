"""Small state tries with proofs, built by the `trie` package."""

from collections.abc import Mapping
from typing import Any

from trie.hexary import HexaryTrie

from keeper.chain import mpt, rlp
from keeper.hashing import keccak


class Trie:
    """A secure trie: keys are hashed."""

    def __init__(self, values: Mapping[bytes, bytes]) -> None:
        self._trie: Any = HexaryTrie(db={})
        for key, value in values.items():
            self._trie[keccak(key)] = value

    @property
    def root(self) -> bytes:
        return bytes(self._trie.root_hash)

    def proof(self, key: bytes) -> tuple[bytes, ...]:
        def plain(node: object) -> rlp.Item:
            if isinstance(node, bytes):
                return node
            assert isinstance(node, list)
            return [plain(each) for each in node]

        return tuple(rlp.encode(plain(list(node))) for node in self._trie.get_proof(keccak(key)))


def storage_of(slots: Mapping[int, int]) -> Trie:
    """A contract's storage, with some other slots around."""
    others = {number: number + 1 for number in range(1_000, 1_040)}
    return Trie(
        {
            slot.to_bytes(32, "big"): rlp.encode(rlp.integer(value))
            for slot, value in {**others, **slots}.items()
            if value
        }
    )


def state_of(storages: Mapping[bytes, Trie], balance: int = 10**18) -> Trie:
    """A state with these contracts and some other accounts."""
    roots = {address: trie.root for address, trie in storages.items()}
    others = {bytes([number]) * 20: mpt.EMPTY_ROOT for number in range(1, 30)}
    return Trie(
        {
            address: rlp.encode([rlp.integer(1), rlp.integer(balance), root, mpt.EMPTY_CODE])
            for address, root in {**others, **roots}.items()
        }
    )
