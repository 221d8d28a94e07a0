"""An Aave v3 pool as a policy meets it, with Uniswap v3 pools to sell what was seized.

    getUserAccountData of everybody ─▶ near 1? ─▶ legs, task, gas tried at the block ─▶ view
    liquidate step ─▶ liquidationCall ─▶ receipt: what was seized ─▶ swap of exactly that

Health is the pool's own number. A task repays the largest debt; the policy picks the collateral.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from keeper.chain.port import BlockRef, Chain, Header, Log, Receipt
from keeper.chain.port import Call as Read
from keeper.desk.venue import WATCH_PPM, OpenTasks, account_of, gas_of, outputs, seed_of, user_of
from keeper.execute.profit import NATIVE, Coin, Price
from keeper.hashing import keccak
from keeper.legs import Leg
from keeper.plan import Step, StepKind
from keeper.units import PPM
from keeper.venue import aave_v3, uniswap_v3
from keeper.venue.port import Call
from policies import api
from policies.api import Account, MarketView, Task, Term, Wide

DEPTH_SHARES = (64, 16, 8, 4, 2, 1)
"""A depth curve has a point at each of these parts of the largest collateral in the view."""
MOST = 64
"""Accounts read whole in one block, the ill with the largest debts first: no dust crowds them."""
SWAP_GAS = 160_000
"""Measured 126,002 within one pool."""
SWAP_SECONDS = 600


class AaveVenue:
    """An Aave v3 pool, with Uniswap v3 pairs to sell what was seized.

    Args:
        chain: where it is.
        market: the pool, with its reserves.
        pairs: one per collateral and debt that may be sold for each other.
        keeper: address that pays and is paid.
        coin: asset whose price is the native coin's.
    """

    def __init__(
        self,
        chain: Chain,
        market: aave_v3.Market,
        pairs: tuple[uniswap_v3.Pair, ...],
        keeper: bytes,
        coin: bytes,
    ) -> None:
        self.chain, self._market, self._pairs = chain, market, pairs
        self._keeper, self._coin = keeper, coin
        self._prices: dict[bytes, int] = {}
        self._tasks = OpenTasks(market.pool)
        self._time = 0
        self.refused = ""
        self.near: tuple[tuple[int, bytes], ...] = ()

    @property
    def addresses(self) -> tuple[bytes, ...]:
        """The pool."""
        return (self._market.pool,)

    @property
    def topics(self) -> tuple[bytes, ...]:
        """Whoever owes has borrowed."""
        return (aave_v3.BORROW,)

    def people(self, logs: Iterable[Log]) -> frozenset[bytes]:
        """Return who borrowed."""
        return frozenset(aave_v3.borrowers(logs))

    @property
    def allowances(self) -> tuple[tuple[bytes, bytes], ...]:
        """The pool takes what is repaid, the router what is sold."""
        pool = tuple((one.token, self._market.pool) for one in self._market.reserves)
        return pool + tuple((one.sold, one.router) for one in self._pairs)

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

    async def view(self, users: Sequence[bytes], head: Header) -> MarketView:
        """Return users below a health of 1.2 with their tasks, own funds and the pools' depth."""
        self._time, at, market = head.timestamp, head.ref, self._market
        reads = [*aave_v3.price_reads(market)]
        count = len(reads)
        reads += [aave_v3.account_data_read(market, user) for user in users]
        found = await outputs(self.chain, reads, at)
        self._prices = aave_v3.prices_of(market, found[:count])
        near: list[tuple[bool, int, bytes, int]] = []
        for user, data in zip(users, found[count:], strict=True):
            health, owed = aave_v3.health_of(data), aave_v3.owed_of(data)
            if health >= PPM:
                self._tasks.close(user)
            if health < WATCH_PPM:
                near.append((health >= PPM, -owed, user, health))
        self.near = tuple((health, user) for _, _, user, health in near)
        rows, tasks = [], []
        for _, _, user, health in sorted(near)[:MOST]:
            row, task = await self._account(user, health, at)
            rows.append(row)
            tasks += [task] if task is not None else []
        return MarketView(
            at.number,
            head.timestamp * 1000,
            seed_of(at),
            tuple(rows),
            tuple(
                api.Price(one.asset, self._prices[one.asset], one.decimals, 0)
                for one in market.reserves
            ),
            await self._depth(rows, at),
            (await gas_of(self.chain, self._prices[self._coin]),),
            await self._funds(at),
            tuple(tasks),
            heads=((market.chain, at.number),),
        )

    async def _account(self, user: bytes, health: int, at: BlockRef) -> tuple[Account, Task | None]:
        market = self._market
        held = await outputs(self.chain, aave_v3.account_reads(market, user), at)
        legs = aave_v3.legs_of(market, held)
        packed = b"".join(leg.pack() for leg in sorted(legs, key=lambda leg: leg.key))
        row = Account(account_of(user), health - PPM, 0, 0, 0, health, packed)
        debts = [leg for leg in legs if leg.kind == api.DEBT]
        if health >= PPM or not debts:
            return row, None
        largest = max(debts, key=lambda leg: leg.size * self._unit(leg.market))
        gas = await self._gas_of(user, legs, largest, at)
        task = Task(
            self._tasks.id_of(user, at),
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
        ran = await self.chain.simulate(Read(call.to, call.data, self._keeper), at)
        return ran.gas if ran.ok and ran.gas else aave_v3.LIQUIDATION_GAS

    def _unit(self, asset: bytes) -> int:
        reserve = self._market.reserve(asset)
        scale: int = 10 ** (18 - reserve.decimals)
        return self._prices[asset] * scale

    async def _funds(self, at: BlockRef) -> tuple[api.Holding, ...]:
        reads = [_balance(one.token, self._keeper) for one in self._market.reserves]
        found = await outputs(self.chain, reads, at)
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
            found = await outputs(self.chain, uniswap_v3.quote_reads(pair, sizes), at)
            known = [(size, data) for size, data in zip(sizes, found, strict=True) if data]
            both = (self._prices[pair.sold_asset], self._prices[pair.bought_asset])
            points = uniswap_v3.depth_of(pair, [x for x, _ in known], [y for _, y in known], both)
            wide = tuple((Wide(size), impact) for size, impact in points)
            curves.append(
                api.Depth(pair.chain, pair.router, pair.sold_asset, wide, pair.bought_asset)
            )
        return tuple(curves)

    def call(self, step: Step, before: Sequence[Receipt]) -> Call:
        """Return the call of a step; a sale sells what the liquidation before it seized.

        Raises:
            ValueError: the step names a venue, an account or a pair that is not here.
        """
        if step.kind is StepKind.LIQUIDATE:
            user = user_of(step)
            self._tasks.close(user)
            return aave_v3.liquidate(self._market, step, user)
        wanted = (step.venue, step.arg("asset_in"), step.arg("asset_out"))
        pair = next(
            (x for x in self._pairs if (x.router, x.sold_asset, x.bought_asset) == wanted), None
        )
        if pair is None:
            raise ValueError(f"step {step.id!r} sells through no pool of this venue")
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
    if not isinstance(before, int) or not isinstance(least, int):
        raise TypeError("amounts are integers")
    names |= {"amount": amount, "least_out": least * amount // before if before else 0}
    return replace(step, args=tuple(sorted(names.items())))
