"""What a committee holds: the public group key, and each member's secret key share.

    GroupKey   public   t of n, the verifying key P, one verifying share Y_i = s_i·G per member
    KeyShare   secret   identifier i and signing share s_i

`min_signers` is the agreement's quorum: with fewer, two conflicting seals could exist. The group
key is a value; two members compare `GroupKey.digest()`. A key share never prints its secret, and is
stored only by `p2p.frost.keyfile`.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from p2p.frost.group import Element
from p2p.frost.secret import Secret
from p2p.frost.suite import SUITES, Identifier, Suite

MAX_SIGNERS = 128
"""Above this the adaptive-corruption bounds of the DKG are not argued for (BIP445)."""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class GroupKey:
    """The public side of a shared key.

    Invariants: 1 ≤ min_signers ≤ number of shares ≤ MAX_SIGNERS; shares sorted by identifier.
    """

    suite: Suite
    min_signers: int
    verifying_key: Element
    verifying_shares: Mapping[Identifier, Element]

    def __post_init__(self) -> None:
        identifiers = list(self.verifying_shares)
        if not 1 <= self.min_signers <= len(identifiers) <= MAX_SIGNERS:
            raise ValueError(f"{self.min_signers} of {len(identifiers)} signers is out of range")
        if identifiers != sorted(set(identifiers)) or identifiers[0] < 1:
            raise ValueError("identifiers must be positive, distinct and sorted")

    @property
    def identifiers(self) -> tuple[Identifier, ...]:
        """All signers, ascending."""
        return tuple(self.verifying_shares)

    @property
    def max_signers(self) -> int:
        """Number of signers, n."""
        return len(self.verifying_shares)

    @property
    def x_only(self) -> bytes:
        """The 32-byte BIP340 key; the `groupKey` a contract keeps is this as a uint256."""
        if not self.suite.even_y:
            raise ValueError(f"{self.suite.name} has no x-only keys")
        return self.verifying_key.raw[1:]

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        shares = [
            [self.suite.group.encode_scalar(identifier), share.raw]
            for identifier, share in self.verifying_shares.items()
        ]
        fields = [_VERSION, self.suite.name, self.min_signers, self.verifying_key.raw, shares]
        return bytes(msgpack.packb(fields))

    @classmethod
    def decode(cls, raw: bytes) -> "GroupKey":
        """Return the group key of canonical bytes.

        Raises:
            ValueError: the bytes are not a group key.
        """
        try:
            version, name, min_signers, key, shares = msgpack.unpackb(raw)
            suite = SUITES[name]
            group = suite.group
            pairs = [(group.decode_scalar(i), group.decode(share)) for i, share in shares]
        except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
            raise ValueError(f"not a group key: {error}") from error
        if version != _VERSION or type(min_signers) is not int:
            raise ValueError("not a group key of this version")
        result = cls(suite, min_signers, group.decode(key), make_shares(pairs))
        if result.encode() != raw:
            raise ValueError("group key is not canonical")
        return result

    def digest(self) -> bytes:
        """Return 32 bytes that name this group key."""
        return hashlib.sha256(b"flowkeeper/frost/group-key" + self.encode()).digest()

    def __repr__(self) -> str:
        return (
            f"GroupKey({self.suite.name}, {self.min_signers} of {self.max_signers}, "
            f"{self.verifying_key.raw.hex()})"
        )


def make_shares(pairs: Iterable[tuple[int, Element]]) -> dict[Identifier, Element]:
    """Return verifying shares in ascending order of identifier."""
    return {Identifier(i): element for i, element in sorted(pairs, key=lambda pair: pair[0])}


@dataclass(frozen=True, slots=True)
class KeyShare:
    """One member's secret: its signing share, checked against the public verifying share."""

    identifier: Identifier
    signing_share: Secret = field(repr=False)
    group: GroupKey

    def __post_init__(self) -> None:
        expected = self.group.verifying_shares.get(self.identifier)
        if expected != self.group.suite.group.base_point(self.signing_share):
            raise ValueError(f"signing share {self.identifier} does not belong to the group key")

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a key share is never pickled or copied")


def lagrange(identifier: int, identifiers: Sequence[int], order: int, at: int = 0) -> int:
    """Return the interpolating value λ of one identifier at x (RFC 9591 §4.2; x = 0 signs)."""
    numerator = denominator = 1
    for other in identifiers:
        if other != identifier:
            numerator = numerator * (other - at) % order
            denominator = denominator * (other - identifier) % order
    return numerator * pow(denominator, -1, order) % order
