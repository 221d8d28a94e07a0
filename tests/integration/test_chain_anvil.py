"""Our adapter against real chains."""

from pathlib import Path

import pytest
import trio

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.chain.port import Advance, Call, ChainEvent, DeepReorg, Finalized, Level, Retract
from keeper.units import ChainId
from tests.support.anvil import chain_of

pytestmark = pytest.mark.anvil


async def test_reads_agree_with_the_chain(anvil_binary: Path) -> None:
    async with chain_of(anvil_binary) as anvil:
        for url in (anvil.url, anvil.ws_url):
            chain = EvmChain(ChainId(31501), [url])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(chain.endpoints.run)
                with trio.fail_after(10):
                    head = await chain.head()
                    assert head.ref.number == 1
                    assert await chain.block(head.ref.hash) == head
                    assert await chain.block(bytes(32)) is None
                    proof = await chain.proof(bytes(20), [0, 1], head)
                    assert proof.slots == ((0, 0), (1, 0))
                    assert await chain.logs([bytes(20)], head.ref) == ()
                    ran = await chain.simulate(Call(bytes(20)))
                    assert (ran.ok, ran.gas) == (True, 21000)
                    assert (await chain.head(Level.FINAL)).ref.number == 0
                nursery.cancel_scope.cancel()
            await chain.aclose()


async def test_reorg_rollback_and_revert_are_seen(anvil_binary: Path) -> None:
    async with chain_of(anvil_binary, no_mining=True) as anvil:
        chain = EvmChain(ChainId(31501), [anvil.url], Depth(20), poll_s=0.02)
        events: list[ChainEvent] = []
        moved = trio.Event()

        async def emit(event: ChainEvent) -> None:
            nonlocal moved
            events.append(event)
            moved.set()
            moved = trio.Event()

        async def until(number: int) -> None:
            with trio.fail_after(10):
                want = (await chain.head()).ref
                while chain.tracker.head is None or chain.tracker.head.ref != want:
                    await moved.wait()
                assert want.number == number

        async with trio.open_nursery() as nursery:
            nursery.start_soon(chain.run, emit)
            await anvil.mine(9)
            await until(10)
            await anvil.mine(2)
            await until(12)
            await anvil.rpc.call("anvil_reorg", [4, []])
            await until(12)
            await anvil.rpc.call("anvil_rollback", [3])
            await until(9)
            snapshot = await anvil.rpc.call("evm_snapshot")
            await anvil.mine(3)
            await until(12)
            assert await anvil.rpc.call("evm_revert", [snapshot])
            await until(9)
            nursery.cancel_scope.cancel()
        _check_linear(events)
        assert [event.depth for event in events if isinstance(event, Retract)][:4] == [1, 2, 3, 4]
        assert not [event for event in events if isinstance(event, Finalized | DeepReorg)]


def _check_linear(events: list[ChainEvent]) -> None:
    chain: list[bytes] = []
    for event in events:
        if isinstance(event, Advance):
            assert not chain or event.header.parent == chain[-1]
            chain.append(event.ref.hash)
        elif isinstance(event, Retract):
            assert chain.pop() == event.ref.hash
