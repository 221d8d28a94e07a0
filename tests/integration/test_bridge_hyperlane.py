"""Hyperlane's real contracts between two chains: keepers sign and deliver, others cannot."""

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from keeper.ecdsa import sign
from keeper.hashing import keccak
from keeper.plan import Step, StepKind
from keeper.route.bridges.hyperlane import Hyperlane, process, word
from keeper.route.bridges.message import checkpoint_digest
from keeper.route.bridges.multisig import Tree, metadata_of
from keeper.route.bridges.port import Send, Stage, Transfer, lane_of, step_sends
from keeper.route.congestion import Delivery, Seen
from keeper.route.reader import read_lanes
from keeper.venue.abi import answers, calldata
from tests.support.anvil import anvil_binary
from tests.support.bridge_couriers import running
from tests.support.hyperlane_contracts import (
    CHAINS,
    KEYS,
    THRESHOLD,
    USDC,
    VERIFIER,
    Bridged,
    Site,
    bridged,
)

pytestmark = [pytest.mark.anvil, pytest.mark.npm]
__all__ = ["anvil_binary"]
HOME, AWAY = CHAINS
ALICE, BOB = 5, 6
"""Accounts of the chains."""


def raw(site: Site, person: int) -> bytes:
    return bytes.fromhex(site.shop.people[person][2:])


async def send(world: Bridged, place: int, amount: int, sender: int, to: int) -> Transfer:
    """Move USDC over a crossing by a plan step, and return the transfer its receipt shows."""
    route, crossing = world.route, world.route.crossings()[place]
    site = world.sites[crossing.origin]
    step = Step(
        "move", crossing.origin, StepKind.BRIDGE, route.address(crossing),
        (
            ("amount", amount), ("asset", USDC), ("destination", crossing.destination),
            ("least_out", amount), ("recipient", raw(site, to)),
        ),
    )  # fmt: skip
    terms = await world.terms(place)
    sends = step_sends([route], step, raw(site, sender), terms, 10**18)
    receipts = await site.run(sends, site.shop.people[sender])
    (transfer,) = route.sent(crossing, receipts[-1].logs)
    assert (transfer.amount, transfer.recipient) == (amount, raw(site, to))
    return transfer


async def stage(world: Bridged, transfer: Transfer) -> Stage:
    return world.route.stage(transfer, await world.answers(world.route.arrival_reads(transfer)))


async def checkpoint(world: Bridged, transfer: Transfer, keys: list[bytes]) -> Send:
    """Return the delivery of the newest message with these keys' signatures, in this order."""
    crossing = transfer.crossing
    end, hook = world.route.end(crossing.origin), world.sites[crossing.origin].parts["hook"]
    root, index = await hook.call("latestCheckpoint")
    digest = checkpoint_digest(end.domain, word(end.hook), root, index, transfer.id)
    metadata = metadata_of(end.hook, root, index, [sign(key, digest) for key in keys])
    return process(world.route.end(crossing.destination), metadata, transfer.payload)


async def test_the_real_multisig_takes_t_ordered_signatures_and_nothing_less(
    anvil_binary: Path,
) -> None:
    async with bridged(anvil_binary) as world:
        there = world.sites[AWAY]
        await world.token.tx("mint", 10**12, sender=world.sites[HOME].shop.people[ALICE])
        transfer = await send(world, 0, 10**9, ALICE, BOB)
        first, second, third, fourth = KEYS
        stranger = keccak(b"stranger")
        for wrong in (
            [first, second],
            [first, second, second],
            [second, first, third],
            [third, second, first],
            [first, second, stranger],
        ):
            refused = await there.attempt(await checkpoint(world, transfer, wrong))
            assert not refused.succeeded
            assert await stage(world, transfer) is Stage.SENT
        good = await checkpoint(world, transfer, [first, third, fourth])
        forged = transfer.payload[:-1] + b"\x07"
        changed = Send(good.chain, good.to, calldata("process(bytes,bytes)", *_parts(good, forged)))
        assert not (await there.attempt(changed)).succeeded
        (receipt,) = await there.run([good])
        assert await stage(world, transfer) is Stage.ARRIVED
        proof = world.route.delivery(transfer, receipt.logs)
        assert proof is not None
        assert proof.block == receipt.block
        assert world.route.delivery(replace(transfer, amount=1), receipt.logs) is None
        assert world.route.delivery(replace(transfer, id=keccak(b"x")), receipt.logs) is None
        assert not (await there.attempt(good)).succeeded, "a message is delivered once"


def _parts(sent: Send, message: bytes) -> tuple[bytes, bytes]:
    metadata, _ = answers(("bytes", "bytes"), sent.data[4:])
    return metadata, message


async def test_the_own_tree_has_the_hooks_root(anvil_binary: Path) -> None:
    async with bridged(anvil_binary) as world:
        site, tree = world.sites[HOME], Tree()
        mailbox, hook = site.parts["mailbox"], site.parts["hook"]
        recipient = word(raw(site, BOB))
        for number in range(6):
            data = calldata("dispatch(uint32,bytes32,bytes)", AWAY, recipient, bytes([number]))
            quote = ("quoteDispatch(uint32,bytes32,bytes)", AWAY, recipient, bytes([number]))
            fee = await mailbox.call(*quote)
            await site.run([Send(HOME, mailbox.raw, data, fee)])
            tree.insert(await mailbox.call("latestDispatchedId"))
            assert (tree.root, tree.count - 1) == tuple(await hook.call("latestCheckpoint"))


def couriers(
    world: Bridged, silent: frozenset[int] = frozenset()
) -> AbstractAsyncContextManager[list[bytes]]:
    """Four keepers that hear each other, less the silent ones. Yields all that was said."""
    return running(world.route, KEYS, world.sites, silent)


async def arrival(world: Bridged, transfer: Transfer) -> None:
    with trio.fail_after(30):
        while await stage(world, transfer) is not Stage.ARRIVED:
            await trio.lowlevel.checkpoint()


async def test_keepers_carry_a_warp_transfer_out_and_back(anvil_binary: Path) -> None:
    async with bridged(anvil_binary) as world, couriers(world, frozenset({1})):
        shop = world.sites[HOME].shop
        await world.token.tx("mint", 250_000 * 10**6, sender=shop.people[ALICE])
        out = await send(world, 0, 250_000 * 10**6, ALICE, BOB)
        await arrival(world, out)
        assert await world.synthetic.call("balanceOf", shop.people[BOB]) == 250_000 * 10**6
        assert (await world.terms(1)).capacity == 250_000 * 10**6
        back = await send(world, 1, 100_000 * 10**6, BOB, ALICE)
        await arrival(world, back)
        assert await world.token.call("balanceOf", shop.people[ALICE]) == 100_000 * 10**6
        assert await world.synthetic.call("balanceOf", shop.people[BOB]) == 150_000 * 10**6
        assert (await world.terms(1)).capacity == 150_000 * 10**6


async def test_below_the_threshold_nothing_arrives_and_strangers_messages_are_not_signed(
    anvil_binary: Path,
) -> None:
    async with bridged(anvil_binary) as world:
        site = world.sites[HOME]
        await world.token.tx("mint", 10**9, sender=site.shop.people[ALICE])
        mailbox = site.parts["mailbox"]
        foreign = calldata("dispatch(uint32,bytes32,bytes)", AWAY, word(raw(site, BOB)), b"hi")
        await site.run([Send(HOME, mailbox.raw, foreign, 10**18)])
        async with couriers(world, frozenset({0, 3})) as said:
            transfer = await send(world, 0, 10**9, ALICE, BOB)
            with trio.fail_after(30):
                while len({frame[8:] for frame in said}) < 2:
                    await trio.lowlevel.checkpoint()
            assert {frame[8:40] for frame in said} == {transfer.id}
            assert await stage(world, transfer) is Stage.SENT
        async with couriers(world, frozenset({0})):  # one more keeper comes
            await arrival(world, transfer)


async def test_lanes_are_what_contracts_say_and_what_was_seen(anvil_binary: Path) -> None:
    async with bridged(anvil_binary) as world:
        await world.token.tx("mint", 10**12, sender=world.sites[HOME].shop.people[ALICE])
        await send(world, 0, 10**9, ALICE, BOB)
        chains = {chain: site.chain for chain, site in world.sites.items()}
        for site in world.sites.values():
            await site.shop.anvil.mine(2)
        out, back = world.route.crossings()
        (first, _), (second, _) = await read_lanes(chains, [world.route])
        assert (second.room, first.p95_ms) == (10**9, 60_000)
        slow = Seen(tuple(Delivery(0, 90_000) for _ in range(20)), 5 * 10**8, 10**7)
        seen = {
            (world.route.address(out), out): slow,
            (world.route.address(back), back): Seen(cursed=True),
        }
        (first, _), (second, _) = await read_lanes(chains, [world.route], seen)
        assert (first.p95_ms, first.queue) == (90_000 + 50_000, 5 * 10**8)
        assert (first.cursed, second.cursed) == (False, True)


async def test_a_route_that_is_set_up_otherwise_is_cursed(anvil_binary: Path) -> None:
    async with bridged(anvil_binary) as world:
        site = world.sites[AWAY]
        good = await world.terms(0)
        assert good.fault == ""
        assert good.value > 0
        lane = lane_of(world.route, world.route.crossings()[0], good)
        assert (lane.verifier, lane.cursed) == (VERIFIER, False)
        modules = site.parts["modules"]
        one = site.shop.web3.to_checksum_address("0x" + "11" * 20)
        await modules.tx("deploy(address[],uint8)", [one], 1)
        weak = await modules.call("getAddress(address[],uint8)", [one], 1)
        router = world.synthetic
        await router.tx(
            "setInterchainSecurityModule(address)", site.shop.web3.to_checksum_address(weak)
        )
        bad = await world.terms(0)
        assert bad.fault == "another module checks its messages"
        assert lane_of(world.route, world.route.crossings()[0], bad).cursed
        assert (await world.terms(1)).fault == "", "the other direction is checked elsewhere"
        odd = await world.sites[HOME].shop.token("USDT", 6)
        ends = [replace(world.route.end(HOME), token=odd.raw), world.route.end(AWAY)]
        other = Hyperlane(
            USDC, ends, world.route.validators, THRESHOLD, verifier=VERIFIER,
            timing=world.route.timing,
        )  # fmt: skip
        for crossing in other.crossings():
            reads = await world.answers(other.quote_reads(crossing))
            assert other.quoted(crossing, reads).fault == "a router of it holds another token"
        zero = "0x" + "00" * 20
        await router.tx("setInterchainSecurityModule(address)", zero)
        assert (await world.terms(0)).fault == ""
        await router.tx("enrollRemoteRouter", HOME, word(b"\x66" * 20))
        for place in (0, 1):
            assert (await world.terms(place)).fault == "its routers do not name each other"
        fewer = Hyperlane(
            USDC, [world.route.end(chain) for chain in CHAINS], world.route.validators, 2,
            verifier=VERIFIER, timing=world.route.timing,
        )  # fmt: skip
        reads = await world.answers(fewer.quote_reads(fewer.crossings()[0]))
        reads[1:3] = [word(world.route.end(AWAY).router), word(world.route.end(HOME).router)]
        assert "threshold" in fewer.quoted(fewer.crossings()[0], reads).fault
        assert fewer.quoted(fewer.crossings()[0], [b""] * 5).fault
