"""Rebalancing one asset over chains: which lanes to pay for, and how much on each path.

    surplus ──paths of at most two lanes, none later than the deadline──▶ need

    minimise  Σ (fees + expected loss)·x  +  Σ fixed·u  +  weight·CVaR
    so that   what leaves a chain ≤ its surplus          Σ gain·x ≥ need
              Σ x on a lane ≤ room·u, u ∈ {0, 1}         a lane is paid for once
              Σ x over a verifier's lanes ≤ its limit    lanes of one validator set count together
              t + Σ pₛzₛ/(1 − α) ≤ CVaR limit            zₛ ≥ loss(scenario s) − t ≥ 0

A mixed-integer programme (HiGHS, one thread). Amounts are rounded down and every limit is checked
again in integers; what rounding costs the need was ordered on top.
Source: Rockafellar and Uryasev, "Optimization of Conditional Value-at-Risk", 2000, for the CVaR.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from scipy import sparse

from keeper.route.banks import Floats
from keeper.route.graph import Lane, edges_of
from keeper.route.risk import Scenario, cvar, failure_ppm
from keeper.units import PPM, ChainId, ceil_div

MAX_LANES = 2
"""A third crossing costs another fee, hazard and wait, and paths grow with the power of lanes."""
PER_PAIR = 8
"""Detours kept of each (surplus, need) pair, cheapest first; direct lanes are all kept."""
_GAP = 1e-4


@dataclass(frozen=True, slots=True)
class Task:
    """What to move, in units of one asset.

    Args:
        surplus: (chain, most that may leave).
        need: (chain, least that must arrive).
        deadline_ms: counted at the 95th percentile of each crossing; 0: none.
        gas: (chain, cost of one send in the asset's unit).
        exposure: (verifier, most in flight behind it).
        cases, alpha_ppm, cvar_limit: the tail risk; a limit of 0 is none.
        cvar_ppm: price of a unit of CVaR in the objective.
    """

    surplus: tuple[tuple[ChainId, int], ...]
    need: tuple[tuple[ChainId, int], ...]
    deadline_ms: int = 0
    gas: tuple[tuple[ChainId, int], ...] = ()
    exposure: tuple[tuple[bytes, int], ...] = ()
    cases: tuple[Scenario, ...] = ()
    alpha_ppm: int = 950_000
    cvar_limit: int = 0
    cvar_ppm: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """An amount over one path; `arrives` is rounded down and its fixed fees are counted once."""

    path: tuple[Lane, ...]
    amount: int
    arrives: int
    latency_ms: int


@dataclass(frozen=True, slots=True)
class Rebalance:
    """The plan.

    Args:
        moves: sorted; empty where nothing feasible was found.
        cost: fees, gas, expected loss and the priced tail, rounded up.
        bound: no plan costs less than this by the solver's proof.
        status: "optimal", "time" (best found in time), or "infeasible".
    """

    moves: tuple[Move, ...]
    cost: int
    bound: int
    status: str


def paths_of(lanes: Sequence[Lane], task: Task) -> tuple[tuple[Lane, ...], ...]:
    """Return the paths from surplus to need that are in time, cheapest first."""
    gas = dict(task.gas)
    usable = sorted(
        (lane for lane in lanes if not lane.cursed and lane.room > lane.fee_fixed),
        key=lambda lane: edges_of(lane)[0].key(),
    )
    out: dict[ChainId, list[Lane]] = {}
    for lane in usable:
        out.setdefault(lane.origin, []).append(lane)
    needing = {chain for chain, amount in task.need if amount > 0}
    having = sorted(chain for chain, amount in task.surplus if amount > 0)
    found: list[tuple[Lane, ...]] = []
    fresh: list[tuple[Lane, ...]] = [(lane,) for chain in having for lane in out.get(chain, ())]
    fresh = [path for path in fresh if _in_time(path, task)]
    for _ in range(MAX_LANES):
        found += [path for path in fresh if path[-1].destination in needing]
        fresh = [
            (*path, lane)
            for path in fresh
            for lane in out.get(path[-1].destination, ())
            if lane.destination not in {path[0].origin, *(one.destination for one in path)}
            and _in_time((*path, lane), task)
        ]
    found.sort(key=lambda path: (_rank(path, gas), [edges_of(lane)[0].key() for lane in path]))
    kept: list[tuple[Lane, ...]] = []
    taken: dict[tuple[ChainId, ChainId], int] = {}
    for path in found:
        pair = (path[0].origin, path[-1].destination)
        if len(path) > 1:
            taken[pair] = taken.get(pair, 0) + 1
        if len(path) == 1 or taken[pair] <= PER_PAIR:
            kept.append(path)
    return tuple(kept)


def _in_time(path: tuple[Lane, ...], task: Task) -> bool:
    return not task.deadline_ms or sum(lane.p95_ms for lane in path) <= task.deadline_ms


def _rank(path: tuple[Lane, ...], gas: dict[ChainId, int]) -> tuple[int, int]:
    fees = sum(_fee_ppm(lane) + failure_ppm(lane) for lane in path)
    return fees, sum(lane.fee_fixed + gas.get(lane.origin, 0) for lane in path)


class _Rows:
    """Linear rows, gathered as triplets."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.rows: list[int] = []
        self.places: list[int] = []
        self.entries: list[float] = []
        self.low: list[float] = []
        self.high: list[float] = []

    def add(self, terms: Sequence[tuple[int, float]], low: float, high: float) -> None:
        """Add low ≤ Σ entry·x ≤ high."""
        self.rows += [len(self.low)] * len(terms)
        self.places += [place for place, _ in terms]
        self.entries += [entry for _, entry in terms]
        self.low.append(low)
        self.high.append(high)

    def matrix(self) -> sparse.csr_matrix:
        """Return the rows, compressed."""
        shape = (len(self.low), self.columns)
        return sparse.csr_matrix((self.entries, (self.rows, self.places)), shape=shape)


def rebalance(lanes: Sequence[Lane], task: Task, seconds: float = 4.0) -> Rebalance:
    """Return the cheapest set of moves that meets the task.

    Args:
        lanes: of one asset.
        task: what to move, and within which limits.
        seconds: longest to search; the best plan found by then is returned with its bound.
    """
    if not any(amount > 0 for _, amount in task.need):
        return Rebalance((), 0, 0, "optimal")
    paths = paths_of(lanes, task)
    if not paths:
        return Rebalance((), 0, 0, "infeasible")
    used = sorted({lane for path in paths for lane in path}, key=lambda one: edges_of(one)[0].key())
    unit = float(max(amount for _, amount in task.need))
    cost, rows = _model(paths, used, task, unit)
    ceiling = np.full(len(cost), highspy.kHighsInf)
    ceiling[len(paths) : len(paths) + len(used)] = 1.0
    status, point, bound = _solve(cost, rows, ceiling, (len(paths), len(used)), seconds)
    if point is None:
        return Rebalance((), 0, 0, "infeasible")
    moves = _moves(paths, [max(float(share), 0.0) * unit for share in point[: len(paths)]], task)
    if moves is None:
        return Rebalance((), 0, 0, "infeasible")
    spent = cost_of(moves, task)
    return Rebalance(moves, spent, min(int(bound * unit), spent), status)


def _gain(path: tuple[Lane, ...]) -> float:
    gain = 1.0
    for lane in path:
        gain *= (PPM - _fee_ppm(lane)) / PPM
    return gain


def _fee_ppm(lane: Lane) -> int:
    """Return the fee with what a lane filled to its room loses, so that paths add up."""
    bend = ceil_div(lane.room * PPM, 2 * lane.curvature) if lane.curvature else 0
    return min(lane.fee_ppm + bend, PPM)


def _arrives(lane: Lane, amount: int) -> int:
    return max(amount - ceil_div(amount * _fee_ppm(lane), PPM) - lane.fee_fixed, 0)


def _model(
    paths: Sequence[tuple[Lane, ...]], used: Sequence[Lane], task: Task, unit: float
) -> tuple[Floats, _Rows]:
    """Return the objective and the rows; columns are x per path, u per lane, t, z per case."""
    many, lanes, cases = len(paths), len(used), len(task.cases)
    slot = {lane: many + at for at, lane in enumerate(used)}
    gas = dict(task.gas)
    rows = _Rows(many + lanes + (1 + cases if cases else 0))
    cost = np.zeros(rows.columns)
    through: dict[Lane, list[tuple[int, float]]] = {lane: [] for lane in used}
    guarded: dict[bytes, dict[int, float]] = {}
    for at, path in enumerate(paths):
        cost[at] = 1.0 - _gain(path) + sum(failure_ppm(lane) for lane in path) / PPM
        for lane in path:
            through[lane].append((at, 1.0))
            seen = guarded.setdefault(lane.verifier, {})
            seen[at] = seen.get(at, 0.0) + 1.0
    for lane in used:
        cost[slot[lane]] = (lane.fee_fixed + gas.get(lane.origin, 0)) / unit
        wanted = {paths[at][-1].destination for at, _ in through[lane]}
        useful = sum(amount for chain, amount in task.need if chain in wanted) * 11 // 10
        having = {paths[at][0].origin for at, _ in through[lane]}
        there = sum(amount for chain, amount in task.surplus if chain in having)
        # the tighter this factor of u, the less the search has to branch; a tenth pays the fees
        room = min(lane.room, there, useful + 1000 * lane.fee_fixed) / unit
        rows.add([*through[lane], (slot[lane], -room)], -highspy.kHighsInf, 0.0)
    spread = len(paths) + lanes + 1  # what flooring may take from a need
    for chain, amount in task.surplus:
        terms = [(at, 1.0) for at, path in enumerate(paths) if path[0].origin == chain]
        rows.add(terms, 0.0, max(amount, 0) / unit)
    for chain, amount in task.need:
        ending = [(at, path) for at, path in enumerate(paths) if path[-1].destination == chain]
        terms = [(at, _gain(path)) for at, path in ending]
        fixed = {slot[lane]: -lane.fee_fixed / unit for _, path in ending for lane in path}
        if amount > 0:
            rows.add([*terms, *fixed.items()], (amount + spread) / unit, highspy.kHighsInf)
    for verifier, limit in task.exposure:
        rows.add(sorted(guarded.get(verifier, {}).items()), 0.0, max(limit, 0) / unit)
    if cases:
        _tail(rows, cost, guarded, task, unit)
    return cost, rows


def _tail(
    rows: _Rows, cost: Floats, guarded: dict[bytes, dict[int, float]], task: Task, unit: float
) -> None:
    """Add the CVaR of what is in flight, as a limit, a price, or both."""
    first = rows.columns - 1 - len(task.cases)
    share = (PPM - task.alpha_ppm) / PPM
    terms = [(first, 1.0)]
    for at, case in enumerate(task.cases):
        lost: dict[int, float] = {}
        for verifier in sorted(case.failed):
            for path, amount in guarded.get(verifier, {}).items():
                lost[path] = lost.get(path, 0.0) + amount
        rows.add(
            [(first, -1.0), (first + 1 + at, -1.0), *sorted(lost.items())],
            -highspy.kHighsInf,
            0.0,
        )
        terms.append((first + 1 + at, case.chance_ppt / 1e12 / share))
    for place, weight in terms:
        cost[place] = weight * task.cvar_ppm / PPM
    if task.cvar_limit:
        rows.add(terms, -highspy.kHighsInf, task.cvar_limit / unit)


def _solve(
    cost: Floats, rows: _Rows, ceiling: Floats, shape: tuple[int, int], seconds: float
) -> tuple[str, Floats | None, float]:
    """Return the status, the point if there is one, and the proven bound."""
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # an untyped binding
    for name, value in (
        ("output_flag", False),
        ("threads", 1),
        ("parallel", "off"),
        ("random_seed", 0),
        ("mip_rel_gap", _GAP),
        ("time_limit", seconds),
    ):
        solver.setOptionValue(name, value)
    matrix = rows.matrix()
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(cost), len(rows.low)
    model.col_cost_, model.col_lower_, model.col_upper_ = cost, np.zeros(len(cost)), ceiling
    model.row_lower_, model.row_upper_ = np.array(rows.low), np.array(rows.high)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = matrix.indptr
    model.a_matrix_.index_ = matrix.indices
    model.a_matrix_.value_ = matrix.data
    kinds = [highspy.HighsVarType.kContinuous] * len(cost)
    kinds[shape[0] : shape[0] + shape[1]] = [highspy.HighsVarType.kInteger] * shape[1]
    model.integrality_ = kinds
    solver.passModel(model)
    solver.run()
    info = solver.getInfo()
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return "infeasible", None, 0.0
    ended = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    point = np.array(solver.getSolution().col_value)
    return ("optimal" if ended else "time"), point, max(float(info.mip_dual_bound), 0.0)


def _moves(
    paths: Sequence[tuple[Lane, ...]], amounts: Sequence[float], task: Task
) -> tuple[Move, ...] | None:
    """Return whole amounts within every limit, or None if rounding broke one."""
    surplus, limits = dict(task.surplus), dict(task.exposure)
    room: dict[Lane, int] = {}
    paid: set[Lane] = set()
    moves = []
    for path, amount in zip(paths, amounts, strict=True):
        whole = min(int(amount), surplus.get(path[0].origin, 0))
        whole = min([whole, *(room.get(lane, lane.room) for lane in path)])
        for verifier in {lane.verifier for lane in path} & set(limits):
            crossings = sum(lane.verifier == verifier for lane in path)
            whole = min(whole, limits[verifier] // crossings)
        arrives = whole
        for lane in path:
            # a lane's fixed fee is paid once, by the first path that takes it
            extra = lane.fee_fixed if lane in paid else 0
            arrives = _arrives(lane, arrives) + (extra if arrives > 0 else 0)
        if whole <= 0 or arrives <= 0:
            continue
        surplus[path[0].origin] -= whole
        for lane in path:
            paid.add(lane)
            room[lane] = room.get(lane, lane.room) - whole
            if lane.verifier in limits:
                limits[lane.verifier] -= whole
        moves.append(Move(path, whole, arrives, sum(lane.p95_ms for lane in path)))
    for chain, amount in task.need:
        if sum(move.arrives for move in moves if move.path[-1].destination == chain) < amount:
            return None
    exposed = exposure_of(moves)
    if task.cvar_limit and cvar(exposed, task.cases, task.alpha_ppm) > task.cvar_limit + len(moves):
        return None
    return tuple(moves)


def exposure_of(moves: Sequence[Move]) -> dict[bytes, int]:
    """Return what each verifier guards while the moves are in flight."""
    exposed: dict[bytes, int] = {}
    for move in moves:
        for lane in move.path:
            exposed[lane.verifier] = exposed.get(lane.verifier, 0) + move.amount
    return exposed


def cost_of(moves: Sequence[Move], task: Task) -> int:
    """Return fees, gas, expected loss and priced tail of the moves, rounded up."""
    gas = dict(task.gas)
    total = sum(move.amount - move.arrives for move in moves)
    total += sum(gas.get(lane.origin, 0) for lane in {one for move in moves for one in move.path})
    lost = sum(move.amount * failure_ppm(lane) for move in moves for lane in move.path)
    tail = cvar(exposure_of(moves), task.cases, task.alpha_ppm) if task.cvar_ppm else 0
    return total + ceil_div(lost, PPM) + ceil_div(tail * task.cvar_ppm, PPM)
