"""A keeper's name on the wire: the libp2p peer id of its Ed25519 key.

    seed (32 bytes) ─► Ed25519 public key ─► protobuf {type 1, key} ─► identity multihash = peer id
                                                                       00 24 08 01 12 20 ‖ key

The public key is inside the id, so a signature by a peer is checked without asking anyone. The seed
comes from the sealed key file; this module never stores it. Source: libp2p specs, peer-ids.
"""

from functools import lru_cache

import base58
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

PREFIX = bytes.fromhex("002408011220")
PEER_ID_BYTES = len(PREFIX) + 32


def peer_id_of(seed: bytes) -> bytes:
    """Return the 38-byte peer id of a 32-byte Ed25519 seed."""
    return PREFIX + bytes(SigningKey(seed).verify_key)


def is_peer_id(peer: bytes) -> bool:
    """Return whether these bytes are the id of an Ed25519 peer."""
    return len(peer) == PEER_ID_BYTES and peer.startswith(PREFIX)


def public_key_of(peer: bytes) -> bytes:
    """Return the 32-byte Ed25519 public key inside a peer id.

    Raises:
        ValueError: the id is not an Ed25519 identity multihash.
    """
    if not is_peer_id(peer):
        raise ValueError(f"{peer.hex()} is not an Ed25519 peer id")
    return peer[len(PREFIX) :]


@lru_cache(maxsize=1024)
def peer_id_text(peer: bytes) -> str:
    """Return the base58 text people know a peer by (`12D3KooW…`)."""
    return base58.b58encode(peer).decode("ascii")


def peer_id_from_text(text: str) -> bytes:
    """Return the id of its base58 text.

    Raises:
        ValueError: the text is not base58, or not an Ed25519 peer id.
    """
    peer = base58.b58decode(text)
    if not is_peer_id(peer):
        raise ValueError(f"{text!r} is not an Ed25519 peer id")
    return peer


def sign(seed: bytes, message: bytes) -> bytes:
    """Return the 64-byte Ed25519 signature of a message."""
    return bytes(SigningKey(seed).sign(message).signature)


def is_signed_by(peer: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether this peer signed this message."""
    if not is_peer_id(peer) or len(signature) != 64:
        return False
    try:
        VerifyKey(peer[len(PREFIX) :]).verify(message, signature)
    except BadSignatureError:
        return False
    return True
