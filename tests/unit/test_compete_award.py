"""Task → commit → freeze → reveal → award → end, and the attacks on it."""

import pytest

from keeper.compete.award import COMMIT_VIEWS, REVEAL_VIEWS
from keeper.compete.bids import BidVector
from keeper.compete.task import Target, bond_lock
from keeper.snapshot.decisions import Decision
from tests.support.clearing_world import (
    BOND,
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

ALICE, BOB = trader(1), trader(2)
K = tuple(bytes([50 + i]) * 20 for i in range(5))
VENUE = address(B, "Perps")
SUBJECT = Target(B, ALICE, VENUE, ETH).subject


def sick_world(keepers: int = 3, chain: int = B) -> World:
    """Return a world in which Alice has just become liquidatable."""
    world = World()
    for keeper in K[:keepers]:
        world.bond(keeper)
    world.deposit(ALICE, A, 1_000 * USD)
    world.request_credit(ALICE, 400 * USD)
    (credit,) = world.view().decisions
    world.bring(credit)
    world.increase(ALICE, 4 * UNIT)
    world.view()
    world.prices[ETH] = 1_820 * 10**8
    assert not world.view().margins[ALICE].healthy
    return world


def only(world: World, kind: str) -> list[Decision]:
    return [decision for decision in world.snapshot.decisions if decision.kind == kind]


def auction(world: World, prices: dict[bytes, int]) -> Decision | None:
    world.auction({keeper: {SUBJECT: price} for keeper, price in prices.items()})
    found = only(world, "Award")
    return found[0] if found else None


def mine_to(world: World, block: int) -> None:
    while world.chains[B].number < block:
        world.chains[B].mine()


def test_commit_to_award_takes_two_views() -> None:
    world = sick_world()
    began = world.number
    award = auction(world, {K[0]: 10 * USD, K[1]: 7 * USD, K[2]: 9 * USD})
    assert award is not None
    assert world.number - began == 2
    _, account, venue, market, size, price, ranks, *_ = fields(award)
    assert (account, venue, market) == (ALICE, VENUE, ETH)
    assert ranks == (K[0], K[2], K[1])
    assert price == 9 * USD
    assert 0 < size <= 4 * UNIT


def test_one_bidder_pays_the_reserve() -> None:
    world = sick_world()
    task = world.competition.tasks[0]
    award = auction(world, {K[0]: 15 * USD})
    assert award is not None
    assert fields(award)[5] == task.reserve


def test_below_the_reserve_nobody_wins() -> None:
    world = sick_world()
    assert auction(world, {K[0]: 0}) is None
    assert world.competition.awards == ()


def test_winner_executes_and_the_task_is_over() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD, K[1]: 7 * USD})
    assert award is not None
    mine_to(world, fields(award)[7])
    assert world.execute(award, K[0]) == 0
    with pytest.raises(Refused, match="task is done"):
        world.execute(award, K[0])
    world.view()
    assert world.competition.awards == ()
    assert world.snapshot.margins[ALICE].healthy
    assert only(world, "Penalty") == []


def test_one_award_per_task_while_it_is_open() -> None:
    world = sick_world()
    assert auction(world, {K[0]: 10 * USD, K[1]: 7 * USD}) is not None
    for _ in range(4):
        assert auction(world, {K[2]: 12 * USD, K[1]: 12 * USD}) is None
    assert len(world.competition.awards) == 1


def test_early_rank_is_refused_and_fallback_costs_the_winner() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD, K[1]: 7 * USD, K[2]: 6 * USD})
    assert award is not None
    start, exclusive, _step = fields(award)[7:10]
    mine_to(world, start)
    with pytest.raises(Refused, match="not your turn"):
        world.execute(award, K[1])
    mine_to(world, start + exclusive)
    with pytest.raises(Refused, match="not your turn"):
        world.execute(award, K[2])
    assert world.execute(award, K[1]) == 1
    world.view()
    (penalty,) = only(world, "Penalty")
    task, keeper, amount, beneficiary, *_ = fields(penalty)
    assert (task, keeper, beneficiary) == (fields(award)[0], K[0], K[1])
    assert amount == fields(award)[12]
    world.bring(penalty)
    world.view()
    assert only(world, "Penalty") == []
    assert world.competition.no_shows == ((K[0], 1),)


def test_late_bid_loses_by_certificate() -> None:
    world = sick_world()
    early = world.commit(K[0], {SUBJECT: 10 * USD})
    late = BidVector(early.view, K[1], early.bids, early.salt)
    world.view()
    world.commitments[early.view, K[1]] = {(i, late.commitment) for i in range(4)}
    world.reveal(early)
    world.reveal(late)
    world.view()
    (award,) = only(world, "Award")
    assert fields(award)[6] == (K[0],)


def test_a_round_nobody_bid_in_yet_waits_for_slow_keepers() -> None:
    world = sick_world()
    slow = world.commit(K[0], {SUBJECT: 10 * USD}, members=0)
    for _ in range(COMMIT_VIEWS - 1):
        world.view()
        assert world.competition.revealing == ()
    world.commitments[slow.view, K[0]] = {(i, slow.commitment) for i in range(4)}
    world.view()
    world.reveal(slow)
    world.view()
    assert len(only(world, "Award")) == 1


def test_a_commitment_fewer_than_f_plus_1_saw_is_not_frozen() -> None:
    world = sick_world()
    vector = world.commit(K[0], {SUBJECT: 10 * USD}, members=1)
    world.view()
    assert world.competition.revealing == ()
    world.reveal(vector)
    world.view()
    assert only(world, "Award") == []
    assert only(world, "Penalty") == []


def test_selective_non_reveal_is_fined_and_excluded() -> None:
    world = sick_world()
    shown = world.commit(K[0], {SUBJECT: 7 * USD})
    world.commit(K[1], {SUBJECT: 10 * USD})
    world.view()
    world.reveal(shown)
    for _ in range(REVEAL_VIEWS - 1):
        world.view()
        assert only(world, "Award") == []
    world.view()
    (award,) = only(world, "Award")
    assert fields(award)[6] == (K[0],)
    (penalty,) = only(world, "Penalty")
    rules = world.parameters.competition
    assert fields(penalty)[1] == K[1]
    assert fields(penalty)[2] == rules.no_reveal_penalty * rules.bond_per_unit


def test_a_reveal_one_view_late_still_counts() -> None:
    world = sick_world()
    first = world.commit(K[0], {SUBJECT: 7 * USD})
    second = world.commit(K[1], {SUBJECT: 10 * USD})
    world.view()
    world.reveal(first)
    world.view()
    world.reveal(second)
    world.view()
    (award,) = only(world, "Award")
    assert fields(award)[6] == (K[1], K[0])
    assert only(world, "Penalty") == []


def test_two_commitments_for_one_view_exclude_and_cost() -> None:
    world = sick_world()
    a = world.commit(K[0], {SUBJECT: 7 * USD}, salt=1)
    b = BidVector(a.view, K[0], a.bids, b"\2" * 32)
    world.commitments[a.view, K[0]] = {
        (0, a.commitment),
        (1, a.commitment),
        (2, b.commitment),
        (3, b.commitment),
    }
    world.view()
    assert world.competition.revealing == ()
    (penalty,) = only(world, "Penalty")
    assert fields(penalty)[1] == K[0]


def test_garbage_behind_a_commitment_is_fined() -> None:
    world = sick_world()
    vector = world.commit(K[0], {SUBJECT: 7 * USD})
    body = b"garbage"
    from keeper.hashing import keccak

    world.commitments[vector.view, K[0]] = {(i, keccak(body)) for i in range(4)}
    world.view()
    world.bodies[keccak(body)] = body
    for i in range(4):
        world.reveals[i].add(keccak(body))
    world.view()
    (penalty,) = only(world, "Penalty")
    assert fields(penalty)[1] == K[0]
    assert only(world, "Award") == []


def test_someone_elses_vector_wins_nothing() -> None:
    world = sick_world()
    honest = world.commit(K[0], {SUBJECT: 7 * USD})
    world.commitments[honest.view, K[1]] = {(i, honest.commitment) for i in range(4)}
    world.view()
    world.reveal(honest)
    world.view()
    (award,) = only(world, "Award")
    assert fields(award)[6] == (K[0],)
    assert [fields(penalty)[1] for penalty in only(world, "Penalty")] == [K[1]]


@pytest.mark.parametrize("status", [0, 2, 3, 4])
def test_only_active_bonds_compete(status: int) -> None:
    world = sick_world()
    world.bond(K[0], BOND, status)
    world.view()
    assert auction(world, {K[0]: 10 * USD}) is None


def test_a_bond_is_not_used_twice() -> None:
    world = sick_world()
    task = world.competition.tasks[0]
    price = 10 * USD
    for keeper in K[:3]:
        world.bond(keeper, 0)
    world.bond(K[0], bond_lock(task.value, price, world.parameters) * 3 // 2)
    world.deposit(BOB, A, 1_000 * USD)
    world.prices[ETH] = 2_000 * 10**8
    world.request_credit(BOB, 400 * USD)
    (credit,) = world.view().decisions
    world.bring(credit)
    world.increase(BOB, 4 * UNIT)
    world.prices[ETH] = 1_820 * 10**8
    world.view()
    other = Target(B, BOB, VENUE, ETH).subject
    assert len(world.competition.tasks) == 2
    world.auction({K[0]: {SUBJECT: price, other: price}})
    assert len(only(world, "Award")) == 1


def test_high_bid_and_no_show_locks_what_it_risks() -> None:
    world = sick_world()
    (task,) = world.competition.tasks
    price, unit = task.bonus - USD, world.parameters.competition.bond_per_unit
    award = auction(world, {K[0]: task.bonus, K[1]: price})
    assert award is not None
    assert world.competition.awards[0].lock >= price * unit > task.lock
    mine_to(world, award.expiry + 1)
    world.view()
    (penalty,) = only(world, "Penalty")
    assert fields(penalty)[1:3] == (K[0], fields(award)[12])


def test_a_bid_that_closing_cannot_pay_counts_for_nothing() -> None:
    world = sick_world()
    (task,) = world.competition.tasks
    most = task.value * world.parameters.liquidation.bonus_max_ppm // 10**6
    award = auction(world, {K[0]: most + 1, K[1]: most, K[2]: 7 * USD})
    assert award is not None
    assert fields(award)[6] == (K[1], K[2])


def test_shill_second_bid_pays_if_it_wins() -> None:
    world = sick_world()
    # K[1] means to drive up what K[0] pays; below its bid it does, above it the shill must act
    award = auction(world, {K[0]: 12 * USD, K[1]: 11 * USD})
    assert award is not None
    assert fields(award)[5:7] == (11 * USD, (K[0], K[1]))
    mine_to(world, fields(award)[7])
    world.execute(award, K[0])
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD, K[1]: 11 * USD})
    assert award is not None
    assert fields(award)[6][0] == K[1]
    mine_to(world, award.expiry + 1)
    world.view()
    (penalty,) = only(world, "Penalty")
    unit = world.parameters.competition.bond_per_unit
    assert fields(penalty)[1] == K[1]
    assert fields(penalty)[2] >= 10 * USD * unit


def test_healed_account_is_voided_and_nobody_pays() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD})
    assert award is not None
    world.deposit(ALICE, A, 1_000 * USD)
    world.view()
    (void,) = only(world, "Attestation")
    world.view()
    assert only(world, "Attestation") == []
    world.bring(void)
    with pytest.raises(Refused, match="task is done"):
        world.execute(award, K[0])
    world.view()
    assert world.competition.awards == ()
    assert world.competition.no_shows == ()


def test_heal_then_sicken_is_a_new_task_and_no_punishment() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD})
    assert award is not None
    world.prices[ETH] = 2_000 * 10**8
    world.view()
    (void,) = only(world, "Attestation")
    world.prices[ETH] = 1_820 * 10**8
    world.view()
    mine_to(world, award.expiry + 1)
    world.view()
    assert only(world, "Penalty") == []
    world.bring(void)
    world.view()
    (task,) = world.competition.tasks
    assert task.id != fields(award)[0]


def test_lapsed_award_of_a_sick_account_is_punished_once_and_made_again() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD})
    assert award is not None
    mine_to(world, award.expiry)
    world.view(mine=False)
    assert len(world.competition.awards) == 1
    world.view()
    with pytest.raises(Refused, match="award is over"):
        world.execute(award, K[0])
    (penalty,) = only(world, "Penalty")
    assert fields(penalty)[1] == K[0]
    (task,) = world.competition.tasks
    assert task.id != fields(award)[0]
    world.view()
    assert only(world, "Penalty") == []
    assert auction(world, {K[1]: 10 * USD}) is not None


def test_a_penalty_nobody_brought_is_sealed_again_until_it_is_paid() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD})
    assert award is not None
    mine_to(world, award.expiry + 1)
    world.view()
    (first,) = only(world, "Penalty")
    free = world.chains[A].stakes[K[0]]
    while world.chains[A].number <= first.expiry:
        world.chains[A].mine()
    world.view()
    (second,) = only(world, "Penalty")
    assert second.leaf != first.leaf
    assert fields(second)[:4] == fields(first)[:4]
    with pytest.raises(Refused, match="decision expired"):
        world.bring(first)
    world.bring(second)
    world.view()
    assert world.competition.flying == ()
    assert world.chains[A].stakes[K[0]] == free - fields(first)[2]
    while world.chains[A].number <= second.expiry:
        world.chains[A].mine()
    world.view()
    assert only(world, "Penalty") == []


def test_three_no_shows_and_the_keeper_no_longer_competes() -> None:
    world = sick_world()
    for _ in range(world.parameters.competition.jail_after):
        award = auction(world, {K[0]: 10 * USD})
        assert award is not None
        mine_to(world, award.expiry + 1)
        world.view()
    assert auction(world, {K[0]: 10 * USD}) is None


def test_standing_bid_on_a_healthy_account_clears_in_one_view() -> None:
    world = sick_world()
    world.prices[ETH] = 1_866 * 10**8
    snapshot = world.view()
    assert snapshot.margins[ALICE].healthy
    assert world.competition.collecting == world.number
    vector = world.commit(K[0], {SUBJECT: 10 * USD})
    world.prices[ETH] = 1_820 * 10**8
    fell = world.view().header.view
    world.reveal(vector)
    world.view()
    assert len(only(world, "Award")) == 1
    assert world.number - fell == 1


def test_a_winner_of_most_awards_yields_to_a_close_rival() -> None:
    from keeper.compete.auction import Offer, settle

    rules = World().parameters.competition
    recent = (K[0],) * rules.recent_awards
    close = [Offer(K[0], 1_000), Offer(K[1], 960)]
    outcome = settle(b"t" * 32, close, 10, recent, rules)
    assert outcome is not None
    assert outcome.ranks == (K[1], K[0])
    assert outcome.price == 10
    far = [Offer(K[0], 1_000), Offer(K[1], 900)]
    outcome = settle(b"t" * 32, far, 10, recent, rules)
    assert outcome is not None
    assert outcome.ranks == (K[0], K[1])
    assert outcome.price == 900


def stop_liquidations(world: World, until: int) -> None:
    """Let the venue's breaker stop liquidations up to a block."""
    topics = [bytes(32), (4).to_bytes(32, "big")]
    types = ["uint8", "uint64", "uint64"]
    event = "Graded(bytes32,uint8,uint8,uint64,uint64)"
    world.chains[B].log("Breaker", event, topics, types, 2, 1, until)


@pytest.mark.parametrize("held_back", [True, False])
def test_who_a_breaker_holds_back_is_not_blamed(held_back: bool) -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD, K[1]: 7 * USD})
    assert award is not None
    start, exclusive = fields(award)[7:9]
    if held_back:
        stop_liquidations(world, start + exclusive - 1)
    world.view()
    mine_to(world, start + exclusive)
    assert world.execute(award, K[1]) == 1
    world.view()
    assert len(only(world, "Penalty")) == (not held_back)


def test_a_task_that_lapses_behind_a_breaker_costs_nobody() -> None:
    world = sick_world()
    award = auction(world, {K[0]: 10 * USD})
    assert award is not None
    stop_liquidations(world, award.expiry)
    world.view()
    mine_to(world, award.expiry + 1)
    world.view()
    assert world.competition.awards == ()
    assert only(world, "Penalty") == []
    assert len(world.competition.tasks) == 1
