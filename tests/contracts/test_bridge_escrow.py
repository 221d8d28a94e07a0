"""The native escrow behind the bridges' port: sent, ready, arrived or returned, and proven."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from keeper.chain.port import BlockRef, Log
from keeper.hashing import keccak
from keeper.plan import Step, StepKind
from keeper.route.bridges.escrow import Escrow, Price
from keeper.route.bridges.port import (
    Crossing,
    Read,
    Send,
    Stage,
    Terms,
    Timing,
    Transfer,
    lane_of,
    step_sends,
)
from keeper.settle.payments import payments
from keeper.units import BlockNumber, ChainId, symbol
from keeper.venue.escrow import Terms as FlowTerms
from keeper.venue.port import Call
from tests.support.contracts import EPOCH, World, hexed
from tests.support.flow_net import FIRST, PURSE, Net, rolled_back, small_world

USDC = symbol("USDC")
COMMITTEE = keccak(b"the keepers")
HOME, AWAY = ChainId(FIRST), ChainId(FIRST + 1)
CROSSING = Crossing(HOME, AWAY, USDC)
AMOUNT, BRINGS = 500, 488
PRICE = Price(fee_ppm=20_000, fee_fixed=2, capacity=900)


@pytest.fixture(scope="module")
def deployed() -> list[World]:
    return [small_world(FIRST + at) for at in range(2)]


@pytest.fixture
def net(deployed: list[World]) -> Iterator[Net]:
    with rolled_back(deployed):
        yield Net(deployed)


def bridge(net: Net, deposit_ppm: int = 0, number: int = 0) -> Escrow:
    now = max(world.now for world in net.worlds)
    flow = FlowTerms(EPOCH, number, (now + 200) * bool(deposit_ppm), now + 600)
    return Escrow(
        net.spec, net.worlds[0].actor("bob"), USDC, {(HOME, AWAY): PRICE}, flow,
        verifier=COMMITTEE, timing=Timing(4_000, 12_000), deposit_ppm=deposit_ppm,
    )  # fmt: skip


def world_of(net: Net, chain: ChainId) -> World:
    return net.worlds[[HOME, AWAY].index(chain)]


def answers(net: Net, reads: Sequence[Read]) -> list[bytes]:
    found = []
    for read in reads:
        world = world_of(net, read.chain)
        done = world.env.execute_code(to_address=hexed(read.call.to), data=read.call.data)
        found.append(b"" if done.is_error else bytes(done.output))
    return found


def run(net: Net, sends: Sequence[Send | Call], sender: str) -> list[Log]:
    """Send transactions, and return their logs as a chain shows them."""
    logs: list[Log] = []
    for one in sends:
        block = BlockRef(one.chain, BlockNumber(world_of(net, one.chain).block), bytes(32))
        rows = net.do(Call(one.chain, one.to, one.data), sender)
        name = keccak(one.data)
        logs += [
            Log(block, at, name, row.address, row.topics, row.data) for at, row in enumerate(rows)
        ]
    return logs


def send(net: Net, escrow: Escrow) -> Transfer:
    """Alice moves dollars by a plan step."""
    alice = net.worlds[0].actor("alice")
    terms = escrow.quoted(CROSSING, answers(net, escrow.quote_reads(CROSSING)))
    args = (
        ("amount", AMOUNT), ("asset", USDC), ("destination", AWAY), ("least_out", BRINGS),
    )  # fmt: skip
    step = Step("move", HOME, StepKind.BRIDGE, escrow.address(CROSSING), args)
    logs = run(net, step_sends([escrow], step, alice, terms, 0), "alice")
    (transfer,) = escrow.sent(CROSSING, logs)
    assert (transfer.amount, transfer.recipient) == (BRINGS, alice)
    return transfer


def maker_locks(net: Net, escrow: Escrow) -> None:
    """Bob locks his leg, by the very code a maker of this software would use."""
    alice = net.worlds[0].actor("alice")
    terms = Terms(PRICE.fee_fixed, PRICE.fee_ppm)
    flow = escrow.flow(CROSSING, AMOUNT, alice, terms)
    net.send(1, "Escrow", "prepare", *flow.entry(1), sender="bob")


def settle(net: Net, transfer: Transfer) -> list[Log]:
    """Anyone brings the outcome and pays what is settled; return what that logs."""
    net.settle_down()
    for decision in net.outstanding():
        net.bring(decision)
    net.settle_down()
    due = payments(net.spec, net.records(), transfer.id)
    logs = run(net, due, "anyone")
    net.settle_down()
    return logs


def stage(net: Net, escrow: Escrow, transfer: Transfer) -> Stage:
    return escrow.stage(transfer, answers(net, escrow.arrival_reads(transfer)))


@pytest.mark.parametrize("deposit_ppm", [0, 100_000])
def test_a_transfer_is_sent_ready_arrived_and_proven(net: Net, deposit_ppm: int) -> None:
    escrow = bridge(net, deposit_ppm)
    transfer = send(net, escrow)
    assert stage(net, escrow, transfer) is Stage.SENT
    maker_locks(net, escrow)
    assert stage(net, escrow, transfer) is Stage.READY
    logs = settle(net, transfer)
    assert stage(net, escrow, transfer) is Stage.ARRIVED
    assert net.held(1, "alice") == PURSE + BRINGS
    assert net.held(0, "bob") == PURSE + AMOUNT
    assert net.conserved()
    there = [log for log in logs if log.block.chain == AWAY]
    proof = escrow.delivery(transfer, there)
    assert proof is not None
    assert proof.transfer == transfer
    for wrong in (
        replace(transfer, amount=BRINGS + 1),
        replace(transfer, recipient=net.worlds[1].actor("carol")),
        replace(transfer, id=keccak(b"other")),
    ):
        assert escrow.delivery(wrong, there) is None
    assert escrow.delivery(transfer, [log for log in logs if log.block.chain == HOME]) is None


def test_a_maker_that_never_locks_costs_only_time(net: Net) -> None:
    escrow = bridge(net)
    transfer = send(net, escrow)
    net.mine(5, 2_000)
    settle(net, transfer)
    assert stage(net, escrow, transfer) is Stage.RETURNED
    assert net.held(0, "alice") == PURSE
    assert net.conserved()


def test_legs_of_another_price_or_flow_are_no_transfer(net: Net) -> None:
    escrow, other = bridge(net), bridge(net, number=1)
    alice = net.worlds[0].actor("alice")
    cheap = escrow.sends(CROSSING, AMOUNT, alice, alice, Terms(0, 0))
    assert escrow.sent(CROSSING, run(net, cheap, "alice")) == ()
    fair = other.sends(CROSSING, AMOUNT, alice, alice, Terms(PRICE.fee_fixed, PRICE.fee_ppm))
    net.worlds[0].call("DevToken", "mint", alice, PURSE)
    (found,) = other.sent(CROSSING, run(net, fair, "alice"))
    assert found.amount == BRINGS
    with pytest.raises(ValueError, match="own address"):
        escrow.sends(CROSSING, AMOUNT, alice, b"\x01" * 20, Terms())


def test_a_quote_is_bounded_by_what_the_maker_holds(net: Net) -> None:
    escrow = bridge(net)
    terms = escrow.quoted(CROSSING, answers(net, escrow.quote_reads(CROSSING)))
    assert terms == Terms(PRICE.fee_fixed, PRICE.fee_ppm, 0, PRICE.capacity, "")
    lane = lane_of(escrow, CROSSING, terms)
    assert (lane.verifier, lane.room, lane.bridge) == (COMMITTEE, 900, net.worlds[0].actor("bob"))
    bob, carol = (net.worlds[1].actor(who) for who in ("bob", "carol"))
    net.worlds[1].call("DevToken", "transfer", carol, PURSE - 10, sender=bob)
    terms = escrow.quoted(CROSSING, answers(net, escrow.quote_reads(CROSSING)))
    assert terms.capacity == 10
    assert "escrow does" in escrow.quoted(CROSSING, [b"", b"", b""]).fault
    zeros = [bytes(32)] * 3
    assert escrow.quoted(CROSSING, zeros).fault == "an escrow has no escape"
    assert escrow.stage(Transfer(bytes(32), CROSSING, bob, 1, bytes(64)), [b""] * 4) is Stage.SENT
