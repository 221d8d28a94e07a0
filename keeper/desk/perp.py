"""A Perpetual Protocol v2 market as a policy meets it.

    account value, requirement, size, notional of everybody ─▶ short? ─▶ liquidatable size, gas
    liquidate step ─▶ ClearingHouse.liquidate ─▶ receipt: the penalty, half of it the liquidator's

A liquidator takes the position over at the mark price. A liquidation that fails when tried at the
block (this keeper has no free collateral in the vault, say) is no task, and says why.
"""

from collections.abc import Iterable, Mapping, Sequence

from keeper.chain.port import BlockRef, Chain, Header, Log, Receipt
from keeper.chain.port import Call as Read
from keeper.desk.venue import WATCH_PPM, OpenTasks, account_of, gas_of, outputs, seed_of, user_of
from keeper.execute.profit import NATIVE, Coin, Price
from keeper.plan import Step
from keeper.units import PPM
from keeper.venue import perp_v2
from keeper.venue.port import Call
from policies import api
from policies.api import Account, MarketView, Task, Term, Wide

MOST = 64
"""Traders read whole in one block, the ill with the largest requirement first."""


class PerpVenue:
    """A Perpetual Protocol v2 market.

    Args:
        chain: where it is.
        market: which.
        keeper: address that takes positions over; it needs free collateral in the vault.
        coin_feed: aggregator of the native coin's price in 10**-8 USD.
    """

    def __init__(
        self, chain: Chain, market: perp_v2.Market, keeper: bytes, coin_feed: bytes
    ) -> None:
        self.chain, self._market, self._coin_feed = chain, market, coin_feed
        self._keeper = keeper
        self._held: dict[bytes, int] = {}
        self._tasks = OpenTasks(market.clearing + market.base)
        self._coin = 0
        self.near: tuple[tuple[int, bytes], ...] = ()
        self.refused = ""
        """Why the last liquidation tried at a block failed."""

    @property
    def addresses(self) -> tuple[bytes, ...]:
        """The clearing house."""
        return (self._market.clearing,)

    @property
    def topics(self) -> tuple[bytes, ...]:
        """Whoever holds a position has changed it."""
        return (perp_v2.POSITION_CHANGED,)

    @property
    def allowances(self) -> tuple[tuple[bytes, bytes], ...]:
        """None: what a liquidator needs is in the vault already."""
        return ()

    @property
    def coins(self) -> Mapping[Coin, Price]:
        """The price of gas: the fee is paid inside the venue."""
        return {(self._market.chain, NATIVE): Price(self._coin, 18)}

    def people(self, logs: Iterable[Log]) -> frozenset[bytes]:
        """Return who traded in this market."""
        return perp_v2.traders(self._market, logs)

    async def view(self, users: Sequence[bytes], head: Header) -> MarketView:
        """Return traders of the market below a health of 1.2, with their tasks."""
        at, market = head.ref, self._market
        reads = [
            perp_v2.feed_read(self._coin_feed),
            perp_v2.mark_read(market),
            *perp_v2.terms_reads(market),
        ]
        count = len(reads)
        for user in users:
            reads += perp_v2.account_reads(market, user)
        found = await outputs(self.chain, reads, at)
        self._coin = perp_v2.feed_of(found[0])
        mark, terms = perp_v2.mark_of(found[1]), perp_v2.terms_of(found[2:count])
        rows, tasks = [], []
        self._held.clear()
        self.refused = ""
        width = perp_v2.ACCOUNT_READS
        near: list[tuple[bool, int, bytes, perp_v2.Trader, int]] = []
        for place, user in enumerate(users):
            trader = perp_v2.trader_of(found[count + width * place : count + width * (place + 1)])
            health = trader.value * PPM // max(1, trader.requirement)
            if not trader.is_liquidatable:
                self._tasks.close(user)
            if trader.size and health < WATCH_PPM:
                ill = trader.is_liquidatable
                near.append((not ill, -trader.requirement, user, trader, health))
        self.near = tuple((health, user) for _, _, user, _, health in near)
        for _, _, user, trader, health in sorted(near, key=lambda one: one[:3])[:MOST]:
            rows.append(self._row(user, trader, health))
            if trader.is_liquidatable:
                task = await self._task(user, trader, terms, at)
                tasks += [task] if task is not None else []
        return MarketView(
            at.number,
            head.timestamp * 1000,
            seed_of(at),
            tuple(rows),
            (api.Price(market.asset, mark, perp_v2.DECIMALS, 0),),
            (),
            (await gas_of(self.chain, self._coin),),
            (),
            tuple(tasks),
            heads=((market.chain, at.number),),
        )

    def _row(self, user: bytes, trader: perp_v2.Trader, health: int) -> Account:
        (leg,) = perp_v2.legs_of(self._market, trader)
        self._held[user] = trader.size
        need = trader.requirement
        return Account(account_of(user), trader.value, need, need, need, health, leg.pack())

    async def _task(
        self, user: bytes, trader: perp_v2.Trader, terms: perp_v2.Terms, at: BlockRef
    ) -> Task | None:
        market = self._market
        read = perp_v2.liquidatable_read(market, user, trader.value * perp_v2.MICRO)
        (most,) = await outputs(self.chain, (read,), at)
        size = perp_v2.size_of(most)
        call = perp_v2.liquidation(market, user, size)
        ran = await self.chain.simulate(Read(call.to, call.data, self._keeper), at)
        if not ran.ok or not size:
            self.refused = ran.reason or "nothing can be closed"
            return None
        return Task(
            self._tasks.id_of(user, at),
            account_of(user),
            market.chain,
            market.clearing,
            market.asset,
            Wide(abs(size)),
            (Term(market.asset, terms.bonus_ppm, terms.margin_ppm),),
            0,
            0,
            ran.gas or perp_v2.LIQUIDATION_GAS,
        )

    def call(self, step: Step, before: Sequence[Receipt]) -> Call:
        """Return the call of a step.

        Raises:
            ValueError: the step is no liquidation of a trader of the last view, or comes second.
        """
        user = user_of(step)
        if before or user not in self._held:
            raise ValueError(f"step {step.id!r} is no liquidation of a trader in the view")
        self._tasks.close(user)
        return perp_v2.liquidate(self._market, step, user, self._held[user])

    def credited(self, receipts: Sequence[Receipt]) -> int:
        """Return the fees that were credited to the liquidator's margin account."""
        found = [perp_v2.closed(self._market, receipt.logs) for receipt in receipts]
        return sum(one.paid for one in found if one is not None)
