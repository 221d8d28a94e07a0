"""Commit to award in ticks, and transactions per task, with seven bidding keepers.

    simulated   every message arrives: the rule alone, one award a view
    loopback    seven agreement services on real libp2p hosts in this process: bids by gossip,
                observations, freeze, reveal, award in the agreed payload

The chains are a model with the contracts' windows, so only the path from bid to award is real.
Prices fall a little every tick, and one account after the other must be liquidated.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import trio

from keeper.compete.bidder import Bidder, Reserve, Wish
from keeper.compete.hearing import COMMIT, REVEAL, Hearing
from keeper.compete.state import decode
from keeper.hashing import keccak
from keeper.observe import observation
from keeper.snapshot.application import SnapshotApplication
from keeper.snapshot.derive import Snapshot
from keeper.store import Store
from p2p.agreement.core import Agreement
from p2p.agreement.effects import Effect, Finalized, Timing
from p2p.agreement.log import Opened, StoreLog
from p2p.agreement.signing import EcdsaSigner, sign_observation
from p2p.host import Libp2pNetwork
from p2p.identity import peer_id_of, peer_id_text
from p2p.port import Topic
from p2p.service import AgreementService, verdict_of
from p2p.types import Committee, Member
from p2p.verdicts import ACCEPT, Verdict
from scripts.benches._figure import at_most, figure
from tests.support.clearing_world import (
    E8,
    ETH,
    NETWORK_ID,
    UNIT,
    USD,
    A,
    B,
    Refused,
    World,
    fields,
    trader,
)
from tests.support.p2p_ports import free_ports

KEEPERS = 7
ACCOUNTS = 16
TICK_S = 2.0
"""Seven members in one process share one core with everything else; figures are in ticks."""
LINK_S = 60.0
"""Seven hosts link up in seconds on a machine that is not busy."""
PLENTY = Reserve(10**24, 10**15)


def percentile(values: list[int], share: float) -> int:
    """Return the value below which a share of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def falling_world() -> World:
    """Return a world whose accounts become liquidatable one after the other as ETH falls."""
    world = World(members=KEEPERS)
    for number in range(ACCOUNTS):
        account = trader(number)
        world.deposit(account, A, (200 + 8 * number) * USD)
        world.request_credit(account, 101 * USD)
    for decision in world.view().decisions:
        world.bring(decision)
    for number in range(ACCOUNTS):
        world.increase(trader(number), UNIT)
    world.view()
    world.prices[ETH] = 1_921 * E8
    return world


def simulated() -> None:
    """Run rounds in which every message arrives in time."""
    world = falling_world()
    keepers = [bytes([50 + i]) * 20 for i in range(KEEPERS)]
    for keeper in keepers:
        world.bond(keeper)
    spans: list[int] = []
    began: dict[bytes, int] = {}
    cpu: list[float] = []
    for _ in range(80):
        world.prices[ETH] -= 4 * E8
        state = world.competition
        vectors = []
        if state.collecting and state.tasks:
            bids = {task.target.subject: task.reserve for task in state.tasks}
            for task in state.tasks:
                began.setdefault(task.id, world.snapshot.header.tick)
            vectors = [world.commit(keeper, bids, salt=i) for i, keeper in enumerate(keepers)]
        at = time.process_time()
        snapshot = world.view()
        cpu.append((time.process_time() - at) * 1000)
        for vector in vectors:
            world.reveal(vector)
        spans += [
            snapshot.header.tick - began[decision.key]
            for decision in snapshot.decisions
            if decision.kind == "Award"
        ]
    figure("auction.simulated.n7.awards", len(spans), "awards", f"= {ACCOUNTS}")
    at_most("auction.simulated.n7.commit_to_award_p95", percentile(spans, 0.95), "ticks", 2)
    figure("auction.simulated.n7.derive_cpu", statistics.median(cpu), "ms per view")


class Loopback:
    """Seven members in one process over real libp2p, and the model chains they all watch."""

    def __init__(self) -> None:
        self.world = falling_world()
        self.signers = [EcdsaSigner(keccak(b"auction %d" % i)) for i in range(KEEPERS)]
        for signer in self.signers:
            self.world.bond(signer.address)
        for chain in self.world.chains.values():
            chain.mine()
        self.began: dict[bytes, tuple[int, int]] = {}
        self.spans: list[int] = []
        self.views: list[int] = []
        self.finals = 0
        self.awarded: set[bytes] = set()
        self.transactions = 0
        self.executed = 0

    def note(self, snapshot: Snapshot) -> None:
        """Measure the awards of a final view, once."""
        self.finals += 1
        for decision in snapshot.decisions:
            if decision.kind != "Award" or decision.key in self.awarded:
                continue
            self.awarded.add(decision.key)
            view, tick = self.began[decision.key]
            self.spans.append(snapshot.header.tick - tick)
            self.views.append(snapshot.header.view - view)
            self.world.sealed.append(decision)

    def execute(self) -> None:
        """Let every winner execute in its window: the only one that sends a transaction."""
        for decision in self.world.sealed:
            if decision.kind != "Award" or decision.leaf in self.world.chains[B].used:
                continue
            if self.world.chains[B].number >= fields(decision)[7]:
                self.transactions += 1
                try:
                    self.world.execute(decision, fields(decision)[6][0])
                except Refused:
                    continue
                self.executed += 1


async def member(
    index: int,
    bench: Loopback,
    network: Libp2pNetwork,
    committee: Committee,
    folder: Path,
    timing: Timing,
) -> None:
    """Run one keeper: agreement, hearing, bidder."""
    signer, world = bench.signers[index], bench.world
    members = tuple(one.address for one in committee.members)
    setting = replace(world.setting, config=committee.config, members=members)
    application = SnapshotApplication(setting, world)
    hearing = Hearing(NETWORK_ID, 1, committee.config, lambda keeper: int(keeper in members))
    bidder = Bidder(NETWORK_ID, 1, committee.config, signer.address, world.parameters)
    log = StoreLog(Store(folder / f"{index}.db"))
    log.write((Opened(committee.config),))
    core = Agreement(committee, index, signer, application, log, timing)

    def say(kind: bytes, body: bytes) -> None:
        hearing.take(kind + body)
        if kind == REVEAL:
            application.offer(body)
        network.publish(Topic.BIDS, kind + body)

    def take(peer: bytes, frame: bytes) -> Verdict:
        reason = hearing.take(frame)
        if reason is not None:
            return verdict_of(reason)
        if frame[:1] == REVEAL:
            application.offer(frame[1:])
        return ACCEPT

    def tell(effect: Effect) -> None:
        if not isinstance(effect, Finalized):
            return
        snapshot = application.states.get(effect.digest)
        if snapshot is None:
            return
        if index == 0:
            bench.note(snapshot)
        view, state = snapshot.header.view, decode(snapshot.book.rules["award"])
        hearing.advance(view, state)
        for body in bidder.follow(view, state)[0]:
            say(REVEAL, body)
        wishes = [
            Wish(task.target.subject, task.reserve + index, task.value, profit=1)
            for task in state.tasks
        ]
        if state.collecting and wishes:
            salt = keccak(b"salt" + bytes([index]) + view.to_bytes(8, "big"))
            commit = bidder.commit(state.collecting, wishes, PLENTY, salt, signer.sign)
            if commit is not None:
                for task in state.tasks:
                    bench.began.setdefault(task.id, (view, snapshot.header.tick))
                say(COMMIT, commit.encode())

    service = AgreementService(
        core,
        network,
        log,
        tell,
        lambda signed: application.check_observation(signed) is None,
        {Topic.BIDS: take},
    )

    async def observe() -> None:
        tick = timing.tick_at(time.time()) + 1
        while True:
            await trio.sleep(max(0.0, timing.start_of(tick) - time.time()))
            commitments, reveals = hearing.seen()
            body = replace(
                world.observed(tick)[index].body, commitments=commitments, reveals=reveals
            )
            raw = observation.encode(body)
            await service.observe(sign_observation(committee, signer, tick, body.roots(), raw))
            tick += 1

    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        nursery.start_soon(observe)


def linked(network: Libp2pNetwork) -> bool:
    """Return whether a host is linked to all others."""
    return sum(row.connected for row in network.peers()) >= KEEPERS - 1


async def loopback(seconds: float) -> None:
    """Run the whole path over real gossip and agreement."""
    bench = Loopback()
    seeds = [keccak(b"auction host %d" % i) for i in range(KEEPERS)]
    peers = [peer_id_of(seed) for seed in seeds]
    places = [f"/ip4/127.0.0.1/tcp/{port}" for port in free_ports(KEEPERS)]
    known = tuple(f"{p}/p2p/{peer_id_text(i)}" for p, i in zip(places, peers, strict=True))
    networks = [
        Libp2pNetwork(seed, place, known) for seed, place in zip(seeds, places, strict=True)
    ]
    rows = zip(bench.signers, peers, strict=True)
    members = tuple(Member(signer.address, peer) for signer, peer in rows)
    committee = Committee(NETWORK_ID, 1, members, keccak(b"parameters"))

    async def world_moves(timing: Timing) -> None:
        await trio.sleep(max(0.0, timing.start_of(4) - time.time()))
        while True:
            await trio.sleep(TICK_S)
            bench.world.prices[ETH] -= 4 * E8
            bench.execute()
            for chain in bench.world.chains.values():
                chain.mine()

    with tempfile.TemporaryDirectory() as folder, trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            for network in networks:
                network.allow(frozenset(peers), frozenset())
                await nursery.start(network.run)
            with trio.move_on_after(LINK_S):
                while not all(linked(network) for network in networks):  # noqa: ASYNC110 the port has no event
                    await trio.sleep(0.2)
            timing = Timing(time.time() + 5.0, tick_s=TICK_S, bound_s=0.6, grace_s=0.2, skip_s=8.0)
            scope.deadline = trio.current_time() + seconds + 5.0
            for index, network in enumerate(networks):
                nursery.start_soon(member, index, bench, network, committee, Path(folder), timing)
            nursery.start_soon(world_moves, timing)
    figure("auction.loopback_libp2p.n7.awards", len(bench.spans), f"awards in {seconds:g} s")
    figure("auction.loopback_libp2p.n7.finals", bench.finals, f"views in {seconds:g} s")
    if bench.spans:
        views = percentile(bench.views, 0.95)
        figure("auction.loopback_libp2p.n7.commit_to_award_views_p95", views, "views")
        p95 = percentile(bench.spans, 0.95)
        figure(
            "auction.loopback_libp2p.n7.commit_to_award_p50",
            statistics.median(bench.spans),
            "ticks",
        )
        at_most("auction.loopback_libp2p.n7.commit_to_award_p95", p95, "ticks", 2)
    if bench.executed:
        at_most("auction.transactions_per_task", bench.transactions / bench.executed, "", 1)


def main() -> None:
    """Print every figure."""
    simulated()
    trio.run(loopback, 40.0)


if __name__ == "__main__":
    main()
