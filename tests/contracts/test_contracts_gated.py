"""A bound breaker holds releases, growth and liquidation back; reducing and exits ask nobody."""

from typing import Any

import pytest

from keeper import leaves
from tests.support.contracts import (
    BREAKER_STEPS,
    E8,
    ETH_USD,
    ETHER,
    USD,
    World,
    account_id,
    award_fields,
    execute,
    fund,
    give_credit,
    seal_award,
    set_price,
)

EVERYWHERE = bytes(32)
INCREASE, WITHDRAW, LIQUIDATE = 1, 2, 4
STOP = 2


@pytest.fixture
def gated(world: World) -> World:
    world.deploy("Breaker", world.at["Snapshots"], world.actor("governor"), 100, *BREAKER_STEPS)
    for name in ("Vault", "Perps"):
        world.call(name, "bind", world.at["Breaker"], sender="deployer")
    fund(world, "trader", 500 * USD)
    give_credit(world, "trader", 2_500 * USD)
    world.call("Perps", "increase", 0, ETH_USD, 9 * E8, 0, sender="trader")
    return world


def grade(world: World, scope: bytes, action: int, level: int, nonce: int = 1) -> None:
    fields: dict[str, Any] = {
        "scope": scope,
        "action": action,
        "level": level,
        "nonce": nonce,
        "until": 0,
    }
    leaf = leaves.breaker_change_leaf(*world.place("Breaker"), **fields)
    sealed = world.seal(leaf)
    world.call("Breaker", "change", sealed.seal, sealed.proof(leaf), *fields.values())


@pytest.mark.parametrize("scope", [EVERYWHERE, ETH_USD])
def test_growth_stops_and_reduction_goes_on(gated: World, scope: bytes) -> None:
    grade(gated, scope, INCREASE, STOP)
    with gated.reverts("breaker: stopped"):
        gated.call("Perps", "increase", 0, ETH_USD, 1, 0, sender="trader")
    gated.call("Perps", "reduce", 0, ETH_USD, E8, 0, sender="trader")
    grade(gated, scope, INCREASE, 0, nonce=2)
    gated.call("Perps", "increase", 0, ETH_USD, 1, 0, sender="trader")


def test_releases_stop_and_an_exit_does_not(gated: World) -> None:
    token, payee = gated.at["DevToken"], gated.actor("payee")
    scope = token.rjust(32, b"\0")
    gated.call("Vault", "request_withdraw", 0, token, 7, payee, sender="trader")
    fields: dict[str, Any] = {
        "account": account_id(gated.actor("trader")),
        "token": token,
        "amount": 7,
        "to": payee,
        "nonce": 1,
        "expiry": gated.block + 9,
    }
    leaf = leaves.release_leaf(*gated.place("Vault"), **fields)
    sealed = gated.seal(leaf)
    call = ("Vault", "release", sealed.seal, sealed.proof(leaf), *fields.values())
    grade(gated, scope, WITHDRAW, STOP)
    with gated.reverts("breaker: stopped"):
        gated.call(*call)
    grade(gated, scope, WITHDRAW, 0, nonce=2)
    gated.call(*call)
    grade(gated, EVERYWHERE, WITHDRAW, STOP)
    fund(gated, "idle", 5)
    gated.call("Vault", "start_exit", 0, sender="idle")
    gated.mine(200)
    gated.call("Vault", "exit", 0, token, payee, sender="idle")


def test_nothing_is_liquidated_in_the_grace_after_a_pause(gated: World) -> None:
    set_price(gated, "ETH", 1_700)
    admin = gated.actor("admin 0")
    gated.call("Bonds", "join", admin, b"", sender="keeper 0", value=2 * ETHER)
    fields = award_fields(gated, max_size=9 * E8)
    sealed, leaf = seal_award(gated, fields)
    gated.call("Breaker", "pause", EVERYWHERE, sender="governor")
    with gated.reverts("breaker: stopped"):
        execute(gated, sealed, leaf, fields, sender="keeper 0")
    gated.call("Breaker", "unpause", EVERYWHERE, sender="governor")
    with gated.reverts("breaker: stopped"):
        execute(gated, sealed, leaf, fields, sender="keeper 0")
    gated.call("Perps", "reduce", 0, ETH_USD, E8, 0, sender="trader")
    gated.mine(1, 100)
    execute(gated, sealed, leaf, fields, sender="keeper 0")


def test_the_deployer_binds_once(gated: World) -> None:
    for name in ("Vault", "Perps"):
        for sender in ("deployer", "thief"):
            with gated.reverts("breaker: not the deployer"):
                gated.call(name, "bind", gated.at["Breaker"], sender=sender)
        assert bytes.fromhex(gated.call(name, "breaker").value[2:]) == gated.at["Breaker"]


def test_without_a_breaker_nothing_is_held_back(world: World) -> None:
    assert int(world.call("Vault", "breaker").value, 16) == 0
    with world.reverts("breaker: no breaker"):
        world.call("Vault", "bind", bytes(20), sender="deployer")
    give_credit(world, "trader", 2_500 * USD)
    world.call("Perps", "increase", 0, ETH_USD, E8, 0, sender="trader")
