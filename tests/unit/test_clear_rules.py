"""Credit, release and transfer, one small world each."""

import pytest

from keeper.snapshot.decisions import Decision
from keeper.units import symbol
from tests.support.clearing_world import (
    ETH,
    HOUSE,
    INSURANCE,
    UNIT,
    USD,
    WETH,
    A,
    B,
    Refused,
    World,
    trader,
)

ALICE, BOB, CAROL = trader(1), trader(2), trader(3)


def kinds(decisions: tuple[Decision, ...]) -> list[str]:
    return [decision.kind for decision in decisions]


def with_position(world: World, account: bytes, size: int, limit: int) -> None:
    """Give the account a position on B that its collateral on A secures."""
    world.request_credit(account, limit)
    (credit,) = world.view().decisions
    world.bring(credit)
    world.increase(account, size)


def test_collateral_on_one_chain_opens_a_position_on_the_other() -> None:
    world = World()
    world.deposit(ALICE, A, 1_000 * USD)
    with_position(world, ALICE, 2 * UNIT, 300 * USD)
    snapshot = world.view()
    assert snapshot.margins[ALICE].healthy
    assert {leg.chain for leg in snapshot.legs[ALICE]} == {A, B}


def test_credit_counts_until_it_expires_also_before_it_arrives() -> None:
    world = World()
    world.deposit(ALICE, A, 1_000 * USD)
    world.request_credit(ALICE, 500 * USD)
    assert kinds(world.view().decisions) == ["Credit"]
    world.request_withdraw(ALICE, A, 900 * USD)
    for _ in range(5):
        assert world.view().decisions == ()
    for _ in range(world.parameters.clearing.credit_blocks):
        world.chains[B].mine()
    assert kinds(world.view().decisions) == ["Release"]


def test_no_second_credit_for_the_same_request() -> None:
    world = World()
    world.deposit(ALICE, A, 1_000 * USD)
    world.request_credit(ALICE, 100 * USD)
    (credit,) = world.view().decisions
    assert world.view().decisions == ()
    world.bring(credit)
    assert world.view().decisions == ()
    with pytest.raises(Refused, match="decision used"):
        world.bring(credit)


def test_too_large_a_request_waits_for_collateral() -> None:
    world = World()
    world.deposit(ALICE, A, 100 * USD)
    world.request_credit(ALICE, 500 * USD)
    assert world.view().decisions == ()
    world.deposit(ALICE, B, 1_000 * USD)
    assert kinds(world.view().decisions) == ["Credit"]


def test_release_leaves_what_positions_need() -> None:
    world = World()
    world.deposit(ALICE, A, 1_000 * USD)
    with_position(world, ALICE, 2 * UNIT, 300 * USD)
    world.request_withdraw(ALICE, A, 900 * USD)
    assert world.view().decisions == ()
    world.request_withdraw(ALICE, A, 400 * USD)
    (release,) = world.view().decisions
    assert release.kind == "Release"
    world.bring(release)
    assert world.view().decisions == ()
    assert world.balance(ALICE, A) == 600 * USD


def test_a_balance_in_flight_is_not_released_twice() -> None:
    world = World()
    world.deposit(ALICE, A, 1_000 * USD)
    world.request_withdraw(ALICE, A, 800 * USD)
    (first,) = world.view().decisions
    world.request_withdraw(ALICE, A, 700 * USD)
    assert world.view().decisions == ()
    with pytest.raises(Refused, match="no such request"):
        world.bring(first)
    for _ in range(world.parameters.clearing.release_blocks + 1):
        world.chains[A].mine()
    assert kinds(world.view().decisions) == ["Release"]


def settle(world: World, views: int = 12) -> list[Decision]:
    """Decide views and bring every transfer at once."""
    seen = []
    for _ in range(views):
        for decision in world.view().decisions:
            if decision.kind == "Transfer":
                seen.append(decision)
                world.bring(decision)
    return seen


def test_loss_on_one_chain_is_paid_from_collateral_on_the_other() -> None:
    world = World()
    world.deposit(ALICE, A, 1_000 * USD)
    with_position(world, ALICE, 2 * UNIT, 300 * USD)
    world.view()
    world.prices[ETH] = 1_900 * 10**8
    loss = -world.close(ALICE)
    assert loss == 200 * USD
    before = world.view().margins[ALICE].equity
    settle(world)
    assert world.balance(ALICE, A) == 800 * USD
    assert world.balance(HOUSE, A) == 200 * USD
    after = world.view().margins[ALICE].equity
    assert abs(after - before) <= before // 100


def test_profit_is_paid_from_what_the_house_holds() -> None:
    world = World()
    world.deposit(ALICE, A, 1_000 * USD)
    with_position(world, ALICE, 2 * UNIT, 300 * USD)
    world.prices[ETH] = 2_100 * 10**8
    profit = world.close(ALICE)
    assert settle(world) == []
    world.deposit(HOUSE, A, 50 * USD)
    settle(world)
    assert world.balance(ALICE, A) == 1_050 * USD
    world.deposit(HOUSE, B, 1_000 * USD)
    settle(world)
    assert world.balance(ALICE, A) + world.balance(ALICE, B) == 1_000 * USD + profit


def test_stable_asset_pays_first_then_the_other_less_its_haircut() -> None:
    world = World()
    world.deposit(ALICE, A, 100 * USD)
    world.deposit(ALICE, A, 10**18, WETH)
    with_position(world, ALICE, 2 * UNIT, 300 * USD)
    world.prices[ETH] = 1_850 * 10**8
    world.close(ALICE)
    settle(world)
    assert world.balance(ALICE, A) == 0
    paid = 10**18 - world.balance(ALICE, A, WETH)
    assert paid == -(-200 * 10**18 * 10**6 // (2_000 * 950_000))
    assert world.balance(HOUSE, A, WETH) == paid


def test_insurance_pays_when_the_collateral_is_gone_then_profits_share() -> None:
    world = World()
    world.deposit(ALICE, A, 200 * USD)
    world.deposit(BOB, A, 1_000 * USD)
    world.deposit(INSURANCE, A, 30 * USD)
    with_position(world, ALICE, UNIT, 100 * USD)
    with_position(world, BOB, -UNIT, 100 * USD)
    world.prices[ETH] = 1_700 * 10**8
    world.close(ALICE)
    world.close(BOB)
    settle(world, 24)
    assert world.balance(ALICE, A) == 0
    assert world.balance(INSURANCE, A) == 0
    # 300 lost, 200 + 30 paid: the winner bears the rest of 70
    assert world.balance(BOB, A) == 1_230 * USD
    assert world.balance(HOUSE, A) == 0


def test_a_transfer_that_expires_is_made_again() -> None:
    world = World()
    world.deposit(ALICE, A, 1_000 * USD)
    with_position(world, ALICE, 2 * UNIT, 300 * USD)
    world.prices[ETH] = 1_900 * 10**8
    world.close(ALICE)
    lost = [d for _ in range(6) for d in world.view().decisions]
    assert kinds(tuple(lost)) == ["Transfer"]
    for _ in range(world.parameters.clearing.transfer_blocks + 1):
        world.chains[A].mine()
    again = settle(world)
    assert kinds(tuple(again)) == ["Transfer"]
    assert again[0].leaf != lost[0].leaf
    with pytest.raises(Refused, match="expired"):
        world.bring(lost[0])
    assert world.balance(ALICE, A) == 800 * USD


@pytest.mark.parametrize("scope", [bytes(32), symbol(f"chain:{A}")])
def test_a_breaker_stops_credit_or_release_until_it_ends(scope: bytes) -> None:
    world = World()
    world.deposit(ALICE, A, 1_000 * USD)
    world.request_withdraw(ALICE, A, 100 * USD)
    model = world.chains[A]
    model.log(
        "Breaker",
        "Graded(bytes32,uint8,uint8,uint64,uint64)",
        [scope, (2).to_bytes(32, "big")],
        ["uint8", "uint64", "uint64"],
        2,
        1,
        model.number + 5,
    )
    for _ in range(5):
        assert world.view().decisions == ()
    assert kinds(world.view().decisions) == ["Release"]


def test_no_credit_for_an_account_that_is_leaving() -> None:
    world = World()
    world.deposit(ALICE, A, 1_000 * USD)
    world.chains[A].log("Vault", "Exit(bytes32,uint64)", [ALICE], ["uint64"], 500)
    world.request_credit(ALICE, 100 * USD)
    assert world.view().decisions == ()
    world.chains[A].log("Vault", "Exit(bytes32,uint64)", [ALICE], ["uint64"], 0)
    assert kinds(world.view().decisions) == ["Credit"]
