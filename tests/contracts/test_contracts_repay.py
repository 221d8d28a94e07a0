"""Debt is repaid by a leg, and no pool, token or receiver keeps the leg from ending."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from keeper import leaves
from keeper.contracts import encode_call
from keeper.units import ChainId
from keeper.venue.escrow import Flow, Leg, Terms
from keeper.venue.records import word
from tests.support.contracts import EPOCH, NETWORK, ZERO, Receipt, Reverted, World

HOSTILE = Path(__file__).parent / "hostile"
HONEST, PAUSED, BURNS, IDLE, HALF, CALLS, GREEDY, WORKS, GIVES = range(9)
TOKENS = ("DevToken", "OddToken")
LEAST_GAS = 2_100_158
"""What the contract asks for before it calls the pool."""
MORE_GAS = 100_000
"""Until the gas is asked for, at most."""


@pytest.fixture
def bank(world: World) -> World:
    """A pool, with a Repay for it."""
    world.deploy_source("Lender", HOSTILE / "Lender.vy")
    world.deploy("Repay", world.at["Lender"])
    for token in ("OddToken", "PickyToken", "ReentrantToken"):
        world.deploy_source(token, HOSTILE / f"{token}.vy")
    world.deploy_source("FeeToken", HOSTILE / "FeeToken.vy", 1)
    return world


def lend(bank: World, token: str, debt: int, who: str = "debtor") -> None:
    bank.call("Lender", "lend", bank.at[token], bank.actor(who), debt)


def behave(bank: World, how: int, target: bytes = ZERO, data: bytes = b"") -> None:
    bank.call("Lender", "behave", how, target, data)


def give(bank: World, token: str, amount: int) -> None:
    bank.call(token, "mint", bank.actor("payer"), amount)
    bank.call(token, "approve", bank.at["Repay"], amount, sender="payer")


def deliver(
    bank: World, token: str, amount: int, who: str = "debtor", gas: int | None = None
) -> Receipt:
    args = (word(bank.actor(who)), bank.at[token], amount)
    return bank.call("Repay", "deposit_for", *args, sender="payer", gas=gas)


def repay(bank: World, token: str, amount: int, who: str = "debtor") -> Receipt:
    give(bank, token, amount)
    return deliver(bank, token, amount, who)


def held(bank: World, token: str, who: str = "debtor") -> int:
    address = bank.at[who] if who in bank.at else bank.actor(who)
    return int(bank.call(token, "balanceOf", address).value)


def debt(bank: World, token: str, who: str = "debtor") -> int:
    return int(bank.call("Lender", "debts", bank.at[token], bank.actor(who)).value)


def owed(bank: World, token: str, who: str = "debtor") -> int:
    return int(bank.call("Repay", "owed", bank.actor(who), bank.at[token]).value)


def told(bank: World, receipt: Receipt) -> tuple[int, int]:
    (event,) = bank.events(receipt, "Repay", "Repaid")
    return event["repaid"], event["rest"]


def allowance(bank: World, token: str) -> int:
    return int(bank.call(token, "allowance", bank.at["Repay"], bank.at["Lender"]).value)


def clean(bank: World, token: str) -> bool:
    """Nothing stays, and the pool may take nothing more."""
    return (held(bank, token, "Repay"), allowance(bank, token)) == (0, 0)


@pytest.mark.parametrize("token", TOKENS)
def test_debt_is_repaid_and_the_rest_is_the_debtors(bank: World, token: str) -> None:
    lend(bank, token, 100)
    assert told(bank, repay(bank, token, 70)) == (70, 0)
    assert (debt(bank, token), held(bank, token), held(bank, token, "Lender")) == (30, 0, 70)
    assert told(bank, repay(bank, token, 50)) == (30, 20)
    assert (debt(bank, token), held(bank, token), held(bank, token, "Lender")) == (0, 20, 100)
    assert clean(bank, token)


def test_only_the_named_addresss_debt_is_repaid(bank: World) -> None:
    lend(bank, "DevToken", 100, "other")
    assert told(bank, repay(bank, "DevToken", 70)) == (0, 70)
    assert (debt(bank, "DevToken", "other"), held(bank, "DevToken")) == (100, 70)


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("how", [PAUSED, BURNS, IDLE, GREEDY])
def test_what_a_pool_refuses_is_the_debtors(bank: World, token: str, how: int) -> None:
    lend(bank, token, 100)
    behave(bank, how)
    assert told(bank, repay(bank, token, 70)) == (0, 70)
    assert (debt(bank, token), held(bank, token), held(bank, token, "Lender")) == (100, 70, 0)
    assert clean(bank, token)
    behave(bank, HONEST)
    assert told(bank, repay(bank, token, 70)) == (70, 0)


@pytest.mark.parametrize("token", TOKENS)
def test_what_a_pool_says_it_took_is_not_believed(bank: World, token: str) -> None:
    lend(bank, token, 100)
    behave(bank, HALF)
    assert told(bank, repay(bank, token, 70)) == (35, 35)
    assert (debt(bank, token), held(bank, token), held(bank, token, "Lender")) == (65, 35, 35)
    assert clean(bank, token)


def test_a_pool_that_gives_is_no_hindrance(bank: World) -> None:
    lend(bank, "DevToken", 100)
    bank.call("DevToken", "mint", bank.at["Lender"], 1)
    behave(bank, GIVES)
    assert told(bank, repay(bank, "DevToken", 70)) == (0, 70)
    assert held(bank, "DevToken", "Repay") == 1, "nobody's"


def test_a_pool_cannot_come_back_in(bank: World) -> None:
    debtor, token = bank.actor("debtor"), bank.at["PickyToken"]
    bank.call("PickyToken", "refuse", debtor, 0)
    repay(bank, "PickyToken", 30)
    bank.call("PickyToken", "refuse", ZERO, 0)
    lend(bank, "PickyToken", 100)
    collect = encode_call("Repay", "collect", debtor, token)
    behave(bank, CALLS, bank.at["Repay"], collect)
    assert told(bank, repay(bank, "PickyToken", 70)) == (70, 0)
    assert bank.call("Lender", "successes").value == 0
    assert owed(bank, "PickyToken") == 30
    bank.call("Repay", "collect", debtor, token)  # by itself the very same call goes through


def test_a_token_cannot_come_back_in(bank: World) -> None:
    token = bank.at["ReentrantToken"]
    lend(bank, "ReentrantToken", 100)
    bank.call("ReentrantToken", "mint", token, 2)
    bank.call("ReentrantToken", "approve_own", bank.at["Repay"], 2)
    again = encode_call("Repay", "deposit_for", word(bank.actor("thief")), token, 1)
    give(bank, "ReentrantToken", 130)
    bank.call("ReentrantToken", "arm", bank.at["Repay"], again)
    assert told(bank, deliver(bank, "ReentrantToken", 130)) == (100, 30)
    assert bank.call("ReentrantToken", "tries").value == 3
    assert bank.call("ReentrantToken", "successes").value == 0
    assert held(bank, "ReentrantToken", "thief") == 0
    assert clean(bank, "ReentrantToken")
    bank.call("ReentrantToken", "poke")
    assert bank.call("ReentrantToken", "successes").value == 1, "by itself it goes through"


@pytest.mark.parametrize("how", range(3), ids=["reverts", "says no", "burns gas"])
def test_a_receiver_that_a_token_refuses_is_owed(bank: World, how: int) -> None:
    debtor = bank.actor("debtor")
    bank.call("PickyToken", "refuse", debtor, how)
    lend(bank, "PickyToken", 100)
    receipt = repay(bank, "PickyToken", 130)
    assert told(bank, receipt) == (100, 30)
    (event,) = bank.events(receipt, "Repay", "Owed")
    assert (event["who"], event["amount"]) == ("0x" + debtor.hex(), 30)
    repay(bank, "PickyToken", 12)  # no debt: all of it
    assert (owed(bank, "PickyToken"), held(bank, "PickyToken", "Repay")) == (42, 42)
    # what is owed to one is nobody else's
    assert told(bank, repay(bank, "PickyToken", 5, "other")) == (0, 5)
    assert held(bank, "PickyToken", "other") == 5
    with bank.reverts("repay: token refused"):
        bank.call("Repay", "collect", debtor, bank.at["PickyToken"])
    with bank.reverts("repay: nothing owed"):
        bank.call("Repay", "collect", bank.actor("other"), bank.at["PickyToken"])
    bank.call("PickyToken", "refuse", ZERO, 0)
    bank.call("Repay", "collect", debtor, bank.at["PickyToken"])
    assert (held(bank, "PickyToken"), owed(bank, "PickyToken")) == (42, 0)
    assert clean(bank, "PickyToken")
    with bank.reverts("repay: nothing owed"):
        bank.call("Repay", "collect", debtor, bank.at["PickyToken"])


def test_a_token_that_sends_nothing_without_a_word_is_owed(bank: World) -> None:
    bank.call("OddToken", "behave", 3, ZERO)
    assert told(bank, repay(bank, "OddToken", 30)) == (0, 30)
    assert (owed(bank, "OddToken"), held(bank, "OddToken")) == (30, 0)
    with bank.reverts("repay: token refused"):
        bank.call("Repay", "collect", bank.actor("debtor"), bank.at["OddToken"])
    bank.call("OddToken", "behave", 0, ZERO)
    bank.call("Repay", "collect", bank.actor("debtor"), bank.at["OddToken"])
    assert (owed(bank, "OddToken"), held(bank, "OddToken")) == (0, 30)


def test_a_token_that_may_not_be_approved_goes_to_the_debtor(bank: World) -> None:
    lend(bank, "OddToken", 100)
    bank.call("OddToken", "behave", 2, bank.at["Lender"])
    assert told(bank, repay(bank, "OddToken", 70)) == (0, 70)
    bank.call("OddToken", "behave", 0, ZERO)
    assert told(bank, repay(bank, "OddToken", 70)) == (70, 0)


def test_a_token_whose_allowance_cannot_be_taken_back_is_no_hindrance(bank: World) -> None:
    lend(bank, "OddToken", 100)
    bank.call("OddToken", "behave", 1, ZERO)
    behave(bank, PAUSED)
    assert told(bank, repay(bank, "OddToken", 70)) == (0, 70)
    assert allowance(bank, "OddToken") == 70
    behave(bank, HONEST)  # the old allowance stands, no new one is given, and it is enough
    assert told(bank, repay(bank, "OddToken", 60)) == (60, 0)


def test_what_comes_is_counted(bank: World) -> None:
    lend(bank, "FeeToken", 100)
    assert told(bank, repay(bank, "FeeToken", 70)) == (69, 0)
    bank.call("DevToken", "mint", bank.at["Repay"], 1_000)  # a stranger's gift stays out of it
    lend(bank, "DevToken", 100)
    assert told(bank, repay(bank, "DevToken", 70)) == (70, 0)
    bank.call("OddToken", "behave", 4, ZERO)
    with bank.reverts("repay: nothing came"):
        repay(bank, "OddToken", 70)
    with bank.reverts("repay: nothing came"):
        repay(bank, "DevToken", 0)
    bank.call("PickyToken", "mint", bank.actor("payer"), 5)
    with pytest.raises(Reverted):  # nothing is approved
        deliver(bank, "PickyToken", 5)


def test_an_account_is_an_address(bank: World) -> None:
    bank.call("DevToken", "mint", bank.actor("payer"), 5)
    bank.call("DevToken", "approve", bank.at["Repay"], 5, sender="payer")
    for bad in (bytes(32), b"\x01" + bytes(31), word(bank.at["Repay"])):
        with bank.reverts("repay: not an address"):
            bank.call("Repay", "deposit_for", bad, bank.at["DevToken"], 5, sender="payer")


def test_a_pool_is_a_contract(bank: World) -> None:
    assert bank.call("Repay", "pool").value == "0x" + bank.at["Lender"].hex()
    with pytest.raises(Exception, match="repay: no pool"):
        bank.deploy("Repay", bank.actor("nobody"), alias="Another")


@pytest.mark.parametrize("how", [HONEST, WORKS, BURNS])
def test_no_gas_makes_a_leg_miss_the_debt(bank: World, how: int) -> None:
    lend(bank, "OddToken", 10_000)
    behave(bank, how)
    give(bank, "OddToken", 10_000)
    bank.call("OddToken", "mint", bank.actor("debtor"), 1)
    for gas in range(20_000, LEAST_GAS + MORE_GAS, 20_000):
        before = held(bank, "OddToken")
        with suppress(Reverted):
            deliver(bank, "OddToken", 10, gas=gas)
            assert (held(bank, "OddToken") == before) == (how in (HONEST, WORKS)), gas
    with bank.reverts("repay: too little gas"):
        deliver(bank, "OddToken", 10, gas=LEAST_GAS)


def test_the_gas_that_is_asked_for_is_enough_at_the_worst(bank: World) -> None:
    """Pool, approvals and the transfer burn all they get: the rest is owed all the same."""
    lend(bank, "OddToken", 100)
    behave(bank, BURNS)
    give(bank, "OddToken", 10)
    bank.call("OddToken", "behave", 5, ZERO)
    receipt = None
    for gas in range(LEAST_GAS, LEAST_GAS + MORE_GAS, 500):
        with suppress(Reverted):
            receipt = deliver(bank, "OddToken", 10, gas=gas)
            break
    assert receipt is not None
    assert told(bank, receipt) == (0, 10)
    assert owed(bank, "OddToken") == 10
    assert receipt.execution > 1_900_000, "all of them burned all they got"


def in_escrow(bank: World, token: str, amount: int, deposit: int) -> Callable[[], Receipt]:
    """Commit a leg of the payer into Repay, and return what pays it."""
    bank.deploy("Escrow", bank.at["Snapshots"], 1_000)
    leg = Leg(
        chain=ChainId(bank.chain),
        escrow=bank.at["Escrow"],
        payer=bank.actor("payer"),
        token=bank.at[token],
        amount=amount,
        receiver=word(bank.actor("debtor")),
        deposit=deposit,
        vault=bank.at["Repay"],
    )
    bank.call(token, "mint", leg.payer, amount + deposit)
    bank.call(token, "approve", leg.escrow, amount + deposit, sender="payer")
    flow = Flow.of(NETWORK, Terms(EPOCH, 0, bank.now + 100, bank.now + 1_000), [leg])
    bank.call("Escrow", "prepare", *flow.entry(0), sender="payer")
    place = bank.place("Escrow")
    leaf = leaves.flow_outcome_leaf(*place, flow=flow.id, outcome=1, late=0)
    sealed = bank.seal(leaf)
    bank.call("Escrow", "settle", sealed.seal, sealed.proof(leaf), flow.id, 1, 0)
    return partial(bank.call, "Escrow", "pay", flow.id, flow.legs[0].struct)


@pytest.mark.parametrize("how", [HONEST, PAUSED, BURNS, IDLE, HALF, CALLS, GREEDY])
@pytest.mark.parametrize("refused", [False, True])
def test_a_committed_leg_ends_whoever_is_in_its_way(bank: World, how: int, refused: bool) -> None:
    debtor = bank.actor("debtor")
    pay = in_escrow(bank, "PickyToken", 130, deposit=7)
    lend(bank, "PickyToken", 100)
    behave(bank, how, bank.at["Escrow"], b"")
    if refused:
        bank.call("PickyToken", "refuse", debtor, 2)
    pay()
    repaid = {HONEST: 100, HALF: 50, CALLS: 100}.get(how, 0)
    assert debt(bank, "PickyToken") == 100 - repaid
    assert held(bank, "PickyToken", "Lender") == repaid
    rest = 130 - repaid
    assert (held(bank, "PickyToken"), owed(bank, "PickyToken")) == (
        (0, rest) if refused else (rest, 0)
    )
    pay()  # and the deposit is back
    assert held(bank, "PickyToken", "payer") == 7
