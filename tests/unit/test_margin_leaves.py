"""Hashing many at once gives what hashing one by one gives."""

import numpy as np
import pytest

from keeper.hashing import keccak
from keeper.margin import book as books
from keeper.margin.batch import available
from keeper.margin.leaves import split, state_leaves, state_root, state_tree
from keeper.margin.tree import ZERO, Tree, state_leaf
from keeper.merkle import verify_proof as verify
from tests.support import margin_books as support

pytestmark = pytest.mark.skipif("numba" not in available(), reason="numba is not installed")


@pytest.mark.parametrize("length", [0, 1, 31, 64, 135, 136, 137, 192, 272, 300])
def test_lanes_are_keccak(length: int) -> None:
    from keeper.margin.lanes import keccak_rows

    rows = np.random.default_rng(length).integers(0, 256, (19, length), dtype=np.uint8)
    assert split(keccak_rows(rows)) == [keccak(bytes(row)) for row in rows]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 100, 257])
def test_every_way_to_the_root_agrees(count: int) -> None:
    book = books.build(support.accounts(count, count))
    tree = Tree(
        state_leaf(i, book.account(i), book.seqs[i], book.legs_hash(i), book.flags[i])
        for i in range(count)
    )
    assert state_leaves(book) == state_leaves(book, "numba") == [tree.leaf(i) for i in range(count)]
    fast = state_tree(book)
    assert tree.root == fast.root == state_root(book) == state_root(book, "numba")
    assert fast.update({count // 2: keccak(b"x")}) == tree.update({count // 2: keccak(b"x")})
    many = {i: keccak(b"many %d" % i) for i in range(1, count + 90)}
    assert fast.update(many) == tree.update(many)
    for i in (0, count, len(tree) - 1):
        assert fast.leaf(i) == tree.leaf(i)
        assert fast.proof(i) == tree.proof(i)
    some = {i: keccak(b"some %d" % i) for i in range(0, len(tree), 5)}
    assert fast.update(some) == tree.update(some)
    one = {len(tree): keccak(b"one")}
    assert fast.update(one) == tree.update(one)
    for wrong, why in (
        ({0: tree.leaf(1)}, "already there"),
        ({len(tree) + 1: keccak(b"far")}, "gap"),
        ({-1: keccak(b"before")}, "gap"),
        ({0: keccak(b"n"), 1: keccak(b"n")}, "twice"),
    ):
        for refusing in (fast, tree):
            with pytest.raises(ValueError, match=why):
                refusing.update(wrong)
    with pytest.raises(IndexError):
        fast.proof(len(tree))
    assert fast.root == tree.root
    assert len(fast) == len(tree)
    assert verify(fast.root, fast.leaf(0), fast.proof(0))


def test_equal_first_words_are_still_sorted() -> None:
    from keeper.margin.lanes import parent_rows
    from keeper.merkle import hash_pair as node

    a, b = b"\x07" * 31 + b"\x02", b"\x07" * 31 + b"\x01"
    rows = np.frombuffer(a + b + a, np.uint8).reshape(3, 32)
    assert split(parent_rows(rows, ZERO)) == [node(a, b), node(a, ZERO)]


def test_an_empty_book_has_the_empty_root() -> None:
    book = books.build([])
    assert state_root(book) == state_root(book, "numba") == state_tree(book).root == ZERO
