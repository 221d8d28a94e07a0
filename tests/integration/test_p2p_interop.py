"""A js-libp2p node follows and gossips with us: ping, bids both ways, a certificate."""

from collections.abc import Iterator

import pytest
import trio

from keeper.hashing import keccak
from p2p.agreement.certificate import certificate_of, verify_certificate
from p2p.agreement.signing import Ecdsa, EcdsaSigner, vote_hash
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_text
from p2p.port import Topic
from p2p.types import Certificate, Committee, Kind, Member, Vote
from p2p.wire import decode, encode
from tests.support.p2p_contract import id_of, ids, seed_of, take
from tests.support.p2p_js import JsNode, missing
from tests.support.p2p_ports import free_ports

pytestmark = [pytest.mark.libp2p, pytest.mark.npm]
JS = 7


@pytest.fixture
def js() -> Iterator[JsNode]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    node = JsNode(seed_of(JS), free_ports(1)[0], Topic.BIDS, Topic.CERTIFICATES)
    yield node
    node.stop()


def certificate() -> tuple[Committee, Certificate]:
    signers = [EcdsaSigner(seed_of(index)) for index in range(4)]
    members = tuple(Member(s.address, id_of(i)) for i, s in enumerate(signers))
    committee = Committee(keccak(b"interop"), 1, members, keccak(b"parameters"))
    digest = keccak(b"block")
    hashed = vote_hash(committee, Kind.FINALIZE, 5, digest)
    votes = [Vote(1, Kind.FINALIZE, 5, digest, i, signers[i].sign(hashed)) for i in range(3)]
    return committee, certificate_of(votes)


async def test_js_pings_gossips_and_follows(js: JsNode) -> None:
    thread = trio.to_thread.run_sync
    address = f"/ip4/127.0.0.1/tcp/{free_ports(1)[0]}"
    network = Libp2pNetwork(seed_of(0), address)
    network.allow(ids(0, 1), ids(JS))
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        with trio.fail_after(60):
            assert (await thread(js.until, "ready"))["ready"] == peer_id_text(id_of(JS))
            target = f"{address}/p2p/{peer_id_text(id_of(0))}"
            js.tell(dial=target)
            await thread(js.until, "dialled")
            js.tell(ping=target)
            assert (await thread(js.until, "ping"))["ping"] >= 0
            await meshed(js)
            await follow(js, network)
            js.tell(publish=b"a bid".hex(), topic=Topic.BIDS)
            (item,) = await take(network, 1, within=20)
        assert (item.peer, item.road, item.frame) == (id_of(JS), Topic.BIDS, b"a bid")
        nursery.cancel_scope.cancel()


async def meshed(js: JsNode) -> None:
    while True:
        js.tell(peers=True)
        state = await trio.to_thread.run_sync(js.until, "peers")
        if state["peers"] and state["mesh"]:
            return
        await trio.sleep(0.1)


async def follow(js: JsNode, network: Libp2pNetwork) -> None:
    committee, final = certificate()
    frame, heard = encode(final), None
    async with trio.open_nursery() as nursery:

        async def publish() -> None:
            while True:  # our side grafts at its heartbeat
                network.publish(Topic.CERTIFICATES, frame)
                await trio.sleep(0.2)

        nursery.start_soon(publish)
        heard = await trio.to_thread.run_sync(js.until, "message")
        nursery.cancel_scope.cancel()
    assert (heard["topic"], heard["from"]) == (Topic.CERTIFICATES, peer_id_text(id_of(0)))
    message = decode(bytes.fromhex(heard["message"]))
    assert isinstance(message, Certificate)
    assert verify_certificate(committee, Ecdsa(), message)
