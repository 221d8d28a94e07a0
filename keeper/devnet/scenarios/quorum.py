"""Quorum lost and found: with too few keepers nothing is sealed and nothing is executed.

q − 1 keepers left ─▶ no new seal, readiness false with its reason ─▶ they return ─▶ work goes on
"""

from collections.abc import Callable, Mapping
from typing import Any

import trio

from keeper.devnet.cluster import Cluster
from keeper.devnet.feeds import Feeds, markets_of
from keeper.devnet.ledgers import executions, read_chains
from keeper.devnet.scenarios.liquidation import MARKET, all_sealed
from p2p.agreement.quorum import quorum

SILENCE_S = 15.0
"""Watched for so long: three readiness limits, thirty ticks."""

Say = Callable[[str], None]


async def run(cluster: Cluster, say: Say) -> dict[str, Any]:
    """Play the scenario on a running cluster and return its report."""
    feeds = Feeds(cluster, markets_of(cluster))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeds.run)
        report = await _play(cluster, feeds, say)
        nursery.cancel_scope.cancel()
    return report


async def _play(cluster: Cluster, feeds: Feeds, say: Say) -> dict[str, Any]:
    size = len(cluster.keepers)
    await cluster.wait("a sealed view", all_sealed, 60)
    down = cluster.keepers[quorum(size) - 1 :]
    left = cluster.keepers[: quorum(size) - 1]
    say(f"{len(down)} of {size} keepers are stopped; a quorum is {quorum(size)}")
    for one in down:
        one.kill()
        if one.process is not None:
            await one.process.wait()
            one.process = None
    await trio.sleep(3.0)
    before = await cluster.wait("the rest to answer", bool, 20, left)
    await feeds.move(MARKET, -120_000)
    await trio.sleep(SILENCE_S)
    after = await cluster.wait("the rest to answer", bool, 20, left)
    ready = [await one.ready() for one in left]
    say("nothing was sealed; they return")
    for one in down:
        await one.start()
    top = max(value["sealed_view"] for value in after.values())
    recovered = await cluster.wait("new seals", _sealed_beyond(top), 90)
    facts = await read_chains(cluster)
    codes = sorted({reason["code"] for value in ready if value for reason in value["reasons"]})
    report = {
        "ok": False,
        "keepers": size,
        "stopped": len(down),
        "sealed_without_quorum": sum(
            after[at]["sealed_view"] > before[at]["sealed_view"] for at in after
        ),
        "ready_without_quorum": sum(bool(value and value["ready"]) for value in ready),
        "reasons": codes,
        "tasks_executed": sum(len(executions(one)) for one in facts.values()),
        "sealed_view_after": min(value["sealed_view"] for value in recovered.values()),
    }
    report["ok"] = (
        report["sealed_without_quorum"] == 0
        and report["ready_without_quorum"] == 0
        and bool(codes)
        and report["tasks_executed"] == 0
    )
    return report


def _sealed_beyond(view: int) -> Callable[[Mapping[int, dict[str, Any]]], bool]:
    return lambda seen: all(value.get("sealed_view", 0) > view for value in seen.values())
