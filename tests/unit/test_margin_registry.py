"""The state tree that goes on from the parent's is the tree made anew."""

import random

from keeper.hashing import keccak
from keeper.legs import Leg, legs_hash
from keeper.margin.tree import Tree
from keeper.snapshot.book import Registered
from keeper.snapshot.registry import register, state_tree, whole_tree
from tests.support import margin_books as support


def test_a_tree_that_went_on_is_the_tree_made_anew() -> None:
    draw, names = random.Random(6), [keccak(bytes([i])) for i in range(60)]
    legs: dict[bytes, tuple[Leg, ...]] = {}
    registry: dict[bytes, Registered] = {}
    tree, sequences = Tree(), dict.fromkeys(names, 0)
    for turn in range(40):
        known, after = dict(legs), dict(legs)
        for name in draw.sample(names, draw.randrange(4)):
            after[name] = tuple(support.account_legs(draw, 4))
            if draw.random() < 0.3:
                after.pop(name)
        if turn % 9 == 8:
            known, tree = {}, Tree()  # the book came from a peer
        before = registry
        registry = register(before, known, after)
        kept = [name for name in before if registry[name] is before[name]]
        for name, entry in registry.items():
            if name not in kept:
                sequences[name] += 1
            assert entry.legs_hash == legs_hash(after.get(name, ()))
            assert entry.sequence == sequences[name]
        same = {name for name in before if legs.get(name, ()) == after.get(name, ())}
        assert same <= set(kept)
        old_root = tree.root
        grown = state_tree(tree, before, registry)
        assert tree.root == old_root  # the parent's other children need it as it was
        tree, legs = grown, after
        assert tree.root == whole_tree(registry).root
        assert [entry.index for entry in registry.values()] == list(range(len(registry)))
    assert len(registry) > 25
