"""Intents from open to paid or refunded: real settlers, and the rule that attests for them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account

from keeper.hashing import keccak
from keeper.intent.order import GaslessOrder, OnchainOrder, Order, ResolvedOrder, resolve, word
from keeper.margin.breaker import Level
from keeper.settle.attest import MAX_PER_VIEW
from keeper.venue.intents import orders
from tests.support.contracts import NETWORK, Reverted, World
from tests.support.flow_net import DAY_S, FIRST, LAG, PURSE, Net, rolled_back, small_world

LIFE_S = 600


@pytest.fixture(scope="module")
def deployed() -> list[World]:
    return [small_world(FIRST + at) for at in range(3)]


@pytest.fixture
def net(deployed: list[World]) -> Iterator[Net]:
    with rolled_back(deployed):
        yield Net(deployed)


def wanted(net: Net, **changes: Any) -> Order:
    """Alice gives 100 on the first chain for 90 to carol on the second."""
    here, there = net.worlds[0], net.worlds[1]
    order = Order(
        input_token=here.at["DevToken"],
        input_amount=100,
        output_token=word(there.at["DevToken"]),
        output_amount=90,
        recipient=word(there.actor("carol")),
        vault=bytes(32),
        destination_chain=there.chain,
        destination_settler=word(there.at["Intents"]),
    )
    return replace(order, **changes)


def opened(net: Net, order: Order, nonce: int = 0) -> ResolvedOrder:
    """Open an order as alice; the id is what Python computes, and the contract agrees."""
    here = net.worlds[0]
    asked = OnchainOrder(here.now + LIFE_S, order.encode())
    resolved = resolve(
        *(NETWORK, here.chain, here.at["Intents"]),
        user=here.actor("alice"),
        nonce=nonce,
        order=asked,
    )
    args = (asked.fill_deadline, asked.order_data_type, asked.order_data)
    net.send(0, "Intents", "open", args, sender="alice")
    assert here.call("Intents", "orders", resolved.order_id).values[0][2] == order.input_amount
    return resolved


def fill(net: Net, resolved: ResolvedOrder, data: bytes | None = None, at: int = 1) -> None:
    """Deliver as bob, who wants to be paid at his own address on the origin."""
    origin_data = resolved.fill_instructions[0].origin_data if data is None else data
    payee = word(net.worlds[0].actor("bob"))
    net.send(at, "Intents", "fill", resolved.order_id, origin_data, payee, sender="bob")


def bring_all(net: Net) -> list[str]:
    """Bring what is outstanding; return the kinds."""
    net.settle_down()
    kinds = [decision.kind for decision in net.outstanding()]
    for decision in net.outstanding():
        net.bring(decision)
    net.settle_down()
    assert net.outstanding() == ()
    return kinds


def test_a_filled_order_pays_the_filler_once(net: Net) -> None:
    resolved = opened(net, wanted(net))
    fill(net, resolved)
    assert net.view() == ()  # not final yet
    with pytest.raises(Reverted, match="filled already"):
        fill(net, resolved)
    assert bring_all(net) == ["Filled"]
    assert [net.held(0, who) for who in ("alice", "bob")] == [PURSE - 100, PURSE + 100]
    assert [net.held(1, who) for who in ("bob", "carol")] == [PURSE - 90, PURSE + 90]
    net.day()
    assert net.view() == ()
    assert net.conserved()


@pytest.mark.parametrize("at", [0, 1])
def test_a_chain_that_broke_its_finality_answers_nothing(net: Net, at: int) -> None:
    resolved = opened(net, wanted(net))
    fill(net, resolved)
    net.curse(at)
    assert net.view() == ()
    net.curse(at, Level.CLOSED)
    assert bring_all(net) == ["Filled"]


def test_a_signed_order_is_filled_and_paid_like_any_other(net: Net) -> None:
    here, order = net.worlds[0], wanted(net)
    times = {"open_deadline": here.now + 60, "fill_deadline": here.now + LIFE_S}
    alice, settler = here.actor("alice"), here.at["Intents"]
    signed = GaslessOrder(settler, alice, 7, here.chain, *times.values(), order.encode())
    signature = Account.unsafe_sign_hash(signed.digest(), World.key("alice")).signature
    struct = (
        *(settler, alice, 7, here.chain, *times.values()),
        *(signed.order_data_type, signed.order_data),
    )
    net.send(0, "Intents", "openFor", struct, bytes(signature), b"", sender="dave")
    resolved = resolve(
        *(NETWORK, here.chain, settler),
        user=alice,
        nonce=7,
        order=OnchainOrder(times["fill_deadline"], order.encode()),
        open_deadline=times["open_deadline"],
    )
    (seen,) = orders(net.spec.chains[0], net.tables[0])
    assert seen.id == resolved.order_id
    fill(net, resolved)
    assert bring_all(net) == ["Filled"]
    assert [net.held(0, who) for who in ("alice", "bob")] == [PURSE - 100, PURSE + 100]


def test_an_order_that_nobody_fills_is_refunded_after_its_deadline(net: Net) -> None:
    resolved = opened(net, wanted(net))
    net.settle_down()
    assert net.decided == []
    net.mine(LIFE_S + 5)
    net.mine(LAG)
    with pytest.raises(Reverted, match="too late to fill"):
        fill(net, resolved)
    assert bring_all(net) == ["Unfilled"]
    assert net.held(0, "alice") == PURSE
    assert net.conserved()


def test_a_fill_in_the_last_second_is_not_raced_by_a_refund(net: Net) -> None:
    resolved = opened(net, wanted(net))
    net.settle_down()
    left = resolved.fill_deadline - net.worlds[1].now
    net.mine(1, left)
    assert net.worlds[1].now == resolved.fill_deadline
    fill(net, resolved)
    assert bring_all(net) == ["Filled"]


@pytest.mark.parametrize(
    "changes",
    [
        {"recipient": b"\x05" * 32},
        {"output_amount": 89},
        {"output_token": b"\0" * 12 + b"\x01" * 20},
        {"vault": b"\0" * 12 + b"\x02" * 20},
    ],
    ids=["recipient", "amount", "token", "vault"],
)
def test_a_fill_of_something_else_is_no_fill(net: Net, changes: dict[str, Any]) -> None:
    order = wanted(net)
    resolved = opened(net, order)
    if "recipient" in changes:
        changes = {"recipient": word(net.worlds[1].actor("bob"))}
    elif "output_token" in changes:
        token = net.worlds[1].deploy("DevToken", "Other", "OTH", 6, alias="Other")
        for function, who in (("mint", "bob"), ("approve", None)):
            at = net.worlds[1].actor(who) if who else net.worlds[1].at["Intents"]
            net.worlds[1].call("Other", function, at, 90, sender="bob")
        changes = {"output_token": word(token)}
    data = replace(order, **changes).origin_data(resolved.fill_deadline)
    if "vault" in changes:
        with pytest.raises(Reverted):  # that vault does not exist
            fill(net, resolved, data)
    else:
        fill(net, resolved, data)
    net.settle_down()
    assert net.decided == []
    net.mine(LIFE_S + 5)
    assert bring_all(net) == ["Unfilled"]
    assert net.held(0, "alice") == PURSE
    assert net.conserved()


def test_a_fill_on_another_chain_is_no_fill(net: Net) -> None:
    order = wanted(net)
    resolved = opened(net, order)
    # the very data, with the third chain's token so that it can be delivered there at all
    third = word(net.worlds[2].at["DevToken"])
    fill(net, resolved, replace(order, output_token=third).origin_data(resolved.fill_deadline), 2)
    net.mine(LIFE_S + 5)
    assert bring_all(net) == ["Unfilled"]


def test_a_false_fill_neither_blocks_nor_delays_the_right_one(net: Net) -> None:
    order = wanted(net)
    resolved = opened(net, order)
    fill(net, resolved, replace(order, output_amount=1).origin_data(resolved.fill_deadline))
    fill(net, resolved)
    assert bring_all(net) == ["Filled"]


def test_an_order_for_an_unknown_place_is_left_to_its_escape(net: Net) -> None:
    opened(net, wanted(net, destination_chain=5))
    opened(net, wanted(net, destination_settler=word(net.worlds[1].at["Escrow"])), nonce=1)
    net.day()
    net.settle_down()
    assert net.decided == []
    net.mine(1, 8 * DAY_S)
    (first, _) = orders(net.spec.chains[0], net.tables[0])
    net.send(0, "Intents", "escape", first.id, sender="anyone")
    assert net.held(0, "alice") == PURSE - 100


def test_an_order_that_gives_a_strangers_token_is_left_to_its_escape(net: Net) -> None:
    here = net.worlds[0]
    token = here.deploy("DevToken", "Other", "OTH", 6, alias="Other")
    here.call("Other", "mint", here.actor("alice"), 100)
    here.call("Other", "approve", here.at["Intents"], 100, sender="alice")
    resolved = opened(net, wanted(net, input_token=token))
    fill(net, resolved)
    net.settle_down()
    assert net.decided == []
    opened(net, wanted(net), nonce=1)
    net.day()
    assert bring_all(net) == ["Unfilled"]  # of the other one


def test_a_fill_for_a_payee_that_is_no_address_is_neither_paid_nor_refunded(net: Net) -> None:
    resolved = opened(net, wanted(net))
    data = resolved.fill_instructions[0].origin_data
    net.send(1, "Intents", "fill", resolved.order_id, data, b"\xff" * 32, sender="bob")
    net.day()
    net.settle_down()
    assert net.decided == []


def test_an_attestation_is_for_one_order_one_payee_and_one_side(net: Net) -> None:
    first = opened(net, wanted(net))
    second = opened(net, wanted(net), nonce=1)
    assert first.order_id != second.order_id
    fill(net, first)
    net.settle_down()
    (made,) = net.outstanding()
    thief = net.worlds[0].actor("dave")
    for wrong in (
        replace(made, fields=(second.order_id, made.fields[1])),
        replace(made, fields=(first.order_id, thief)),
        replace(made, kind="Unfilled", fields=(first.order_id,)),
    ):
        with pytest.raises(Reverted, match="not in the root"):
            net.bring(wrong)
    net.bring(made)
    with pytest.raises(Reverted, match="order is not open"):
        net.bring(made)


def test_many_orders_are_answered_over_some_views(net: Net) -> None:
    count = MAX_PER_VIEW + 3
    for nonce in range(count):
        opened(net, wanted(net, input_amount=1), nonce=nonce)
    net.mine(LIFE_S + 5)
    net.mine(LAG + 1)
    sizes = [len(net.view()) for _ in range(3)]
    assert sizes == [MAX_PER_VIEW, 3, 0]
    assert len({decision.key for decision in net.decided}) == count


def test_orders_are_read_back_as_they_were_opened(net: Net) -> None:
    order = wanted(net)
    resolved = opened(net, order)
    (seen,) = orders(net.spec.chains[0], net.tables[0])
    assert seen.id == resolved.order_id
    assert seen.data == resolved.fill_instructions[0].origin_data
    assert seen.data_hash == keccak(order.origin_data(resolved.fill_deadline))
    assert (seen.destination, seen.settler) == (order.destination_chain, order.destination_settler)
    assert (seen.token, seen.amount) == (order.output_token, order.output_amount)
    assert (seen.input_token, seen.input_amount) == (order.input_token, order.input_amount)
    assert not seen.closed
