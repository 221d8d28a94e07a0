"""From signature shares to one signature, or to the names of those who sent a bad share.

    z = Σ z_i      verify (R, z) once; only if that fails check every share  z_i·G = R_i + λ_i·c·Y_i

One `Signature` has a Bitcoin view (`bip340()`, 64 bytes) and an Ethereum view (`evm()`, with the Y
coordinate of R as a hint for the ecrecover trick of `Committee.vy`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from p2p.frost.group import SECP256K1_GROUP, Element
from p2p.frost.keys import GroupKey
from p2p.frost.round2 import Session, SignatureShare
from p2p.frost.suite import Identifier, Suite


@dataclass(frozen=True, slots=True)
class Signature:
    """A Schnorr signature (R, z); under BIP340 R is the even-Y half."""

    suite: Suite
    nonce_point: Element
    z: int

    def encode(self) -> bytes:
        """Return the suite's own bytes: x(R) ‖ z under BIP340, R ‖ z elsewhere."""
        head = self.nonce_point.raw[1:] if self.suite.even_y else self.nonce_point.raw
        return head + self.suite.group.encode_scalar(self.z)

    def bip340(self) -> bytes:
        """Return the 64 bytes of BIP340."""
        if not self.suite.even_y:
            raise ValueError(f"{self.suite.name} does not make BIP340 signatures")
        return self.encode()

    def evm(self) -> tuple[int, int, int]:
        """Return (rx, ry, s), the arguments of `Committee.verify_seal`."""
        if self.suite.group is not SECP256K1_GROUP:
            raise ValueError(f"{self.suite.name} has no EVM verifier")
        return (*SECP256K1_GROUP.coordinates(self.nonce_point), self.z)

    @classmethod
    def decode(cls, suite: Suite, raw: bytes) -> "Signature":
        """Return the signature of its bytes. Raises ValueError unless canonical."""
        head = raw[: -suite.group.scalar_size]
        point = suite.group.decode(b"\x02" + head if suite.even_y else head)
        return cls(suite, point, suite.group.decode_scalar(raw[-suite.group.scalar_size :]))


@dataclass(frozen=True, slots=True)
class Culprits:
    """Who sent a signature share that does not fit its commitments, ascending."""

    identifiers: tuple[Identifier, ...]


def verify(group: GroupKey, message: bytes, signature: Signature) -> bool:
    """Return whether a signature is the group's: z·G = R + c·P."""
    return verify_signature(group.suite, group.verifying_key, message, signature)


def verify_signature(
    suite: Suite, verifying_key: Element, message: bytes, signature: Signature
) -> bool:
    """Return whether a signature belongs to a verifying key."""
    if signature.suite is not suite or signature.z == 0:
        return False
    key = suite.normal(verifying_key)
    return _opens(suite, signature.nonce_point, key, message, signature.z)


def _opens(suite: Suite, nonce_point: Element, key: Element, message: bytes, z: int) -> bool:
    if not suite.is_even(nonce_point):
        return False
    challenge = suite.challenge(nonce_point, key, message)
    return _equation(suite, z, nonce_point, key, challenge)


def _equation(suite: Suite, z: int, nonce_point: Element, key: Element, factor: int) -> bool:
    group = suite.group
    try:
        return group.base_public(z) == group.sum([nonce_point, group.multiply(key, factor)])
    except ValueError:  # z, the factor or the sum is zero: no honest signer gets there
        return False


def verify_share(session: Session, share: SignatureShare) -> bool:
    """Return whether one share fits its signer's commitments and verifying share."""
    if share.identifier not in session.identifiers:
        return False
    point = session.nonce_point(share.identifier)
    key = session.group.verifying_shares[share.identifier]
    return _equation(session.group.suite, share.z, point, key, session.weight(share.identifier))


def aggregate(
    session: Session, shares: Mapping[Identifier, SignatureShare]
) -> Signature | Culprits:
    """Return the signature, or who spoiled it.

    Raises:
        ValueError: the shares are not exactly the session's signers.
    """
    if tuple(sorted(shares)) != session.identifiers:
        raise ValueError("shares of other signers than the session's")
    suite = session.group.suite
    z = sum(share.z for share in shares.values()) % suite.group.order
    nonce_point = suite.normal(session.group_commitment)
    if z and _equation(suite, z, nonce_point, session.verifying_key, session.challenge):
        return Signature(suite, nonce_point, z)
    bad = (i for i in session.identifiers if not verify_share(session, shares[i]))
    return Culprits(tuple(bad))
