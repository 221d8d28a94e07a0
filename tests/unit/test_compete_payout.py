"""The pools are paid by participation and by promises kept, never more than they hold."""

from keeper.clear.release import ReleaseRule
from keeper.clear.transfer import TransferRule
from keeper.compete.award import AwardRule
from keeper.compete.payout import PayoutRule
from keeper.venue.book import SystemAccount, system_account
from tests.support.clearing_world import NETWORK, USD, A, B, World, fields

COMMITTEE = system_account(NETWORK, SystemAccount.COMMITTEE)
CONSISTENCY = system_account(NETWORK, SystemAccount.CONSISTENCY)


def world_with_pools() -> World:
    world = World(rules=(TransferRule(), ReleaseRule(), AwardRule(), PayoutRule()))
    world.deposit(COMMITTEE, A, 40 * USD)
    world.deposit(CONSISTENCY, B, 10 * USD)
    return world


def pay(world: World) -> list[bytes]:
    """Go on to the next payment, bring all of it, and return who was paid."""
    ticks = world.parameters.competition.reward_ticks
    snapshot = world.view(skip=ticks - world.number % ticks)
    for decision in snapshot.decisions:
        world.bring(decision)
    return [fields(decision)[1] for decision in snapshot.decisions]


def test_members_share_the_committee_pool_by_views() -> None:
    world = world_with_pools()
    for _ in range(5):
        world.view()
    paid = pay(world)
    assert sorted(paid) == sorted(NETWORK.account(member) for member in world.addresses)
    assert {world.balance(account, A) for account in paid} == {10 * USD}
    assert world.balance(COMMITTEE, A) == 0
    assert world.balance(CONSISTENCY, B) == 10 * USD


def test_nothing_is_paid_twice_while_it_is_in_flight() -> None:
    world = world_with_pools()
    ticks = world.parameters.competition.reward_ticks
    assert len(world.view(skip=ticks).decisions) == 4
    assert world.view(skip=ticks).decisions == ()


def test_consistency_goes_to_who_executed_as_promised() -> None:
    world = world_with_pools()
    good, bad = b"\x07" * 20, b"\x08" * 20
    model = world.chains[B]
    executed = "Executed(bytes32,bytes32,address,uint256,bytes32,uint256,uint256)"
    types = ["uint256", "bytes32", "uint256", "uint256"]
    for number, keeper in enumerate((good, good, bad)):
        task = number.to_bytes(32, "big")
        topics = [task, bytes(32), keeper.rjust(32, b"\0")]
        model.log("Awards", executed, topics, types, 0, bytes(32), 1, 1)
    topics = [b"\1" * 32, bad.rjust(32, b"\0")]
    model.log("Awards", "NoShow(bytes32,address,uint256)", topics, ["uint256"], 5)
    pay(world)
    assert world.balance(NETWORK.account(good), B) == 8 * USD
    assert world.balance(NETWORK.account(bad), B) == 2 * USD
