"""A confirmed false head costs a member all that it has at stake, once."""

from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from keeper.compete.heads import FalseHead, contradicted
from keeper.execute.intent import Status
from keeper.hashing import keccak
from keeper.observe.observation import ObservationBody, SeenHead, encode
from keeper.settle.heads import HeadWatch
from p2p.agreement.signing import EcdsaSigner, sign_observation
from p2p.types import Committee, Member, SignedObservation
from tests.support.clearing_world import BOND, NETWORK, A, B, Refused, World, fields

LIAR, HEAD = b"\x07" * 20, keccak(b"a block that never was")


def confirm(world: World, head: bytes = HEAD, who: bytes = LIAR) -> None:
    """Let the venue's chain have confirmed a false head."""
    topics = [who.rjust(32, b"\0"), head]
    event = "FalseHead(address,bytes32,uint64)"
    world.chains[B].log("Committee", event, topics, ["uint64"], 7)


def penalties(world: World) -> list[Any]:
    made = world.view().decisions
    return [decision for decision in made if decision.kind == "Penalty"]


def test_it_costs_everything_once() -> None:
    world = World()
    world.bond(LIAR)
    confirm(world)
    (penalty,) = penalties(world)
    assert fields(penalty)[:4] == (HEAD, LIAR, BOND, bytes(20))
    assert penalties(world) == []
    world.bring(penalty)
    assert world.chains[A].stakes[LIAR] == 0
    world.bond(LIAR)  # it posts a bond again: the old lie is paid for
    assert penalties(world) == []
    confirm(world, keccak(b"another"))
    assert len(penalties(world)) == 1


def test_many_lies_are_one_charge_at_a_time() -> None:
    world = World()
    world.bond(LIAR)
    for number in range(5):
        confirm(world, keccak(b"%d" % number))
    (penalty,) = penalties(world)
    assert penalties(world) == []
    world.bring(penalty)
    assert penalties(world) == []  # nothing is left to take


def test_who_has_no_bond_is_not_charged_and_the_free_bond_counts_it() -> None:
    world = World()
    confirm(world, who=b"\x09" * 20)
    assert penalties(world) == []


def test_a_penalty_that_came_to_nothing_is_sealed_again() -> None:
    world = World()
    world.bond(LIAR)
    confirm(world)
    (first,) = penalties(world)
    while world.chains[A].number <= first.expiry:
        world.chains[A].mine()
    (second,) = penalties(world)
    assert fields(second)[:3] == fields(first)[:3]
    with pytest.raises(Refused, match="expired"):
        world.bring(first)
    world.bring(second)


# --- who reports


OURS, ME = keccak(b"our block"), 0
SIGNERS = tuple(EcdsaSigner(keccak(b"member %d" % i)) for i in range(4))
COMMITTEE = Committee(
    NETWORK.id, 1, tuple(Member(one.address, one.address) for one in SIGNERS), keccak(b"p")
)


def observed(member: int, chain: Any, block_hash: bytes) -> SignedObservation:
    body = ObservationBody(4, (SeenHead(chain, 9, block_hash, bytes(32), 1),))
    return sign_observation(COMMITTEE, SIGNERS[member], 4, body.roots(), encode(body))


class Sent:
    """An executor that only remembers."""

    def __init__(self) -> None:
        self.intents: list[Any] = []

    async def submit(self, intent: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.intents.append(intent)
        return SimpleNamespace(status=Status.SUCCEEDED)


async def reported(*observations: SignedObservation) -> list[Any]:
    """Return the intents of a keeper that saw these, in the order it made them."""
    index = SimpleNamespace(
        hash_at=lambda number: OURS if number == 9 else None, newest=SimpleNamespace(number=20)
    )
    watchers: Any = {chain: SimpleNamespace(index=index) for chain in (A, B)}
    executor: Any = Sent()
    watch = HeadWatch(NETWORK, executor, watchers, ME)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.run)
        for one in observations:
            watch.look([one])
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    made: list[Any] = executor.intents
    return made


async def test_a_liar_is_reported_once_where_its_lie_can_be_judged() -> None:
    lie = observed(2, B, HEAD)
    on_venue, on_hub = await reported(lie, lie, observed(2, A, HEAD), observed(3, A, HEAD))
    assert (on_venue.chain, on_venue.to) == (B, NETWORK.chain(B).contract("Committee"))
    assert (on_hub.chain, on_hub.to) == (A, NETWORK.chain(A).contract("Bonds"))
    assert on_venue.data[:4] != on_hub.data[:4]


async def test_nobody_honest_is_reported_and_nobody_itself() -> None:
    future = ObservationBody(4, (SeenHead(B, 99, HEAD, bytes(32), 1),))
    unknown = sign_observation(COMMITTEE, SIGNERS[1], 4, future.roots(), encode(future))
    assert await reported(observed(1, B, OURS), unknown, observed(ME, B, HEAD)) == []


def test_the_evidence_holds_the_one_head_that_is_false() -> None:
    heads = tuple(SeenHead(B, n, HEAD if n == 9 else OURS, bytes(32), 1) for n in (8, 9, 10))
    body = ObservationBody(4, heads)
    signed = sign_observation(COMMITTEE, SIGNERS[1], 4, body.roots(), encode(body))
    (one,) = contradicted([signed], lambda chain, number: OURS)
    assert isinstance(one, FalseHead)
    assert one.head == heads[1]
