"""A committee hands over in the middle of the competition: nobody pays for it."""

from tests.support.clearing_world import USD, A, B, World, fields
from tests.unit.test_compete_award import ALICE, SUBJECT, K, auction, mine_to, only, sick_world

LONG = 10_000


def penalised(world: World) -> set[bytes]:
    return {fields(decision)[1] for decision in world.sealed if decision.kind == "Penalty"}


def test_a_round_in_flight_ends_without_a_fine_and_the_task_is_bid_for_again() -> None:
    world = sick_world()
    (task,) = world.competition.tasks
    world.commit(K[0], {SUBJECT: 10 * USD})
    world.view()
    assert len(world.competition.revealing) == 1
    world.hand_over({A: LONG, B: LONG})
    for _ in range(8):  # nobody of the new committee ever heard the old round
        world.view()
    assert world.competition.revealing == ()
    assert penalised(world) == set()
    (again,) = world.competition.tasks
    assert (again.target, again.view) == (task.target, task.view)
    assert auction(world, {K[0]: 10 * USD}) is not None


def test_no_shows_are_counted_anew() -> None:
    world = sick_world()
    for _ in range(world.parameters.competition.jail_after):
        award = auction(world, {K[0]: 10 * USD})
        assert award is not None
        mine_to(world, award.expiry + 1)
        world.view()
    assert auction(world, {K[0]: 10 * USD}) is None
    world.hand_over({A: LONG, B: LONG})
    world.view()
    assert auction(world, {K[0]: 10 * USD}) is not None


def test_an_award_lives_while_its_key_does_and_its_winner_answers_for_it() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD})
    assert award is not None
    start, exclusive = fields(award)[7:9]
    world.hand_over({A: LONG, B: start + exclusive})
    world.view()
    assert world.competition.awards[0].last == start + exclusive - 1  # the whole of its window
    mine_to(world, start + exclusive + 1)
    world.view()
    assert penalised(world) == {K[0]}
    assert world.competition.awards == ()


def test_a_winner_whose_key_ends_in_its_window_is_not_blamed() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD})
    assert award is not None
    start = fields(award)[7]
    world.hand_over({A: LONG, B: start})
    world.view()
    mine_to(world, award.expiry + 1)
    world.view()
    assert not world.snapshot.margins[ALICE].healthy
    assert penalised(world) == set()
    (task,) = world.competition.tasks
    assert task.id != fields(award)[0]


def test_an_award_whose_key_has_ended_already_is_over_at_once() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD})
    assert award is not None
    world.hand_over({A: LONG, B: world.chains[B].number})
    world.view()
    assert world.competition.awards == ()
    assert penalised(world) == set()
    world.view()
    assert len(world.competition.tasks) == 1


def test_an_award_that_was_executed_before_ends_as_ever() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD, K[1]: 8 * USD})
    assert award is not None
    start, exclusive = fields(award)[7:9]
    mine_to(world, start + exclusive)
    world.execute(award, K[1])
    world.hand_over({A: LONG, B: world.chains[B].number})
    world.view()
    (penalty,) = only(world, "Penalty")
    assert fields(penalty)[1:4:2] == (K[0], K[1])


def test_a_penalty_under_a_key_that_ended_is_sealed_by_the_next() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD})
    assert award is not None
    mine_to(world, award.expiry + 1)
    world.view()
    (first,) = only(world, "Penalty")
    world.hand_over({A: world.chains[A].number + 2, B: LONG})
    world.view()
    assert only(world, "Penalty") == []  # the old seal still works for a moment
    for _ in range(3):
        world.view()
    second = world.sealed[-1]
    assert (second.kind, fields(second)[:4]) == ("Penalty", fields(first)[:4])
    assert second.leaf != first.leaf


def test_a_void_on_its_way_is_attested_again() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD})
    assert award is not None
    world.deposit(ALICE, A, 1_000 * USD)
    world.view()
    assert len(only(world, "Attestation")) == 1
    world.hand_over({A: LONG, B: world.chains[B].number + 40})
    world.view()
    (void,) = only(world, "Attestation")
    world.bring(void)
    world.view()
    assert world.competition.awards == ()
    assert penalised(world) == set()
