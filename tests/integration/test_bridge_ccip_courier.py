"""Keepers carry a token over CCIP's real contracts: as couriers, and as nodes compose them."""

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio

from keeper.errors import ConfigError
from keeper.execute.intent import Intent
from keeper.hashing import keccak
from keeper.node.courier import Couriers
from keeper.reasons import Reason
from keeper.route.bridges.ccip import send as ccip_send
from keeper.route.bridges.ccip_committee import CCIP_FRAME
from keeper.route.bridges.message import ccip_extra_args
from keeper.route.bridges.multisig import FRAME
from keeper.route.bridges.port import Send, Stage, Transfer
from keeper.units import ChainId
from p2p.port import Topic
from p2p.verdicts import ACCEPT, Ignore
from tests.support.anvil import anvil_binary
from tests.support.bridge_couriers import running
from tests.support.bridge_node import composed
from tests.support.ccip_contracts import (
    AWAY,
    DECIMALS,
    HOME,
    KEYS,
    Pooled,
    pooled,
    section,
)
from tests.support.hyperlane_contracts import Site

pytestmark = [pytest.mark.anvil, pytest.mark.npm]
__all__ = ["anvil_binary"]
ALICE = 5
ONE = 10**DECIMALS


async def mint(world: Pooled, amount: int) -> str:
    home = world.ends[HOME]
    alice = home.site.shop.people[ALICE]
    await home.parts["token"].tx("mint", amount, sender=alice)
    return alice


async def send(world: Pooled, place: int, amount: int) -> Transfer:
    """Move what Alice has to herself on the other chain."""
    crossing = world.route.crossings()[place]
    site = world.ends[crossing.origin].site
    alice = site.shop.people[ALICE]
    raw = bytes.fromhex(alice[2:])
    order = world.route.sends(crossing, amount, raw, raw, await world.terms(place))
    receipts = await site.run(order, alice)
    (transfer,) = world.route.sent(crossing, receipts[-1].logs)
    return transfer


async def stage(world: Pooled, transfer: Transfer) -> Stage:
    return world.route.stage(transfer, await world.answers(world.route.arrival_reads(transfer)))


async def arrival(world: Pooled, transfer: Transfer) -> None:
    with trio.fail_after(30):
        while await stage(world, transfer) is not Stage.ARRIVED:
            await trio.lowlevel.checkpoint()


def sites_of(world: Pooled) -> dict[ChainId, Site]:
    return {chain: end.site for chain, end in world.ends.items()}


def couriers(
    world: Pooled, silent: frozenset[int] = frozenset()
) -> AbstractAsyncContextManager[list[bytes]]:
    """Four keepers that hear each other, less the silent ones. Yields all that was said."""
    return running(world.route, KEYS, sites_of(world), silent)


async def test_keepers_carry_a_token_out_and_back(anvil_binary: Path) -> None:
    async with pooled(anvil_binary) as world, couriers(world, frozenset({1})):
        alice = await mint(world, 900 * ONE)
        await arrival(world, await send(world, 0, 700 * ONE))
        assert await world.balance(AWAY, alice) == 700 * ONE
        await arrival(world, await send(world, 1, 200 * ONE))
        assert await world.balance(AWAY, alice) == 500 * ONE
        assert await world.balance(HOME, alice) == 400 * ONE


async def test_below_the_threshold_nothing_arrives_and_strangers_messages_are_not_signed(
    anvil_binary: Path,
) -> None:
    async with pooled(anvil_binary) as world:
        alice = await mint(world, 100 * ONE)
        home = world.ends[HOME]
        transfer = await send(world, 0, 60 * ONE)
        # the same route with data in it: its receiver is called, and may refuse
        crossing, raw = world.route.crossings()[0], bytes.fromhex(alice[2:])
        terms = await world.terms(0)
        allow, plain = world.route.sends(crossing, 40 * ONE, raw, raw, terms)
        called = _with_data(world, raw, 40 * ONE, plain.value * 3)
        await home.site.run([allow, called], alice)
        async with couriers(world, frozenset({0, 3})) as said:
            with trio.fail_after(30):
                while len({frame[40:] for frame in said}) < 2:
                    await trio.lowlevel.checkpoint()
            assert {frame[8:40] for frame in said} == {transfer.id}
            assert await stage(world, transfer) is Stage.SENT
        async with couriers(world, frozenset({0})):  # one more keeper comes
            await arrival(world, transfer)
        assert await world.balance(AWAY, alice) == 60 * ONE


def _with_data(world: Pooled, recipient: bytes, amount: int, value: int) -> Send:
    here, there = world.route.ends
    message = (
        recipient.rjust(32, b"\0"), b"hello", [(here.token, amount)], bytes(20),
        ccip_extra_args(100_000, True),
    )  # fmt: skip
    return ccip_send(here.chain, here.router, there.selector, message, value)


async def test_a_transfer_above_the_rate_limit_there_arrives_when_it_is_let_in(
    anvil_binary: Path,
) -> None:
    async with pooled(anvil_binary) as world:
        alice = await mint(world, 100 * ONE)
        transfer = await send(world, 0, 60 * ONE)
        await world.limit(AWAY, into=(True, 59 * ONE, 0))
        async with couriers(world):
            with trio.fail_after(30):
                while not await _failed(world, transfer):
                    await trio.lowlevel.checkpoint()
            assert await world.balance(AWAY, alice) == 0
            await world.limit(AWAY)
            await arrival(world, transfer)
        assert await world.balance(AWAY, alice) == 60 * ONE


async def _failed(world: Pooled, transfer: Transfer) -> bool:
    (reply,) = await world.answers(world.route.arrival_reads(transfer))
    return int.from_bytes(reply, "big") == 3


class Purse:
    """An executor that sends at once."""

    def __init__(self, world: Pooled, me: int) -> None:
        self._world, self._me = world, me
        self.paid: list[Intent] = []

    async def submit(self, intent: Intent, *, settled: bool) -> SimpleNamespace:
        assert not settled
        self.paid.append(intent)
        site = self._world.ends[intent.chain].site
        one = Send(intent.chain, intent.to, intent.data, intent.value)
        done = await site.attempt(one, site.shop.people[self._me])
        return SimpleNamespace(succeeded=done.succeeded)


class Gossip:
    """Publishes to everybody but oneself."""

    def __init__(self, me: int, nodes: dict[int, Couriers]) -> None:
        self._me, self._nodes = me, nodes

    def publish(self, topic: Topic, frame: bytes) -> None:
        assert topic is Topic.MESSAGES
        for place, node in self._nodes.items():
            if place != self._me:
                assert node.take(b"peer", frame) in (ACCEPT, Ignore(Reason.DUPLICATE))


def node_of(world: Pooled, key: bytes, executor: object, network: object) -> Couriers:
    sections = {"usdc": section(world.route)}
    return composed(sites_of(world), sections, executor, network, key)


async def test_nodes_deliver_a_transfer_once(anvil_binary: Path) -> None:
    async with pooled(anvil_binary) as world:
        alice = await mint(world, 100 * ONE)
        nodes: dict[int, Couriers] = {}
        purses = [Purse(world, me) for me in range(len(KEYS))]
        for me, key in enumerate(KEYS):
            nodes[me] = node_of(world, key, purses[me], Gossip(me, nodes))
        transfer = await send(world, 0, 60 * ONE)
        async with trio.open_nursery() as nursery:
            for node in nodes.values():
                nursery.start_soon(node.run)
            await arrival(world, transfer)
            nursery.cancel_scope.cancel()
        assert await world.balance(AWAY, alice) == 60 * ONE
        (paid,) = [intent for purse in purses for intent in purse.paid]
        assert (paid.chain, paid.to) == (AWAY, world.route.ends[1].off_ramp)


async def test_a_node_takes_frames_of_either_kind_and_refuses_a_chain_it_does_not_have(
    anvil_binary: Path,
) -> None:
    async with pooled(anvil_binary) as world:
        stranger = node_of(world, keccak(b"stranger"), None, None)
        assert stranger.take(b"peer", bytes(CCIP_FRAME)) == ACCEPT, "another operator's business"
        with trio.fail_after(5):
            await stranger.run()
        node = node_of(world, KEYS[0], None, None)
        odd = world.route.ends[0].selector.to_bytes(8, "big") + bytes(CCIP_FRAME - 8)
        assert node.take(b"peer", odd) == Ignore(Reason.BAD_SIGNATURE)
        assert node.take(b"peer", bytes(FRAME)) == ACCEPT
        crippled = replace(world, ends={HOME: world.ends[HOME]})
        with pytest.raises(ConfigError, match=f"names chain {AWAY}, which the network"):
            node_of(crippled, KEYS[0], None, None)
