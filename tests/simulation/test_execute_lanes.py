"""The executor on the simulated chain: stuck, dropped, replaced, cancelled, taken back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.lowlevel

from keeper.chain.finality import Depth
from keeper.chain.port import BlockRef, Call, Simulation
from keeper.chain.simulated import Frame, Reverted, SimulatedChain
from keeper.devnet.chains import mnemonic_key
from keeper.errors import LocalError, RemoteFault
from keeper.execute.fees import Offer
from keeper.execute.intent import Effect, Intent, Lane, Mode, State, Status
from keeper.execute.ledger import Ledger
from keeper.execute.service import Executor
from keeper.execute.signer import Envelope, Signer
from keeper.reasons import Reason
from keeper.store import Store
from keeper.units import BlockNumber, ChainId, Wei
from tests.support.chains import ECHO, ETH, echo

CHAIN = ChainId(7)
SIGNERS = {lane: Signer(mnemonic_key(index)) for index, lane in enumerate(Lane)}
FUSED = bytes.fromhex("fe" * 20)
"""A contract that works when simulated before block 6 and reverts from then on."""


def fused(frame: Frame) -> bytes:
    if frame.world.storage.get((FUSED, 1)):
        raise Reverted
    return b""


class Rig:
    """One executor over one simulated chain, driven block by block."""

    def __init__(self, store: Store, chain: SimulatedChain, executor: Executor) -> None:
        self.ledger, self.chain, self.executor = Ledger(store), chain, executor

    async def settle(self) -> None:
        """Let the lanes look twice at the present chain."""
        for _ in range(2):
            self.executor.poke(CHAIN)
            for lane in list(self.executor._lanes.values()):
                rounds = lane.rounds
                while lane.rounds < rounds + 1:
                    self.executor.poke(CHAIN)
                    await trio.lowlevel.checkpoint()

    async def block(self, count: int = 1) -> None:
        for _ in range(count):
            self.chain.mine()
            await self.settle()

    def state(self, intent: Intent) -> State | None:
        task = self.ledger.task(intent.key)
        return None if task is None else task.state


@asynccontextmanager
async def rig(mode: Mode = Mode.LIVE, store: Store | None = None) -> AsyncIterator[Rig]:
    own = store or Store(":memory:")
    chain = SimulatedChain(
        CHAIN,
        Depth(2),
        balances={signer.address: 100 * ETH for signer in SIGNERS.values()},
        contracts={ECHO: echo, FUSED: fused},
    )
    chain.mine(2)
    keys = {(CHAIN, lane): (lambda i=i: mnemonic_key(i)) for i, lane in enumerate(Lane)}
    executor = Executor(Ledger(own), {CHAIN: chain}, mode, keys, poll_s=60)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.run)
        with trio.fail_after(20):
            yield Rig(own, chain, executor)
        nursery.cancel_scope.cancel()
    if store is None:
        own.close()


def intent(number: int, lane: Lane = Lane.URGENT, **changes: object) -> Intent:
    base = Intent(
        number.to_bytes(32, "big"), CHAIN, lane, ECHO, number.to_bytes(32, "big"),
        BlockNumber(1_000), Wei(ETH),
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]  # fields by name


async def test_a_task_is_done_once_however_often_it_is_brought() -> None:
    async with rig() as at, trio.open_nursery() as nursery:
        outcomes = []

        async def send() -> None:
            outcomes.append(await at.executor.submit(intent(1)))

        for _ in range(5):
            nursery.start_soon(send)
        await at.settle()
        await at.block(4)
        while len(outcomes) < 5:
            await at.settle()
        assert {outcome.status for outcome in outcomes} == {Status.SUCCEEDED}
        assert await at.chain.nonce(SIGNERS[Lane.URGENT].address) == 1
        assert (await at.executor.submit(intent(1))).succeeded
        with pytest.raises(LocalError, match="another intent"):
            await at.executor.submit(intent(1, data=b"other"))
        assert at.executor._journal._news == {}, "who waited for it leaves nothing behind"


async def test_stuck_housekeeping_does_not_delay_an_urgent_one() -> None:
    async with rig() as at, trio.open_nursery() as nursery:
        stuck = [intent(n, Lane.HOUSEKEEPING, fee_cap=Wei(10**14)) for n in range(100)]
        for each in stuck:
            nursery.start_soon(at.executor.submit, each)
        while sum(at.state(each) is State.SENT for each in stuck) < 64:
            await at.settle()
        at.chain.base_fee = Wei(50 * 10**9)
        await at.block(3)
        before = (await at.chain.head()).ref.number
        urgent = intent(1_000)
        nursery.start_soon(at.executor.submit, urgent)
        while at.state(urgent) is not State.SENT:
            await at.settle()
        await at.block()
        receipt = await at.chain.receipt(at.ledger.task(urgent.key).attempts[-1].hash)  # type: ignore[union-attr]
        assert receipt is not None
        assert receipt.block.number == before + 1
        assert await at.chain.nonce(SIGNERS[Lane.HOUSEKEEPING].address) == 0
        nursery.cancel_scope.cancel()


async def test_a_reverted_receipt_is_no_success() -> None:
    async with rig() as at, trio.open_nursery() as nursery:
        wanted = intent(2, to=FUSED)
        nursery.start_soon(at.executor.submit, wanted)
        while at.state(wanted) is not State.SENT:
            await at.settle()
        at.chain.contracts[FUSED] = lambda frame: fused_now()
        await at.block(4)
        outcome = await at.executor.wait(wanted.key)
        assert (outcome.status, outcome.reason) == (Status.REVERTED, Reason.REVERTED)
        assert not outcome.succeeded
        assert outcome.fee > 0


def fused_now() -> bytes:
    raise Reverted


async def test_what_would_revert_never_takes_a_nonce() -> None:
    async with rig() as at:
        outcome = await at.executor.submit(intent(3, data=b""))
        assert (outcome.status, outcome.reason) == (Status.REFUSED, Reason.REVERTED)
        assert at.ledger.task(intent(3).key) is None
        stale = BlockRef(CHAIN, BlockNumber(1), bytes(32))
        with pytest.raises(RemoteFault) as caught:
            await at.executor.submit(intent(3), certified=stale)
        assert caught.value.reason is Reason.MISSING_BLOCK


async def test_it_is_simulated_again_right_before_signing() -> None:
    async with rig() as at, trio.open_nursery() as nursery:
        at.chain.base_fee = Wei(10**12)
        wanted = intent(4, to=FUSED, fee_cap=Wei(10**15))
        nursery.start_soon(at.executor.submit, wanted)
        while at.state(wanted) is not State.PLANNED:
            await at.settle()
        at.chain.contracts[FUSED] = lambda frame: fused_now()
        at.chain.base_fee = Wei(10**9)
        await at.block()
        outcome = await at.executor.wait(wanted.key)
        assert (outcome.status, outcome.reason) == (Status.DROPPED, Reason.REVERTED)
        assert at.ledger.next_nonce(CHAIN, SIGNERS[Lane.URGENT].address) == 0


async def test_no_estimate_asks_for_more_than_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rig() as at, trio.open_nursery() as nursery:

        async def endless(call: Call, ref: BlockRef | None = None) -> Simulation:
            return Simulation(True, b"", 10**15)

        monkeypatch.setattr(at.chain, "simulate", endless)
        wanted = intent(16)
        nursery.start_soon(at.executor.submit, wanted)
        while at.state(wanted) is not State.SENT:
            await at.settle()
        task = at.ledger.task(wanted.key)
        assert task is not None
        assert task.attempts[0].gas == (await at.chain.head()).gas_limit
        nursery.cancel_scope.cancel()


async def test_after_a_reorg_the_same_bytes_go_out_again() -> None:
    async with rig() as at, trio.open_nursery() as nursery:
        wanted = intent(5, Lane.SETTLEMENT)
        nursery.start_soon(at.executor.submit, wanted)
        while at.state(wanted) is not State.SENT:
            await at.settle()
        await at.block()
        assert at.state(wanted) is State.MINED
        at.chain.reorg(1)
        at.chain.forget()
        await at.settle()
        assert at.state(wanted) is State.SENT
        await at.block(4)
        outcome = await at.executor.wait(wanted.key)
        task = at.ledger.task(wanted.key)
        assert outcome.succeeded
        assert task is not None
        assert len(task.attempts) == 1
        assert await at.chain.nonce(SIGNERS[Lane.SETTLEMENT].address) == 1
        states = [event.state for event in at.ledger.story(wanted.key)]
        assert states == ["planned", "signed", "sent", "mined", "sent", "mined", "final"]


async def test_a_stuck_one_is_outbid_within_its_cap() -> None:
    async with rig() as at, trio.open_nursery() as nursery:
        wanted = intent(6)
        nursery.start_soon(at.executor.submit, wanted)
        while at.state(wanted) is not State.SENT:
            await at.settle()
        at.chain.base_fee = Wei(100 * 10**9)
        await at.block(2)
        assert (await at.executor.wait(wanted.key, settled=False)).succeeded
        assert at.state(wanted) is State.MINED
        await at.block(2)
        outcome = await at.executor.wait(wanted.key)
        task = at.ledger.task(wanted.key)
        assert outcome.succeeded
        assert task is not None
        assert len(task.attempts) >= 2
        for old, new in zip(task.attempts, task.attempts[1:], strict=False):
            assert new.offer.tip * 100 >= old.offer.tip * 113
            assert new.offer.max_fee * 100 >= old.offer.max_fee * 113
        assert all(a.gas * a.offer.max_fee <= wanted.fee_cap for a in task.attempts)
        assert await at.chain.nonce(SIGNERS[Lane.URGENT].address) == 1


async def test_past_its_deadline_it_is_cancelled() -> None:
    async with rig() as at, trio.open_nursery() as nursery:
        head = (await at.chain.head()).ref.number
        wanted = intent(7, deadline=BlockNumber(head + 3), fee_cap=Wei(3 * 10**14))
        nursery.start_soon(at.executor.submit, wanted)
        while at.state(wanted) is not State.SENT:
            await at.settle()
        at.chain.base_fee = Wei(50 * 10**9)
        await at.block(3)
        at.chain.base_fee = Wei(10**9)
        await at.block(4)
        outcome = await at.executor.wait(wanted.key)
        assert (outcome.status, outcome.reason) == (Status.SUPERSEDED, Reason.PAST_DEADLINE)
        assert (await at.chain.proof(ECHO, [0], await at.chain.head())).slots == ((0, 0),)
        following = intent(8)
        nursery.start_soon(at.executor.submit, following)
        while at.state(following) is not State.SENT:
            await at.settle()
        await at.block(3)
        assert (await at.executor.wait(following.key)).succeeded


async def test_a_planned_one_past_its_deadline_costs_nothing() -> None:
    async with rig() as at:
        head = (await at.chain.head()).ref.number
        outcome = await at.executor.submit(intent(9, deadline=BlockNumber(head)))
        assert (outcome.status, outcome.reason) == (Status.DROPPED, Reason.PAST_DEADLINE)
        dear = intent(10, deadline=BlockNumber(head), fee_cap=Wei(1))
        outcome = await at.executor.submit(dear)
        assert (outcome.status, outcome.reason) == (Status.DROPPED, Reason.OVER_CAP)


async def test_a_stranger_on_our_nonce_is_noticed() -> None:
    async with rig() as at, trio.open_nursery() as nursery:
        wanted = intent(11)
        nursery.start_soon(at.executor.submit, wanted)
        while at.state(wanted) is not State.SENT:
            await at.settle()
        at.chain.forget()
        thief = Envelope(CHAIN, 0, bytes(20), b"", 0, 21_000, Offer(Wei(2 * 10**9), Wei(9 * 10**9)))
        await at.chain.submit(SIGNERS[Lane.URGENT].sign(thief)[1])
        await at.block(4)
        outcome = await at.executor.wait(wanted.key)
        assert (outcome.status, outcome.reason) == (Status.SUPERSEDED, Reason.NONCE_TAKEN)


async def test_an_effect_that_is_there_is_not_repeated() -> None:
    async with rig() as at, trio.open_nursery() as nursery:
        at.chain.base_fee = Wei(10**12)
        wanted = intent(12, fee_cap=Wei(10**15), effect=Effect(ECHO, b"done", b"done"))
        nursery.start_soon(at.executor.submit, wanted)
        while at.state(wanted) is not State.SUPERSEDED:
            await at.settle()
        assert at.ledger.next_nonce(CHAIN, SIGNERS[Lane.URGENT].address) == 0


async def test_a_fault_of_the_chain_loses_nothing() -> None:
    async with rig() as at, trio.open_nursery() as nursery:
        wanted = intent(13)
        nursery.start_soon(at.executor.submit, wanted)
        while at.state(wanted) is not State.SENT:
            await at.settle()
        at.chain.broken = RemoteFault("endpoints", Reason.NO_QUORUM)
        await at.block(2)
        assert at.state(wanted) is State.SENT
        at.chain.broken = None
        await at.block(3)
        assert (await at.executor.wait(wanted.key)).succeeded


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.SHADOW, Mode.DRY])
async def test_no_signer_exists_in_any_other_mode(
    mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(self: Signer, key: bytes) -> None:
        raise AssertionError("a signer was made")

    monkeypatch.setattr(Signer, "__init__", forbidden)
    async with rig(mode) as at:
        outcome = await at.executor.submit(intent(14))
        assert outcome.reason is Reason.MODE_OFF
        assert not outcome.succeeded
        assert at.ledger.recent() == []
        assert await at.chain.nonce(SIGNERS[Lane.URGENT].address) == 0
        if mode is Mode.DRY:
            assert outcome.status is Status.REHEARSED
            assert (await at.executor.submit(intent(15, data=b""))).reason is Reason.REVERTED
