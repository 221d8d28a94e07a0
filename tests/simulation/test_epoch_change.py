"""One epoch ends and the next begins: links, starts, late members and lost shares, virtual time."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from keeper.hashing import keccak
from keeper.keys import Keys
from keeper.node.ceremony import (
    KeyCeremony,
    ceremony_frame,
    held_share,
    keep_share,
    record_of,
    recovered,
)
from keeper.node.chase import Chase
from keeper.reasons import Reason
from p2p.agreement.chain import Start
from p2p.agreement.core import Agreement
from p2p.agreement.effects import Effect, Finalized, Timing
from p2p.agreement.log import MemoryLog, Opened
from p2p.agreement.signing import EcdsaSigner, sign_observation
from p2p.frost.keyfile import QUICK
from p2p.port import Road
from p2p.service import AgreementService
from p2p.simulated import SimulatedNetwork, World
from p2p.sync import HistoryServer
from p2p.types import Committee, History, Member
from tests.support.agreement_cluster import ToyApplication
from tests.support.p2p_contract import id_of, ids, seed_of

ROOTS = (bytes(32), bytes(32), bytes(32))
TIMING = Timing(genesis=0.0, tick_s=0.5, bound_s=0.15)
OLD, NEW = range(4), range(5)


def committee(epoch: int, members: range) -> Committee:
    chosen = tuple(Member(EcdsaSigner(seed_of(i)).address, id_of(i)) for i in members)
    return Committee(keccak(b"hall"), epoch, chosen, keccak(b"parameters"))


FIRST, SECOND = committee(1, OLD), committee(2, NEW)


class Hall:
    """Five keepers that may link with each other; each runs one epoch at a time."""

    def __init__(self, nursery: trio.Nursery, world: World) -> None:
        self.nursery, self.world = nursery, world
        self.networks: dict[int, SimulatedNetwork] = {}
        self.logs = {index: MemoryLog() for index in NEW}
        self.finals: dict[tuple[int, int], dict[int, Finalized]] = {}
        self.cores: dict[int, Agreement] = {}
        self.services: dict[int, AgreementService] = {}
        self._scopes: dict[int, trio.CancelScope] = {}

    async def open(self) -> None:
        for index in NEW:
            network = self.networks[index] = SimulatedNetwork(self.world, seed_of(index))
            network.allow(ids(*NEW), frozenset())
            await self.nursery.start(network.run)

    async def work(self, index: int, epoch: Committee, begins: Start = Start()) -> None:  # noqa: B008
        """Let a keeper leave the epoch it is in and work in this one."""
        if index in self._scopes:
            self._scopes[index].cancel()
        log, signer = self.logs[index], EcdsaSigner(seed_of(index))
        log.write((Opened(epoch.config),))
        core = self.cores[index] = Agreement(
            epoch, index, signer, ToyApplication(epoch.config), log, TIMING, begins
        )
        told = self.finals.setdefault((index, epoch.epoch), {})

        def tell(effect: Effect) -> None:
            if isinstance(effect, Finalized):
                told[effect.view] = effect

        service = self.services[index] = AgreementService(
            core,
            self.networks[index],
            log,
            tell,
            lambda _seen: True,
            clock=trio.current_time,
            in_thread=False,
        )
        HistoryServer(log, lambda: epoch.epoch).attach(self.networks[index])

        async def run(task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
            with trio.CancelScope() as self._scopes[index]:
                async with trio.open_nursery() as own:
                    await own.start(service.run)
                    own.start_soon(observe)
                    task_status.started()

        async def observe() -> None:
            while True:
                tick = TIMING.tick_at(trio.current_time()) + 1
                await trio.sleep_until(TIMING.start_of(tick))
                await service.observe(sign_observation(epoch, signer, tick, ROOTS, b""))

        await self.nursery.start(run)

    def drops(self, index: int) -> set[Reason]:
        """Return why this keeper dropped frames of others."""
        return {reason for row in self.networks[index].peers() for reason, _ in row.drops}


def run(play: Callable[[Hall], Awaitable[None]], seed: int = 1) -> None:
    async def main() -> None:
        world = World(seed)
        async with trio.open_nursery() as nursery:
            await nursery.start(world.run)
            hall = Hall(nursery, world)
            await hall.open()
            await play(hall)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def start_after(hall: Hall, index: int = 0) -> Start:
    last = max(hall.finals[index, 1].values(), key=lambda one: one.view)
    return Start(last.view, last.tick)


def test_the_next_epoch_counts_views_on_and_names_its_config_as_parent() -> None:
    async def play(hall: Hall) -> None:
        for index in OLD:
            await hall.work(index, FIRST)
        await trio.sleep(5)
        begins = start_after(hall)
        for index in NEW:
            await hall.work(index, SECOND, begins)
        await trio.sleep(5)
        chains = [hall.finals[index, 2] for index in NEW]
        first = min(chains[0])
        assert first > begins.view
        assert chains[0][first].parent == SECOND.config
        assert chains[0][first].tick > begins.tick
        assert len({max(chain) for chain in chains}) <= 2
        assert all(chain[first].digest == chains[0][first].digest for chain in chains)

    run(play)


def test_who_is_in_the_other_epoch_is_not_punished() -> None:
    async def play(hall: Hall) -> None:
        for index in OLD:
            await hall.work(index, FIRST)
        await trio.sleep(3)
        begins = start_after(hall)
        for index in (1, 2, 3, 4):  # keeper 0 does not know yet
            await hall.work(index, SECOND, begins)
        await trio.sleep(3)
        assert max(hall.finals[1, 2]) > begins.view, "four of five are a quorum"
        for index in NEW:
            assert hall.drops(index) <= {Reason.OTHER_EPOCH, Reason.STALE, Reason.DUPLICATE}
            assert all(row.connected for row in hall.networks[index].peers()), "links stand"
        assert Reason.OTHER_EPOCH in hall.drops(0), "the check bites"

    run(play)


def test_a_stranger_to_the_epoch_may_not_vote_in_it() -> None:
    async def play(hall: Hall) -> None:
        for index in OLD:
            await hall.work(index, FIRST)
        await hall.work(4, committee(1, NEW))  # it thinks that it has a seat already
        await trio.sleep(3)
        assert Reason.NOT_A_MEMBER in hall.drops(0)

    run(play)


@pytest.mark.parametrize("gap", [2.0, 20.0])
def test_a_member_that_does_not_know_the_start_learns_it(gap: float) -> None:
    async def play(hall: Hall) -> None:
        for index in OLD:
            await hall.work(index, FIRST)
        await trio.sleep(gap)
        begins = start_after(hall)
        for index in (0, 1, 2, 3):
            await hall.work(index, SECOND, begins)
        await trio.sleep(2)
        await hall.work(4, SECOND)
        await trio.sleep(8)
        assert max(hall.finals[4, 2]) >= max(hall.finals[0, 2]) - 2
        assert hall.finals[4, 2][max(hall.finals[4, 2])].parent != SECOND.config

    run(play)


def chase(hall: Hall, index: int, newest: Committee) -> Chase:
    async def follow(history: History) -> None:
        core = hall.cores[index]
        await hall.services[index].call(lambda: core.jump(history, trio.current_time()))

    view = lambda: max(hall.finals[index, 1], default=0)  # noqa: E731
    return Chase(FIRST, hall.networks[index], lambda: newest, view, follow)


def test_a_late_member_ends_its_epoch_with_the_help_of_those_who_left() -> None:
    async def play(hall: Hall) -> None:
        for index in OLD:
            await hall.work(index, FIRST)
        await trio.sleep(2)
        hall.world.partition(ids(0), ids(1, 2, 3, 4))
        await trio.sleep(3)
        begins = start_after(hall, 1)
        assert max(hall.finals[0, 1]) < begins.view
        for index in (1, 2, 3, 4):
            await hall.work(index, SECOND, begins)
        await trio.sleep(1)
        hall.world.partition()
        with trio.move_on_after(10):
            await chase(hall, 0, SECOND).run()
        assert max(hall.finals[0, 1]) >= begins.view

    run(play)


def test_a_keeper_nobody_can_help_is_told_that_the_network_went_on() -> None:
    async def play(hall: Hall) -> None:
        for index in OLD:
            await hall.work(index, FIRST)
        await trio.sleep(2)
        begins = start_after(hall)
        for index in (1, 2, 3, 4):
            hall.logs[index] = MemoryLog()  # what they had of the first epoch is pruned
        with trio.move_on_after(8) as waiting:
            await chase(hall, 0, SECOND).run()
        assert waiting.cancelled_caught, "before the second epoch is at work, it waits"
        for index in (1, 2, 3, 4):
            await hall.work(index, SECOND, begins)
        with trio.fail_after(20):
            await chase(hall, 0, SECOND).run()

    run(play)


# the key of the next committee


def keys_of(index: int) -> Keys:
    return Keys(seed_of(index), seed_of(index))


async def pump(network: SimulatedNetwork, ceremony: KeyCeremony) -> None:
    while True:
        item = await network.inbox.receive()
        frame = ceremony_frame(item)
        if frame is not None:
            network.report(item.peer, ceremony.take(item.peer, frame))


def test_a_member_that_died_at_the_end_gets_its_share_from_the_record(tmp_path: Path) -> None:
    async def play(hall: Hall) -> None:
        ceremonies = [KeyCeremony(SECOND, keys_of(i), hall.networks[i]) for i in NEW]
        async with trio.open_nursery() as nursery:
            for index, ceremony in enumerate(ceremonies):
                nursery.start_soon(pump, hall.networks[index], ceremony)
                nursery.start_soon(ceremony.run)
            for ceremony in ceremonies:
                await ceremony.done.wait()
            nursery.cancel_scope.cancel()
        assert await recovered(SECOND, keys_of(4), hall.networks[4]) is None, "nobody serves it"
        for index in (0, 1, 2, 3):  # keeper 4 dies before it writes
            folder = tmp_path / str(index)
            folder.mkdir()
            made = ceremonies[index].made
            assert made is not None
            keep_share(folder, 2, made, "secret", QUICK)
            assert held_share(folder, SECOND, "secret") == made[0]
        hall.networks[0].serve(Road.RECOVERY, lambda _, q: record_of(tmp_path / "0", q))
        made = await recovered(SECOND, keys_of(4), hall.networks[4])
        assert made is not None
        assert ceremonies[4].made is not None
        assert made[0].signing_share == ceremonies[4].made[0].signing_share
        other = committee(2, range(1, 5))
        assert await recovered(other, keys_of(4), hall.networks[4]) is None, "of another committee"

    run(play)


def test_a_share_of_a_committee_that_never_sat_is_retired(tmp_path: Path) -> None:
    async def play(hall: Hall) -> None:
        made = []
        for chosen in (SECOND, committee(2, OLD)):
            ceremonies = [
                KeyCeremony(chosen, keys_of(i), hall.networks[i]) for i in range(chosen.size)
            ]
            async with trio.open_nursery() as nursery:
                for index, ceremony in enumerate(ceremonies):
                    nursery.start_soon(pump, hall.networks[index], ceremony)
                    nursery.start_soon(ceremony.run)
                for ceremony in ceremonies:
                    await ceremony.done.wait()
                nursery.cancel_scope.cancel()
            assert ceremonies[0].made is not None
            made.append(ceremonies[0].made)
            keep_share(tmp_path, 2, made[-1], "secret", QUICK)
        assert held_share(tmp_path, SECOND, "secret") is None
        assert held_share(tmp_path, committee(2, OLD), "secret") == made[1][0]
        assert (tmp_path / "share-2.retired-1.key").exists(), "nothing is lost"

    run(play)
