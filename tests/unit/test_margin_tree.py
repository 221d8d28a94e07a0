"""Trees: incremental equals rebuilt, every proof verifies, tampering and duplicates are refused."""

import random

import pytest

from keeper.hashing import keccak
from keeper.margin.tree import (
    ZERO,
    Tree,
    price_leaf,
    state_leaf,
    watch_leaf,
)
from keeper.merkle import hash_pair as node
from keeper.merkle import merkle_proof, merkle_root
from keeper.merkle import verify_proof as verify
from keeper.units import symbol


def leaves(count: int, salt: int = 0) -> list[bytes]:
    return [keccak(f"{salt}:{i}".encode()) for i in range(count)]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13, 64, 100])
def test_every_proof_verifies_in_both_shapes(count: int) -> None:
    given = leaves(count)
    tree = Tree(given)
    for i, leaf in enumerate(given):
        assert verify(tree.root, leaf, tree.proof(i))
        assert verify(merkle_root(given), leaf, merkle_proof(given, i))
        assert not verify(tree.root, keccak(leaf), tree.proof(i))
        if count > 1:
            wrong = [keccak(b"x"), *tree.proof(i)[1:]]
            assert not verify(tree.root, leaf, wrong)


def test_a_tree_is_the_padded_standard_tree() -> None:
    given = leaves(5)
    level = given + [ZERO] * 3
    while len(level) > 1:
        level = [node(level[i], level[i + 1]) for i in range(0, len(level), 2)]
    assert Tree(given).root == level[0]


def test_growth_and_updates_equal_a_rebuilt_tree() -> None:
    draw = random.Random(7)
    now = leaves(3)
    tree = Tree(now)
    for step in range(60):
        changes = {
            draw.randrange(len(now)): keccak(f"{step}/{i}".encode())
            for i in range(draw.randrange(5))
        }
        for i in range(draw.randrange(4)):
            changes[len(now) + i] = keccak(f"{step}+{i}".encode())
        for index in sorted(changes):
            now[index : index + 1] = [changes[index]]
        assert tree.update(changes) == Tree(now).root
        assert tree.depth == max(2, (len(now) - 1).bit_length())
        index = draw.randrange(len(now))
        assert verify(tree.root, now[index], tree.proof(index))


def test_depth_is_kept_and_an_empty_tree_has_the_root_of_zeros() -> None:
    assert Tree().root == ZERO
    deep = Tree(leaves(3), depth=6)
    assert len(deep.proof(0)) == 6
    assert verify(deep.root, leaves(3)[2], deep.proof(2))
    assert Tree(depth=2).root == node(node(ZERO, ZERO), node(ZERO, ZERO))


def test_duplicates_and_gaps_are_refused_and_change_nothing() -> None:
    given = leaves(4)
    with pytest.raises(ValueError, match="twice"):
        Tree([given[0], given[0]])
    tree = Tree(given)
    root = tree.root
    with pytest.raises(ValueError, match="already there"):
        tree.update({0: given[1]})
    with pytest.raises(ValueError, match="gap"):
        tree.update({5: keccak(b"far")})
    with pytest.raises(ValueError, match="twice"):
        tree.update({0: keccak(b"n"), 1: keccak(b"n")})
    with pytest.raises(IndexError):
        tree.proof(4)
    assert tree.root == root
    swapped = tree.update({0: given[1], 1: given[0]})
    assert swapped == root  # sorted pairs: only the index inside a state leaf tells them apart


def test_leaves_bind_every_field() -> None:
    account, legs = keccak(b"a"), keccak(b"l")
    base = state_leaf(1, account, 2, legs, 0)
    others = {
        state_leaf(2, account, 2, legs, 0),
        state_leaf(1, legs, 2, legs, 0),
        state_leaf(1, account, 3, legs, 0),
        state_leaf(1, account, 2, account, 0),
        state_leaf(1, account, 2, legs, 1),
    }
    assert len(others | {base}) == 6
    assert watch_leaf(account, -1, 2, 3, -4, 5) == watch_leaf(account, -1, 2, 3, 0, 5)
    assert watch_leaf(account, 1, 2, 3, 0, 5) != watch_leaf(account, -1, 2, 3, 0, 5)
    assert price_leaf(symbol("ETH"), 1) != price_leaf(symbol("BTC"), 1)
