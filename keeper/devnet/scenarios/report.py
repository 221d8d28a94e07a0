"""The report of a liquidation scenario: every figure is read from chains and stores.

chains' logs, receipts, block times ─┐
keepers' archives and newest book ───┴─▶ figures ─▶ assertions ─▶ ok
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keeper.clear.conservation import clearing_sums
from keeper.contracts import topic
from keeper.devnet.cluster import Cluster
from keeper.devnet.ledgers import (
    EXECUTED,
    LEAF_USED,
    ChainFacts,
    StoreFacts,
    executions,
    mean_gas,
    spread,
)
from keeper.margin.engine import Engine
from keeper.margin.marks import Marks, Unpriced
from keeper.snapshot.archive import Archived
from keeper.units import ChainId
from keeper.venue.book import accounts, funding, system_accounts, unsettled
from keeper.venue.ledger import decode as decode_ledger

HEADED = topic("Snapshots", "Headed")
AGES_S = 5
"""Age of the agreed state when the scenario judges health by itself: a few blocks."""


@dataclass(frozen=True, slots=True)
class Story:
    """What the scenario did, to be compared with what the chains show.

    Args:
        shock_s: unix seconds of the block with the shocked price; 0 without a shock.
        liquidatable: accounts the scenario itself found unhealthy after the shock.
        restarts: keepers killed and started again.
        withdrawn: (asked, got) µUSD of the traders that left.
    """

    shock_s: int
    liquidatable: frozenset[bytes]
    restarts: int
    withdrawn: tuple[int, int]


def unhealthy(
    cluster: Cluster, facts: Mapping[ChainId, ChainFacts], prices: Mapping[bytes, int]
) -> frozenset[bytes]:
    """Return the traders' accounts that are unhealthy by the chains' own records."""
    tables = {chain: one.table for chain, one in facts.items()}
    marks = Marks(
        prices,
        funding(cluster.spec, tables),
        cluster.parameters.margin,
        dict.fromkeys(tables, AGES_S),
    )
    engine = Engine(marks)
    apart = system_accounts(cluster.spec)
    found = set()
    for account, legs in accounts(cluster.spec, tables).items():
        if account in apart:
            continue
        try:
            if not engine.margin(engine.rows(legs)).healthy:
                found.add(account)
        except Unpriced:
            continue
    return frozenset(found)


def make_report(
    cluster: Cluster,
    facts: Mapping[ChainId, ChainFacts],
    stores: Sequence[StoreFacts],
    story: Story,
) -> dict[str, Any]:
    """Return the report; `ok` holds only if every assertion does."""
    best = max(stores, key=lambda store: len(store.views))
    venue = next(one for one in facts.values() if one.spec.contract("Perps") is not None)
    done = executions(venue)
    executed = {logs[0].topics[2] for logs in done.values()}
    report: dict[str, Any] = {
        "ok": False,
        "chains": len(facts),
        "keepers": len(stores),
        "views_final": len(best.views),
        "seals_verified": {
            str(chain): len(_with_seal(one)) for chain, one in sorted(facts.items())
        },
        "liquidatable": len(story.liquidatable),
        "liquidated": len(executed & story.liquidatable),
        "healthy_touched": len(executed - story.liquidatable),
        "claims_paid": _claims_paid(cluster, facts, best, story.liquidatable & executed),
        "conserved": conserved(cluster, facts, best),
        "double_executions": sum(len(logs) > 1 for logs in done.values()),
        "keeper_restarts": story.restarts,
        "tick_to_final_ms": spread(_tick_to_final(cluster, stores)),
        "shock_to_award_s": spread(_shock_to_award(best.views, story)),
        "shock_to_claim_s": spread(_shock_to_claim(facts, best.views, story)),
        "gas": _gas(facts, venue),
        "transactions_per_task": _per_task(venue, len(done)),
        "tasks_executed": len(done),
        "withdrawn_uusd": {"asked": story.withdrawn[0], "got": story.withdrawn[1]},
    }
    report["failed"] = _failed(report, story)
    report["ok"] = not report["failed"]
    return report


def _failed(report: Mapping[str, Any], story: Story) -> list[str]:
    """Return the assertions that do not hold."""
    checks = {
        "healthy_touched is 0": report["healthy_touched"] == 0,
        "double_executions is 0": report["double_executions"] == 0,
        "conserved": report["conserved"] is True,
        "liquidated equals liquidatable": report["liquidated"] == report["liquidatable"],
        "claims_paid equals liquidatable": report["claims_paid"] == report["liquidatable"],
        "one transaction per task": report["transactions_per_task"] in (0, 1),
        "seals verified on every chain": all(report["seals_verified"].values()),
        "withdrawals were paid": report["withdrawn_uusd"]["got"]
        == report["withdrawn_uusd"]["asked"],
    }
    if story.shock_s:
        checks["the shock made somebody liquidatable"] = report["liquidatable"] > 0
    else:
        checks["nothing was liquidated"] = report["tasks_executed"] == 0
    return [name for name, holds in checks.items() if not holds]


def _with_seal(facts: ChainFacts) -> set[str]:
    """Return the transactions that showed this chain a seal it verified."""
    return {log.transaction for log in facts.logs if log.topics[0] in (LEAF_USED, HEADED)}


def _claims_paid(
    cluster: Cluster,
    facts: Mapping[ChainId, ChainFacts],
    store: StoreFacts,
    accounts_: frozenset[bytes],
) -> int:
    """Return how many liquidated accounts have nothing unsettled left at the venue."""
    if store.book is None:
        return 0
    ledger = decode_ledger(store.book.rules["transfer"])
    tables = {chain: one.table for chain, one in facts.items()}
    ledger = ledger.advance(tables, {})
    minimum = cluster.parameters.clearing.transfer_minimum
    open_: set[bytes] = set()
    for one in facts.values():
        for account, amount in unsettled(one.spec, one.table, ledger).items():
            if abs(amount) >= minimum:
                open_.add(account)
    settled = {account for (_, _, account) in ledger.settled}
    return len((accounts_ & settled) - open_)


def conserved(cluster: Cluster, facts: Mapping[ChainId, ChainFacts], store: StoreFacts) -> bool:
    """Return whether tokens per chain and the clearing sums over all chains are exact."""
    tables = {chain: one.table for chain, one in facts.items()}
    rules = store.book.rules if store.book is not None else {}
    sums = clearing_sums(cluster.spec, tables, rules)
    tokens = all(
        sums.held.get((chain, token), 0) == amount
        for chain, one in facts.items()
        for token, amount in one.held.items()
    )
    zero = not any(sums.realised.values()) and not any(sums.settled.values())
    return tokens and zero and sums.unsettled == 0


def _tick_to_final(cluster: Cluster, stores: Sequence[StoreFacts]) -> list[float]:
    spec = cluster.spec
    return [
        float(view.final_ms - spec.genesis_time_ms - view.header.tick * spec.tick_ms)
        for store in stores
        for view in store.views
    ]


def _first_time(views: Sequence[Archived], kind: str) -> dict[bytes, float]:
    """Return leaf → unix seconds at which a kind of decision was sealed."""
    return {
        decision.leaf: view.sealed_ms / 1000
        for view in views
        if view.sealed_ms is not None
        for decision in view.decisions
        if decision.kind == kind
    }


def _shock_to_award(views: Sequence[Archived], story: Story) -> list[float]:
    if not story.shock_s:
        return []
    return [at - story.shock_s for at in _first_time(views, "Award").values() if at > story.shock_s]


def _shock_to_claim(
    facts: Mapping[ChainId, ChainFacts], views: Sequence[Archived], story: Story
) -> list[float]:
    """Return seconds from the shock to the block in which a liquidated account has paid."""
    if not story.shock_s:
        return []
    payers = {
        decision.leaf
        for view in views
        for decision in view.decisions
        if decision.kind == "Transfer" and decision.fields[0] in story.liquidatable
    }
    return [
        float(one.times[log.block] - story.shock_s)
        for one in facts.values()
        for log in one.events("Vault", LEAF_USED)
        if log.topics[1] in payers and one.times[log.block] >= story.shock_s
    ]


def _gas(facts: Mapping[ChainId, ChainFacts], venue: ChainFacts) -> dict[str, int]:
    hub = min(facts.values(), key=lambda one: one.spec.id)
    return {
        "seal": mean_gas(hub, hub.events("Snapshots", HEADED)),
        "execute": mean_gas(venue, venue.events("Awards", EXECUTED)),
        "claim": mean_gas(hub, hub.events("Vault", LEAF_USED)),
    }


def _per_task(venue: ChainFacts, tasks: int) -> float:
    """Return transactions sent to Awards, reverted ones too, per executed task."""
    awards = venue.spec.contract("Awards")
    sent = sum(count for (to, _), count in venue.calls.items() if to == awards)
    return round(sent / tasks, 3) if tasks else 0
