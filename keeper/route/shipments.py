"""This keeper's own transfers over bridges, from the wish to a final end. Pure.

    WANTED ──▶ SENT ──▶ ARRIVED          stored states say only what final blocks say, so that
      │          └────▶ RETURNED         a reorganisation has nothing to take back
      ▼
    DROPPED    never planned, or its transaction is closed and moved nothing
    FORGOTTEN  written off by the operator, from WANTED or SENT

A shipment is on disk before anything of it is sent, and the executor's task has a key made of its
id: after a crash the task says what became of it, and a shipment without one was never sent. What
has left the origin and not arrived at the blocks where balances are read is in flight; so nothing
is counted twice and nothing is missed, whatever is taken back below them.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from keeper.chain.port import Receipt
from keeper.hashing import keccak
from keeper.route.bridges.port import Bridge, Crossing, Stage, Transfer
from keeper.units import ChainId

MAX_PAYLOAD = 16 * 1024
"""Bytes kept of a transfer: a warp route's message has 141, and a bridge chooses how many."""
REST_MS = 15_000
"""Pause after a shipment that came to nothing; doubled each time."""
MAX_DOUBLINGS = 7
"""Half an hour at most: what failed may be mended."""

Place = tuple[ChainId, bytes]
"""(chain, asset)."""


class State(StrEnum):
    """Where a shipment is; the arrows are in the module's drawing."""

    WANTED = "wanted"
    SENT = "sent"
    ARRIVED = "arrived"
    RETURNED = "returned"
    DROPPED = "dropped"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True)
class Shipment:
    """One own transfer.

    Args:
        id: 32 bytes.
        task: what the policy called it.
        crossing, bridge, verifier: over which lane, and who can break it.
        amount: what is sent.
        brings: what the bridge's terms promised.
        value: of the amount in µUSD when it was decided, rounded up.
        decided_ms: node's clock, unix.
        p95_ms: of the lane when it was decided.
        first: newest final block of the destination then: no delivery can be before it.
        left_ms: when its transaction was first seen mined; 0: not yet.
        transfer: what the bridge says of it, once that is final.
        ended_ms: when its end was first seen; 0: it has none yet.
        timed: it was watched as it arrived, so its latency is a measurement.
        why: of the policy, and of the end.
        told: that it is late, or that something is wrong with it, was said.
    """

    id: bytes
    task: bytes
    crossing: Crossing
    bridge: bytes
    verifier: bytes
    amount: int
    brings: int
    value: int
    decided_ms: int
    p95_ms: int
    first: int
    why: str = ""
    state: State = State.WANTED
    left_ms: int = 0
    transfer: Transfer | None = None
    ended_ms: int = 0
    timed: bool = False
    told: bool = False

    @property
    def open(self) -> bool:
        """Return whether something can still happen."""
        return self.state in (State.WANTED, State.SENT)

    @property
    def origin(self) -> Place:
        """Return where it leaves."""
        return self.crossing.origin, self.crossing.asset

    @property
    def destination(self) -> Place:
        """Return where it arrives."""
        return self.crossing.destination, self.crossing.asset

    @property
    def arrives(self) -> int:
        """Return what is expected at the destination."""
        return self.brings if self.transfer is None else self.transfer.amount

    def key(self, place: int, last: bool) -> bytes:
        """Return the executor's key of its transaction at a place; the last one moves funds."""
        return keccak(b"shipment" + self.id + (b"" if last else place.to_bytes(4, "big")))

    @property
    def main_key(self) -> bytes:
        """Return the executor's key of the transaction that moves the funds."""
        return self.key(0, last=True)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an open shipment in one look.

    Args:
        planned: the executor has its task, or is about to.
        failed: the task is closed for good, and moved nothing.
        closed: the task is closed for good, and did what it should.
        left: the funds are gone from the origin's balance at the head that was read.
        receipt: of its transaction, where it is mined and could be read.
        newest: stage at the heads where balances are read.
        final: stage at final blocks.
        paid: the logs of final blocks prove the delivery; None: not looked for.
    """

    planned: bool = True
    failed: bool = False
    closed: bool = False
    left: bool = False
    receipt: Receipt | None = None
    newest: Stage = Stage.SENT
    final: Stage = Stage.SENT
    paid: bool | None = None


NOTHING = Facts()


def gone(one: Shipment, facts: Facts) -> bool:
    """Return whether the funds are no longer in the origin's balance."""
    return facts.left or facts.closed or one.state is State.SENT


def transfer_of(
    one: Shipment, bridge: Bridge, receipt: Receipt | None, account: bytes
) -> Transfer | None:
    """Return what a receipt shows was sent, or None: it must go to the own account."""
    if one.transfer is not None or receipt is None or not receipt.succeeded:
        return one.transfer
    for found in bridge.sent(one.crossing, receipt.logs):
        if found.recipient == account and found.amount > 0 and len(found.payload) <= MAX_PAYLOAD:
            return found
    return None


def advance(one: Shipment, facts: Facts, transfer: Transfer | None, now_ms: int) -> Shipment:
    """Return an open shipment after a look at it.

    Args:
        one: as it was.
        facts: of this look.
        transfer: what its receipt shows, by `transfer_of`.
        now_ms: the node's clock.
    """
    if one.left_ms == 0 and gone(one, facts):
        one = replace(one, left_ms=now_ms)
    if one.state is State.WANTED:
        if not facts.planned:
            return _ended(one, State.DROPPED, now_ms, "it was never sent")
        if facts.failed:
            return _ended(one, State.DROPPED, now_ms, "its transaction moved nothing")
        if not facts.closed or transfer is None:
            return one  # funds that left and that no log shows stay in flight, and become late
        one = replace(one, state=State.SENT, transfer=transfer)
    if facts.final is Stage.ARRIVED and facts.paid:
        return _ended(one, State.ARRIVED, now_ms, "")
    if facts.final is Stage.RETURNED:
        return _ended(one, State.RETURNED, now_ms, "the bridge gave it back")
    return one


def _ended(one: Shipment, state: State, now_ms: int, why: str) -> Shipment:
    text = f"{one.why}; {why}" if why else one.why
    return replace(one, state=state, ended_ms=now_ms, why=text)


def trouble(one: Shipment, facts: Facts, now_ms: int, patience: int) -> str:
    """Return what an operator should know of an open shipment, or nothing.

    Args:
        one: which.
        facts: of the newest look.
        now_ms: the node's clock.
        patience: multiples of the lane's 95th percentile to wait.
    """
    if not one.open:
        return ""
    if facts.final is Stage.ARRIVED and facts.paid is False:
        return "the bridge says it arrived, and no log shows that it was paid"
    if facts.closed and facts.receipt is not None and one.transfer is None:
        return "its transaction succeeded, and no log shows a transfer to this keeper"
    since = one.left_ms or one.decided_ms
    if now_ms - since > patience * one.p95_ms:
        return f"it takes {(now_ms - since) // 1000} s, more than {patience} times its usual most"
    return ""


@dataclass(frozen=True, slots=True)
class Stock:
    """One place as a policy is shown it."""

    available: int
    in_flight: int = 0
    reserved: int = 0


def stocks(
    balances: Mapping[Place, int],
    shipments: Iterable[Shipment],
    facts: Mapping[bytes, Facts],
    promised: Mapping[Place, int],
) -> dict[Place, Stock]:
    """Return what is at every place, and what comes there.

    What is about to leave no longer counts as available, so that its leaving changes nothing; what
    has arrived at the heads of the balances is no longer in flight. What a bridge gives back is
    until that is final.

    Args:
        balances: at those heads.
        shipments: those that ended count for nothing.
        facts: by id, at those heads.
        promised: what others of this keeper are about to spend.
    """
    held, coming = dict(balances), dict.fromkeys(balances, 0)
    for one in shipments:
        if not one.open:
            continue
        known = facts.get(one.id, NOTHING)
        left, stage = gone(one, known), known.newest
        if one.origin in held and (not left or stage is Stage.RETURNED):
            held[one.origin] -= one.amount
        if one.destination in coming and not (left and stage is Stage.ARRIVED):
            coming[one.destination] += one.arrives
    return {
        place: Stock(max(held[place], 0), coming[place], promised.get(place, 0))
        for place in sorted(balances)
    }


def effects(one: Shipment, facts: Facts) -> tuple[int, int]:
    """Return what a shipment took from its origin's stock, and brought to its destination's."""
    never = one.state is State.FORGOTTEN and one.left_ms == 0
    back = one.state in (State.DROPPED, State.RETURNED) or never
    there = one.open and gone(one, facts) and facts.newest is Stage.ARRIVED
    return (
        0 if back else one.amount,
        one.arrives if there or one.state is State.ARRIVED else 0,
    )


def resting_until(shipments: Iterable[Shipment], crossing: Crossing) -> int:
    """Return until when nothing may be tried over a crossing, unix ms: 0 if it may be now.

    Args:
        shipments: in the order they were decided.
        crossing: which.
    """
    failed, last = 0, 0
    for one in shipments:
        if one.crossing == crossing and not one.open:
            dropped = one.state in (State.DROPPED, State.RETURNED)
            failed, last = (failed + 1, one.ended_ms) if dropped else (0, 0)
    return last + REST_MS * 2 ** min(failed - 1, MAX_DOUBLINGS) if failed else 0


def exposure(shipments: Iterable[Shipment], verifier: bytes) -> int:
    """Return µUSD in flight behind a verifier."""
    return sum(one.value for one in shipments if one.open and one.verifier == verifier)


def sent_since(shipments: Iterable[Shipment], since_ms: int) -> tuple[int, int]:
    """Return (how many were decided since then, µUSD of those that left or still may)."""
    recent = [one for one in shipments if one.decided_ms > since_ms]
    return len(recent), sum(one.value for one in recent if one.state is not State.DROPPED)


def busy(shipments: Iterable[Shipment], facts: Mapping[bytes, Facts]) -> Collection[ChainId]:
    """Return the chains where one is about to leave: approvals of two would mix."""
    return {
        one.crossing.origin
        for one in shipments
        if one.open and not gone(one, facts.get(one.id, NOTHING))
    }
