"""A standing bid on a position near liquidation is an award in the very view in which it falls."""

from collections.abc import Mapping

import pytest

from keeper.compete.bids import BidVector
from keeper.compete.standing import MAX_STANDING, standing_tasks
from keeper.compete.task import Task
from keeper.units import PPM
from tests.support.clearing_world import ETH, UNIT, USD, A, World, trader

ALICE = trader(1)
K = tuple(bytes([50 + i]) * 20 for i in range(3))
NEAR, FALLEN = 1_866 * 10**8, 1_860 * 10**8


def near_world(traders: int = 1) -> World:
    """Return a world whose accounts are healthy, and below the standing health."""
    world = World()
    for keeper in K:
        world.bond(keeper)
    for number in range(1, traders + 1):
        world.deposit(trader(number), A, 1_000 * USD)
        world.request_credit(trader(number), 400 * USD)
    for credit in world.view().decisions:
        world.bring(credit)
    for number in range(1, traders + 1):
        world.increase(trader(number), 4 * UNIT)
    world.view()
    world.prices[ETH] = NEAR
    margin = world.view().margins[ALICE]
    assert margin.healthy
    assert margin.health_ppm < world.parameters.competition.standing_health_ppm
    return world


def standing(world: World) -> list[Task]:
    one = world.snapshot
    return standing_tasks(
        world.setting.network, world.parameters, one.book.prices, one.legs, one.margins
    )


class Bidders:
    """Keepers that bid for whatever stands, view after view."""

    def __init__(self, world: World) -> None:
        self.world, self.made = world, list[BidVector]()

    def view(self, prices: Mapping[bytes, int]) -> list[bytes]:
        """Commit, open what was committed to in the view before, and return the awarded tasks."""
        opened, self.made = self.made, []
        if self.world.competition.collecting and prices:
            self.made = [self.world.commit(keeper, dict(prices)) for keeper in K]
        for vector in opened:
            self.world.reveal(vector)
        decisions = self.world.view().decisions
        return [decision.key for decision in decisions if decision.kind == "Award"]


def test_it_is_awarded_in_the_view_in_which_it_falls() -> None:
    world = near_world()
    bidders = Bidders(world)
    prices = {task.target.subject: task.bonus // 2 for task in standing(world)}
    for _ in range(4):
        assert bidders.view(prices) == []
    world.prices[ETH] = FALLEN
    awarded = bidders.view(prices)
    assert not world.snapshot.margins[ALICE].healthy
    (award,) = world.competition.awards
    assert [award.task.id] == awarded
    assert award.task.view == world.number  # no earlier view knew the task
    assert award.ranks[0] in K


def test_without_standing_bids_it_takes_a_round_of_its_own() -> None:
    world = near_world()
    bidders = Bidders(world)
    world.prices[ETH] = FALLEN
    assert bidders.view({}) == []
    prices = {task.target.subject: 2 * task.reserve for task in world.competition.tasks}
    assert bidders.view(prices) == []
    assert len(bidders.view(prices)) == 1


@pytest.mark.parametrize("fallen", [1_865, 1_860, 1_850, 1_820, 1_700])
def test_the_real_task_is_never_smaller_so_its_bonus_covers_the_bid(fallen: int) -> None:
    world = near_world()
    (thought,) = standing(world)
    world.prices[ETH] = fallen * 10**8
    world.view()
    (real,) = world.competition.tasks
    assert real.target == thought.target
    assert real.size >= thought.size
    assert real.bonus >= thought.bonus


def test_a_bid_far_below_the_reserve_of_the_real_task_waits_for_a_round() -> None:
    world = near_world()
    bidders = Bidders(world)
    prices = {task.target.subject: task.reserve for task in standing(world)}
    for _ in range(4):
        bidders.view(prices)
    world.prices[ETH] = 1_820 * 10**8
    assert bidders.view(prices) == []
    prices = {task.target.subject: task.reserve for task in world.competition.tasks}
    bidders.view(prices)
    assert len(bidders.view(prices)) == 1


def test_only_what_is_near_stands_and_the_nearest_first() -> None:
    world = near_world(traders=MAX_STANDING + 3)
    tasks = standing(world)
    assert len(tasks) == MAX_STANDING
    health = [world.snapshot.margins[task.target.account].health_ppm for task in tasks]
    assert health == sorted(health)
    rules = world.parameters
    for task in tasks:
        assert task.bonus == task.value * rules.liquidation.bonus_ppm // PPM
    world.prices[ETH] = 2_000 * 10**8
    world.view()
    assert standing(world) == []
