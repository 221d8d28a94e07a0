"""What a policy author imports: the typed, versioned, pure contract between a keeper and a policy.

    certified snapshot ──▶ MarketView ──▶ Policy.decide(view, state) ──▶ decisions, next state
                                          │ no clock but now_ms, no chance but seed,
                                          │ no key, no socket, no file

A policy is a pure function of agreed data, so any peer can replay it and a backtest runs the very
code that trades. Everything is an integer or bytes: money in µUSD, prices in 10**-8 USD, sizes in
10**-decimals of their asset, rates in ppm. Amounts that may exceed 64 bits are `Wide`. Frames are
msgpack; the layout of this file is version `API`, and a change of it is a change of that number: a
last field with a default is none, as older frames and records still decode.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

import msgspec

if TYPE_CHECKING:  # the child needs no plans, and dataclasses would add 15 ms to its start
    from keeper.plan import Plan

API = "1"
MAX_ACCOUNTS = 20_000
"""Accounts of one view: at 1 µs each to encode, more would hold the event loop over 20 ms."""
MAX_STATE_BYTES = 1 << 20
"""State a policy may carry from view to view: it crosses the pipe twice for each view."""
MAX_DECISIONS = 25_000
MAX_STEPS = 16
MAX_ALL_STEPS = 4_096
"""Steps of all decisions on one view: more would hold the event loop while they are collected."""
MAX_NAMES = 12
"""Named numbers, and named bytes, of one step."""
LEG_BYTES = 109


class Wide(int):
    """An integer that may need up to 128 bits: 16 bytes, big endian, signed, on the wire."""

    __slots__ = ()


class Kind(StrEnum):
    """What a policy decides about."""

    LIQUIDATION = "liquidation"
    ROUTING = "routing"
    DELEVERAGE = "deleverage"
    HEDGING = "hedging"
    FILLING = "filling"
    OBSERVER = "observer"


class Leg(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One holding of one account; `kind` is 0 collateral, 1 debt, 2 perp (size is signed)."""

    chain: int
    venue: bytes
    market: bytes
    kind: int
    size: int
    quote: int
    funding: int


COLLATERAL, DEBT, PERP = 0, 1, 2


class Account(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One account near liquidation, in µUSD as the sealed snapshot computed it.

    `legs` is packed, 109 bytes each in key order (see keeper/legs.py): most accounts of a view are
    looked at only by their numbers, so their legs are unpacked on demand by `legs_of`.
    """

    account: bytes
    equity: int
    imr: int
    mmr: int
    requirement: int
    health_ppm: int
    legs: bytes = b""


class Price(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The agreed price of a market or asset and how old its oldest accepted source is."""

    market: bytes
    price: int
    decimals: int
    age_ms: int
    confidence_ppm: int = 0


class Depth(msgspec.Struct, frozen=True, array_like=True):
    """What selling costs: (size in 10**-decimals, impact in ppm) rising in both."""

    chain: int
    venue: bytes
    market: bytes
    points: tuple[tuple[Wide, int], ...]
    bought: bytes = b""
    """The asset a sale is paid in; empty: whichever the task repays."""


class Gas(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Price of gas on a chain, and of its native coin in 10**-8 USD."""

    chain: int
    price_wei: int
    coin_price: int


class Holding(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """This keeper's own funds of one asset on one chain."""

    chain: int
    asset: bytes
    available: Wide
    in_flight: Wide = Wide(0)
    reserved: Wide = Wide(0)
    own: Wide | None = None
    """What own transfers brought here since the view before, less what they took; None: not known,
    as in the first view of a node's life."""


class BridgeQuote(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one lane of one bridge asks: fee, latency quantiles, security class, room left.

    `fee_ppm` and `fee_fixed` are taken from what goes in; `coin_cost` is gas and what the bridge
    asks in coin, worth so much of the asset.
    """

    bridge: bytes
    origin: int
    destination: int
    asset: bytes
    fee_ppm: int
    fee_fixed: int
    p50_ms: int
    p95_ms: int
    security: int
    capacity: Wide
    coin_cost: int = 0


class Breaker(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A tripped breaker; no entry means closed.

    `action` is 0 open, 1 increase, 2 withdraw, 3 reduce, 4 liquidate, 5 sign; `level` is 0 closed,
    1 slower, 2 stopped; an all-zero `scope` means everywhere.
    """

    scope: bytes
    action: int
    level: int
    until_ms: int = 0


class Term(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a venue pays for closing against one asset, and how much of it counts.

    `threshold_ppm` is a collateral's liquidation threshold, or the requirement that a perp's
    notional adds; a perp task whose size was agreed by all keepers leaves it at its default.
    """

    asset: bytes
    bonus_ppm: int
    threshold_ppm: int = 1_000_000


class Task(msgspec.Struct, frozen=True, array_like=True):
    """An open task, derived alike by every keeper from the sealed snapshot.

    `max_size` bounds what one execution may close, in the market's unit; `min_left` is the dust
    bound: leave at least that, or close it whole. `reserve`, `lock` and `fee` are µUSD.
    """

    task: bytes
    account: bytes
    chain: int
    venue: bytes
    market: bytes
    max_size: Wide
    terms: tuple[Term, ...]
    reserve: int
    lock: int = 0
    gas_units: int = 400_000
    min_left: Wide = Wide(0)
    deadline_ms: int = 0
    close_ppm: int = 1_000_000
    """Close factor: the largest share the venue lets one call close."""


class Order(msgspec.Struct, frozen=True, array_like=True):
    """An open order that whoever delivers it is paid for, as the sealed view shows it.

    Assets are symbols; `given` is paid on the origin for what is `asked` at the destination.
    """

    order: bytes
    origin: int
    destination: int
    settler: bytes
    """Who takes the delivery at the destination, 20 bytes."""
    given: bytes
    given_amount: Wide
    asked: bytes
    asked_amount: Wide
    deadline_ms: int
    """The last moment to deliver, by the destination's clock."""
    needed_ms: int = 0
    """Until when the margin account it goes into surely holds; 0: it goes elsewhere, or is well."""
    turn_ms: int = 0
    """When it is this keeper's turn: an earlier delivery would only race the others' gas."""


class MarketView(msgspec.Struct, frozen=True, array_like=True):
    """Everything a policy may know: the sealed snapshot, and this keeper's own books."""

    view: int
    now_ms: int
    """The only clock."""
    seed: int
    """The only source of chance."""
    accounts: tuple[Account, ...] = ()
    prices: tuple[Price, ...] = ()
    depth: tuple[Depth, ...] = ()
    gas: tuple[Gas, ...] = ()
    inventory: tuple[Holding, ...] = ()
    tasks: tuple[Task, ...] = ()
    breakers: tuple[Breaker, ...] = ()
    heads: tuple[tuple[int, int], ...] = ()
    """(chain, height) of the agreed cut."""
    bridges: tuple[BridgeQuote, ...] = ()
    bond_free: int = 0
    """µUSD of this keeper's bond that no award has locked."""
    orders: tuple[Order, ...] = ()


StepName = Literal[
    "liquidate",
    "reduce",
    "open",
    "repay",
    "deposit",
    "withdraw",
    "swap",
    "bridge",
    "transfer",
    "fill",
]
"""The values of keeper.plan.StepKind."""


class PlanStep(msgspec.Struct, frozen=True, array_like=True):
    """One effect on one chain; see keeper/plan.py. A step runs when all it `needs` are final."""

    id: str
    chain: int
    kind: StepName
    venue: bytes
    numbers: Annotated[tuple[tuple[str, Wide], ...], msgspec.Meta(max_length=MAX_NAMES)] = ()
    blobs: Annotated[tuple[tuple[str, bytes], ...], msgspec.Meta(max_length=MAX_NAMES)] = ()
    needs: tuple[str, ...] = ()
    rollback: str = ""


class Act(msgspec.Struct, frozen=True, tag="act"):
    """Do it: bid `price` µUSD for the task and, if awarded, run the steps."""

    task: bytes
    price: int
    size: Wide
    ttl_ms: int
    why: str
    profit: int = 0
    """µUSD expected after every cost but `price`."""
    steps: Annotated[tuple[PlanStep, ...], msgspec.Meta(max_length=MAX_STEPS)] = ()


class Skip(msgspec.Struct, frozen=True, tag="skip"):
    """Leave it, and say why."""

    task: bytes
    why: str


class Defer(msgspec.Struct, frozen=True, tag="defer"):
    """Ask again at `until_ms` of the view's clock."""

    task: bytes
    until_ms: int
    why: str


Decision = Act | Skip | Defer


class Manifest(msgspec.Struct, frozen=True):
    """What a policy says of itself; read in its own process.

    `config` is a frozen msgspec struct whose fields carry ranges and descriptions; a field whose
    `extra_json_schema` has `updatable: true` changes without a restart of the node.
    """

    kind: Kind
    config: type[msgspec.Struct]
    api: str = API
    budget_ms: int = 50
    mem_mb: int = 256
    wants: tuple[str, ...] = ()


class Policy(Protocol):
    """The contract.

    `state` is the only memory: it comes back with the next view, also after a restart, so a policy
    keeps nothing in itself.
    """

    manifest: ClassVar[Manifest]

    def __init__(self, config: Any) -> None: ...

    def decide(self, view: MarketView, state: bytes) -> tuple[Sequence[Decision], bytes]:
        """Return decisions on the view, and the state for the next one."""
        ...


class Request(msgspec.Struct, frozen=True, array_like=True):
    """Host to child."""

    view: MarketView
    state: bytes


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Child to host, once: the plug-in was loaded and configured."""

    api: str
    kind: Kind
    budget_ms: int
    mem_mb: int


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """Child to host: the decisions on one view."""

    view: int
    decisions: tuple[Decision, ...]
    state: bytes


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """Child to host: what the plug-in did, by name; the child ends after it."""

    cause: str
    detail: str


Reply = Ready | Answer | Fault


def _encode_wide(value: object) -> bytes:
    if isinstance(value, Wide):
        return int.to_bytes(value, 16, "big", signed=True)
    raise TypeError(f"a policy frame holds integers, bytes and text, not {type(value).__name__}")


def _decode_wide(kind: type, value: object) -> object:
    if kind is Wide and isinstance(value, int):
        return Wide(value)
    if kind is Wide and isinstance(value, bytes) and len(value) == 16:
        return Wide(int.from_bytes(value, "big", signed=True))
    raise ValueError(f"expected 16 bytes or an integer for {kind.__name__}")


def encoder() -> msgspec.msgpack.Encoder:
    """Return an encoder that knows `Wide`."""
    return msgspec.msgpack.Encoder(enc_hook=_encode_wide)


def decoder(kind: Any) -> Callable[..., Any]:
    """Return the strict decoding function of a frame type, from anything that is bytes."""
    return msgspec.msgpack.Decoder(kind, dec_hook=_decode_wide).decode


def legs_of(account: Account) -> tuple[Leg, ...]:
    """Return the account's legs, unpacked.

    Raises:
        ValueError: the packed bytes are not whole legs.
    """
    packed = account.legs
    if len(packed) % LEG_BYTES:
        raise ValueError(f"packed legs of {len(packed)} bytes are not a multiple of {LEG_BYTES}")
    return tuple(leg_at(packed, at) for at in range(0, len(packed), LEG_BYTES))


def leg_at(packed: bytes, at: int) -> Leg:
    """Return the leg whose packed form starts at a place."""
    number = int.from_bytes
    return Leg(
        number(packed[at : at + 8], "big"),
        packed[at + 8 : at + 28],
        packed[at + 28 : at + 60],
        packed[at + 60],
        number(packed[at + 61 : at + 77], "big", signed=True),
        number(packed[at + 77 : at + 93], "big", signed=True),
        number(packed[at + 93 : at + 109], "big", signed=True),
    )


def pack_legs(legs: Sequence[Leg]) -> bytes:
    """Return the packed form of legs, sorted by key (chain, venue, market, kind)."""
    return b"".join(
        leg.chain.to_bytes(8, "big")
        + leg.venue
        + leg.market
        + bytes((leg.kind,))
        + leg.size.to_bytes(16, "big", signed=True)
        + leg.quote.to_bytes(16, "big", signed=True)
        + leg.funding.to_bytes(16, "big", signed=True)
        for leg in sorted(legs, key=lambda leg: (leg.chain, leg.venue, leg.market, leg.kind))
    )


def plan_of(view: int, act: Act) -> "Plan":
    """Return the plan an `Act` asks for, in the form keeper/execute runs."""
    from keeper.plan import Plan, Step, StepKind
    from keeper.units import ChainId

    return Plan(
        view=view,
        task=act.task,
        steps=tuple(
            Step(
                id=step.id,
                chain=ChainId(step.chain),
                kind=StepKind(step.kind),
                venue=step.venue,
                args=tuple(
                    sorted(
                        [*((name, int(n)) for name, n in step.numbers), *step.blobs],
                        key=lambda item: item[0],
                    )
                ),
                needs=step.needs,
                rollback=step.rollback,
            )
            for step in act.steps
        ),
        why=act.why,
    )
