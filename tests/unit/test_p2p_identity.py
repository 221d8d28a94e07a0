"""A peer id is its key; a signature by a peer is checked from the id alone."""

import pytest
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID

from p2p.identity import (
    is_signed_by,
    peer_id_from_text,
    peer_id_of,
    peer_id_text,
    public_key_of,
    sign,
)

SEED = bytes(range(32))


def test_equals_the_id_libp2p_derives() -> None:
    theirs = ID.from_pubkey(create_new_key_pair(SEED).public_key)
    assert peer_id_of(SEED) == theirs.to_bytes()
    assert peer_id_text(peer_id_of(SEED)) == theirs.to_base58()


def test_text_goes_both_ways() -> None:
    peer = peer_id_of(SEED)
    assert peer_id_from_text(peer_id_text(peer)) == peer


@pytest.mark.parametrize(
    "text", ["", "12D3KooW", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "0OIl"]
)
def test_refuses_what_is_no_ed25519_id(text: str) -> None:
    with pytest.raises(ValueError):
        peer_id_from_text(text)


def test_signature_binds_peer_and_message() -> None:
    peer, other = peer_id_of(SEED), peer_id_of(bytes(32))
    signature = sign(SEED, b"message")
    assert is_signed_by(peer, b"message", signature)
    assert not is_signed_by(peer, b"massage", signature)
    assert not is_signed_by(other, b"message", signature)
    assert not is_signed_by(peer, b"message", signature[:63])
    assert not is_signed_by(b"junk", b"message", signature)


def test_key_of_junk_is_an_error() -> None:
    with pytest.raises(ValueError, match="not an Ed25519"):
        public_key_of(b"\x12\x20" + bytes(32))
