"""Stock py-libp2p 0.8.1 as the control group: each attack here harms it.

Run as a process (`python -m tests.support.p2p_stock NAME`): prints `survived`, or dies. A guard of
ours is worth having only as long as its line here does not survive.
"""

import sys
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb import rpc_pb2
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr  # type: ignore[import-untyped]  # ships no types

from tests.support.p2p_attacker import MESHSUB, Attacker, prefixed, rpc
from tests.support.p2p_contract import id_of, seed_of
from tests.support.p2p_ports import free_ports

PROTOCOL = TProtocol("/stock/1")
DIES_S = 20.0
"""Who is harmed dies at once, however crowded the machine; only who is not waits."""


@asynccontextmanager
async def stock(services_first: bool = True) -> Any:
    """Yield (host, address) of a stock host with stock gossip."""
    address = f"/ip4/127.0.0.1/tcp/{free_ports(1)[0]}"
    host = new_host(key_pair=create_new_key_pair(seed_of(0)), listen_addrs=[Multiaddr(address)])
    router = GossipSub([TProtocol(MESHSUB)], degree=4, degree_low=3, degree_high=6)
    pubsub = Pubsub(host, router)
    async with host.run([Multiaddr(address)]):
        if not services_first:
            yield host, address, pubsub
            return
        async with background_trio_service(pubsub), background_trio_service(router):
            await pubsub.wait_until_ready()
            await pubsub.subscribe("topic")
            yield host, address, pubsub


@asynccontextmanager
async def attacked(address: str) -> Any:
    """Yield an attacker of the stock host."""
    async with Attacker(seed_of(9), address, id_of(0)).running() as attacker:
        yield attacker


async def garbage_gossip() -> None:
    """Guard 1: one frame that is no protobuf."""
    async with stock() as (_, address, _pubsub), attacked(address) as attacker:
        stream = await attacker.stream(MESHSUB)
        await stream.write(prefixed(b"\xff" * 50))
        await trio.sleep(DIES_S)


async def bad_key_gossip() -> None:
    """Guard 1: a message whose key cannot be read."""
    message = rpc_pb2.Message(
        data=b"x", topicIDs=["topic"], from_id=b"\x12\x20" + bytes(32), seqno=bytes(8),
        signature=bytes(64), key=b"\xff" * 20,
    )  # fmt: skip
    async with stock() as (_, address, _pubsub), attacked(address) as attacker:
        stream = await attacker.stream(MESHSUB)
        await stream.write(rpc(rpc_pb2.RPC(publish=[message])))
        await trio.sleep(DIES_S)


async def handler_raises() -> None:
    """Guard 1: our own stream handler raises."""

    async def handler(_stream: Any) -> None:
        raise ValueError("a bug, or a peer's bytes")

    async with stock() as (host, address, _pubsub), attacked(address) as attacker:
        host.set_stream_handler(PROTOCOL, handler)
        await attacker.stream(PROTOCOL)
        await trio.sleep(DIES_S)


async def gossip_before_service() -> None:
    """Guard 4: a peer opens the gossip protocol before the service runs."""
    async with stock(services_first=False) as (_, address, _pubsub), attacked(address) as attacker:
        with trio.move_on_after(2):
            stream = await attacker.stream(MESHSUB)
            await stream.write(rpc(rpc_pb2.RPC()))
        await trio.sleep(DIES_S)


ATTACKS: dict[str, Callable[[], Awaitable[None]]] = {
    attack.__name__: attack
    for attack in (garbage_gossip, bad_key_gossip, handler_raises, gossip_before_service)
}

if __name__ == "__main__":
    trio.run(ATTACKS[sys.argv[1]])
    sys.stdout.write("survived\n")
