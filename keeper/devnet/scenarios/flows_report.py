"""The report of the scenario `flows`: every figure is read from chains and stores.

escrows' logs, block times, receipts ─┐
keepers' archives ────────────────────┼─▶ outcomes, routes, sums, times ─▶ assertions ─▶ ok
tokens' own words ────────────────────┘
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keeper.contracts import topic
from keeper.devnet.ledgers import (
    ChainFacts,
    ChainLog,
    StoreFacts,
    executions,
    mean_gas,
    spread,
)
from keeper.devnet.parties import Floor
from keeper.devnet.scenarios.hedge import Reduced
from keeper.devnet.scenarios.report import conserved
from keeper.legs import Leg
from keeper.route.graph import Lane
from keeper.route.quote import Quote
from keeper.settle.flow import COMMIT
from keeper.units import ChainId
from keeper.venue.escrow import PAID, PREPARED, SETTLED, Flow
from keeper.venue.intents import CLOSED, FILLED
from keeper.venue.records import address_at, unsigned

COMPENSATED = topic("Escrow", "Compensated")


@dataclass(frozen=True, slots=True)
class Played:
    """A flow of the story.

    Args:
        why: in words.
        flow: its terms.
        outcome, late: what must become of it.
        route: what it carries out, or None.
        health_ppm: of the account before it.
    """

    why: str
    flow: Flow
    outcome: int
    late: int
    route: Quote | None
    health_ppm: int

    @property
    def makers(self) -> tuple[bytes, ...]:
        """Whose lanes the route takes, in order."""
        hops = self.route.hops if self.route is not None else ()
        return tuple(hop.edge.way.bridge for hop in hops if isinstance(hop.edge.way, Lane))


@dataclass(frozen=True, slots=True)
class Ordered:
    """The order of the story: what it gives for what, and who may deliver it."""

    id: bytes
    given: int
    asked: int
    fillers: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Story:
    """What was done, to be compared with what the chains show.

    Args:
        committed: the migrations, in order.
        grief: the flow whose first payer did not lock.
        order: the intent.
        pair: the flow that reduces two positions at two venues.
        reduced: what it was planned to close.
        left: the two positions at the end.
        names: address → who it is.
        owner, twin: margin accounts of the two equal positions.
        minted: (chain, who) → what a party began with.
        held: (chain, who) → what it holds at the end.
    """

    committed: tuple[Played, ...]
    grief: Played
    order: Ordered
    pair: Played
    reduced: Reduced
    left: Sequence[Leg]
    names: Mapping[bytes, str]
    owner: bytes
    twin: bytes
    minted: Mapping[tuple[ChainId, bytes], int]
    held: Mapping[tuple[ChainId, bytes], int]


Facts = Mapping[ChainId, ChainFacts]


async def make_report(
    floor: Floor, facts: Facts, stores: Sequence[StoreFacts], story: Story
) -> dict[str, Any]:
    """Return the report; `ok` holds only if every assertion does."""
    best = max(stores, key=lambda store: len(store.views))
    flows = (*story.committed, story.grief, story.pair)
    liquidated = {log.topics[2] for one in facts.values() for _, (log, *_) in _tasks(one)}
    escrowed = {
        str(chain): await floor.held(chain, floor.contract(chain, "Escrow")) for chain in facts
    }
    report: dict[str, Any] = {
        "ok": False,
        "chains": len(facts),
        "keepers": len(stores),
        "routes": [_route(one, story) for one in story.committed],
        "outcomes": {one.why: _outcomes(facts, one) for one in flows},
        "conflicting_outcomes": _conflicts(stores, flows),
        "delivered": {
            "planned": sum(one.route.delivered for one in story.committed if one.route),
            "paid": _paid_to(facts, story.owner),
        },
        "deposit_paid_to_who_had_locked": _compensated(facts, story.grief),
        "order": _order(facts, story.order),
        "reduced": _reduced(facts, story),
        "off_by": _off_by(floor, story),
        "left_in_escrows": escrowed,
        "conserved": conserved(floor.cluster, facts, best),
        "liquidated": sorted(
            name
            for name, account in (
                *(("owner", story.owner), ("twin", story.twin)),
                ("hedger", story.reduced.account),
            )
            if account in liquidated
        ),
        **{
            name: spread(values)
            for name, values in times(
                floor, facts, best, [one.flow for one in (*story.committed, story.pair)]
            ).items()
        },
        "gas": _gas(facts),
    }
    report["failed"] = _failed(report, story, facts)
    report["ok"] = not report["failed"]
    return report


def _failed(report: Mapping[str, Any], story: Story, facts: Facts) -> list[str]:
    """Return the assertions that do not hold."""
    routes = [route["makers"] for route in report["routes"]]
    flows = (*story.committed, story.grief, story.pair)
    wanted = {one.why: one.outcome for one in flows}
    checks = {
        "the cheapest lane is taken": routes[0] == ["near"],
        "a lane without room is left for another": routes[1] == ["over", "on"],
        "a cursed lane is left for another": routes[2] == ["far"],
        "a flow ran over three chains": len(report["outcomes"][story.committed[1].why]) == 3,
        "every chain with a leg knows the one outcome": all(
            found and set(found.values()) == {wanted[why]}
            for why, found in report["outcomes"].items()
        ),
        "every leg's chain has settled": all(
            report["outcomes"][one.why].keys() == {str(leg.chain) for leg in one.flow.legs}
            for one in flows
        ),
        "no keeper holds two outcomes of a flow": report["conflicting_outcomes"] == 0,
        "what was planned arrived": report["delivered"]["planned"] == report["delivered"]["paid"],
        "who did not lock paid who had": report["deposit_paid_to_who_had_locked"]
        == story.grief.flow.legs[0].deposit,
        "the order was delivered once, by a keeper, who was paid": report["order"]
        == {"delivered": 1, "paid": story.order.given, "to_a_keeper": True},
        "both sides of the pair were reduced as planned, and it stays hedged": report["reduced"]
        == {
            "venues": 2,
            "closed": [size for _, size in story.reduced.plan.closes],
            "left": [leg.size - _signed(leg, size) for leg, size in story.reduced.plan.closes],
            "net": 0,
        },
        "everybody holds what the flows say": not report["off_by"],
        "nothing is left in escrows": not any(report["left_in_escrows"].values()),
        "conserved": report["conserved"] is True,
        "only the position without flows was liquidated": report["liquidated"] == ["twin"],
        "three chains": len(facts) >= 3,
    }
    return [name for name, holds in checks.items() if not holds]


def _tasks(facts: ChainFacts) -> list[tuple[bytes, list[ChainLog]]]:
    return list(executions(facts).items()) if facts.spec.contract("Awards") else []


def _route(played: Played, story: Story) -> dict[str, Any]:
    assert played.route is not None
    hops = played.route.hops
    return {
        "why": played.why,
        "makers": [story.names[maker] for maker in played.makers],
        "chains": [hops[0].edge.origin.chain, *(hop.edge.destination.chain for hop in hops)],
        "sent": played.route.sent,
        "delivered": played.route.delivered,
        "bound": played.route.certificate.bound,
        "left_out": [f"{name}: {why}" for name, why in played.route.left_out],
        "health_ppm_before": played.health_ppm,
    }


def _events(facts: ChainFacts, wanted: bytes, flow: bytes) -> list[ChainLog]:
    return [log for log in facts.events("Escrow", wanted) if log.topics[1] == flow]


def _outcomes(facts: Facts, played: Played) -> dict[str, int]:
    """Return chain → the outcome it has settled; -1 where it was told more than once."""
    found = {}
    for chain, one in facts.items():
        logs = _events(one, SETTLED, played.flow.id)
        if logs:
            found[str(chain)] = unsigned(logs[0].data, 0) if len(logs) == 1 else -1
    return found


def _conflicts(stores: Sequence[StoreFacts], flows: Sequence[Played]) -> int:
    """Return how many flows have more than one outcome over all keepers' archives."""
    said: dict[object, set[object]] = defaultdict(set)
    for store in stores:
        for view in store.views:
            for decision in view.decisions:
                if decision.kind == "FlowOutcome":
                    said[decision.fields[0]].add(decision.fields[1:])
    wrong = {flow for flow, outcomes in said.items() if len(outcomes) > 1}
    wrong |= {one.flow.id for one in flows if said[one.flow.id] != {(one.outcome, one.late)}}
    return len(wrong)


def _paid_to(facts: Facts, account: bytes) -> int:
    """Return what escrows paid into a margin account."""
    return sum(
        unsigned(log.data, 2)
        for one in facts.values()
        for log in one.events("Escrow", PAID)
        if log.data[:32] == account
    )


def _compensated(facts: Facts, grief: Played) -> int:
    return sum(
        unsigned(log.data, 2)
        for one in facts.values()
        for log in _events(one, COMPENSATED, grief.flow.id)
    )


def _order(facts: Facts, order: Ordered) -> dict[str, Any]:
    """Return how often an order was delivered, and what its filler was paid."""
    fills = [
        log
        for one in facts.values()
        for log in one.events("Intents", FILLED)
        if log.topics[1] == order.id
    ]
    closed = [
        log
        for one in facts.values()
        for log in one.events("Intents", CLOSED)
        if log.topics[1] == order.id
    ]
    paid = {address_at(log.data, 0) for log in closed}
    return {
        "delivered": len(fills),
        "paid": sum(unsigned(log.data, 1) for log in closed),
        "to_a_keeper": paid == {log.topics[3][12:] for log in fills} and paid <= order.fillers,
    }


def _signed(leg: Leg, size: int) -> int:
    return size if leg.size > 0 else -size


def _reduced(facts: Facts, story: Story) -> dict[str, Any]:
    """Return what the pair's flow closed by the escrows' own words, and what is left of it."""
    logs = [log for one in facts.values() for log in _events(one, PAID, story.pair.flow.id)]
    return {
        "venues": len({leg.chain for leg in story.left}),
        "closed": [unsigned(log.data, 2) for log in sorted(logs, key=lambda log: log.topics[2])],
        "left": [leg.size for leg in story.left],
        "net": sum(leg.size for leg in story.left),
    }


def _off_by(floor: Floor, story: Story) -> dict[str, int]:
    """Return who holds more or less than the flows say, on which chain and by how much."""
    due: dict[tuple[ChainId, bytes], int] = defaultdict(int, story.minted)
    for one in story.committed:
        for leg in one.flow.legs:
            due[leg.chain, leg.payer] -= leg.amount
            due[leg.chain, leg.receiver[12:]] += leg.amount
    hub = floor.cluster.spec.hub
    owner = story.committed[0].flow.legs[0].payer
    due[hub, owner] -= story.order.given
    late, waited = story.grief.flow.legs
    due[late.chain, late.payer] -= late.deposit
    due[late.chain, waited.payer] += late.deposit
    return {
        f"{story.names[who]} on {chain}": held - due[chain, who]
        for (chain, who), held in story.held.items()
        if held != due[chain, who]
    }


def times(
    floor: Floor, facts: Facts, store: StoreFacts, flows: Sequence[Flow]
) -> dict[str, list[float]]:
    """Return how long each committed flow took, by what is measured.

    Block times are whole seconds, so a figure of seconds may be off by one.
    """
    spec = floor.cluster.spec
    sealed = {
        decision.fields[0]: view
        for view in reversed(store.views)
        if view.sealed_ms is not None
        for decision in view.decisions
        if decision.kind == "FlowOutcome" and decision.fields[1] == COMMIT
    }
    found: dict[str, list[float]] = defaultdict(list)
    for flow in flows:
        entered = _stamps(facts, PREPARED, flow.id)
        settled = _stamps(facts, SETTLED, flow.id)
        view = sealed.get(flow.id)
        if not entered or not settled or view is None or view.sealed_ms is None:
            continue
        depth = max(spec.chain(leg.chain).finality_depth for leg in flow.legs)
        final_ms = (max(entered) + depth) * 1000
        taken = max(settled) - min(entered)
        found["open_to_committed_s"].append(float(taken))
        found["open_to_committed_ticks"].append(taken * 1000 / spec.tick_ms)
        found["locked_to_committed_s"].append(float(max(settled) - max(entered)))
        found["locked_to_sealed_ticks"].append(
            (view.sealed_ms - max(entered) * 1000) / spec.tick_ms
        )
        found["final_to_sealed_ticks"].append((view.sealed_ms - final_ms) / spec.tick_ms)
    return found


def _stamps(facts: Facts, wanted: bytes, flow: bytes) -> list[int]:
    """Return the block times of a flow's events of one kind, over all chains."""
    return [one.times[log.block] for one in facts.values() for log in _events(one, wanted, flow)]


def _gas(facts: Facts) -> dict[str, int]:
    hub = min(facts.values(), key=lambda one: one.spec.id)
    stages: dict[int, list[ChainLog]] = defaultdict(list)
    for log in hub.events("Escrow", PREPARED):
        stages[unsigned(log.data, 11)].append(log)
    return {
        "pledge": mean_gas(hub, stages[1]),
        "prepare": mean_gas(hub, stages[2]),
        "settle": mean_gas(hub, hub.events("Escrow", SETTLED)),
        "pay": mean_gas(hub, hub.events("Escrow", PAID)),
    }
