"""One act on a venue: its steps in order, each durable before it is sent, and what they earned.

    Act ─▶ step 1 ─▶ intent, written down ─▶ executor ─▶ receipt ─▶ step 2, sized by it ─▶ …
                                                         receipts ─▶ realised profit

A later step's amount is what the step before it really brought, never what was expected. After a
crash the same intents go to the executor again, which joins those it knows; so a seized collateral
is sold, and nothing is done twice. The gain is read from the receipts' transfers and fees, at the
prices of the view.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import msgpack

from keeper.chain.port import Receipt
from keeper.desk.venue import Venue
from keeper.errors import RemoteFault
from keeper.execute.intent import Intent, Lane, Mode, Outcome
from keeper.execute.profit import NATIVE, Coin, profit
from keeper.execute.service import Executor
from keeper.hashing import keccak
from keeper.plan import Plan, Step, check_plan
from keeper.reasons import Reason
from keeper.store import Store
from keeper.units import BlockNumber, Wei
from keeper.venue.port import Call
from policies import api
from policies.api import Act

DEADLINE_BLOCKS = 20
"""A liquidation that is not mined by then is another keeper's, or not worth it any more."""
MICRO_PER_WEI = 10**20
"""wei · price (10**-8 USD) per µUSD: 10**18 · 10**8 / 10**6."""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one act; µUSD.

    Args:
        task: its id.
        outcomes: of the steps tried.
        receipts: of the steps mined.
        predicted: the policy's word.
        realised: from the receipts.
        unpriced: coins that moved and have no price: `realised` is not known while there are any.
    """

    task: bytes
    outcomes: tuple[Outcome, ...]
    receipts: tuple[Receipt, ...]
    predicted: int
    realised: int
    unpriced: tuple[Coin, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether every step was mined and did not revert."""
        return bool(self.outcomes) and all(one.succeeded for one in self.outcomes)


@dataclass(frozen=True, slots=True)
class Begun:
    """An act under way: the act, its view, and the most that gas may cost a step, in wei."""

    act: Act
    view: int
    fee_cap: Wei

    def plan(self) -> Plan:
        """Return the act's plan.

        Raises:
            ValueError: its shape is wrong.
        """
        plan = api.plan_of(self.view, self.act)
        fault = check_plan(plan)
        if fault is not None:
            raise ValueError(fault)
        return plan


class ActStore:
    """Acts under way, and the intent of every step that was built."""

    def __init__(self, store: Store, venue: str) -> None:
        store.table(
            "desk_acts",
            1,
            "CREATE TABLE desk_acts (venue TEXT, task BLOB, body BLOB, PRIMARY KEY (venue, task))",
            "CREATE TABLE desk_intents (task BLOB, step TEXT, body BLOB, PRIMARY KEY (task, step))",
        )
        self._store, self._venue = store, venue
        self._encode = api.encoder().encode
        self._decode = api.decoder(Act)

    def begin(self, begun: Begun) -> None:
        """Write an act down."""
        body = msgpack.packb([self._encode(begun.act), begun.view, str(begun.fee_cap)])
        with self._store.durable() as rows:
            rows.execute(
                "INSERT OR REPLACE INTO desk_acts VALUES (?, ?, ?)",
                (self._venue, begun.act.task, body),
            )

    def open(self) -> list[Begun]:
        """Return the acts that were begun and not ended."""
        rows = self._store.read("SELECT body FROM desk_acts WHERE venue = ?", (self._venue,))
        found = []
        for (body,) in rows:
            act, view, cap = msgpack.unpackb(body)
            found.append(Begun(self._decode(act), view, Wei(int(cap))))
        return found

    def intent(self, task: bytes, step: str) -> tuple[bytes, bytes, int] | None:
        """Return (to, data, deadline) of a step that was built before."""
        rows = self._store.read(
            "SELECT body FROM desk_intents WHERE task = ? AND step = ?", (task, step)
        )
        if not rows:
            return None
        to, data, deadline = msgpack.unpackb(rows[0][0])
        return to, data, deadline

    def built(self, task: bytes, step: str, intent: Intent) -> None:
        """Write a step's intent down before it is submitted."""
        body = msgpack.packb([intent.to, intent.data, intent.deadline])
        with self._store.durable() as rows:
            rows.execute("INSERT INTO desk_intents VALUES (?, ?, ?)", (task, step, body))

    def end(self, task: bytes) -> None:
        """Forget an act: the executor's ledger has its story."""
        with self._store.durable() as rows:
            rows.execute("DELETE FROM desk_acts WHERE task = ?", (task,))
            rows.execute("DELETE FROM desk_intents WHERE task = ?", (task,))


def fee_cap_of(worth: int, coin_price: int) -> Wei:
    """Return the most a step's gas may cost in wei: what the act brings before gas, in µUSD."""
    return Wei(worth * MICRO_PER_WEI // coin_price) if coin_price > 0 else Wei(0)


async def execute(
    executor: Executor, venue: Venue, begun: Begun, keeper: bytes, acts: ActStore
) -> Done:
    """Run the steps of an act in order, and return what they earned; stop at the first failure.

    Raises:
        RemoteFault: the chain cannot be asked; the act stays open.
        ValueError: the plan, or a step of it, is not one of this venue's; the act has ended.
    """
    try:
        return await _steps(executor, venue, begun, keeper, acts)
    except ValueError:
        acts.end(begun.act.task)
        raise


async def _steps(
    executor: Executor, venue: Venue, begun: Begun, keeper: bytes, acts: ActStore
) -> Done:
    plan = begun.plan()
    live = executor.mode is Mode.LIVE
    if live:
        acts.begin(begun)
    outcomes: list[Outcome] = []
    receipts: list[Receipt] = []
    for step in plan.steps:
        key = keccak(plan.task + step.id.encode())
        known = acts.intent(plan.task, step.id)
        if known is None:
            call = _call(venue, step, receipts)
            head = await venue.chain.head()
            known = (call.to, call.data, head.ref.number + DEADLINE_BLOCKS)
        to, data, deadline = known
        intent = Intent(
            key=key,
            chain=step.chain,
            lane=Lane.URGENT,
            to=to,
            data=data,
            deadline=BlockNumber(deadline),
            fee_cap=begun.fee_cap,
            why=begun.act.why,
        )
        if live and acts.intent(plan.task, step.id) is None:
            acts.built(plan.task, step.id, intent)
        outcome = await executor.submit(intent, settled=False)
        outcomes.append(outcome)
        if not outcome.succeeded:
            break
        receipt = await venue.chain.receipt(outcome.transaction)
        if receipt is None:  # an endpoint behind, or a reorg: the next look goes on from here
            raise RemoteFault(f"chain {step.chain}", Reason.MISSING_BLOCK, "no receipt yet")
        receipts.append(receipt)
    if live:
        acts.end(plan.task)
    return _counted(venue, begun, keeper, outcomes, receipts)


def _call(venue: Venue, step: Step, receipts: Sequence[Receipt]) -> Call:
    """Return a step's call; whatever a plug-in wrote into the step is a `ValueError` at worst."""
    try:
        return venue.call(step, receipts)
    except (LookupError, TypeError) as error:
        raise ValueError(f"step {step.id!r}: {type(error).__name__} {error}") from error


def _counted(
    venue: Venue,
    begun: Begun,
    keeper: bytes,
    outcomes: Sequence[Outcome],
    receipts: Sequence[Receipt],
) -> Done:
    earned = profit(receipts, keeper, venue.coins)
    return Done(
        begun.act.task,
        tuple(outcomes),
        tuple(receipts),
        begun.act.profit,
        earned.usd_e6 + venue.credited(receipts),
        earned.unpriced,
    )


def coin_price_of(venue: Venue) -> int:
    """Return the price of the venue's native coin in 10**-8 USD, as of its last view."""
    return venue.coins[venue.chain.id, NATIVE].price_e8
