"""Sealed boxes to a member's host key that their author can open in public, to settle a complaint.

    box = epk ‖ XSalsa20-Poly1305(share; X25519(esk, pk))     the format of libsodium's sealed boxes

The receiver opens it with its Ed25519 host key (converted), now or when it recovers a lost share.
An accused author shows `esk`: everyone can then open that one box, and see who lied.
"""

from functools import lru_cache

import nacl.bindings as sodium
from nacl.encoding import RawEncoder
from nacl.exceptions import CryptoError
from nacl.hash import blake2b

from p2p.frost.group import RandomBytes
from p2p.frost.secret import Secret

OVERHEAD = 48
"""Bytes a box is longer than its content."""


def _nonce(ephemeral: bytes, receiver: bytes) -> bytes:
    return bytes(blake2b(ephemeral + receiver, digest_size=24, encoder=RawEncoder))


@lru_cache(maxsize=128)
def _curve(host: bytes) -> bytes:
    return bytes(sodium.crypto_sign_ed25519_pk_to_curve25519(host))


def seal(plain: Secret, host: bytes, random_bytes: RandomBytes) -> tuple[bytes, Secret]:
    """Return a box for an Ed25519 host key, and the ephemeral secret that opens it in public."""
    receiver, ephemeral = _curve(host), Secret(random_bytes(32))
    public = sodium.crypto_scalarmult_base(ephemeral.reveal())
    nonce = _nonce(public, receiver)
    box = sodium.crypto_box(plain.reveal(), nonce, receiver, ephemeral.reveal())
    return public + box, ephemeral


def open_own(box: bytes, host: bytes, host_seed: Secret) -> Secret | None:
    """Return the content of a box for one's own host key, or None."""
    secret = sodium.crypto_sign_ed25519_sk_to_curve25519(host_seed.reveal() + host)
    try:
        return Secret(sodium.crypto_box_seal_open(box, _curve(host), secret))
    except (CryptoError, TypeError, ValueError):
        return None


def open_public(box: bytes, host: bytes, ephemeral: bytes) -> Secret | None:
    """Return the content by the author's ephemeral secret, or None if it is not that secret."""
    if len(ephemeral) != 32 or len(box) <= OVERHEAD:
        return None
    receiver = _curve(host)
    try:
        if sodium.crypto_scalarmult_base(ephemeral) != box[:32]:
            return None
        nonce = _nonce(box[:32], receiver)
        return Secret(sodium.crypto_box_open(box[32:], nonce, receiver, ephemeral))
    except (CryptoError, RuntimeError, TypeError, ValueError):
        return None
