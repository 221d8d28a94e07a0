"""Our adapter against real chains."""

from pathlib import Path

import pytest
import trio

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.chain.port import Advance, Call, Level, Retract
from keeper.units import ChainId
from tests.support.anvil import chain_of
from tests.support.chains import Watcher

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


async def test_evm_revert_notifies_nobody_and_is_seen(anvil_binary: Path) -> None:
    async with chain_of(anvil_binary, no_mining=True) as anvil, trio.open_nursery() as nursery:
        chain = EvmChain(ChainId(31501), [anvil.url], Depth(20), poll_s=0.02)
        watcher = Watcher()
        with trio.fail_after(10):
            nursery.start_soon(chain.run, watcher.emit)
            await anvil.mine(9)
            await watcher.until_head(chain)
            snapshot = await anvil.rpc.call("evm_snapshot")
            await anvil.mine(3)
            await watcher.until_head(chain)
            assert await anvil.rpc.call("evm_revert", [snapshot])
            await watcher.until_head(chain)
        depths = [event.depth for event in watcher.events if isinstance(event, Retract)]
        assert depths == [1, 2, 3]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("kind", ["websocket", "ipc"])
async def test_a_subscription_wakes_the_tracker(
    anvil_binary: Path, tmp_path: Path, kind: str
) -> None:
    socket = f"{tmp_path}/anvil.ipc"
    async with chain_of(anvil_binary, no_mining=True, extra=("--ipc", socket)) as anvil:
        url = anvil.ws_url if kind == "websocket" else socket
        chain = EvmChain(ChainId(31501), [url], Depth(3), poll_s=60)
        watcher = Watcher()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chain.run, watcher.emit)
            with trio.fail_after(10):
                await watcher.until(Advance)
                while watcher.story[-1] != (await chain.head()).ref.hash or len(watcher.story) < 4:
                    await anvil.mine()
                    await watcher.until_head(chain)
            nursery.cancel_scope.cancel()
