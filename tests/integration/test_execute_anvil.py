"""The executor against real chains: one effect each, whatever happens between."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.lowlevel
import trio.testing

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.devnet.chains import Anvil, mnemonic_key
from keeper.execute.intent import Intent, Lane, Mode, State, Status
from keeper.execute.ledger import Ledger
from keeper.execute.service import Executor
from keeper.execute.worker import LaneWorker
from keeper.store import Store
from keeper.units import BlockNumber, ChainId, Wei
from tests.support.anvil import chain_of, frozen

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
async def executor_of(
    anvil: Anvil, store: Store, depth: int = 1, attempt_s: float = 2.0
) -> AsyncIterator[Executor]:
    chain = EvmChain(CHAIN, [anvil.url], Depth(depth), attempt_s=attempt_s)
    keys = {(CHAIN, lane): (lambda i=i: mnemonic_key(i)) for i, lane in enumerate(Lane)}
    executor = Executor(Ledger(store), {CHAIN: chain}, Mode.LIVE, keys, poll_s=0.02)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(executor.run)
            yield executor
            nursery.cancel_scope.cancel()
    finally:
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


async def until_all(executor: Executor, ledger: Ledger, keys: list[bytes], state: State) -> None:
    while True:
        tasks = [ledger.task(key) for key in keys]
        if all(task is not None and task.state is state for task in tasks):
            return
        executor.poke(CHAIN)
        await trio.sleep(0.005)


@pytest.mark.parametrize("how", ["reorg", "rollback", "revert"])
async def test_after_any_kind_of_reorg_each_effect_happens_once(
    anvil_binary: Path, how: str
) -> None:
    store, count = Store(":memory:"), 8
    outcomes = []
    async with (
        chain_of(anvil_binary, no_mining=True) as anvil,
        executor_of(anvil, store, depth=5) as executor,
        trio.open_nursery() as nursery,
    ):

        async def send(number: int) -> None:
            outcomes.append(await executor.submit(intent(number)))

        async def mine() -> None:
            while True:
                await anvil.mine()
                executor.poke(CHAIN)
                await trio.sleep(0.03)

        ledger = Ledger(store)
        keys = [intent(number).key for number in range(count)]
        with trio.fail_after(30):
            await anvil.mine(4)
            snapshot = await anvil.rpc.call("evm_snapshot")
            for number in range(count):
                nursery.start_soon(send, number)
            for state in (State.SENT, State.MINED):
                await until_all(executor, ledger, keys, state)
                await anvil.mine(2)
            if how == "reorg":
                await anvil.rpc.call("anvil_reorg", [4, []])
            elif how == "rollback":
                await anvil.rpc.call("anvil_rollback", [4])
            else:
                assert await anvil.rpc.call("evm_revert", [snapshot])
            nursery.start_soon(mine)
            for key in keys:
                await executor.wait(key)
            while len(outcomes) < count:
                await trio.lowlevel.checkpoint()
        assert {outcome.status for outcome in outcomes} == {Status.SUCCEEDED}
        retracted = [key for key in keys if "retracted" in str(ledger.story(key))]
        assert retracted, "the reorg took something back"
        balances = await anvil.rpc.batch(
            [("eth_getBalance", [f"0x{0x1000 + n:040x}", "latest"]) for n in range(count)]
        )
        assert balances == ["0x1"] * count
        sender = executor.address(CHAIN, Lane.URGENT)
        assert sender is not None
        nonce = await anvil.rpc.call("eth_getTransactionCount", ["0x" + sender.hex(), "latest"])
        assert int(nonce, 16) == count
        nursery.cancel_scope.cancel()
    store.close()


def lane_of(executor: Executor) -> LaneWorker:
    return executor._lanes[CHAIN, Lane.URGENT]


async def test_a_lane_survives_its_endpoints(anvil_binary: Path) -> None:
    """A quorum that is gone for a while delays a task, and nothing is sent twice."""
    store = Store(":memory:")
    async with (
        chain_of(anvil_binary) as anvil,
        executor_of(anvil, store, attempt_s=1.0) as executor,
        trio.open_nursery() as nursery,
    ):
        with trio.fail_after(30):
            await executor.submit(intent(1), settled=False)
            rounds = lane_of(executor).rounds
            with frozen(anvil):
                nursery.start_soon(executor.wait, intent(1).key)
                while lane_of(executor).rounds < rounds + 2:
                    executor.poke(CHAIN)
                    await trio.sleep(0.01)
                assert "no_quorum" in lane_of(executor).trouble
                nursery.start_soon(executor.submit, intent(2))
                await trio.testing.wait_all_tasks_blocked()
            await executor.submit(intent(2), settled=False)
            await anvil.mine(3)
            assert (await executor.wait(intent(2).key)).succeeded
        nursery.cancel_scope.cancel()
    store.close()
