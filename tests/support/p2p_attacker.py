"""A hostile peer: stock libp2p as a toolbox, without any of our manners.

`Attacker` dials with an identity of its own and hands out raw streams, or the raw secured
connection under the muxer, so a test can say anything at any layer.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as new_x25519_key_pair
from libp2p.custom_types import TProtocol
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr  # type: ignore[import-untyped]  # ships no types

from p2p.gossip import signed_bytes
from p2p.guards import NETWORK_FAULTS
from p2p.identity import peer_id_of, sign
from p2p.links import MESSAGE, PING, PONG, FrameReader, frame
from p2p.port import Road

MESHSUB = "/meshsub/1.2.0"


class Attacker:
    """One hostile identity towards one victim."""

    def __init__(self, seed: bytes, address: str, victim: bytes) -> None:
        self.seed, self.me = seed, peer_id_of(seed)
        self.address, self.victim = address, victim
        self.host: Any = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Attacker"]:
        """Run the toolbox without listening."""
        logging.getLogger("libp2p").setLevel(logging.CRITICAL)  # its failures are the point
        keys = create_new_key_pair(self.seed)
        noise = Noise(keys, noise_privkey=new_x25519_key_pair().private_key)
        self.host = new_host(
            key_pair=keys,
            sec_opt={NOISE: noise},
            muxer_opt={TProtocol(YAMUX): Yamux},
            connection_config=ConnectionConfig(
                min_connections=0, low_watermark=0, max_connections_per_peer=1000
            ),
        )
        # answering identify is all it serves; asking would outlive the attack
        self.host.get_network().retry_config = RetryConfig(max_retries=0)
        self.host._schedule_identify = lambda peer_id, *, reason: None
        self.host.set_stream_handler(TProtocol(Road.CONSENSUS), answer_pings)
        async with self.host.run([]):
            yield self
            with trio.move_on_after(0.5):
                await self.host.close()

    async def connect(self) -> Any:
        """Open one more connection and return it."""
        with trio.fail_after(5):
            return await self.host.get_network().dial_addr(Multiaddr(self.address), ID(self.victim))

    async def stream(self, protocol: str = Road.CONSENSUS) -> Any:
        """Open a stream of a protocol, connecting first if need be."""
        if not self.connections():
            await self.connect()
        with trio.fail_after(5):
            return await self.host.new_stream(ID(self.victim), [TProtocol(protocol)])

    def connections(self) -> list[Any]:
        """Return the connections that still stand."""
        return list(self.host.get_network().get_connections(ID(self.victim)))

    async def cut_off(self, within: float = 5.0) -> bool:
        """Return whether the victim hangs up in time."""
        with trio.move_on_after(within):
            while self.connections():  # noqa: ASYNC110  # no event tells
                await trio.sleep(0.01)
            return True
        return False


async def answer_pings(stream: Any) -> None:
    """Keep a link alive, so the victim has no harmless reason to hang up."""
    reader = FrameReader(1 << 20)
    with suppress(*NETWORK_FAULTS):
        while chunk := await stream.read(65536):
            for kind, body in reader.feed(chunk):
                if kind == PING:
                    await stream.write(frame(PONG, body))


def message(body: bytes) -> bytes:
    """Return a consensus frame."""
    return frame(MESSAGE, body)


def gossip(
    seed: bytes,
    topic: str,
    data: bytes,
    number: int = 1,
    origin: bytes | None = None,
    signature: bytes | None = None,
) -> bytes:
    """Return one published message as a varint-prefixed RPC, signed by `seed` as `origin`."""
    body = rpc_pb2.Message(
        data=data,
        topicIDs=[topic],
        from_id=origin or peer_id_of(seed),
        seqno=number.to_bytes(8, "big"),
    )
    body.signature = signature or sign(seed, signed_bytes(body))
    return rpc(rpc_pb2.RPC(publish=[body]))


def rpc(value: Any) -> bytes:
    """Return a varint-prefixed RPC."""
    return prefixed(bytes(value.SerializeToString()))


def prefixed(raw: bytes) -> bytes:
    """Return bytes behind their length as a varint."""
    size, out = len(raw), bytearray()
    while True:
        out.append(size & 0x7F | (0x80 if size > 0x7F else 0))
        size >>= 7
        if not size:
            return bytes(out) + raw
