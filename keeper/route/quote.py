"""A quote: the best way from one place to another, in whole units, with its bound.

    graph ─▶ drop what is cursed, full or too late ─▶ solve ─▶ flows ─▶ a graph without cycles
          ─▶ amounts in integers, edge by edge ─▶ longest path within the deadline? ─▶ Quote
                                                  no: drop its slowest edge, again

The flows only say in which proportions each place's funds are split; amounts come from exact
integer arithmetic, so rounding, fixed fees and float noise end in less delivered, never in a
promise that cannot be kept. A verifier's limit counts over all its lanes, not per bridge name.
"""

from dataclasses import dataclass

from keeper.route.amounts import Found, Hop, amounts, stranded
from keeper.route.bound import ONE, Certificate, certify, check_bound
from keeper.route.cfmm import Solution
from keeper.route.graph import (
    Edge,
    Graph,
    Lane,
    Place,
    Way,
    edges_of,
    fault_of,
    free,
    gives,
    shape_of,
)
from keeper.route.path import best_path
from keeper.route.pools import Problem
from keeper.route.solve import solve

DUST = 1e-6
"""Less than this share of what leaves or reaches a place is the optimiser's noise."""
_TRIES = 64
_ALONE_PPB = 1_000_000
"""From this gap on the best single path is tried as well: cutting cycles may have cost more."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for.

    Args:
        origin, destination, amount: move this much from there to there.
        deadline_ms: everything must be delivered by then, counted at the 95th percentile; 0: none.
        exposure: most that the lanes of a verifier may carry, in units of the moved asset.
        exclude: bridge addresses not to use.
    """

    origin: Place
    destination: Place
    amount: int
    deadline_ms: int = 0
    exposure: tuple[tuple[bytes, int], ...] = ()
    exclude: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True)
class Quote:
    """The answer.

    Args:
        request: what was asked.
        hops: in an order in which funds are there when they are needed.
        sent, delivered: of the origin's and the destination's asset.
        certificate: no plan over the same graph delivers more than its bound.
        left_out: (edge, why) of what was not usable.
    """

    request: Request
    hops: tuple[Hop, ...]
    sent: int
    delivered: int
    certificate: Certificate
    solver: str
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def latency_ms(self) -> int:
        """Return when the last part is delivered, at the 95th percentile."""
        return max((hop.done_ms for hop in self.hops), default=0)


def usable(graph: Graph, request: Request) -> tuple[Graph, tuple[tuple[str, str], ...]]:
    """Return the part of a graph that a request may use, and why the rest may not."""
    swaps, lanes, why = [], [], []
    for swap in sorted(graph.swaps, key=lambda one: edges_of(one)[0].key()):
        fault = fault_of(swap)
        if fault:
            why.append((name_of(swap), fault))
        else:
            swaps.append(swap)
    for lane in sorted(graph.lanes, key=lambda one: edges_of(one)[0].key()):
        fault = _fault(lane, request)
        if fault:
            why.append((name_of(lane), fault))
        else:
            lanes.append(lane)
    return Graph(tuple(swaps), tuple(lanes)), tuple(why)


def _fault(lane: Lane, request: Request) -> str:
    if lane.cursed:
        return "cursed"
    if lane.bridge in request.exclude:
        return "excluded"
    if fault_of(lane):
        return fault_of(lane)
    if 0 < request.deadline_ms < lane.p95_ms:
        return f"{lane.p95_ms} ms is past the deadline"
    if dict(request.exposure).get(lane.verifier, 1) <= 0:
        return "its verifier's limit is used up"
    return ""


def name_of(way: Way) -> str:
    """Return a short name for an operator."""
    if isinstance(way, Lane):
        return f"bridge 0x{way.bridge.hex()[:8]} {way.origin}→{way.destination}"
    return f"pool 0x{way.venue.hex()[:8]} on {way.chain}"


def priced(graph: Graph, request: Request) -> tuple[Place, ...]:
    """Return the places that a certificate over a usable graph prices, in its order."""
    return tuple(sorted({*graph.places(), request.origin, request.destination}))


def limits_of(request: Request) -> tuple[tuple[bytes, int], ...]:
    """Return the verifiers' limits that a certificate has loads of, in its order."""
    return tuple(sorted(pair for pair in request.exposure if pair[1] > 0))


def problem_of(graph: Graph, request: Request) -> Problem:
    """Return the optimiser's problem of a request over a usable graph."""
    places, limits = priced(graph, request), limits_of(request)
    index = {place: at for at, place in enumerate(places)}
    group = {verifier: at for at, (verifier, _) in enumerate(limits)}
    made = [shape_of(swap, index, -1, 0) for swap in graph.swaps]
    made += [shape_of(lane, index, group.get(lane.verifier, -1), lane.room) for lane in graph.lanes]
    worth = tuple(float(place == request.destination) for place in places)
    held = tuple(float(request.amount) * (place == request.origin) for place in places)
    return Problem(worth, held, tuple(made), tuple(float(limit) for _, limit in limits))


def quote(graph: Graph, request: Request) -> Quote:
    """Return the best plan for a request; it delivers 0 where there is no way.

    Raises:
        ValueError: the amount is not positive, or both places are the same.
    """
    if request.amount <= 0 or request.origin == request.destination:
        raise ValueError("a route moves a positive amount between two places")
    fit, why = usable(graph, request)
    whole = problem_of(fit, request)
    if not whole.pools:
        prices = tuple(ONE if worth else 1 for worth in whole.worth)
        nothing = Certificate(prices, (0,) * len(whole.limits), 0, 1)
        return Quote(request, (), 0, 0, nothing, "none", why)
    solution = solve(whole)
    best = _timely(fit, request, solution)
    for _ in range(_TRIES):  # a lane whose fixed fee costs more than it saves is left out
        small = _smallest(best)
        if small is None:
            break
        fewer = _without(fit, small)
        if not (fewer.swaps or fewer.lanes):
            break
        other = _timely(fewer, request, solve(problem_of(fewer, request)))
        if other.delivered <= best.delivered:
            break
        fit, best = fewer, other
    sealed = certify(whole, solution, best.delivered)
    if sealed.gap_ppb > _ALONE_PPB:
        alone = _alone(usable(graph, request)[0], request)
        if alone.delivered > best.delivered:
            best, sealed = alone, certify(whole, solution, alone.delivered)
    return Quote(request, best.hops, best.sent, best.delivered, sealed, solution.solver, why)


def _timely(graph: Graph, request: Request, solution: Solution) -> Found:
    """Return the amounts of a solution, solving again without what makes a path late."""
    for _ in range(_TRIES):
        found = _whole(_acyclic(_shares(graph, request, solution), request), request)
        late = _slowest(found, request)
        if late is None:
            return found
        graph = _without(graph, late)
        if not (graph.swaps or graph.lanes):
            break
        solution = solve(problem_of(graph, request))
    return Found()


def _alone(graph: Graph, request: Request) -> Found:
    """Return the amounts of the best single path."""
    ends = request.origin, request.destination
    path = best_path(graph, ends, request.amount, request.deadline_ms, request.exposure)
    return _whole(dict.fromkeys(path, 1.0), request)


def _whole(flows: dict[Edge, float], request: Request) -> Found:
    return amounts(flows, (request.origin, request.destination), request.amount, request.exposure)


def _without(graph: Graph, way: Way) -> Graph:
    return Graph(
        tuple(swap for swap in graph.swaps if swap is not way),
        tuple(lane for lane in graph.lanes if lane is not way),
    )


def _smallest(found: Found) -> Lane | None:
    """Return the lane that carries least of those with a fixed fee, if there are two or more."""
    lanes = [(hop.amount, hop.edge.way) for hop in found.hops if isinstance(hop.edge.way, Lane)]
    paying = [(amount, lane) for amount, lane in lanes if lane.fee_fixed]
    if len(lanes) < 2 or not paying:
        return None
    return min(paying, key=lambda pair: pair[0])[1]


def _shares(graph: Graph, request: Request, solution: Solution) -> dict[Edge, float]:
    """Return what each edge takes in, without what is only noise."""
    ways: tuple[Way, ...] = (*graph.swaps, *graph.lanes)
    taken: dict[Edge, float] = {}
    given: dict[Edge, float] = {}
    for place, _, flows in solution.by_pool():
        slot = 0 if flows[0] < flows[1] else 1
        if flows[slot] < 0:
            edge = edges_of(ways[place])[slot]
            taken[edge] = taken.get(edge, 0.0) - flows[slot]
            given[edge] = given.get(edge, 0.0) + flows[1 - slot]
    out: dict[Place, float] = {}
    into: dict[Place, float] = {}
    for edge, sent in taken.items():
        out[edge.origin] = out.get(edge.origin, 0.0) + sent
        into[edge.destination] = into.get(edge.destination, 0.0) + given[edge]
    kept = {
        edge: sent
        for edge, sent in taken.items()
        if sent > DUST * out[edge.origin] and given[edge] > DUST * into[edge.destination]
    }
    return _cheapest_first(graph, kept, request)


def _cheapest_first(graph: Graph, flows: dict[Edge, float], request: Request) -> dict[Edge, float]:
    """Return the flows with parallel straight lanes filled in the order of their fees.

    An interior point method leaves a little on a lane that is dearer by next to nothing.
    """
    limited = {verifier for verifier, _ in request.exposure}
    groups: dict[tuple[Place, Place], list[Edge]] = {}
    for lane in graph.lanes:
        if not lane.curvature and lane.verifier not in limited:
            edge = edges_of(lane)[0]
            groups.setdefault((edge.origin, edge.destination), []).append(edge)
    sharp = dict(flows)
    for edges in groups.values():
        rest = sum(sharp.pop(edge, 0.0) for edge in edges)
        for edge in sorted(edges, key=_dearness):
            part = min(rest, float(free(edge, {})))
            rest -= part
            if part > 0:
                sharp[edge] = part
    return sharp


def _dearness(edge: Edge) -> tuple[int, int, tuple[object, ...]]:
    fee = edge.way.fee_ppm
    return fee, edge.latency_ms, edge.key()


def _acyclic(flows: dict[Edge, float], request: Request) -> dict[Edge, float]:
    """Return the edges on paths from origin to destination, each cycle cut at its least flow."""
    left = dict(flows)
    while cycle := _cycle(left):
        del left[min(cycle, key=lambda edge: (left[edge], edge.key()))]
    ahead = _reached(request.origin, [(edge.origin, edge.destination) for edge in left])
    back = _reached(request.destination, [(edge.destination, edge.origin) for edge in left])
    return {
        edge: sent
        for edge, sent in left.items()
        if edge.origin in ahead and edge.destination in back
    }


def _reached(start: Place, arrows: list[tuple[Place, Place]]) -> set[Place]:
    found, fresh = {start}, [start]
    while fresh:
        here = fresh.pop()
        for origin, destination in arrows:
            if origin == here and destination not in found:
                found.add(destination)
                fresh.append(destination)
    return found


def _cycle(flows: dict[Edge, float]) -> list[Edge]:
    """Return the edges of one cycle, or none."""
    after: dict[Place, list[Edge]] = {}
    for one in sorted(flows, key=Edge.key):
        after.setdefault(one.origin, []).append(one)
    closed: set[Place] = set()
    for start in sorted(after):
        edge: Edge | None
        path: list[Edge] = []
        trail: list[Place] = [start]
        ways = [iter(after.get(start, ()))]
        while ways:
            edge = next(ways[-1], None)
            if edge is None:
                ways.pop()
                closed.add(trail.pop())
                path = path[:-1]
            elif edge.destination in trail:
                return [*path[trail.index(edge.destination) :], edge]
            elif edge.destination not in closed:
                path.append(edge)
                trail.append(edge.destination)
                ways.append(iter(after.get(edge.destination, ())))
    return []


def _slowest(found: Found, request: Request) -> Way | None:
    """Return the slowest way of a path that is past the deadline, or None."""
    if not request.deadline_ms:
        return None
    late = [hop for hop in found.hops if hop.done_ms > request.deadline_ms]
    if not late:
        return None
    hop = max(late, key=lambda one: (one.done_ms, one.edge.key()))
    path = [hop]
    while hop.done_ms > hop.edge.latency_ms:
        wanted = hop.done_ms - hop.edge.latency_ms
        hop = next(
            one
            for one in found.hops
            if one.edge.destination == hop.edge.origin and one.done_ms == wanted
        )
        path.append(hop)
    return max(path, key=lambda one: (one.edge.latency_ms, one.edge.key())).edge.way


def check_quote(graph: Graph, request: Request, answer: Quote, allowed_ppb: int) -> str | None:
    """Return what is wrong with a peer's quote, or None.

    One pass over the hops and one over the pools: nothing is solved again.

    Args:
        graph: as seen here.
        request: as this keeper derives it; a plan for anything else is no answer.
        answer: what the peer proposes.
        allowed_ppb: largest gap to accept.
    """
    if answer.request != request:
        return "the plan answers another request"
    fit, _ = usable(graph, request)
    ways = {*fit.swaps, *fit.lanes}
    have: dict[Place, int] = {request.origin: request.amount}
    ready: dict[Place, int] = {}
    groups = dict(request.exposure)
    used: set[Way] = set()
    for hop in answer.hops:
        edge = hop.edge
        if edge.way not in ways or edge not in edges_of(edge.way):
            return f"{name_of(edge.way)} is not usable here"
        if edge.way in used:
            return f"{name_of(edge.way)} is used twice"
        used.add(edge.way)
        if not 0 < hop.amount <= min(free(edge, groups), have.get(edge.origin, 0)):
            return f"{name_of(edge.way)} is sent more than is there, or than it takes"
        if not 0 < hop.least_out <= gives(edge, hop.amount):
            return f"{name_of(edge.way)} does not give {hop.least_out}"
        if hop.done_ms < ready.get(edge.origin, 0) + edge.latency_ms:
            return f"{name_of(edge.way)} is slower than claimed"
        if isinstance(edge.way, Lane) and edge.way.verifier in groups:
            groups[edge.way.verifier] -= hop.amount
        have[edge.origin] -= hop.amount
        have[edge.destination] = have.get(edge.destination, 0) + hop.least_out
        ready[edge.destination] = max(ready.get(edge.destination, 0), hop.done_ms)
    if 0 < request.deadline_ms < answer.latency_ms:
        return "the plan is past its deadline"
    if answer.sent != sum(hop.amount for hop in answer.hops if hop.edge.origin == request.origin):
        return "the plan sends another amount than it claims"
    left = stranded(answer.hops, request.destination)
    if left:
        place, amount = min(left.items())
        return f"the plan leaves {amount} on chain {place.chain}"
    if have.get(request.destination, 0) < max(answer.delivered, answer.certificate.value):
        return "the plan does not deliver what it claims"
    return check_bound(problem_of(fit, request), answer.certificate, allowed_ppb)
