"""Moves of one asset over chains, in whole amounts: what is wanted, what arrives, what it costs.

programme's amounts ─▶ fixed fees added ─▶ capped by room, surplus, limits ─▶ topped up ─▶ Book
still short, or too much tail: a tighter task ◀─┘
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from keeper.route.graph import Lane
from keeper.route.risk import Scenario, cvar, failure_ppm
from keeper.units import PPM, ChainId, ceil_div

Path = tuple[Lane, ...]


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


def fee_ppm(lane: Lane) -> int:
    """Return the fee with what a lane filled to its room loses, so that paths add up."""
    bend = ceil_div(lane.room * PPM, 2 * lane.curvature) if lane.curvature else 0
    return min(lane.fee_ppm + bend, PPM)


@dataclass(slots=True)
class Book:
    """Whole amounts on paths, always within rooms, surpluses and limits.

    A lane's fixed fee is paid once, by the first path that takes it.
    """

    surplus: dict[ChainId, int]
    limits: dict[bytes, int]
    sent: dict[Path, int] = field(default_factory=dict)
    payers: dict[Lane, Path] = field(default_factory=dict)
    rooms: dict[Lane, int] = field(default_factory=dict)

    def fixed(self, path: Path) -> int:
        """Return about what a path pays in fixed fees; the rest is topped up."""
        return sum(lane.fee_fixed for lane in path if self.payers.get(lane, path) == path)

    def send(self, path: Path, amount: int) -> None:
        """Send more on a path, as much of it as may be."""
        amount = min(amount, self.surplus.get(path[0].origin, 0))
        amount = min([amount, *(self.rooms.get(lane, lane.room) for lane in path)])
        for verifier in {lane.verifier for lane in path} & set(self.limits):
            crossings = sum(lane.verifier == verifier for lane in path)
            amount = min(amount, self.limits[verifier] // crossings)
        if amount <= 0:
            return
        self.sent[path] = self.sent.get(path, 0) + amount
        self.surplus[path[0].origin] -= amount
        for lane in path:
            self.payers.setdefault(lane, path)
            self.rooms[lane] = self.rooms.get(lane, lane.room) - amount
            if lane.verifier in self.limits:
                self.limits[lane.verifier] -= amount

    def arrives(self, path: Path) -> int:
        """Return what arrives over a path, rounded down."""
        amount = self.sent.get(path, 0)
        for lane in path:
            fixed = lane.fee_fixed if self.payers.get(lane, path) == path else 0
            amount = max(amount - ceil_div(amount * fee_ppm(lane), PPM) - fixed, 0)
        return amount

    def short(self, chain: ChainId, amount: int) -> int:
        """Return what a need still lacks."""
        return amount - sum(
            self.arrives(path) for path in self.sent if path[-1].destination == chain
        )

    def moves(self) -> tuple[Move, ...]:
        """Return the moves, in the order in which they were added."""
        return tuple(
            Move(path, amount, self.arrives(path), sum(lane.p95_ms for lane in path))
            for path, amount in self.sent.items()
        )


def whole(paths: Sequence[Path], amounts: Sequence[float], task: Task) -> Book:
    """Return whole amounts within every limit, as near to a task's needs as these paths can come.

    Args:
        paths: cheapest first.
        amounts: of each, after fixed fees; paths without any stay empty.
        task: what is wanted.
    """
    book = Book(dict(task.surplus), dict(task.exposure))
    taken = [
        (path, int(amount)) for path, amount in zip(paths, amounts, strict=True) if amount >= 1
    ]
    for path, amount in taken:
        book.send(path, amount + book.fixed(path))
    for chain, amount in task.need:
        for path, _ in taken:
            lacking = book.short(chain, amount)
            if lacking > 0 and path[-1].destination == chain:
                book.send(path, lacking + ceil_div(lacking, 100) + len(path))
    return book


def tighter(asked: Task, book: Book, task: Task) -> Task | None:
    """Return a task that asks for more than was asked where whole amounts missed one, or None."""
    lacking = [max(book.short(chain, amount), 0) for chain, amount in task.need]
    over = 0
    if task.cvar_limit:
        tail = cvar(exposure_of(book.moves()), task.cases, task.alpha_ppm)
        over = max(tail - task.cvar_limit, 0)
    if not (any(lacking) or over):
        return None
    need = tuple(
        (chain, amount + 2 * more)
        for (chain, amount), more in zip(asked.need, lacking, strict=True)
    )
    limit = max(asked.cvar_limit - 2 * over, 1) if over else asked.cvar_limit
    return replace(asked, need=need, cvar_limit=limit)


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
