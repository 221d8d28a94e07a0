"""Whoever bonds, leaves or is jailed: the next committee is one that agreement can bear."""

from types import SimpleNamespace
from typing import Any, cast

from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from keeper.network import ChainSpec, NetworkSpec
from keeper.observe.table import EMPTY, Log
from keeper.parameters.devnet import ROTATION
from keeper.settle.rotation import Rotation, decode, next_members
from keeper.snapshot.decisions import Context
from keeper.units import ChainId
from keeper.venue.bonds import BOND, PEER
from p2p.agreement.quorum import faults, quorum
from p2p.identity import peer_id_of
from p2p.types import Member

HUB = ChainId(1)
BONDS = b"\xb0" * 20
SPEC = NetworkSpec(b"\1" * 32, 0, 500, HUB, (ChainSpec(HUB, (("Bonds", BONDS),)),))

keepers = st.integers(1, 60).map(lambda number: bytes([number]) * 20)
stakes = st.dictionaries(keepers, st.tuples(st.integers(0, 5), st.integers(0, 4)), max_size=45)


def context(old: tuple[bytes, ...], bonded: dict[bytes, tuple[int, int]]) -> Context:
    """Return a view in which these bonds (amount, status) are final."""
    logs = []
    for keeper, (amount, status) in bonded.items():
        word, peer = keeper.rjust(32, b"\0"), peer_id_of(keeper.rjust(32, b"\1"))
        logs += [
            Log(BONDS, (BOND, word), encode(("uint256", "uint256", "uint8"), (amount, 0, status))),
            Log(BONDS, (PEER, word), encode(("bytes",), (peer,))),
        ]
    found = SimpleNamespace(
        network=SPEC,
        members=old,
        tables={HUB: EMPTY.apply(logs)},
        parameters=SimpleNamespace(rotation=ROTATION),
    )
    return cast(Context, cast(Any, found))


@given(st.sets(keepers, min_size=4, max_size=31), stakes, st.frozensets(keepers, max_size=5))
def test_a_quorum_stays_and_newcomers_are_no_more_than_liars_may_be(
    old: set[bytes], bonded: dict[bytes, tuple[int, int]], barred: frozenset[bytes]
) -> None:
    members = tuple(sorted(old))
    chosen = next_members(context(members, bonded), barred)
    assert chosen == next_members(context(members, dict(reversed(bonded.items()))), barred)
    if not chosen:
        return
    seats = {member.address for member in chosen}
    assert [member.address for member in chosen] == sorted(seats)
    assert seats != old
    assert SPEC.committee_size <= len(seats) <= ROTATION.seats
    assert not seats & barred
    assert all(bonded[seat][1] == 1 for seat in seats), "active keepers only"
    assert len(seats & old) >= quorum(len(old))
    assert len(seats - old) <= faults(len(seats))


def test_more_newcomers_than_can_be_borne_join_one_after_the_other() -> None:
    old = tuple(bytes([one]) * 20 for one in range(1, 5))
    bonded = {bytes([one]) * 20: (100, 1) for one in range(1, 9)}
    sizes = []
    while chosen := next_members(context(old, bonded), frozenset()):
        old = tuple(member.address for member in chosen)
        sizes.append(len(old))
    assert sizes == [5, 7, 8], "f grows with n"


def test_a_tombstoned_member_loses_its_seat_once_another_can_take_it() -> None:
    old = tuple(bytes([one]) * 20 for one in range(1, 5))
    bonded = dict.fromkeys(old, (100, 1)) | {old[2]: (0, 4)}
    assert next_members(context(old, bonded), frozenset()) == (), "three are too few"
    bonded[b"\x09" * 20] = (100, 1)
    chosen = next_members(context(old, bonded), frozenset())
    assert {member.address for member in chosen} == {*old, b"\x09" * 20} - {old[2]}


@given(
    st.builds(
        Rotation,
        epoch=st.integers(1, 2**32 - 1),
        since=st.integers(0, 2**63),
        called=st.lists(st.builds(Member, keepers, st.binary(min_size=38, max_size=38))).map(tuple),
        begins=st.integers(0, 2**63),
        group_key=st.integers(0, 2**256 - 1),
        barred=st.lists(st.tuples(keepers, st.integers(0, 2**63))).map(tuple),
        closed=st.booleans(),
    )
)
def test_a_state_survives_its_bytes(state: Rotation) -> None:
    assert decode(state.encode()) == state
