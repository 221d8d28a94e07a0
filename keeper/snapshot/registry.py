"""Who is in the state tree, how often their legs changed, and the tree kept up to date.

legs of this view ─┬─ as the parent's ─▶ the very same entry, nothing is hashed
├─ changed ─────────▶ sequence + 1, new leaf, its path
└─ new account ─────▶ next index, in id order
"""

from collections.abc import Mapping

from keeper.legs import Leg, legs_hash
from keeper.margin.tree import Tree, state_leaf
from keeper.snapshot.book import Registered

Registry = Mapping[bytes, Registered]
Legs = Mapping[bytes, tuple[Leg, ...]]


def register(before: Registry, known_legs: Legs, legs: Legs) -> dict[bytes, Registered]:
    """Return the registry after a view.

    Args:
        before: the parent's.
        known_legs: the parent's legs; empty where its book was taken from a peer.
        legs: of this view.
    """
    after = dict(before)
    for account in sorted(set(legs) | set(before)):
        held, known = legs.get(account, ()), before.get(account)
        if known is not None and known_legs.get(account) == held:
            continue
        digest = legs_hash(held)
        if known is None:
            after[account] = Registered(len(after), 1, digest)
        elif known.legs_hash != digest:
            after[account] = Registered(known.index, known.sequence + 1, digest)
    return after


def _leaf(account: bytes, entry: Registered) -> bytes:
    return state_leaf(entry.index, account, entry.sequence, entry.legs_hash)


def whole_tree(registry: Registry) -> Tree:
    """Return the state tree, made anew."""
    ordered = sorted(registry.items(), key=lambda item: item[1].index)
    return Tree(_leaf(account, entry) for account, entry in ordered)


def state_tree(tree: Tree, before: Registry, after: Registry) -> Tree:
    """Return the state tree after a view.

    Args:
        tree: the parent's, left as it is; empty where its book was taken from a peer.
        before: the parent's registry.
        after: this view's, made of it by `register`.
    """
    if len(tree) != len(before):
        return whole_tree(after)
    next_tree = tree.copy()
    changed = {a: entry for a, entry in after.items() if before.get(a) is not entry}
    next_tree.update({entry.index: _leaf(account, entry) for account, entry in changed.items()})
    return next_tree
