"""Strict in: whatever is not the one encoding of a well-formed message is refused."""

import contextlib
from dataclasses import replace

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keeper.errors import RemoteFault
from keeper.reasons import Reason
from p2p.types import (
    Certificate,
    Committee,
    Heartbeat,
    Kind,
    Member,
    Message,
    Need,
    Proposal,
    SignedObservation,
    Sync,
    Vote,
)
from p2p.wire import MAX_BODY, MAX_FRAME, MAX_PAYLOAD, decode, digest_of, encode

H = bytes(range(32))
SIG = bytes(64)
VOTE = Vote(1, Kind.NOTARIZE, 5, H, 2, SIG)
SEEN = SignedObservation(1, H, 4, H, H, H, b"body", 0, SIG)
PROOF = Certificate(1, Kind.NULLIFY, 5, bytes(32), 0b1011, (SIG, SIG, SIG))
BLOCK = Proposal(1, 5, 3, H, 4, b"payload", H, (SEEN,), (PROOF,), 2, SIG)
BEAT = Heartbeat(1, H, 6, 5, H, ((1, 2),), 1, 3)


def refused(raw: bytes) -> Reason:
    with pytest.raises(RemoteFault) as caught:
        decode(raw, "peer 7")
    assert caught.value.culprit == "peer 7"
    return caught.value.reason


@pytest.mark.parametrize("message", [VOTE, SEEN, PROOF, BLOCK, BEAT, Need(1), Sync(1, 0)])
def test_what_is_encoded_is_decoded(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "bad",
    [
        replace(VOTE, digest=H[:31]),
        replace(VOTE, digest=bytes(32)),
        replace(VOTE, kind=Kind.NULLIFY),
        replace(VOTE, view=0),
        replace(VOTE, signer=256),
        replace(VOTE, signature=SIG[:63]),
        replace(VOTE, epoch=1 << 32),
        replace(PROOF, bitmap=0b11),
        replace(PROOF, signatures=(SIG, SIG)),
        replace(PROOF, digest=H),
        replace(SEEN, body=bytes(MAX_BODY + 1)),
        replace(SEEN, config=b""),
        replace(BLOCK, payload=bytes(MAX_PAYLOAD + 1)),
        replace(BLOCK, view=0),
        replace(BLOCK, observations=(replace(SEEN, signature=b""),)),
        replace(BLOCK, certificates=(PROOF,) * 18),
        replace(BEAT, heads=((1, 1),) * 65),
        Need(0),
    ],
)
def test_fields_out_of_range_are_refused(bad: Message) -> None:
    assert refused(encode(bad)) is Reason.MALFORMED


@pytest.mark.parametrize(
    "value",
    [
        [],
        [1],
        [1, 2],
        [2, 5, 1],
        [1, 99, 1],
        [1, True, 1],
        [1, [5], 1],
        [1, 5, 1, 1],
        [1, 5, "1"],
        [1, 5, 1.0],
        [1, 5, True],
        [1, 5, -1],
        [1, 5, None],
        {1: 5},
        "text",
        7,
        [1, 2, [1, 1, 5, H, 2, SIG]],
    ],
)
def test_other_values_are_refused(value: object) -> None:
    assert refused(msgpack.packb(value)) is Reason.MALFORMED


def test_two_encodings_of_one_value_are_refused() -> None:
    raw = encode(Need(1))
    assert raw == bytes.fromhex("93010501")
    assert refused(bytes.fromhex("930105cc01")) is Reason.MALFORMED
    assert refused(bytes.fromhex("dc0003010501")) is Reason.MALFORMED
    assert refused(raw + b"\0") is Reason.MALFORMED
    assert refused(raw[:-1]) is Reason.MALFORMED


def test_size_is_judged_before_anything_is_parsed() -> None:
    assert refused(bytes(MAX_FRAME + 1)) is Reason.OVERSIZE
    fat = msgpack.packb([1, 5, bytes(2000)])
    assert refused(fat) is Reason.OVERSIZE
    with pytest.raises(ValueError, match="over its limit"):
        encode(replace(BLOCK, observations=(replace(SEEN, body=bytes(MAX_BODY)),) * 40))


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_no_bytes_crash_the_decoder(raw: bytes) -> None:
    with pytest.raises(RemoteFault):
        decode(raw)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_is_refused_or_another_message(at: int, bit: int) -> None:
    raw = bytearray(encode(BLOCK))
    raw[at % len(raw)] ^= 1 << bit
    with contextlib.suppress(RemoteFault):
        assert decode(bytes(raw)) != BLOCK


def test_every_field_of_a_block_is_in_its_digest() -> None:
    base = digest_of(BLOCK)
    other = bytes(reversed(H))
    for changed in (
        replace(BLOCK, parent_view=4),
        replace(BLOCK, parent=other),
        replace(BLOCK, tick=5),
        replace(BLOCK, payload=b"other"),
        replace(BLOCK, root=other),
        replace(BLOCK, observations=()),
        replace(BLOCK, observations=(replace(SEEN, body=b"other"),)),
        replace(BLOCK, observations=(replace(SEEN, signature=b"\1" * 64),)),
    ):
        assert digest_of(changed) != base
    assert digest_of(replace(BLOCK, certificates=())) == base, "proofs are outside of it"


def test_everything_a_committee_is_made_of_is_in_its_config() -> None:
    members = tuple(Member(bytes([i]) * 20, b"peer %d" % i) for i in range(4))
    base = Committee(H, 1, members, H)
    others = (
        Committee(H[::-1], 1, members, H),
        Committee(H, 2, members, H),
        Committee(H, 1, members[::-1], H),
        Committee(H, 1, (*members[:3], Member(members[3].address, b"other")), H),
        Committee(H, 1, members, H[::-1]),
    )
    assert len({base.config, *(other.config for other in others)}) == 6
    assert base.index_of(members[2].address) == 2
    assert base.index_of_peer(b"peer 3") == 3
    assert base.index_of(bytes(20)) == 0
    assert base.index_of_peer(b"nobody") is None
    with pytest.raises(ValueError, match="twice"):
        Committee(H, 1, members + members[:1], H)
