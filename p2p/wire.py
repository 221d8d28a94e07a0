"""Bytes of every consensus message: canonical msgpack, strict in, bounded before it is parsed.

    frame body = [version, tag, field, field, …]      nested values are arrays without a header

    decode:  size → msgpack → canonical → version and tag → every field's type, length and range

Canonical means that a value has one encoding: whatever does not re-encode to the same bytes is
refused, so a hash of bytes is a hash of the value. Golden files hold the bytes of each message.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.reasons import Reason
from p2p.types import (
    VERSION,
    Certificate,
    Heartbeat,
    History,
    Kind,
    Message,
    Need,
    Proposal,
    SignedObservation,
    Sync,
    Vote,
    block_digest,
)

MAX_FRAME = 512 * 1024
"""Bytes of any message: the largest payload, observations of a quorum of 31 members as honest
keepers make them in a crash (8 KiB each), and certificates. Hardly any message comes near it."""
MAX_PAYLOAD = 256 * 1024
"""Bytes of a proposal's payload: all that the rules can decide in one view, and bids opened."""
MAX_BODY = 16 * 1024
"""Bytes of an observation's body."""
MAX_MEMBERS = 256
"""Members of a committee that the format can name (bitmap of 32 bytes, as on chain)."""
MAX_CERTIFICATES = 17
"""Certificates in a proposal: the parent's and the newest 16 skipped views'."""
MAX_BLOCKS = 64
"""Blocks in one history answer."""
MAX_HEADS = 64
"""Chains in a heartbeat."""
SMALL_FRAME = 1024
"""Bytes of a vote, a need, a sync or a heartbeat are fewer than this."""


class _Bad(Exception):
    """A field has the wrong shape."""


def _uint(value: Any, bits: int) -> int:
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise _Bad
    return value


def _bytes(value: Any, size: int) -> bytes:
    if type(value) is not bytes or len(value) != size:
        raise _Bad
    return value


def _blob(value: Any, limit: int) -> bytes:
    if type(value) is not bytes or len(value) > limit:
        raise _Bad
    return value


def _list(value: Any, limit: int) -> list[Any]:
    if type(value) is not list or len(value) > limit:
        raise _Bad
    return value


def _fields(value: Any, count: int) -> list[Any]:
    if type(value) is not list or len(value) != count:
        raise _Bad
    return value


def _pack_observation(o: SignedObservation) -> list[Any]:
    roots = [o.heads_root, o.prices_root, o.rest_root]
    return [o.epoch, o.config, o.tick, *roots, o.body, o.signer, o.signature]


def _observation(value: Any) -> SignedObservation:
    epoch, config, tick, heads, prices, rest, body, signer, signature = _fields(value, 9)
    return SignedObservation(
        _uint(epoch, 32),
        _bytes(config, 32),
        _uint(tick, 64),
        _bytes(heads, 32),
        _bytes(prices, 32),
        _bytes(rest, 32),
        _blob(body, MAX_BODY),
        _uint(signer, 8),
        _bytes(signature, 64),
    )


def _pack_vote(v: Vote) -> list[Any]:
    return [v.epoch, int(v.kind), v.view, v.digest, v.signer, v.signature]


def _kind(value: Any) -> Kind:
    if type(value) is not int or value not in (1, 2, 3):
        raise _Bad
    return Kind(value)


def _digest(kind: Kind, value: Any) -> bytes:
    digest = _bytes(value, 32)
    if (kind is Kind.NULLIFY) != (digest == bytes(32)):
        raise _Bad
    return digest


def _view(value: Any) -> int:
    if _uint(value, 64) == 0:
        raise _Bad
    return int(value)


def _vote(value: Any) -> Vote:
    epoch, kind_number, view, digest, signer, signature = _fields(value, 6)
    kind = _kind(kind_number)
    return Vote(
        _uint(epoch, 32),
        kind,
        _view(view),
        _digest(kind, digest),
        _uint(signer, 8),
        _bytes(signature, 64),
    )


def _pack_certificate(c: Certificate) -> list[Any]:
    bitmap = c.bitmap.to_bytes((c.bitmap.bit_length() + 7) // 8, "big")
    return [c.epoch, int(c.kind), c.view, c.digest, bitmap, list(c.signatures)]


def _certificate(value: Any) -> Certificate:
    epoch, kind_number, view, digest, bitmap, signatures = _fields(value, 6)
    kind = _kind(kind_number)
    raw = _blob(bitmap, MAX_MEMBERS // 8)
    if raw[:1] == b"\0":
        raise _Bad
    bits = int.from_bytes(raw, "big")
    signed = tuple(_bytes(item, 64) for item in _list(signatures, MAX_MEMBERS))
    if bits.bit_count() != len(signed):
        raise _Bad
    return Certificate(_uint(epoch, 32), kind, _view(view), _digest(kind, digest), bits, signed)


def _pack_proposal(p: Proposal) -> list[Any]:
    observations = [_pack_observation(o) for o in p.observations]
    certificates = [_pack_certificate(c) for c in p.certificates]
    place = [p.epoch, p.view, p.parent_view, p.parent, p.tick]
    return [*place, p.payload, p.root, observations, certificates, p.signer, p.signature]


def _proposal(value: Any) -> Proposal:
    (
        epoch, view, parent_view, parent, tick, payload, root,
        observations, certificates, signer, signature,
    ) = _fields(value, 11)  # fmt: skip
    return Proposal(
        _uint(epoch, 32),
        _view(view),
        _uint(parent_view, 64),
        _bytes(parent, 32),
        _uint(tick, 64),
        _blob(payload, MAX_PAYLOAD),
        _bytes(root, 32),
        tuple(_observation(item) for item in _list(observations, MAX_MEMBERS)),
        tuple(_certificate(item) for item in _list(certificates, MAX_CERTIFICATES)),
        _uint(signer, 8),
        _bytes(signature, 64),
    )


def _pack_history(h: History) -> list[Any]:
    return [[_pack_proposal(block) for block in h.blocks], _pack_certificate(h.certificate)]


def _history(value: Any) -> History:
    blocks, certificate = _fields(value, 2)
    return History(
        tuple(_proposal(item) for item in _list(blocks, MAX_BLOCKS)), _certificate(certificate)
    )


def _pack_heartbeat(h: Heartbeat) -> list[Any]:
    heads = [list(head) for head in h.heads]
    place = [h.view, h.final_view, h.final_digest]
    return [h.epoch, h.config, *place, heads, h.version, h.clock_ms]


def _heartbeat(value: Any) -> Heartbeat:
    epoch, config, view, final_view, final_digest, heads, version, clock_ms = _fields(value, 8)
    pairs = [_fields(item, 2) for item in _list(heads, MAX_HEADS)]
    return Heartbeat(
        _uint(epoch, 32),
        _bytes(config, 32),
        _uint(view, 64),
        _uint(final_view, 64),
        _bytes(final_digest, 32),
        tuple((_uint(chain, 64), _uint(height, 64)) for chain, height in pairs),
        _uint(version, 32),
        _uint(clock_ms, 64),
    )


def _sync(value: Any) -> Sync:
    epoch, from_view = _fields(value, 2)
    return Sync(_uint(epoch, 32), _uint(from_view, 64))


_Codec = tuple[int, type, int, Callable[[Any], list[Any]], Callable[[Any], Message]]
_CODECS: tuple[_Codec, ...] = (
    # tag, type, largest frame, pack, unpack
    (1, SignedObservation, MAX_BODY + SMALL_FRAME, _pack_observation, _observation),
    (2, Vote, SMALL_FRAME, _pack_vote, _vote),
    (3, Certificate, MAX_MEMBERS * 66 + SMALL_FRAME, _pack_certificate, _certificate),
    (4, Proposal, MAX_FRAME, _pack_proposal, _proposal),
    (5, Need, SMALL_FRAME, lambda m: [m.view], lambda v: Need(_view(_fields(v, 1)[0]))),
    (
        6,
        Sync,
        SMALL_FRAME,
        lambda m: [m.epoch, m.from_view],
        _sync,
    ),
    (7, History, MAX_FRAME, _pack_history, _history),
    (8, Heartbeat, 2 * SMALL_FRAME, _pack_heartbeat, _heartbeat),
)
_BY_TYPE = {codec[1]: codec for codec in _CODECS}
_BY_TAG = {codec[0]: codec for codec in _CODECS}


def encode(message: Message) -> bytes:
    """Return the one encoding of a message.

    Raises:
        ValueError: it is larger than its kind may be.
    """
    tag, kind, limit, pack, _ = _BY_TYPE[type(message)]
    raw: bytes = msgpack.packb([VERSION, tag, *pack(message)])
    if len(raw) > limit:
        raise ValueError(f"a {kind.__name__} of {len(raw)} bytes is over its limit of {limit}")
    return raw


def fits(proposal: Proposal) -> bool:
    """Return whether others would take a proposal as far as its size goes."""
    try:
        return len(proposal.payload) <= MAX_PAYLOAD and len(encode(proposal)) <= MAX_FRAME
    except ValueError:
        return False


def decode(raw: bytes, culprit: str = "peer") -> Message:
    """Return the message these bytes encode.

    Args:
        raw: anything.
        culprit: who sent it, for the fault.

    Raises:
        RemoteFault: OVERSIZE or MALFORMED.
    """
    if len(raw) > MAX_FRAME:
        raise RemoteFault(culprit, Reason.OVERSIZE, f"{len(raw)} bytes")
    try:
        value = _unpack(raw)
        if type(value) is not list or len(value) < 3 or value[0] != VERSION:
            raise _Bad
        codec = _BY_TAG.get(value[1]) if type(value[1]) is int else None
        if codec is None:
            raise _Bad
        _, kind, limit, _, unpack = codec
        if len(raw) > limit:
            raise RemoteFault(culprit, Reason.OVERSIZE, f"{kind.__name__} of {len(raw)} bytes")
        message = unpack(value[2:])
    except _Bad as error:
        raise RemoteFault(culprit, Reason.MALFORMED, f"{len(raw)} bytes") from error
    return message


def _unpack(raw: bytes) -> Any:
    try:
        value = msgpack.unpackb(
            raw, raw=False, use_list=True, strict_map_key=True, max_map_len=0, max_ext_len=0
        )
        canonical = msgpack.packb(value) == raw
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise _Bad from error
    if not canonical:
        raise _Bad
    return value


def body_hash(payload: bytes, observations: Sequence[SignedObservation]) -> bytes:
    """Return keccak of the canonical msgpack of [payload, [observation, …]]."""
    packed: bytes = msgpack.packb([payload, [_pack_observation(o) for o in observations]])
    return keccak(packed)


def digest_of(proposal: Proposal) -> bytes:
    """Return the digest that the proposal's votes sign."""
    return block_digest(
        proposal.parent_view,
        proposal.parent,
        proposal.tick,
        body_hash(proposal.payload, proposal.observations),
        proposal.root,
    )
