"""Rebalancing one asset over chains: which lanes to pay for, and how much on each path.

    surplus ──paths of at most two lanes, none later than the deadline──▶ need

    minimise  Σ (fees + expected loss)·x  +  Σ fixed·u  +  weight·CVaR
    so that   what leaves a chain ≤ its surplus          Σ gain·x ≥ need
              Σ x on a lane ≤ room·u, u ∈ {0, 1}         a lane is paid for once
              Σ x over a verifier's lanes ≤ its limit    lanes of one validator set count together
              t + Σ pₛzₛ/(1 − α) ≤ CVaR limit            zₛ ≥ loss(scenario s) − t ≥ 0

A mixed-integer programme (`keeper.route.programme`: HiGHS, one thread, a bounded number of nodes
and no clock), then whole amounts within every limit (`keeper.route.moves`). If fixed fees and
rounding do not fit where the programme filled everything, it is asked again for as much more.
Source: Rockafellar and Uryasev, "Optimization of Conditional Value-at-Risk", 2000, for the CVaR.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from keeper.route.graph import Lane, edges_of, fault_of
from keeper.route.moves import Move, Path, Task, cost_of, exposure_of, fee_ppm, tighter, whole
from keeper.route.programme import search
from keeper.route.risk import failure_ppm
from keeper.units import PPM, ChainId

__all__ = ["Move", "Rebalance", "Task", "cost_of", "exposure_of", "paths_of", "rebalance"]

MAX_LANES = 2
"""A third crossing costs another fee, hazard and wait, and paths grow with the power of lanes."""
PER_PAIR = 8
"""Detours kept of each (surplus, need) pair, cheapest first; direct lanes are all kept."""
NODES = 500
"""Nodes of the search: problems of sixteen chains take at most a hundred."""
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Rebalance:
    """The plan.

    Args:
        moves: cheapest paths first; empty where no plan was found.
        cost: fees, gas, expected loss and the priced tail, rounded up.
        bound: no plan costs less than this by the solver's proof.
        status: "optimal", "limit" (the search ended before a proof), or "infeasible".
    """

    moves: tuple[Move, ...]
    cost: int
    bound: int
    status: str


def paths_of(lanes: Sequence[Lane], task: Task) -> tuple[Path, ...]:
    """Return the paths from surplus to need that are in time, cheapest first."""
    gas = dict(task.gas)
    usable = sorted(
        (lane for lane in lanes if not lane.cursed and not fault_of(lane) and fee_ppm(lane) < PPM),
        key=lambda lane: edges_of(lane)[0].key(),
    )
    out: dict[ChainId, list[Lane]] = {}
    for lane in usable:
        out.setdefault(lane.origin, []).append(lane)
    needing = {chain for chain, amount in task.need if amount > 0}
    having = sorted(chain for chain, amount in task.surplus if amount > 0)
    found: list[Path] = []
    fresh: list[Path] = [(lane,) for chain in having for lane in out.get(chain, ())]
    fresh = [path for path in fresh if _in_time(path, task)]
    for _ in range(MAX_LANES - 1):
        found += fresh
        fresh = [
            (*path, lane)
            for path in fresh
            for lane in out.get(path[-1].destination, ())
            if lane.destination not in {path[0].origin, *(one.destination for one in path)}
            and _in_time((*path, lane), task)
        ]
    found = [path for path in (*found, *fresh) if path[-1].destination in needing]
    found.sort(key=lambda path: (_rank(path, gas), [edges_of(lane)[0].key() for lane in path]))
    kept: list[Path] = []
    taken: dict[tuple[ChainId, ChainId], int] = {}
    for path in found:
        pair = (path[0].origin, path[-1].destination)
        if len(path) > 1:
            taken[pair] = taken.get(pair, 0) + 1
        if len(path) == 1 or taken[pair] <= PER_PAIR:
            kept.append(path)
    return tuple(kept)


def _in_time(path: Path, task: Task) -> bool:
    return not task.deadline_ms or sum(lane.p95_ms for lane in path) <= task.deadline_ms


def _rank(path: Path, gas: dict[ChainId, int]) -> tuple[int, int]:
    fees = sum(fee_ppm(lane) + failure_ppm(lane) for lane in path)
    return fees, sum(lane.fee_fixed + gas.get(lane.origin, 0) for lane in path)


def rebalance(lanes: Sequence[Lane], task: Task, nodes: int = NODES) -> Rebalance:
    """Return the cheapest set of moves that meets the task.

    The same lanes, task and solver version give the same plan, however fast the machine is.

    Args:
        lanes: of one asset; cursed, full and slow ones are left out here.
        task: what to move, and within which limits.
        nodes: how far to search for a proof that nothing is cheaper.
    """
    if not any(amount > 0 for _, amount in task.need):
        return Rebalance((), 0, 0, "optimal")
    paths = paths_of(lanes, task)
    if not paths:
        return Rebalance((), 0, 0, "infeasible")
    found = search(paths, task, nodes)
    bound, status, asked, offered = found.bound, found.status, task, paths
    for _ in range(_TRIES):
        if not found.amounts:
            return Rebalance((), 0, 0, found.status)
        book = whole(offered, found.amounts, task)
        more = tighter(asked, book, task)
        if more is None:
            moves = book.moves()
            spent = cost_of(moves, task)
            # the bound is of the task itself, not of one that asks for more
            return Rebalance(moves, spent, min(bound, spent), status)
        chosen = {lane for path in book.sent for lane in path}
        asked, offered = more, tuple(path for path in paths if chosen.issuperset(path))
        found = search(offered, asked, nodes)
        if not found.amounts:  # not over the lanes chosen first
            offered = paths
            found = search(offered, asked, nodes)
    return Rebalance((), 0, 0, "infeasible")
