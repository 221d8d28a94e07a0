"""One keeper as a Hyperlane validator: what it signs, what it believes, what it keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trio
from coincurve import PrivateKey
from eth_abi.abi import encode

from keeper.chain.port import BlockRef, Header, Level, Log
from keeper.ecdsa import ORDER, sign, signer_of
from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.keys import address_of
from keeper.plan import Step, StepKind
from keeper.reasons import Reason
from keeper.route.bridges.hyperlane import DISPATCH, INSERTED, End, Hyperlane, word
from keeper.route.bridges.message import HyperlaneMessage
from keeper.route.bridges.multisig import MAX_EARLY, MAX_WAITING, Tree, Validator
from keeper.route.bridges.origins import origins_of
from keeper.route.bridges.port import Crossing, Send, Stage, Terms, Timing, lane_of, step_sends
from keeper.route.bridges.service import Courier
from keeper.units import BlockNumber, ChainId, Timestamp, Wei, symbol

HOME, AWAY = ChainId(1), ChainId(2)
USDC = symbol("USDC")
KEYS = tuple(keccak(bytes([place])) for place in range(4))
VALIDATORS = tuple(map(address_of, KEYS))
HOOK, BOX, ME = b"\x0a" * 20, b"\x0b" * 20, b"\x0c" * 20
ENDS = (
    End(HOME, 1, b"\x01" * 20, BOX, HOOK, b"\x0d" * 20, b"\x0e" * 20),
    End(AWAY, 2, b"\x02" * 20, b"\x1b" * 20, b"\x1a" * 20, b"\x1d" * 20),
)


def route(threshold: int = 3) -> Hyperlane:
    return Hyperlane(
        USDC, ENDS, VALIDATORS, threshold, verifier=keccak(b"us"), timing=Timing(1000, 9000)
    )


def message(nonce: int, amount: int = 7, recipient: bytes = ME) -> HyperlaneMessage:
    body = word(recipient) + amount.to_bytes(32, "big")
    return HyperlaneMessage(nonce, 1, word(ENDS[0].router), 2, word(ENDS[1].router), body)


def validator(place: int) -> Validator:
    return Validator(1, HOOK, VALIDATORS, 3, KEYS[place], lambda raw: route().read(raw) is not None)


def fed(place: int, count: int = 1) -> tuple[Validator, list[bytes]]:
    """Return a validator after so many messages, and its frames."""
    one, frames = validator(place), []
    for nonce in range(count):
        one.dispatched(message(nonce).encode())
        frame = one.inserted(message(nonce).id, nonce)
        assert frame is not None
        frames.append(frame)
    return one, frames


def test_the_threshold_makes_it_ready_in_the_order_of_the_multisig() -> None:
    mine, _ = fed(3)
    assert mine.ready() == ()
    assert mine.receive(fed(1)[1][0]) is None
    assert mine.ready() == ()
    assert mine.receive(fed(0)[1][0]) is None
    (bring,) = mine.ready()
    assert (bring.id, bring.message, bring.turn) == (message(0).id, message(0).encode(), 3)
    signatures = [bring.metadata[68 + 65 * at :][:65] for at in range(3)]
    assert len(bring.metadata) == 68 + 3 * 65
    held = [fed(place)[1][0][-65:] for place in (0, 1, 3)]
    assert signatures == held
    mine.delivered(bring.id)
    assert mine.ready() == mine.frames() == ()


def test_frames_that_come_before_the_block_is_final_count_later() -> None:
    mine = validator(0)
    for place in (1, 2):
        assert mine.receive(fed(place)[1][0]) is None
    assert mine.receive(fed(2)[1][0]) is Reason.DUPLICATE
    mine.dispatched(message(0).encode())
    assert mine.ready() == ()
    assert mine.inserted(message(0).id, 0) is not None
    assert len(mine.ready()) == 1


def test_frames_that_are_not_believed() -> None:
    mine, (own,) = fed(0)
    good = fed(1)[1][0]
    elsewhere = sign(keccak(b"stranger"), keccak(b"anything"))
    assert mine.receive(good[:-1]) is Reason.MALFORMED
    assert mine.receive(b"\0\0\0\x09" + good[4:]) is Reason.WRONG_CONFIG
    assert mine.receive(good[:-65] + elsewhere) is Reason.BAD_SIGNATURE
    assert mine.receive(good[:-1] + b"\x05") is Reason.BAD_SIGNATURE
    assert mine.receive(own) is Reason.DUPLICATE
    # a validator that signs another root for the same leaf has signed a false checkpoint
    liar = validator(1)
    liar.tree.insert(keccak(b"made up"))
    liar.dispatched(message(0).encode())
    other = liar.inserted(message(0).id, 1)
    assert other is not None
    assert mine.receive(other) is Reason.OTHER_ROOT
    assert mine.receive(good) is None
    assert mine.ready() == ()
    mine.delivered(message(0).id)
    assert mine.receive(fed(2)[1][0]) is Reason.STALE


def test_an_early_frame_over_another_root_never_counts() -> None:
    mine, liar = validator(0), validator(1)
    liar.tree.insert(keccak(b"made up"))
    liar.dispatched(message(0).encode())
    frame = liar.inserted(message(0).id, 1)
    assert frame is not None
    assert mine.receive(frame) is None  # not known to be false yet
    assert mine.receive(fed(2)[1][0]) is None
    mine.dispatched(message(0).encode())
    assert mine.inserted(message(0).id, 0) is not None
    assert mine.ready() == ()
    assert mine.receive(fed(3)[1][0]) is None
    assert len(mine.ready()) == 1


def test_signatures_have_one_form() -> None:
    digest = keccak(b"digest")
    good = sign(KEYS[0], digest)
    assert signer_of(digest, good) == VALIDATORS[0]
    s = ORDER - int.from_bytes(good[32:64], "big")
    twin = good[:32] + s.to_bytes(32, "big") + bytes([55 - good[64]])
    assert signer_of(digest, twin) is None
    for bad in (b"", good[:64], bytes(64) + b"\x1b", good[:64] + b"\0"):
        assert signer_of(digest, bad) is None
    public = PrivateKey(KEYS[0]).public_key.format(compressed=False)
    assert keccak(public[1:])[12:] == VALIDATORS[0]


def test_only_served_messages_are_signed_each_once_and_every_leaf_counts() -> None:
    mine = validator(0)
    foreign = replace(message(0), recipient=word(ME))
    odd = replace(message(0), body=b"short")
    for raw in (foreign.encode(), odd.encode(), b"\x03", b""):
        mine.dispatched(raw)
    assert mine.inserted(foreign.id, 0) is None
    assert mine.inserted(odd.id, 1) is None
    with pytest.raises(ValueError, match="leaf 3 comes when 2"):
        mine.inserted(message(1).id, 3)
    mine.dispatched(message(1).encode())
    assert mine.inserted(message(1).id, 2) is not None
    assert mine.inserted(message(1).id, 3) is None, "a leaf put in again is not signed again"
    tree = Tree()
    for leaf in (foreign.id, odd.id, message(1).id, message(1).id):
        tree.insert(leaf)
    assert mine.tree.root == tree.root


def test_what_is_kept_is_bounded() -> None:
    mine, _ = fed(0, MAX_WAITING + 20)
    assert len(mine.messages()) == MAX_WAITING
    assert message(0).encode() not in mine.messages()
    hoarder = validator(1)
    chatty = validator(2)
    for nonce in range(MAX_EARLY + 20):
        chatty.dispatched(message(nonce).encode())
        frame = chatty.inserted(message(nonce).id, nonce)
        assert frame is not None
        assert hoarder.receive(frame) is None
    assert len(hoarder._early[VALIDATORS[2]]) == MAX_EARLY


# --- the port


def step(**changes: Any) -> Step:
    args = {"amount": 100, "asset": USDC, "destination": AWAY, "least_out": 100, **changes}
    given = tuple((name, value) for name, value in args.items() if value is not None)
    return Step("move", HOME, StepKind.BRIDGE, ENDS[0].router, given)


def test_a_plan_step_becomes_an_approval_and_a_transfer() -> None:
    bridge = route()
    allow, transfer = step_sends([bridge], step(), ME, Terms(value=5), 5)
    assert (allow.to, allow.value) == (ENDS[0].token, 0)
    assert (transfer.to, transfer.value) == (ENDS[0].router, 5)
    assert transfer.data[36:68] == word(ME)
    (other,) = step_sends([bridge], step(recipient=b"\x07" * 20), ME, Terms(), 0)[1:]
    assert other.data[36:68] == word(b"\x07" * 20)


@pytest.mark.parametrize(
    ("given", "terms", "why"),
    [
        (step(amount=None), Terms(), "does not say"),
        (step(recipient=b"\x07"), Terms(), "recipient"),
        (step(destination=9), Terms(), "no bridge"),
        (replace(step(), venue=b"\x99" * 20), Terms(), "no bridge"),
        (replace(step(), kind=StepKind.SWAP), Terms(), "does not say"),
        (step(), Terms(fault="stopped"), "must not be used: stopped"),
        (step(), Terms(capacity=99), "at most 99"),
        (step(), Terms(value=10), "asks 10 wei, above 9"),
        (step(), Terms(fee_ppm=1), "brings 99, and 100"),
        (step(least_out=0), Terms(fee_fixed=100), "brings 0"),
    ],
)
def test_steps_that_no_bridge_takes(given: Step, terms: Terms, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        step_sends([route()], given, ME, terms, 9)


def test_a_lane_carries_the_terms() -> None:
    crossing = Crossing(HOME, AWAY, USDC)
    lane = lane_of(route(), crossing, Terms(3, 40, 9, 1000), coin_cost=2)
    assert (lane.fee_fixed, lane.fee_ppm, lane.capacity, lane.p95_ms) == (5, 40, 1000, 9000)
    assert not lane.cursed
    assert lane_of(route(), crossing, Terms(fault="x")).cursed


# --- the courier, on a chain that lies


@dataclass
class Liar:
    """A chain port that shows the logs of one block, all of them or not."""

    logs: list[Log]
    root: bytes
    reads: int = 0
    now: int = 0
    done: bytes = bytes(32)

    async def head(self, level: Level = Level.UNSAFE) -> Header:
        ref = BlockRef(HOME, BlockNumber(5), b"\x05" * 32)
        return Header(ref, b"", Timestamp(self.now), b"", b"", Wei(0), 0, 0)

    async def block(self, block_hash: bytes) -> Header | None:
        return await self.head() if block_hash == b"\x03" * 32 else None

    async def history(self, *_: object) -> Sequence[Log]:
        self.reads += 1
        return self.logs

    async def call(self, to: bytes, data: bytes, at: BlockRef) -> bytes:
        return self.root if to == HOOK else self.done


def logs_of(count: int) -> list[Log]:
    ref = BlockRef(HOME, BlockNumber(3), b"\x03" * 32)
    found = []
    for nonce in range(count):
        raw = encode(["bytes"], [message(nonce).encode()])
        leaf = encode(["bytes32", "uint32"], [message(nonce).id, nonce])
        found.append(Log(ref, 2 * nonce, b"t", BOX, (DISPATCH,), raw))
        found.append(Log(ref, 2 * nonce + 1, b"t", HOOK, (INSERTED,), leaf))
    return found


async def test_nothing_is_said_on_leaves_that_do_not_give_the_hooks_root() -> None:
    tree = Tree()
    for nonce in range(3):
        tree.insert(message(nonce).id)
    liar = Liar(logs_of(2), tree.root)
    said: list[bytes] = []

    async def bring(_: Send) -> bool:
        raise AssertionError("nothing is ready")

    chains: Any = {HOME: liar, AWAY: Liar([], Tree().root)}
    courier = Courier(origins_of([route()], KEYS[0]), chains, said.append, bring)
    (followed, _) = courier._followed
    for logs in (logs_of(2), logs_of(3)[2:], logs_of(3)[:-1], [*logs_of(3), *logs_of(1)]):
        liar.logs = logs
        with pytest.raises(RemoteFault, match="endpoint_lied"):
            await courier._follow(followed)
        assert said == []
        assert followed.next == 0
    liar.logs = logs_of(3)
    await courier._follow(followed)
    assert [frame[8:40] for frame in said] == [message(nonce).id for nonce in range(3)]
    await courier._follow(followed)
    assert liar.reads == 5, "what was read is not read again"
    assert courier.take(b"") is Reason.MALFORMED
    assert courier.take(b"\0\0\0\x09" + said[0][4:]) is None
    assert courier.take(said[0]) is Reason.DUPLICATE
    await trio.lowlevel.checkpoint()


async def test_how_long_others_messages_take_is_heard() -> None:
    tree = Tree()
    for nonce in range(3):
        tree.insert(message(nonce).id)
    home, away = Liar(logs_of(3), tree.root, now=100), Liar([], Tree().root, now=130)
    heard: list[tuple[str, Crossing, int]] = []

    async def bring(_: Send) -> bool:
        raise AssertionError("nothing is ready")

    chains: Any = {HOME: home, AWAY: away}
    origins = origins_of([route()], KEYS[0])
    courier = Courier(origins, chains, lambda _: None, bring, lambda *one: heard.append(one))
    (followed, _) = courier._followed
    await courier._follow(followed)
    assert (heard, len(followed.sent_at)) == ([], 3)
    away.done = (1).to_bytes(32, "big")
    await courier._left(followed)
    assert heard == [("hyperlane", Crossing(HOME, AWAY, USDC), 30_000)] * 3
    assert followed.sent_at == {}
    await courier._left(followed)
    assert len(heard) == 3, "each is heard once"


async def test_one_dead_destination_does_not_stop_the_others() -> None:
    third = ChainId(3)
    end = End(third, 3, b"\x03" * 20, b"\x2b" * 20, b"\x2a" * 20, b"\x2d" * 20)
    bridge = Hyperlane(
        USDC, (*ENDS, end), VALIDATORS, 1, verifier=keccak(b"us"), timing=Timing(1000, 9000)
    )
    away = message(0)
    further = replace(message(1), destination=3, recipient=word(end.router))
    ref = BlockRef(HOME, BlockNumber(3), b"\x03" * 32)
    tree, logs = Tree(), []
    for index, one in enumerate((away, further)):
        tree.insert(one.id)
        leaf = encode(["bytes32", "uint32"], [one.id, index])
        logs.append(Log(ref, 2 * index, b"t", BOX, (DISPATCH,), encode(["bytes"], [one.encode()])))
        logs.append(Log(ref, 2 * index + 1, b"t", HOOK, (INSERTED,), leaf))

    class Dead(Liar):
        async def head(self, level: Level = Level.UNSAFE) -> Header:
            raise RemoteFault("endpoint", Reason.ENDPOINT_DOWN)

    said: list[bytes] = []
    brought: list[Send] = []

    async def bring(one: Send) -> bool:
        brought.append(one)
        raise RemoteFault("endpoint", Reason.ENDPOINT_DOWN)

    chains: Any = {
        HOME: Liar(logs, tree.root),
        AWAY: Dead([], b""),
        third: Liar([], Tree().root),
    }
    courier = Courier(origins_of([bridge], KEYS[0]), chains, said.append, bring, patience_s=0.0)
    followed = courier._followed[0]
    await courier._follow(followed)
    assert [frame[8:40] for frame in said] == [further.id]
    await courier._deliver(followed)
    assert [one.chain for one in brought] == [third]
    assert {frame[8:40] for frame in said} == {away.id, further.id}, "said again, in case"
    await courier._deliver(followed)
    assert len(brought) == 2, "without patience it tries again at once"


def test_stages_and_answers_that_are_none() -> None:
    bridge = route()
    crossing = Crossing(HOME, AWAY, USDC)
    transfer = bridge.read(message(1).encode())
    assert transfer is not None
    assert bridge.stage(transfer, [b""]) is bridge.stage(transfer, []) is Stage.SENT
    assert bridge.stage(transfer, [(1).to_bytes(32, "big")]) is Stage.ARRIVED
    assert transfer.crossing == crossing
    assert bridge.read(replace(message(1), origin=2, destination=1).encode()) is None
    assert bridge.read(replace(message(1), destination=1).encode()) is None
    assert bridge.read(replace(message(1), destination=9).encode()) is None
    long = replace(message(1), body=b"\x01" + message(1).body[1:])
    assert bridge.read(long.encode()) is None
