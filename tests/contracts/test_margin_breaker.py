"""`Breaker.vy`: certified grades, curses, pauses with their grace, and limits on flows."""

import random
from typing import Any

import pytest

from keeper import leaves
from keeper.contracts import topic
from keeper.hashing import keccak
from keeper.margin.breaker import EVERYWHERE, Action, Level, chain_scope
from keeper.margin.flow import NetOutflow, Refused, TokenBucket
from keeper.network import ChainSpec, NetworkSpec
from keeper.observe.table import EMPTY, Log
from keeper.parameters import Parameters
from keeper.snapshot import gates, governed
from keeper.units import ChainId, symbol
from keeper.venue.records import unsigned
from tests.support.contracts import Receipt, World

GRACE = 300
STEP, DELAY, EXPIRY = 100_000, 3_600, 7_200
HERE = chain_scope(ChainId(10))
LANE = symbol("lane:1:10")
USDC = symbol("USDC@vault")
FOREVER = 2**256 - 1


@pytest.fixture
def breaker(world: World) -> World:
    world.deploy(
        "Breaker", world.at["Snapshots"], world.actor("governor"), GRACE, STEP, DELAY, EXPIRY
    )
    world.call("Breaker", "set_guard", world.actor("guard"), True, sender="governor")
    return world


def change(world: World, **fields: Any) -> Receipt:
    """Seal a change and bring it."""
    base = {"scope": HERE, "action": Action.WITHDRAW, "level": Level.STOP, "nonce": 1, "until": 0}
    values = {**base, **fields}
    leaf = leaves.breaker_change_leaf(*world.place("Breaker"), **values)
    sealed = world.seal(leaf)
    used = world.call("Breaker", "change", sealed.seal, sealed.proof(leaf), *values.values())
    assert world.events(used, "Breaker", "LeafUsed") == [{"leaf": leaf}]
    return used


def level(world: World, action: Action, scope: bytes = HERE) -> int:
    return int(world.call("Breaker", "level", scope, action).value)


def test_a_certified_change_holds_until_its_block_or_its_release(breaker: World) -> None:
    last = breaker.block + 5
    used = change(breaker, until=last)
    assert breaker.events(used, "Breaker", "Graded") == [
        {"scope": HERE, "action": 2, "level": 2, "nonce": 1, "until": last}
    ]
    assert level(breaker, Action.WITHDRAW) == Level.STOP
    assert level(breaker, Action.OPEN) == Level.CLOSED
    assert level(breaker, Action.WITHDRAW, symbol("elsewhere")) == Level.CLOSED
    with breaker.reverts("breaker: stopped"):
        breaker.call("Breaker", "require_open", HERE, Action.WITHDRAW)
    breaker.mine(5)
    assert level(breaker, Action.WITHDRAW) == Level.STOP
    breaker.mine(1)
    assert level(breaker, Action.WITHDRAW) == Level.CLOSED
    change(breaker, nonce=2)
    breaker.mine(10_000)
    assert level(breaker, Action.WITHDRAW) == Level.STOP
    change(breaker, nonce=3, level=Level.SLOW)
    assert level(breaker, Action.WITHDRAW) == Level.SLOW
    breaker.call("Breaker", "require_open", HERE, Action.WITHDRAW)
    change(breaker, nonce=4, level=Level.CLOSED)
    assert level(breaker, Action.WITHDRAW) == Level.CLOSED


def test_the_strictest_of_scope_and_everywhere_holds(breaker: World) -> None:
    change(breaker, scope=EVERYWHERE, action=Action.OPEN, level=Level.SLOW)
    assert level(breaker, Action.OPEN, symbol("any")) == Level.SLOW
    change(breaker, action=Action.OPEN, level=Level.STOP)
    assert level(breaker, Action.OPEN) == Level.STOP
    change(breaker, scope=EVERYWHERE, action=Action.OPEN, level=Level.STOP, nonce=2)
    assert level(breaker, Action.OPEN, EVERYWHERE) == Level.STOP


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"level": Level.CLOSED}, "breaker: not in the root"),
        ({"scope": EVERYWHERE}, "breaker: not in the root"),
        ({"action": Action.OPEN}, "breaker: not in the root"),
        ({"until": 7}, "breaker: not in the root"),
        ({"nonce": 2}, "breaker: not in the root"),
        ({"nonce": 0}, "breaker: old nonce"),
        ({"action": 6}, "breaker: no such action"),
        ({"level": 4}, "breaker: no such level"),
        ({"action": Action.REDUCE}, "breaker: reducing is never stopped"),
    ],
)
def test_other_fields_than_the_sealed_ones_are_refused(
    breaker: World, wrong: dict[str, int | bytes], why: str
) -> None:
    fields = {"scope": HERE, "action": 2, "level": 2, "nonce": 1, "until": 0}
    leaf = leaves.breaker_change_leaf(*breaker.place("Breaker"), **fields)  # type: ignore[arg-type]  # the values are those of the parameters
    sealed = breaker.seal(leaf)
    changed = {**fields, **wrong}
    with breaker.reverts(why):
        breaker.call("Breaker", "change", sealed.seal, sealed.proof(leaf), *changed.values())


def test_a_change_is_used_once_and_an_older_one_never(breaker: World) -> None:
    change(breaker, nonce=5)
    for nonce in (5, 4):
        with breaker.reverts("breaker: old nonce"):
            change(breaker, nonce=nonce, level=Level.CLOSED)


def test_a_change_for_another_chain_contract_or_epoch_is_refused(breaker: World) -> None:
    network, epoch, chain, contract = breaker.place("Breaker")
    fields = {"scope": HERE, "action": 2, "level": 2, "nonce": 1, "until": 0}
    for place in (
        (keccak(b"other"), epoch, chain, contract),
        (network, epoch + 1, chain, contract),
        (network, epoch, chain + 1, contract),
        (network, epoch, chain, breaker.at["Vault"]),
    ):
        leaf = leaves.breaker_change_leaf(*place, **fields)  # type: ignore[arg-type]  # the values are those of the parameters
        sealed = breaker.seal(leaf)
        with breaker.reverts("breaker: not in the root"):
            breaker.call("Breaker", "change", sealed.seal, sealed.proof(leaf), *fields.values())


def test_a_curse_is_lifted_by_governance_only(breaker: World) -> None:
    change(breaker, action=Action.REDUCE, level=Level.CURSED, until=1)
    breaker.mine(100)
    assert level(breaker, Action.REDUCE) == Level.CURSED  # and it has no end of its own
    with breaker.reverts("breaker: cursed"):
        change(breaker, action=Action.REDUCE, level=Level.CLOSED, nonce=2)
    with breaker.reverts("breaker: not the governor"):
        breaker.call("Breaker", "lift", HERE, Action.REDUCE)
    with breaker.reverts("breaker: not cursed"):
        breaker.call("Breaker", "lift", HERE, Action.OPEN, sender="governor")
    breaker.call("Breaker", "lift", HERE, Action.REDUCE, sender="governor")
    assert level(breaker, Action.REDUCE) == Level.CLOSED
    with breaker.reverts("breaker: old nonce"):
        change(breaker, action=Action.REDUCE, level=Level.CURSED)  # the old leaf is spent
    change(breaker, action=Action.REDUCE, level=Level.CURSED, nonce=2)


def test_after_a_pause_liquidations_wait_for_the_grace(breaker: World) -> None:
    with breaker.reverts("breaker: not the governor"):
        breaker.call("Breaker", "pause", HERE)
    with breaker.reverts("breaker: not paused"):
        breaker.call("Breaker", "unpause", HERE, sender="governor")
    breaker.call("Breaker", "pause", HERE, sender="governor")
    stopped = [level(breaker, action) for action in Action]
    assert stopped == [2, 2, 2, 0, 2, 0]
    done = breaker.call("Breaker", "unpause", HERE, sender="governor")
    at = breaker.now + GRACE
    assert breaker.events(done, "Breaker", "PauseChanged") == [
        {"scope": HERE, "paused": False, "liquidate_at": at}
    ]
    assert [level(breaker, action) for action in Action] == [0, 0, 0, 0, 2, 0]
    breaker.mine(1, GRACE - 1)
    assert level(breaker, Action.LIQUIDATE) == Level.STOP
    breaker.mine(1, 1)
    assert level(breaker, Action.LIQUIDATE) == Level.CLOSED


def test_a_lane_is_the_token_bucket_of_the_model(breaker: World) -> None:
    capacity, rate = 1_000_000, 700
    breaker.call("Breaker", "set_lane", LANE, False, capacity, rate, sender="governor")
    bucket, draw = TokenBucket(capacity, rate, capacity, breaker.now), random.Random(5)
    refusals = 0
    for _ in range(60):
        breaker.mine(1, draw.randrange(400))
        amount = draw.choice([0, 1, 999, 250_000, 600_000, capacity, capacity + 1])
        expected = bucket.take(amount, breaker.now)
        wait = breaker.call("Breaker", "wait", LANE, False, amount).value
        if isinstance(expected, Refused):
            refusals += 1
            assert wait == (FOREVER if expected.wait_s is None else expected.wait_s)
            why = "lane is empty" if amount <= capacity else "above the lane's capacity"
            with breaker.reverts(f"breaker: {why}"):
                breaker.call("Breaker", "consume", LANE, False, amount, sender="guard")
        else:
            assert wait == 0
            breaker.call("Breaker", "consume", LANE, False, amount, sender="guard")
            bucket = expected
            assert breaker.call("Breaker", "available", LANE, False).value == bucket.tokens
    assert 5 < refusals < 55


def test_lanes_are_separate_and_closed_until_set(breaker: World) -> None:
    breaker.call("Breaker", "set_lane", LANE, True, 100, 1, sender="governor")
    with breaker.reverts("breaker: above the lane's capacity"):
        breaker.call("Breaker", "consume", LANE, False, 1, sender="guard")
    with breaker.reverts("breaker: not a guard"):
        breaker.call("Breaker", "consume", LANE, True, 1)
    for bad in ((100, 0), (100, 100), (2**128, 5)):
        with breaker.reverts("breaker: bad rate"):
            breaker.call("Breaker", "set_lane", LANE, True, *bad, sender="governor")
    breaker.call("Breaker", "consume", LANE, True, 90, sender="guard")
    breaker.call("Breaker", "set_lane", LANE, True, 50, 1, sender="governor")
    assert breaker.call("Breaker", "available", LANE, True).value == 10  # a new limit is no refill
    change(breaker, scope=LANE)
    with breaker.reverts("breaker: stopped"):
        breaker.call("Breaker", "consume", LANE, True, 1, sender="guard")


def test_the_outflow_trips_as_in_the_model_and_stays_shut_for_its_window(breaker: World) -> None:
    limits = Parameters.devnet().breakers
    start, draw = 10**12, random.Random(3)
    setting = (limits.outflow_window_s, limits.outflow_retained_ppm, limits.outflow_begin)
    breaker.call("Breaker", "set_outflow", USDC, *setting, start, sender="governor")
    model = NetOutflow(USDC, breaker.now, start, start)
    shut_until, refusals = 0, 0
    for _ in range(80):
        breaker.mine(1, draw.randrange(500))
        amount = draw.randrange(1, 150_000_000_000)
        if draw.random() < 0.3:
            breaker.call("Breaker", "inflow", USDC, amount, sender="guard")
            model = model.flow(amount, breaker.now, limits)
            continue
        passed = breaker.call("Breaker", "outflow", USDC, amount, sender="guard").value
        after = model.flow(-amount, breaker.now, limits)
        reading = after.reading(limits)
        tripped = (
            reading.before >= limits.outflow_begin
            and reading.now * 10**6 < reading.before * limits.outflow_retained_ppm
        )
        if breaker.now < shut_until:
            assert passed is False
        elif tripped:
            assert passed is False
            shut_until, refusals = reading.ends, refusals + 1
            model = after.flow(amount, breaker.now, limits)
        else:
            assert passed is True
            model = after
    assert refusals > 1
    with breaker.reverts("breaker: not a guard"):
        breaker.call("Breaker", "outflow", USDC, 1)
    with breaker.reverts("breaker: no such asset"):
        breaker.call("Breaker", "outflow", LANE, 1, sender="guard")


# --- what governance may loosen -------------------------------------------------------------------


def govern(world: World, function: str, *args: object) -> Receipt:
    return world.call("Breaker", function, *args, sender="governor")


def announce(world: World, change: str, *args: object) -> None:
    govern(world, "announce", world.call("Breaker", change, *args).value)


def test_a_limit_is_tightened_at_once_and_loosened_by_an_announced_step(breaker: World) -> None:
    govern(breaker, "set_lane", LANE, False, 1_000, 10)
    govern(breaker, "set_lane", LANE, False, 900, 10)
    larger = (LANE, False, 990, 11)
    with breaker.reverts("steps: not announced"):
        govern(breaker, "set_lane", *larger)
    with breaker.reverts("breaker: not the governor"):
        breaker.call("Breaker", "announce", bytes(32), sender="thief")
    announce(breaker, "lane_change", *larger)
    with breaker.reverts("steps: not announced"):
        govern(breaker, "set_lane", LANE, False, 990, 10)  # only what was announced
    breaker.mine(1, DELAY - 1)
    with breaker.reverts("steps: too early"):
        govern(breaker, "set_lane", *larger)
    breaker.mine(1, 1)
    govern(breaker, "set_lane", *larger)
    with breaker.reverts("steps: not announced"):
        govern(breaker, "set_lane", LANE, False, 991, 11)
    govern(breaker, "set_lane", LANE, False, 900, 10)
    with breaker.reverts("steps: not announced"):
        govern(breaker, "set_lane", *larger)  # an announcement is used once


@pytest.mark.parametrize("wish", [(991, 10), (900, 12)])
def test_a_large_step_of_a_lane_is_refused(breaker: World, wish: tuple[int, int]) -> None:
    govern(breaker, "set_lane", LANE, False, 900, 10)
    announce(breaker, "lane_change", LANE, False, *wish)
    breaker.mine(1, DELAY)
    with breaker.reverts("breaker: large step"):
        govern(breaker, "set_lane", LANE, False, *wish)


def test_an_announcement_expires(breaker: World) -> None:
    govern(breaker, "set_lane", LANE, False, 900, 10)
    wish = (LANE, False, 901, 10)
    announce(breaker, "lane_change", *wish)
    breaker.mine(1, DELAY + EXPIRY + 1)
    with breaker.reverts("steps: expired"):
        govern(breaker, "set_lane", *wish)
    announce(breaker, "lane_change", *wish)
    breaker.mine(1, DELAY + EXPIRY)
    govern(breaker, "set_lane", *wish)


def test_an_outflow_limit_keeps_its_window_and_its_trip(breaker: World) -> None:
    govern(breaker, "set_outflow", USDC, 600, 700_000, 100, 1_000)
    breaker.call("Breaker", "outflow", USDC, 200, sender="guard")
    breaker.call("Breaker", "outflow", USDC, 700, sender="guard")
    (before,) = breaker.call("Breaker", "outflows", USDC).values
    assert before[6] > 0  # tripped
    govern(breaker, "set_outflow", USDC, 700, 800_000, 90, 10**9)
    (after,) = breaker.call("Breaker", "outflows", USDC).values
    assert after == (700, 800_000, 90, *before[3:])  # what is said to be there is not believed
    assert breaker.call("Breaker", "outflow", USDC, 1, sender="guard").value is False


@pytest.mark.parametrize(
    ("wish", "small"),
    [
        ((540, 700_000, 100), True),
        ((539, 700_000, 100), False),
        ((600, 630_000, 100), True),
        ((600, 629_999, 100), False),
        ((600, 700_000, 110), True),
        ((600, 700_000, 111), False),
    ],
)
def test_an_outflow_limit_is_loosened_by_an_announced_step(
    breaker: World, wish: tuple[int, int, int], small: bool
) -> None:
    govern(breaker, "set_outflow", USDC, 600, 700_000, 100, 1_000)
    if small:
        with breaker.reverts("steps: not announced"):
            govern(breaker, "set_outflow", USDC, *wish, 0)
    announce(breaker, "outflow_change", USDC, *wish)
    breaker.mine(1, DELAY)
    if small:
        govern(breaker, "set_outflow", USDC, *wish, 0)
        return
    with breaker.reverts("breaker: large step"):
        govern(breaker, "set_outflow", USDC, *wish, 0)


def test_a_guard_is_freed_of_its_limits_only_after_the_delay(breaker: World) -> None:
    guard = breaker.actor("guard")
    with breaker.reverts("steps: not announced"):
        govern(breaker, "set_guard", guard, False)
    announce(breaker, "guard_change", guard, False)
    breaker.mine(1, DELAY)
    govern(breaker, "set_guard", guard, False)
    govern(breaker, "set_guard", guard, True)  # there is no limit yet


def test_a_new_guard_cannot_report_what_never_came_in_without_delay(breaker: World) -> None:
    govern(breaker, "set_outflow", USDC, 600, 700_000, 100, 1_000)
    accomplice = breaker.actor("accomplice")
    with breaker.reverts("steps: not announced"):
        govern(breaker, "set_guard", accomplice, True)
    govern(breaker, "set_guard", breaker.actor("guard"), True)  # it is one already
    breaker.call("Breaker", "count", USDC, True, 10**9, sender="accomplice")  # heard by nobody
    (state,) = breaker.call("Breaker", "outflows", USDC).values
    assert state[5] == 1_000
    announce(breaker, "guard_change", accomplice, True)
    breaker.mine(1, DELAY)
    govern(breaker, "set_guard", accomplice, True)


def test_parameters_are_proposed_by_the_governor(breaker: World) -> None:
    raw = Parameters.devnet().encode()
    with breaker.reverts("breaker: not the governor"):
        breaker.call("Breaker", "propose_parameters", raw, sender="thief")
    done = govern(breaker, "propose_parameters", raw)
    assert breaker.events(done, "Breaker", "ParametersProposed") == [
        {"at": breaker.now, "parameters": raw}
    ]


def test_keepers_read_what_the_contract_emits(breaker: World) -> None:
    assert topic("Breaker", "Graded") == gates.GRADED
    assert topic("Breaker", "PauseChanged") == gates.PAUSE_CHANGED
    assert topic("Breaker", "ParametersProposed") == governed.PROPOSED
    raw = Parameters.devnet().encode()
    govern(breaker, "propose_parameters", raw)
    paused = govern(breaker, "pause", HERE)
    spec = ChainSpec(ChainId(10), (("Breaker", breaker.at["Breaker"]),))
    network = NetworkSpec(bytes(32), 0, 500, ChainId(10), (spec,))
    table = EMPTY
    for receipt in (govern(breaker, "propose_parameters", raw), paused):
        logs = [Log(at, tuple(topics), data) for at, topics, data in receipt.logs]
        table = table.apply(logs)
    assert governed.proposal(network, {ChainId(10): table}) == (breaker.now, raw)
    data = table.get(breaker.at["Breaker"], gates.PAUSE_CHANGED, HERE)
    assert data is not None
    assert (unsigned(data, 0), unsigned(data, 1)) == (1, 0)


def test_governance_is_handed_over_in_two_steps(breaker: World) -> None:
    with breaker.reverts("breaker: not the governor"):
        breaker.call("Breaker", "hand_over", breaker.actor("thief"), sender="thief")
    breaker.call("Breaker", "hand_over", breaker.actor("heir"), sender="governor")
    with breaker.reverts("breaker: not the next governor"):
        breaker.call("Breaker", "accept", sender="thief")
    breaker.call("Breaker", "accept", sender="heir")
    with breaker.reverts("breaker: not the governor"):
        breaker.call("Breaker", "pause", HERE, sender="governor")
    breaker.call("Breaker", "pause", HERE, sender="heir")
