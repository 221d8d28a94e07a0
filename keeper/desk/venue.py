"""What the desk asks of a venue that is not the network's own: reads in, views and calls out.

    logs ─▶ people      reads at one block ─▶ MarketView      step, receipts ─▶ Call ─▶ executor

Such a venue sells to whoever comes first: no award binds anybody, so nothing here is agreed with
other keepers. Answers are those of the chain port (a quorum of endpoints, at one block hash).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from keeper.chain.port import BlockRef, Chain, Header, Log, Receipt
from keeper.chain.port import Call as Read
from keeper.execute import fees
from keeper.execute.intent import Lane
from keeper.execute.profit import Coin, Price
from keeper.execute.service import SCHEDULES
from keeper.hashing import keccak
from keeper.plan import Step
from keeper.venue.port import Call
from policies import api
from policies.api import MarketView

WATCH_PPM = 1_200_000
"""Health below which an account is shown to a policy, and looked at in every block."""
READS = 512
"""Calls of one request: public endpoints refuse a thousand."""


class Venue(Protocol):
    """One venue on one chain as a policy meets it."""

    @property
    def chain(self) -> Chain:
        """Where it is."""
        ...

    @property
    def refused(self) -> str:
        """Why the venue refuses this keeper's liquidations, or an empty text."""
        ...

    @property
    def near(self) -> tuple[tuple[int, bytes], ...]:
        """(health, user) of everybody below `WATCH_PPM` whom the last view looked at."""
        ...

    @property
    def addresses(self) -> tuple[bytes, ...]:
        """Contracts whose events name the people who may have to be liquidated."""
        ...

    @property
    def topics(self) -> tuple[bytes, ...]:
        """Those events."""
        ...

    @property
    def coins(self) -> Mapping[Coin, Price]:
        """Prices of what receipts can move, as of the last view."""
        ...

    @property
    def allowances(self) -> tuple[tuple[bytes, bytes], ...]:
        """(token, spender) pairs without which its calls fail."""
        ...

    def people(self, logs: Iterable[Log]) -> frozenset[bytes]:
        """Return who, by these events, may owe something."""
        ...

    async def view(self, users: Sequence[bytes], head: Header) -> MarketView:
        """Return users near liquidation at a block, their tasks, prices, own funds and depth.

        Raises:
            RemoteFault: the chain cannot be asked.
            ValueError: a contract answers something else than its ABI says.
        """
        ...

    def call(self, step: Step, before: Sequence[Receipt]) -> Call:
        """Return the call of a step, given the receipts of those before it."""
        ...

    def credited(self, receipts: Sequence[Receipt]) -> int:
        """Return µUSD earned inside the venue, which no token transfer shows."""
        ...


class OpenTasks:
    """Task ids of a venue: one per user, the same from the block it fell ill in until it is done.

    Once a task was acted on, the next one of the same user has another id: an id is what the
    executor's ledger knows an act by.
    """

    def __init__(self, place: bytes) -> None:
        self._place = place
        self._ids: dict[bytes, bytes] = {}

    def id_of(self, user: bytes, at: BlockRef) -> bytes:
        """Return the id of a user's open task, made of the block if there is none yet."""
        return self._ids.setdefault(user, keccak(self._place + user + at.hash))

    def close(self, user: bytes) -> None:
        """Forget the user's task: it is healthy, or the task was acted on."""
        self._ids.pop(user, None)


def account_of(user: bytes) -> bytes:
    """Return the account id under which a stranger's address is shown to a policy."""
    return user.rjust(32, b"\0")


def user_of(step: Step) -> bytes:
    """Return the address behind a step's account.

    Raises:
        ValueError: the account is not one that `account_of` made.
    """
    account = dict(step.args).get("account")
    if not isinstance(account, bytes) or len(account) != 32 or any(account[:12]):
        raise ValueError(f"step {step.id!r} names no account of this venue")
    return account[12:]


async def outputs(chain: Chain, reads: Sequence[Read], at: BlockRef) -> list[bytes]:
    """Return the answers to reads at one block; an empty one where the call reverted."""
    found: list[bytes] = []
    for first in range(0, len(reads), READS):
        part = reads[first : first + READS]
        found += [one.output if one.ok else b"" for one in await chain.calls(part, at)]
    return found


async def gas_of(chain: Chain, coin_price: int) -> api.Gas:
    """Return what an urgent transaction's gas costs now, at a price of the chain's coin."""
    market = await chain.fees()
    offer = fees.first(SCHEDULES[Lane.URGENT], market)
    return api.Gas(chain.id, market.base + offer.tip, coin_price)


def seed_of(at: BlockRef) -> int:
    """Return a view's chance: the block's hash."""
    return int.from_bytes(at.hash[:8], "big")
