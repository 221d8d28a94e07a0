"""RLP and Merkle-Patricia proofs: against the `rlp` and `trie` packages, and against forgers."""

import random
from typing import Any

import pytest
import rlp as reference
from hypothesis import given
from hypothesis import strategies as st
from trie.hexary import HexaryTrie

from keeper.chain import mpt, receipts, rlp
from keeper.hashing import keccak

items: st.SearchStrategy[rlp.Item] = st.recursive(
    st.binary(max_size=80), lambda inner: st.lists(inner, max_size=5), max_leaves=20
)


@given(items)
def test_rlp_agrees_with_the_reference(item: rlp.Item) -> None:
    raw = rlp.encode(item)
    assert raw == reference.encode(item)
    assert rlp.decode(raw) == item


@pytest.mark.parametrize(
    "raw",
    [
        "", "00 00", "81 05", "b8 01 00", "b9 00 38" + " 00" * 56, "83 01 02", "c2 01", "c1",
        "f8 01 01", "b7", "f8", "c2 83 01", "bf" + " ff" * 8, "c1 " * 40 + "01",
    ],
)  # fmt: skip
def test_rlp_has_one_spelling(raw: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        rlp.decode(bytes.fromhex(raw))


@given(st.binary(max_size=40))
def test_rlp_never_accepts_what_it_would_not_write(raw: bytes) -> None:
    try:
        item = rlp.decode(raw)
    except ValueError:
        return
    assert rlp.encode(item) == raw


def build(entries: dict[bytes, bytes]) -> tuple[bytes, Any]:
    trie: Any = HexaryTrie({})
    for key, value in entries.items():
        trie[keccak(key)] = value
    return bytes(trie.root_hash), trie


def proof_of(trie: Any, key: bytes) -> list[bytes]:
    return [reference.encode(node) for node in trie.get_proof(keccak(key))]


def hashed_only(proof: list[bytes]) -> list[bytes]:
    """Drop nodes that stand inside their parent, which the package repeats."""
    return [node for index, node in enumerate(proof) if index == 0 or len(node) >= 32]


@pytest.mark.parametrize("count", [1, 2, 3, 17, 300])
def test_proofs_of_presence_and_absence(count: int) -> None:
    rng = random.Random(count)
    entries = {rng.randbytes(20): rng.randbytes(rng.choice((1, 5, 33, 70))) for _ in range(count)}
    root, trie = build(entries)
    for key, value in entries.items():
        assert mpt.prove(root, keccak(key), hashed_only(proof_of(trie, key))) == value
    for _ in range(50):
        absent = rng.randbytes(20)
        assert mpt.prove(root, keccak(absent), hashed_only(proof_of(trie, absent))) is None


def test_every_flipped_byte_is_refused() -> None:
    rng = random.Random(7)
    entries = {rng.randbytes(20): rng.randbytes(40) for _ in range(200)}
    root, trie = build(entries)
    key = next(iter(entries))
    proof = proof_of(trie, key)
    for index, node in enumerate(proof):
        for at in range(0, len(node), 7):
            forged = bytearray(node)
            forged[at] ^= 1 << rng.randrange(8)
            with pytest.raises(mpt.BadProof):
                mpt.prove(root, keccak(key), [*proof[:index], bytes(forged), *proof[index + 1 :]])


def test_only_the_exact_nodes_prove() -> None:
    entries = {bytes([n]) * 20: bytes(40) for n in range(1, 60)}
    root, trie = build(entries)
    key = b"\x05" * 20
    proof = proof_of(trie, key)
    for forged in ([], proof[:-1], [*proof, proof[-1]], proof[1:], proof[::-1]):
        with pytest.raises(mpt.BadProof):
            mpt.prove(root, keccak(key), forged)
    with pytest.raises(mpt.BadProof):
        mpt.prove(root, keccak(b"\x06" * 20), proof)


def test_the_empty_trie() -> None:
    assert mpt.prove(mpt.EMPTY_ROOT, keccak(b"x"), []) is None
    assert mpt.prove(mpt.EMPTY_ROOT, keccak(b"x"), [b"\x80"]) is None
    with pytest.raises(mpt.BadProof):
        mpt.prove(mpt.EMPTY_ROOT, keccak(b"x"), [b"\x80", b"\x80"])


def test_accounts_and_slots() -> None:
    storage_root, storage = build({(3).to_bytes(32, "big"): rlp.encode(rlp.integer(77))})
    account = rlp.encode([b"\x05", rlp.integer(10**18), storage_root, mpt.EMPTY_CODE])
    address = b"\xaa" * 20
    root, trie = build({address: account})
    proof = proof_of(trie, address)
    found = mpt.prove_account(root, address, proof)
    assert found == (5, 10**18, storage_root, mpt.EMPTY_CODE)
    slot = proof_of(storage, (3).to_bytes(32, "big"))
    assert mpt.prove_slot(storage_root, 3, slot) == 77
    absent = hashed_only(proof_of(storage, (4).to_bytes(32, "big")))
    assert mpt.prove_slot(storage_root, 4, absent) == 0
    assert mpt.prove_account(root, b"\xab" * 20, proof) == (0, 0, mpt.EMPTY_ROOT, mpt.EMPTY_CODE)


@pytest.mark.parametrize(
    "account",
    [
        b"\x01",
        rlp.encode([b"\x05", b"", bytes(32)]),
        rlp.encode([b"\0", b"", bytes(32), bytes(32)]),
        rlp.encode([b"", b"", bytes(31), bytes(32)]),
        rlp.encode([b"", b"", [bytes(32)], bytes(32)]),
        b"\x81\x05",
    ],
)
def test_malformed_accounts_are_refused(account: bytes) -> None:
    address = b"\xaa" * 20
    root, trie = build({address: account})
    with pytest.raises(mpt.BadProof):
        mpt.prove_account(root, address, proof_of(trie, address))


def test_a_zero_that_is_stored_is_a_zero() -> None:
    root, trie = build({(1).to_bytes(32, "big"): b"\x80"})
    assert mpt.prove_slot(root, 1, proof_of(trie, (1).to_bytes(32, "big"))) == 0


@pytest.mark.parametrize("value", [b"\0", b"\x82\x00\x05", b"\xc1\x05", b"\x81\x05"])
def test_malformed_slots_are_refused(value: bytes) -> None:
    root, trie = build({(1).to_bytes(32, "big"): value})
    with pytest.raises(mpt.BadProof):
        mpt.prove_slot(root, 1, proof_of(trie, (1).to_bytes(32, "big")))


@pytest.mark.parametrize("count", [0, 1, 2, 16, 17, 127, 128, 129, 300])
def test_an_ordered_trie_has_the_reference_root(count: int) -> None:
    rng = random.Random(count)
    values = [rng.randbytes(rng.choice((1, 10, 31, 32, 33, 200))) for _ in range(count)]
    trie: Any = HexaryTrie({})
    for index, value in enumerate(values):
        trie[rlp.encode(rlp.integer(index))] = value
    assert receipts.ordered_root(values) == trie.root_hash
