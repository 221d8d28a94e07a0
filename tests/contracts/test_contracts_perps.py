"""The reference venue: within credit, at oracle prices, sums to zero, and equal to Python."""

import random
from dataclasses import dataclass
from typing import Any

import pytest
from eth.exceptions import Revert

from keeper import leaves
from keeper.hashing import keccak
from keeper.units import ceil_div
from tests.support.contracts import (
    BTC_USD,
    E8,
    ETH_USD,
    NEVER,
    USD,
    Receipt,
    World,
    account_id,
    give_credit,
    perps_markets,
    set_price,
)

UNIT = 10 ** (8 + 2)
IM, MM, FEE, BONUS = 100_000, 50_000, 500, 25_000
FUNDING_A_DAY, SKEW_SCALE = 10_000, 1_000 * E8
DAY = 86_400


def realised(world: World, who: str) -> int:
    return int(world.call("Perps", "realised", account_id(world.actor(who))).value)


def position(world: World, who: str, market: bytes = ETH_USD) -> tuple[int, int, int]:
    held = world.call("Perps", "position", account_id(world.actor(who)), market).value
    return (held[0], held[1], held[2])


def increase(world: World, who: str, size: int, limit: int = 0, market: bytes = ETH_USD) -> Receipt:
    return world.call("Perps", "increase", 0, market, size, limit, sender=who)


def reduce(world: World, who: str, size: int, limit: int = 0, market: bytes = ETH_USD) -> Receipt:
    return world.call("Perps", "reduce", 0, market, size, limit, sender=who)


def apply_credit(world: World, **fields: Any) -> Receipt:
    leaf = leaves.credit_leaf(*world.place("Perps"), **fields)
    sealed = world.seal(leaf)
    return world.call(*("Perps", "apply_credit", sealed.seal, sealed.proof(leaf)), *fields.values())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({3: 3}, "perps: too few decimals"),
        ({3: 11}, "perps: too many decimals"),
        ({4: 50_000}, "perps: margin order"),
        ({5: 0}, "perps: margin order"),
        ({7: 50_000}, "perps: bonus above margin"),
        ({9: 0}, "perps: no skew scale"),
    ],
)
def test_markets_that_make_no_sense_are_refused_at_deployment(
    world: World, change: dict[int, int], reason: str
) -> None:
    row = list(perps_markets(world)[0])
    for index, value in change.items():
        row[index] = value
    args = (
        world.at["Snapshots"],
        world.at["Awards"],
        world.at["Escrow"],
        keccak(b"house"),
        [keccak(b"s")] * 4,
        20,
    )
    if not reason:
        world.deploy("Perps", *args, [tuple(row)], alias="Other")
        return
    with pytest.raises(Revert, match=reason):
        world.deploy("Perps", *args, [tuple(row)], alias="Other")


def test_without_credit_nothing_opens(world: World) -> None:
    with world.reverts("perps: credit expired"):
        increase(world, "trader", E8)


def test_credit_is_the_limit_of_initial_margin_and_fee(world: World) -> None:
    # ten ETH at 2,000 need 2,000 of margin, and the fee of 10 is lost credit
    give_credit(world, "trader", 2_010 * USD - 1)
    with world.reverts("perps: above the credit"):
        increase(world, "trader", 10 * E8)
    give_credit(world, "trader", 2_010 * USD)
    increase(world, "trader", 10 * E8)
    assert position(world, "trader") == (10 * E8, -20_000 * USD, 0)
    assert realised(world, "trader") == -10 * USD
    with world.reverts("perps: above the credit"):
        increase(world, "trader", 1)


def test_margin_counts_every_market(world: World) -> None:
    give_credit(world, "trader", 2_000 * USD)
    increase(world, "trader", 5 * E8)
    with world.reverts("perps: above the credit"):
        increase(world, "trader", E8 // 5, market=BTC_USD)
    increase(world, "trader", -E8 // 10, market=BTC_USD)
    imr, mmr, unrealised = world.call("Perps", "exposure", account_id(world.actor("trader"))).value
    assert (imr, mmr, unrealised) == (1_600 * USD, 800 * USD, 0)


def test_local_losses_take_credit(world: World) -> None:
    give_credit(world, "trader", 2_000 * USD)
    increase(world, "trader", 5 * E8)
    set_price(world, "ETH", 1_800)
    # 900 margin + 1,000 unrealised loss + 5 of fees leave 95: half a unit needs 90 and 0.45
    with world.reverts("perps: above the credit"):
        increase(world, "trader", 6 * E8 // 10)
    increase(world, "trader", E8 // 2)
    # realising the loss does not free the credit it took
    reduce(world, "trader", 5 * E8 + E8 // 2)
    with world.reverts("perps: above the credit"):
        increase(world, "trader", 6 * E8)
    # until the keepers, who know the loss, grant a newer request
    give_credit(world, "trader", 2_000 * USD)
    increase(world, "trader", 6 * E8)


def test_a_loss_after_the_request_still_counts_when_the_credit_arrives(world: World) -> None:
    give_credit(world, "trader", 1_100 * USD)
    increase(world, "trader", 5 * E8)
    account = account_id(world.actor("trader"))
    world.call("Perps", "request_credit", 0, 1_100 * USD, sender="trader")
    set_price(world, "ETH", 1_900)
    reduce(world, "trader", 5 * E8)
    apply_credit(world, account=account, limit=1_100 * USD, nonce=2, expiry=NEVER)
    with world.reverts("perps: above the credit"):
        increase(world, "trader", 5 * E8)
    increase(world, "trader", 3 * E8)


def test_credit_expires_and_lower_nonces_are_refused(world: World) -> None:
    give_credit(world, "trader", 5_000 * USD, expiry=world.block + 3)
    world.mine(3)
    increase(world, "trader", E8)
    world.mine(1)
    with world.reverts("perps: credit expired"):
        increase(world, "trader", E8)
    reduce(world, "trader", E8)
    account = account_id(world.actor("trader"))
    fields: dict[str, Any] = {"account": account, "limit": 9, "nonce": 1, "expiry": NEVER}
    with world.reverts("perps: decision used"):
        apply_credit(world, **fields)
    with world.reverts("perps: decision expired"):
        apply_credit(world, **{**fields, "nonce": 2, "expiry": world.block - 1})
    world.call("Perps", "request_credit", 0, 50, sender="trader")
    world.call("Perps", "request_credit", 0, 60, sender="trader")
    with world.reverts("perps: a newer request is open"):
        apply_credit(world, **{**fields, "nonce": 2})
    apply_credit(world, **{**fields, "nonce": 3})
    # keepers may renew without a request
    apply_credit(world, **{**fields, "nonce": 4})


def test_credit_is_lowered_by_the_owner_alone(world: World) -> None:
    give_credit(world, "trader", 2_000 * USD)
    increase(world, "trader", E8)
    with world.reverts("perps: credit is in use"):
        world.call("Perps", "lower_credit", 0, 200 * USD, sender="trader")
    with world.reverts("perps: not lower"):
        world.call("Perps", "lower_credit", 0, 2_000 * USD, sender="trader")
    lowered = world.call("Perps", "lower_credit", 0, 201 * USD, sender="trader")
    (event,) = world.events(lowered, "Perps", "CreditSet")
    assert (event["limit"], event["nonce"], event["expiry"]) == (201 * USD, 1, NEVER)


def test_limit_prices_hold_on_both_sides(world: World) -> None:
    give_credit(world, "trader", 50_000 * USD)
    with world.reverts("perps: price above the limit"):
        increase(world, "trader", E8, 1_999 * E8)
    increase(world, "trader", E8, 2_000 * E8)
    with world.reverts("perps: price below the limit"):
        reduce(world, "trader", E8, 2_001 * E8)
    reduce(world, "trader", E8, 2_000 * E8)
    with world.reverts("perps: price below the limit"):
        increase(world, "trader", -E8, 2_001 * E8)
    increase(world, "trader", -E8, 2_000 * E8)
    with world.reverts("perps: price above the limit"):
        reduce(world, "trader", E8, 1_999 * E8)


def test_a_position_is_not_turned_round_nor_reduced_below_zero(world: World) -> None:
    give_credit(world, "trader", 50_000 * USD)
    increase(world, "trader", E8)
    with world.reverts("perps: reduce first"):
        increase(world, "trader", -1)
    for size in (0, E8 + 1):
        with world.reverts("perps: not that much open"):
            reduce(world, "trader", size)
    with world.reverts("perps: nothing to do"):
        increase(world, "trader", 0)
    with world.reverts("perps: unknown market"):
        increase(world, "trader", 1, market=keccak(b"no market"))


def test_profit_and_loss_go_against_the_house(world: World) -> None:
    give_credit(world, "trader", 50_000 * USD)
    increase(world, "trader", 10 * E8)
    set_price(world, "ETH", 2_100)
    reduce(world, "trader", 4 * E8)
    assert realised(world, "trader") == 400 * USD - 10 * USD - 4_200_000
    assert realised(world, "trader") + realised(world, "house") == 0
    assert position(world, "trader") == (6 * E8, -12_000 * USD, 0)
    set_price(world, "ETH", 1_900)
    reduce(world, "trader", 6 * E8)
    assert position(world, "trader") == (0, 0, 0)
    assert realised(world, "trader") + realised(world, "house") == 0
    assert not world.call("Perps", "credit", account_id(world.actor("trader"))).value[3]


@pytest.mark.parametrize(
    ("answer", "age", "reason"),
    [
        (0, 0, "perps: no price"),
        (-1, 0, "perps: no price"),
        (2_000 * E8, 3_601, "perps: stale price"),
        (2_000 * E8, -1, "perps: price from the future"),
        (2_000 * E8, 3_600, None),
    ],
)
def test_a_bad_price_stops_trading(world: World, answer: int, age: int, reason: str | None) -> None:
    give_credit(world, "trader", 50_000 * USD)
    world.call(*("ETH feed", "set_answer_at", answer, world.now - age), sender="deployer")
    if reason is None:
        increase(world, "trader", E8)
        return
    with world.reverts(reason):
        increase(world, "trader", E8)


def test_only_awards_liquidates_by_certificate(world: World) -> None:
    purse = account_id(world.actor("thief"))
    call = ("Perps", "liquidate", keccak(b"t"), keccak(b"a"), ETH_USD, 1, purse, 0)
    for sender in ("thief", "deployer"):
        with world.reverts("perps: only awards"):
            world.call(*call, sender=sender)
    with world.reverts("perps: not permitted"):
        world.call(*call, sender=world.at["Awards"])


def sicken(world: World) -> bytes:
    """Open ten ETH within a credit of 2,500 and let the price fall to 1,800."""
    give_credit(world, "trader", 2_500 * USD)
    increase(world, "trader", 10 * E8)
    set_price(world, "ETH", 1_800)
    return account_id(world.actor("trader"))


def public(world: World, account: bytes, size: int = 10 * E8) -> Receipt:
    purse = account_id(world.actor("passer-by"))
    return world.call(
        "Perps", "liquidate_public", account, ETH_USD, size, purse, sender="passer-by"
    )


def test_anyone_liquidates_after_public_after_with_no_certificate(world: World) -> None:
    account = sicken(world)
    with world.reverts("perps: not flagged"):
        public(world, account)
    world.call("Perps", "flag", account)
    world.mine(19, 0)
    with world.reverts("perps: not public yet"):
        public(world, account)
    world.mine(1, 0)
    assert public(world, account).value == 450 * USD
    assert realised(world, "passer-by") == 450 * USD
    assert realised(world, "trader") == -(2_000 + 450 + 10) * USD
    total = sum(realised(world, who) for who in ("trader", "house", "passer-by"))
    assert total == 0
    with world.reverts("perps: within its credit"):
        public(world, account)


def test_a_sound_account_is_not_flagged_and_a_healed_one_is_safe(world: World) -> None:
    account = sicken(world)
    set_price(world, "ETH", 1_950)
    with world.reverts("perps: within its credit"):
        world.call("Perps", "flag", account)
    set_price(world, "ETH", 1_800)
    world.call("Perps", "flag", account)
    with world.reverts("perps: flagged already"):
        world.call("Perps", "flag", account)
    with world.reverts("perps: beyond its credit"):
        world.call("Perps", "unflag", account)
    world.mine(20)
    set_price(world, "ETH", 1_950)
    with world.reverts("perps: within its credit"):
        public(world, account)
    world.call("Perps", "unflag", account)
    # sick again: the clock starts anew
    set_price(world, "ETH", 1_800)
    with world.reverts("perps: not flagged"):
        public(world, account)
    world.call("Perps", "flag", account)
    with world.reverts("perps: not public yet"):
        public(world, account)


def test_an_old_flag_goes_stale(world: World) -> None:
    account = sicken(world)
    world.call("Perps", "flag", account)
    world.mine(1_021)
    with world.reverts("perps: flag is stale"):
        public(world, account)
    world.call("Perps", "flag", account)
    world.mine(20)
    public(world, account)


def test_the_owner_may_reduce_while_flagged(world: World) -> None:
    account = sicken(world)
    world.call("Perps", "flag", account)
    reduce(world, "trader", E8)
    world.mine(20)
    public(world, account, E8)
    assert position(world, "trader")[0] == 8 * E8


def test_prices_paid_are_split_over_the_four_receivers(world: World) -> None:
    with world.reverts("perps: nothing to split"):
        world.call("Perps", "distribute")


@dataclass
class Reference:
    """The same arithmetic in Python integers, one market."""

    size: int = 0
    quote: int = 0
    at: int = 0

    def settle(self, index: int) -> None:
        self.quote += -self.size * (index - self.at) // 10**12
        self.at = index

    def increase(self, size: int, price: int, index: int) -> int:
        self.settle(index)
        self.quote -= ceil_div(size * price, UNIT)
        self.size += size
        return -ceil_div(ceil_div(abs(size) * price, UNIT) * FEE, 10**6)

    def reduce(self, size: int, price: int, index: int) -> int:
        self.settle(index)
        part = self.quote * size // abs(self.size)
        signed = size if self.size > 0 else -size
        self.quote -= part
        self.size -= signed
        if not self.size:
            self.at = 0
        fee = ceil_div(ceil_div(size * price, UNIT) * FEE, 10**6)
        return signed * price // UNIT + part - fee


def next_index(index: int, skew: int, price: int, seconds: int) -> int:
    """The funding index after some time without a trade."""
    pressure = max(-SKEW_SCALE, min(SKEW_SCALE, skew))
    per_unit = price * 10**12 // UNIT
    return index + per_unit * FUNDING_A_DAY * pressure * seconds // (SKEW_SCALE * 10**6 * DAY)


def test_the_crowded_side_pays_funding(world: World) -> None:
    give_credit(world, "trader", 10**6 * USD)
    increase(world, "trader", 500 * E8)
    world.mine(1, DAY)
    set_price(world, "ETH", 2_000)
    index = next_index(0, 500 * E8, 2_000 * E8, DAY)
    assert world.call("Perps", "funding_index", ETH_USD).value == index
    # half of the full skew at 1 % a day costs a long of a million dollars 5,000
    exposure = world.call("Perps", "exposure", account_id(world.actor("trader"))).value
    assert exposure[2] == -5_000 * USD
    world.call("Perps", "settle", account_id(world.actor("trader")), ETH_USD)
    assert position(world, "trader") == (500 * E8, -1_005_000 * USD, index)


@pytest.mark.parametrize("seed", range(3))
def test_random_trading_equals_python_to_the_bit_and_sums_to_zero(world: World, seed: int) -> None:
    rng = random.Random(seed)
    people = ["alice", "bob", "carol"]
    books = {who: Reference() for who in people}
    totals = dict.fromkeys([*people, "house"], 0)
    index = skew = 0
    price, last = 2_000 * E8, world.now
    for who in people:
        give_credit(world, who, 2**100)
    for _ in range(40):
        who, book = (name := rng.choice(people)), books[name]
        world.mine(rng.randrange(1, 100), rng.choice([1, 7, 3_000]))
        price = max(1, price + rng.randrange(-200 * E8, 200 * E8) // rng.choice([1, 7, 10**6]))
        world.call("ETH feed", "set_answer", price, sender="deployer")
        index, last = next_index(index, skew, price, world.now - last), world.now
        if book.size and rng.random() < 0.45:
            size = rng.choice([abs(book.size), rng.randrange(1, abs(book.size) + 1)])
            skew -= size if book.size > 0 else -size
            got = book.reduce(size, price, index)
            reduce(world, who, size)
        else:
            size = rng.randrange(1, 10 ** rng.randrange(1, 12))
            size = -size if book.size < 0 or (not book.size and rng.random() < 0.5) else size
            skew += size
            got = book.increase(size, price, index)
            increase(world, who, size)
        totals[who] += got
        totals["house"] -= got
        assert position(world, who) == (book.size, book.quote, book.at)
        for name, total in totals.items():
            assert realised(world, name) == total
    assert sum(totals.values()) == 0
