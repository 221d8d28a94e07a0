"""BLS12-381 signatures of a sync committee: decode its keys once, then one pairing per update.

    e(Σ keys of signers, H(message)) = e(G1, signature)

The keys are decompressed and subgroup-checked once a period (512 keys: the expensive part); the
sum of all is kept, so that signers are summed by subtracting the few that are missing. Ciphersuite
BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_ (draft-irtf-cfrg-bls-signature); rogue keys are excluded
by the deposits' proofs of possession.
"""

from collections.abc import Sequence

from py_arkworks_bls12381 import GT, G1Point, G2Point

DST = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_POP_"
_MINUS_ONE = -G1Point()


class BadKey(ValueError):
    """A compressed public key is no point of the right group, or is the point at infinity."""


class DecodedKeys:
    """The points of one committee.

    Raises:
        BadKey: one of them is not a valid public key.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        try:
            self._points = [G1Point.from_compressed_bytes(key) for key in keys]
        except ValueError as error:
            raise BadKey(f"public key: {error}") from error
        infinity = G1Point.identity()
        if any(point == infinity for point in self._points):
            raise BadKey("a public key is the point at infinity")
        self._all = _sum(self._points)

    def verify(self, bits: Sequence[bool], message: bytes, signature: bytes) -> bool:
        """Return whether exactly the members whose bit is set signed the message."""
        if len(bits) != len(self._points) or not any(bits):
            return False
        if 2 * sum(bits) >= len(bits):
            signers = self._all
            for point, bit in zip(self._points, bits, strict=True):
                if not bit:
                    signers = signers - point
        else:
            signers = _sum([one for one, bit in zip(self._points, bits, strict=True) if bit])
        try:
            signed = G2Point.from_compressed_bytes(signature)
        except ValueError:
            return False
        return GT.pairing_check(
            [signers, _MINUS_ONE], [G2Point.hash_to_curve(message, DST), signed]
        )


def _sum(points: Sequence[G1Point]) -> G1Point:
    total = G1Point.identity()
    for point in points:
        total = total + point
    return total
