"""ECDSA over secp256k1 as the EVM recovers it: who signed a digest.

    secret, digest ─▶ sign ─▶ r ‖ s ‖ v        v is 27 or 28, s at most half of the order
    digest, r ‖ s ‖ v ─▶ signer_of ─▶ address, or None

A signature whose s is above half of the order is the other form of the same one; contracts that
know each message once refuse it, and so does this.
"""

from coincurve import PrivateKey, PublicKey

from keeper.hashing import keccak

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Of secp256k1."""


def sign(secret: bytes, digest: bytes) -> bytes:
    """Return the 65-byte signature of a digest, with v as 27 or 28."""
    raw = PrivateKey(secret).sign_recoverable(digest, hasher=None)
    return raw[:64] + bytes([raw[64] + 27])


def signer_of(digest: bytes, signature: bytes) -> bytes | None:
    """Return the address that signed, or None; as strict as the contracts."""
    if len(signature) != 65 or signature[64] not in (27, 28):
        return None
    if 2 * int.from_bytes(signature[32:64], "big") > ORDER:
        return None
    raw = signature[:64] + bytes([signature[64] - 27])
    try:
        public = PublicKey.from_signature_and_message(raw, digest, hasher=None)
    except Exception:  # noqa: BLE001  the library raises bare Exception on a bad signature
        return None
    return keccak(public.format(compressed=False)[1:])[12:]
