"""Ciphersuites: a group and the hashes around it (RFC 9591 §6).

    TR         FROST-secp256k1-SHA256-TR-v1   challenge of BIP340; key and nonce have even Y
    SECP256K1  FROST-secp256k1-SHA256-v1      RFC 9591 §6.5
    ED25519    FROST-ED25519-SHA512-v1        RFC 9591 §6.1; the output is plain RFC 8032

H1 binding factor, H3 nonce, H4 message, H5 commitment list, plus "dkg" for the proof of knowledge.
H2, the challenge, is what a verifier computes. A group key belongs to one suite: sharing a key
between two challenges would give away nothing known today, and is refused all the same.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NewType

from p2p.frost.group import ED25519_GROUP, SECP256K1_GROUP, Element, Group
from p2p.frost.secret import Secret

Identifier = NewType("Identifier", int)
"""A signer's id, a non-zero scalar; in Flowkeeper the member index + 1."""

_BLOCK = 64
_BIP340_TAG = hashlib.sha256(b"BIP0340/challenge").digest() * 2
_TAPTWEAK_TAG = hashlib.sha256(b"TapTweak").digest() * 2


def expand_message_xmd(message: bytes, dst: bytes, size: int) -> bytes:
    """Return `size` uniform bytes (RFC 9380 §5.3.1 with SHA-256, size at most 64)."""
    dst_prime = dst + bytes([len(dst)])
    b_0 = hashlib.sha256(
        bytes(_BLOCK) + message + size.to_bytes(2, "big") + b"\0" + dst_prime
    ).digest()
    b_1 = hashlib.sha256(b_0 + b"\x01" + dst_prime).digest()
    mixed = int.from_bytes(b_0, "big") ^ int.from_bytes(b_1, "big")
    b_2 = hashlib.sha256(mixed.to_bytes(32, "big") + b"\x02" + dst_prime).digest()
    return (b_1 + b_2)[:size]


def _sha512(data: bytes) -> bytes:
    return hashlib.sha512(data).digest()


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@dataclass(frozen=True, slots=True)
class Suite:
    """A group, its context string, and how it hashes; compared and printed by name."""

    name: str
    group: Group
    even_y: bool
    """BIP340: a point stands for its even-Y half."""
    hash: Callable[[bytes], bytes]
    xmd: bool
    """Hash to a scalar by expand_message_xmd (secp256k1) or by one wide hash (Ed25519)."""

    @property
    def context(self) -> bytes:
        """The context string."""
        return self.name.encode()

    def _wide(self, message: bytes, label: bytes) -> bytes:
        if self.xmd:
            return expand_message_xmd(message, self.context + label, 48)
        return self.hash(self.context + label + message)

    def _scalar(self, wide: bytes) -> int:
        return int.from_bytes(wide, "big" if self.xmd else "little") % self.group.order

    def h1(self, message: bytes) -> int:
        """Return a binding factor."""
        return self._scalar(self._wide(message, b"rho"))

    def h3(self, message: bytes) -> Secret:
        """Return a nonce, reduced in constant time."""
        return self.group.reduce_secret(self._wide(message, b"nonce"))

    def h4(self, message: bytes) -> bytes:
        """Return the digest of a message."""
        return self.hash(self.context + b"msg" + message)

    def h5(self, message: bytes) -> bytes:
        """Return the digest of a commitment list."""
        return self.hash(self.context + b"com" + message)

    def hdkg(self, message: bytes) -> int:
        """Return the challenge of a proof of knowledge."""
        return self._scalar(self._wide(message, b"dkg"))

    def challenge(self, group_commitment: Element, verifying_key: Element, message: bytes) -> int:
        """Return c = H2(R ‖ P ‖ m), with x-only points under BIP340."""
        if self.even_y:
            points = group_commitment.raw[1:] + verifying_key.raw[1:]
            return self._scalar(_sha256(_BIP340_TAG + points + message))
        points = group_commitment.raw + verifying_key.raw
        if self.xmd:
            return self._scalar(self._wide(points + message, b"chal"))
        return self._scalar(self.hash(points + message))

    def is_even(self, element: Element) -> bool:
        """Return whether an element is the half that the suite signs with."""
        return not self.even_y or element.raw[0] == 2

    def normal(self, element: Element) -> Element:
        """Return the even-Y half under BIP340, the element itself elsewhere."""
        return element if self.is_even(element) else self.group.negate(element)

    def taptweak(self, verifying_key: Element) -> int:
        """Return the BIP341 tweak for an empty script tree: no hidden script path."""
        return self._scalar(_sha256(_TAPTWEAK_TAG + verifying_key.raw[1:]))

    def __repr__(self) -> str:
        return f"Suite({self.name})"


TR: Final = Suite("FROST-secp256k1-SHA256-TR-v1", SECP256K1_GROUP, True, _sha256, True)
SECP256K1: Final = Suite("FROST-secp256k1-SHA256-v1", SECP256K1_GROUP, False, _sha256, True)
ED25519: Final = Suite("FROST-ED25519-SHA512-v1", ED25519_GROUP, False, _sha512, False)
SUITES: Final = {suite.name: suite for suite in (TR, SECP256K1, ED25519)}
