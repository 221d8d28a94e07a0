"""Endpoints that die, stall, dawdle and lie: three anvils with byte-identical blocks."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.chain.port import BlockRef, Call, Header, Stalled
from keeper.devnet.chains import Anvil
from keeper.errors import RemoteFault
from keeper.reasons import Reason
from tests.support.anvil import chain_of, frozen
from tests.support.chains import CHAIN, Watcher

pytestmark = pytest.mark.anvil

TELLER = bytes.fromhex("ba" * 20)
"""A contract that returns the balance of the address it is called with."""
TELLER_CODE = "0x6000353160005260206000f3"
RICH = bytes.fromhex("11" * 20)
GENESIS = 1_800_000_000


@asynccontextmanager
async def twins(binary: Path, count: int) -> AsyncIterator[list[Anvil]]:
    async with AsyncExitStack() as stack:
        anvils = [
            await stack.enter_async_context(
                chain_of(binary, CHAIN, no_mining=True, timestamp=GENESIS)
            )
            for _ in range(count)
        ]
        for anvil in anvils:
            await anvil.rpc.call("anvil_setCode", ["0x" + TELLER.hex(), TELLER_CODE])
            await anvil.rpc.call("anvil_setBalance", ["0x" + RICH.hex(), hex(500)])
        await mine(anvils, 2)
        yield anvils


async def mine(anvils: list[Anvil], number: int) -> None:
    for anvil in anvils:
        await anvil.rpc.call("evm_setNextBlockTimestamp", [hex(GENESIS + number)])
        await anvil.mine()


@asynccontextmanager
async def chain_over(
    anvils: list[Anvil], quorum: int | None = None, attempt_s: float = 2.0
) -> AsyncIterator[EvmChain]:
    chain = EvmChain(
        CHAIN,
        [anvil.url for anvil in anvils],
        Depth(1),
        quorum=quorum,
        poll_s=0.02,
        stall_s=0.3,
        attempt_s=attempt_s,
    )
    try:
        with trio.fail_after(60):
            yield chain
    finally:
        await chain.aclose()


async def balance(chain: EvmChain, at: BlockRef) -> int:
    return int.from_bytes(await chain.call(TELLER, RICH.rjust(32, b"\0"), at), "big")


async def lie(anvil: Anvil) -> None:
    """Change a balance without a block: same header, other state."""
    await anvil.rpc.call("anvil_setBalance", ["0x" + RICH.hex(), hex(10**30)])


async def test_two_of_three_outvote_a_liar(anvil_binary: Path) -> None:
    async with twins(anvil_binary, 3) as anvils, chain_over(anvils, quorum=2) as chain:
        head = await chain.head()
        for liar in range(3):
            await lie(anvils[liar])
            answers = {await balance(chain, head.ref) for _ in range(5)}
            assert answers == {500}
            blamed = [index for index, each in enumerate(chain.endpoints.health) if each.lies]
            assert set(blamed) <= {liar}
            for each in chain.endpoints.health:
                each.lies = 0
            await anvils[liar].rpc.call("anvil_setBalance", ["0x" + RICH.hex(), hex(500)])


async def test_a_proof_needs_no_vote(anvil_binary: Path) -> None:
    async with twins(anvil_binary, 2) as anvils, chain_over(anvils, quorum=1) as chain:
        head = await chain.head()
        await lie(anvils[0])
        assert (await chain.proof(RICH, [], head)).balance == 500
        await lie(anvils[1])
        with pytest.raises(RemoteFault) as caught:
            await chain.proof(RICH, [], head)
        assert caught.value.reason is Reason.BAD_PROOF


async def test_one_against_one_is_refused(anvil_binary: Path) -> None:
    async with twins(anvil_binary, 2) as anvils, chain_over(anvils) as chain:
        assert chain.endpoints.quorum == 2
        head = await chain.head()
        assert await balance(chain, head.ref) == 500
        await lie(anvils[1])
        with pytest.raises(RemoteFault) as caught:
            await balance(chain, head.ref)
        assert caught.value.reason is Reason.NO_QUORUM
        assert "need 2" in str(caught.value)
        await chain.simulate(Call(RICH), head.ref)


async def until_number(chain: EvmChain, number: int) -> Header:
    """Return the head once it is there: an endpoint that answers late has no say that time."""
    while (head := await chain.head()).ref.number != number:
        await trio.lowlevel.checkpoint()
    return head


async def test_heads_may_differ_but_not_the_agreed_block(anvil_binary: Path) -> None:
    async with twins(anvil_binary, 3) as anvils, chain_over(anvils, quorum=2) as chain:
        await mine(anvils[:1], 3)
        assert (await chain.head()).ref.number == 2
        await mine(anvils[1:2], 3)
        await until_number(chain, 3)
        await anvils[2].rpc.call("evm_setNextBlockTimestamp", [hex(GENESIS + 999)])
        await anvils[2].mine()
        head = await until_number(chain, 3)
        assert head.timestamp == GENESIS + 3


async def test_death_and_stall_of_an_endpoint(anvil_binary: Path) -> None:
    async with (
        twins(anvil_binary, 3) as anvils,
        chain_over(anvils, quorum=2) as chain,
        trio.open_nursery() as nursery,
    ):
        watcher = Watcher()
        nursery.start_soon(chain.run, watcher.emit)
        await watcher.until_head(chain)
        anvils[0].process.kill()
        await anvils[0].process.wait()
        head = await chain.head()
        assert await balance(chain, head.ref) == 500
        assert await chain.block(head.ref.hash) == head
        await mine(anvils[1:], 3)
        await watcher.until_head(chain)
        with frozen(anvils[1]):
            with pytest.raises(RemoteFault) as caught:
                await chain.head()
            assert caught.value.reason is Reason.NO_QUORUM
            event = await watcher.until(Stalled)
            assert isinstance(event, Stalled)
        for each in chain.endpoints.health:
            each.open_until = 0.0
        await mine(anvils[1:], 4)
        await watcher.until_head(chain)
        nursery.cancel_scope.cancel()


async def test_a_slow_endpoint_is_hedged(anvil_binary: Path) -> None:
    async with (
        twins(anvil_binary, 2) as anvils,
        chain_over(anvils, quorum=1, attempt_s=600) as chain,
    ):
        head = await chain.head()
        first = chain.endpoints.ranked()[0]
        slow = next(a for a in anvils if a.url == first.rpc.name)
        with frozen(slow):
            assert await chain.block(head.ref.hash) == head, "long before the slow one fails"
