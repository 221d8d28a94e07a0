"""A policy at work on other people's venues: read, decide, execute, and count what came of it.

    chain reads at one block ─▶ MarketView ─▶ policy ─▶ Act ─▶ steps as intents ─▶ Executor
                                                                receipts ─▶ realised profit

The executor's mode decides how far it goes; nothing here holds a key. A later step's amount is what
the step before it really brought, never what was expected. The gain is read from the receipts'
transfers and fees, at the prices of the view.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from keeper.chain.port import BlockRef, Chain, Header, Receipt
from keeper.chain.port import Call as Read
from keeper.execute import fees
from keeper.execute.intent import Intent, Lane, Outcome
from keeper.execute.profit import NATIVE, Coin, Price, profit
from keeper.execute.service import SCHEDULES, Executor
from keeper.hashing import keccak
from keeper.legs import Leg
from keeper.plan import Step, StepKind
from keeper.units import PPM, BlockNumber, Wei
from keeper.venue import aave_v3, perp_v2, uniswap_v3
from keeper.venue.port import Call
from policies import api
from policies.api import Account, Act, MarketView, Task, Term, Wide

DEADLINE_BLOCKS = 50
WATCH_PPM = 1_200_000
DEPTH_SHARES = (64, 16, 8, 4, 2, 1)
SWAP_GAS = 160_000
"""Measured 126,002 within one pool."""
SWAP_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one act; µUSD."""

    outcomes: tuple[Outcome, ...]
    receipts: tuple[Receipt, ...]
    predicted: int
    realised: int

    @property
    def succeeded(self) -> bool:
        """Whether every step was mined and did not revert."""
        return bool(self.outcomes) and all(one.succeeded for one in self.outcomes)


class Venue(Protocol):
    """One venue on one chain as a policy meets it."""

    @property
    def coins(self) -> Mapping[Coin, Price]:
        """Prices of what receipts can move, as of the last view."""
        ...

    async def view(self, users: Sequence[bytes], number: int, now_ms: int) -> MarketView:
        """Return the view of users at the chain's head."""
        ...

    def call(self, step: Step, before: Sequence[Receipt]) -> Call:
        """Return the call of a step, given the receipts of those before it."""
        ...

    def credited(self, receipts: Sequence[Receipt]) -> int:
        """Return µUSD earned inside the venue, which no token transfer shows."""
        ...


def account_of(user: bytes) -> bytes:
    """Return the account id under which a stranger's address is shown to a policy."""
    return user.rjust(32, b"\0")


async def outputs(chain: Chain, reads: Sequence[Read], at: BlockRef) -> list[bytes]:
    """Return the answers to reads at one block; an empty one where the call reverted."""
    return [one.output if one.ok else b"" for one in await chain.calls(reads, at)]


async def execute(
    executor: Executor, chain: Chain, venue: Venue, act: Act, view: int, keeper: bytes
) -> Done:
    """Run the steps of an act in order, and return what they earned; stop at the first failure."""
    plan = api.plan_of(view, act)
    head = await chain.head()
    deadline = BlockNumber(head.ref.number + DEADLINE_BLOCKS)
    outcomes: list[Outcome] = []
    receipts: list[Receipt] = []
    for step in plan.steps:
        call = venue.call(step, receipts)
        intent = Intent(
            key=keccak(plan.task + step.id.encode()),
            chain=call.chain,
            lane=Lane.URGENT,
            to=call.to,
            data=call.data,
            deadline=deadline,
            fee_cap=Wei(10**18),
            why=act.why,
        )
        outcome = await executor.submit(intent, settled=False)
        outcomes.append(outcome)
        if not outcome.succeeded:
            break
        receipt = await chain.receipt(outcome.transaction)
        if receipt is None:
            break
        receipts.append(receipt)
    earned = profit(receipts, keeper, venue.coins).usd_e6 + venue.credited(receipts)
    return Done(tuple(outcomes), tuple(receipts), act.profit, earned)


async def _gas(chain: Chain, coin_price: int) -> api.Gas:
    market = await chain.fees()
    offer = fees.first(SCHEDULES[Lane.URGENT], market)
    return api.Gas(chain.id, market.base + offer.tip, coin_price)


class AaveVenue:
    """An Aave v3 pool, with Uniswap v3 pairs to sell what was seized."""

    def __init__(
        self,
        chain: Chain,
        market: aave_v3.Market,
        pairs: tuple[uniswap_v3.Pair, ...],
        keeper: bytes,
        coin: bytes,
    ) -> None:
        """Prepare the venue.

        Args:
            chain: where it is.
            market: the pool, with its reserves.
            pairs: one per collateral and debt that may be sold for each other.
            keeper: address that pays and is paid.
            coin: asset whose price is the native coin's.
        """
        self._chain, self._market, self._pairs = chain, market, pairs
        self._keeper, self._coin = keeper, coin
        self._prices: dict[bytes, int] = {}
        self._users: dict[bytes, bytes] = {}
        self._time = 0

    @property
    def coins(self) -> Mapping[Coin, Price]:
        """Prices of the reserves' tokens and of gas."""
        chain = self._market.chain
        found: dict[Coin, Price] = {
            (chain, one.token): Price(self._prices[one.asset], one.decimals)
            for one in self._market.reserves
        }
        found[chain, NATIVE] = Price(self._prices[self._coin], 18)
        return found

    async def view(self, users: Sequence[bytes], number: int, now_ms: int) -> MarketView:
        """Return users below a health of 1.2 with their tasks, own funds and the pools' depth."""
        head = await self._chain.head()
        self._time = head.timestamp
        at, market = head.ref, self._market
        prices = await outputs(self._chain, aave_v3.price_reads(market), at)
        self._prices = aave_v3.prices_of(market, prices)
        rows, tasks = [], []
        for user in users:
            found = await self._account(user, at)
            if found is None:
                continue
            row, task = found
            rows.append(row)
            self._users[row.account] = user
            if task is not None:
                tasks.append(task)
        return MarketView(
            number,
            now_ms,
            number,
            tuple(rows),
            tuple(
                api.Price(one.asset, self._prices[one.asset], one.decimals, 0)
                for one in market.reserves
            ),
            await self._depth(rows, at),
            (await _gas(self._chain, self._prices[self._coin]),),
            await self._funds(at),
            tuple(tasks),
            heads=((market.chain, at.number),),
        )

    async def _account(self, user: bytes, at: BlockRef) -> tuple[Account, Task | None] | None:
        market = self._market
        reads = (aave_v3.account_data_read(market, user), *aave_v3.account_reads(market, user))
        data, *rest = await outputs(self._chain, reads, at)
        health = aave_v3.health_of(data)
        if health >= WATCH_PPM:
            return None
        legs = aave_v3.legs_of(market, rest)
        packed = b"".join(leg.pack() for leg in sorted(legs, key=lambda leg: leg.key))
        row = Account(account_of(user), health - PPM, 0, 0, 0, health, packed)
        debts = [leg for leg in legs if leg.kind == api.DEBT]
        if health >= PPM or not debts:
            return row, None
        largest = max(debts, key=lambda leg: leg.size * self._unit(leg.market))
        name = market.pool + user + at.hash
        gas = await self._gas_of(user, legs, largest, at)
        task = Task(
            keccak(name),
            row.account,
            market.chain,
            market.pool,
            largest.market,
            Wide(2**100),
            tuple(
                Term(one.asset, one.bonus_ppm, one.threshold_ppm)
                for one in market.reserves
                if one.threshold_ppm
            ),
            0,
            0,
            gas + (SWAP_GAS if self._pairs else 0),
            close_ppm=aave_v3.close_ppm(health),
        )
        return row, task

    async def _gas_of(self, user: bytes, legs: list[Leg], debt: Leg, at: BlockRef) -> int:
        """Return the gas of liquidating a user's largest collateral, tried at the block."""
        held = [leg for leg in legs if leg.kind == api.COLLATERAL]
        if not held:
            return aave_v3.LIQUIDATION_GAS
        best = max(held, key=lambda leg: leg.size * self._unit(leg.market))
        call = aave_v3.liquidation(self._market, best.market, debt.market, user, debt.size // 4)
        ran = await self._chain.simulate(Read(call.to, call.data, self._keeper), at)
        return ran.gas if ran.ok and ran.gas else aave_v3.LIQUIDATION_GAS

    def _unit(self, asset: bytes) -> int:
        reserve = self._market.reserve(asset)
        scale: int = 10 ** (18 - reserve.decimals)
        return self._prices[asset] * scale

    async def _funds(self, at: BlockRef) -> tuple[api.Holding, ...]:
        reads = [_balance(one.token, self._keeper) for one in self._market.reserves]
        found = await outputs(self._chain, reads, at)
        return tuple(
            api.Holding(self._market.chain, one.asset, Wide(int.from_bytes(data[:32], "big")))
            for one, data in zip(self._market.reserves, found, strict=True)
        )

    async def _depth(self, rows: Sequence[Account], at: BlockRef) -> tuple[api.Depth, ...]:
        curves = []
        for pair in self._pairs:
            held = [
                leg.size
                for row in rows
                for leg in api.legs_of(row)
                if leg.kind == api.COLLATERAL and leg.market == pair.sold_asset
            ]
            most = max(held, default=0)
            sizes = [size for share in DEPTH_SHARES if (size := most // share)]
            found = await outputs(self._chain, uniswap_v3.quote_reads(pair, sizes), at)
            known = [(size, data) for size, data in zip(sizes, found, strict=True) if data]
            both = (self._prices[pair.sold_asset], self._prices[pair.bought_asset])
            points = uniswap_v3.depth_of(pair, [x for x, _ in known], [y for _, y in known], both)
            wide = tuple((Wide(size), impact) for size, impact in points)
            curves.append(api.Depth(pair.chain, pair.router, pair.sold_asset, wide))
        return tuple(curves)

    def call(self, step: Step, before: Sequence[Receipt]) -> Call:
        """Return the call of a step; a sale sells what the liquidation before it seized."""
        if step.kind is StepKind.LIQUIDATE:
            account = step.arg("account")
            assert isinstance(account, bytes)
            return aave_v3.liquidate(self._market, step, self._users[account])
        pair = next(one for one in self._pairs if one.sold_asset == step.arg("asset_in"))
        closed = aave_v3.closed(self._market, before[-1].logs) if before else None
        if closed is not None:
            step = _resized(step, closed.seized)
        return uniswap_v3.swap(pair, step, self._keeper, self._time + SWAP_SECONDS)

    def credited(self, receipts: Sequence[Receipt]) -> int:
        """Return nothing: Aave pays in tokens."""
        return 0 * len(receipts)


def _balance(token: bytes, owner: bytes) -> Read:
    return Read(token, keccak(b"balanceOf(address)")[:4] + owner.rjust(32, b"\0"))


def _resized(step: Step, amount: int) -> Step:
    """Return a sale of another amount that asks for the same price."""
    names = dict(step.args)
    before, least = names["amount"], names["least_out"]
    assert isinstance(before, int)
    assert isinstance(least, int)
    names |= {"amount": amount, "least_out": least * amount // before if before else 0}
    return replace(step, args=tuple(sorted(names.items())))


class PerpVenue:
    """A Perpetual Protocol v2 market."""

    def __init__(
        self,
        chain: Chain,
        market: perp_v2.Market,
        keeper: bytes,
        coin_price: Callable[[], Awaitable[int]],
    ) -> None:
        """Prepare the venue.

        Args:
            chain: where it is.
            market: which.
            keeper: address that takes positions over; it needs free collateral in the vault.
            coin_price: asked for the native coin's price, 10**-8 USD, at each view.
        """
        self._chain, self._market, self._coin_price = chain, market, coin_price
        self._keeper = keeper
        self._held: dict[bytes, int] = {}
        self._coin = 0

    @property
    def coins(self) -> Mapping[Coin, Price]:
        """The price of gas: the fee is paid inside the venue."""
        return {(self._market.chain, NATIVE): Price(self._coin, 18)}

    async def view(self, users: Sequence[bytes], number: int, now_ms: int) -> MarketView:
        """Return traders of the market with their tasks."""
        head: Header = await self._chain.head()
        at, market = head.ref, self._market
        self._coin = await self._coin_price()
        mark, *ratios = await outputs(
            self._chain, (perp_v2.mark_read(market), *perp_v2.terms_reads(market)), at
        )
        terms = perp_v2.terms_of(ratios)
        rows, tasks = [], []
        for user in users:
            found = await outputs(self._chain, perp_v2.account_reads(market, user), at)
            trader = perp_v2.trader_of(found)
            legs = perp_v2.legs_of(market, trader)
            if not legs:
                continue
            self._held[account_of(user)] = trader.size
            health = trader.value * PPM // max(1, trader.requirement)
            need = trader.requirement
            rows.append(
                Account(account_of(user), trader.value, need, need, need, health, legs[0].pack())
            )
            if trader.is_liquidatable:
                tasks.append(await self._task(user, trader, terms, at))
        price = api.Price(market.asset, perp_v2.mark_of(mark), perp_v2.DECIMALS, 0)
        return MarketView(
            number,
            now_ms,
            number,
            tuple(rows),
            (price,),
            (),
            (await _gas(self._chain, self._coin),),
            (),
            tuple(tasks),
            heads=((market.chain, at.number),),
        )

    async def _task(
        self, user: bytes, trader: perp_v2.Trader, terms: perp_v2.Terms, at: BlockRef
    ) -> Task:
        market = self._market
        read = perp_v2.liquidatable_read(market, user, trader.value * perp_v2.MICRO)
        (most,) = await outputs(self._chain, (read,), at)
        size = perp_v2.size_of(most)
        call = perp_v2.liquidation(market, user, size)
        ran = await self._chain.simulate(Read(call.to, call.data, self._keeper), at)
        return Task(
            keccak(market.clearing + market.base + user + at.hash),
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
        """Return the call of a step."""
        account = step.arg("account")
        assert isinstance(account, bytes)
        assert not before, "a liquidation here is one step"
        return perp_v2.liquidate(self._market, step, account[12:], self._held[account])

    def credited(self, receipts: Sequence[Receipt]) -> int:
        """Return the fees that were credited to the liquidator's margin account."""
        found = [perp_v2.closed(self._market, receipt.logs) for receipt in receipts]
        return sum(one.paid for one in found if one is not None)
