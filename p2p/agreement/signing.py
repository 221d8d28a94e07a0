"""Signatures of the protocol: secp256k1 ECDSA over EIP-712, 64 bytes (EIP-2098, low s).

    domain = EIP712Domain(name "Flowkeeper", version "1", salt = network)     no chain, no contract
    Vote(uint32 epoch,bytes32 config,uint8 kind,uint64 view,bytes32 digest)
    Observation(uint32 epoch,bytes32 config,uint64 tick,
                bytes32 headsRoot,bytes32 pricesRoot,bytes32 restRoot)

Without chain and contract in the domain, one vote is evidence on every chain. The core sees only
`Signer`; simulations hand it a cheap one.
"""

from functools import lru_cache
from typing import Protocol

from coincurve import PrivateKey, PublicKey
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT

from keeper.hashing import keccak, type_hash
from p2p.types import Committee, Kind, SignedObservation

_HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_HIGH_BIT = 1 << 255
_CTX = GLOBAL_CONTEXT.ctx
_UNCOMPRESSED = 2
"""SECP256K1_EC_UNCOMPRESSED, see secp256k1.h."""
_HASHES_HELD = 256
"""Vote hashes remembered: every member signs the same one, so it is computed once a view."""
_DOMAIN = type_hash("EIP712Domain(string name,string version,bytes32 salt)")
_NAME_VERSION = type_hash("Flowkeeper") + type_hash("1")
_VOTE = type_hash("Vote(uint32 epoch,bytes32 config,uint8 kind,uint64 view,bytes32 digest)")
_OBSERVATION = type_hash(
    "Observation(uint32 epoch,bytes32 config,uint64 tick,"
    "bytes32 headsRoot,bytes32 pricesRoot,bytes32 restRoot)"
)


class Scheme(Protocol):
    """Checks signatures."""

    def verify(self, digest: bytes, signature: bytes, address: bytes) -> bool:
        """Return whether `address` signed the 32-byte digest."""
        ...


class Signer(Scheme, Protocol):
    """Checks signatures and makes those of one keeper."""

    @property
    def address(self) -> bytes:
        """Return the keeper's address, 20 bytes."""
        ...

    def sign(self, digest: bytes) -> bytes:
        """Return a 64-byte signature of the 32-byte digest."""
        ...


class Ecdsa:
    """The real scheme, without a key: what a follower needs."""

    def verify(self, digest: bytes, signature: bytes, address: bytes) -> bool:
        """Return whether the signature recovers to `address`; never raises."""
        return recover(digest, signature) == address


class EcdsaSigner(Ecdsa):
    """The real scheme with one keeper's secret key."""

    def __init__(self, secret: bytes) -> None:
        self._key = PrivateKey(secret)
        self._address = _address(self._key.public_key)

    @property
    def address(self) -> bytes:
        """Return the keeper's address, 20 bytes."""
        return self._address

    def sign(self, digest: bytes) -> bytes:
        """Return a deterministic (RFC 6979) compact signature."""
        raw = self._key.sign_recoverable(digest, hasher=None)
        s = int.from_bytes(raw[32:64], "big") | (raw[64] << 255)
        return raw[:32] + s.to_bytes(32, "big")

    def __repr__(self) -> str:
        return f"EcdsaSigner(0x{self._address.hex()})"


def _address(key: PublicKey) -> bytes:
    return keccak(key.format(compressed=False)[1:])[-20:]


def recover(digest: bytes, signature: bytes) -> bytes | None:
    """Return the address that made a compact signature, or None; high s is refused.

    Straight over libsecp256k1: it is most of a view's CPU, and the wrapper adds half as much again.
    """
    if len(signature) != 64 or len(digest) != 32:
        return None
    packed = int.from_bytes(signature[32:], "big")
    s, parity = packed & (_HIGH_BIT - 1), packed >> 255
    if not 0 < s <= _HALF_ORDER:
        return None
    parsed = ffi.new("secp256k1_ecdsa_recoverable_signature *")
    compact = signature[:32] + s.to_bytes(32, "big")
    if not lib.secp256k1_ecdsa_recoverable_signature_parse_compact(_CTX, parsed, compact, parity):
        return None
    key = ffi.new("secp256k1_pubkey *")
    if not lib.secp256k1_ecdsa_recover(_CTX, key, parsed, digest):
        return None  # r is no coordinate of a point
    point = ffi.new("unsigned char [65]")
    lib.secp256k1_ec_pubkey_serialize(_CTX, point, ffi.new("size_t *", 65), key, _UNCOMPRESSED)
    return keccak(ffi.buffer(point, 65)[1:])[-20:]


@lru_cache(maxsize=8)
def domain_separator(network: bytes) -> bytes:
    """Return the EIP-712 domain separator of a network."""
    return keccak(_DOMAIN + _NAME_VERSION + network)


def _typed(network: bytes, struct: bytes) -> bytes:
    return keccak(b"\x19\x01" + domain_separator(network) + keccak(struct))


def vote_hash(committee: Committee, kind: Kind, view: int, digest: bytes) -> bytes:
    """Return what a vote signs."""
    return _vote_hash(committee.network, committee.epoch, committee.config, kind, view, digest)


@lru_cache(maxsize=_HASHES_HELD)
def _vote_hash(
    network: bytes, epoch: int, config: bytes, kind: Kind, view: int, digest: bytes
) -> bytes:
    return _typed(
        network,
        _VOTE
        + epoch.to_bytes(32, "big")
        + config
        + int(kind).to_bytes(32, "big")
        + view.to_bytes(32, "big")
        + digest,
    )


def observation_hash(network: bytes, observation: SignedObservation) -> bytes:
    """Return what an observation signs; its `signature` and `body` are not looked at."""
    return _typed(
        network,
        _OBSERVATION
        + observation.epoch.to_bytes(32, "big")
        + observation.config
        + observation.tick.to_bytes(32, "big")
        + observation.heads_root
        + observation.prices_root
        + observation.rest_root,
    )


def sign_observation(
    committee: Committee,
    signer: Signer,
    tick: int,
    roots: tuple[bytes, bytes, bytes],
    body: bytes,
) -> SignedObservation:
    """Return this keeper's signed observation of a tick.

    Raises:
        ValueError: the signer is no member.
    """
    index = committee.index_of(signer.address)
    if index is None:
        raise ValueError(f"0x{signer.address.hex()} is not a member of epoch {committee.epoch}")
    draft = SignedObservation(
        committee.epoch, committee.config, tick, *roots, body=body, signer=index, signature=b""
    )
    signature = signer.sign(observation_hash(committee.network, draft))
    return SignedObservation(
        committee.epoch,
        committee.config,
        tick,
        *roots,
        body=body,
        signer=index,
        signature=signature,
    )


def verify_observation(
    committee: Committee, scheme: Scheme, observation: SignedObservation
) -> bool:
    """Return whether a member of this committee signed it for this configuration."""
    return (
        observation.config == committee.config
        and observation.epoch == committee.epoch
        and observation.signer < committee.size
        and scheme.verify(
            observation_hash(committee.network, observation),
            observation.signature,
            committee.members[observation.signer].address,
        )
    )
