"""A plan of a flow as a file, and what whoever is asked to pay a part of it checks before it does.

    quote ─▶ plan.json ─▶ read_planned ─▶ over the lanes as they are here ─▶ check_quote ─┐
    flow.json ─▶ legs ────────────────────▶ every payment of the plan is there? ──────────┴▶ faults

The file is somebody else's: a route's plan (keeper/route/plans.py), who pays, and for which
account. What it leaves out cannot make its bound look tight: no lane is excluded and no verifier
limited, its deadline may shut out no lane that is in time by this node's own view of the account,
and deposits are those that the reader expects.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from keeper.errors import ConfigError
from keeper.network import NetworkSpec
from keeper.route.files import bytes_of, place_text
from keeper.route.graph import Graph, Place
from keeper.route.plans import Plan, amount, only, plain_plan, quote_of, read_plan
from keeper.route.quote import check_quote, name_of, usable
from keeper.settle.migration import legs_of
from keeper.settle.terms import MAX_LEGS, read_address
from keeper.units import PPM
from keeper.venue.escrow import Leg


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and what a flow needs to carry it out; nothing of it is checked yet.

    Args:
        plan: the route.
        owner: who pays at the origin.
        account: margin account at the destination.
        deposit_ppm: of every payment.
    """

    plan: Plan
    owner: bytes
    account: bytes
    deposit_ppm: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What is wrong with a plan or the flow that is to carry it out, and the flow's other legs."""

    faults: tuple[str, ...]
    beyond: tuple[Leg, ...]


def plain_planned(planned: Planned) -> dict[str, Any]:
    """Return what `read_planned` reads."""
    return {
        "payer": "0x" + planned.owner.hex(),
        "account": "0x" + planned.account.hex(),
        "deposit_ppm": planned.deposit_ppm,
        "plan": plain_plan(planned.plan),
    }


def read_planned(value: object, where: str) -> Planned:
    """Return the plan of a flow, a JSON object.

    Raises:
        ConfigError: it is no such object, or has a field too many.
    """
    try:
        row = only(value, "payer account deposit_ppm plan")
        plan = read_plan(row["plan"], where)
        if plan.request.exposure or plan.request.exclude:
            raise ValueError("a plan of a flow limits no verifier and leaves out no lane")
        if not 0 < len(plan.steps) < MAX_LEGS or not plan.delivered:
            raise ValueError(f"1 to {MAX_LEGS - 1} hops that deliver something")
        return Planned(
            plan,
            read_address(row["payer"]),
            bytes_of(row["account"], 32),
            amount(row["deposit_ppm"], 0, PPM + 1),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"cannot read the plan: {type(error).__name__} {error}",
            where=where,
            remedy="keeper flow plan --plan writes such a file",
        ) from error


def check_plan(
    network: NetworkSpec,
    graph: Graph,
    planned: Planned,
    legs: Sequence[Leg],
    *,
    deadline_ms: int,
    allowed_ppb: int,
) -> Checked:
    """Return what is wrong with a plan, and with the flow that is to carry it out.

    Args:
        network: the descriptor.
        graph: the lanes as this node sees them.
        planned: as somebody wrote it.
        legs: of the flow.
        deadline_ms: how long the account surely holds by this node's view, 0: long enough.
        allowed_ppb: largest gap to accept.
    """
    plan = planned.plan
    faults = [*_untimely(graph, plan, deadline_ms), *overdrawn(graph, plan)]
    answer = quote_of(graph, plan)
    if isinstance(answer, str):
        return Checked((*faults, answer), ())
    wrong = check_quote(graph, plan.request, answer, allowed_ppb)
    if wrong is not None:
        taken = {name_of(hop.edge.way) for hop in answer.hops}
        faults += [wrong, *(f"{name}: {why}" for name, why in answer.left_out if name in taken)]
    if 0 < deadline_ms < answer.latency_ms:
        late = f"{answer.latency_ms} ms on the way, and the account surely holds {deadline_ms} ms"
        faults.append(late)
    try:
        due = legs_of(
            network,
            answer,
            owner=planned.owner,
            account=planned.account,
            deposit_ppm=planned.deposit_ppm,
        )
    except (KeyError, ValueError) as error:
        return Checked((*faults, f"the plan cannot be paid: {error}"), ())
    lacking = Counter(map(_bare, due)) - Counter(map(_bare, legs))
    faults += [f"the flow lacks a payment of the plan: {_said(leg)}" for leg in lacking.elements()]
    rest = Counter(map(_bare, due))
    beyond = []
    for leg in legs:
        if rest[_bare(leg)]:
            rest[_bare(leg)] -= 1
        else:
            beyond.append(leg)
    return Checked(tuple(faults), tuple(beyond))


def overdrawn(graph: Graph, plan: Plan) -> list[str]:
    """Return a fault for every maker that pays at one place for several lanes more than it has.

    The room of each of its lanes there is all that it has, and an optimiser fills every one.
    """
    room: dict[tuple[bytes, Place], int] = {}
    for lane in graph.lanes:
        key = lane.bridge, Place(lane.destination, lane.asset)
        room[key] = max(room.get(key, 0), lane.room)
    taken: dict[tuple[bytes, Place], list[int]] = {}
    for step in plan.steps:
        bridge, _, place = step.ends
        taken.setdefault((bridge, place), []).append(step.amount)
    return [
        f"the lanes of 0x{bridge.hex()} to {place_text(place)} are to bring {sum(amounts)}, "
        f"and it has enough for {room.get((bridge, place), 0)}"
        for (bridge, place), amounts in taken.items()
        if len(amounts) > 1 and sum(amounts) > room.get((bridge, place), 0)
    ]


def _bare(leg: Leg) -> Leg:
    """Return a leg without what the plan leaves open: its deposit and its place in the flow."""
    return replace(leg, deposit=0, index=0)


def _said(leg: Leg) -> str:
    return f"{leg.amount} on chain {leg.chain} by 0x{leg.payer.hex()} for 0x{leg.receiver.hex()}"


def _untimely(graph: Graph, plan: Plan, deadline_ms: int) -> list[str]:
    """Return a fault for every lane that the plan's deadline shuts out and this node's does not."""
    ours, _ = usable(graph, replace(plan.request, deadline_ms=deadline_ms))
    theirs, _ = usable(graph, plan.request)
    shut = sorted(
        (lane.bridge, lane.origin, lane.destination) for lane in set(ours.lanes) - set(theirs.lanes)
    )
    return [
        f"its deadline of {plan.request.deadline_ms} ms shuts out the lane of 0x{bridge.hex()}"
        f" {origin}→{destination}, which is in time"
        for bridge, origin, destination in shut
    ]
