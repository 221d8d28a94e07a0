"""Exhaustive check of the production voting rules over two views.

Four members, one of which has signed everything. Two rival blocks in view 1 (a, b); in view 2 a
child of each (x on a, y on b) and a block that skips view 1 by nullification (g). Every order of
votes that `may_sign` and the certificates allow is visited. Honest members are interchangeable, so
a state is a multiset of what each has signed.
"""

from collections.abc import Callable, Iterator, Mapping

import pytest

from p2p.agreement.quorum import quorum
from p2p.agreement.votes import in_conflict, may_sign
from p2p.types import NO_DIGEST, Kind

BLOCKS = {1: (b"a", b"b"), 2: (b"x", b"y", b"g")}
PARENT = {b"x": b"a", b"y": b"b"}
HONEST, LIARS = 3, 1

Signed = tuple[tuple[tuple[Kind, bytes], ...], ...]
"""What one member signed in views 1 and 2."""
State = tuple[Signed, ...]
MaySign = Callable[[Mapping[Kind, bytes], Kind, bytes], bool]


def count(state: State, view: int, kind: Kind, digest: bytes) -> int:
    return LIARS + sum((kind, digest) in member[view - 1] for member in state)


def certified(state: State, q: int, kind: Kind, view: int) -> set[bytes]:
    digests = (NO_DIGEST,) if kind is Kind.NULLIFY else BLOCKS[view]
    return {digest for digest in digests if count(state, view, kind, digest) >= q}


def is_safe(state: State, q: int) -> bool:
    first = certified(state, q, Kind.FINALIZE, 1)
    second = certified(state, q, Kind.FINALIZE, 2)
    if len(first) > 1 or len(second) > 1:
        return False
    return all(PARENT.get(child) == block for block in first for child in second)


def moves(state: State, member: Signed, q: int, rule: MaySign) -> Iterator[tuple[int, Kind, bytes]]:
    for view in (1, 2):
        mine = dict(member[view - 1])
        for digest in BLOCKS[view]:
            notarized = certified(state, q, Kind.NOTARIZE, 1)
            nullified = certified(state, q, Kind.NULLIFY, 1)
            parent = PARENT.get(digest)
            follows = view == 1 or (parent in notarized if parent else bool(nullified))
            if follows and rule(mine, Kind.NOTARIZE, digest):
                yield view, Kind.NOTARIZE, digest
            if digest in certified(state, q, Kind.NOTARIZE, view) and rule(
                mine, Kind.FINALIZE, digest
            ):
                yield view, Kind.FINALIZE, digest
        if rule(mine, Kind.NULLIFY, NO_DIGEST):
            yield view, Kind.NULLIFY, NO_DIGEST


def explore(q: int, rule: MaySign) -> tuple[int, State | None]:
    """Return the number of states, and a state that violates safety if there is one."""
    start: State = (((), ()),) * HONEST
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        if not is_safe(state, q):
            return len(seen), state
        for index, member in enumerate(state):
            for view, kind, digest in moves(state, member, q, rule):
                signed = list(member)
                signed[view - 1] = tuple(sorted((*member[view - 1], (kind, digest))))
                others = (*state[:index], tuple(signed), *state[index + 1 :])
                after: State = tuple(sorted(others))
                if after not in seen:
                    seen.add(after)
                    todo.append(after)
    return len(seen), None


def test_the_production_rules_are_safe_in_every_order() -> None:
    states, violation = explore(quorum(4), may_sign)
    assert violation is None
    assert states > 5_000, "the search must not be cut short by a rule that forbids everything"


def test_a_smaller_quorum_is_unsafe() -> None:
    assert explore(2, may_sign)[1] is not None


def test_nullify_and_finalize_together_are_unsafe() -> None:
    def loose(mine: Mapping[Kind, bytes], kind: Kind, digest: bytes) -> bool:
        if kind is Kind.NULLIFY:
            return kind not in mine
        return may_sign({k: d for k, d in mine.items() if k is not Kind.NULLIFY}, kind, digest)

    assert explore(quorum(4), loose)[1] is not None


@pytest.mark.parametrize("kind_a", list(Kind))
@pytest.mark.parametrize("kind_b", list(Kind))
@pytest.mark.parametrize("same", [True, False])
def test_what_one_may_not_sign_is_what_is_slashed(kind_a: Kind, kind_b: Kind, same: bool) -> None:
    """An honest member can never be shown a conflicting pair of its own."""
    a = NO_DIGEST if kind_a is Kind.NULLIFY else b"a"
    b = NO_DIGEST if kind_b is Kind.NULLIFY else (b"a" if same else b"b")
    if may_sign({kind_a: a}, kind_b, b):
        assert not in_conflict(kind_a, a, kind_b, b)
    assert in_conflict(kind_a, a, kind_b, b) == in_conflict(kind_b, b, kind_a, a)


def test_two_quorums_share_an_honest_member_and_honest_members_are_one() -> None:
    for members in range(1, 257):
        faults = (members - 1) // 3
        assert 2 * quorum(members) - members >= faults + 1
        assert members - faults >= quorum(members)
