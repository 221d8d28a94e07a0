"""The pools are paid by participation and by promises kept, never more than they hold."""

from keeper.clear.release import ReleaseRule
from keeper.clear.transfer import TransferRule
from keeper.compete.award import AwardRule
from keeper.compete.payout import PayoutRule
from keeper.venue.book import SystemAccount, system_account
from tests.support.clearing_world import NETWORK, USD, A, B, World, fields

COMMITTEE = system_account(NETWORK, SystemAccount.COMMITTEE)
CONSISTENCY = system_account(NETWORK, SystemAccount.CONSISTENCY)
PROTOCOL = system_account(NETWORK, SystemAccount.PROTOCOL)


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


def executed(
    world: World, number: int, keeper: bytes, *, rank: int = 0, spent: int = 0, bonus: int = USD
) -> None:
    """Let a keeper have carried out a task."""
    signature = "Executed(bytes32,bytes32,address,uint256,bytes32,uint256,uint256,uint256)"
    types = ["uint256", "bytes32", "uint256", "uint256", "uint256"]
    topics = [number.to_bytes(32, "big"), bytes(32), keeper.rjust(32, b"\0")]
    values = (rank, bytes(32), 1, bonus, spent)
    world.chains[B].log("Awards", signature, topics, types, *values)


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
    for number, keeper in enumerate((good, good, bad)):
        executed(world, number, keeper)
    topics = [b"\1" * 32, bad.rjust(32, b"\0")]
    model.log("Awards", "NoShow(bytes32,address,uint256)", topics, ["uint256"], 5)
    pay(world)
    assert world.balance(NETWORK.account(good), B) == 8 * USD
    assert world.balance(NETWORK.account(bad), B) == 2 * USD


def refunds(held: int) -> tuple[World, bytes, bytes]:
    """Return a world whose protocol account holds something, and two winners: thrifty, lavish."""
    world = World(rules=(TransferRule(), ReleaseRule(), AwardRule(), PayoutRule()))
    rules = world.parameters.competition
    world.deposit(PROTOCOL, A, held)
    thrifty, lavish = b"\x07" * 20, b"\x08" * 20
    allowed = rules.gas_allowance * rules.bond_per_unit
    executed(world, 1, thrifty, spent=allowed // 4, bonus=9 * USD)
    executed(world, 2, lavish, spent=3 * allowed, bonus=9 * USD)
    return world, thrifty, lavish


def test_a_winner_keeps_half_of_the_gas_it_saved() -> None:
    world, thrifty, lavish = refunds(100 * USD)
    allowed = world.parameters.competition.gas_allowance
    executed(world, 3, b"\x09" * 20, rank=1, spent=1, bonus=9 * USD)
    pay(world)
    spent = allowed // 4
    assert world.balance(NETWORK.account(thrifty), A) - spent == (allowed - spent) // 2
    assert world.balance(NETWORK.account(lavish), A) == allowed
    assert world.balance(NETWORK.account(b"\x09" * 20), A) == 0
    pay(world)
    assert world.balance(PROTOCOL, A) == 100 * USD - allowed - spent - (allowed - spent) // 2


def test_a_refund_that_the_account_cannot_pay_is_paid_later() -> None:
    world, thrifty, lavish = refunds(USD)
    rules = world.parameters.competition
    pay(world)
    assert world.balance(PROTOCOL, A) <= 1
    world.deposit(PROTOCOL, A, 100 * USD)
    pay(world)
    assert world.balance(NETWORK.account(lavish), A) == rules.gas_allowance
    assert world.balance(NETWORK.account(thrifty), A) == rules.gas_allowance * 5 // 8


def test_a_refund_is_never_above_the_bonus() -> None:
    world, _, _ = refunds(100 * USD)
    poor = b"\x0a" * 20
    executed(world, 4, poor, spent=10**30, bonus=USD // 10)
    pay(world)
    assert world.balance(NETWORK.account(poor), A) == USD // 10
