"""What an endpoint shows of the makers' lanes, up to the newest certified cut.

    cut ─▶ escrows' logs of the last blocks ─▶ flows that went over a lane ─▶ times of their blocks

Money and outcomes are the certified tables'; this endpoint is believed only about when.
"""

from dataclasses import dataclass
from typing import Any

import trio

from keeper import config
from keeper.chain.http import HttpRpc
from keeper.cli.account import SPAN, State
from keeper.errors import RemoteFault
from keeper.network import ChainSpec
from keeper.reasons import Reason
from keeper.route.congestion import Delivery
from keeper.settle.lanes import Offer
from keeper.settle.seen import Block, deliveries, passages
from keeper.snapshot.decisions import CutBlock
from keeper.units import ChainId
from keeper.venue.escrow import PREPARED, SETTLED

LOOKBACK = 10 * SPAN
"""Blocks before the cut whose logs are read: a week of a chain of twelve seconds, in ten calls."""
BATCH = 100
"""Blocks asked for in one batch: what public endpoints allow."""


@dataclass(frozen=True, slots=True)
class _Log:
    """An event with the block it is in."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    block: int


def seen_lately(
    settings: config.Config, state: State, offers: tuple[Offer, ...]
) -> dict[Offer, tuple[Delivery, ...]]:
    """Return what was seen of each lane in the last blocks, oldest first.

    Raises:
        RemoteFault: an endpoint does not answer, or not as a chain does.
    """
    return trio.run(_read, settings, state, offers)


async def _read(
    settings: config.Config, state: State, offers: tuple[Offer, ...]
) -> dict[Offer, tuple[Delivery, ...]]:
    logs: dict[ChainId, list[_Log]] = {}
    for ref in state.view.header.cut:  # the legs of a flow may be on any chain
        if state.spec.chain(ref.chain).contract("Escrow") is not None:
            logs[ref.chain] = await _logs(settings, state.spec.chain(ref.chain), ref)
    found = passages(state.spec, state.tables, logs, offers)
    blocks: dict[ChainId, set[int]] = {}
    for rows in found.values():
        for chain, number in frozenset().union(*(one.blocks for one in rows)):
            blocks.setdefault(chain, set()).add(number)
    times: dict[Block, int] = {}
    for chain, numbers in sorted(blocks.items()):
        times |= await _times(settings, chain, sorted(numbers))
    return deliveries(found, times)


async def _logs(settings: config.Config, chain: ChainSpec, ref: CutBlock) -> list[_Log]:
    rpc = HttpRpc(settings.endpoints[chain.id][0])
    escrow = chain.contract("Escrow")
    assert escrow is not None, f"chain {chain.id} has no escrow"
    topics = ["0x" + topic.hex() for topic in (PREPARED, SETTLED)]
    found: list[_Log] = []
    try:
        for first in range(max(chain.start_block, ref.number + 1 - LOOKBACK), ref.number + 1, SPAN):
            last = min(ref.number, first + SPAN - 1)
            query = {"address": "0x" + escrow.hex(), "topics": [topics]}
            query |= {"fromBlock": hex(first), "toBlock": hex(last)}
            rows = await rpc.call("eth_getLogs", [query])
            try:
                found += [_log(row) for row in rows]
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise RemoteFault(rpc.name, Reason.MALFORMED, f"a log without {error}") from error
    finally:
        await rpc.aclose()
    return found


def _log(row: dict[str, Any]) -> _Log:
    return _Log(
        bytes.fromhex(row["address"][2:]),
        tuple(bytes.fromhex(topic[2:]) for topic in row["topics"]),
        bytes.fromhex(row["data"][2:]),
        int(row["blockNumber"], 16),
    )


async def _times(settings: config.Config, chain: ChainId, numbers: list[int]) -> dict[Block, int]:
    rpc = HttpRpc(settings.endpoints[chain][0])
    found: dict[Block, int] = {}
    try:
        for start in range(0, len(numbers), BATCH):
            part = numbers[start : start + BATCH]
            calls = [("eth_getBlockByNumber", [hex(number), False]) for number in part]
            for number, block in zip(part, await rpc.batch(calls), strict=True):
                found[chain, number] = int(block["timestamp"], 16)
    except (KeyError, TypeError, ValueError) as error:
        raise RemoteFault(rpc.name, Reason.MALFORMED, f"a block without {error}") from error
    finally:
        await rpc.aclose()
    return found
