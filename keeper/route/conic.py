"""The conic router: Clarabel, for problems whose dual has kinks (linear lanes, constant sums).

    per (token, pool)   tendered a ≥ 0, received b ≥ 0, as shares of the pool's reserve R
                        x = 1 + γa − b  in the pool's cone:  x₁x₂ ≥ 1 · Π xᵢ^wᵢ ≥ 1 · Σ Rᵢxᵢ ≥ ΣRᵢ
    per lane            sent s ∈ [0, C];  received = g·s − q,  q ≥ s²/(2κ)
    per token           Ψ + h ≥ 0        its multiplier is ν − c
    per limited group   Σ load·s ≤ limit its multiplier is θ

Shares of the reserve keep the numbers near one; the unscaled model fails. The multipliers give the
same bound as the dual router's, so one checker serves both.
Source: Diamandis, Angeris, Edelman, "Convex Network Flows", arXiv 2404.00765, section 4.
"""

from dataclasses import dataclass, field
from typing import Any

import clarabel
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from keeper.route.banks import Bank, Curves, Floats, Lanes, Means, Pairs, Places, Totals
from keeper.route.cfmm import Market, Solution, judge

REGULARISATIONS = (1e-10, 1e-12, 1e-8)
"""To try in turn: the solver's own 1e-8 stalls where a price is almost zero, less rarely does."""
_WORTHLESS = 1e-4
_Term = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""Row within a block, column, entry."""


@dataclass(slots=True)
class _Model:
    """Rows A·z + s = b with s in a cone, gathered as triplets."""

    columns: int = 0
    rows: int = 0
    triplets: list[_Term] = field(default_factory=list)
    right: list[Floats] = field(default_factory=list)
    cones: list[object] = field(default_factory=list)

    def new(self, many: int) -> Places:
        """Return the positions of new variables."""
        places: Places = np.arange(self.columns, self.columns + many)
        self.columns += many
        return places

    def add(self, cones: list[object], right: Floats, *terms: _Term) -> int:
        """Append rows; terms are (row within the block, column, A's entry)."""
        first = self.rows
        self.triplets += [
            (first + np.asarray(row), np.asarray(column), np.asarray(entry, dtype=np.float64))
            for row, column, entry in terms
        ]
        self.right.append(np.asarray(right, dtype=np.float64))
        self.cones += cones
        self.rows += len(right)
        return first


@dataclass(frozen=True, slots=True)
class _Block:
    """Where a bank's variables are: tendered and received per (slot, pool), and their units."""

    bank: Bank
    tendered: Places
    received: Places
    paid: Floats
    got: Floats
    bend: Places | None = None


def solve_conic(market: Market, regularisation: float = REGULARISATIONS[0]) -> Solution:
    """Return Clarabel's trades, with the prices that bound them.

    Raises:
        ArithmeticError: the solver found no solution.
    """
    model = _Model()
    blocks = [_block(model, bank) for bank in market.banks]
    unit = _units(market)
    balance, limits = _coupling(model, market, blocks, unit)
    cost = np.zeros(model.columns)
    for block in blocks:
        worth = market.worth[block.bank.tokens]
        np.add.at(cost, block.tendered.ravel(), (worth * block.paid).ravel())
        np.add.at(cost, block.received.ravel(), -(worth * block.got).ravel())
        if block.bend is not None:
            np.add.at(cost, block.bend, worth[1] * block.got[1])
    size = max(float(np.abs(cost).max(initial=0.0)), 1e-300)
    solution = _run(model, cost / size, regularisation)
    point = np.array(solution.x)
    theta = np.array(solution.z) * size
    prices = market.worth + np.maximum(theta[balance : balance + market.size], 0.0) / unit
    room = np.maximum(theta[limits : limits + len(market.limits)], 0.0)
    loads = room / np.maximum(market.limits, 1e-300)
    flows = tuple(_flows(block, point) for block in blocks)
    positive = np.maximum(prices, prices.max(initial=1.0) * 1e-30)
    return judge(market, _tightened(market, positive, loads), loads, flows, "conic")


def _tightened(market: Market, prices: Floats, loads: Floats) -> Floats:
    """Return the prices, with those that only the solver's tolerance keeps above zero lowered.

    A token that a limit or a full lane leaves worthless has a price of zero, which an interior
    point method only approaches; together with it shrinks what the bound counts for nothing.
    """
    low = (prices < _WORTHLESS * prices.max(initial=0.0)) & (market.worth <= 0)
    if not low.any():
        return prices
    tried = [np.where(low, prices * factor, prices) for factor in (1.0, 1e-2, 1e-4)]
    return min(tried, key=lambda nu: market.dual(nu, loads)[0])


def _run(model: _Model, cost: Floats, regularisation: float) -> clarabel.DefaultSolution:
    rows, columns, entries = (
        np.concatenate([triplet[part].ravel() for triplet in model.triplets]) for part in range(3)
    )
    matrix = sparse.csc_matrix((entries, (rows, columns)), shape=(model.rows, model.columns))
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1
    settings.static_regularization_constant = regularisation
    settings.iterative_refinement_max_iter = 50
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-10
    empty = sparse.csc_matrix((model.columns, model.columns))
    right = np.concatenate(model.right)
    solver = clarabel.DefaultSolver(empty, cost, matrix, right, model.cones, settings)
    solution = solver.solve()
    if str(solution.status) not in ("Solved", "AlmostSolved", "InsufficientProgress"):
        raise ArithmeticError(f"the conic solver ended with {solution.status}")
    return solution


def _units(market: Market) -> Floats:
    """Return a size for each token's row: the most that its pools hold of it."""
    unit = np.abs(market.held).copy()
    for bank in market.banks:
        most = np.stack((bank.capacity, bank.capacity)) if isinstance(bank, Lanes) else _kept(bank)
        np.maximum.at(unit, bank.tokens.ravel(), most.ravel())
    return np.where(unit > 0, unit, 1.0)


def _kept(bank: Curves | Pairs | Means | Totals) -> Floats:
    if isinstance(bank, Curves):
        return np.stack((bank.first, bank.second))
    return bank.reserves


def _coupling(model: _Model, market: Market, blocks: list[_Block], unit: Floats) -> tuple[int, int]:
    """Add Ψ + h ≥ 0 and the limits; return their first rows."""
    terms = []
    shared = []
    for block in blocks:
        tokens = block.bank.tokens
        terms.append((tokens, block.tendered, block.paid / unit[tokens]))
        terms.append((tokens, block.received, -block.got / unit[tokens]))
        if isinstance(block.bank, Lanes) and block.bend is not None:
            terms.append((tokens[1], block.bend, block.got[1] / unit[tokens[1]]))
            limited = np.flatnonzero(block.bank.group >= 0)
            group = block.bank.group[limited]
            load = block.bank.load[limited] * block.paid[0, limited] / market.limits[group]
            shared.append((group, block.tendered[0, limited], load))
    cone: list[object] = [clarabel.NonnegativeConeT(market.size)]
    balance = model.add(cone, market.held / unit, *terms)
    if not len(market.limits):
        return balance, model.rows
    cone = [clarabel.NonnegativeConeT(len(market.limits))]
    return balance, model.add(cone, np.ones(len(market.limits)), *shared)


def _block(model: _Model, bank: Bank) -> _Block:
    if isinstance(bank, Lanes):
        return _lanes(model, bank)
    slots, many = bank.tokens.shape
    tendered = model.new(slots * many).reshape(slots, many)
    received = model.new(slots * many).reshape(slots, many)
    every = np.concatenate((tendered.ravel(), received.ravel()))
    positive: list[object] = [clarabel.NonnegativeConeT(len(every))]
    model.add(positive, np.zeros(len(every)), (np.arange(len(every)), every, -np.ones(len(every))))
    kept = _kept(bank)
    if isinstance(bank, Curves):
        _products(model, bank, tendered, received)
    elif isinstance(bank, Totals):
        _totals(model, bank, tendered, received)
    elif isinstance(bank, Pairs | Means):
        _means(model, bank, tendered, received)
    return _Block(bank, tendered, received, kept / bank.gamma, kept)


def _after(row: Places, a: Places, b: Places, sign: float) -> list[_Term]:
    """Return A's entries for sign·x, x = 1 + a − b (a is tendered after the fee)."""
    one = np.full(a.shape, sign)
    return [(row, a, -one), (row, b, one)]


def _products(model: _Model, bank: Curves, a: Places, b: Places) -> None:
    """x₁x₂ ≥ 1 as ‖(x₁ − x₂, 2)‖ ≤ x₁ + x₂, and the ends of tick ranges."""
    many = a.shape[1]
    row = 3 * np.arange(many)
    terms = [*_after(row, a[0], b[0], 1.0), *_after(row, a[1], b[1], 1.0)]
    terms += [*_after(row + 1, a[0], b[0], 1.0), *_after(row + 1, a[1], b[1], -1.0)]
    model.add([clarabel.SecondOrderConeT(3)] * many, np.tile((2.0, 0.0, 2.0), many), *terms)
    if bank.low is None or bank.high is None:
        return
    first = bank.low / bank.first
    second = bank.second * bank.first / bank.high / bank.second
    place = np.arange(many)
    for slot, least in ((0, first), (1, second)):
        cone: list[object] = [clarabel.NonnegativeConeT(many)]
        model.add(cone, 1.0 - least, *_after(place, a[slot], b[slot], 1.0))


def _totals(model: _Model, bank: Totals, a: Places, b: Places) -> None:
    many = a.shape[1]
    place = np.arange(many)
    share = bank.reserves / bank.reserves.sum(axis=0)
    terms = []
    for slot in (0, 1):
        terms += [(place, a[slot], -share[slot]), (place, b[slot], share[slot])]
        cone: list[object] = [clarabel.NonnegativeConeT(many)]
        model.add(cone, np.ones(many), *_after(place, a[slot], b[slot], 1.0))
    model.add([clarabel.NonnegativeConeT(many)], np.zeros(many), *terms)


def _means(model: _Model, bank: Pairs | Means, a: Places, b: Places) -> None:
    """Π xᵢ^wᵢ ≥ 1 as a generalised power cone over (x, 1)."""
    slots, many = a.shape
    row = (slots + 1) * np.arange(many)
    right = np.ones((slots + 1) * many)
    terms = []
    for slot in range(slots):
        terms += _after(row + slot, a[slot], b[slot], 1.0)
    if slots == 2:
        cones = [clarabel.PowerConeT(float(share)) for share in bank.shares[0]]
    else:
        cones = [clarabel.GenPowerConeT(list(map(float, share)), 1) for share in bank.shares.T]
    model.add(cones, right, *terms)


def _lanes(model: _Model, bank: Lanes) -> _Block:
    many = len(bank.gain)
    sent = model.new(many)
    place = np.arange(many)
    full = np.maximum(bank.capacity, 1e-300)
    one = np.ones(many)
    model.add([clarabel.NonnegativeConeT(many)], np.zeros(many), (place, sent, -one))
    model.add([clarabel.NonnegativeConeT(many)], one, (place, sent, one))
    bend = model.new(many)
    model.add([clarabel.NonnegativeConeT(many)], np.zeros(many), (place, bend, -one))
    curved = np.flatnonzero(np.isfinite(bank.curvature))
    if len(curved):
        row = 3 * np.arange(len(curved))
        # bend·b ≥ s²·a with bend in units of `got`: ‖(2s·√a, bend − 1)‖ ≤ bend + 1
        steep = np.sqrt(full[curved] / (2.0 * bank.curvature[curved]) / bank.gain[curved])
        unit = np.ones(len(curved))
        model.add(
            [clarabel.SecondOrderConeT(3)] * len(curved),
            np.tile((1.0, -1.0, 0.0), len(curved)),
            (row, bend[curved], -unit),
            (row + 1, bend[curved], -unit),
            (row + 2, sent[curved], -2.0 * steep),
        )
    got = bank.gain * full
    pair = np.stack((sent, sent))
    zero = np.zeros(many)
    return _Block(bank, pair, pair, np.stack((full, zero)), np.stack((zero, got)), bend)


def _flows(block: _Block, point: Floats) -> Floats:
    """Return a bank's flows; a lane's output follows from what it is sent."""
    tendered = np.maximum(point[block.tendered], 0.0)
    if isinstance(block.bank, Lanes):
        sent = np.minimum(tendered[0] * block.paid[0], block.bank.capacity)
        return np.stack((-sent, block.bank.carried(sent)))
    received = np.maximum(point[block.received], 0.0)
    flows: Floats = received * block.got - tendered * block.paid
    return flows
