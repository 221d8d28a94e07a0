"""What every implementation of `p2p.port.Network` must do; run on virtual and on real time.

A scenario gets a `Cluster` that starts and stops nodes by index. Waiting is polling with an
absolute deadline, so the same text serves both clocks.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest
import trio

from keeper.errors import LocalError, RemoteFault
from keeper.reasons import Reason
from p2p.gate import Gate
from p2p.identity import peer_id_of
from p2p.port import Inbound, Limits, Network, Road, Role, Topic
from p2p.verdicts import Reject, Standing

POLL_S = 0.01
PATIENCE_S = 20.0
"""How long a crowded machine may take for what takes milliseconds; only a failure waits for it."""
PROBE = b"does gossip reach you?"


def seed_of(index: int) -> bytes:
    """Return the identity seed of a test node."""
    return bytes([index + 1]) * 32


def id_of(index: int) -> bytes:
    """Return the peer id of a test node."""
    return peer_id_of(seed_of(index))


def ids(*indices: int) -> frozenset[bytes]:
    """Return the peer ids of some test nodes."""
    return frozenset(id_of(index) for index in indices)


async def eventually(fact: Callable[[], Any], within: float = PATIENCE_S) -> None:
    """Return once `fact()` holds.

    Raises:
        AssertionError: it did not in time.
    """
    with trio.move_on_after(within):
        while not fact():  # noqa: ASYNC110  # facts about a network raise no event
            await trio.sleep(POLL_S)
        return
    raise AssertionError(f"not within {within} s: {fact}")


class Node(Network, Protocol):
    """A network with its gate in the open."""

    gate: Gate
    limits: Limits


@dataclass
class Cluster:
    """Nodes of one implementation."""

    make: Callable[[int, Limits], Node]
    nursery: trio.Nursery
    linked: Callable[[Node, bytes], bool]
    scopes: dict[int, trio.CancelScope] = field(default_factory=dict)
    nodes: dict[int, Node] = field(default_factory=dict)

    async def start(
        self, index: int, committee: frozenset[bytes], bonded: frozenset[bytes], limits: Limits
    ) -> Node:
        """Start one node."""
        node, scope = self.make(index, limits), trio.CancelScope()
        node.allow(committee, bonded)

        async def run(*, task_status: Any) -> None:
            with scope:
                await node.run(task_status=task_status)

        with trio.fail_after(PATIENCE_S):
            await self.nursery.start(run)
        self.scopes[index], self.nodes[index] = scope, node
        return node

    async def committee(self, size: int, limits: Limits | None = None) -> list[Node]:
        """Start a committee and wait until everybody is linked with everybody."""
        everybody = ids(*range(size))
        nodes = [
            await self.start(index, everybody, frozenset(), limits or Limits())
            for index in range(size)
        ]
        await self.meshed(*range(size))
        return nodes

    async def meshed(self, *indices: int, within: float = PATIENCE_S) -> None:
        """Wait until these nodes are linked with each other."""
        pairs = [(i, j) for i in indices for j in indices if i != j]
        await eventually(
            lambda: all(self.linked(self.nodes[i], id_of(j)) for i, j in pairs), within
        )

    def stop(self, index: int) -> None:
        """Stop one node."""
        self.scopes.pop(index).cancel()
        del self.nodes[index]


async def take(node: Node, count: int, within: float = PATIENCE_S) -> list[Inbound]:
    """Return the next frames of a node's inbox."""
    items: list[Inbound] = []
    with trio.move_on_after(within):
        while len(items) < count:
            item = await node.inbox.receive()
            if item.frame != PROBE:
                items.append(item)
        return items
    raise AssertionError(f"{len(items)} of {count} frames within {within} s")


def empty(node: Node) -> bool:
    """Return whether nothing waits."""
    while (item := node.inbox.receive_nowait()) is not None:
        if item.frame != PROBE:
            return False
    return True


async def gossiping(source: Network, *sinks: Network) -> None:
    """Return once what one node publishes reaches others: meshes form at a heartbeat."""
    waiting = list(sinks)
    with trio.fail_after(PATIENCE_S):
        while waiting:
            source.publish(Topic.SEALS, PROBE)
            await trio.sleep(0.1)
            waiting = [sink for sink in waiting if sink.inbox.receive_nowait() is None]


async def broadcast_reaches_every_other_member_once(cluster: Cluster) -> None:
    nodes = await cluster.committee(4)
    nodes[0].broadcast(b"to all")
    for node in nodes[1:]:
        (item,) = await take(node, 1)
        assert (item.peer, item.road, item.frame) == (id_of(0), Road.CONSENSUS, b"to all")
    await trio.sleep(0.2)
    assert all(empty(node) for node in nodes)


async def send_reaches_one_in_order(cluster: Cluster) -> None:
    nodes = await cluster.committee(3)
    for number in range(20):
        nodes[0].send(id_of(1), bytes([number]))
    items = await take(nodes[1], 20)
    assert sorted(item.frame for item in items) == [bytes([n]) for n in range(20)]
    nodes[0].send(id_of(0), b"to myself")
    nodes[0].send(id_of(7), b"to nobody")
    await trio.sleep(0.2)
    assert empty(nodes[0])
    assert empty(nodes[2])


async def publish_reaches_everybody_once_but_not_us(cluster: Cluster) -> None:
    nodes = await cluster.committee(4)
    await gossiping(nodes[2], nodes[0], nodes[1], nodes[3])
    for number in range(30):
        nodes[2].publish(Topic.BIDS, bytes([number]))
    for index in (0, 1, 3):
        items = await take(nodes[index], 30)
        assert {item.peer for item in items} == {id_of(2)}
        assert {item.road for item in items} == {Topic.BIDS}
        assert sorted(item.frame for item in items) == [bytes([n]) for n in range(30)]
    await trio.sleep(0.3)
    assert all(empty(node) for node in nodes)


async def request_is_answered_or_refused(cluster: Cluster) -> None:
    nodes = await cluster.committee(2)
    with pytest.raises(RemoteFault) as refused, trio.fail_after(PATIENCE_S):
        await nodes[0].request(id_of(1), Road.SYNC, b"nobody serves this")
    assert refused.value.reason is Reason.REFUSED

    async def later(peer: bytes, frame: bytes) -> bytes:
        await trio.sleep(0.01)
        return peer + frame

    nodes[1].serve(Road.SYNC, later)
    nodes[1].serve(Road.NEED, lambda _peer, frame: frame * 1000)
    with trio.fail_after(PATIENCE_S):
        assert await nodes[0].request(id_of(1), Road.SYNC, b"?") == id_of(0) + b"?"
        assert len(await nodes[0].request(id_of(1), Road.NEED, b"x" * 1000)) == 1_000_000


async def request_to_nobody_is_unreachable(cluster: Cluster) -> None:
    nodes = await cluster.committee(2)
    with pytest.raises(RemoteFault) as gone, trio.fail_after(PATIENCE_S):
        await nodes[0].request(id_of(5), Road.SYNC, b"")
    assert gone.value.reason is Reason.UNREACHABLE


async def request_of_too_many_bytes_costs_the_asker(cluster: Cluster) -> None:
    nodes = await cluster.committee(2)
    nodes[1].serve(Road.SYNC, lambda _peer, frame: frame)
    with pytest.raises(RemoteFault), trio.fail_after(PATIENCE_S):
        await nodes[0].request(id_of(1), Road.SYNC, bytes(65 * 1024))
    await eventually(lambda: Reason.OVERSIZE in dict(nodes[1].gate.scores.drops(id_of(0))))


async def requests_are_limited_in_rate(cluster: Cluster) -> None:
    nodes = await cluster.committee(2)
    nodes[1].serve(Road.SYNC, lambda _peer, frame: frame)
    refused: list[Reason] = []
    with trio.fail_after(20):
        for _ in range(100):
            try:
                await nodes[0].request(id_of(1), Road.SYNC, b"")
            except RemoteFault as fault:
                refused.append(fault.reason)
                break
    assert refused in ([], [Reason.REFUSED])
    # a busy machine may be slower than the limit, and then there is nothing to refuse
    asked_fast = Reason.RATE_LIMITED in dict(nodes[1].gate.scores.drops(id_of(0)))
    assert bool(refused) == asked_fast


async def a_fault_in_a_handler_is_the_askers(cluster: Cluster) -> None:
    nodes = await cluster.committee(2)

    def handler(peer: bytes, _frame: bytes) -> bytes:
        raise RemoteFault(peer.hex(), Reason.MALFORMED)

    nodes[1].serve(Road.SYNC, handler)
    with pytest.raises(RemoteFault), trio.fail_after(PATIENCE_S):
        await nodes[0].request(id_of(1), Road.SYNC, b"?")
    await eventually(lambda: nodes[1].gate.scores.drops(id_of(0)) == ((Reason.MALFORMED, 1),))


async def who_is_bonded_may_gossip_but_not_vote(cluster: Cluster) -> None:
    committee, bonded = ids(0, 1), ids(2)
    for index in (0, 1):
        await cluster.start(index, committee, bonded, Limits())
    await cluster.meshed(0, 1)
    await cluster.start(2, committee, bonded, Limits())
    await eventually(lambda: cluster.linked(cluster.nodes[2], id_of(0)))
    await gossiping(cluster.nodes[2], cluster.nodes[0])
    cluster.nodes[2].publish(Topic.BIDS, b"bid")
    (item,) = await take(cluster.nodes[0], 1)
    assert (item.peer, item.frame) == (id_of(2), b"bid")
    cluster.nodes[2].send(id_of(0), b"vote")
    gate = cluster.nodes[0].gate
    await eventually(lambda: dict(gate.scores.drops(id_of(2))).get(Reason.NOT_A_MEMBER))
    assert empty(cluster.nodes[0])


async def a_stranger_may_follow_but_not_speak(cluster: Cluster) -> None:
    nodes = await cluster.committee(2)
    stranger = await cluster.start(5, ids(0, 1), frozenset(), Limits())
    await eventually(lambda: cluster.linked(stranger, id_of(0)))
    await eventually(lambda: cluster.linked(stranger, id_of(1)))
    nodes[0].serve(Road.SYNC, lambda _peer, _frame: b"history")
    with trio.fail_after(PATIENCE_S):
        assert await stranger.request(id_of(0), Road.SYNC, b"") == b"history"
    await gossiping(nodes[1], stranger)
    nodes[1].publish(Topic.CERTIFICATES, b"final")
    (item,) = await take(stranger, 1)
    assert (item.peer, item.frame) == (id_of(1), b"final")
    stranger.publish(Topic.CERTIFICATES, b"forged")
    gate = nodes[0].gate
    await eventually(lambda: dict(gate.scores.drops(id_of(5))).get(Reason.NOT_A_MEMBER))
    assert gate.role(id_of(5)) is Role.FOLLOWER


async def who_loses_its_place_is_cut_off_at_once(cluster: Cluster) -> None:
    limits = Limits(followers=0)
    nodes = await cluster.committee(3, limits)
    nodes[0].allow(ids(0, 1), frozenset())
    nodes[1].allow(ids(0, 1), frozenset())
    await eventually(lambda: not cluster.linked(nodes[2], id_of(0)))
    nodes[2].broadcast(b"still here?")
    nodes[0].broadcast(b"for members")
    (item,) = await take(nodes[1], 1)
    assert item.frame == b"for members"
    await trio.sleep(0.3)
    assert empty(nodes[0])
    assert empty(nodes[2])


async def who_has_not_heard_yet_is_not_punished(cluster: Cluster) -> None:
    nodes = await cluster.committee(3)
    nodes[0].allow(ids(0, 1), frozenset())
    gate, peer = nodes[0].gate, id_of(2)
    with trio.fail_after(PATIENCE_S):
        while dict(gate.scores.drops(peer)).get(Reason.NOT_A_MEMBER, 0) < 6:
            nodes[2].publish(Topic.OBSERVATIONS, b"of a member that was")
            nodes[2].broadcast(b"a vote of a member that was")
            await trio.sleep(0.05)
    assert gate.scores.standing(peer, gate.clock()) is Standing.GOOD
    assert empty(nodes[0])


async def frames_over_the_limit_never_leave(cluster: Cluster) -> None:
    nodes = await cluster.committee(2)
    with pytest.raises(LocalError, match="over the limit"):
        nodes[0].send(id_of(1), bytes(Limits().frame_bytes + 1))
    with pytest.raises(LocalError, match="over the limit"):
        nodes[0].publish(Topic.BIDS, bytes(64 * 1024 + 1))
    nodes[0].send(id_of(1), bytes(Limits().frame_bytes))
    (item,) = await take(nodes[1], 1)
    assert len(item.frame) == Limits().frame_bytes


async def an_oversize_frame_costs_its_sender(cluster: Cluster) -> None:
    everybody = ids(0, 1)
    await cluster.start(0, everybody, frozenset(), Limits(frame_bytes=1 << 20))
    await cluster.start(1, everybody, frozenset(), Limits())
    await cluster.meshed(0, 1)
    cluster.nodes[0].send(id_of(1), bytes(Limits().frame_bytes + 1))
    gate = cluster.nodes[1].gate
    await eventually(lambda: dict(gate.scores.drops(id_of(0))).get(Reason.OVERSIZE))


async def a_flood_is_cut_off_and_others_are_heard(cluster: Cluster) -> None:
    limits = Limits(frames_per_s=50, frames_burst=50, queue_frames=4096)
    nodes = await cluster.committee(3, limits)
    for _ in range(2000):
        nodes[0].send(id_of(2), b"flood")
    gate = nodes[2].gate
    await eventually(lambda: gate.scores.standing(id_of(0), gate.clock()) is Standing.REFUSED)
    nodes[1].send(id_of(2), b"honest")
    items: list[Inbound] = []
    with trio.fail_after(PATIENCE_S):
        while not items or items[-1].peer != id_of(1):
            items.append(await nodes[2].inbox.receive())
    assert len(items) <= limits.frames_burst + 60


async def a_liar_is_disconnected_and_refused(cluster: Cluster) -> None:
    nodes = await cluster.committee(3)
    for _ in range(3):
        nodes[0].report(id_of(1), Reject(Reason.BAD_SIGNATURE))
    await eventually(lambda: not cluster.linked(nodes[1], id_of(0)))
    row = next(row for row in nodes[0].peers() if row.peer == id_of(1))
    assert row.standing is Standing.REFUSED
    assert row.drops[0] == (Reason.BAD_SIGNATURE, 3)
    nodes[2].broadcast(b"go on")
    assert (await take(nodes[0], 1))[0].peer == id_of(2)


async def a_restarted_node_is_back(cluster: Cluster) -> None:
    nodes = await cluster.committee(3)
    cluster.stop(1)
    await eventually(lambda: not cluster.linked(nodes[0], id_of(1)))
    await cluster.start(1, ids(0, 1, 2), frozenset(), Limits())
    await cluster.meshed(0, 1, 2)
    cluster.nodes[1].broadcast(b"back")
    assert (await take(nodes[0], 1))[0].frame == b"back"


async def rows_tell_who_is_there(cluster: Cluster) -> None:
    nodes = await cluster.committee(3)
    rows = nodes[0].peers()
    assert [row.peer for row in rows] == sorted([id_of(1), id_of(2)])
    assert all(row.connected and row.role is Role.COMMITTEE for row in rows)
    nodes[0].late(id_of(1), 0.25)
    assert [r.lateness_s for r in nodes[0].peers() if r.peer == id_of(1)] == [0.25]


Scenario = Callable[[Cluster], Awaitable[None]]
SCENARIOS: tuple[Scenario, ...] = (
    broadcast_reaches_every_other_member_once,
    send_reaches_one_in_order,
    publish_reaches_everybody_once_but_not_us,
    request_is_answered_or_refused,
    request_to_nobody_is_unreachable,
    request_of_too_many_bytes_costs_the_asker,
    requests_are_limited_in_rate,
    a_fault_in_a_handler_is_the_askers,
    who_is_bonded_may_gossip_but_not_vote,
    a_stranger_may_follow_but_not_speak,
    who_loses_its_place_is_cut_off_at_once,
    who_has_not_heard_yet_is_not_punished,
    frames_over_the_limit_never_leave,
    an_oversize_frame_costs_its_sender,
    a_flood_is_cut_off_and_others_are_heard,
    a_liar_is_disconnected_and_refused,
    a_restarted_node_is_back,
    rows_tell_who_is_there,
)
