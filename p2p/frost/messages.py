"""What signers say to each other, and its bytes: canonical msgpack, strict in.

    frame = [version, tag, field, …]    tags 32…, so frames share a road with the agreement's (1…)

    signer → coordinator   Nonces           points published ahead
    coordinator → signer   SignRequest      "sign the root of your final block of this view"
    signer → coordinator   Share            one scalar, with fresh points for the next time
    signer → coordinator   Refusal          that nonce is gone (a restart); fresh points
    coordinator → signer   WantNonces       nothing left to spend
    coordinator → all      Seal             the signature

A value of these types is well formed: points are on the curve, scalars canonical, counts bounded.
Who sent it is what the authenticated link says; nothing here names its own sender.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import msgpack

from keeper.errors import RemoteFault
from keeper.reasons import Reason
from p2p.frost.aggregate import Signature
from p2p.frost.group import Element
from p2p.frost.keys import MAX_SIGNERS
from p2p.frost.nonces import MAX_AHEAD, NonceBatch, NonceHandle, PublishedNonce
from p2p.frost.round1 import SigningCommitments
from p2p.frost.suite import Identifier, Suite

VERSION: Final = 1
FIRST_TAG: Final = 32
LAST_TAG: Final = 47
MAX_FRAME: Final = 16 * 1024
"""A request to 128 signers takes under 12 KiB."""

Points = tuple[tuple[Element, Element], ...]


@dataclass(frozen=True, slots=True)
class Nonces:
    """Points `first`, `first` + 1, … of the sender's life `boot`, promised to the receiver."""

    epoch: int
    boot: int
    first: int
    points: Points

    def batch(self, identifier: Identifier) -> NonceBatch:
        """Return the batch as this signer's."""
        commitments = tuple(SigningCommitments(identifier, *pair) for pair in self.points)
        return NonceBatch(self.boot, self.first, commitments)

    @classmethod
    def of(cls, epoch: int, batch: NonceBatch) -> "Nonces":
        """Return the message of a batch."""
        points = tuple((entry.hiding, entry.binding) for entry in batch.commitments)
        return cls(epoch, batch.boot, batch.first, points)


@dataclass(frozen=True, slots=True)
class SignRequest:
    """Asks for a share in an attempt; entries ascend by identifier."""

    epoch: int
    view: int
    root: bytes
    attempt: int
    entries: tuple[PublishedNonce, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A signature share, and points that replace the ones it spent."""

    epoch: int
    view: int
    attempt: int
    z: int
    fresh: Nonces


@dataclass(frozen=True, slots=True)
class Refusal:
    """The sender no longer has the nonce; `fresh` are points it does have."""

    epoch: int
    view: int
    attempt: int
    fresh: Nonces


@dataclass(frozen=True, slots=True)
class WantNonces:
    """The sender has no points of the receiver left."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Seal:
    """The group's signature over the root of a view."""

    epoch: int
    view: int
    root: bytes
    signature: Signature


SigningMessage = Nonces | SignRequest | Share | Refusal | WantNonces | Seal


class _Bad(Exception):
    """A field has the wrong shape."""


def _uint(value: Any, bits: int = 64) -> int:
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise _Bad
    return value


def _bytes(value: Any, size: int) -> bytes:
    if type(value) is not bytes or len(value) != size:
        raise _Bad
    return value


def _list(value: Any, least: int, most: int) -> list[Any]:
    if type(value) is not list or not least <= len(value) <= most:
        raise _Bad
    return value


def _element(suite: Suite, value: Any) -> Element:
    return suite.group.decode(_bytes(value, suite.group.element_size))


def _pack_nonces(suite: Suite, m: Nonces) -> list[Any]:
    return [m.epoch, m.boot, m.first, [[d.raw, e.raw] for d, e in m.points]]


def _nonces(suite: Suite, value: Any) -> Nonces:
    epoch, boot, first, points = _list(value, 4, 4)
    pairs = (_list(pair, 2, 2) for pair in _list(points, 0, MAX_AHEAD))
    return Nonces(
        _uint(epoch, 32),
        _uint(boot),
        _uint(first, 62),
        tuple((_element(suite, d), _element(suite, e)) for d, e in pairs),
    )


def _pack_request(suite: Suite, m: SignRequest) -> list[Any]:
    entries = [
        [
            entry.commitments.identifier,
            entry.handle.boot,
            entry.handle.counter,
            entry.commitments.hiding.raw,
            entry.commitments.binding.raw,
        ]
        for entry in m.entries
    ]
    return [m.epoch, m.view, m.root, m.attempt, entries]


def _entry(suite: Suite, value: Any) -> PublishedNonce:
    identifier, boot, counter, hiding, binding = _list(value, 5, 5)
    commitments = SigningCommitments(
        Identifier(_uint(identifier, 16)), _element(suite, hiding), _element(suite, binding)
    )
    return PublishedNonce(NonceHandle(_uint(boot), _uint(counter)), commitments)


def _request(suite: Suite, value: Any) -> SignRequest:
    epoch, view, root, attempt, entries = _list(value, 5, 5)
    return SignRequest(
        _uint(epoch, 32),
        _uint(view),
        _bytes(root, 32),
        _uint(attempt, 16),
        tuple(_entry(suite, entry) for entry in _list(entries, 1, MAX_SIGNERS)),
    )


def _pack_share(suite: Suite, m: Share) -> list[Any]:
    z = suite.group.encode_scalar(m.z)
    return [m.epoch, m.view, m.attempt, z, _pack_nonces(suite, m.fresh)]


def _share(suite: Suite, value: Any) -> Share:
    epoch, view, attempt, z, fresh = _list(value, 5, 5)
    scalar = suite.group.decode_scalar(_bytes(z, suite.group.scalar_size))
    nonces = _nonces(suite, fresh)
    return Share(_uint(epoch, 32), _uint(view), _uint(attempt, 16), scalar, nonces)


def _pack_refusal(suite: Suite, m: Refusal) -> list[Any]:
    return [m.epoch, m.view, m.attempt, _pack_nonces(suite, m.fresh)]


def _refusal(suite: Suite, value: Any) -> Refusal:
    epoch, view, attempt, fresh = _list(value, 4, 4)
    return Refusal(_uint(epoch, 32), _uint(view), _uint(attempt, 16), _nonces(suite, fresh))


def _pack_seal(suite: Suite, m: Seal) -> list[Any]:
    return [m.epoch, m.view, m.root, m.signature.encode()]


def _seal(suite: Suite, value: Any) -> Seal:
    epoch, view, root, raw = _list(value, 4, 4)
    if type(raw) is not bytes:
        raise _Bad
    signature = Signature.decode(suite, raw)
    return Seal(_uint(epoch, 32), _uint(view), _bytes(root, 32), signature)


def _pack_want(suite: Suite, m: WantNonces) -> list[Any]:
    return [m.epoch]


def _want(suite: Suite, value: Any) -> WantNonces:
    return WantNonces(_uint(_list(value, 1, 1)[0], 32))


_Codec = tuple[int, type, Callable[[Suite, Any], list[Any]], Callable[[Suite, Any], SigningMessage]]
_CODECS: tuple[_Codec, ...] = (
    (32, Nonces, _pack_nonces, _nonces),
    (33, SignRequest, _pack_request, _request),
    (34, Share, _pack_share, _share),
    (35, Refusal, _pack_refusal, _refusal),
    (36, WantNonces, _pack_want, _want),
    (37, Seal, _pack_seal, _seal),
)
_BY_TYPE = {kind: (tag, pack) for tag, kind, pack, _ in _CODECS}
_BY_TAG = {tag: unpack for tag, _, _, unpack in _CODECS}


def is_signing_frame(raw: bytes) -> bool:
    """Return whether a frame is one of these, by its tag alone."""
    return len(raw) > 2 and FIRST_TAG <= raw[2] <= LAST_TAG


def encode(suite: Suite, message: SigningMessage) -> bytes:
    """Return the one encoding of a message."""
    tag, pack = _BY_TYPE[type(message)]
    return bytes(msgpack.packb([VERSION, tag, *pack(suite, message)]))


def decode(suite: Suite, raw: bytes, culprit: str = "peer") -> SigningMessage:
    """Return the message these bytes encode.

    Raises:
        RemoteFault: OVERSIZE or MALFORMED.
    """
    if len(raw) > MAX_FRAME:
        raise RemoteFault(culprit, Reason.OVERSIZE, f"{len(raw)} bytes")
    try:
        value = msgpack.unpackb(raw, raw=False, max_map_len=0, max_ext_len=0)
        if msgpack.packb(value) != raw or type(value) is not list or value[:1] != [VERSION]:
            raise _Bad
        if len(value) < 2 or type(value[1]) is not int or value[1] not in _BY_TAG:
            raise _Bad
        return _BY_TAG[value[1]](suite, value[2:])
    except (_Bad, ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise RemoteFault(culprit, Reason.MALFORMED, f"{len(raw)} bytes") from error
