"""Cutting streams into frames, however the bytes arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2p.gossip import ORIGINS_HELD, SEEN_PER_ORIGIN, Seen, cut_varint
from p2p.links import MESSAGE, PING, FrameReader, frame


@given(
    st.lists(st.tuples(st.sampled_from([PING, MESSAGE]), st.binary(max_size=50)), max_size=10),
    st.integers(min_value=1, max_value=17),
)
def test_frames_survive_any_cut(frames: list[tuple[int, bytes]], step: int) -> None:
    raw = b"".join(frame(kind, body) for kind, body in frames)
    reader, got = FrameReader(50), []
    for at in range(0, len(raw), step):
        got += reader.feed(raw[at : at + step])
    assert got == frames


@pytest.mark.parametrize("size", [0, 12, 2**32 - 1])
def test_a_length_beyond_the_limit_is_refused_before_the_body(size: int) -> None:
    with pytest.raises(ValueError, match="a frame of"):
        FrameReader(10).feed(size.to_bytes(4, "big"))


@given(st.integers(min_value=0, max_value=2**35 - 1))
def test_varints(value: int) -> None:
    raw = bytearray()
    rest = value
    while True:
        raw.append(rest & 0x7F | (0x80 if rest > 0x7F else 0))
        rest >>= 7
        if not rest:
            break
    assert cut_varint(raw, 0) == (value, len(raw))
    assert cut_varint(raw[:-1], 0) is None or len(raw) == 1


def test_a_varint_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="varint"):
        cut_varint(bytearray(b"\xff" * 11), 0)


def test_seen_is_bounded_per_origin_and_over_all() -> None:
    seen = Seen()
    honest = b"h" * 38
    assert seen.add(honest + bytes(8))
    assert not seen.add(honest + bytes(8))
    for number in range(SEEN_PER_ORIGIN * 2):
        seen.add(b"f" * 38 + number.to_bytes(8, "big"))
    assert seen.has(honest + bytes(8)), "a flood of one origin does not push out another's"
    assert not seen.has(b"f" * 38 + bytes(8))
    for number in range(ORIGINS_HELD + 1):
        seen.add(number.to_bytes(38, "big") + bytes(8))
    assert not seen.has(honest + bytes(8))
