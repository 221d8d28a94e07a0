"""A node's own two keys, sealed by its password.

keys/operator.key   secp256k1: signs votes, observations, bids and transactions; its address is
                    the keeper's name on every chain
keys/identity.key   Ed25519 seed: the libp2p identity
keys/share-E.key    the FROST share of epoch E, written by the ceremony (p2p.frost.keyfile)
"""

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from coincurve import PrivateKey

from keeper.errors import KeyFileError
from keeper.hashing import keccak
from p2p.frost.keyfile import SAFE, Work, read_private, seal, unseal, write_new
from p2p.identity import peer_id_of

OPERATOR, IDENTITY = "operator.key", "identity.key"


@dataclass(frozen=True, slots=True)
class Keys:
    """Opened keys; secrets never print."""

    operator: bytes = field(repr=False)
    identity: bytes = field(repr=False)

    @property
    def address(self) -> bytes:
        """The 20-byte operator address."""
        return address_of(self.operator)

    @property
    def peer_id(self) -> bytes:
        """The 38-byte libp2p peer id."""
        return peer_id_of(self.identity)


def address_of(secret: bytes) -> bytes:
    """Return the 20-byte EVM address of a secp256k1 secret."""
    public = PrivateKey(secret).public_key.format(compressed=False)
    return keccak(public[1:])[12:]


def create(folder: Path, password: str, work: Work = SAFE) -> Keys:
    """Make both keys and write them sealed; existing files are never replaced.

    Raises:
        KeyFileError: a key file is there already, or the folder cannot be written.
    """
    for name in (OPERATOR, IDENTITY):
        if (folder / name).exists():
            raise KeyFileError(
                "a key file is there already",
                where=str(folder / name),
                remedy="keys are never overwritten: choose another home",
            )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = Keys(PrivateKey().secret, secrets.token_bytes(32))
    for name, secret in ((OPERATOR, keys.operator), (IDENTITY, keys.identity)):
        sealed = seal(secret, password.encode(), name.encode(), secrets.token_bytes, work)
        write_new(folder / name, sealed)
    return keys


def load(folder: Path, password: str) -> Keys:
    """Open both keys.

    Raises:
        KeyFileError: a file is missing, damaged, readable by others, or the password is wrong.
    """
    opened = []
    for name in (OPERATOR, IDENTITY):
        path = folder / name
        plain, tag = unseal(read_private(path), password.encode(), str(path))
        if tag != name.encode() or len(plain) != 32:
            raise KeyFileError(
                f"this file is not an {name}", where=str(path), remedy="restore it from a backup"
            )
        opened.append(plain)
    return Keys(*opened)
