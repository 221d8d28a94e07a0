"""Small state tries with proofs, built by the `trie` package, and a rollup on them."""

from collections.abc import Mapping
from typing import Any

from trie.hexary import HexaryTrie

from keeper.chain import mpt, rlp
from keeper.chain.codec import header_rlp
from keeper.chain.port import BlockRef
from keeper.hashing import keccak
from keeper.observe.light_client.output_root import Anchor, OutputProof, Rollup, output_root
from keeper.units import BlockNumber, ChainId, Timestamp
from tests.support.light_client import execution_block


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


ROLLUP = Rollup(ChainId(10), b"\x0e" * 20, challenge_period_s=1_000)
PASSER = keccak(b"message passer")
POSTED = 500_000
INDEX = 7
USER = b"\x05" * 20


def rollup_case(number: int = 4_321) -> tuple[Anchor, OutputProof, tuple[bytes, ...]]:
    """A final L1 block with one output posted, its proof, and the proof of an L2 account."""
    l2 = state_of({}, balance=77)
    header = header_rlp(execution_block(number, bytes(32), 499_000, l2.root))
    committed = output_root(l2.root, PASSER, keccak(header))
    first, second = ROLLUP.slots(INDEX)
    storage = storage_of(
        {first: int.from_bytes(committed, "big"), second: 4_321 << 128 | POSTED, 3: INDEX + 1}
    )
    l1 = state_of({ROLLUP.oracle: storage})
    proof = OutputProof(
        INDEX,
        l1.proof(ROLLUP.oracle),
        storage.proof(first.to_bytes(32, "big")),
        storage.proof(second.to_bytes(32, "big")),
        PASSER,
        header,
    )
    anchor = Anchor(
        BlockRef(ChainId(1), BlockNumber(99), b"\1" * 32), l1.root, Timestamp(POSTED + 1_000)
    )
    return anchor, proof, l2.proof(USER)
