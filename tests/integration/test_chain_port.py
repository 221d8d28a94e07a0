"""Both implementations of the chain port pass the same tests."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import cast

import pytest
import trio

from keeper.chain.port import Advance, Call, DeepReorg, Finalized, Level, Retract
from keeper.devnet.chains import mnemonic_key
from keeper.errors import RemoteFault
from keeper.execute.fees import Offer
from keeper.execute.signer import Envelope, Signer
from keeper.reasons import Reason
from keeper.units import Wei
from tests.support.chains import CHAIN, ECHO, Knobs, Watcher, evm_knobs, simulated_knobs

GWEI = 10**9


Open = Callable[..., AbstractAsyncContextManager[Knobs]]


@pytest.fixture(
    params=[
        "simulated",
        pytest.param("evm", marks=pytest.mark.anvil),
        pytest.param("evm, proven logs", marks=pytest.mark.anvil),
    ]
)
def knobs(request: pytest.FixtureRequest) -> Open:
    if request.param == "simulated":
        return cast(Open, simulated_knobs)
    binary = request.getfixturevalue("anvil_binary")
    return cast(Open, partial(evm_knobs, binary, prove_logs=request.param != "evm"))


def signed(nonce: int, data: bytes, *, price: int = 10 * GWEI, to: bytes = ECHO) -> bytes:
    offer = Offer(Wei(price // 5), Wei(price))
    envelope = Envelope(CHAIN, nonce, to, data, 0, 100_000, offer)
    return Signer(mnemonic_key(0)).sign(envelope)[1]


WORD = bytes(31) + b"\x2a"


async def test_a_transaction_is_seen_at_its_block(knobs: Open) -> None:
    async with knobs() as at:
        chain = at.chain
        with trio.fail_after(10):
            before = await chain.head()
            transaction = await chain.submit(signed(0, WORD))
            assert await chain.submit(signed(0, WORD)) == transaction, "twice is harmless"
            assert await chain.known([transaction, bytes(32)]) == (True, False)
            assert await chain.receipt(transaction) is None
            await at.mine()
            receipt = await chain.receipt(transaction)
            assert receipt is not None
            assert receipt.succeeded
            assert receipt.fee > 0
            head = await chain.head()
            assert receipt.block == head.ref
            (log,) = await chain.logs([ECHO], head.ref)
            assert (log.data, log.topics, log.transaction) == (WORD, (WORD,), transaction)
            assert await chain.logs([ECHO], head.ref, [bytes(32)]) == ()
            assert await chain.logs([ECHO], head.ref, [WORD]) == (log,)
            assert await chain.logs([ECHO], before.ref) == ()
            assert await chain.history([ECHO], before.ref.number, head.ref) == (log,)
            sender = Signer(mnemonic_key(0)).address
            assert await chain.nonce(sender) == 1
            assert await chain.nonce(sender, before.ref) == 0
            assert (await chain.proof(ECHO, [0, 1], head)).slots == ((0, 42), (1, 0))
            assert (await chain.proof(ECHO, [0], before)).slots == ((0, 0),)
            assert (await chain.head(Level.FINAL)).ref.number == head.ref.number - 2


async def test_calls_and_reverts_are_values(knobs: Open) -> None:
    async with knobs() as at:
        chain = at.chain
        with trio.fail_after(10):
            head = (await chain.head()).ref
            good, bad = await chain.calls([Call(ECHO, WORD), Call(ECHO)], head)
            assert (good.ok, good.output) == (True, WORD)
            assert not bad.ok
            assert (await chain.simulate(Call(ECHO, WORD))).gas > 21_000
            assert not (await chain.simulate(Call(ECHO))).ok
            with pytest.raises(RemoteFault) as caught:
                await chain.call(ECHO, b"", head)
            assert caught.value.reason is Reason.REVERTED
            transaction = await chain.submit(signed(0, b""))
            await at.mine()
            receipt = await chain.receipt(transaction)
            assert receipt is not None
            assert not receipt.succeeded


async def test_nodes_refuse_what_cannot_be_mined(knobs: Open) -> None:
    async with knobs() as at:
        chain = at.chain
        with trio.fail_after(10):
            await chain.submit(signed(0, WORD))
            for raw in (signed(0, b"x", price=10 * GWEI), b"\x02nonsense"):
                with pytest.raises(RemoteFault) as caught:
                    await chain.submit(raw)
                assert caught.value.reason is Reason.TX_REFUSED
            replacement = await chain.submit(signed(0, b"y", price=12 * GWEI))
            await at.mine()
            assert await chain.receipt(replacement) is not None
            with pytest.raises(RemoteFault) as caught:
                await chain.submit(signed(0, b"z", price=20 * GWEI))
            assert caught.value.reason is Reason.TX_REFUSED


async def test_a_retracted_block_answers_nothing(knobs: Open) -> None:
    async with knobs() as at:
        chain = at.chain
        with trio.fail_after(10):
            transaction = await chain.submit(signed(0, WORD))
            await at.mine()
            gone = await chain.head()
            await at.reorg(1)
            assert await chain.receipt(transaction) is None
            assert (await chain.head()).ref.hash != gone.ref.hash
            for read in (
                lambda: chain.logs([ECHO], gone.ref),
                lambda: chain.calls([Call(ECHO, WORD)], gone.ref),
                lambda: chain.nonce(ECHO, gone.ref),
                lambda: chain.history([ECHO], gone.ref.number, gone.ref),
            ):
                with pytest.raises(RemoteFault) as caught:
                    await read()
                assert caught.value.reason is Reason.MISSING_BLOCK


async def test_events_tell_one_linear_story(knobs: Open) -> None:
    async with knobs(depth=6) as at, trio.open_nursery() as nursery:
        watcher = Watcher()
        with trio.fail_after(20):
            await at.mine(6)
            nursery.start_soon(at.chain.run, watcher.emit)
            await watcher.until_head(at.chain)
            assert isinstance(watcher.events[0], Advance)
            await at.mine(3)
            await watcher.until_head(at.chain)
            await at.reorg(4)
            await watcher.until_head(at.chain)
            await at.rollback(2)
            await watcher.until_head(at.chain)
            await at.mine(1)
            await watcher.until_head(at.chain)
        depths = [event.depth for event in watcher.events if isinstance(event, Retract)]
        assert depths == [1, 2, 3, 4, 1, 2]
        finals = [event.ref.number for event in watcher.events if isinstance(event, Finalized)]
        assert finals == sorted(finals)
        assert finals[0] == 2
        assert not any(isinstance(event, DeepReorg) for event in watcher.events)
        nursery.cancel_scope.cancel()


async def test_breaking_finality_is_a_deep_reorg(knobs: Open) -> None:
    async with knobs(depth=2) as at, trio.open_nursery() as nursery:
        watcher = Watcher()
        with trio.fail_after(20):
            await at.mine(8)
            nursery.start_soon(at.chain.run, watcher.emit)
            await watcher.until_head(at.chain)
            await watcher.until(Finalized)
            await at.mine(3)
            await watcher.until_head(at.chain)
            await at.reorg(3)
            event = await watcher.until(DeepReorg)
            assert isinstance(event, DeepReorg)
            await watcher.until_head(at.chain)
        nursery.cancel_scope.cancel()


async def test_a_reorg_beyond_the_window_ends_the_run(knobs: Open) -> None:
    async with knobs(depth=3, window=4) as at, trio.open_nursery() as nursery:
        watcher = Watcher()
        ended = trio.Event()

        async def run() -> None:
            await at.chain.run(watcher.emit)
            ended.set()

        with trio.fail_after(20):
            await at.mine(12)
            nursery.start_soon(run)
            await watcher.until_head(at.chain)
            await at.reorg(8)
            await ended.wait()
        last = watcher.events[-1]
        assert isinstance(last, DeepReorg)
        assert not last.tracked
