"""One step of the replicated state: parent's state and agreed inputs → the next snapshot.

    observations ─▶ cut, prices ─▶ tables at the cut ─▶ legs ─▶ margins ─┐
    parent's book ───────────────────────────────────────────────────────┴─▶ rules ─▶ decisions
                                                        header ─▶ Header leaf + decisions ─▶ root

Everything here is a pure function, so a leader that proposes and a member that checks run the very
same lines and compare bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgpack

from keeper.leaves import header_leaf
from keeper.legs import Leg
from keeper.margin.engine import AccountMargin, Engine
from keeper.margin.marks import Marks, Unpriced
from keeper.margin.tree import Tree, price_leaf, watch_leaf
from keeper.merkle import merkle_root
from keeper.network import NetworkSpec
from keeper.observe.table import Table
from keeper.parameters import Parameters
from keeper.snapshot import governed
from keeper.snapshot.book import EMPTY_BOOK, MAX_OUTSTANDING, Book, decision_row
from keeper.snapshot.cut import choose_cut
from keeper.snapshot.decisions import Context, CutBlock, Decision, DecisionRule, Observed, Price
from keeper.snapshot.header import VERSION, Header, Totals
from keeper.snapshot.outstanding import still_outstanding
from keeper.snapshot.prices import agree_prices
from keeper.snapshot.registry import register, state_tree
from keeper.units import ChainId, ceil_div
from keeper.venue.book import accounts, funding
from keeper.venue.committee import last_block

MAX_DECISIONS = 512
"""Decisions of one view: a proposal with them stays far below the largest frame."""


class Tables(Protocol):
    """Where the account tables come from: the node's own index of final blocks."""

    def at(self, ref: CutBlock) -> Table | None:
        """Return the table after exactly this block, or None when it is not (yet) held."""
        ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What stays the same during an epoch.

    Args:
        network, parameters: the descriptor, and what it says governance set at first.
        digest: keccak over both, inside the committee's config.
        epoch: committee epoch.
        config: digest of the committee: parent of the first block.
        members: addresses in order.
        faults, quorum: f and q.
        rules: decision rules in the order they derive.
        is_last: whether a snapshot of this epoch with this book is its last.
    """

    network: NetworkSpec
    parameters: Parameters
    digest: bytes
    epoch: int
    config: bytes
    members: tuple[bytes, ...]
    faults: int
    quorum: int
    rules: tuple[DecisionRule, ...]
    is_last: Callable[[Book], bool] = lambda book: False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot with what its children need.

    Args:
        header: the agreed header.
        book: the state handed on.
        decisions: this view's decisions in order.
        legs, margins: every account that holds something.
        root: decision root, what the committee seals.
        tree: the state tree; empty where the book was taken from a peer.
    """

    header: Header
    book: Book
    decisions: tuple[Decision, ...]
    legs: Mapping[bytes, tuple[Leg, ...]]
    margins: Mapping[bytes, AccountMargin]
    root: bytes
    tree: Tree = field(default_factory=Tree, compare=False, repr=False)

    def parameters(self, setting: Setting) -> Parameters:
        """Return the set that was in force."""
        return governed.in_force(setting.parameters, self.book.rules.get(governed.STATE, b""))

    @property
    def cut(self) -> dict[ChainId, CutBlock]:
        """The agreed block per chain."""
        return {ref.chain: ref for ref in self.header.cut}

    def leaves(self, setting: Setting) -> list[bytes]:
        """Return the leaves under the root: the header first, then the decisions in order."""
        return decision_leaves(setting, self.header, self.decisions)


@dataclass(frozen=True, slots=True)
class Lacking:
    """What this node does not hold yet: blocks of its own index, or bodies by hash."""

    blocks: tuple[CutBlock, ...] = ()
    bodies: frozenset[bytes] = frozenset()


def genesis(setting: Setting) -> Snapshot:
    """Return the state before the first view."""
    rules = {rule.name: rule.initial() for rule in setting.rules} | {governed.STATE: b""}
    book = replace(EMPTY_BOOK, rules=rules)
    zero = bytes(32)
    header = Header(
        VERSION,
        setting.epoch,
        0,
        0,
        setting.config,
        setting.digest,
        (),
        zero,
        zero,
        zero,
        book.hash(),
        Totals(0, 0, 0, 0),
    )
    return Snapshot(header, book, (), {}, {}, zero)


def decision_leaves(setting: Setting, header: Header, decisions: Sequence[Decision]) -> list[bytes]:
    """Return the Header leaf, then one leaf a decision."""
    top = header_leaf(setting.network.id, header.epoch, header.view, header.hash())
    return [top, *(decision.leaf for decision in decisions)]


def derive(
    setting: Setting,
    tables: Tables,
    parent: Snapshot,
    view: int,
    tick: int,
    observed: Sequence[Observed],
    bodies: Mapping[bytes, bytes],
) -> tuple[Snapshot, dict[bytes, bytes]] | Lacking:
    """Return the next snapshot and the bodies it needs attached, or what is missing for it.

    Args:
        setting: the epoch's constants.
        tables: this node's own index.
        parent: the snapshot built on.
        view: the view decided.
        tick: its tick.
        observed: ≥ q observations of that tick, by member.
        bodies: candidates for attachment, by hash.
    """
    if parent.header.epoch == setting.epoch and setting.is_last(parent.book):
        return _after_the_last(setting, parent, view, tick), {}
    context = _context(setting, tables, parent, view, tick, observed)
    if isinstance(context, Lacking):
        return context
    before = {rule.name: rule.initial() for rule in setting.rules} | dict(parent.book.rules)
    wanted: set[bytes] = set()
    for rule in setting.rules:
        wanted |= rule.wanted(context, before[rule.name])
    absent = frozenset(wanted - bodies.keys())
    if absent:
        return Lacking(bodies=absent)
    attachments = {digest: bodies[digest] for digest in sorted(wanted)}
    context = replace(context, attachments=attachments)
    states = {governed.STATE: context.governed}
    made: list[Decision] = []
    for rule in setting.rules:
        states[rule.name], decisions = rule.derive(context, before[rule.name])
        made += decisions
        context = replace(context, outstanding=context.outstanding + decisions)
    return _assemble(setting, parent, context, states, made), attachments


def _after_the_last(setting: Setting, parent: Snapshot, view: int, tick: int) -> Snapshot:
    """Return a snapshot that decides nothing: it only helps the last one to become final."""
    header = replace(parent.header, view=view, tick=tick, previous=parent.header.hash())
    root = merkle_root(decision_leaves(setting, header, ()))
    return replace(parent, header=header, decisions=(), root=root)


def _inherited(
    setting: Setting, parent: Snapshot, tables: Mapping[ChainId, Table]
) -> tuple[Decision, ...]:
    """Return what was in flight after the parent.

    Seals of another epoch end with its key, on each chain in its own block.
    """
    epoch, flying = parent.header.epoch, parent.book.outstanding
    if epoch == setting.epoch:
        return flying
    ends = {
        spec.id: last_block(spec, tables[spec.id], epoch)
        for spec in setting.network.chains
        if spec.id in tables
    }
    return tuple(
        replace(one, expiry=min(one.expiry or end, end))
        if (end := ends.get(one.chain)) is not None
        else one
        for one in flying
    )


def _context(
    setting: Setting,
    tables: Tables,
    parent: Snapshot,
    view: int,
    tick: int,
    observed: Sequence[Observed],
) -> Context | Lacking:
    network = setting.network
    cut = choose_cut(
        [chain.id for chain in network.chains],
        parent.cut,
        observed,
        faults=setting.faults,
        quorum=setting.quorum,
    )
    held: dict[ChainId, Table] = {}
    lacking = []
    for chain, ref in cut.items():
        table = tables.at(ref)
        if table is None:
            lacking.append(ref)
        else:
            held[chain] = table
    if lacking:
        return Lacking(blocks=tuple(lacking))
    now_ms = network.genesis_time_ms + tick * network.tick_ms
    state = governed.advance(
        parent.book.rules.get(governed.STATE, b""),
        network,
        held,
        now_ms // 1000,
        setting.parameters,
    )
    parameters = governed.in_force(setting.parameters, state)
    prices = agree_prices(
        sorted({feed.market for chain in network.chains for feed in chain.feeds}),
        parent.book.prices,
        observed,
        quorum=setting.quorum,
        now_ms=now_ms,
        max_age_ms=parameters.breakers.oracle_age_s * 1000,
    )
    legs = accounts(network, held, parent.book.rules)
    margins = _margins(network, parameters, legs, prices, held, cut, now_ms)
    return Context(
        network=network,
        parameters=parameters,
        governed=state,
        epoch=setting.epoch,
        view=view,
        tick=tick,
        now_ms=now_ms,
        faults=setting.faults,
        members=setting.members,
        cut=cut,
        tables=held,
        prices=prices,
        legs=legs,
        margins=margins,
        observed=tuple(observed),
        attachments={},
        outstanding=still_outstanding(_inherited(setting, parent, held), held, cut),
    )


def _margins(
    network: NetworkSpec,
    parameters: Parameters,
    legs: Mapping[bytes, tuple[Leg, ...]],
    prices: Mapping[bytes, Price],
    tables: Mapping[ChainId, Table],
    cut: Mapping[ChainId, CutBlock],
    now_ms: int,
) -> dict[bytes, AccountMargin]:
    """Return margins; an account with a leg that has no price yet has none, so nothing happens."""
    ages = {
        chain: max(0, ceil_div(now_ms - ref.timestamp * 1000, 1000)) for chain, ref in cut.items()
    }
    marks = Marks(
        {market: price.price_e8 for market, price in prices.items()},
        funding(network, tables),
        parameters.margin,
        ages,
    )
    engine = Engine(marks)
    margins: dict[bytes, AccountMargin] = {}
    for account in sorted(legs):
        try:
            margins[account] = engine.margin(engine.rows(legs[account]))
        except Unpriced:
            continue
    return margins


def _assemble(
    setting: Setting,
    parent: Snapshot,
    context: Context,
    states: Mapping[str, bytes],
    made: Sequence[Decision],
) -> Snapshot:
    decisions = tuple(sorted(made, key=lambda decision: decision.order))
    outstanding = context.outstanding
    if len(decisions) > MAX_DECISIONS or len(outstanding) > MAX_OUTSTANDING:
        raise AssertionError("rules made more decisions than their bounds allow")
    before = parent.book.registry
    registry = register(before, parent.legs, context.legs)
    tree = state_tree(parent.tree, before, registry)
    book = Book(context.prices, registry, dict(states), outstanding)
    margins = context.margins
    header = Header(
        VERSION,
        context.epoch,
        context.view,
        context.tick,
        parent.header.hash(),
        governed.digest_of(setting.digest, context.governed),
        tuple(context.cut[chain] for chain in sorted(context.cut)),
        merkle_root(price_leaves(context.prices)),
        tree.root,
        merkle_root(watch_leaves(context.parameters, context.epoch, margins)),
        book.hash(),
        Totals(
            sum(m.equity for m in margins.values()),
            sum(m.imr for m in margins.values()),
            sum(m.mmr for m in margins.values()),
            len(context.legs),
        ),
    )
    root = merkle_root(decision_leaves(setting, header, decisions))
    return Snapshot(header, book, decisions, context.legs, margins, root, tree)


def price_leaves(prices: Mapping[bytes, Price]) -> list[bytes]:
    """Return the leaves under the price root, by market."""
    return [price_leaf(market, prices[market].price_e8) for market in sorted(prices)]


def watched(parameters: Parameters, margins: Mapping[bytes, AccountMargin]) -> list[bytes]:
    """Return the accounts near their limit, by id."""
    limit = parameters.margin.watch_health_ppm
    return [
        account
        for account, margin in sorted(margins.items())
        if margin.requirement > 0 and margin.health_ppm < limit
    ]


def watch_leaves(
    parameters: Parameters, epoch: int, margins: Mapping[bytes, AccountMargin]
) -> list[bytes]:
    """Return the leaves under the watch root."""
    return [
        watch_leaf(account, m.equity, m.imr, m.mmr, m.health_ppm, epoch)
        for account in watched(parameters, margins)
        for m in (margins[account],)
    ]


def payload_bytes(snapshot: Snapshot, attachments: Mapping[bytes, bytes]) -> bytes:
    """Return what a proposal carries: header, decisions, attached bodies in hash order."""
    packed: bytes = msgpack.packb(
        [
            snapshot.header.to_row(),
            [decision_row(decision) for decision in snapshot.decisions],
            [attachments[digest] for digest in sorted(attachments)],
        ]
    )
    return packed
