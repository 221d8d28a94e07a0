"""The mixed-integer programme of a rebalancing, and HiGHS on it.

    columns   x per path ≥ 0 | u per lane ∈ {0, 1} | t | z per scenario ≥ 0
    minimise  Σ (1 − gain + failure)·x + Σ (fixed + gas)·u + price·(t + Σ pₛzₛ/(1 − α))
    rows      Σ x on a lane ≤ room·u;  the same for its flow to each need and from each surplus
              at least k lanes into a need, where no k − 1 of them can carry it
              Σ gain·x ≥ need;  Σ x ≤ surplus;  a verifier's limit;  CVaR

x is what a path carries after fixed fees, and the rows after the first are implied by it in whole
numbers: they only cut off fractions, which is what a search spends its time on. The programme is a
relaxation of the task, so its bound holds for every plan. Costs are scaled: HiGHS compares them
with absolute tolerances, and at a millionth of what is moved it calls wrong answers optimal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import highspy
import numpy as np
from scipy import sparse

from keeper.route.banks import Floats
from keeper.route.graph import Lane, edges_of
from keeper.route.moves import Path, Task, fee_ppm
from keeper.route.risk import failure_ppm
from keeper.units import PPM, ChainId

_GAP = 1e-4
_SCALE = 1e6
"""Costs are counted in millionths of the largest need."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the search found.

    Args:
        status: "optimal", "limit" or "infeasible".
        amounts: of each path, after fixed fees, in the task's unit; empty if there is no plan.
        bound: no plan costs less.
    """

    status: str
    amounts: tuple[float, ...] = ()
    bound: int = 0


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


def search(paths: Sequence[Path], task: Task, nodes: int) -> Answer:
    """Return the cheapest amounts on some paths; the search ends after a number of nodes."""
    used = sorted({lane for path in paths for lane in path}, key=lambda one: edges_of(one)[0].key())
    unit = float(max(amount for _, amount in task.need))
    cost, rows = _model(paths, used, task, unit)
    ceiling = np.full(len(cost), highspy.kHighsInf)
    ceiling[len(paths) : len(paths) + len(used)] = 1.0
    shape = (len(paths), len(used))
    status, point, bound = _solve(cost * _SCALE, rows, ceiling, shape, nodes)
    if point is None:
        return Answer(status)
    paid = zip(used, point[len(paths) :].tolist(), strict=False)
    taken = {lane for lane, share in paid if share > 0.5}
    amounts = tuple(
        max(share, 0.0) * unit if taken.issuperset(path) else 0.0
        for path, share in zip(paths, point.tolist(), strict=False)
    )
    return Answer(status, amounts, int(bound / _SCALE * unit))


def gain_of(path: Path) -> float:
    """Return what arrives of a unit sent, before fixed fees."""
    gain = 1.0
    for lane in path:
        gain *= (PPM - fee_ppm(lane)) / PPM
    return gain


def _model(
    paths: Sequence[Path], used: Sequence[Lane], task: Task, unit: float
) -> tuple[Floats, _Rows]:
    """Return the objective and the rows."""
    many, cases = len(paths), len(task.cases)
    slot = {lane: many + at for at, lane in enumerate(used)}
    gas = dict(task.gas)
    rows = _Rows(many + len(used) + (1 + cases if cases else 0))
    cost = np.zeros(rows.columns)
    through: dict[Lane, list[int]] = {lane: [] for lane in used}
    guarded: dict[bytes, dict[int, float]] = {}
    for at, path in enumerate(paths):
        cost[at] = 1.0 - gain_of(path) + sum(failure_ppm(lane) for lane in path) / PPM
        for lane in path:
            through[lane].append(at)
            seen = guarded.setdefault(lane.verifier, {})
            seen[at] = seen.get(at, 0.0) + 1.0
            seen[slot[lane]] = lane.fee_fixed / unit  # what pays the fee is on the lane as well
    carries: dict[Lane, float] = {}
    for lane in used:
        cost[slot[lane]] = (lane.fee_fixed + gas.get(lane.origin, 0)) / unit
        carries[lane] = _linked(rows, paths, task, lane, slot[lane], through[lane], unit)
    for chain, amount in task.surplus:
        terms = [(at, 1.0) for at, path in enumerate(paths) if path[0].origin == chain]
        fees = [
            (slot[lane], lane.fee_fixed / unit)
            for lane in used
            if lane.origin == chain and all(paths[at][0] is lane for at in through[lane])
        ]
        rows.add([*terms, *fees], 0.0, max(amount, 0) / unit)
    for chain, amount in task.need:
        ending = [at for at, path in enumerate(paths) if path[-1].destination == chain]
        if amount > 0:
            terms = [(at, gain_of(paths[at])) for at in ending]
            rows.add(terms, amount / unit, highspy.kHighsInf)
            into = {slot[lane]: carries[lane] for lane in used if lane.destination == chain}
            _counted(rows, into, amount)
    for verifier, limit in task.exposure:
        rows.add(sorted(guarded.get(verifier, {}).items()), 0.0, max(limit, 0) / unit)
    if cases:
        _tail(rows, cost, guarded, task, unit)
    return cost, rows


def _linked(
    rows: _Rows,
    paths: Sequence[Path],
    task: Task,
    lane: Lane,
    slot: int,
    through: Sequence[int],
    unit: float,
) -> float:
    """Add that a lane carries nothing unless it is paid for; return the most it can carry."""
    surplus, need = dict(task.surplus), dict(task.need)
    ending: dict[ChainId, list[int]] = {}
    starting: dict[ChainId, list[int]] = {}
    for at in through:
        ending.setdefault(paths[at][-1].destination, []).append(at)
        starting.setdefault(paths[at][0].origin, []).append(at)
    most = min(float(lane.room - lane.fee_fixed), float(sum(surplus[one] for one in starting)))
    # more than a need is never worth sending
    useful = {
        chain: need[chain] / min(gain_of(paths[at]) for at in group)
        for chain, group in ending.items()
    }
    groups = [(through, min(most, sum(useful.values())))]
    if len(ending) > 1:
        groups += [(group, min(most, useful[chain])) for chain, group in ending.items()]
    if len(starting) > 1:
        groups += [(group, min(most, surplus[chain])) for chain, group in starting.items()]
    for group, limit in groups:
        rows.add([*((at, 1.0) for at in group), (slot, -limit / unit)], -highspy.kHighsInf, 0.0)
    return most


def _counted(rows: _Rows, into: dict[int, float], amount: int) -> None:
    """Add how many lanes a need takes at least."""
    count, carried = 0, 0.0
    for most in sorted(into.values(), reverse=True):
        if carried >= amount:
            break
        carried += most
        count += 1
    rows.add([(slot, 1.0) for slot in into], float(count), highspy.kHighsInf)


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
            for column, amount in guarded.get(verifier, {}).items():
                lost[column] = lost.get(column, 0.0) + amount
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
    cost: Floats, rows: _Rows, ceiling: Floats, shape: tuple[int, int], nodes: int
) -> tuple[str, Floats | None, float]:
    """Return the status, the point if there is one, and the proven bound."""
    solver = highspy.Highs()  # type: ignore[no-untyped-call]  # an untyped binding
    for name, value in (
        ("output_flag", False),
        ("threads", 1),
        ("parallel", "off"),
        ("random_seed", 0),
        ("mip_rel_gap", _GAP),
        ("mip_max_nodes", nodes),
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
    ended = solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        cut = solver.getModelStatus() == highspy.HighsModelStatus.kSolutionLimit
        return ("limit" if cut else "infeasible"), None, 0.0
    point = np.array(solver.getSolution().col_value)
    return ("optimal" if ended else "limit"), point, max(float(info.mip_dual_bound), 0.0)
