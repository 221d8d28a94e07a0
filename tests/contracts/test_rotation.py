"""A committee hands over: called by bonds, sealed by the old key, activated by real contracts."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from eth_abi.abi import encode

from keeper.observe.observation import NextKey
from keeper.observe.table import Log
from keeper.parameters.devnet import ROTATION
from keeper.settle.flow import FlowRule
from keeper.settle.rotation import (
    CommitteeRule,
    Rotation,
    is_closed,
    of_book,
)
from keeper.snapshot.decisions import Decision
from keeper.venue.bonds import BOND, PEER
from keeper.venue.committee import committee_of, last_block, registered_as
from p2p.identity import peer_id_of
from p2p.types import Committee, Member
from tests.support.contracts import EPOCH, Reverted, World, hexed
from tests.support.flow_net import FIRST, LAG, Net, rolled_back, small_world

BONDS = b"\xb0" * 20
NEWCOMER = bytes([200]) * 20
TIMELOCK = 10


def peer_of(keeper: bytes) -> bytes:
    return peer_id_of(keeper.rjust(32, b"\1"))


def bond(keeper: bytes, amount: int = 100, status: int = 1) -> list[Log]:
    """Return the records of a bonded keeper with its peer."""
    word = keeper.rjust(32, b"\0")
    return [
        Log(BONDS, (BOND, word), encode(("uint256", "uint256", "uint8"), (amount, 0, status))),
        Log(BONDS, (PEER, word), encode(("bytes",), (peer_of(keeper),))),
    ]


class Hall(Net):
    """Two chains, bonds on the first; the next key is one whose seals the test can make too."""

    def bonds(self, logs: list[Log]) -> None:
        self.tables[0] = self.tables[0].apply(logs)

    @property
    def rotation(self) -> Rotation:
        state = of_book(self.snapshot.book)
        assert state is not None
        return state

    @property
    def key(self) -> int:
        return int.from_bytes(self.worlds[0].group.public_key.format()[1:], "big")

    def next_committee(self) -> Committee:
        return committee_of(self.spec, self.epoch + 1, self.rotation.called)

    def until_called(self) -> None:
        self.tick += ROTATION.epoch_ticks
        self.settle_down()
        self.tick += ROTATION.settle_ticks
        self.settle_down(1)
        assert self.rotation.in_ceremony(self.tick)

    def wait(self) -> None:
        """Let the timelock pass."""
        for _ in range(TIMELOCK):
            self.mine()

    def activate(self, at: int) -> None:
        members = [hexed(member.address) for member in self.rotation.called]
        self.send(at, "Committee", "activate", members, sender="anyone")

    def hand_over(self) -> None:
        """Go from a called committee to the last snapshot of the epoch."""
        self.named = NextKey(self.next_committee().config, self.key)
        self.settle_down(1)
        for decision in self.changes():
            self.bring(decision)
        self.wait()
        for at in range(len(self.worlds)):
            self.activate(at)
        self.mine(LAG + 1)
        self.view()
        assert is_closed(self.epoch, self.snapshot.book)

    def changes(self) -> list[Decision]:
        return [one for one in self.outstanding() if one.kind == "CommitteeChange"]


@pytest.fixture(scope="module")
def deployed() -> list[World]:
    return [small_world(FIRST + at) for at in range(2)]


@pytest.fixture
def hall(deployed: list[World]) -> Iterator[Hall]:
    with rolled_back(deployed):
        net = Hall(deployed, (FlowRule(), CommitteeRule()))
        chains = list(net.spec.chains)
        chains[0] = replace(
            chains[0], contracts=tuple(sorted((*chains[0].contracts, ("Bonds", BONDS))))
        )
        net.spec = replace(net.spec, chains=tuple(chains))
        net.is_last = lambda book: is_closed(net.epoch, book)
        net.bonds([log for keeper in net.members for log in bond(keeper)])
        net.settle_down()
        yield net


def test_bonds_as_they_are_call_nobody(hall: Hall) -> None:
    hall.tick += ROTATION.epoch_ticks + ROTATION.settle_ticks
    hall.settle_down()
    assert hall.rotation.called == ()


def test_a_newcomer_is_seated_by_the_old_key_on_every_chain(hall: Hall) -> None:
    hall.bonds(bond(NEWCOMER))
    hall.settle_down()
    assert hall.rotation.called == (), "an epoch lasts a while"
    hall.until_called()
    assert hall.rotation.called == tuple(
        Member(keeper, peer_of(keeper)) for keeper in sorted((*hall.members, NEWCOMER))
    )
    assert hall.changes() == [], "no key is named yet"
    hall.hand_over()
    tables = {c.id: t for c, t in zip(hall.spec.chains, hall.tables, strict=True)}
    epoch = registered_as(hall.spec, tables, EPOCH + 1)
    assert epoch is not None
    assert epoch.members == tuple(sorted((*hall.members, NEWCOMER)))
    assert (epoch.group_key, epoch.config) == (hall.key, hall.next_committee().config)
    for at, chain in enumerate(hall.spec.chains):
        assert hall.worlds[at].call("Committee", "current").value == EPOCH + 1
        end = last_block(chain, hall.tables[at], EPOCH)
        assert end is not None
        assert end > hall.worlds[at].block


def test_a_change_needs_its_timelock_and_the_members_it_was_sealed_for(hall: Hall) -> None:
    hall.bonds(bond(NEWCOMER))
    hall.until_called()
    hall.named = NextKey(hall.next_committee().config, hall.key)
    hall.settle_down(1)
    for decision in hall.changes():
        hall.bring(decision)
    with pytest.raises(Reverted, match="timelocked"):
        hall.activate(0)
    hall.wait()
    others = [hexed(member) for member in hall.members]
    with pytest.raises(Reverted, match="other members"):
        hall.send(0, "Committee", "activate", others, sender="anyone")
    hall.activate(0)
    hall.mine(LAG + 1)
    hall.view()
    assert not hall.rotation.closed, "one chain is not all"
    hall.activate(1)
    hall.mine(LAG + 1)
    hall.view()
    assert hall.rotation.closed


def test_after_the_last_snapshot_nothing_is_decided(hall: Hall) -> None:
    hall.bonds(bond(NEWCOMER))
    hall.until_called()
    hall.hand_over()
    last = hall.snapshot
    hall.bonds(bond(NEWCOMER, 1_000))
    hall.settle_down(1)
    assert hall.snapshot.book == last.book
    assert hall.snapshot.decisions == ()
    assert hall.snapshot.header.cut == last.header.cut
    assert hall.snapshot.header.previous == last.header.hash()
    assert hall.snapshot.header.view == last.header.view + 1


def test_the_next_epoch_goes_on_from_the_last_snapshot(hall: Hall) -> None:
    hall.bonds(bond(NEWCOMER))
    hall.until_called()
    hall.hand_over()
    ends = [last_block(c, t, EPOCH) for c, t in zip(hall.spec.chains, hall.tables, strict=True)]
    flying = Decision(
        "FlowOutcome", hall.spec.chains[1].id, b"\1" * 20, b"key", b"\7" * 32, (), expiry=0
    )
    late = replace(flying, leaf=b"\x08" * 32, expiry=10**9)
    soon = replace(flying, leaf=b"\x09" * 32, expiry=hall.worlds[1].block + 1)
    book = replace(hall.snapshot.book, outstanding=(flying, late, soon))
    hall.snapshot = replace(hall.snapshot, book=book)
    before = hall.snapshot.header.view
    hall.epoch, hall.named = EPOCH + 1, None
    hall.members = (*hall.members, NEWCOMER)
    hall.view()
    assert hall.snapshot.header.epoch == EPOCH + 1
    assert hall.snapshot.header.view == before + 1
    assert not hall.rotation.closed
    assert hall.rotation == Rotation(EPOCH + 1, hall.tick)
    kept = {one.leaf: one.expiry for one in hall.outstanding()}
    assert kept[flying.leaf] == kept[late.leaf] == ends[1], "a seal ends with its key"
    assert kept[soon.leaf] == soon.expiry


def test_a_key_that_only_liars_name_is_not_taken(hall: Hall) -> None:
    hall.bonds(bond(NEWCOMER))
    hall.until_called()
    members, config = hall.members, hall.next_committee().config
    hall.members, everyone = members[:1], members  # f of them speak
    hall.named = NextKey(config, hall.key)
    hall.settle_down(1)
    assert hall.rotation.group_key == 0
    hall.members = everyone[:2]
    hall.settle_down(1)
    assert hall.rotation.group_key == hall.key, "f + 1 contain an honest one"
    hall.members = everyone
    hall.named = NextKey(bytes(32), hall.key + 1)
    hall.settle_down(1)
    assert hall.rotation.group_key == hall.key


def test_a_called_keeper_that_is_missing_is_barred(hall: Hall) -> None:
    hall.bonds(bond(NEWCOMER))
    hall.until_called()
    hall.named = NextKey(hall.next_committee().config, 0, (NEWCOMER,))
    hall.settle_down(1)
    assert hall.rotation.called
    hall.tick += ROTATION.ceremony_ticks
    hall.settle_down(1)
    assert hall.rotation.called == ()
    assert [keeper for keeper, _ in hall.rotation.barred] == [NEWCOMER]
    hall.tick += ROTATION.settle_ticks
    hall.settle_down()
    assert hall.rotation.called == (), "not called again for a while"
