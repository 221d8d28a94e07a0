"""A vault that guards its breaker's limits: what it lets out is limited and counted, all else free.

Each refusal stands beside the same release that passes: without a limit, within it, or unguarded.
"""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keeper import leaves
from keeper.margin.flow import NetOutflow, Refused, TokenBucket
from keeper.parameters import Parameters
from tests.support.contracts import (
    BREAKER_STEPS,
    NEVER,
    USD,
    Receipt,
    Reverted,
    World,
    account_id,
    fund,
)

HOSTILE = Path(__file__).parent / "hostile"
CAPACITY, RATE = 50_000 * USD, 10 * USD
WINDOW, RETAINED, BEGIN = 600, 700_000, 1_000 * USD
BIG = 100_000 * USD


@pytest.fixture
def guarded(world: World) -> World:
    """A bound vault that is a guard; a trader holds 100,000 dollars; no limit is set."""
    world.deploy("Breaker", world.at["Snapshots"], world.actor("governor"), 100, *BREAKER_STEPS)
    world.call("Vault", "bind", world.at["Breaker"], sender="deployer")
    govern(world, "set_guard", world.at["Vault"], True)
    fund(world, "trader", 100_000 * USD)
    return world


def govern(world: World, function: str, *args: object) -> None:
    world.call("Breaker", function, *args, sender="governor")


def loosen(world: World, change: str, *args: object) -> None:
    """Announce a loosening and wait for it."""
    govern(world, "announce", world.call("Breaker", change, *args).value)
    world.mine(1, BREAKER_STEPS[1])


def scope(world: World) -> bytes:
    return world.at["DevToken"].rjust(32, b"\0")


def limit_lane(world: World, capacity: int = CAPACITY) -> None:
    govern(world, "set_lane", scope(world), False, capacity, RATE)


def limit_outflow(world: World, begin: int = BEGIN) -> None:
    held = world.call("DevToken", "balanceOf", world.at["Vault"]).value
    govern(world, "set_outflow", scope(world), WINDOW, RETAINED, begin, held)


def available(world: World) -> int:
    return int(world.call("Breaker", "available", scope(world), False).value)


def counted(world: World) -> int:
    """Return what the breaker believes is left."""
    (state,) = world.call("Breaker", "outflows", scope(world)).values
    return int(state[5])


def balance(world: World, who: str) -> int:
    account = account_id(world.actor(who))
    return int(world.call("Vault", "balance_of", account, world.at["DevToken"]).value)


def request(world: World, who: str, amount: int) -> dict[str, Any]:
    """Request a withdrawal; return the Release fields that would serve it."""
    token, payee = world.at["DevToken"], world.actor("payee")
    asked = world.call("Vault", "request_withdraw", 0, token, amount, payee, sender=who)
    (event,) = world.events(asked, "Vault", "WithdrawRequested")
    return {
        "account": account_id(world.actor(who)),
        "token": token,
        "amount": amount,
        "to": payee,
        "nonce": event["nonce"],
        "expiry": NEVER,
    }


def release(world: World, fields: dict[str, Any]) -> Receipt:
    leaf = leaves.release_leaf(*world.place("Vault"), **fields)
    sealed = world.seal(leaf)
    return world.call("Vault", "release", sealed.seal, sealed.proof(leaf), *fields.values())


def take_out(world: World, amount: int, who: str = "trader") -> None:
    release(world, request(world, who, amount))


def leave(world: World, who: str) -> None:
    world.call("Vault", "start_exit", 0, sender=who)
    world.mine(200)
    world.call("Vault", "exit", 0, world.at["DevToken"], world.actor("payee"), sender=who)


def test_without_limits_everything_passes_in_one_call(guarded: World) -> None:
    served = release(guarded, request(guarded, "trader", 90_000 * USD))
    calls = [to for to, _ in served.inner]
    assert calls.count(guarded.at["Breaker"]) == 1
    assert counted(guarded) == 0
    fund(guarded, "trader", 5)
    assert counted(guarded) == 0
    leave(guarded, "trader")


def test_an_empty_bucket_refuses_a_release_until_it_has_filled(guarded: World) -> None:
    limit_lane(guarded)
    take_out(guarded, CAPACITY)
    before = available(guarded)
    fields = request(guarded, "trader", 1_000 * USD)
    assert before == 0
    with guarded.reverts("breaker: lane is empty"):
        release(guarded, fields)
    guarded.mine(1, 99)
    with guarded.reverts("breaker: lane is empty"):
        release(guarded, fields)
    assert balance(guarded, "trader") == 50_000 * USD
    guarded.mine(1, 1)
    release(guarded, fields)
    assert available(guarded) == 0
    fund(guarded, "trader", CAPACITY)
    with guarded.reverts("breaker: above the lane's capacity"):
        take_out(guarded, CAPACITY + 1)


def test_a_guard_and_only_a_guard_is_limited(guarded: World) -> None:
    limit_lane(guarded, 11 * USD)
    limit_outflow(guarded)
    fields = request(guarded, "trader", 90_000 * USD)
    with guarded.reverts("breaker: above the lane's capacity"):
        release(guarded, fields)
    loosen(guarded, "guard_change", guarded.at["Vault"], False)
    govern(guarded, "set_guard", guarded.at["Vault"], False)
    release(guarded, fields)
    assert counted(guarded) == 100_000 * USD


def test_another_tokens_limits_do_not_matter(guarded: World) -> None:
    other = guarded.actor("another token").rjust(32, b"\0")
    govern(guarded, "set_lane", other, False, 11 * USD, RATE)
    govern(guarded, "set_outflow", other, WINDOW, 10**6, 0, USD)
    take_out(guarded, 90_000 * USD)


def test_net_outflow_refuses_what_leaves_too_little(guarded: World) -> None:
    limit_outflow(guarded)
    take_out(guarded, 20_000 * USD)
    fields = request(guarded, "trader", 10_000 * USD + 1)
    with guarded.reverts("breaker: too much outflow"):
        release(guarded, fields)
    take_out(guarded, 10_000 * USD)
    assert counted(guarded) == 70_000 * USD
    with guarded.reverts("breaker: too much outflow"):
        take_out(guarded, 1)
    fund(guarded, "another", 6)
    take_out(guarded, 6)
    guarded.mine(1, WINDOW)
    take_out(guarded, 21_000 * USD)


def test_a_window_that_begins_small_never_refuses(guarded: World) -> None:
    limit_outflow(guarded, begin=100_000 * USD + 1)
    take_out(guarded, 90_000 * USD)


def test_a_trip_that_another_guard_left_refuses_all_until_the_window_ends(guarded: World) -> None:
    limit_outflow(guarded)
    loosen(guarded, "guard_change", guarded.actor("bridge"), True)
    govern(guarded, "set_guard", guarded.actor("bridge"), True)
    tried = guarded.call("Breaker", "outflow", scope(guarded), 40_000 * USD, sender="bridge")
    assert tried.value is False
    fields = request(guarded, "trader", 1)
    with guarded.reverts("breaker: outflow tripped"):
        release(guarded, fields)
    fund(guarded, "another", 5)
    leave(guarded, "another")
    guarded.mine(1, WINDOW)
    release(guarded, fields)


def test_neither_a_deposit_nor_an_exit_is_refused_and_both_are_counted(guarded: World) -> None:
    limit_lane(guarded, 11 * USD)
    limit_outflow(guarded)
    govern(guarded, "pause", bytes(32))
    fund(guarded, "idle", 60_000 * USD)
    assert counted(guarded) == 160_000 * USD
    leave(guarded, "idle")
    leave(guarded, "trader")
    assert counted(guarded) == 0
    assert available(guarded) == 11 * USD
    fund(guarded, "trader", 7)
    assert counted(guarded) == 7


def test_an_account_larger_than_was_counted_leaves_all_the_same(guarded: World) -> None:
    govern(guarded, "set_outflow", scope(guarded), WINDOW, RETAINED, 0, 5)
    with guarded.reverts("breaker: too much outflow"):
        take_out(guarded, 6)
    leave(guarded, "trader")
    assert counted(guarded) == 0


def test_a_deposit_beyond_what_can_be_counted_is_a_deposit(guarded: World) -> None:
    limit_outflow(guarded)
    fund(guarded, "trader", 2**200)
    assert counted(guarded) == 2**128 - 1
    assert balance(guarded, "trader") == 2**200 + 100_000 * USD


def test_a_big_release_is_limited_when_it_is_finished(guarded: World) -> None:
    fund(guarded, "trader", 400_000 * USD)
    limit_lane(guarded, 2 * BIG)
    limit_outflow(guarded)
    amount = BIG + 1
    served = release(guarded, request(guarded, "trader", amount))
    (leaf,) = (row["leaf"] for row in guarded.events(served, "Vault", "Queued"))
    assert (available(guarded), counted(guarded)) == (2 * BIG, 500_000 * USD)
    take_out(guarded, BIG)
    guarded.mine(50, 0)
    with guarded.reverts("breaker: lane is empty"):
        guarded.call("Vault", "finish", leaf)
    guarded.mine(1, 1)
    with guarded.reverts("breaker: too much outflow"):
        guarded.call("Vault", "finish", leaf)
    fund(guarded, "another", 60_000 * USD)
    guarded.call("Vault", "finish", leaf)
    assert counted(guarded) == 560_000 * USD - BIG - amount


def test_a_big_release_that_could_never_be_finished_is_not_queued(guarded: World) -> None:
    fund(guarded, "trader", 400_000 * USD)
    limit_lane(guarded, BIG)
    fields = request(guarded, "trader", BIG + 1)
    with guarded.reverts("breaker: above the lane's capacity"):
        release(guarded, fields)
    loosen(guarded, "lane_change", scope(guarded), False, BIG + 1, RATE)
    limit_lane(guarded, BIG + 1)
    release(guarded, fields)


def test_a_vault_without_a_breaker_knows_no_limits(world: World) -> None:
    world.deploy("Breaker", world.at["Snapshots"], world.actor("governor"), 100, *BREAKER_STEPS)
    govern(world, "set_guard", world.at["Vault"], True)
    limit_lane(world, 11 * USD)
    fund(world, "trader", 100 * USD)
    take_out(world, 100 * USD)


def test_a_breaker_that_burns_all_gas_keeps_nobody_in_or_out(world: World) -> None:
    world.deploy_source("GreedyBreaker", HOSTILE / "GreedyBreaker.vy")
    world.call("Vault", "bind", world.at["GreedyBreaker"], sender="deployer")
    fund(world, "trader", 100 * USD)
    with pytest.raises(Reverted):
        take_out(world, 1)
    leave(world, "trader")
    assert balance(world, "trader") == 0


def test_only_the_guards_calls_count(guarded: World) -> None:
    limit_lane(guarded)
    limit_outflow(guarded)
    for sender in ("thief", "governor"):
        guarded.call("Breaker", "count", scope(guarded), True, 5, sender=sender)
        guarded.call("Breaker", "let_out", scope(guarded), 5, sender=sender)
    assert (available(guarded), counted(guarded)) == (CAPACITY, 100_000 * USD)


def test_random_releases_follow_the_models(guarded: World) -> None:
    limits = replace(
        Parameters.devnet().breakers,
        outflow_window_s=WINDOW,
        outflow_retained_ppm=RETAINED,
        outflow_begin=BEGIN,
    )
    limit_lane(guarded)
    limit_outflow(guarded)
    holding, draw = 100_000 * USD, random.Random(11)
    bucket = TokenBucket(CAPACITY, RATE, CAPACITY, guarded.now)
    flow = NetOutflow(scope(guarded), guarded.now, holding, holding)
    seen: dict[str, int] = {}
    for _ in range(60):
        guarded.mine(1, draw.randrange(90))
        amount = draw.randrange(1, 25_000) * USD
        if draw.random() < 0.3:
            fund(guarded, "trader", amount)
            flow = flow.flow(amount, guarded.now, limits)
            continue
        if amount > balance(guarded, "trader"):
            continue
        taken, after = bucket.take(amount, guarded.now), flow.flow(-amount, guarded.now, limits)
        said = _try(guarded, amount)
        seen[said] = seen.get(said, 0) + 1
        if isinstance(taken, Refused):
            assert said == "breaker: lane is empty"
        elif _trips(after, limits):
            assert said == "breaker: too much outflow"
        else:
            assert said == "paid"
            bucket, flow = taken, after
            assert (available(guarded), counted(guarded)) == (
                bucket.tokens,
                flow.reading(limits).now,
            )
    assert len(seen) == 3
    assert min(seen.values()) > 2


def _trips(flow: NetOutflow, limits: Any) -> bool:
    reading = flow.reading(limits)
    return bool(reading.before >= BEGIN and reading.now * 10**6 < reading.before * RETAINED)


def _try(world: World, amount: int) -> str:
    try:
        take_out(world, amount)
    except Reverted as refused:
        return str(refused)
    return "paid"
