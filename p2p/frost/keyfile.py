"""A key share at rest: sealed by a passphrase, mode 0600, never overwritten.

    ┌ header: label, version, argon2id work, salt, nonce, group digest   (authenticated, readable)
    └ XChaCha20-Poly1305(key = argon2id(passphrase, salt), [identifier, signing share, group key])

The file appears complete or not at all (written aside, synced, linked), and an existing file is
never replaced: losing a share is repaired by the committee, an overwritten one is lost for good.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack
import nacl.bindings as sodium
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from keeper.errors import KeyFileError
from p2p.frost.group import RandomBytes
from p2p.frost.keys import GroupKey, KeyShare
from p2p.frost.suite import Identifier

_LABEL: Final = "flowkeeper sealed file"
_VERSION: Final = 1
_NONCE_SIZE: Final = sodium.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
_MOST_OPERATIONS: Final = 16
_MOST_MEMORY: Final = 2**31


@dataclass(frozen=True, slots=True)
class Work:
    """How expensive one guess of the passphrase is (argon2id)."""

    operations: int
    memory: int


SAFE: Final = Work(argon2id.OPSLIMIT_MODERATE, argon2id.MEMLIMIT_MODERATE)
"""About 0.7 s and 256 MiB a guess."""
QUICK: Final = Work(argon2id.OPSLIMIT_MIN, argon2id.MEMLIMIT_MIN)
"""For devnets and tests, whose keys guard nothing."""


def _header(work: Work, salt: bytes, nonce: bytes, tag: bytes) -> bytes:
    fields = [_LABEL, _VERSION, work.operations, work.memory, salt, nonce, tag]
    return bytes(msgpack.packb(fields))


def _key(passphrase: bytes, work: Work, salt: bytes) -> bytes:
    return bytes(argon2id.kdf(32, passphrase, salt, work.operations, work.memory))


def seal(
    plain: bytes, passphrase: bytes, tag: bytes, random_bytes: RandomBytes, work: Work = SAFE
) -> bytes:
    """Return the bytes of a sealed file; `tag` is readable and authenticated."""
    salt, nonce = random_bytes(argon2id.SALTBYTES), random_bytes(_NONCE_SIZE)
    header = _header(work, salt, nonce, tag)
    box = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(
        plain, header, nonce, _key(passphrase, work, salt)
    )
    return bytes(msgpack.packb([header, box]))


def unseal(raw: bytes, passphrase: bytes, where: str = "") -> tuple[bytes, bytes]:
    """Return (plain, tag) of a sealed file.

    Raises:
        KeyFileError: not a sealed file, damaged, or the passphrase is wrong.
    """
    try:
        header, box = msgpack.unpackb(raw)
        label, version, operations, memory, salt, nonce, tag = msgpack.unpackb(header)
        if label != _LABEL or version != _VERSION:
            raise ValueError("another format")
        if not (0 < operations <= _MOST_OPERATIONS and 0 < memory <= _MOST_MEMORY):
            raise ValueError("unreasonable work")
        key = _key(passphrase, Work(operations, memory), salt)
    except (ValueError, TypeError, msgpack.UnpackException, CryptoError) as error:
        raise KeyFileError(
            f"not a sealed key file: {error}", where=where, remedy="restore it from a backup"
        ) from error
    try:
        plain = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(box, header, nonce, key)
    except (CryptoError, TypeError, ValueError) as error:
        raise KeyFileError(
            "the passphrase is wrong or the file is damaged",
            where=where,
            remedy="try the passphrase again, or restore the file from a backup",
        ) from error
    return bytes(plain), bytes(tag)


def write_new(path: Path, raw: bytes) -> None:
    """Write a file of mode 0600 that appears complete or not at all, and is on disk after.

    Raises:
        KeyFileError: something is there already, or the folder cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            os.link(aside, path)
        finally:
            aside.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError as error:
        raise KeyFileError(
            "a key file is there already",
            where=str(path),
            remedy="keys are never overwritten: choose another home or move the file away",
        ) from error
    except OSError as error:
        raise KeyFileError(f"cannot write the key file: {error}", where=str(path)) from error


def read_private(path: Path) -> bytes:
    """Return the bytes of a file that only its owner can read.

    Raises:
        KeyFileError: it is missing, or others may read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise KeyFileError(
                "others may read this key file", where=str(path), remedy=f"chmod 600 {path}"
            )
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"cannot read the key file: {error}", where=str(path)) from error


def save_key_share(
    path: Path, share: KeyShare, passphrase: bytes, random_bytes: RandomBytes, work: Work = SAFE
) -> None:
    """Seal a key share into a new file.

    Raises:
        KeyFileError: a file is there already.
    """
    fields = [share.identifier, share.signing_share.reveal(), share.group.encode()]
    plain = bytes(msgpack.packb(fields))
    write_new(path, seal(plain, passphrase, share.group.digest(), random_bytes, work))


def load_key_share(path: Path, passphrase: bytes) -> KeyShare:
    """Open a sealed key share; it is checked against its group key.

    Raises:
        KeyFileError: missing, readable by others, damaged, or the passphrase is wrong.
    """
    plain, tag = unseal(read_private(path), passphrase, str(path))
    try:
        return _share_of(msgpack.unpackb(plain), tag)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise KeyFileError(f"not a key share: {error}", where=str(path)) from error


def _share_of(fields: Any, tag: bytes) -> KeyShare:
    identifier, secret, raw = fields
    group = GroupKey.decode(raw)
    if group.digest() != tag:
        raise ValueError("the header names another group key")
    return KeyShare(Identifier(identifier), group.suite.group.secret(secret), group)
