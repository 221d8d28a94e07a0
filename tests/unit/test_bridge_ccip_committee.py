"""One keeper in CCIP's committee: what it signs, believes, keeps, and when it brings."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio

from keeper.chain.port import BlockRef, Header, Level, Log
from keeper.ecdsa import ORDER, sign
from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.keys import address_of
from keeper.reasons import Reason
from keeper.route.bridges.ccip import MESSAGE_SENT, signed_digest
from keeper.route.bridges.ccip_committee import CCIP_FRAME, MAX_ARRIVED, Signer
from keeper.route.bridges.ccip_facts import Committee
from keeper.route.bridges.ccip_lane import Ccip
from keeper.route.bridges.multisig import MAX_EARLY, MAX_WAITING
from keeper.route.bridges.origins import origins_of
from keeper.route.bridges.port import Crossing, Send
from keeper.route.bridges.service import Courier
from keeper.units import BlockNumber, Timestamp, Wei
from keeper.venue.abi import answers
from tests.support.ccip_lane import HERE, LANE, MESSAGE, THERE, TOKENS, sent_log, told

KEYS = tuple(keccak(bytes([place])) for place in range(4))
COMMITTEE = Committee(b"KEEP", tuple(sorted(map(address_of, KEYS))), 3)
ORDERED = sorted(KEYS, key=address_of)
"""Keys by rising address: the order of turns and of signatures."""


def token(committee: Committee = COMMITTEE, **changes: Any) -> Ccip:
    here, there = replace(HERE, **changes), THERE
    return Ccip(LANE.asset, 6, [here, there], committee, verifier=LANE.verifier, timing=LANE.timing)


def signer(key: bytes) -> Signer:
    return Signer([token()], HERE.chain, key)


def message(number: int, **changes: Any) -> bytes:
    return replace(
        MESSAGE, **{"number": number, "token_transfer": TOKENS.encode(), **changes}
    ).encode()


def frame_of(key: bytes, name: bytes, selector: int = HERE.selector, tag: bytes = b"KEEP") -> bytes:
    return selector.to_bytes(8, "big") + name + sign(key, signed_digest(tag, name))


def test_the_threshold_makes_it_ready_with_signatures_by_rising_address() -> None:
    one = signer(ORDERED[3])
    raw = message(5)
    (signed,) = one.read([sent_log(raw)], [])
    name = signed.id
    assert (name, len(signed.frame)) == (keccak(raw), CCIP_FRAME)
    assert one.receive(frame_of(ORDERED[1], name)) is None
    assert one.ready() == ()
    assert one.receive(frame_of(ORDERED[0], name)) is None
    (ready,) = one.ready()
    assert (ready.id, ready.turn) == (name, (3 - 5) % 4)
    assert (ready.send.chain, ready.send.to) == (THERE.chain, THERE.off_ramp)
    kinds = ("bytes", "address[]", "bytes[]", "uint32")
    shown, verifiers, (proof,), gas = answers(kinds, ready.send.data[4:])
    assert (shown, verifiers, gas) == (raw, ("0x" + THERE.resolver.hex(),), 0)
    assert proof[:6] == b"KEEP" + (192).to_bytes(2, "big")
    digest = signed_digest(b"KEEP", name)
    for place, key in enumerate((ORDERED[0], ORDERED[1], ORDERED[3])):
        part = proof[6 + 64 * place : 70 + 64 * place]
        mine = sign(key, digest)
        flipped = (ORDER - int.from_bytes(mine[32:64], "big")).to_bytes(32, "big")
        assert part == (mine[:64] if mine[64] == 27 else mine[:32] + flipped)
    assert {turn for key in KEYS for turn in [_turn(key, raw)]} == {0, 1, 2, 3}


def _turn(key: bytes, raw: bytes) -> int:
    one = signer(key)
    one.read([sent_log(raw)], [])
    for other in KEYS:
        one.receive(frame_of(other, keccak(raw)))
    return one.ready()[0].turn


def test_frames_that_come_before_the_block_is_final_count_later() -> None:
    raw = message(1)
    name, one = keccak(raw), signer(KEYS[0])
    for key in KEYS[1:3]:
        assert one.receive(frame_of(key, name)) is None
        assert one.receive(frame_of(key, name)) is Reason.DUPLICATE
    assert one.ready() == ()
    one.read([sent_log(raw)], [])
    assert [ready.id for ready in one.ready()] == [name]
    assert one.receive(frame_of(KEYS[1], name)) is Reason.DUPLICATE


def test_frames_that_are_not_believed() -> None:
    raw = message(1)
    name, one = keccak(raw), signer(KEYS[0])
    one.read([sent_log(raw)], [])
    good = frame_of(KEYS[1], name)
    high = ORDER - int.from_bytes(good[72:104], "big")
    for frame, why in (
        (b"", Reason.MALFORMED),
        (good + b"\0", Reason.MALFORMED),
        (frame_of(KEYS[1], name, selector=9), Reason.WRONG_CONFIG),
        (frame_of(keccak(b"stranger"), name), Reason.BAD_SIGNATURE),
        (frame_of(KEYS[1], name, tag=b"PEEK"), Reason.BAD_SIGNATURE),
        (good[:8] + keccak(b"other") + good[40:], Reason.BAD_SIGNATURE),
        (good[:104] + b"\x1d", Reason.BAD_SIGNATURE),
        (good[:72] + high.to_bytes(32, "big") + bytes([55 - good[104]]), Reason.BAD_SIGNATURE),
        (good[:40] + b"\xff" * 64 + b"\x1b", Reason.BAD_SIGNATURE),
    ):
        assert one.receive(frame) is why
    assert one.ready() == ()
    assert one.receive(good) is None
    one.arrived(name)
    assert one.receive(frame_of(KEYS[2], name)) is Reason.STALE


def test_only_final_plain_transfers_of_served_tokens_are_signed() -> None:
    one = signer(KEYS[0])
    for raw in (
        message(1, data=b"x"),
        message(1, receive_gas=1),
        message(1, finality=b"\0\0\0\1"),
        message(1, token_transfer=replace(TOKENS, source_pool=bytes(32)).encode()),
        message(1, token_transfer=b""),
        message(1, destination=9),
    ):
        assert one.read([sent_log(raw)], []) == ()
    assert one.read([sent_log(message(1), address=HERE.router)], []) == ()
    assert one.waiting() == one.frames() == ()
    with pytest.raises(ValueError, match="no signer"):
        signer(keccak(b"stranger"))


def test_what_is_kept_is_bounded() -> None:
    one = signer(KEYS[0])
    for number in range(MAX_EARLY + 5):
        assert one.receive(frame_of(KEYS[1], keccak(message(number)))) is None
    assert sum(map(len, one._early.values())) == MAX_EARLY
    for number in range(MAX_WAITING + 3):
        one.read([sent_log(message(number))], [])
    held = [transfer.id for _, transfer in one.waiting()]
    assert held == [keccak(message(number)) for number in range(3, MAX_WAITING + 3)]
    assert one._early[address_of(KEYS[1])] == []
    for number in range(MAX_ARRIVED + 9):
        one.arrived(number.to_bytes(32, "big"))
    assert len(one._arrived) == MAX_ARRIVED


class World:
    """Both chains: logs of the origin's final blocks, and what the off-ramp says."""

    def __init__(self, logs: list[Log]) -> None:
        self.logs, self.arrived, self.number, self.down = logs, False, 3, False
        self.now = 0
        self.asked: list[int] = []

    async def head(self, level: Level = Level.UNSAFE) -> Header:
        if self.down:
            raise RemoteFault("endpoint", Reason.ENDPOINT_DOWN)
        ref = BlockRef(HERE.chain, BlockNumber(self.number), bytes(32))
        return Header(ref, b"", Timestamp(self.now), b"", b"", Wei(0), 0, 0)

    async def block(self, block_hash: bytes) -> Header | None:
        return await self.head() if block_hash == sent_log(b"").block.hash else None

    async def history(
        self, addresses: Sequence[bytes], first: int, last: BlockRef, topics: Sequence[bytes]
    ) -> list[Log]:
        self.asked.append(first)
        assert (addresses, topics) == ((HERE.on_ramp,), (MESSAGE_SENT,))
        return self.logs

    async def call(self, to: bytes, data: bytes, at: BlockRef) -> bytes:
        return told("uint8", 2 if self.arrived else 3)


async def test_a_courier_says_what_is_on_its_way_and_brings_it_in_its_turn() -> None:
    raw = message(0)
    name, home, away = keccak(raw), World([sent_log(raw)]), World([])
    said: list[bytes] = []
    brought: list[Send] = []
    heard: list[tuple[str, Crossing, int]] = []

    async def bring(one: Send) -> bool:
        brought.append(one)
        raise RemoteFault("endpoint", Reason.ENDPOINT_DOWN)

    chains: Any = {HERE.chain: home, THERE.chain: away}
    other = token(replace(COMMITTEE, signers=tuple(sorted(map(address_of, KEYS[1:]))), threshold=2))
    tokens = [token(first_block=2), token(first_block=1), other]
    courier = Courier(
        origins_of(tokens, KEYS[0]), chains, said.append, bring, lambda *one: heard.append(one),
        patience_s=0.0,
    )  # fmt: skip
    followed, _ = courier._followed  # the third token's committee is others'
    away.down = True
    await courier._follow(followed)
    assert (said, home.asked) == ([], [1]), "what cannot be asked is not said"
    away.down, home.number, home.now = False, 4, 100
    await courier._follow(followed)
    assert (home.asked, {frame[8:40] for frame in said}) == ([1, 4], {name})
    assert courier.take(frame_of(KEYS[1], name)) is None
    assert courier.take(frame_of(KEYS[1], name)) is Reason.DUPLICATE
    assert courier.take(frame_of(KEYS[1], name, selector=9)) is None, "another operator's"
    assert courier.take(b"") is Reason.MALFORMED
    await courier._deliver(followed)
    assert brought == []
    assert courier.take(frame_of(KEYS[2], name)) is None
    await courier._deliver(followed)
    await courier._deliver(followed)
    assert [one.to for one in brought] == [THERE.off_ramp] * 2, "a failed one is brought again"
    assert heard == []
    away.arrived, away.now = True, 170
    await courier._deliver(followed)
    await courier._deliver(followed)
    assert len(brought) == 2
    assert followed.origin.waiting() == ()
    assert heard == [("ccip", Crossing(HERE.chain, THERE.chain, LANE.asset), 70_000)], "once"
    await trio.lowlevel.checkpoint()
