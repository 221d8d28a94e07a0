"""The service that follows a beacon node: catching up, anchoring, and what it says of trouble."""

import pytest

from keeper.chain.codec import header
from keeper.chain.finality import Anchored
from keeper.errors import RemoteFault
from keeper.observe.light_client.rest import BeaconRest
from keeper.observe.light_client.service import LightClientService, Source
from keeper.observe.light_client.ssz import Bootstrap, Update
from keeper.observe.light_client.trust import TrustBook, TrustedState
from keeper.reasons import Reason
from keeper.store import Store
from keeper.units import ChainId
from tests.support.light_client import World

CHAIN = ChainId(31501)


def _service(
    world: World,
    root: bytes | None = None,
    stall_slots: int = 30,
    *,
    source: Source | None = None,
    store: Store | None = None,
) -> LightClientService:
    trusted, spec = root or world.final().root, world.beacon.spec
    book = TrustBook(store or Store(":memory:"), CHAIN, spec, trusted)
    return LightClientService(
        CHAIN, source or world, spec, trusted, lambda: world.now, book, stall_slots=stall_slots
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
        assert anchor == header(CHAIN, world.blocks[final.block_hash]), "the whole header is proven"
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
    dead = _service(world, source=Dead())
    await dead.step()
    assert dead.trouble == "endpoint_down: dead: connection refused"
    service._source = Dead()
    await service.step()
    assert service.health().reason is Reason.ENDPOINT_DOWN
    service._source = world
    await service.step()
    assert service.trouble == ""


async def test_a_restart_goes_on_where_it_was(world: World) -> None:
    """Nobody gives a bootstrap of the old root any more, and a period has passed."""
    store, root = Store(":memory:"), world.final().root
    service = _service(world, root, store=store)
    await service.step()
    world.grow(70)
    await service.step()
    before = service.anchor()
    again = _service(world, root, source=Dead(), store=store)
    await again.step()
    assert again.anchor() == before
    again._source = world
    world.grow(5)
    await again.step()
    assert again.trouble == ""
    assert again.client is not None
    assert again.client.finalized.beacon.root() == world.final().root


async def test_another_trusted_root_starts_anew(world: World) -> None:
    store = Store(":memory:")
    await _service(world, store=store).step()
    world.grow(20)
    other = _service(world, source=Dead(), store=store)
    await other.step()
    assert other.anchor() is None


async def test_kept_trust_expires_too(world: World) -> None:
    store, root = Store(":memory:"), world.final().root
    await _service(world, root, store=store).step()
    world.beacon.faults.stalled = True
    world.now += world.beacon.spec.trusting_slots
    again = _service(world, root, store=store)
    await again.step()
    assert again.health().reason is Reason.TRUST_EXPIRED
    assert again.anchor() is None


async def test_an_equivocation_outlives_the_process(world: World) -> None:
    store, root = Store(":memory:"), world.final().root
    service = _service(world, root, store=store)
    world.beacon.faults.equivocating = True
    for _ in range(3):
        await service.step()
    assert service.health().reason is Reason.EQUIVOCATION
    world.beacon.faults.equivocating = False
    world.grow(9)
    again = _service(world, root, store=store)
    await again.step()
    assert again.health().reason is Reason.EQUIVOCATION
    assert again.client is not None
    assert service.client is not None
    assert again.client.equivocation == service.client.equivocation
    assert again.anchor() == service.anchor()


@pytest.mark.parametrize("column", ["header", "current", "next", "first"])
async def test_a_row_that_somebody_changed_is_no_trust(world: World, column: str) -> None:
    store, root = Store(":memory:"), world.final().root
    service = _service(world, root, store=store)
    await service.step()
    with store.durable() as rows:
        rows.execute(f"UPDATE light_client SET {column} = x'00'")
    again = _service(world, root, store=store)
    await again.step()
    assert again.trouble == ""
    assert again.anchor() == service.anchor(), "proven again from the root"


async def test_only_what_is_worth_it_is_written(world: World) -> None:
    writes = 0

    class Counting(TrustBook):
        def keep(self, state: TrustedState) -> None:
            nonlocal writes
            writes += 1
            super().keep(state)

    service = _service(world)
    service._book = Counting(Store(":memory:"), CHAIN, world.beacon.spec, world.final().root)
    for _ in range(60):
        await service.step()
        world.grow(1)
    assert 1 < writes < 6, "two committees were learned, and the header moved by sixty slots"


async def test_nobody_listens_there() -> None:
    with pytest.raises(RemoteFault) as fault:
        await BeaconRest("http://127.0.0.1:9").finality_update(32)
    assert fault.value.reason is Reason.ENDPOINT_DOWN
