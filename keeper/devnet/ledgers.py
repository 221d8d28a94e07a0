"""What a scenario reads afterwards: chains, through their own RPC, and the keepers' stores.

Nothing here trusts a keeper's word: accounts are folded again from the chains' logs, gas comes from
receipts, times from block headers and from each store's own archive.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import trio

from keeper.chain.http import HttpRpc
from keeper.contracts import topic
from keeper.devnet.cluster import Cluster, KeeperProcess
from keeper.network import ChainSpec
from keeper.observe.table import EMPTY, Log, Table
from keeper.snapshot.archive import Archive, Archived
from keeper.snapshot.book import Book
from keeper.store import Store
from keeper.units import ChainId

ACCEPTED = topic("Snapshots", "Accepted")
EXECUTED = topic("Awards", "Executed")
LEAF_USED = topic("Vault", "LeafUsed")


@dataclass(frozen=True, slots=True)
class ChainLog:
    """One event with where it stands."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    block: int
    transaction: str


@dataclass(slots=True)
class ChainFacts:
    """Everything read from one chain.

    Args:
        spec: its part of the descriptor.
        logs: events of the network's contracts in order.
        times: block number → unix seconds, for blocks with events.
        gas: transaction hash → gas used, for transactions with events.
        calls: (contract, succeeded) → transactions sent to it.
        table: the account table at the end.
        held: token → what the vault really holds by the token's own word.
    """

    spec: ChainSpec
    logs: list[ChainLog] = field(default_factory=list)
    times: dict[int, int] = field(default_factory=dict)
    gas: dict[str, int] = field(default_factory=dict)
    calls: Counter[tuple[bytes, bool]] = field(default_factory=Counter)
    table: Table = EMPTY
    held: dict[bytes, int] = field(default_factory=dict)

    def events(self, contract: str, wanted: bytes) -> list[ChainLog]:
        """Return the events of one contract with one first topic."""
        address = self.spec.contract(contract)
        return [log for log in self.logs if log.address == address and log.topics[0] == wanted]


def _raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


async def read_chain(rpc: HttpRpc, spec: ChainSpec) -> ChainFacts:
    """Read a chain from its contracts' first block to its head."""
    facts = ChainFacts(spec)
    addresses = ["0x" + address.hex() for _, address in spec.contracts]
    rows = await rpc.call(
        "eth_getLogs",
        [{"address": addresses, "fromBlock": hex(spec.start_block), "toBlock": "latest"}],
    )
    for row in rows:
        facts.logs.append(
            ChainLog(
                _raw(row["address"]),
                tuple(_raw(one) for one in row["topics"]),
                _raw(row["data"]),
                int(row["blockNumber"], 16),
                row["transactionHash"],
            )
        )
    facts.table = EMPTY.apply(Log(log.address, log.topics, log.data) for log in facts.logs)
    await _read_blocks(rpc, facts)
    await _read_receipts(rpc, facts)
    vault = spec.contract("Vault")
    for token in spec.tokens:
        if vault is not None:
            data = "0x70a08231" + vault.rjust(32, b"\0").hex()
            call = {"to": "0x" + token.address.hex(), "data": data}
            facts.held[token.address] = int(await rpc.call("eth_call", [call, "latest"]), 16)
    return facts


async def _read_blocks(rpc: HttpRpc, facts: ChainFacts) -> None:
    numbers = sorted({log.block for log in facts.logs})
    blocks = await rpc.batch([("eth_getBlockByNumber", [hex(n), False]) for n in numbers])
    facts.times = {
        number: int(block["timestamp"], 16) for number, block in zip(numbers, blocks, strict=True)
    }


async def _read_receipts(rpc: HttpRpc, facts: ChainFacts) -> None:
    """Read the receipts of every block, so that reverted transactions are counted too."""
    head = int(await rpc.call("eth_blockNumber"), 16)
    first = facts.spec.start_block
    answers = await rpc.batch(
        [("eth_getBlockReceipts", [hex(number)]) for number in range(first, head + 1)]
    )
    for receipts in answers:
        for receipt in receipts or ():
            facts.gas[receipt["transactionHash"]] = int(receipt["gasUsed"], 16)
            if receipt["to"] is not None:
                facts.calls[_raw(receipt["to"]), int(receipt["status"], 16) == 1] += 1


async def read_chains(cluster: Cluster) -> dict[ChainId, ChainFacts]:
    """Read every chain of a cluster."""
    return {
        chain: await read_chain(anvil.rpc, cluster.spec.chain(chain))
        for chain, anvil in cluster.chains.items()
    }


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What one keeper's store holds: its final views in order, and its newest book."""

    views: tuple[Archived, ...]
    book: Book | None


async def read_store(keeper: KeeperProcess) -> StoreFacts:
    """Read a keeper's database while it runs or after it ended."""
    return await trio.to_thread.run_sync(_read_store, keeper)


def _read_store(keeper: KeeperProcess) -> StoreFacts:
    store = Store(keeper.home / "keeper.db", read_only=True)
    try:
        archive = Archive(store)
        held = archive.newest_book()
        return StoreFacts(tuple(archive.since(0)), None if held is None else held[1])
    finally:
        store.close()


def percentile(values: list[float], share: float) -> float:
    """Return the value at or above which `1 − share` of the values lie; 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: list[float]) -> dict[str, float]:
    """Return p50 and p99."""
    return {"p50": round(percentile(values, 0.5), 3), "p99": round(percentile(values, 0.99), 3)}


def executions(facts: ChainFacts) -> dict[bytes, list[ChainLog]]:
    """Return task → its Executed events."""
    found: dict[bytes, list[ChainLog]] = defaultdict(list)
    for log in facts.events("Awards", EXECUTED):
        found[log.topics[1]].append(log)
    return found


def mean_gas(facts: ChainFacts, logs: list[ChainLog]) -> int:
    """Return the mean gas of the transactions that made these events; 0 for none."""
    hashes = {log.transaction for log in logs}
    used: list[Any] = [facts.gas[one] for one in hashes if one in facts.gas]
    return sum(used) // len(used) if used else 0
