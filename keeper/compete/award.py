"""Award: who may carry out a task, decided inside the agreed payload.

    view v     unhealthy in the snapshot ─▶ task, round v opened         bidders commit
    view v+1   commitments with f + 1 reports ─▶ frozen                  bidders reveal
    view v+2   reveals with f + 1 reports, bodies attached ─▶ Award      winner executes

    Award ─▶ executed ─▶ done              rank 0 late on another chain than the hub ─▶ Penalty
          ─▶ healthy again ─▶ Attestation(Healed) ─▶ voided              nobody is punished
          ─▶ its last block is past ─▶ if never healthy, Penalty         then a fresh task

A vector may hold bids on accounts that are only near liquidation: if one of them falls before the
reveal, it is awarded without a round of its own. Windows are blocks of the target chain. Source:
docs/competition.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from keeper.compete.auction import MAX_OPENED, Offer, freeze, reported_reveals, settle
from keeper.compete.bids import BidVector, decode_reveal
from keeper.compete.bond import Stakes, stakes
from keeper.compete.decisions import award_decision, healed_decision, penalty_decision
from keeper.compete.handover import inherited
from keeper.compete.heads import accusations
from keeper.compete.state import (
    MAX_AWARDS,
    MAX_CHARGES,
    AwardState,
    Charge,
    Flying,
    OpenAward,
    Round,
    decode,
)
from keeper.compete.task import Task, bond_lock, make_task, open_targets
from keeper.margin.breaker import Action
from keeper.margin.engine import Engine
from keeper.snapshot.decisions import Context, Decision
from keeper.snapshot.gates import slowed, stopped
from keeper.snapshot.marks import engine_at
from keeper.units import PPM, ChainId
from keeper.venue.awards import EXECUTED, NO_SHOW, VOIDED
from keeper.venue.bonds import is_punished
from keeper.venue.book import system_accounts
from keeper.venue.records import leaf_used, word

COMMIT_VIEWS = 3
"""Views in which a round may be frozen: who learns of finality a tick late still competes."""
REVEAL_VIEWS = 4
"""Views in which a frozen commitment may be opened; more than one only when reveals are delayed."""
MAX_REVEALING = REVEAL_VIEWS + 1
"""Frozen rounds at once: no other is opened while so many wait for bodies."""
MAX_AWARDS_PER_VIEW = 48
MAX_PENALTIES_PER_VIEW = 24
MAX_VOIDS_PER_VIEW = 24
"""Together 96 decisions of one view: all rules together stay below the bound of a proposal."""
FLIGHT_BLOCKS = 600
"""Blocks an attestation or a penalty is given to reach its chain before it is sealed again."""


@dataclass(frozen=True, slots=True)
class AwardRule:
    """Runs the competition; its state is an `AwardState`."""

    name: str = "award"

    def initial(self) -> bytes:
        """Return the state before the first view."""
        return AwardState().encode()

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return the reveals of frozen commitments that f + 1 observers hold, oldest first."""
        needed: list[bytes] = []
        for one in inherited(context, decode(state)).revealing:
            needed += sorted(_to_open(context, one))
        return frozenset(needed[:MAX_OPENED])

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the next state and the awards, penalties and attestations of this view."""
        after, decisions = Step(context, decode(state)).run()
        return after.encode(), tuple(sorted(decisions, key=lambda decision: decision.order))


def _to_open(context: Context, one: Round) -> frozenset[bytes]:
    opened = {bidder for bidder, _ in one.opened}
    missing = [commitment for bidder, commitment in one.frozen if bidder not in opened]
    return reported_reveals(context.observed, missing, context.faults)


class Step:
    """One view of the competition.

    Invariants: at most one open award per subject; no lock beyond a bond; a keeper is charged at
    most once for a task or a commitment.
    """

    def __init__(self, context: Context, before: AwardState) -> None:
        self.context, self.before = context, inherited(context, before)
        before = self.before
        self.rules = context.parameters.competition
        self.made: list[Decision] = []
        self.flying, lost = self._follow_penalties()
        self.penalties: list[Charge] = [*lost, *before.charges]
        charged = (*(one.charge for one in self.flying), *self.penalties)
        self.penalties += accusations(context, charged)
        self.no_shows = dict(before.no_shows)
        self.recent = list(before.recent)
        self.used = {(chain, market): (at, amount) for chain, market, at, amount in before.windows}

    def run(self) -> tuple[AwardState, list[Decision]]:
        """Return the state after this view and its decisions."""
        awards = self._follow_awards()
        revealing, vectors = self._reveal()
        stake = stakes(self.context, awards, self.penalties, self.no_shows)
        late = self._freeze(stake, revealing)
        engine = engine_at(self.context)
        tasks = self._tasks(engine, awards)
        tasks, won = self._award(tasks, vectors, stake, len(awards))
        awards = sorted([*awards, *won], key=lambda award: award.task.id)
        made = self._charge()
        needed = len(revealing) < MAX_REVEALING and (bool(tasks) or self._anyone_near())
        state = AwardState(
            collecting=self.context.view if needed else 0,
            late=late,
            revealing=tuple(revealing),
            tasks=tuple(tasks),
            awards=tuple(awards),
            recent=tuple(self.recent[-self.rules.recent_awards :]),
            no_shows=tuple(sorted(self.no_shows.items())),
            windows=tuple((*key, *value) for key, value in sorted(self.used.items())),
            charges=tuple(self.penalties[made:][:MAX_CHARGES]),
            flying=tuple(self.flying),
            nonce=self.before.nonce + made,
            epoch=self.context.epoch,
        )
        return state, self.made

    # --- awards that are under way

    def _follow_awards(self) -> list[OpenAward]:
        """Return the awards that have not ended, after what their chains show."""
        left = []
        for award in self.before.awards:
            chain = award.task.target.chain
            records, block = self.context.tables.get(chain), self.context.cut.get(chain)
            at = self.context.network.chain(chain).contract("Awards")
            if records is None or block is None or at is None:
                left.append(award)
                continue
            if leaf_used(records, at, award.leaf):
                self._ended(award, at)
            elif records.get(at, VOIDED, award.task.id) is None:
                if block.number > award.last:
                    self._lapsed(award)
                else:
                    left.append(self._age(award, block.number))
        return left

    def _ended(self, award: OpenAward, at: bytes) -> None:
        """Charge a winner that let another execute; on the hub the contract has done it."""
        target, winner = award.task.target, award.ranks[0]
        records = self.context.tables[target.chain]
        if records.get(at, NO_SHOW, award.task.id, word(winner)) is None:
            return
        if target.chain == self.context.network.hub:
            self.no_shows[winner] = self.no_shows.get(winner, 0) + 1
            return
        if not award.ill:  # a void was on its way, or a breaker held it back
            return
        stood_in = bytes(20)
        for keeper in award.ranks[1:]:
            if records.get(at, EXECUTED, award.task.id, target.account, word(keeper)) is not None:
                stood_in = keeper
        self._no_show(award, stood_in)

    def _lapsed(self, award: OpenAward) -> None:
        """Charge a winner that let a task lapse which was there to be done all the time."""
        if award.ill and not self._healthy(award):
            self._no_show(award, bytes(20))

    def _no_show(self, award: OpenAward, stood_in: bytes) -> None:
        winner = award.ranks[0]
        self.no_shows[winner] = self.no_shows.get(winner, 0) + 1
        self.penalties.append(Charge(award.task.id, winner, award.lock, stood_in))

    def _healthy(self, award: OpenAward) -> bool:
        margin = self.context.margins.get(award.task.target.account)
        return margin is None or margin.healthy

    def _age(self, award: OpenAward, block: int) -> OpenAward:
        """Return the award after this view: healed, or simply older."""
        healthy, target = self._healthy(award), award.task.target
        held_back = stopped(self.context, Action.LIQUIDATE, target.chain, target.market)
        award = replace(award, ill=award.ill and not healthy and not held_back)
        if not healthy and not award.voiding:
            return award
        voids = sum(decision.kind == "Attestation" for decision in self.made)
        if block > award.voiding and voids < MAX_VOIDS_PER_VIEW:
            until = min(block + FLIGHT_BLOCKS, award.last)
            self.made.append(healed_decision(self.context, award.task, until))
            award = replace(award, voiding=until)
        return award

    # --- rounds

    def _reveal(self) -> tuple[list[Round], list[BidVector]]:
        """Return rounds that stay open, and the vectors of those that conclude, oldest first."""
        waiting: list[Round] = []
        vectors: list[BidVector] = []
        for one in self.before.revealing:
            to_open = _to_open(self.context, one)
            fresh = [
                (bidder, self.context.attachments[commitment])
                for bidder, commitment in one.frozen
                if commitment in to_open and commitment in self.context.attachments
            ]
            opened = tuple(sorted([*one.opened, *fresh]))
            full = len(fresh) < len(to_open)  # what found no room in this view is no fault
            one = replace(one, opened=opened, age=one.age + (not full))
            if len(opened) < len(one.frozen) and one.age < REVEAL_VIEWS:
                waiting.append(one)
            else:
                vectors += self._conclude(one)
        return waiting, vectors

    def _conclude(self, one: Round) -> list[BidVector]:
        """Return the valid vectors of a round, and charge everyone who did not open."""
        bodies = dict(one.opened)
        vectors = []
        for bidder, commitment in one.frozen:
            vector = decode_reveal(bodies.get(bidder, b""))
            if vector is not None and (vector.view, vector.bidder) == (one.view, bidder):
                vectors.append(vector)
            else:
                self._fine(bidder, commitment)
        return vectors

    def _freeze(self, stake: Stakes, revealing: list[Round]) -> tuple[int, ...]:
        """Freeze every round somebody committed to; return the rounds that go on waiting."""
        waiting = []
        for view in (*self.before.late, self.before.collecting):
            if view == 0:
                continue
            frozen = freeze(self.context.observed, view, self.context.faults, stake.eligible())
            for bidder, commitment in frozen.cheats:
                self._fine(bidder, commitment)
            if frozen.commitments:
                revealing.append(Round(view, frozen.commitments))
            elif not frozen.cheats:
                waiting.append(view)
        return tuple(waiting[1 - COMMIT_VIEWS :])

    def _fine(self, bidder: bytes, commitment: bytes) -> None:
        amount = self.rules.no_reveal_penalty * self.rules.bond_per_unit
        self.penalties.append(Charge(commitment, bidder, amount, bytes(20)))

    # --- tasks and awards

    def _tasks(self, engine: Engine, awards: Sequence[OpenAward]) -> list[Task]:
        """Return the open tasks of this view, riskiest first.

        An old one keeps its id, and its reserve never rises: a bid that reached it stays valid.
        """
        busy = {award.task.target for award in awards}
        known = {task.target: task for task in self.before.tasks}
        tasks = []
        for target, size, value in open_targets(self.context, engine, self._room()):
            if target in busy:
                continue
            old = known.get(target)
            view = self.context.view if old is None else old.view
            task = make_task(self.context, view, target, size, value)
            if old is not None:
                task = replace(task, reserve=min(task.reserve, old.reserve))
            tasks.append(task)
        return tasks

    def _window(self, chain: ChainId) -> int:
        blocks = self.context.parameters.liquidation.window_blocks
        return self.context.cut[chain].number // blocks

    def _room(self) -> dict[tuple[ChainId, bytes], int]:
        """Return what may still be closed per chain and market in the running window."""
        most = self.context.parameters.liquidation.window_value
        found = {}
        for chain in self.context.cut:
            for market in self.context.parameters.margin.markets:
                at, amount = self.used.get((chain, market.symbol), (0, 0))
                used = amount if at == self._window(chain) else 0
                slow = slowed(self.context, Action.LIQUIDATE, chain, market.symbol)
                limit = most * self.context.parameters.breakers.slow_window_ppm // PPM
                found[chain, market.symbol] = max(0, (limit if slow else most) - used)
        return found

    def _award(
        self, tasks: list[Task], vectors: Sequence[BidVector], stake: Stakes, already: int
    ) -> tuple[list[Task], list[OpenAward]]:
        """Return tasks that stay open, and the awards of this view."""
        left: list[Task] = []
        won: list[OpenAward] = []
        for task in tasks:
            full = len(won) >= MAX_AWARDS_PER_VIEW or already + len(won) >= MAX_AWARDS
            award = None if full else self._settle(task, vectors, stake)
            if award is None:
                left.append(task)
                continue
            won.append(award)
            stake.take(award.ranks[0], award.lock)
            self.recent.append(award.ranks[0])
            self._count(task)
        return left, won

    def _settle(self, task: Task, vectors: Sequence[BidVector], stake: Stakes) -> OpenAward | None:
        subject = task.target.subject
        most = task.value * self.context.parameters.liquidation.bonus_max_ppm // PPM
        offers: dict[bytes, Offer] = {}
        for vector in vectors:
            price = vector.price_of(subject)
            if price is None or stake.held.get(vector.bidder, 0) >= self.rules.open_awards:
                continue
            if price > most:  # no venue pays so much, so nobody could act first
                continue
            needed = bond_lock(task.value, price, self.context.parameters)
            if stake.free.get(vector.bidder, 0) >= needed:
                offers[vector.bidder] = Offer(vector.bidder, price)
        outcome = settle(task.id, list(offers.values()), task.reserve, self.recent, self.rules)
        if outcome is None:
            return None
        chain = task.target.chain
        head = self.context.cut[chain].number + self.context.network.chain(chain).finality_depth
        start = head + self.rules.start_blocks
        steps = max(0, len(outcome.ranks) - 1) * self.rules.step_blocks
        open_at = start + self.rules.exclusive_blocks + steps
        award = OpenAward(
            task=replace(task, lock=bond_lock(task.value, outcome.price, self.context.parameters)),
            leaf=b"",
            ranks=outcome.ranks,
            price=outcome.price,
            lock=bond_lock(task.value, outcome.price, self.context.parameters),
            start=start,
            exclusive=self.rules.exclusive_blocks,
            step=self.rules.step_blocks,
            open_at=open_at,
            last=open_at + self.rules.lapse_blocks,
        )
        decision = award_decision(self.context, award)
        self.made.append(decision)
        return replace(award, leaf=decision.leaf)

    def _count(self, task: Task) -> None:
        """Add an awarded task to its market's window."""
        chain = task.target.chain
        key, now = (chain, task.target.market), self._window(chain)
        at, amount = self.used.get(key, (now, 0))
        self.used[key] = (now, task.value + (amount if at == now else 0))

    def _anyone_near(self) -> bool:
        """Return whether some account is close enough for standing bids."""
        apart = system_accounts(self.context.network)
        return any(
            margin.requirement > 0
            and margin.health_ppm < self.rules.standing_health_ppm
            and account not in apart
            for account, margin in self.context.margins.items()
        )

    # --- charges

    def _follow_penalties(self) -> tuple[list[Flying], list[Charge]]:
        """Return penalties still on their way to the hub, and those that expired on it."""
        hub = self.context.network.hub
        records = self.context.tables.get(hub)
        if records is None:
            return list(self.before.flying), []
        spec, left, lost = self.context.network.chain(hub), [], []
        outstanding = {decision.leaf for decision in self.context.outstanding}
        for one in self.before.flying:
            if is_punished(spec, records, one.charge.keeper, one.charge.task):
                continue
            if one.leaf in outstanding:
                left.append(one)
            else:
                lost.append(one.charge)
        return left, lost

    def _charge(self) -> int:
        """Make the penalties of this view and return how many."""
        block = self.context.cut.get(self.context.network.hub)
        if block is None:
            return 0
        until = block.number + FLIGHT_BLOCKS
        due = self.penalties[: min(MAX_PENALTIES_PER_VIEW, MAX_CHARGES - len(self.flying))]
        for nonce, charge in enumerate(due, self.before.nonce):
            decision = penalty_decision(self.context, charge, nonce, until)
            self.made.append(decision)
            self.flying.append(Flying(charge, decision.leaf, until))
        return len(due)
