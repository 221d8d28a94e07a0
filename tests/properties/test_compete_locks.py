"""Laws of the competition under lazy, greedy and lying bidders.

Σ locks of open awards + penalties on their way ≤ bond        one open award per subject
a task is executed at most once                               a price never above the winner's bid
two derivations of one view are the same bytes
"""

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from keeper.compete.bids import BidVector
from keeper.compete.state import decode
from keeper.compete.task import Target
from keeper.snapshot.decisions import Decision
from keeper.snapshot.derive import Lacking, derive
from tests.support.clearing_world import (
    E8,
    ETH,
    UNIT,
    USD,
    A,
    B,
    Refused,
    World,
    address,
    fields,
    trader,
)

TRADERS = tuple(trader(number) for number in range(1, 5))
KEEPERS = tuple(bytes([50 + i]) * 20 for i in range(4))
VENUE = address(B, "Perps")
SUBJECTS = {Target(B, account, VENUE, ETH).subject for account in TRADERS}


class Run:
    """One drawn history of a crash with four bidders."""

    def __init__(self, seed: int) -> None:
        self.random, self.world = Random(seed), World()
        self.counts: Counter[str] = Counter()
        self.vectors: list[BidVector] = []
        self.prices: dict[tuple[bytes, bytes], int] = {}
        unit = self.world.parameters.competition.bond_per_unit
        for keeper in KEEPERS:
            self.world.bond(keeper, self.random.choice([15, 40, 200, 10_000]) * USD * unit)
        for account in TRADERS:
            self.world.deposit(account, A, 1_000 * USD)
            self.world.request_credit(account, 400 * USD)
        for decision in self.world.view().decisions:
            self.world.bring(decision)
        for account in TRADERS:
            self.world.increase(account, self.random.choice([1, -1]) * 4 * UNIT)
        self.world.view()

    def step(self) -> None:
        world, random = self.world, self.random
        if random.random() < 0.25:
            world.prices[ETH] = random.randint(1_700, 2_300) * E8
        elif world.competition.awards and random.random() < 0.3:
            world.prices[ETH] = 2_000 * E8  # everybody is well again, with awards under way
        for keeper in KEEPERS:
            if world.competition.collecting and random.random() < 0.6:
                self.commit(keeper)
        for vector in self.vectors[-8:]:
            if random.random() < 0.7:
                world.reveal(vector, members=random.choice([1, 4, 4]))
        for _ in range(random.choice([0, 0, 0, 8, 90])):
            world.chains[B].mine()
        for decision in world.snapshot.book.outstanding:
            if random.random() < 0.3:
                self.bring(decision)
        self.same_twice()
        before = world.competition
        world.view()
        self.check(before.nonce)

    def commit(self, keeper: bytes) -> None:
        view = self.world.competition.collecting
        if (view, keeper) in self.world.commitments:
            return
        bids = {subject: self.random.randint(0, 45) * USD for subject in SUBJECTS}
        vector = self.world.commit(keeper, bids, members=self.random.choice([1, 4, 4]))
        self.vectors.append(vector)
        for subject, price in bids.items():
            best = self.prices.get((keeper, subject), 0)
            self.prices[keeper, subject] = max(best, price)

    def bring(self, decision: Decision) -> None:
        world, kind = self.world, decision.kind
        try:
            if kind == "Award":
                ranks, start, exclusive, step = fields(decision)[6:10]
                rank = self.random.randrange(len(ranks))
                due = start + (exclusive + (rank - 1) * step if rank else 0)
                while world.chains[B].number < due:
                    world.chains[B].mine()
                world.execute(decision, ranks[rank])
            else:
                world.bring(decision)
        except Refused:
            return
        self.counts[kind] += 1

    def same_twice(self) -> None:
        """Derive the next view twice without taking it."""
        world, number = self.world, self.world.number + 1
        results = [
            derive(
                world.setting,
                world,
                world.snapshot,
                number,
                number,
                world.observed(number),
                world.bodies,
            )
            for _ in range(2)
        ]
        first, second = results
        assert not isinstance(first, Lacking)
        assert not isinstance(second, Lacking)
        assert first[0].root == second[0].root

    def check(self, nonce: int) -> None:
        state = self.world.competition
        assert decode(state.encode()) == state
        assert state.nonce >= nonce
        targets = [award.task.target for award in state.awards]
        assert len(targets) == len(set(targets))
        assert not set(targets) & {task.target for task in state.tasks}
        locks: Counter[bytes] = Counter()
        for award in state.awards:
            locks[award.ranks[0]] += award.lock
            assert award.price <= self.prices[award.ranks[0], award.task.target.subject]
            assert award.price >= award.task.reserve
        for keeper, locked in locks.items():
            # penalties may take a bond below what it had locked; an award never does
            fined = any(
                decision.kind == "Penalty" and fields(decision)[1] == keeper
                for decision in self.world.sealed
            )
            assert fined or locked <= self.world.chains[A].stakes[keeper]
        tasks = [fields(d)[0] for d in self.world.sealed if d.kind == "Award"]
        assert len(tasks) == len(set(tasks))
        fines = [fields(d)[:2] for d in self.world.sealed if d.kind == "Penalty"]
        assert len(fines) == len(set(fines))


def run(seed: int, steps: int = 40) -> Counter[str]:
    one = Run(seed)
    for _ in range(steps):
        one.step()
    for name, kind in (("awarded", "Award"), ("healed", "Attestation")):
        one.counts[name] = sum(decision.kind == kind for decision in one.world.sealed)
    return one.counts


@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_laws_hold_whatever_bidders_do(seed: int) -> None:
    run(seed)


def test_the_runs_exercise_every_end_of_a_task() -> None:
    total: Counter[str] = Counter()
    for seed in range(8):
        total += run(seed)
    assert min(total[k] for k in ("awarded", "healed", "Award", "Penalty")) >= 3, total
    assert total["Attestation"] >= 1, total
