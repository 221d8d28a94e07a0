"""CCIP's lane against answers and logs that are short, wrong, or none at all."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keeper.chain.port import Log
from keeper.hashing import keccak
from keeper.route.bridges.ccip import STATE_CHANGED
from keeper.route.bridges.ccip_facts import LOCKS, CcipEnd, word
from keeper.route.bridges.ccip_lane import PAID_OUT
from keeper.route.bridges.port import UNBOUNDED, Crossing, Stage, Terms, lane_of
from keeper.route.graph import fault_of
from keeper.venue.abi import answers
from tests.support.ccip_lane import (
    BLOCK,
    COMMITTEE,
    HERE,
    LANE,
    RECIPIENT,
    THERE,
    TOKENS,
    hexed,
    log,
    raw_of,
    sent_log,
    told,
)

OUT, BACK = LANE.crossings()
HERE_POOL = word(HERE.pool)


def bucket(tokens: int, size: int, counts: bool = True) -> tuple[int, int, bool, int, int]:
    return (tokens, 7, counts, size, 1)


OPEN = bucket(0, 0, counts=False)


def pool_replies(at: CcipEnd, far: CcipEnd) -> list[bytes]:
    kind = LOCKS if at.lock_box else "BurnMintTokenPool 2.0.0"
    nobody = "0x" + "00" * 20
    found = [
        told("address", *hexed(at.pool)),
        told("bytes", word(far.token)),
        told("bytes[]", [word(far.pool)]),
        told("string", kind),
        told("uint8", 6),
        told("address address address", *hexed(at.router), nobody, nobody),
        told("address", nobody),
    ]
    return [*found, told("address", *hexed(at.lock_box))] if at.lock_box else found


def sound(here: CcipEnd, there: CcipEnd, *, bps: int = 0, out: Any = OPEN, into: Any = OPEN,
          held: int = 0, value: int = 9) -> list[bytes]:  # fmt: skip
    """Return what the contracts of a sound lane answer, in the order of the reads."""
    router, on, registry, rmn, resolver, verifier = hexed(
        *(here.router, here.on_ramp, here.registry, here.rmn, here.resolver, here.verifier)
    )
    router2, registry2, rmn2, resolver2, verifier2 = hexed(
        *(there.router, there.registry, there.rmn, there.resolver, there.verifier)
    )
    lane_out = (router, 5, 20, False, 1, 2, 3, verifier, [resolver], [resolver], there.off_ramp)
    lane_in = (router2, True, [word(here.on_ramp)], [resolver2], [])
    signers = hexed(*reversed(COMMITTEE.signers))  # a set's order on the chain is its own
    pair = "(uint128,uint32,bool,uint128,uint128) (uint128,uint32,bool,uint128,uint128)"
    return [
        told("bool", False),
        told("bool", False),
        told("address", on),
        told("(uint64,address,uint32,address)", (here.selector, rmn, 1, registry)),
        told(
            "(address,uint64,uint8,bool,uint16,uint16,uint32,address,address[],address[],bytes)",
            lane_out,
        ),
        told("address", verifier),
        told("bool", True),
        told("(uint64,uint16,address,address,uint32)", (there.selector, 1, rmn2, registry2, 1)),
        told("(address,bool,bytes[],address[],address[])", lane_in),
        told("(bytes4,address)[]", [(b"KEEP", verifier2)]),
        told("address[] uint8", signers, 2),
        *pool_replies(here, there),
        *pool_replies(there, here),
        told("uint256", value),
        told("uint256 uint32 uint32 uint16 bool", 1, 2, 3, bps, True),
        told(pair, out, OPEN),
        told(pair, OPEN, into),
        told("uint256", 1),
        *([told("uint256", held)] if there.lock_box else []),
    ]


def test_a_sound_lane_is_open_and_every_answer_is_asked_for() -> None:
    assert LANE.quoted(OUT, sound(HERE, THERE)) == Terms(value=9)
    assert LANE.quoted(BACK, sound(THERE, HERE, held=70)) == Terms(value=9, capacity=70)
    for crossing, here, there in ((OUT, HERE, THERE), (BACK, THERE, HERE)):
        reads = LANE.quote_reads(crossing)
        assert len(reads) == len(sound(here, there))
        assert {read.chain for read in reads} == {1, 2}
    assert LANE.address(OUT) == HERE.pool


@pytest.mark.parametrize("crossing", [OUT, BACK])
def test_no_answer_can_be_missing_short_or_another(crossing: Crossing) -> None:
    ends = (HERE, THERE) if crossing == OUT else (THERE, HERE)
    good = sound(*ends, out=bucket(50, 60), into=bucket(40, 60), held=30)
    assert LANE.quoted(crossing, good).fault == ""
    figures = 6 if ends[1].lock_box else 5
    for place in range(len(good)):
        for odd in (b"", b"\0" * 31, b"\xff" * 32, b"\xff" * 640, good[place][:-32]):
            terms = LANE.quoted(crossing, [*good[:place], odd, *good[place + 1 :]])
            # a fee or funds of 2**256 - 1 are a number like any other; all else is a fault
            number = odd[:32] == b"\xff" * 32 and place in (len(good) - figures, len(good) - 1)
            assert terms.fault or number, (place, odd)
            assert 0 <= terms.capacity <= UNBOUNDED
    for replies in ([], good[:-1], [*good, b""], good[1:]):
        terms = LANE.quoted(crossing, replies)
        assert (terms.capacity, bool(terms.fault)) == (0, True)


@given(st.integers(0, len(sound(HERE, THERE)) - 6), st.binary(max_size=400))
def test_noise_is_a_fault_and_never_an_exception(place: int, noise: bytes) -> None:
    good = sound(HERE, THERE)
    terms = LANE.quoted(OUT, [*good[:place], noise, *good[place + 1 :]])
    assert terms.fault or noise == good[place]
    assert LANE.quoted(OUT, [noise] * len(good)).fault
    assert LANE.read(noise) is None
    assert LANE.sent(OUT, [sent_log(raw_of(), data=noise)]) == ()


@pytest.mark.parametrize(
    ("bps", "out", "into", "most"),
    [
        (0, OPEN, OPEN, UNBOUNDED),
        (0, bucket(50, 60), OPEN, 50),
        (0, bucket(50, 60), bucket(40, 60), 40),
        (0, bucket(90, 60), OPEN, 60),
        (0, bucket(0, 60), OPEN, 0),
        (100, OPEN, OPEN, UNBOUNDED),
        (100, bucket(99, 100), OPEN, 100),
        (100, bucket(100, 100), OPEN, 101),
        (9_999, bucket(1, 1), OPEN, 10_000),
    ],
)
def test_the_capacity_is_the_most_that_the_pool_takes(
    bps: int, out: Any, into: Any, most: int
) -> None:
    terms = LANE.quoted(OUT, sound(HERE, THERE, bps=bps, out=out, into=into))
    assert (terms.capacity, terms.fee_ppm, terms.fault) == (most, bps * 100, "")
    if most < UNBOUNDED:  # as the pool reckons: what is left after its fee must be in the bucket
        room = min(bucket_[0] for bucket_ in (out, into) if bucket_[2])
        room = min(room, out[3])
        assert most - most * bps // 10_000 <= room
        assert (most + 1) - (most + 1) * bps // 10_000 > room


def test_a_list_that_unpacks_to_gigabytes_is_not_unpacked() -> None:
    good, size = sound(HERE, THERE), 4_000
    blob = (60_000).to_bytes(32, "big") + bytes(60_000)
    head = [(32).to_bytes(32, "big"), size.to_bytes(32, "big")]
    bomb = b"".join([*head, *[(32 * size).to_bytes(32, "big")] * size, blob])
    assert len(answers(("bytes[]",), bomb)[0]) == size, "240 MB of 190 kB"
    place = next(place for place, reply in enumerate(good) if reply == told("bytes[]", [HERE_POOL]))
    replies = [*good[:place], bomb, *good[place + 1 :]]
    assert LANE.quoted(OUT, replies).fault == "its contracts do not answer as CCIP 2.0's do"


def test_both_tokens_have_the_configured_decimals() -> None:
    good = sound(HERE, THERE)
    places = [place for place, reply in enumerate(good) if reply == told("uint8", 6)]
    assert len(places) == 2
    for place in places:
        replies = [*good[:place], told("uint8", 18), *good[place + 1 :]]
        assert LANE.quoted(OUT, replies).fault == "its token has other decimals"


def test_a_pool_that_takes_all_is_at_fault() -> None:
    for bps in (10_000, 65_535):
        assert LANE.quoted(OUT, sound(HERE, THERE, bps=bps)).fault


def test_a_pool_that_would_not_pay_out_is_at_fault_unless_nothing_is_left_to_pay() -> None:
    replies = sound(THERE, HERE, held=5)
    replies[-2] = b""  # the rehearsal reverted
    assert LANE.quoted(BACK, replies).fault == "its pool would not pay out"
    replies[-2] = (2).to_bytes(32, "big")
    assert LANE.quoted(BACK, replies).fault == "its pool would not pay out"
    replies[-1], replies[-2] = bytes(32), b""
    terms = LANE.quoted(BACK, replies)
    assert (terms.capacity, terms.fault) == (0, "")
    assert fault_of(lane_of(LANE, BACK, terms)) == "no room left"


LANE_TRANSFER = LANE.read(raw_of())
assert LANE_TRANSFER is not None


def test_a_transfer_is_read_from_the_message_itself() -> None:
    raw = raw_of()
    (transfer,) = LANE.sent(OUT, [sent_log(raw)])
    assert transfer == LANE_TRANSFER
    assert (transfer.id, transfer.amount, transfer.payload) == (keccak(raw), 1_234, raw)
    assert (transfer.crossing, transfer.recipient) == (OUT, RECIPIENT)
    assert LANE.sent(BACK, [sent_log(raw)]) == ()
    topics = sent_log(raw).topics
    for odd in (
        {"address": HERE.router},
        {"topics": topics[:3]},
        {"topics": (*topics[:3], keccak(b"another id"))},
        {"topics": (topics[0], word(HERE.selector.to_bytes(8, "big")), *topics[2:])},
        {"topics": (keccak(b"Other()"), *topics[1:])},
        {"data": b""},
        {"data": sent_log(raw).data[:256]},
        {"data": b"\xff" * 320},
    ):
        assert LANE.sent(OUT, [sent_log(raw, **odd)]) == ()


@pytest.mark.parametrize(
    "raw",
    [
        raw_of(source=7),
        raw_of(destination=HERE.selector),
        raw_of(on_ramp=HERE.on_ramp),
        raw_of(on_ramp=word(THERE.on_ramp)),
        raw_of(off_ramp=HERE.off_ramp),
        raw_of(data=b"call me"),
        raw_of(receive_gas=1),
        raw_of(finality=b"\0\0\0\1"),
        raw_of(receiver=b"\x56" * 20),
        raw_of(token_transfer=b""),
        raw_of(token_transfer=TOKENS.encode()[:-1]),
        raw_of(token_transfer=TOKENS.encode() + b"\0"),
        raw_of(token_transfer=b"\2" + TOKENS.encode()[1:]),
        raw_of(replace(TOKENS, source_pool=word(THERE.pool))),
        raw_of(replace(TOKENS, source_token=word(THERE.token))),
        raw_of(replace(TOKENS, token=HERE.token)),
        raw_of(replace(TOKENS, receiver=word(RECIPIENT)), receiver=word(RECIPIENT)),
        raw_of(replace(TOKENS, pool_data=(18).to_bytes(32, "big"))),
        raw_of(replace(TOKENS, pool_data=b"")),
        raw_of()[:-1],
        raw_of() + b"\0",
        b"",
    ],
)
def test_what_is_no_plain_transfer_of_this_token_is_none(raw: bytes) -> None:
    assert LANE.read(raw) is None
    assert LANE.sent(OUT, [sent_log(raw)]) == ()


def arrived(state: int = 2, amount: int = 1_234, recipient: bytes = RECIPIENT) -> list[Log]:
    assert LANE_TRANSFER is not None
    origin = word(HERE.selector.to_bytes(8, "big"))
    paid = b"".join(map(word, (THERE.token, THERE.off_ramp, recipient)))
    number = (4).to_bytes(32, "big")
    return [
        log(THERE.pool, (PAID_OUT, origin), paid + amount.to_bytes(32, "big")),
        log(
            THERE.off_ramp, (STATE_CHANGED, origin, number, LANE_TRANSFER.id),
            told("uint8 bytes", state, b""),
        ),
    ]  # fmt: skip


def test_a_delivery_is_proven_by_the_ramp_and_the_pool_in_one_transaction() -> None:
    assert LANE_TRANSFER is not None
    proof = LANE.delivery(LANE_TRANSFER, arrived())
    assert proof is not None
    assert (proof.block, proof.transaction) == (BLOCK, b"\1")
    pool, ramp = arrived()
    origin = ramp.topics[1]
    for logs in (
        [], [pool], [ramp], arrived(state=3), arrived(amount=1_233),
        arrived(recipient=b"\x56" * 20),
        [replace(pool, transaction=b"\2"), ramp],
        [replace(pool, address=THERE.token), ramp],
        [replace(pool, topics=(PAID_OUT, word(b"\7"))), ramp],
        [replace(pool, data=pool.data + b"\0"), ramp],
        [pool, replace(ramp, address=THERE.router)],
        [pool, replace(ramp, topics=(*ramp.topics[:3], keccak(b"x")))],
        [pool, replace(ramp, topics=(STATE_CHANGED, word(b"\7"), *ramp.topics[2:]))],
        [pool, replace(ramp, topics=(STATE_CHANGED, origin))],
        [pool, replace(ramp, data=b"")],
    ):  # fmt: skip
        assert LANE.delivery(LANE_TRANSFER, logs) is None


def test_what_is_not_understood_is_no_progress() -> None:
    assert LANE_TRANSFER is not None
    for state, stage in ((0, Stage.SENT), (1, Stage.SENT), (2, Stage.ARRIVED), (3, Stage.SENT)):
        assert LANE.stage(LANE_TRANSFER, [told("uint8", state)]) is stage
    for replies in ([], [b""], [b"\xff" * 32], [told("uint8", 2)] * 2):
        assert LANE.stage(LANE_TRANSFER, replies) is Stage.SENT
