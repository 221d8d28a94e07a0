"""A drill on copies of a network's chains: prices move both ways until every position was closed.

    prices ─▶ one-member council: observe, derive ─▶ tasks ─▶ policy ─▶ bids ─▶ award ─▶ executor
      ▲ a step further while nobody is left to close                              │
      └──────────────────────── tables of the copies ◀────────────────────────────┘

The rules, the policy's process, the executor and the contracts are those of the node; only the
agreement has one member. Longs are met on the way down, shorts on the way up. An account counts as
liquidated when a close succeeded and it is healthy again, or holds no position any more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import trio

from keeper.clear.transfer import TransferRule
from keeper.compete.award import AwardRule
from keeper.compete.bidder import Bidder, Reserve
from keeper.compete.state import AwardState, OpenAward
from keeper.config import DEFAULT_COIN
from keeper.desk.venue import gas_of
from keeper.drill.copies import BOND_WEI, Copy, copies_of
from keeper.drill.council import Council
from keeper.drill.report import Drill, Line, Progress, silent
from keeper.errors import LocalError
from keeper.execute.intent import Intent, Lane, Mode, State
from keeper.execute.lanes import MAX_IN_FLIGHT
from keeper.execute.ledger import Ledger
from keeper.execute.service import Executor
from keeper.hashing import keccak
from keeper.legs import Leg, LegKind
from keeper.network import NetworkSpec
from keeper.node.market import Place, bonuses_of, market_view, wishes_of
from keeper.node.recorder import earned
from keeper.parameters import Parameters
from keeper.snapshot import governed
from keeper.snapshot.archive import Archive
from keeper.snapshot.decisions import Decision
from keeper.snapshot.derive import Setting, Snapshot, genesis
from keeper.store import Store
from keeper.units import PPM, BlockNumber, ChainId, Wei, symbol
from keeper.venue.book import system_accounts
from keeper.venue.calls import execute
from p2p.agreement.signing import EcdsaSigner
from policies import api
from policies.api import Act, Skip
from policies.host import PolicyHost, PolicySpec

STEP_PPM = 30_000
"""One step of the prices: 3 %, so an account is met just below its limit, as in a real fall."""
DOWN, UP = 60, 60
"""Steps each way: to 16 % of the start, and to six times of it."""
VIEWS = 40
"""Views at one price: a round takes three, and a market's window may hold closes back."""
ROUND_S = 60.0
PAUSE_S = 0.02


@dataclass(slots=True)
class Tally:
    """What one account came to."""

    closes: int = 0
    predicted: int = 0
    realised: int = 0
    price_ppm: int = PPM
    before_ppm: int = 0
    after_ppm: int = 0
    done: bool = False
    why: str = "never fell below its requirement"


class Session:
    """One drill: the council, the policy, the executor, and what each account came to."""

    def __init__(
        self,
        council: Council,
        host: PolicyHost,
        executor: Executor,
        ledger: Ledger,
        signer: EcdsaSigner,
        progress: Progress,
    ) -> None:
        self.council, self.host, self.executor, self.progress = council, host, executor, progress
        self._ledger = ledger
        setting = council.setting
        self.network, self._signer = setting.network, signer
        self.bidder = Bidder(
            self.network.id, setting.epoch, setting.config, signer.address, setting.parameters
        )
        self._apart = system_accounts(self.network)
        self._coin = coin_market(setting.parameters)
        self._acts: dict[bytes, Act] = {}
        self._run: set[bytes] = set()
        self.tallies: dict[bytes, Tally] = {}
        self.bonuses: dict[Place, int] = {}

    async def learn(self) -> None:
        """Read what the venues pay."""
        markets = [one.symbol for one in self.council.setting.parameters.margin.markets]
        for copy in self.council.copies.by_chain.values():
            self.bonuses |= await bonuses_of(copy.spec, copy.chain, markets)

    def find_people(self) -> None:
        """Take down everybody who holds a position."""
        for account, legs in self.council.snapshot.legs.items():
            if account not in self._apart and any(_is_open(leg) for leg in legs):
                self.tallies[account] = Tally()

    @property
    def left(self) -> int:
        """How many accounts were not liquidated yet."""
        return sum(not tally.done for tally in self.tallies.values())

    async def at_price(self, price_ppm: int) -> None:
        """Let the network work at the present prices until nothing is open any more."""
        for _ in range(VIEWS):
            state = await self.council.view()
            self._note(price_ppm)
            for body in self.bidder.follow(self.council.snapshot.header.view, state)[0]:
                self.council.bodies[keccak(body)] = body
            await self._execute(state)
            if state.collecting and state.tasks:
                await self._bid(state)
            if not (self.council.commits or state.awards or state.revealing):
                return  # nothing to close here, or the policy declines: ask again a step further

    def _note(self, price_ppm: int) -> None:
        """Look at how everybody is now."""
        snapshot = self.council.snapshot
        for account, tally in self.tallies.items():
            margin = snapshot.margins.get(account)
            still_open = any(_is_open(leg) for leg in snapshot.legs.get(account, ()))
            ill = margin is not None and not margin.healthy and still_open
            if ill and not tally.closes:
                assert margin is not None
                tally.before_ppm, tally.price_ppm = margin.health_ppm, price_ppm
            if tally.closes and not ill and not tally.done:
                tally.done = True
                tally.after_ppm = 0 if margin is None else margin.health_ppm
        self.progress("accounts", len(self.tallies) - self.left)

    async def _bid(self, state: AwardState) -> None:
        """Ask the policy, and commit to what it wants."""
        council = self.council
        view = market_view(
            council.setting,
            council.snapshot,
            state.tasks,
            await self._gas(),
            self.bonuses,
            BOND_WEI,
            self.network.account(self._signer.address),
        )
        outcome = await self.host.outcome(view)
        values = {task.target.subject: task for task in state.tasks}
        for decision in outcome.decisions:
            task = values.get(decision.task)
            if isinstance(decision, Act) and task is not None:
                self._acts[decision.task] = decision
            if isinstance(decision, Skip) and task is not None:
                tally = self.tallies.get(task.target.account)
                if tally is not None and not tally.closes:
                    tally.why = outcome.fault or decision.why
        commit = self.bidder.commit(
            state.collecting,
            wishes_of(outcome.decisions, values),
            Reserve(BOND_WEI, 0),
            keccak(b"salt" + state.collecting.to_bytes(8, "big")),
            self._signer.sign,
        )
        if commit is not None:
            council.commits.append(commit)

    async def _gas(self) -> tuple[api.Gas, ...]:
        price = self.council.snapshot.book.prices.get(self._coin)
        if price is None:
            return ()
        copies = self.council.copies.by_chain.values()
        return tuple([await gas_of(copy.chain, price.price_e8) for copy in copies])

    async def _execute(self, state: AwardState) -> None:
        """Carry out the awards of this view, each on its chain, in its window."""
        leaves = {decision.leaf: decision for decision in self.council.snapshot.decisions}
        for chain, copy in self.council.copies.by_chain.items():
            due = [
                award
                for award in state.awards
                if award.task.id not in self._run
                and award.leaf in leaves
                and award.task.target.chain == chain
            ]
            if not due:
                continue
            self._run |= {award.task.id for award in due}
            await copy.mine_to(min(award.start for award in due))
            async with trio.open_nursery() as nursery:
                done = trio.Event()
                nursery.start_soon(self._mine, copy, done)
                async with trio.open_nursery() as senders:
                    for award in due:
                        senders.start_soon(self._carry_out, copy, award, leaves[award.leaf])
                done.set()

    async def _mine(self, copy: Copy, done: trio.Event) -> None:
        """Mine a block whenever everything that can be sent has been, until all is done."""
        while not done.is_set():
            await trio.sleep(PAUSE_S)
            open_tasks = self._ledger.open_tasks(copy.spec.id, Lane.URGENT)
            sent = [task for task in open_tasks if task.state is State.SENT]
            if sent and len(sent) >= min(len(open_tasks), MAX_IN_FLIGHT):
                await copy.anvil.mine()
                self.executor.poke(copy.spec.id)

    async def _carry_out(self, copy: Copy, award: OpenAward, decision: Decision) -> None:
        seal, proof = self.council.certified(decision)
        purse = self.network.account(self._signer.address)
        call = execute(decision, seal, proof, award.task.size, purse)
        intent = Intent(
            key=award.task.id,
            chain=call.chain,
            lane=Lane.URGENT,
            to=call.to,
            data=call.data,
            deadline=BlockNumber(award.start + award.exclusive),
            fee_cap=Wei(10**18),
            why="drill",
        )
        with trio.move_on_after(ROUND_S) as scope:
            outcome = await self.executor.submit(intent, settled=False)
        tally = self.tallies.setdefault(award.task.target.account, Tally())
        if scope.cancelled_caught or not outcome.succeeded:
            tally.why = "not mined" if scope.cancelled_caught else outcome.detail
            return
        receipt = await copy.chain.receipt(outcome.transaction)
        act = self._acts.get(award.task.target.subject)
        if receipt is None or act is None:
            return
        tally.closes += 1
        tally.why = act.why
        price = self.council.snapshot.book.prices.get(self._coin)
        tally.predicted += act.profit - award.price
        tally.realised += earned(award, 0, receipt, 0 if price is None else price.price_e8)

    def report(self) -> Drill:
        """Return one line an account."""
        lines = tuple(
            Line(
                "0x" + account.hex(),
                tally.done,
                tally.price_ppm,
                tally.closes,
                tally.predicted,
                tally.realised,
                tally.before_ppm,
                tally.after_ppm,
                tally.why,
            )
            for account, tally in sorted(self.tallies.items())
        )
        return Drill(len(lines), sum(line.liquidated for line in lines), lines)


def _is_open(leg: Leg) -> bool:
    return leg.kind is LegKind.PERP and leg.size != 0


def coin_market(parameters: Parameters) -> bytes:
    """Return the market whose price stands for the native coin's: the default's, else the first."""
    markets = [one.symbol for one in parameters.margin.markets]
    return symbol(DEFAULT_COIN) if symbol(DEFAULT_COIN) in markets else markets[0]


async def drill(
    network: NetworkSpec,
    endpoints: Mapping[ChainId, str],
    spec: PolicySpec,
    cache: Path,
    parent: Snapshot | None = None,
    progress: Progress = silent,
) -> Drill:
    """Return the report of a drill on copies of a network's chains.

    Args:
        network: the descriptor.
        endpoints: of the chains to copy.
        spec: the policy.
        cache: where the local chains' binary is kept.
        parent: a node's newest snapshot, from whose book it goes on; None: nothing was cleared yet.
        progress: told (label, accounts liquidated).

    Raises:
        LocalError: nobody holds a position, or a copy cannot be made or read.
    """
    secret = keccak(b"drill" + network.id)
    signer = EcdsaSigner(secret)
    parameters = Parameters.decode(network.parameters)
    if parent is not None:
        parameters = governed.in_force(parameters, parent.book.rules.get(governed.STATE, b""))
    setting = Setting(
        network,
        parameters,
        network.digest(),
        1 if parent is None else parent.header.epoch,
        keccak(b"drill"),
        (signer.address,),
        faults=0,
        quorum=1,
        rules=(TransferRule(), AwardRule()),
    )
    async with copies_of(network, endpoints, cache) as copies, trio.open_nursery() as nursery:
        await copies.hire(secret)
        council = Council(copies, setting, _begin(setting, parent))
        store, host = Store(":memory:"), PolicyHost(spec)
        chains = {chain: copy.chain for chain, copy in copies.by_chain.items()}
        keys = {(chain, Lane.URGENT): lambda: secret for chain in chains}
        ledger = Ledger(store)
        executor = Executor(ledger, chains, Mode.LIVE, keys, poll_s=PAUSE_S)
        nursery.start_soon(executor.run)
        await nursery.start(host.run)
        session = Session(council, host, executor, ledger, signer, progress)
        await _both_ways(session)
        nursery.cancel_scope.cancel()
    store.close()
    return session.report()


def newest_of(store_file: Path) -> Snapshot | None:
    """Return the newest final snapshot in a node's database, or None before the first."""
    if not store_file.exists():
        return None
    store = Store(store_file, read_only=True)
    archive = Archive(store)
    newest, held = archive.newest(), archive.newest_book()
    store.close()
    if newest is None or held is None or newest.header.view != held[0]:
        return None
    return Snapshot(newest.header, held[1], newest.decisions, {}, {}, newest.root)


def _begin(setting: Setting, parent: Snapshot | None) -> Snapshot:
    """Return the state to go on from: a node's book without its competition, or an empty one.

    Its cut is left behind: a copy's blocks are its own from the fork on.
    """
    empty = genesis(setting)
    if parent is None:
        return empty
    kept = {**empty.book.rules, "transfer": parent.book.rules["transfer"]}
    return replace(
        parent, header=replace(parent.header, cut=()), book=replace(parent.book, rules=kept)
    )


async def _both_ways(session: Session) -> None:
    """Move all markets down and then up, a step at a time, until everybody was closed."""
    council = session.council
    start = {one.market: one.price_e8 for one in await council.copies.prices()}
    moving = {one.symbol for one in council.setting.parameters.margin.markets} & set(start)
    await council.copies.publish(start)
    await council.view()
    await session.learn()
    session.find_people()
    if not session.tallies:
        raise LocalError(
            "nobody holds a position here",
            where="the venues of the network",
            remedy="open some first",
        )
    for steps, factor in ((DOWN, PPM - STEP_PPM), (UP, PPM + STEP_PPM)):
        price_ppm = PPM
        for _ in range(steps):
            if not session.left:
                return
            price_ppm = price_ppm * factor // PPM
            moved = {market: start[market] * price_ppm // PPM for market in moving}
            await council.copies.publish({**start, **moved})
            await session.at_price(price_ppm)
