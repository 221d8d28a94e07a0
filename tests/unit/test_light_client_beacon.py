"""The Ethereum light client against a simulated beacon: what it takes, and each refusal."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from keeper.observe.light_client.beacon import LightClient
from keeper.observe.light_client.bls import BadKey, DecodedKeys
from keeper.observe.light_client.spec import Refused
from keeper.observe.light_client.ssz import (
    EMPTY_HEADER,
    BadEncoding,
    SyncAggregate,
    Update,
    decode_bootstrap,
    decode_finality_update,
    decode_optimistic_update,
    decode_update,
)
from keeper.observe.light_client.trust import from_bootstrap
from keeper.reasons import Reason
from tests.support.light_client import SIZE, World


@pytest.fixture
def world() -> World:
    made = World()
    made.grow(30)
    return made


def test_a_finalized_header_follows_the_committee_through_three_periods(world: World) -> None:
    client = world.client()
    world.grow(10)
    for period in range(4):
        while world.beacon.spec.period(world.now) == period:
            verdict = client.process(world.update(), world.now)
            assert verdict.reason is None, verdict
            assert client.finalized.beacon.root() == world.final().root or not verdict.finalized
            world.grow(4)
    assert client.period >= 2
    assert client.current.raw == world.beacon.committee(client.period).public.raw


def test_the_mainnet_committee_of_512(world: World) -> None:
    big = World(512)
    big.grow(30)
    client = big.client()
    big.grow(8)
    update = decode_update(big.update().encode(), 512)
    assert client.process(update, big.now).finalized
    assert len(update.encode()) > 26_000
    assert client.finalized.execution.raw == big.final().execution.raw


def _accepts(
    client: LightClient, raw: bytes, decode: Callable[[bytes, int], Update], now: int
) -> bool:
    try:
        update = decode(raw, SIZE)
    except BadEncoding:
        return False
    return client.process(update, now).reason is None


@pytest.mark.parametrize(
    ("encode", "decode"),
    [
        (Update.encode, decode_update),
        (Update.encode_finality, decode_finality_update),
        (Update.encode_optimistic, decode_optimistic_update),
    ],
)
def test_every_flipped_byte_of_an_update_is_refused(
    world: World, encode: Callable[[Update], bytes], decode: Callable[[bytes, int], Update]
) -> None:
    client = world.client()
    world.grow(8)
    raw = encode(world.update())
    before = client.finalized, client.optimistic, client.next, client.best
    for at in range(len(raw)):
        bad = bytearray(raw)
        bad[at] ^= 1 << at % 8
        assert not _accepts(client, bytes(bad), decode, world.now), at
    assert (client.finalized, client.optimistic, client.next, client.best) == before
    for bad_length in (raw[:-1], raw + b"\0", raw[: len(raw) // 2], b""):
        assert not _accepts(client, bad_length, decode, world.now)
    assert _accepts(client, raw, decode, world.now)


def test_every_flipped_byte_of_a_bootstrap_is_refused(world: World) -> None:
    root = world.final().root
    bootstrap = world.beacon.bootstrap(root)
    assert bootstrap is not None
    raw = bootstrap.encode()
    spec = world.beacon.spec
    from_bootstrap(spec, root, decode_bootstrap(raw, SIZE))
    for at in range(len(raw)):
        bad = bytearray(raw)
        bad[at] ^= 1 << at % 8
        with pytest.raises((BadEncoding, Refused)):
            from_bootstrap(spec, root, decode_bootstrap(bytes(bad), SIZE))


def test_low_participation_makes_nothing_final(world: World) -> None:
    client = world.client()
    world.grow(8)
    world.beacon.faults.participation = 65
    before = client.finalized
    verdict = client.process(world.update(), world.now)
    assert verdict.reason is Reason.LOW_PARTICIPATION
    assert "20 of 32" in verdict.detail
    assert verdict.optimistic
    assert client.finalized == before
    world.beacon.faults.participation = 67
    assert client.process(world.update(), world.now).reason is Reason.LOW_PARTICIPATION
    world.beacon.faults.participation = 70
    assert client.process(world.update(), world.now).finalized


def test_nobody_signed(world: World) -> None:
    client = world.client()
    world.grow(8)
    update = world.update()
    nobody = SyncAggregate((False,) * SIZE, update.aggregate.signature)
    verdict = client.process(replace(update, aggregate=nobody), world.now)
    assert verdict.reason is Reason.LOW_PARTICIPATION


def test_an_equivocation_stops_the_client_for_good(world: World) -> None:
    client = world.client()
    world.grow(8)
    world.beacon.faults.equivocating = True
    one, other = world.update(), world.update()
    assert client.process(one, world.now).finalized
    before = client.finalized
    assert client.process(other, world.now).reason is Reason.EQUIVOCATION
    assert client.equivocation is not None
    assert client.equivocation.first.attested.beacon != client.equivocation.second.attested.beacon
    world.beacon.faults.equivocating = False
    world.grow(16)
    assert client.process(world.update(), world.now).reason is Reason.EQUIVOCATION
    assert client.finalized == before


def test_a_stalled_chain_repeats_itself_and_its_trust_expires(world: World) -> None:
    client = world.client()
    world.grow(8)
    assert client.process(world.update(), world.now).finalized
    world.beacon.faults.stalled = True
    before = client.finalized
    world.grow(40)
    verdict = client.process(world.update(), world.now)
    assert not verdict.finalized
    assert client.finalized == before
    world.now += world.beacon.spec.trusting_slots
    assert client.process(world.update(), world.now).reason is Reason.TRUST_EXPIRED


def test_an_old_update_is_stale(world: World) -> None:
    world.grow(1)
    old = world.update()
    world.grow(24)
    client = world.client()
    assert client.process(world.update(), world.now).reason is None
    assert client.process(old, world.now).reason is Reason.STALE


def test_a_committee_of_strangers_is_refused(world: World) -> None:
    client = world.client()
    world.grow(8)
    world.beacon.faults.strangers = True
    verdict = client.process(world.update(), world.now)
    assert verdict.reason is Reason.BAD_SIGNATURE
    assert "committee of period 0" in verdict.detail
    with pytest.raises(Refused) as refused:
        world.client()
    assert refused.value.reason is Reason.WRONG_COMMITTEE


def test_another_next_committee_is_refused(world: World) -> None:
    client = world.client()
    world.grow(8)
    assert client.process(world.update(), world.now).finalized
    assert client.next is not None
    world.beacon.faults.foreign_next = True
    world.grow(2)
    assert client.process(world.update(), world.now).reason is Reason.WRONG_COMMITTEE


def test_a_bootstrap_of_another_block_or_too_old_is_refused(world: World) -> None:
    root, spec = world.final().root, world.beacon.spec
    bootstrap = world.beacon.bootstrap(root)
    assert bootstrap is not None
    for trusted, now, reason in (
        (bytes(32), world.now, Reason.UNTRUSTED_ROOT),
        (root, world.now + spec.trusting_slots, Reason.TRUST_EXPIRED),
    ):
        with pytest.raises(Refused) as refused:
            LightClient(spec, from_bootstrap(spec, trusted, bootstrap), now)
        assert refused.value.reason is reason


def test_a_skipped_period_and_the_future_are_refused(world: World) -> None:
    client = world.client()
    world.grow(8)
    update = world.update()
    assert client.process(update, update.signature_slot - 1).reason is Reason.TOO_FAR_AHEAD
    world.grow(64)
    assert client.process(world.update(), world.now).reason is Reason.TOO_FAR_AHEAD


def test_headers_and_committees_without_their_branches(world: World) -> None:
    client = world.client()
    world.grow(8)
    update = world.update()
    wrong = [
        replace(update, next_branch=(bytes(32),) * 6),
        replace(update, finality_branch=(bytes(32),) * 7),
        replace(update, finalized=EMPTY_HEADER),
    ]
    assert {client.process(each, world.now).reason for each in wrong} == {Reason.BAD_PROOF}
    late = replace(update, signature_slot=update.attested.beacon.slot)
    assert client.process(late, world.now).reason is Reason.MALFORMED


def test_force_takes_the_best_only_after_a_whole_period(world: World) -> None:
    client = world.client()
    world.grow(8)
    world.beacon.faults.participation = 50
    update = world.update()
    client.process(update, world.now)
    slot = client.finalized.beacon.slot
    assert not client.force(slot + 64)
    assert client.force(slot + 65)
    assert client.finalized.beacon.slot > slot
    assert not client.force(slot + 1_000)


def test_keys_that_are_no_keys() -> None:
    infinity = b"\xc0" + bytes(47)
    for key in (infinity, bytes(48), b"\xff" * 48):
        with pytest.raises(BadKey):
            DecodedKeys([key])
