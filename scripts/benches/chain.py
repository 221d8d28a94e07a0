"""Chain and execution figures; peers (AsyncWeb3, sync web3, trie) are measured in the same run.

The light client's updates are those of `scripts/bench light_client`.

One anvil serves all transports in turn. Every transport makes the same contract call, from ABI
encoding to decoded integers, first one after another (p50), then by 16 tasks (calls/s).
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio
from eth_abi.abi import decode, encode
from trie.hexary import HexaryTrie
from web3 import AsyncHTTPProvider, AsyncWeb3, HTTPProvider, Web3

from keeper.chain import codec, mpt
from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.chain.http import HttpRpc
from keeper.chain.mux import MuxRpc
from keeper.chain.port import BlockRef
from keeper.devnet.chains import AnvilSpec, ensure_anvil, mnemonic_key, run_anvil
from keeper.execute.fees import Offer
from keeper.execute.intent import Intent, Lane
from keeper.execute.journal import Journal
from keeper.execute.ledger import Ledger, Planned
from keeper.execute.signer import Envelope, Signer
from keeper.hashing import keccak, type_hash
from keeper.observe.accounts import AccountIndex
from keeper.observe.table import EMPTY
from keeper.observe.table import Log as Record
from keeper.store import Store
from keeper.units import BlockNumber, ChainId, Wei, symbol
from scripts.benches._figure import at_least, at_most, figure
from scripts.benches.light_client import updates

CHAIN = ChainId(31501)
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "anvil"
ECHO = bytes.fromhex("ec" * 20)
ECHO_CODE = "0x366000600037366000f3"
"""Returns its call data."""
LOUD = bytes.fromhex("10" * 20)
POSITION = type_hash("Position(bytes32,bytes32,int256,int256,int256)")
ACCOUNTS = 1_000
LOUD_CODE = (
    f"0x61{ACCOUNTS:04x}5b7f{symbol('ETH-USD').hex()}817f{POSITION.hex()}6060 6000a3"
    "6001900380600357 00"
).replace(" ", "")
"""Emits `Position(i, ETH-USD, 0, 0, 0)` for i = ACCOUNTS … 1."""

SELECTOR = keccak(b"f(uint256,uint256)")[:4]
ABI = [
    {
        "name": "f",
        "type": "function",
        "stateMutability": "view",
        "inputs": [{"name": "a", "type": "uint256"}, {"name": "b", "type": "uint256"}],
        "outputs": [{"name": "", "type": "bytes4"}],
    }
]
TASKS = 16
WRITERS = 128


def _call_data() -> bytes:
    return SELECTOR + encode(("uint256", "uint256"), (7, 11))


async def _timed(call: Callable[[], Awaitable[Any]], count: int) -> list[float]:
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        times.append(time.perf_counter() - started)
    return times


async def _rate_trio(call: Callable[[], Awaitable[Any]], count: int) -> float:
    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(_timed, call, count // TASKS)
    return count / (time.perf_counter() - started)


async def _ours(name: str, call: Callable[[], Awaitable[Any]], count: int) -> tuple[float, float]:
    await _timed(call, 50)
    p50 = statistics.median(await _timed(call, 200)) * 1e3
    rate = max([await _rate_trio(call, count) for _ in range(2)])
    figure(f"{name}: p50", p50, "ms")
    figure(f"{name}: calls/s, {TASKS} tasks", rate, "1/s")
    return p50, rate


def _async_web3(url: str) -> tuple[float, float]:
    """Return (p50 ms, calls/s) of stock AsyncWeb3 on asyncio."""

    async def main() -> tuple[float, float]:
        provider = AsyncHTTPProvider(url)
        contract = AsyncWeb3(provider).eth.contract(Web3.to_checksum_address(ECHO), abi=ABI)

        async def call() -> None:
            await contract.functions.f(7, 11).call()

        await _timed(call, 20)
        p50 = statistics.median(await _timed(call, 100)) * 1e3
        started = time.perf_counter()
        await asyncio.gather(*[_timed(call, 640 // TASKS) for _ in range(TASKS)])
        rate = 640 / (time.perf_counter() - started)
        await provider.disconnect()
        return p50, rate

    return asyncio.run(main())


async def _sync_web3(url: str) -> tuple[float, float]:
    contract = Web3(HTTPProvider(url)).eth.contract(Web3.to_checksum_address(ECHO), abi=ABI)

    async def call() -> None:
        await trio.to_thread.run_sync(contract.functions.f(7, 11).call)

    await _timed(call, 20)
    p50 = statistics.median(await _timed(call, 100)) * 1e3
    return p50, await _rate_trio(call, 640)


async def transports(url: str, ipc: str, ok: list[bool]) -> None:
    """Calls/s and p50 of every way to ask."""
    data = _call_data()
    params = [{"to": codec.to_hex(ECHO), "data": codec.to_hex(data)}, "latest"]

    async def raw(rpc: HttpRpc | MuxRpc) -> None:
        params[0] = {"to": codec.to_hex(ECHO), "data": codec.to_hex(_call_data())}
        decode(("bytes4",), codec.data(await rpc.call("eth_call", params)).ljust(32, b"\0"))

    async with trio.open_nursery() as nursery:
        http, ws, unix = HttpRpc(url), MuxRpc(url.replace("http", "ws")), MuxRpc(ipc)
        for mux in (ws, unix):
            nursery.start_soon(mux.run)
        p50, rate = await _ours("transport http", partial(raw, http), 8_000)
        await _ours("transport websocket", partial(raw, ws), 8_000)
        await _ours("transport ipc", partial(raw, unix), 8_000)
        chain = EvmChain(CHAIN, [http], Depth(1))
        at = (await chain.head()).ref
        await _ours("chain port call at a hash", partial(_port_call, chain, at), 4_000)
        their_p50, their_rate = await trio.to_thread.run_sync(_async_web3, url)
        figure("AsyncWeb3: p50", their_p50, "ms")
        figure(f"AsyncWeb3: calls/s, {TASKS} tasks", their_rate, "1/s")
        sync_p50, sync_rate = await _sync_web3(url)
        figure("sync web3 in threads: p50", sync_p50, "ms")
        figure(f"sync web3 in threads: calls/s, {TASKS} tasks", sync_rate, "1/s")
        ok.append(at_least("transport http / AsyncWeb3, calls/s", rate / their_rate, "×", 10))
        ok.append(at_least("AsyncWeb3 / transport http, p50", their_p50 / p50, "×", 10))
        figure("transport http / sync web3, calls/s", rate / sync_rate, "×")
        nursery.cancel_scope.cancel()
    await http.aclose()


async def _port_call(chain: EvmChain, at: BlockRef) -> None:
    decode(("bytes4",), (await chain.call(ECHO, _call_data(), at)).ljust(32, b"\0"))


async def proofs(url: str, ok: list[bool]) -> None:
    """Proof checks per second of CPU, against the `trie` package on the same nodes."""
    rpc = HttpRpc(url)
    chain = EvmChain(CHAIN, [rpc], Depth(1))
    head = await chain.head()
    found = await rpc.call("eth_getProof", [codec.to_hex(ECHO), [], hex(head.ref.number)])
    nodes = [codec.data(node) for node in found["accountProof"]]
    await rpc.aclose()
    key = keccak(ECHO)
    trie: Any = HexaryTrie
    theirs = _per_second(lambda: trie.get_from_proof(head.state_root, key, _items(nodes)))
    bare = _per_second(lambda: mpt.prove(head.state_root, key, nodes))
    figure("account proofs verified", bare, "1/s")
    figure("account proofs verified by trie", theirs, "1/s")
    ok.append(at_least("account proofs, ours / trie", bare / theirs, "×", 2))


def _items(nodes: list[bytes]) -> list[Any]:
    import rlp

    return [rlp.decode(node) for node in nodes]


def _per_second(action: Callable[[], object], batch: int = 50) -> float:
    best = 0.0
    for _ in range(5):
        count, started = 0, time.process_time()
        while time.process_time() - started < 0.2:
            for _ in range(batch):
                action()
            count += batch
        best = max(best, count / (time.process_time() - started))
    return best


async def ledger(ok: list[bool]) -> None:
    """Durable ledger writes per second: one at a time, and 128 writers in group commit."""
    intents = [
        Intent(n.to_bytes(32, "big"), CHAIN, Lane.URGENT, ECHO, bytes(68), BlockNumber(9), Wei(1))
        for n in range(14_000)
    ]
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "single.sqlite")
        tables = Ledger(store)
        started = time.perf_counter()
        for intent in intents[:2_000]:
            tables.apply([Planned(intent)], 0)
        figure("ledger: commits/s, one at a time", 2_000 / (time.perf_counter() - started), "1/s")
        journal = Journal(tables)

        async def write(mine: list[Intent]) -> None:
            for intent in mine:
                await journal.write(Planned(intent))

        rate = 0.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(journal.run)
            for first in range(2_000, 14_000, 4_000):
                started = time.perf_counter()
                async with trio.open_nursery() as writers:
                    for index in range(WRITERS):
                        mine = intents[first + index : first + 4_000 : WRITERS]
                        writers.start_soon(write, mine)
                rate = max(rate, 4_000 / (time.perf_counter() - started))
            nursery.cancel_scope.cancel()
        ok.append(at_least(f"ledger: durable writes/s, {WRITERS} writers", rate, "1/s", 5_000))
        store.close()


async def account_root(url: str, ok: list[bool]) -> None:
    """From a final block's header to the account root after it, 1,000 accounts changed."""
    chain = EvmChain(CHAIN, [url], Depth(0))
    proving = EvmChain(CHAIN, [url], Depth(0), prove_logs=True)
    proven_times = []
    signer = Signer(mnemonic_key(0))
    index = AccountIndex(CHAIN)
    head = await chain.head()
    index.append(head.ref.number, head.ref.hash, head.timestamp, [])
    times, cpu = [], []
    for nonce in range(16):
        offer = Offer(Wei(10**9), Wei(10**10))
        gas = 20_000_000
        raw = signer.sign(Envelope(CHAIN, nonce, LOUD, b"", 0, gas, offer))[1]
        await chain.endpoints.call("eth_sendRawTransactionSync", [codec.to_hex(raw)])
        header = await chain.head()
        started, busy = time.perf_counter(), time.process_time()
        logs = await chain.logs([LOUD, ECHO], header.ref)
        records = [Record(one.address, one.topics, one.data) for one in logs]
        index.append(header.ref.number, header.ref.hash, header.timestamp, records)
        assert index.newest is not None
        assert len(index.newest.table) == ACCOUNTS
        assert index.newest.table.root
        times.append(time.perf_counter() - started)
        cpu.append(time.process_time() - busy)
        started = time.perf_counter()
        assert await proving.logs([LOUD, ECHO], header.ref) == logs
        proven_times.append(time.perf_counter() - started)
    await chain.aclose()
    await proving.aclose()
    figure("1,000 logs of a block, proven: median", statistics.median(proven_times) * 1e3, "ms")
    figure("block → account root, 1,000 changed: worst", max(times[1:]) * 1e3, "ms")
    figure("block → account root, 1,000 changed: our CPU", statistics.median(cpu[1:]) * 1e3, "ms")
    median = statistics.median(times[1:]) * 1e3
    ok.append(at_most("block → account root, 1,000 changed: median", median, "ms", 50))


RECORDS = 100_000


def large_index(ok: list[bool]) -> None:
    """CPU time over 100,000 records: a block that changes 1,000, and reading an event of ten."""

    def position(account: int, size: int) -> Record:
        topics = (POSITION, account.to_bytes(32, "big"), symbol("ETH-USD"))
        return Record(LOUD, topics, size.to_bytes(96, "big"))

    rare = [Record(ECHO, (POSITION, n.to_bytes(32, "big")), b"") for n in range(10)]
    table = EMPTY.apply([position(n, 0) for n in range(RECORDS)] + rare)
    step = RECORDS // ACCOUNTS
    changes = [position(n, 1) for n in range(0, RECORDS, step)]
    spent = 1e3 / _per_second(lambda: table.apply(changes).root, batch=1)
    ok.append(at_most(f"account root, 1,000 of {RECORDS:,} records changed", spent, "ms", 50))

    def scan() -> list[bytes]:
        prefix = ECHO + POSITION
        return sorted(k for bucket in table.buckets for k in bucket if k.startswith(prefix))

    assert len(scan()) == len(list(table.records(ECHO, POSITION))) == len(rare)
    theirs = _per_second(scan, batch=1)
    ours = _per_second(lambda: list(table.records(ECHO, POSITION)))
    ok.append(at_least("ten records among 100,000, read / scanned for", ours / theirs, "×", 100))


async def main() -> None:
    """Run everything on one chain."""
    ok: list[bool] = []
    await ledger(ok)
    large_index(ok)
    updates(ok)
    with tempfile.TemporaryDirectory() as folder:
        ipc = f"{folder}/anvil.ipc"
        spec = AnvilSpec(CHAIN, block_time_s=None, accounts=256, extra=("--ipc", ipc))
        async with run_anvil(ensure_anvil(CACHE), spec) as anvil:
            for address, code in ((ECHO, ECHO_CODE), (LOUD, LOUD_CODE)):
                await anvil.rpc.call("anvil_setCode", [codec.to_hex(address), code])
            await anvil.mine()
            await account_root(anvil.url, ok)
            await proofs(anvil.url, ok)
            await transports(anvil.url, ipc, ok)
    if not all(ok):
        raise SystemExit(1)


if __name__ == "__main__":
    trio.run(main)
