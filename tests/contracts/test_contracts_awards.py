"""An award is executed once, by the right keeper in the right block, who pays the price."""

from typing import Any

import pytest

from keeper.hashing import keccak
from tests.support.contracts import (
    E8,
    ETH_USD,
    ETHER,
    USD,
    Receipt,
    Sealed,
    World,
    account_id,
    award_fields,
    award_tuple,
    execute,
    give_credit,
    seal_award,
    set_price,
)


@pytest.fixture
def sick(world: World) -> World:
    """A trader long ten ETH from 2,000 at a price of 1,800, and five bonded keepers."""
    give_credit(world, "trader", 2_500 * USD)
    world.call("Perps", "increase", 0, ETH_USD, 10 * E8, 0, sender="trader")
    set_price(world, "ETH", 1_800)
    for i in range(5):
        admin = world.actor(f"admin {i}")
        world.call("Bonds", "join", admin, b"peer", sender=f"keeper {i}", value=2 * ETHER)
    return world


def realised(world: World, who: str) -> int:
    return int(world.call("Perps", "realised", account_id(world.actor(who))).value)


def bond(world: World, who: str) -> tuple[int, int, int, int, int]:
    value = world.call("Bonds", "stake", world.actor(who)).value
    return (value[0], value[1], value[2], value[3], value[4])


def award(world: World, **changes: Any) -> tuple[dict[str, Any], Sealed, bytes]:
    fields = award_fields(world, **changes)
    sealed, leaf = seal_award(world, fields)
    return fields, sealed, leaf


def heal(world: World, task: bytes) -> Receipt:
    leaf = world.attest("Awards", "Healed(bytes32 task)", task)
    sealed = world.seal(leaf)
    return world.call("Awards", "void", sealed.seal, sealed.proof(leaf), task)


def test_the_winner_pays_the_price_out_of_its_bonus(sick: World) -> None:
    fields, sealed, leaf = award(sick)
    done = execute(sick, sealed, leaf, fields, sender="keeper 0")
    (event,) = sick.events(done, "Awards", "Executed")
    assert (event["rank"], event["size"], event["bonus"]) == (0, 10 * E8, 450 * USD)
    assert realised(sick, "keeper 0") == 400 * USD
    assert realised(sick, "trader") == -(2_000 + 450 + 10) * USD
    pot = sick.call("Perps", "pot").value
    assert sick.call("Perps", "realised", pot).value == 50 * USD
    assert not sick.events(done, "Awards", "NoShow")
    assert sick.call("Awards", "state", fields["task"]).value == 1
    split = sick.call("Perps", "distribute")
    assert split.value == 50 * USD
    assert [realised(sick, f"share {i}") for i in range(4)] == [
        30 * USD,
        7_500_000,
        7_500_000,
        5 * USD,
    ]
    people = ("trader", "house", "keeper 0", *(f"share {i}" for i in range(4)))
    assert sum(realised(sick, who) for who in people) == 0


def test_the_split_loses_nothing_to_rounding(sick: World) -> None:
    fields, sealed, leaf = award(sick, price=7)
    execute(sick, sealed, leaf, fields, sender="keeper 0")
    sick.call("Perps", "distribute")
    assert [realised(sick, f"share {i}") for i in range(4)] == [5, 1, 1, 0]


@pytest.mark.parametrize(
    ("who", "blocks", "reason"),
    [
        ("keeper 0", -1, "awards: too early"),
        ("keeper 0", 0, None),
        ("keeper 0", 2, None),
        ("keeper 0", 3, "awards: not your turn"),
        ("keeper 1", 2, "awards: not your turn"),
        ("keeper 1", 3, None),
        ("keeper 2", 4, "awards: not your turn"),
        ("keeper 2", 5, None),
        ("keeper 1", 8, None),
        ("keeper 4", 8, "awards: not your turn"),
        ("keeper 4", 9, None),
        ("keeper 0", 9, None),
        ("stranger", 9, "awards: not bonded"),
    ],
)
def test_who_may_act_in_which_block(sick: World, who: str, blocks: int, reason: str | None) -> None:
    start = sick.block + 1
    fields, sealed, leaf = award(sick, start=start, open_at=start + 9)
    sick.mine(1 + blocks, 0)
    if reason is not None:
        with sick.reverts(reason):
            execute(sick, sealed, leaf, fields, sender=who)
        return
    done = execute(sick, sealed, leaf, fields, sender=who)
    missed = blocks >= 3
    assert len(sick.events(done, "Awards", "NoShow")) == missed
    # only the winner in time owes the price
    assert realised(sick, who) == (450 if missed else 400) * USD


def test_a_fallback_slashes_the_winner_and_splits_to_the_wei(sick: World) -> None:
    lock = ETHER // 10 + 1
    fields, sealed, leaf = award(sick, lock=lock)
    sick.mine(3, 0)
    done = execute(sick, sealed, leaf, fields, sender="keeper 1")
    (event,) = sick.events(done, "Awards", "NoShow")
    assert event["amount"] == lock
    assert bond(sick, "keeper 0")[:2] == (2 * ETHER - lock, 0)
    assert bond(sick, "keeper 1")[0] == 2 * ETHER
    assert sick.call("Bonds", "claimable", sick.actor("keeper 1")).value == lock // 2
    assert sick.call("Bonds", "insurance").value == lock - lock // 2
    before = sick.env.get_balance("0x" + sick.actor("payee").hex())
    sick.call("Bonds", "claim", sick.actor("payee"), sender="keeper 1")
    assert sick.env.get_balance("0x" + sick.actor("payee").hex()) - before == lock // 2


def test_a_late_winner_gets_no_part_of_its_own_slash(sick: World) -> None:
    fields, sealed, leaf = award(sick)
    sick.mine(9, 0)
    execute(sick, sealed, leaf, fields, sender="keeper 0")
    assert bond(sick, "keeper 0")[0] == 2 * ETHER - fields["lock"]
    assert sick.call("Bonds", "claimable", sick.actor("keeper 0")).value == 0
    assert sick.call("Bonds", "insurance").value == fields["lock"]


def test_one_execution_per_task(sick: World) -> None:
    fields, sealed, leaf = award(sick, max_size=2 * E8)
    execute(sick, sealed, leaf, fields, sender="keeper 0")
    with sick.reverts("awards: task is done"):
        execute(sick, sealed, leaf, fields, sender="keeper 0")
    # the same task awarded again, to somebody else, is still the same task
    again, sealed, leaf = award(sick, ranks=(sick.actor("keeper 1"),))
    with sick.reverts("awards: task is done"):
        execute(sick, sealed, leaf, again, sender="keeper 1")
    with sick.reverts("awards: task is done"):
        heal(sick, fields["task"])


def test_a_token_execution_does_not_take_the_task(sick: World) -> None:
    fields, sealed, leaf = award(sick, price=0)
    with sick.reverts("awards: too small"):
        execute(sick, sealed, leaf, fields, sender="keeper 0", size=5 * E8 - 1)
    with sick.reverts("awards: above the awarded size"):
        execute(sick, sealed, leaf, fields, sender="keeper 0", size=10 * E8 + 1)
    execute(sick, sealed, leaf, fields, sender="keeper 0", size=5 * E8)


def test_a_position_that_shrank_can_be_closed_whole(sick: World) -> None:
    sick.call("Perps", "reduce", 0, ETH_USD, 8 * E8, 0, sender="trader")
    fields, sealed, leaf = award(sick)
    done = execute(sick, sealed, leaf, fields, sender="keeper 0")
    assert sick.events(done, "Awards", "Executed")[0]["size"] == 2 * E8


def test_a_closed_position_cannot_be_liquidated_so_nobody_is_punished(sick: World) -> None:
    sick.call("Perps", "reduce", 0, ETH_USD, 10 * E8, 0, sender="trader")
    fields, sealed, leaf = award(sick)
    sick.mine(3)
    with sick.reverts("perps: nothing to liquidate"):
        execute(sick, sealed, leaf, fields, sender="keeper 1")
    assert bond(sick, "keeper 0")[0] == 2 * ETHER


def test_a_bonus_below_the_price_is_refused(sick: World) -> None:
    fields, sealed, leaf = award(sick, price=450 * USD + 1)
    with sick.reverts("perps: bonus below the price"):
        execute(sick, sealed, leaf, fields, sender="keeper 0")
    sick.mine(3)
    execute(sick, sealed, leaf, fields, sender="keeper 1")


def test_a_healed_task_is_void_for_everybody(sick: World) -> None:
    fields, sealed, leaf = award(sick)
    healed = heal(sick, fields["task"])
    assert sick.events(healed, "Awards", "Voided") == [{"task": fields["task"]}]
    for who, blocks in (("keeper 0", 0), ("keeper 1", 3)):
        sick.mine(blocks)
        with sick.reverts("awards: task is done"):
            execute(sick, sealed, leaf, fields, sender=who)
    assert bond(sick, "keeper 0")[0] == 2 * ETHER


def test_void_needs_the_attestation_of_that_very_task(sick: World) -> None:
    fields, sealed, leaf = award(sick)
    other = sick.attest("Awards", "Healed(bytes32 task)", keccak(b"other task"))
    attested = sick.seal(other)
    with sick.reverts("awards: not in the root"):
        sick.call("Awards", "void", attested.seal, attested.proof(other), fields["task"])
    with sick.reverts("awards: not in the root"):
        sick.call("Awards", "void", sealed.seal, sealed.proof(leaf), fields["task"])
    execute(sick, sealed, leaf, fields, sender="keeper 0")


@pytest.mark.parametrize(
    "change",
    [
        {"task": keccak(b"x")},
        {"account": keccak(b"x")},
        {"venue": bytes(19) + b"\x01"},
        {"market": keccak(b"x")},
        {"max_size": 11 * E8},
        {"price": 0},
        {"start": 999},
        {"exclusive": 9},
        {"step": 1},
        {"open_at": 0},
        {"last": 10**9},
        {"lock": 0},
    ],
)
def test_an_award_with_any_field_changed_is_refused(sick: World, change: dict[str, Any]) -> None:
    fields, sealed, leaf = award(sick)
    with sick.reverts("awards: not in the root"):
        execute(sick, sealed, leaf, {**fields, **change}, sender="keeper 0")


def test_the_ranks_cannot_be_changed(sick: World) -> None:
    fields, sealed, leaf = award(sick)
    thief = (sick.actor("thief"), *fields["ranks"][1:])
    for ranks, blocks in (
        (thief, 0),
        ((sick.actor("thief"),), 0),
        ((*fields["ranks"], sick.actor("thief")), 8),
    ):
        sick.mine(blocks)
        with sick.reverts("awards: not in the root"):
            execute(sick, sealed, leaf, {**fields, "ranks": ranks}, sender="thief")


def test_after_its_last_block_an_award_is_worth_nothing(sick: World) -> None:
    fields, sealed, leaf = award(sick, last=sick.block + 20)
    sick.mine(20)
    with sick.env.anchor():
        execute(sick, sealed, leaf, fields, sender="keeper 1")
    sick.mine()
    for who in ("keeper 0", "keeper 1"):
        with sick.reverts("awards: award is over"):
            execute(sick, sealed, leaf, fields, sender=who)


def test_without_bonds_on_the_chain_only_ranks_act(sick: World) -> None:
    sick.deploy("Awards", sick.at["Snapshots"], bytes(20), alias="Far")
    near, sick.at["Awards"] = sick.at["Awards"], sick.at["Far"]
    try:
        fields, sealed, leaf = award(sick)
        sick.mine(9)
        with sick.reverts("awards: only ranks on this chain"):
            execute(sick, sealed, leaf, fields, sender="keeper 4")
        # this venue trusts another Awards contract
        with sick.reverts("perps: only awards"):
            execute(sick, sealed, leaf, fields, sender="keeper 1")
    finally:
        sick.at["Awards"] = near


def test_the_permission_is_gone_outside_the_call(sick: World) -> None:
    fields, sealed, leaf = award(sick)
    assert sick.call("Awards", "permitted", fields["task"]).value is False
    assert sick.call("Awards", "permitted", bytes(32)).value is False
    execute(sick, sealed, leaf, fields, sender="keeper 0")
    assert sick.call("Awards", "permitted", fields["task"]).value is False


def test_the_purse_cannot_be_the_account_itself(sick: World) -> None:
    fields, sealed, leaf = award(sick)
    for purse in (fields["account"], bytes(32)):
        with sick.reverts("perps: bad purse"):
            sick.call(
                *("Awards", "execute", sealed.seal, sealed.proof(leaf), award_tuple(fields)),
                *(10 * E8, purse),
                sender="keeper 0",
            )
