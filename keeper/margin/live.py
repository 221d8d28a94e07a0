"""A book kept up to date: hash again only what changed, compute only what a move can reach.

    legs changed ──▶ new leaf, its path, its margin            prices moved by m ppm
                                                                     │
    accounts sorted by reach:  ── 120 ── 900 ── 1,400 ─┃─ 52,000 ── 310,000 ──▶
                                    computed again     ┃   cannot have crossed the watch line

Reach is the largest common bound of all price moves since the base prices under which an account
stays above its watch line whatever single prices do: with equity E, requirement R and line w,

    E − w·R − m · ( Σ|V| + w · bound of R ) ≥ 0

Funding counts as a move of its market's price. When λ changes, or a move reaches too many accounts,
the base moves to the prices of now. The result is that of `tick.assess`, which tests check.
"""

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence

from keeper.legs import Leg, LegKind, legs_hash
from keeper.margin.engine import FUNDING_UNIT, AccountMargin, Engine, Row, ratios
from keeper.margin.marks import Marks, RateKey
from keeper.margin.tick import Watched, by_risk, requirement_factor, watched_of
from keeper.margin.tree import Tree, state_leaf
from keeper.units import PPM, ceil_div

REBASE_SHARE = 10
"""The base moves when so large a part of the accounts is reached that was not near at the base."""
ROUNDING = 16
"""More µUSD per leg than roundings can move equity and requirement apart."""
ALWAYS = -1


class Live:
    """Accounts with their tree, and their margin near the watch line.

    Invariants: an account keeps its index for ever; `_order` holds (reach, index) of every account,
    ascending; reach is relative to the marks `_base`, at which `_near` accounts had none.
    """

    def __init__(self) -> None:
        self.tree = Tree()
        self.computed = 0
        self._accounts: list[bytes] = []
        self._index: dict[bytes, int] = {}
        self._legs: list[tuple[Leg, ...]] = []
        self._seqs: list[int] = []
        self._reach: list[int] = []
        self._order: list[tuple[int, int]] = []
        self._base: Marks | None = None
        self._near = 0
        self._keys: dict[RateKey, None] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def update(self, changes: Mapping[bytes, Sequence[Leg]]) -> bytes:
        """Set the legs of accounts, new ones included, and return the new state root.

        Raises:
            Unpriced: a leg has no price in the marks of the base.
        """
        leaves = {}
        for account, legs in sorted(changes.items()):
            index = self._index.get(account)
            if index is None:
                index = self._index[account] = len(self._accounts)
                self._accounts.append(account)
                self._legs.append(())
                self._seqs.append(-1)
                self._reach.append(ALWAYS)
                insort(self._order, (ALWAYS, index))
            self._legs[index] = tuple(sorted(legs, key=lambda leg: leg.key))
            self._seqs[index] += 1
            self._keys.update(dict.fromkeys(_key(leg) for leg in legs))
            digest = legs_hash(legs)
            leaves[index] = state_leaf(index, account, self._seqs[index], digest)
            if self._base is not None:
                self._place(index, self._reach_of(Engine(self._base), index))
        return self.tree.update(leaves)

    def watched(self, marks: Marks) -> tuple[Watched, ...]:
        """Return the accounts below the watch line at a tick, riskiest first.

        Raises:
            Unpriced: a leg has no price or parameters.
        """
        move = self._move(marks)
        reached = None if move is None else bisect_right(self._order, (move, len(self)))
        if reached is None or (reached - self._near) * REBASE_SHARE > len(self):
            self._rebase(marks)
            reached = self._near
        engine = Engine(marks)
        line = marks.parameters.watch_health_ppm
        found = []
        for _, index in self._order[:reached]:
            margin = engine.margin(engine.rows(self._legs[index]))
            if margin.health_ppm < line or not margin.healthy_local:
                found.append(watched_of(index, self._accounts[index], margin))
        self.computed += reached
        return tuple(by_risk(found))

    def _move(self, marks: Marks) -> int | None:
        """Return the largest move since the base in ppm, or None when the base cannot serve."""
        base = self._base
        if base is None or base.parameters is not marks.parameters:
            return None
        largest = 0
        for key in self._keys:
            old, new = base.rate_of(key), marks.rate_of(key)
            if old.latency != new.latency:
                return None
            moved = ceil_div(abs(new.price - old.price) * PPM, old.price)
            drift = abs(new.funding - old.funding) * old.divisor * PPM
            largest = max(largest, moved + ceil_div(drift, old.price * FUNDING_UNIT))
        return largest

    def _rebase(self, marks: Marks) -> None:
        engine = Engine(marks)
        self._base = marks
        self._reach = [self._reach_of(engine, index) for index in range(len(self))]
        self._order = sorted((reach, index) for index, reach in enumerate(self._reach))
        self._near = bisect_right(self._order, (0, len(self)))
        self.computed += len(self)

    def _place(self, index: int, reach: int) -> None:
        at = bisect_right(self._order, (self._reach[index], index)) - 1
        del self._order[at]
        self._reach[index] = reach
        insort(self._order, (reach, index))

    def _reach_of(self, engine: Engine, index: int) -> int:
        parameters = engine.parameters
        legs = self._legs[index]
        if parameters.local_ppm or any(
            (leg.chain, leg.venue) in parameters.local_of for leg in legs
        ):
            return ALWAYS
        rows = engine.rows(legs)
        return reach_ppm(rows, engine.margin(rows), engine)


def reach_ppm(rows: Sequence[Row], margin: AccountMargin, engine: Engine) -> int:
    """Return the move in ppm up to which an account certainly stays above its watch line."""
    line = engine.parameters.watch_health_ppm
    steepest = value = gross = premium = 0
    for rate, size, _, _ in rows:
        notional = ceil_div(abs(size) * rate.price, rate.divisor)
        value += notional
        if rate.kind == LegKind.DEBT:
            premium += ceil_div(notional * (rate.weight - PPM), PPM)
        if rate.kind == LegKind.PERP:
            steepest = max(steepest, ratios(rate, size)[0])
        if rate.kind != LegKind.COLLATERAL:
            gross += notional
    value += premium
    grown = ceil_div(gross * (steepest + requirement_factor(engine.parameters)), PPM) + premium
    slack = margin.equity * PPM - line * margin.requirement
    slack -= (len(rows) + 2) * ROUNDING * (PPM + line)
    if slack < 0:
        return ALWAYS
    return slack // max(1, value + ceil_div(line * grown, PPM))


def _key(leg: Leg) -> RateKey:
    return (int(leg.kind), leg.chain, leg.venue, leg.market)
