"""The service that follows a beacon node: catching up, anchoring, and what it says of trouble."""

import pytest

from keeper.chain.finality import Anchored
from keeper.errors import RemoteFault
from keeper.observe.light_client.rest import BeaconRest
from keeper.observe.light_client.service import LightClientService
from keeper.observe.light_client.ssz import Bootstrap, Update
from keeper.reasons import Reason
from keeper.units import ChainId
from tests.support.light_client import World

CHAIN = ChainId(31501)


def _service(world: World, root: bytes | None = None, stall_slots: int = 30) -> LightClientService:
    trusted = root or world.final().root
    return LightClientService(
        CHAIN, world, world.beacon.spec, trusted, lambda: world.now, stall_slots=stall_slots
    )


@pytest.fixture
def world() -> World:
    made = World()
    made.grow(30)
    return made


async def test_it_follows_over_periods_and_anchors_the_newest_final_block(world: World) -> None:
    service = _service(world)
    assert isinstance(service.finality, Anchored)
    assert service.anchor() is None
    for _ in range(20):
        await service.step()
        assert service.trouble == ""
        anchor, final = service.finality.anchor(), world.final().execution
        assert anchor is not None
        assert (anchor.chain, anchor.number, anchor.hash) == (CHAIN, final.number, final.block_hash)
        world.grow(7)


async def test_it_catches_up_after_a_long_absence(world: World) -> None:
    service = _service(world)
    await service.step()
    world.grow(64 * 5 + 20)
    await service.step()
    assert service.trouble == ""
    assert service.client is not None
    assert service.client.finalized.beacon.root() == world.final().root


async def test_a_wrong_trusted_root_gives_no_anchor(world: World) -> None:
    service = _service(world, root=bytes(31) + b"\1")
    await service.step()
    assert service.health().reason is Reason.ENDPOINT_DOWN
    assert service.anchor() is None


async def test_a_stalled_chain_is_said_and_over_when_it_goes_on(world: World) -> None:
    service = _service(world)
    await service.step()
    world.beacon.faults.stalled = True
    anchor = service.anchor()
    world.grow(20)
    await service.step()
    assert service.health().reason is Reason.STALLED
    assert service.anchor() == anchor
    world.beacon.faults.stalled = False
    world.grow(40)
    await service.step()
    assert service.trouble == ""
    assert service.anchor() != anchor


@pytest.mark.parametrize(
    ("fault", "value", "reason"),
    [
        ("participation", 60, Reason.LOW_PARTICIPATION),
        ("strangers", True, Reason.BAD_SIGNATURE),
        ("equivocating", True, Reason.EQUIVOCATION),
    ],
)
async def test_a_faulty_chain_moves_no_anchor(
    world: World, fault: str, value: int, reason: Reason
) -> None:
    service = _service(world, stall_slots=1_000)
    await service.step()
    await service.step()
    setattr(world.beacon.faults, fault, value)
    world.grow(2)
    anchor = service.anchor()
    await service.step()
    await service.step()
    assert service.health().reason is reason
    assert service.anchor() == anchor


class Dead:
    """A node that answers nothing."""

    name = "dead"

    async def bootstrap(self, root: bytes, size: int) -> Bootstrap:
        raise RemoteFault(self.name, Reason.ENDPOINT_DOWN, "connection refused")

    async def updates(self, first: int, count: int, size: int) -> list[Update]:
        raise RemoteFault(self.name, Reason.ENDPOINT_DOWN, "connection refused")

    async def finality_update(self, size: int) -> Update:
        raise RemoteFault(self.name, Reason.ENDPOINT_DOWN, "connection refused")


async def test_a_dead_node_is_said_and_forgotten_when_it_is_back(world: World) -> None:
    service = _service(world)
    await service.step()
    dead = LightClientService(CHAIN, Dead(), world.beacon.spec, bytes(32), lambda: 0)
    await dead.step()
    assert dead.trouble == "endpoint_down: dead: connection refused"
    service._source = Dead()
    await service.step()
    assert service.health().reason is Reason.ENDPOINT_DOWN
    service._source = world
    await service.step()
    assert service.trouble == ""


async def test_nobody_listens_there() -> None:
    with pytest.raises(RemoteFault) as fault:
        await BeaconRest("http://127.0.0.1:9").finality_update(32)
    assert fault.value.reason is Reason.ENDPOINT_DOWN
