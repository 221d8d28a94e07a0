"""What a policy is shown of the network: a final snapshot, and this keeper's own books.

    snapshot ─▶ accounts near liquidation, prices, breakers ─┐
    competition ─▶ open tasks, free bond                     ├─▶ MarketView
    own purse ─▶ inventory      chain fees, coin ─▶ gas ─────┘

What is not known is left out, never guessed: a policy refuses what it has no price for. Subjects,
not tasks, are what bids name, so they are what the policy is given as task ids.
"""

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

import trio

from keeper.chain.port import Call, Chain
from keeper.clear import breakers
from keeper.compete.bidder import Wish
from keeper.compete.task import Task
from keeper.contracts import decode_result, encode_call
from keeper.desk.venue import gas_of
from keeper.errors import RemoteFault
from keeper.hashing import keccak
from keeper.legs import Leg, LegKind
from keeper.network import ChainSpec, NetworkSpec
from keeper.snapshot.derive import Setting, Snapshot, watched
from keeper.units import PPM, ChainId
from policies import api

BONUS_FIELD = 7
"""Of the struct `Market` in Perps.vy."""
GAS_UNITS = 400_000
"""What an execution costs at most, for the policy's estimate."""
LOOK_S = 2.0
FEES_KEPT_S = 30.0
"""Age at which a chain's fees are no longer believed: then no policy bids there."""


Place = tuple[ChainId, bytes, bytes]
"""(chain, venue, market)."""


async def bonuses_of(spec: ChainSpec, chain: Chain, markets: Collection[bytes]) -> dict[Place, int]:
    """Return what the reference venue of a chain pays for closing each market, ppm; fixed for ever.

    Raises:
        RemoteFault: the chain cannot be asked.
    """
    venue = spec.contract("Perps")
    if venue is None:
        return {}
    wanted = sorted(markets)
    reads = [Call(venue, encode_call("Perps", "market", market)) for market in wanted]
    answers = await chain.calls(reads, (await chain.head()).ref)
    return {
        (spec.id, venue, market): decode_result("Perps", "market", answer.output)[0][BONUS_FIELD]
        for market, answer in zip(wanted, answers, strict=True)
        if answer.ok
    }


class Costs:
    """What gas costs on every chain, and what its venue pays, as far as it is known.

    Args:
        network: the descriptor.
        chains: asked for their fees and terms.
        coins: per chain the market whose price is its native coin's.
        markets: whose terms are asked.
    """

    def __init__(
        self,
        network: NetworkSpec,
        chains: Mapping[ChainId, Chain],
        coins: Mapping[ChainId, bytes],
        markets: Collection[bytes],
    ) -> None:
        self._network, self._chains, self._coins = network, chains, coins
        self._markets = markets
        self._seen: dict[ChainId, tuple[int, float]] = {}
        self.bonuses: dict[Place, int] = {}

    async def run(self) -> None:
        """Ask the chains for their fees until cancelled."""
        async with trio.open_nursery() as nursery:
            for chain in self._chains.values():
                nursery.start_soon(self._follow, chain)

    async def _follow(self, chain: Chain) -> None:
        spec, asked = self._network.chain(chain.id), False
        while True:
            await self.look(chain)
            if not asked:
                with suppress(RemoteFault):
                    self.bonuses |= await bonuses_of(spec, chain, self._markets)
                    asked = True
            await trio.sleep(LOOK_S)

    async def look(self, chain: Chain) -> None:
        """Ask one chain; what it said before ages while it does not answer."""
        try:
            found = await gas_of(chain, 0)
        except RemoteFault:
            return
        self._seen[chain.id] = found.price_wei, trio.current_time()

    def coin_price(self, chain: ChainId, snapshot: Snapshot) -> int:
        """Return the agreed price of a chain's coin in 10**-8 USD, or 0 where there is none."""
        price = snapshot.book.prices.get(self._coins.get(chain, b""))
        return 0 if price is None or price.stale else price.price_e8

    def gas(self, snapshot: Snapshot) -> tuple[api.Gas, ...]:
        """Return the gas prices of chains whose fees and coin are known."""
        now = trio.current_time()
        found = []
        for chain, (price_wei, seen_at) in sorted(self._seen.items()):
            coin = self.coin_price(chain, snapshot)
            if coin and now - seen_at <= FEES_KEPT_S:
                found.append(api.Gas(chain, price_wei, coin))
        return tuple(found)


def market_view(
    setting: Setting,
    snapshot: Snapshot,
    tasks: Collection[Task],
    gas: tuple[api.Gas, ...],
    bonuses: Mapping[Place, int],
    bond_free: int,
    purse: bytes,
) -> api.MarketView:
    """Return the view of a final snapshot.

    Args:
        setting: the epoch's constants.
        snapshot: the final view.
        tasks: what may be bid for.
        gas: per chain where it is known.
        bonuses: what venues pay, ppm, where it is known.
        bond_free: of this keeper, in the bond's smallest unit.
        purse: this keeper's own account: its collateral is its inventory.
    """
    parameters = snapshot.parameters(setting)
    margin, per_unit = parameters.margin, parameters.competition.bond_per_unit
    decimals = {one.symbol: one.decimals for one in margin.markets}
    decimals |= {one.symbol: one.decimals for one in margin.assets}
    accounts = {task.target.account for task in tasks}
    accounts |= {purse, *watched(parameters, snapshot.margins)}
    return api.MarketView(
        view=snapshot.header.view,
        now_ms=setting.network.genesis_time_ms + snapshot.header.tick * setting.network.tick_ms,
        seed=int.from_bytes(keccak(snapshot.root)[:8], "big"),
        accounts=tuple(
            _account(snapshot, account)
            for account in sorted(accounts)
            if account in snapshot.margins
        ),
        prices=tuple(
            api.Price(market, price.price_e8, decimals[market], 0)
            for market, price in sorted(snapshot.book.prices.items())
            if not price.stale and market in decimals
        ),
        gas=gas,
        inventory=tuple(
            api.Holding(leg.chain, leg.market, api.Wide(leg.size))
            for leg in snapshot.legs.get(purse, ())
            if leg.kind is LegKind.COLLATERAL and leg.size > 0
        ),
        tasks=tuple(_task(task, per_unit, bonuses) for task in tasks),
        breakers=_breakers(snapshot),
        heads=tuple((ref.chain, ref.number) for ref in snapshot.header.cut),
        bond_free=bond_free // per_unit,
    )


def wishes_of(
    decisions: Iterable[api.Decision],
    tasks: Mapping[bytes, Task],
    standing: Collection[bytes] = (),
) -> list[Wish]:
    """Return what to bid as a policy asks: for tasks there are, from nothing to the agreed bonus.

    The venue may pay more than that least bonus, but a bid above it is refused by the rules; and a
    policy is a stranger's code, whose price may be any number.
    """
    found = []
    for act in decisions:
        task = tasks.get(act.task) if isinstance(act, api.Act) else None
        if isinstance(act, api.Act) and task is not None and act.price >= 0:
            price, near = min(act.price, task.bonus), act.task in standing
            found.append(Wish(act.task, price, task.value, profit=act.profit, standing=near))
    return found


def _breakers(snapshot: Snapshot) -> tuple[api.Breaker, ...]:
    raw = snapshot.book.rules.get("breakers")
    if raw is None:
        return ()
    board = breakers.decode(raw).board
    return tuple(
        api.Breaker(trip.scope, int(action), int(level))
        for trip in board
        for action, level in trip.grades
    )


def _task(task: Task, bond_per_unit: int, bonuses: Mapping[Place, int]) -> api.Task:
    target = task.target
    place = (target.chain, target.venue, target.market)
    least = task.bonus * PPM // max(1, task.value)
    return api.Task(
        task=target.subject,
        account=target.account,
        chain=target.chain,
        venue=target.venue,
        market=target.market,
        max_size=api.Wide(task.size),
        terms=(api.Term(target.market, bonuses.get(place, least)),),
        reserve=task.reserve,
        lock=task.lock // bond_per_unit,
        gas_units=GAS_UNITS,
    )


def _account(snapshot: Snapshot, account: bytes) -> api.Account:
    margin = snapshot.margins[account]
    legs: tuple[Leg, ...] = snapshot.legs.get(account, ())
    return api.Account(
        account,
        margin.equity,
        margin.imr,
        margin.mmr,
        margin.requirement,
        margin.health_ppm,
        b"".join(leg.pack() for leg in legs),
    )
