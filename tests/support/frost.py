"""A trusted dealer and seeded chance, for tests and benches only: the product always runs a DKG."""

import hashlib
from collections.abc import Callable

from p2p.frost.group import SECP256K1_GROUP
from p2p.frost.keys import GroupKey, KeyShare, make_shares
from p2p.frost.suite import TR, Identifier, Suite


def seeded(seed: object) -> Callable[[int], bytes]:
    """Return a deterministic source of bytes."""
    state = [hashlib.sha256(repr(seed).encode()).digest(), 0]

    def draw(size: int) -> bytes:
        state[1] += 1  # type: ignore[operator]  # the counter half of a two-field state
        return hashlib.shake_256(repr(state).encode()).digest(size)

    return draw


def deal(
    min_signers: int,
    max_signers: int,
    suite: Suite = TR,
    seed: object = 0,
    coefficients: list[int] | None = None,
    identifiers: list[int] | None = None,
) -> tuple[GroupKey, dict[Identifier, KeyShare]]:
    """Return a group key and all its shares, from one polynomial."""
    group, draw = suite.group, seeded((seed, "deal"))
    order = group.order
    wide = 48 if group is SECP256K1_GROUP else 64
    poly = coefficients or [
        int.from_bytes(draw(wide), "big") % (order - 1) + 1 for _ in range(min_signers)
    ]
    scalars: dict[int, int] = {}
    for i in identifiers or range(1, max_signers + 1):
        value = 0
        for coefficient in reversed(poly):
            value = (value * i + coefficient) % order
        scalars[i] = value
    public = make_shares((i, group.base_public(value)) for i, value in scalars.items())
    key = GroupKey(suite, min_signers, group.base_public(poly[0]), public)
    shares = {
        Identifier(i): KeyShare(Identifier(i), group.secret(group.encode_scalar(value)), key)
        for i, value in scalars.items()
    }
    return key, shares
