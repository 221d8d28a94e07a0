"""Collateral moves by atomic flows over three chains, on the route that is best at that moment.

price falls ─▶ an account nears liquidation ─▶ its owner takes reserve out of a vault ─▶ flows:
1  the cheapest maker's lane                    hub ─▶ venue
   somebody lets that maker lock and does not   (a deposit is at stake)
2  that lane is full now: over the third chain  hub ─▶ third ─▶ venue
   a breaker stops that maker
3  that lane is cursed: the next best           hub ─▶ venue
an order says what else must arrive, and by when: a keeper's filling policy delivers it
a long at one venue and a short at another are reduced by one flow, both or none
price falls on ─▶ the same position without flows is liquidated, this one is not
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from keeper.contracts import encode_call
from keeper.devnet.cluster import Cluster
from keeper.devnet.feeds import Feeds, markets_of
from keeper.devnet.ledgers import ChainFacts, read_chains, read_store
from keeper.devnet.parties import GAS, Floor, Party
from keeper.devnet.scenarios.flows_report import Ordered, Played, Story, make_report
from keeper.devnet.scenarios.hedge import Hedge, Reduced
from keeper.devnet.scenarios.liquidation import MARKET, all_sealed, cut_passed, quiet, until
from keeper.devnet.scenarios.report import AGES_S, unhealthy
from keeper.devnet.traders import FIRST_ACCOUNT, USD, Desk, Trader, make_trader
from keeper.devnet.wallet import Send
from keeper.errors import LocalError
from keeper.execute.intent import Lane
from keeper.execute.lane_keys import lane_address
from keeper.intent.deadline import MarginNeed, make_order
from keeper.intent.order import resolve
from keeper.margin.engine import AccountMargin, Engine
from keeper.margin.marks import Marks
from keeper.route.graph import Place
from keeper.route.quote import Request, check_quote
from keeper.settle.flow import ABORT, COMMIT
from keeper.settle.health import seconds_above
from keeper.settle.lanes import Condition, Offer, graph_of, owed
from keeper.settle.migration import delivering, legs_of, need, units_of
from keeper.settle.payments import payments
from keeper.settle.seen import deliveries, passages
from keeper.settle.terms import make_flow
from keeper.units import PPM, ChainId, symbol
from keeper.venue.book import accounts, funding
from keeper.venue.escrow import Flow, Leg, Terms
from keeper.venue.records import word

COLLATERAL, RESERVE, INVENTORY = 10_000 * USD, 40_000 * USD, 30_000 * USD
LEVERAGE_PPM = 6 * PPM
NEAR_PPM = 1_800_000
"""Health at which the owner acts: there is still time for the slowest route."""
TARGETS_PPM = (2_000_000, 2_300_000, 2_600_000)
STEP_PPM, MOST_STEPS = -10_000, 20
DEPOSIT_PPM = 10_000
ARM_S, LOCK_S = 60, 180
GRIEF_ARM_S, GRIEF_LOCK_S = 10, 30
"""Short times, for chains of one-second blocks whose third block back is final."""
GAP_PPB = 1_000_000
"""How far from the bound a peer lets a route be: fixed fees and whole units."""
GIVEN, ASKED = 2_000 * USD, 1_990 * USD
"""What the order gives on the hub, and asks for at the venue."""
ASSET = symbol("USDC")

Say = Callable[[str], None]


async def run(cluster: Cluster, say: Say) -> dict[str, Any]:
    """Play the scenario on a running cluster of three chains and return its report."""
    feeds = Feeds(cluster, markets_of(cluster))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeds.run)
        report = await _Stage(cluster, feeds, say).play()
        nursery.cancel_scope.cancel()
    return report


@dataclass
class _Stage:
    """The cast, and the steps of the story."""

    cluster: Cluster
    feeds: Feeds
    say: Say
    fillers: list[bytes] = field(default_factory=list)
    minted: dict[tuple[ChainId, bytes], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        cluster, price = self.cluster, self.feeds.prices[MARKET]
        self.owner, self.twin = (
            make_trader(cluster, at, COLLATERAL, LEVERAGE_PPM, price) for at in range(2)
        )
        names = ("near", "over", "on", "far", "griefer")
        self.near, self.over, self.on, self.far, self.griefer = (
            Party(name, cluster.hub.key(FIRST_ACCOUNT + 2 + at)) for at, name in enumerate(names)
        )
        self.makers = (self.near, self.over, self.on, self.far)
        self.hub, self.venue, self.third = sorted(cluster.chains)[:3]
        self.hedge = Hedge(cluster, 2 + len(names), price, (self.venue, self.third))
        traders = (Party("owner", self.owner.secret), Party("twin", self.twin.secret))
        self.floor = Floor(cluster, (*self.makers, self.griefer, *traders, self.hedge.party))
        near, over, on, far = (one.address for one in self.makers)
        self.offers = (
            Offer(near, self.hub, self.venue, ASSET, 300, 10_000, 20_000),
            Offer(over, self.hub, self.third, ASSET, 200, 12_000, 25_000),
            Offer(on, self.third, self.venue, ASSET, 200, 12_000, 25_000),
            Offer(far, self.hub, self.venue, ASSET, 900, 10_000, 20_000),
        )

    async def play(self) -> dict[str, Any]:
        """Play it all."""
        cluster = self.cluster
        await cluster.wait("a sealed view", all_sealed, 90)
        await self._open_positions()
        await self._draw_near()
        await self._take_reserve()
        committed = [await self._migrate("over the cheapest lane", TARGETS_PPM[0])]
        grief = await self._grief()
        committed.append(await self._migrate("past a lane without room", TARGETS_PPM[1], kill=True))
        await self._curse(self.over)
        committed.append(await self._migrate("past a cursed lane", TARGETS_PPM[2]))
        order = await self._order()
        pair, reduced = await self._reduce_pair()
        await self._fall_on()
        await self._finish(grief, ABORT, GRIEF_LOCK_S + 60)
        await quiet(cluster, "everything cleared", 120)
        self.say("reading chains and stores")
        facts = await read_chains(cluster)
        stores = [await read_store(one) for one in cluster.keepers]
        held = {
            (chain, who): await self.floor.held(chain, who)
            for chain in cluster.chains
            for who in self.floor.parties
        }
        story = Story(
            tuple(committed),
            grief,
            order,
            pair,
            reduced,
            self.hedge.positions(facts),
            {one.address: one.name for one in self.floor.parties.values()},
            self.owner.account,
            self.twin.account,
            self.minted,
            held,
        )
        return await make_report(self.floor, facts, stores, story)

    # before

    async def _open_positions(self) -> None:
        self.say("positions are opened, one pair of them hedged; makers hold funds on three chains")
        desk = Desk(self.cluster, [self.owner, self.twin])
        await desk.fund()
        await desk.deposit_and_ask()
        await self.hedge.ask()
        holdings = {
            (chain, maker.address): INVENTORY
            for chain in self.cluster.chains
            for maker in self.makers
        }
        holdings[self.hub, self.griefer.address] = 2 * INVENTORY
        holdings[self.hub, self.owner.owner] = RESERVE
        await self.floor.fund(holdings)
        self.minted = holdings
        await self._fund_keepers()
        await self._put_reserve()

        async def credited() -> bool:
            return await desk.credited() == 2 and await self.hedge.credited()

        await until("four certified credits", credited, 60)
        opened = await self.hedge.open()
        opened[self.venue] = [*opened[self.venue], *await desk.open()]
        for chain, sents in opened.items():
            last = max(sent.block for sent in sents)
            await self.cluster.wait("a cut with all", cut_passed(chain, last), 60)

    async def _fund_keepers(self) -> None:
        """Give every keeper's settlement account something to deliver from."""
        token, wallet = self.floor.token(self.venue), self.cluster.wallets[self.venue]
        self.fillers = [
            lane_address(one.keys.operator, Lane.SETTLEMENT)
            for one in self.cluster.keepers
            if one.keys is not None
        ]
        mints = [encode_call("DevToken", "mint", one, 2 * ASKED) for one in self.fillers]
        await wallet.send(*(Send(token, data, gas=GAS) for data in mints))

    async def _put_reserve(self) -> None:
        """Put the owner's reserve into another margin account of the same owner."""
        vault, token = self.floor.contract(self.hub, "Vault"), self.floor.token(self.hub)
        sends = [
            Send(token, encode_call("DevToken", "approve", vault, RESERVE), gas=GAS),
            Send(vault, encode_call("Vault", "deposit", 1, token, RESERVE), gas=GAS),
        ]
        await self.floor.send({self.hub: {self.owner.owner: sends}})

    async def _draw_near(self) -> None:
        """Let the price fall until the account is near its limit."""
        for _ in range(MOST_STEPS):
            margin = self._margin(await read_chains(self.cluster), self.owner)
            if margin.health_ppm < NEAR_PPM:
                self.say(
                    f"{MARKET} has fallen; the account's health is {margin.health_ppm / PPM:.2f}"
                )
                return
            await self.feeds.move(MARKET, STEP_PPM)
        raise LocalError("the account never came near its limit")

    async def _take_reserve(self) -> None:
        """Ask the reserve back, and wait for the keepers' certificate and the vault's limits."""
        vault, token = self.floor.contract(self.hub, "Vault"), self.floor.token(self.hub)
        owner = self.owner.owner
        data = encode_call("Vault", "request_withdraw", 1, token, RESERVE, owner)
        await self.floor.send({self.hub: {owner: [Send(vault, data, gas=GAS)]}})

        async def came() -> bool:
            return await self.floor.held(self.hub, owner) >= RESERVE

        await until("the release of the reserve", came, 90)
        self.say("the reserve has left its account by a certified release")

    # flows

    async def _migrate(self, why: str, target_ppm: int, *, kill: bool = False) -> Played:
        """Bring what lifts the account to a health, over the route that is best now."""
        facts = await read_chains(self.cluster)
        margin = self._margin(facts, self.owner)
        wanted = units_of(need(margin.equity, margin.requirement, target_ppm), 10**8, 6, 0)
        seconds = self._seconds(facts, margin)
        graph = graph_of(self.cluster.spec, await self._conditions(facts))
        places = (Place(self.hub, ASSET), Place(self.venue, ASSET))
        found = delivering(graph, Request(*places, wanted, seconds * 1000))
        if found is None:
            raise LocalError(f"no route brings {wanted} to the venue in {seconds} s")
        fault = check_quote(graph, found.request, found, GAP_PPB)
        if fault is not None:
            raise LocalError(f"a peer would refuse the route: {fault}")
        legs = legs_of(
            self.cluster.spec,
            found,
            owner=self.owner.owner,
            account=self.owner.account,
            deposit_ppm=DEPOSIT_PPM,
        )
        flow = await self._flow(legs, ARM_S, LOCK_S)
        chains = [hop.edge.destination.chain for hop in found.hops]
        self.say(f"{why}: {found.delivered} to {' → '.join(map(str, (self.hub, *chains)))}")
        await self.floor.enter(flow, "pledge")
        await self.floor.enter(flow, "prepare")
        if kill:
            await self._kill()
        played = Played(why, flow, COMMIT, 0, found, margin.health_ppm)
        await self._finish(played, COMMIT, 60)
        return played

    async def _kill(self) -> None:
        """End a keeper as a power loss would, and start it again: the flow does not need it."""
        victim = self.cluster.keepers[-1]
        victim.kill()
        if victim.process is not None:
            await victim.process.wait()
        await victim.start()
        self.say(f"keeper {victim.index} was killed while the flow waited, and starts again")

    async def _reduce_pair(self) -> tuple[Played, Reduced]:
        """Reduce a long and a short at two venues by one flow."""
        facts = await read_chains(self.cluster)
        reduced, legs = self.hedge.reduction(facts, self._engine(facts))
        flow = await self._flow(legs, 0, LOCK_S)
        self.say("a hedged pair is reduced at two venues, both sides or none")
        await self.floor.enter(flow, "prepare")
        played = Played(
            "that reduces a pair", flow, COMMIT, 0, None, reduced.plan.before.health_ppm
        )
        await self._finish(played, COMMIT, 60)
        return played, reduced

    async def _flow(self, legs: tuple[Leg, ...], arm_s: int, lock_s: int) -> Flow:
        committee = self.floor.contract(self.hub, "Committee")
        epoch = await self.floor.ask(self.hub, committee, "Committee", "current")
        now = await self.floor.now()
        terms = Terms(epoch, 0, now + arm_s if arm_s else 0, now + lock_s)
        return make_flow(self.cluster.spec.id, terms, legs, least_lock_s=lock_s - arm_s)

    async def _finish(self, played: Played, outcome: int, seconds: float) -> None:
        """Wait for a flow's outcome on every chain; then anyone pays what it says."""
        flow = played.flow

        async def settled() -> bool:
            return 0 not in (await self.floor.outcomes(flow)).values()

        await until(f"the outcome of the flow {played.why}", settled, seconds)
        if set((await self.floor.outcomes(flow)).values()) != {outcome}:
            raise LocalError(f"the flow {played.why} has another outcome")
        facts = await read_chains(self.cluster)
        tables = {chain: one.table for chain, one in facts.items()}
        await self.floor.call(payments(self.cluster.spec, tables, flow.id), self.twin.owner)

    async def _conditions(self, facts: Mapping[ChainId, ChainFacts]) -> dict[Offer, Condition]:
        """Read what every lane is like now."""
        tables = {chain: one.table for chain, one in facts.items()}
        promised = owed(self.cluster.spec, tables)
        limit = units_of(self.cluster.parameters.breakers.lane_capacity, 10**8, 6, 0)
        logs = {chain: one.logs for chain, one in facts.items()}
        times = {
            (chain, at): time for chain, one in facts.items() for at, time in one.times.items()
        }
        seen = deliveries(passages(self.cluster.spec, tables, logs, self.offers), times)
        return {
            offer: Condition(
                await self.floor.held(offer.destination, offer.maker),
                promised.get((Place(offer.destination, offer.asset), offer.maker), 0),
                limit,
                DEPOSIT_PPM,
                await self.floor.stopped(offer),
                seen[offer],
            )
            for offer in self.offers
        }

    async def _grief(self) -> Played:
        """Let somebody place a deposit, have a maker lock all it has, and then not lock."""
        near, griefer, spec = self.near.address, self.griefer.address, self.cluster.spec
        rest = await self.floor.held(self.venue, near)
        amount = rest * PPM // (PPM + DEPOSIT_PPM) - 1
        deposit = amount * DEPOSIT_PPM // PPM
        legs = tuple(
            Leg(
                chain=chain,
                escrow=self.floor.contract(chain, "Escrow"),
                payer=payer,
                token=spec.chain(chain).tokens[0].address,
                amount=amount,
                receiver=word(receiver),
                deposit=deposit,
            )
            for chain, payer, receiver in (
                (self.hub, griefer, near),
                (self.venue, near, griefer),
            )
        )
        flow = await self._flow(legs, GRIEF_ARM_S, GRIEF_LOCK_S)
        await self.floor.enter(flow, "pledge")
        await self.floor.enter(flow, "prepare", [near])
        self.say("somebody has the cheapest maker lock all it has, and does not lock")
        return Played("that nobody completes", flow, ABORT, 1, None, 0)

    async def _curse(self, maker: Party) -> None:
        """Let the third chain's breaker stop a maker."""
        scope = maker.address.ljust(32, b"\0")
        breaker = self.floor.contract(self.third, "Breaker")
        data = encode_call("Breaker", "pause", scope)
        await self.cluster.wallets[self.third].send(Send(breaker, data, gas=GAS))
        self.say(f"the breaker of chain {self.third} stops the maker of the second route")

    async def _order(self) -> Ordered:
        """Say what must arrive before the health can fall too low; keepers do the rest."""
        facts = await read_chains(self.cluster)
        seconds = self._seconds(facts, self._margin(facts, self.owner))
        spec, owner = self.cluster.spec, self.owner.owner
        settler, token = self.floor.contract(self.hub, "Intents"), self.floor.token(self.hub)
        wanted = MarginNeed(
            account=self.owner.account,
            chain=self.venue,
            settler=self.floor.contract(self.venue, "Intents"),
            vault=self.floor.contract(self.venue, "Vault"),
            token=self.floor.token(self.venue),
            amount=ASKED,
        )
        asked = make_order(wanted, token, GIVEN, await self.floor.now(), seconds)
        resolved = resolve(spec.id, self.hub, settler, user=owner, nonce=0, order=asked)
        struct = (asked.fill_deadline, asked.order_data_type, asked.order_data)
        sends = [
            Send(token, encode_call("DevToken", "approve", settler, GIVEN), gas=GAS),
            Send(settler, encode_call("Intents", "open", struct), gas=2 * GAS),
        ]
        self.say(f"an order asks for {ASKED} at the venue within {seconds} s")
        await self.floor.send({self.hub: {owner: sends}})

        async def paid() -> bool:
            return await self.floor.held(self.hub, settler) == 0

        await until("a delivery by a keeper, and its payment", paid, 90)
        return Ordered(resolved.order_id, GIVEN, ASKED, frozenset(self.fillers))

    # after

    async def _fall_on(self) -> None:
        """Let the price fall until the position without flows has to be liquidated."""
        for _ in range(MOST_STEPS):
            facts = await read_chains(self.cluster)
            prices = {symbol(name): price for name, price in self.feeds.prices.items()}
            sick = unhealthy(self.cluster, facts, prices)
            if self.owner.account in sick:
                raise LocalError("the account that flows had saved is unhealthy")
            if self.twin.account in sick:
                self.say("the same position without flows is below maintenance")
                return
            await self.feeds.move(MARKET, STEP_PPM)
        raise LocalError("the position without flows never fell below maintenance")

    def _engine(self, facts: Mapping[ChainId, ChainFacts]) -> Engine:
        """Return the margin model by the chains' own records and the published prices."""
        tables = {chain: one.table for chain, one in facts.items()}
        prices = {symbol(name): price for name, price in self.feeds.prices.items()}
        parameters = self.cluster.parameters.margin
        ages = dict.fromkeys(tables, AGES_S)
        return Engine(Marks(prices, funding(self.cluster.spec, tables), parameters, ages))

    def _margin(self, facts: Mapping[ChainId, ChainFacts], trader: Trader) -> AccountMargin:
        """Return a trader's margin."""
        tables, engine = {chain: one.table for chain, one in facts.items()}, self._engine(facts)
        return engine.margin(engine.rows(accounts(self.cluster.spec, tables)[trader.account]))

    def _seconds(self, facts: Mapping[ChainId, ChainFacts], margin: AccountMargin) -> int:
        """Return how long the account surely stays healthy.

        Raises:
            LocalError: not long enough for any route.
        """
        tables = {chain: one.table for chain, one in facts.items()}
        prices = {symbol(name): price for name, price in self.feeds.prices.items()}
        legs = accounts(self.cluster.spec, tables)[self.owner.account]
        seconds = seconds_above(self.cluster.parameters.margin, prices, legs, margin, PPM)
        if not seconds:
            raise LocalError("no time is left to move anything: the position has to be reduced")
        return seconds
