"""The vault moves tokens by certificate, to whom the owner named, or after the exit delay."""

from pathlib import Path
from typing import Any

import pytest

from keeper import leaves
from keeper.contracts import encode_call
from keeper.hashing import keccak
from tests.support.contracts import (
    E8,
    ETH_USD,
    NEVER,
    USD,
    Receipt,
    World,
    account_id,
    fund,
    give_credit,
)

HOSTILE = Path(__file__).parent / "hostile"
BIG = 100_000 * USD


def balance(world: World, who: str, token: str = "DevToken") -> int:
    account = account_id(world.actor(who))
    return int(world.call("Vault", "balance_of", account, world.at[token]).value)


def held(world: World, who: bytes, token: str = "DevToken") -> int:
    return int(world.call(token, "balanceOf", who).value)


def request(world: World, who: str, amount: int, to: str = "payee") -> dict[str, Any]:
    """Request a withdrawal; return the Release fields that would serve it."""
    token, payee = world.at["DevToken"], world.actor(to)
    asked = world.call("Vault", "request_withdraw", 0, token, amount, payee, sender=who)
    (event,) = world.events(asked, "Vault", "WithdrawRequested")
    account = account_id(world.actor(who))
    return {
        "account": account,
        "token": token,
        "amount": amount,
        "to": payee,
        "nonce": event["nonce"],
        "expiry": world.block + 10,
    }


def release(world: World, fields: dict[str, Any], **sealing: Any) -> Receipt:
    leaf = leaves.release_leaf(*world.place("Vault"), **fields)
    sealed = world.seal(leaf, **sealing)
    return world.call("Vault", "release", sealed.seal, sealed.proof(leaf), *fields.values())


def transfer_fields(world: World, source: str, to: str, amount: int, nonce: int) -> dict[str, Any]:
    return {
        "source": account_id(world.actor(source)),
        "to": account_id(world.actor(to)),
        "token": world.at["DevToken"],
        "amount": amount,
        "nonce": nonce,
        "expiry": world.block + 10,
    }


def transfer(world: World, fields: dict[str, Any]) -> Receipt:
    leaf = leaves.transfer_leaf(*world.place("Vault"), **fields)
    sealed = world.seal(leaf)
    return world.call("Vault", "transfer", sealed.seal, sealed.proof(leaf), *fields.values())


def test_a_deposit_is_credited_and_names_its_owner(world: World) -> None:
    token, alice = world.at["DevToken"], world.actor("alice")
    world.call("DevToken", "mint", alice, 70)
    world.call("DevToken", "approve", world.at["Vault"], 70, sender="alice")
    first = world.call("Vault", "deposit", 3, token, 30, sender="alice")
    account = account_id(alice, 3)
    assert world.call("Vault", "account_of", alice, 3).value == account
    (owner,) = world.events(first, "Vault", "AccountOwner")
    assert owner["account"] == account
    assert bytes.fromhex(owner["owner"][2:]) == alice
    second = world.call("Vault", "deposit_for", account, token, 40, sender="alice")
    assert world.events(second, "Vault", "Balance")[0]["amount"] == 70
    with world.reverts("vault: nothing deposited"):
        world.call("Vault", "deposit", 3, token, 0, sender="alice")
    with world.reverts("token: not approved"):
        world.call("Vault", "deposit", 3, token, 1, sender="alice")


def test_a_release_pays_what_was_requested_once(world: World) -> None:
    fund(world, "alice", 500)
    fields = request(world, "alice", 200)
    served = release(world, fields)
    assert balance(world, "alice") == 300
    assert held(world, world.actor("payee")) == 200
    assert world.events(served, "Vault", "WithdrawRequested")[0]["amount"] == 0
    with world.reverts("vault: no such request"):
        release(world, fields)


@pytest.mark.parametrize("change", ["amount", "to", "nonce", "token", "account"])
def test_a_release_that_was_not_requested_is_refused_even_if_sealed(
    world: World, change: str
) -> None:
    fund(world, "alice", 500)
    fund(world, "bob", 500)
    fields = request(world, "alice", 200)
    other = {
        "amount": 201,
        "to": world.actor("thief"),
        "nonce": 2,
        "token": world.actor("no token"),
        "account": account_id(world.actor("bob")),
    }
    with world.reverts("vault: no such request"):
        release(world, {**fields, change: other[change]})
    release(world, fields)


def test_a_cancelled_or_replaced_request_cannot_be_served(world: World) -> None:
    fund(world, "alice", 500)
    first = request(world, "alice", 200)
    second = request(world, "alice", 100)
    with world.reverts("vault: no such request"):
        release(world, first)
    world.call("Vault", "cancel_withdraw", 0, world.at["DevToken"], sender="alice")
    with world.reverts("vault: no such request"):
        release(world, second)
    with world.reverts("vault: no such request"):
        world.call("Vault", "cancel_withdraw", 0, world.at["DevToken"], sender="alice")


def test_an_expired_decision_has_no_effect(world: World) -> None:
    fund(world, "alice", 500)
    fields = request(world, "alice", 200)
    move = transfer_fields(world, "alice", "bob", 5, 1)
    world.mine(11)
    with world.reverts("vault: decision expired"):
        release(world, fields)
    with world.reverts("vault: decision expired"):
        transfer(world, move)
    release(world, {**fields, "expiry": world.block})


def test_a_transfer_moves_once_even_if_sealed_again(world: World) -> None:
    fund(world, "alice", 500)
    fields = transfer_fields(world, "alice", "bob", 120, 1)
    transfer(world, fields)
    assert (balance(world, "alice"), balance(world, "bob")) == (380, 120)
    for again in (fields, {**fields, "expiry": world.block + 99}):
        with world.reverts("vault: decision used"):
            transfer(world, again)
    transfer(world, {**fields, "nonce": 2})
    assert balance(world, "bob") == 240
    with world.reverts("vault: balance too low"):
        transfer(world, {**fields, "nonce": 3, "amount": 261})
    with world.reverts("vault: same account"):
        transfer(world, {**fields, "to": fields["source"]})


def test_a_leaf_of_another_place_or_type_is_refused(world: World) -> None:
    fund(world, "alice", 500)
    fields = transfer_fields(world, "alice", "bob", 120, 1)
    network, epoch, chain, contract = world.place("Vault")
    for place in (
        (keccak(b"other network"), epoch, chain, contract),
        (network, epoch + 1, chain, contract),
        (network, epoch, chain + 1, contract),
        (network, epoch, chain, world.at["Perps"]),
    ):
        leaf = leaves.transfer_leaf(*place, **fields)
        sealed = world.seal(leaf)
        with world.reverts("vault: not in the root"):
            world.call("Vault", "transfer", sealed.seal, sealed.proof(leaf), *fields.values())
    wrong = leaves.attestation_leaf(*world.place("Vault"), event_hash=keccak(b"x"))
    sealed = world.seal(wrong)
    with world.reverts("vault: not in the root"):
        world.call("Vault", "transfer", sealed.seal, sealed.proof(wrong), *fields.values())


def test_a_big_release_waits_and_can_be_stopped(world: World) -> None:
    fund(world, "alice", 2 * BIG)
    fields = request(world, "alice", BIG + 1)
    queued = release(world, fields)
    (event,) = world.events(queued, "Vault", "Queued")
    leaf = event["leaf"]
    assert balance(world, "alice") == BIG - 1
    assert held(world, world.actor("payee")) == 0
    with world.reverts("vault: still waiting"):
        world.call("Vault", "finish", leaf)
    lie = world.attest("Vault", "Stop(bytes32 leaf)", keccak(b"another leaf"))
    sealed = world.seal(lie)
    with world.reverts("vault: not in the root"):
        world.call("Vault", "stop", sealed.seal, sealed.proof(lie), leaf)
    attested = world.attest("Vault", "Stop(bytes32 leaf)", leaf)
    sealed = world.seal(attested)
    world.call("Vault", "stop", sealed.seal, sealed.proof(attested), leaf)
    assert balance(world, "alice") == 2 * BIG
    world.mine(50)
    with world.reverts("vault: nothing queued"):
        world.call("Vault", "finish", leaf)


def test_a_big_release_is_paid_after_its_delay(world: World) -> None:
    fund(world, "alice", 2 * BIG)
    queued = release(world, request(world, "alice", BIG + 1))
    leaf = world.events(queued, "Vault", "Queued")[0]["leaf"]
    world.mine(50)
    world.call("Vault", "finish", leaf)
    assert held(world, world.actor("payee")) == BIG + 1
    with world.reverts("vault: nothing queued"):
        world.call("Vault", "finish", leaf)


def test_a_big_transfer_waits_and_a_small_one_does_not(world: World) -> None:
    fund(world, "alice", 3 * BIG)
    transfer(world, transfer_fields(world, "alice", "bob", BIG, 1))
    assert balance(world, "bob") == BIG
    queued = transfer(world, transfer_fields(world, "alice", "bob", BIG + 1, 2))
    assert (balance(world, "alice"), balance(world, "bob")) == (BIG - 1, BIG)
    world.mine(50)
    world.call("Vault", "finish", world.events(queued, "Vault", "Queued")[0]["leaf"])
    assert balance(world, "bob") == 2 * BIG + 1


def exit_(world: World, who: str) -> Receipt:
    token, to = world.at["DevToken"], world.actor("payee")
    return world.call("Vault", "exit", 0, token, to, sender=who)


def test_an_idle_account_leaves_without_any_keeper(world: World) -> None:
    fund(world, "alice", 500)
    with world.reverts("vault: no exit under way"):
        exit_(world, "alice")
    world.call("Vault", "start_exit", 0, sender="alice")
    world.mine(199)
    with world.reverts("vault: still waiting"):
        exit_(world, "alice")
    world.mine(1)
    exit_(world, "alice")
    assert held(world, world.actor("payee")) == 500
    with world.reverts("vault: nothing to take"):
        exit_(world, "alice")


def test_an_exit_can_be_called_off(world: World) -> None:
    fund(world, "alice", 500)
    with world.reverts("vault: no exit under way"):
        world.call("Vault", "cancel_exit", 0, sender="alice")
    world.call("Vault", "start_exit", 0, sender="alice")
    stayed = world.call("Vault", "cancel_exit", 0, sender="alice")
    assert world.events(stayed, "Vault", "Exit")[0]["ready"] == 0
    world.mine(200)
    with world.reverts("vault: no exit under way"):
        exit_(world, "alice")


def test_any_decision_about_the_account_interrupts_its_exit(world: World) -> None:
    fund(world, "alice", 500)
    world.call("Vault", "start_exit", 0, sender="alice")
    stopped = transfer(world, transfer_fields(world, "alice", "bob", 1, 1))
    assert world.events(stopped, "Vault", "Exit")[0]["ready"] == 0
    world.mine(200)
    with world.reverts("vault: no exit under way"):
        exit_(world, "alice")
    fields = request(world, "alice", 10)
    world.call("Vault", "start_exit", 0, sender="alice")
    release(world, fields)
    world.mine(200)
    with world.reverts("vault: no exit under way"):
        exit_(world, "alice")


def test_a_credit_on_any_chain_stops_an_exit(world: World) -> None:
    fund(world, "alice", 500)
    account = account_id(world.actor("alice"))
    place, venue = world.chain + 1, world.actor("venue elsewhere")
    fields: dict[str, Any] = {"account": account, "limit": 7, "nonce": 1, "expiry": 5}
    network, epoch, _, _ = world.place("Vault")
    leaf = leaves.credit_leaf(network, epoch, place, venue, **fields)
    sealed = world.seal(leaf)
    call = ("Vault", "challenge_exit", sealed.seal, sealed.proof(leaf), place, venue)
    with world.reverts("vault: no exit under way"):
        world.call(*call, *fields.values())
    world.call("Vault", "start_exit", 0, sender="alice")
    with world.reverts("vault: not in the root"):
        world.call(*call, *{**fields, "limit": 8}.values())
    with world.reverts("vault: empty credit"):
        world.call(*call, *{**fields, "limit": 0}.values())
    world.call(*call, *fields.values())
    world.mine(200)
    with world.reverts("vault: no exit under way"):
        exit_(world, "alice")


def test_an_account_engaged_at_a_local_venue_cannot_exit(world: World) -> None:
    fund(world, "alice", 5_000 * USD)
    give_credit(world, "alice", 1_000 * USD, expiry=world.block + 5)
    world.call("Perps", "increase", 0, ETH_USD, E8, 0, sender="alice")
    world.call("Vault", "start_exit", 0, sender="alice")
    world.mine(200)
    with world.reverts("vault: account is engaged"):
        exit_(world, "alice")
    world.call("Perps", "reduce", 0, ETH_USD, E8, 0, sender="alice")
    exit_(world, "alice")


def test_a_living_credit_alone_keeps_an_account_from_exiting(world: World) -> None:
    fund(world, "alice", 5_000 * USD)
    give_credit(world, "alice", 1_000 * USD, expiry=NEVER)
    world.call("Vault", "start_exit", 0, sender="alice")
    world.mine(200)
    with world.reverts("vault: account is engaged"):
        exit_(world, "alice")


def test_a_fee_on_transfer_token_is_refused_with_a_clear_error(world: World) -> None:
    world.deploy_source("FeeToken", HOSTILE / "FeeToken.vy", 0)
    for fee, reason in ((1, "vault: token takes a fee"), (0, None)):
        world.call("FeeToken", "set_fee", fee)
        world.call("FeeToken", "mint", world.actor("alice"), 100)
        world.call("FeeToken", "approve", world.at["Vault"], 100, sender="alice")
        deposit = ("Vault", "deposit", 0, world.at["FeeToken"], 100)
        if reason is None:
            world.call(*deposit, sender="alice")
            continue
        with world.reverts(reason):
            world.call(*deposit, sender="alice")
    assert balance(world, "alice", "FeeToken") == 100


def arm(world: World, function: str) -> None:
    """Deploy a token that calls the vault back, in a way that works outside a transfer."""
    token = world.deploy_source("ReentrantToken", HOSTILE / "ReentrantToken.vy")
    vault = world.at["Vault"]
    for who in (world.actor("alice"), token):
        world.call("ReentrantToken", "mint", who, 100)
    world.call("ReentrantToken", "approve", vault, 100, sender="alice")
    world.call("ReentrantToken", "approve_own", vault, 100)
    world.call("Vault", "deposit", 0, token, 50, sender="alice")
    if function == "deposit_for":
        data = encode_call("Vault", function, keccak(b"thief"), token, 5)
    else:
        fund(world, "alice", 2 * BIG)
        queued = release(world, request(world, "alice", BIG + 1))
        world.mine(50)
        data = encode_call("Vault", function, world.events(queued, "Vault", "Queued")[0]["leaf"])
    world.call("ReentrantToken", "arm", vault, data)


@pytest.mark.parametrize("function", ["deposit_for", "finish"])
def test_a_reentrant_token_finds_the_door_locked(world: World, function: str) -> None:
    arm(world, function)
    world.call("Vault", "deposit", 0, world.at["ReentrantToken"], 50, sender="alice")
    assert world.call("ReentrantToken", "tries").value == 1
    assert world.call("ReentrantToken", "successes").value == 0
    assert balance(world, "alice", "ReentrantToken") == 100
    # the same call outside a transfer does work, so it was the lock that refused it
    world.call("ReentrantToken", "poke")
    assert world.call("ReentrantToken", "successes").value == 1


def test_an_account_can_be_registered_without_a_deposit(world: World) -> None:
    made = world.call("Vault", "register", 2, sender="alice")
    (event,) = world.events(made, "Vault", "AccountOwner")
    assert event["account"] == account_id(world.actor("alice"), 2)
