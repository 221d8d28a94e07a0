"""Agreement shell, sync and followers over the simulated network, on virtual time."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from keeper.hashing import keccak
from keeper.reasons import Reason
from p2p.agreement.core import Agreement
from p2p.agreement.effects import Effect, Finalized, Timing
from p2p.agreement.log import MemoryLog, Opened
from p2p.agreement.signing import EcdsaSigner, sign_observation
from p2p.port import Topic
from p2p.service import AgreementService
from p2p.simulated import SimulatedNetwork, Weather, World
from p2p.sync import Follower, HistoryServer
from p2p.types import Certificate, Committee, Kind, Member
from p2p.wire import encode
from tests.support.agreement_cluster import ToyApplication
from tests.support.p2p_contract import id_of, ids, seed_of

SIZE, FOLLOWER, STRANGER = 4, 8, 9
ROOTS = (bytes(32), bytes(32), bytes(32))


def committee() -> Committee:
    members = tuple(
        Member(EcdsaSigner(seed_of(index)).address, id_of(index)) for index in range(SIZE)
    )
    return Committee(keccak(b"cluster"), 1, members, keccak(b"parameters"))


class Cluster:
    """Four keepers and a follower on one world."""

    def __init__(self, nursery: trio.Nursery, world: World) -> None:
        self.nursery, self.world = nursery, world
        self.committee = committee()
        self.finals: dict[int, dict[int, bytes]] = {}
        self.networks: dict[int, SimulatedNetwork] = {}

    def tell(self, index: int) -> Callable[[Effect], None]:
        chain = self.finals.setdefault(index, {})

        def told(effect: Effect) -> None:
            if isinstance(effect, Finalized):
                chain[effect.view] = effect.digest

        return told

    async def network(self, index: int, bonded: frozenset[bytes] = frozenset()) -> Any:
        network = self.networks[index] = SimulatedNetwork(self.world, seed_of(index))
        network.allow(ids(*range(SIZE)), bonded)
        await self.nursery.start(network.run)
        return network

    async def keeper(self, index: int) -> None:
        network = await self.network(index)
        signer, log = EcdsaSigner(seed_of(index)), MemoryLog()
        log.write((Opened(self.committee.config),))
        timing = Timing(genesis=0.0, tick_s=0.5, bound_s=0.15)
        core = Agreement(
            self.committee, index, signer, ToyApplication(self.committee.config), log, timing
        )
        service = AgreementService(
            core, network, log, self.tell(index), lambda _seen: True,
            clock=trio.current_time, in_thread=False,
        )  # fmt: skip
        HistoryServer(log, lambda: 1).attach(network)
        await self.nursery.start(service.run)
        self.nursery.start_soon(self._observe, service, signer, timing)

    async def _observe(
        self, service: AgreementService, signer: EcdsaSigner, timing: Timing
    ) -> None:
        while True:
            tick = timing.tick_at(trio.current_time()) + 1
            await trio.sleep_until(timing.start_of(tick))
            await service.observe(sign_observation(self.committee, signer, tick, ROOTS, b""))

    async def follower(self, index: int = FOLLOWER) -> Follower:
        network = await self.network(index)
        follower = Follower(self.committee, network, MemoryLog(), self.tell(index))
        await self.nursery.start(follower.run)
        return follower

    def check_one_chain(self) -> int:
        merged: dict[int, bytes] = {}
        for chain in self.finals.values():
            for view, digest in chain.items():
                assert merged.setdefault(view, digest) == digest
        return max(merged, default=0)


def run(play: Callable[[Cluster], Any], weather: Weather | None = None, seed: int = 1) -> None:
    async def main() -> None:
        world = World(seed, weather)
        async with trio.open_nursery() as nursery:
            await nursery.start(world.run)
            cluster = Cluster(nursery, world)
            for index in range(SIZE):
                await cluster.keeper(index)
            await play(cluster)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("seed", range(3))
def test_decides_in_bad_weather(seed: int) -> None:
    async def play(cluster: Cluster) -> None:
        await trio.sleep(15)
        cluster.world.set_weather(loss=0.0, duplicate=0.0, reorder=0.0)
        await trio.sleep(10)
        assert cluster.check_one_chain() >= 10
        assert all(max(cluster.finals[i]) >= 10 for i in range(SIZE))

    run(play, Weather(loss=0.15, duplicate=0.1, reorder=0.1), seed)


def test_a_partition_heals_into_one_chain() -> None:
    async def play(cluster: Cluster) -> None:
        await trio.sleep(5)
        cluster.world.partition(ids(0, 1), ids(2, 3))
        await trio.sleep(1)
        before = cluster.check_one_chain()
        await trio.sleep(10)
        assert cluster.check_one_chain() == before, "two of four cannot decide"
        cluster.world.partition()
        await trio.sleep(20)
        assert cluster.check_one_chain() > before + 5

    run(play)


def test_nobody_honest_is_blamed() -> None:
    async def play(cluster: Cluster) -> None:
        await trio.sleep(20)
        for network in cluster.networks.values():
            assert all(row.score < 5 for row in network.peers()), network.peers()

    run(play, Weather(loss=0.1, duplicate=0.2, reorder=0.2))


def test_a_follower_catches_up_and_follows() -> None:
    async def play(cluster: Cluster) -> None:
        await trio.sleep(8)
        follower = await cluster.follower()
        cluster.networks[FOLLOWER].peers()
        for index in range(SIZE):
            cluster.networks[FOLLOWER].admitted(id_of(index))
        await trio.sleep(12)
        top = cluster.check_one_chain()
        assert follower.view >= top - 3
        assert len(cluster.finals[FOLLOWER]) >= top // 2, "from the first block on"

    run(play)


def test_a_follower_refuses_a_forged_certificate() -> None:
    async def play(cluster: Cluster) -> None:
        await trio.sleep(5)
        follower = await cluster.follower()
        liar = cluster.networks[0]
        for count in (2, 3):
            forged = Certificate(
                1, Kind.FINALIZE, 1000, keccak(b"no block"), (1 << count) - 1,
                tuple(EcdsaSigner(seed_of(0)).sign(keccak(b"x")) for _ in range(count)),
            )  # fmt: skip
            liar.publish(Topic.CERTIFICATES, encode(forged))
        await trio.sleep(2)
        gate = cluster.networks[FOLLOWER].gate
        assert dict(gate.scores.drops(id_of(0)))[Reason.BELOW_QUORUM] == 2
        assert follower.view < 1000

    run(play)


def test_a_follower_serves_what_it_holds() -> None:
    async def play(cluster: Cluster) -> None:
        await trio.sleep(6)
        first = await cluster.follower()
        for index in range(SIZE):
            cluster.networks[FOLLOWER].admitted(id_of(index))
        await trio.sleep(6)
        second = await cluster.follower(STRANGER)
        assert await second._fetch(id_of(FOLLOWER))
        assert 0 < second.view <= first.view
        cluster.check_one_chain()

    run(play)
