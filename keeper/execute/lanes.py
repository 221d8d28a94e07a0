"""What a lane does next about one transaction: a pure decision over what the chain shows.

                    receipt of the action                receipt of the cancellation
    signed/sent ───────────────────────▶ mined           └─ final ─▶ superseded
        │  ▲ no receipt any more: reorg ──┘ └─ final ─▶ final
        │  └─ unknown to all nodes: send the same bytes again
        ├─ head of the line and stuck, or below the base fee: replace, same nonce, higher offer
        ├─ past its deadline: cancel by a self-transfer of the same nonce, then keep outbidding it
        └─ nonce used and final, by none of ours: superseded (the key is used elsewhere)

A lane is one account on one chain; its nonces are given out in the order tasks are signed. Unknown
is not failed: a task without a receipt is only ever closed by a final block.
"""

from dataclasses import dataclass

from keeper.chain.port import Fees, Receipt
from keeper.execute.fees import Offer, Schedule, bump, first, least_bump, within
from keeper.execute.intent import State
from keeper.execute.ledger import Attempt, Moved, Task
from keeper.reasons import Reason

MAX_IN_FLIGHT = 64
"""Signed but not final, per lane: what geth keeps for one account is 64 queued transactions."""

CANCEL_GAS = 21_000


@dataclass(frozen=True, slots=True)
class Facts:
    """What the chain shows about one task now.

    Args:
        head: newest agreed block number.
        final: newest final block number.
        nonce: transactions of the account mined at the head.
        nonce_final: the same at the final block.
        receipt: of whichever attempt is mined on the present chain.
        known: whether some node holds the newest attempt.
        market: present fees.
    """

    head: int
    final: int
    nonce: int
    nonce_final: int
    receipt: Receipt | None
    known: bool
    market: Fees


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class Record:
    """Write this into the ledger."""

    change: Moved


@dataclass(frozen=True, slots=True)
class Resend:
    """Broadcast these bytes again."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Replace:
    """Sign the same action again with a higher offer."""

    offer: Offer
    gas: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Sign a self-transfer that takes the nonce."""

    offer: Offer


Action = Wait | Record | Resend | Replace | Cancel


def decide(task: Task, facts: Facts, schedule: Schedule) -> Action:
    """Return what to do about a signed task."""
    if facts.receipt is not None:
        return _mined(task, facts.receipt, facts)
    if task.state is State.MINED:
        return Record(Moved(task.intent.key, State.SENT, detail="its block was retracted"))
    assert task.nonce is not None, "a signed task has a nonce"
    if facts.nonce_final > task.nonce:
        return Record(Moved(task.intent.key, State.SUPERSEDED, Reason.NONCE_TAKEN))
    if facts.nonce > task.nonce:
        return Wait()
    return _pending(task, facts, schedule)


def _mined(task: Task, receipt: Receipt, facts: Facts) -> Action:
    final = receipt.block.number <= facts.final
    key = task.intent.key
    cancels = any(each.cancels for each in task.attempts if each.hash == receipt.transaction)
    if cancels:
        if not final:
            return Wait()
        return Record(Moved(key, State.SUPERSEDED, Reason.PAST_DEADLINE, "cancelled", receipt))
    reason = None if receipt.succeeded else Reason.REVERTED
    if task.state is not State.MINED or task.outcome.block_hash != receipt.block.hash:
        return Record(Moved(key, State.MINED, reason, receipt=receipt))
    if final:
        return Record(Moved(key, State.FINAL, reason, receipt=receipt))
    return Wait()


def _pending(task: Task, facts: Facts, schedule: Schedule) -> Action:
    last = task.attempts[-1]
    age = facts.head - last.block
    line = facts.nonce == task.nonce
    if facts.head >= task.intent.deadline and not last.cancels:
        return Cancel(bump(schedule, facts.market, last.offer))
    if not facts.known and last.offer.max_fee >= facts.market.base:
        return Resend(last)
    if age >= schedule.patience and (line or last.offer.max_fee < facts.market.base):
        higher = _outbid_cancel if last.cancels else _outbid
        action = higher(task, facts, schedule)
        if action is not None:
            return action
    return Resend(last) if not facts.known else Wait()


def _outbid(task: Task, facts: Facts, schedule: Schedule) -> Replace | None:
    """Return a higher offer for the action, if its cap allows one that nodes accept."""
    last = task.attempts[-1]
    offer = bump(schedule, facts.market, last.offer)
    affordable = within(offer, last.gas, task.intent.fee_cap, facts.market)
    least = least_bump(schedule, last.offer)
    if affordable is None or affordable.max_fee < least.max_fee:
        return None
    return Replace(affordable, last.gas)


def _outbid_cancel(task: Task, facts: Facts, schedule: Schedule) -> Cancel | None:
    """Return a higher offer for the cancellation: up to the cap, or to what the market asks.

    A nonce that is never freed stops its lane, and an action past its deadline must not be mined
    later; but outbidding oneself at every block has to end somewhere.
    """
    offer = bump(schedule, facts.market, task.attempts[-1].offer)
    market = first(schedule, facts.market).max_fee
    ceiling = max(task.intent.fee_cap // CANCEL_GAS, market)
    return Cancel(offer) if offer.max_fee <= ceiling else None
