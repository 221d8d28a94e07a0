"""Who sits in the next committee: called by the agreed state, sealed by this one, closed for good.

    bonds at the cut ─▶ others than now? ─ same for settle_ticks ─▶ called ─▶ their ceremony
        f + 1 members name one key ─▶ CommitteeChange leaf per chain ─▶ timelock ─▶ activate
        installed on every chain at the cut ─▶ closed: the snapshot the next epoch starts from

    not done within ceremony_ticks: who was missing is barred for a while, and others are called

A change is never more than agreement can bear: a quorum of the old members stays, and the new
ones are no more than the faults that the new committee tolerates. So a key that f + 1 old members
name was made by an honest keeper in front of all n, and a wave of newcomers takes nothing over.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgpack

from keeper.hashing import abi_hash
from keeper.leaves import committee_change_leaf
from keeper.network import ChainSpec
from keeper.snapshot.book import Book
from keeper.snapshot.decisions import Context, Decision
from keeper.venue.committee import bonded, committee_of, pending, registered_as
from p2p.agreement.quorum import faults, quorum
from p2p.types import Committee, Member

NAME = "committee"
KIND = "CommitteeChange"
MAX_BARRED = 64
CHANGE_BLOCKS = 60
"""Blocks a sealed change has to reach its chain before it is sealed again."""
NO_EXPIRY = 2**64 - 1
"""The old key's end: as late as the chain's own grace allows."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """This rule's state.

    Args:
        epoch: the committee it is about.
        since: first tick of this epoch.
        called: members of the next committee by address; empty while nobody is wanted.
        begins: tick in which their ceremony begins, if the bonds stay as they are until then.
        group_key: x coordinate of the key they made; 0 while it is not agreed.
        barred: (address, tick) pairs by address: not to be called before that tick.
        closed: every chain has installed the next epoch.
    """

    epoch: int
    since: int
    called: tuple[Member, ...] = ()
    begins: int = 0
    group_key: int = 0
    barred: tuple[tuple[bytes, int], ...] = ()
    closed: bool = False

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        packed: bytes = msgpack.packb(
            [
                self.epoch,
                self.since,
                [[member.address, member.peer_id] for member in self.called],
                self.begins,
                self.group_key.to_bytes(32, "big"),
                [[address, until] for address, until in self.barred],
                self.closed,
            ]
        )
        return packed

    def in_ceremony(self, tick: int) -> bool:
        """Return whether those called are to generate their key now."""
        return bool(self.called) and not self.closed and tick >= self.begins


def decode(state: bytes) -> Rotation | None:
    """Return what `encode` wrote, or None before the first view."""
    if not state:
        return None
    epoch, since, called, begins, key, barred, closed = msgpack.unpackb(state, use_list=False)
    members = tuple(Member(address, peer) for address, peer in called)
    return Rotation(epoch, since, members, begins, int.from_bytes(key, "big"), barred, closed)


def of_book(book: Book) -> Rotation | None:
    """Return the rotation that a book holds."""
    return decode(book.rules.get(NAME, b""))


def is_closed(epoch: int, book: Book) -> bool:
    """Return whether a snapshot of an epoch with this book is its last."""
    state = of_book(book)
    return state is not None and state.closed and state.epoch == epoch


@dataclass(frozen=True, slots=True)
class CommitteeRule:
    """Decides who is called, with which key, and when the epoch is over."""

    name: str = NAME

    def initial(self) -> bytes:
        """Return the state before the first view."""
        return b""

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return no hashes: this rule needs no bodies."""
        return frozenset()

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the next state and the changes to bring in this view."""
        now = decode(state)
        if now is None or now.epoch != context.epoch:
            now = Rotation(context.epoch, context.tick)
        if registered_as(context.network, context.tables, context.epoch + 1) is not None:
            return replace(now, closed=True).encode(), ()
        if not now.group_key:
            now = _call(context, now)
        decisions = _changes(context, now) if now.group_key else ()
        return now.encode(), decisions


def _call(context: Context, now: Rotation) -> Rotation:
    """Return the state after one more view in which no key is agreed yet."""
    if not now.in_ceremony(context.tick):
        return _settle(context, now)
    committee = committee_of(context.network, context.epoch + 1, now.called)
    key = _named_key(context, committee)
    if key:
        return replace(now, group_key=key)
    rules = context.parameters.rotation
    if context.tick < now.begins + rules.ceremony_ticks:
        return now
    until = context.tick + rules.barred_ticks
    barred = dict(now.barred) | dict.fromkeys(_missing(context, committee), until)
    longest = sorted(barred.items(), key=lambda one: (-one[1], one[0]))[:MAX_BARRED]
    return replace(now, called=(), begins=0, barred=tuple(sorted(longest)))


def _settle(context: Context, now: Rotation) -> Rotation:
    barred = tuple(one for one in now.barred if one[1] > context.tick)
    rules = context.parameters.rotation
    early = context.tick < now.since + rules.epoch_ticks
    wanted = () if early else next_members(context, frozenset(address for address, _ in barred))
    if wanted == now.called:
        return replace(now, barred=barred)
    begins = context.tick + rules.settle_ticks
    return replace(now, called=wanted, begins=begins, barred=barred)


def next_members(context: Context, barred: frozenset[bytes]) -> tuple[Member, ...]:
    """Return the committee that the bonds at the cut ask for; empty when it is the present one.

    Args:
        context: the view decided.
        barred: keepers not to be seated.
    """
    network, old = context.network, context.members
    if network.hub not in context.tables:
        return ()
    found = {k: v for k, v in bonded(network, context.tables).items() if k not in barred}

    def rank(keeper: bytes) -> tuple[int, bool, bytes]:
        return (-found[keeper][0], keeper not in old, keeper)

    staying = [keeper for keeper in old if keeper in found]
    newcomers = sorted((keeper for keeper in found if keeper not in old), key=rank)
    most = context.parameters.rotation.seats
    for joining in range(len(newcomers), -1, -1):
        seats = sorted([*staying, *newcomers[:joining]], key=rank)[:most]
        if len(seats) >= network.committee_size and _bearable(old, seats):
            chosen = sorted(seats)
            same = chosen == sorted(old)
            return () if same else tuple(Member(keeper, found[keeper][1]) for keeper in chosen)
    return ()


def _bearable(old: Sequence[bytes], seats: Sequence[bytes]) -> bool:
    """Return whether a quorum stays and the newcomers could all be liars."""
    staying = len(set(old) & set(seats))
    return staying >= quorum(len(old)) and len(seats) - staying <= faults(len(seats))


def _named_key(context: Context, committee: Committee) -> int:
    """Return the key that f + 1 members say was generated, or 0."""
    named = Counter(
        one.body.next_key.group_key
        for one in context.observed
        if one.body.next_key is not None and one.body.next_key.config == committee.config
    )
    del named[0]
    return max((key for key, count in named.items() if count > context.faults), default=0)


def _missing(context: Context, committee: Committee) -> tuple[bytes, ...]:
    """Return whom to blame for a ceremony that took too long.

    Those that f + 1 members miss; if there are none, the newcomer missed most: the present members
    did without it until now.
    """
    called = {member.address for member in committee.members}
    missed = Counter(
        address
        for one in context.observed
        if one.body.next_key is not None and one.body.next_key.config == committee.config
        for address in one.body.next_key.absent
        if address in called
    )
    by_many = tuple(sorted(one for one, count in missed.items() if count > context.faults))
    if by_many:
        return by_many
    newcomers = sorted(called - set(context.members), key=lambda one: (-missed[one], one))
    return tuple(newcomers[:1])


def _changes(context: Context, now: Rotation) -> tuple[Decision, ...]:
    """Return the change of committee for every chain that has not heard of it."""
    flying = {one.chain for one in context.outstanding if one.kind == KIND}
    made = []
    for spec in context.network.chains:
        contract = spec.contract("Committee")
        if contract is None or spec.id not in context.cut or spec.id in flying:
            continue
        proposed = pending(spec, context.tables[spec.id], context.epoch + 1)
        if proposed is None or proposed.group_key != now.group_key:
            made.append(_change(context, spec, contract, now))
    return tuple(sorted(made, key=lambda decision: decision.order))


def _change(context: Context, spec: ChainSpec, contract: bytes, now: Rotation) -> Decision:
    committee = committee_of(context.network, context.epoch + 1, now.called)
    addresses = ["0x" + member.address.hex() for member in now.called]
    members_hash = abi_hash(("address[]",), (addresses,))
    fields = (context.epoch + 1, now.group_key, committee.config, members_hash, NO_EXPIRY)
    return Decision(
        kind=KIND,
        chain=spec.id,
        contract=contract,
        key=spec.id.to_bytes(8, "big"),
        leaf=committee_change_leaf(
            context.network.id,
            context.epoch,
            spec.id,
            contract,
            next_epoch=context.epoch + 1,
            group_key=now.group_key,
            config=committee.config,
            members_hash=members_hash,
            old_expiry=NO_EXPIRY,
        ),
        fields=fields,
        expiry=context.cut[spec.id].number + CHANGE_BLOCKS,
    )
