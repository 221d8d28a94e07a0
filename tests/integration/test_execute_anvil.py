"""The executor against real chains: one effect each, whatever happens between."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.devnet.chains import Anvil, mnemonic_key
from keeper.execute.intent import Intent, Lane, Mode, Status
from keeper.execute.ledger import Ledger
from keeper.execute.service import Executor
from keeper.store import Store
from keeper.units import BlockNumber, ChainId, Wei
from tests.support.anvil import chain_of

pytestmark = pytest.mark.anvil

ETH = 10**18
CHAIN = ChainId(31501)


def intent(number: int, lane: Lane = Lane.URGENT, **changes: object) -> Intent:
    fields: dict[str, object] = {
        "key": number.to_bytes(32, "big"),
        "chain": CHAIN,
        "lane": lane,
        "to": (0x1000 + number).to_bytes(20, "big"),
        "data": b"",
        "deadline": BlockNumber(10_000),
        "fee_cap": Wei(ETH),
        "value": 1,
        **changes,
    }
    return Intent(**fields)  # type: ignore[arg-type]  # fields by name


@asynccontextmanager
async def executor_of(anvil: Anvil, store: Store) -> AsyncIterator[Executor]:
    chain = EvmChain(CHAIN, [anvil.url], Depth(1))
    keys = {(CHAIN, lane): (lambda i=i: mnemonic_key(i)) for i, lane in enumerate(Lane)}
    executor = Executor(Ledger(store), {CHAIN: chain}, Mode.LIVE, keys, poll_s=0.02)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.run)
        yield executor
        nursery.cancel_scope.cancel()
    await chain.aclose()


async def test_fifty_concurrent_sends_take_fifty_nonces(anvil_binary: Path) -> None:
    store = Store(":memory:")
    async with chain_of(anvil_binary) as anvil, executor_of(anvil, store) as executor:
        outcomes = []

        async def send(number: int) -> None:
            outcomes.append(await executor.submit(intent(number), settled=False))

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(send, number)
        assert {outcome.status for outcome in outcomes} == {Status.SUCCEEDED}
        assert len({outcome.transaction for outcome in outcomes}) == 50
        tasks = [Ledger(store).task(number.to_bytes(32, "big")) for number in range(50)]
        assert sorted(task.nonce for task in tasks if task and task.nonce is not None) == list(
            range(50)
        )
        balances = await anvil.rpc.batch(
            [("eth_getBalance", [f"0x{0x1000 + n:040x}", "latest"]) for n in range(50)]
        )
        assert balances == ["0x1"] * 50
    store.close()
