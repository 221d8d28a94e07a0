"""Who leads a view: a keyed permutation of all members, redrawn every n views.

Every member leads once in n views, so a committee with f dead members loses a known share of views
and no schedule repeats for an attacker to wait for. The key is the epoch's config.

    span = view // n      order = members sorted by keccak(config, span, index)
"""

from functools import lru_cache

from keeper.hashing import keccak

_SPANS_HELD = 64
"""Permutations remembered; a keeper asks for two or three neighbours at a time."""


@lru_cache(maxsize=_SPANS_HELD)
def permutation(config: bytes, span: int, members: int) -> tuple[int, ...]:
    """Return the order in which the members lead the views of a span."""
    seed = config + span.to_bytes(8, "big")
    return tuple(sorted(range(members), key=lambda index: keccak(seed + index.to_bytes(2, "big"))))


def leader_of(config: bytes, view: int, members: int) -> int:
    """Return the index of the member that leads `view`."""
    return permutation(config, view // members, members)[view % members]
