"""What a snapshot decides, and the shape of the rules that decide it.

    parent's book + agreed observations + agreed chain tables ──▶ rule ──▶ decisions, own new state

A rule is pure: every keeper derives the same decisions from the same inputs, and a proposal is
checked by deriving it again. A new kind of decision is a new class that satisfies `DecisionRule`;
nothing here or in the agreement changes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from keeper.legs import Leg
from keeper.margin.engine import AccountMargin
from keeper.network import ChainSpec, NetworkSpec
from keeper.observe.observation import ObservationBody
from keeper.observe.table import Table
from keeper.parameters import Parameters
from keeper.units import ChainId


@dataclass(frozen=True, slots=True)
class Decision:
    """One leaf under a seal: names chain, contract, account, amount and expiry; used once.

    Args:
        kind: the struct name of its leaf ("Credit", "Transfer", ...).
        chain: chain it is brought to.
        contract: 20-byte address that takes it.
        key: sorts decisions inside a kind; unique inside one snapshot.
        leaf: 32-byte double-keccak leaf.
        fields: what the contract call needs after seal and proof, in order.
        expiry: last block of `chain` in which it has an effect; 0 where it does not expire.
        holds: µUSD counted against accounts while the decision is outstanding.
    """

    kind: str
    chain: ChainId
    contract: bytes
    key: bytes
    leaf: bytes
    fields: tuple[int | bytes | tuple[bytes, ...], ...]
    expiry: int = 0
    holds: tuple[tuple[bytes, int], ...] = ()

    @property
    def order(self) -> tuple[str, bytes]:
        """Sort key of decisions under one root."""
        return (self.kind, self.key)


@dataclass(frozen=True, slots=True)
class CutBlock:
    """A block of one chain that the snapshot is cut at."""

    chain: ChainId
    number: int
    hash: bytes
    account_root: bytes
    timestamp: int


@dataclass(frozen=True, slots=True)
class Price:
    """An agreed price: 10**-8 USD; stale when fewer than a quorum saw a fresh one."""

    market: bytes
    price_e8: int
    stale: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """One member's observation as attached to the proposal."""

    member: int
    address: bytes
    body: ObservationBody


@dataclass(frozen=True, slots=True)
class Context:
    """Everything a rule may look at; the same for every keeper.

    Args:
        network: the descriptor.
        parameters: the set in force.
        governed: state of `keeper.snapshot.governed` after this view.
        epoch: committee epoch.
        view: the view being decided.
        tick: its tick.
        now_ms: unix milliseconds at which the tick starts: the only clock.
        faults: f, so that f + 1 reports contain an honest one.
        members: addresses of the committee in order.
        cut: the agreed block per chain.
        tables: the account table of every chain at its cut.
        prices: agreed price per market.
        legs: the legs of every account that has any, sorted inside.
        margins: the evaluated margin of every account with legs.
        observed: the attached observations, by member.
        attachments: bodies the proposal carries for hashes in the observations, by hash.
        outstanding: decisions sealed but not yet seen or expired, rules before this one included.
    """

    network: NetworkSpec
    parameters: Parameters
    governed: bytes
    epoch: int
    view: int
    tick: int
    now_ms: int
    faults: int
    members: tuple[bytes, ...]
    cut: Mapping[ChainId, CutBlock]
    tables: Mapping[ChainId, Table]
    prices: Mapping[bytes, Price]
    legs: Mapping[bytes, tuple[Leg, ...]]
    margins: Mapping[bytes, AccountMargin]
    observed: tuple[Observed, ...]
    attachments: Mapping[bytes, bytes]
    outstanding: tuple[Decision, ...]

    def seen_chains(self) -> Iterator[tuple[ChainSpec, Table]]:
        """Yield every chain of the network that the cut holds, with its table."""
        for spec in self.network.chains:
            table = self.tables.get(spec.id)
            if table is not None and spec.id in self.cut:
                yield spec, table


class DecisionRule(Protocol):
    """Derives one family of decisions; its state is canonical bytes, opaque to others."""

    @property
    def name(self) -> str:
        """Key of the rule's state in the book; never reused for another meaning."""
        ...

    def initial(self) -> bytes:
        """Return the state before the first view."""
        ...

    def wanted(self, context: Context, state: bytes) -> frozenset[bytes]:
        """Return hashes of bodies a proposal must attach for this rule; most rules need none."""
        ...

    def derive(self, context: Context, state: bytes) -> tuple[bytes, tuple[Decision, ...]]:
        """Return the next state and the decisions of this view, sorted by `order`."""
        ...
