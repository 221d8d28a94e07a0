"""A drill on a copy of an Aave v3 pool: the collateral falls, and every borrower is liquidated.

    chain ──fork──▶ copy ─▶ price feeds replaced by ones we move ─▶ price falls step by step
                              each account below 1 ─▶ policy ─▶ executor, live ─▶ report line

The copy is a local chain that forks the one given; nothing is ever sent to the original. An account
counts as liquidated when its transaction succeeded and its health rose or its debt is gone. What
the policy declined is asked again a step lower, until it acts or the price has no further to fall.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.chain.port import BlockRef
from keeper.desk.aave import AaveVenue
from keeper.desk.act import ActStore, Begun, coin_price_of, execute, fee_cap_of
from keeper.desk.limits import act_fault, most_profit
from keeper.desk.settings import address_of, read_reserves
from keeper.desk.venue import outputs
from keeper.devnet.chains import Anvil, AnvilSpec, ensure_anvil, run_anvil
from keeper.drill.copies import constant_code
from keeper.drill.report import Drill, Line, Progress, silent
from keeper.errors import LocalError
from keeper.execute.intent import Lane, Mode
from keeper.execute.ledger import Ledger
from keeper.execute.service import Executor
from keeper.execute.signer import Signer
from keeper.hashing import keccak
from keeper.store import Store
from keeper.units import PPM, BlockNumber, ChainId, symbol
from keeper.venue import aave_v3
from policies.api import Act, MarketView, Skip
from policies.host import PolicyHost, PolicySpec

FALL_PPM = 30_000
"""One step of the price: 3 %, so an account is met just below 1, as in a real fall."""
MAX_STEPS = 60
"""0.97**60 is 16 % of the price at the start."""
ROUNDS = 6
"""Closes per account and price: a close factor of a half needs several."""
QUIET_BLOCKS = 6
"""Empty blocks after a close: a copy has no other senders, so a lane would bid against itself."""
FUNDS = 10**15
"""Units of each token the drill's keeper is given on the copy, times its decimals' scale."""


@dataclass(frozen=True, slots=True)
class Target:
    """What to drill.

    Args:
        url: endpoint of the chain to copy.
        chain: its id.
        market: the pool without reserves; they are read.
        tokens: (32-byte symbol, token address) of the reserves to look at.
        collateral: the asset whose price falls.
        first_block: where to look for borrowers from.
    """

    url: str
    chain: ChainId
    market: aave_v3.Market
    tokens: tuple[tuple[bytes, bytes], ...]
    collateral: bytes
    first_block: int = 0


def target_of(
    url: str,
    chain: int,
    contracts: tuple[str, str, str],
    tokens: Mapping[str, str],
    falls: str,
    first_block: int,
) -> Target:
    """Return a target from text.

    Raises:
        ValueError: an address has not 20 bytes, or the falling collateral is none of the tokens.
    """
    pool, data, oracle = (address_of(text) for text in contracts)
    if falls not in tokens:
        raise ValueError(f"{falls} is none of {', '.join(tokens)}")
    return Target(
        url,
        ChainId(chain),
        aave_v3.Market(ChainId(chain), pool, data, oracle),
        tuple((symbol(name), address_of(text)) for name, text in tokens.items()),
        symbol(falls),
        first_block,
    )


class _Floor:
    """The copy: its feeds move when told, and its keeper has funds."""

    def __init__(self, anvil: Anvil, chain: EvmChain, target: Target) -> None:
        self.anvil, self.chain, self.target = anvil, chain, target
        self.market = target.market
        self.keeper = Signer(anvil.key(9)).address
        self._start: dict[bytes, int] = {}
        self._feeds: dict[bytes, bytes] = {}

    async def head(self) -> BlockRef:
        return (await self.chain.head()).ref

    async def prepare(self) -> None:
        """Read the reserves, take over the feeds, and give the keeper funds and allowances."""
        target = self.target
        self.market = await read_reserves(self.chain, target.market, target.tokens)
        at = await self.head()
        prices = await outputs(self.chain, aave_v3.price_reads(self.market), at)
        self._start = aave_v3.prices_of(self.market, prices)
        for one in self.market.reserves:
            (data,) = await outputs(self.chain, [aave_v3.source_read(self.market, one.token)], at)
            self._feeds[one.asset] = aave_v3.source_of(data)
            await self._fund(one)

    async def _fund(self, reserve: aave_v3.Reserve) -> None:
        """Give the keeper a balance by writing the token's storage, where it can be found."""
        amount = FUNDS * 10**reserve.decimals
        at = await self.head()
        read = aave_v3.approve(self.market.chain, reserve.token, self.market.pool, 2**256 - 1)
        for slot in range(12):
            place = keccak(self.keeper.rjust(32, b"\0") + slot.to_bytes(32, "big"))
            before = await self._storage(reserve.token, place)
            await self._store(reserve.token, place, amount)
            if await self._balance(reserve.token) == amount:
                break
            await self._store(reserve.token, place, before)
        else:
            raise LocalError(
                "cannot give the drill's keeper a balance",
                where=f"token 0x{reserve.token.hex()} at block {at.number}",
                remedy="the token keeps balances in an unusual place; leave it out of the drill",
            )
        await self.anvil.rpc.call(
            "eth_sendTransaction",
            [
                {
                    "from": "0x" + self.keeper.hex(),
                    "to": "0x" + read.to.hex(),
                    "data": "0x" + read.data.hex(),
                }
            ],
        )
        await self.anvil.mine()

    async def _storage(self, token: bytes, place: bytes) -> int:
        where = ["0x" + token.hex(), "0x" + place.hex(), "latest"]
        return int(await self.anvil.rpc.call("eth_getStorageAt", where), 16)

    async def _store(self, token: bytes, place: bytes, value: int) -> None:
        where = ["0x" + token.hex(), "0x" + place.hex(), f"0x{value:064x}"]
        await self.anvil.rpc.call("anvil_setStorageAt", where)
        await self.anvil.mine()

    async def _balance(self, token: bytes) -> int:
        data = keccak(b"balanceOf(address)")[:4] + self.keeper.rjust(32, b"\0")
        answer = await self.chain.call(token, data, await self.head())
        return int.from_bytes(answer[:32], "big")

    async def fall(self, price_ppm: int) -> None:
        """Set the collateral's price to a share of where it started."""
        price = self._start[self.target.collateral] * price_ppm // PPM
        feed = "0x" + self._feeds[self.target.collateral].hex()
        await self.anvil.rpc.call("anvil_setCode", [feed, constant_code(price)])
        await self.anvil.mine()

    async def borrowers(self) -> tuple[bytes, ...]:
        """Return who ever borrowed from the pool and still owes."""
        logs = await self.chain.history(
            [self.market.pool],
            BlockNumber(self.target.first_block),
            await self.head(),
            [aave_v3.BORROW],
        )
        users = aave_v3.borrowers(logs)
        return tuple([user for user in users if await self.health(user) < 2**62])

    async def health(self, user: bytes) -> int:
        """Return a user's health factor in ppm; 2**62 when nothing is owed."""
        read = aave_v3.account_data_read(self.market, user)
        (data,) = await outputs(self.chain, [read], await self.head())
        return aave_v3.health_of(data)


class _Session:
    """One drill: the policy, the executor, and what each account came to."""

    def __init__(self, floor: _Floor, host: PolicyHost, executor: Executor, store: Store) -> None:
        self.floor, self.host, self.executor = floor, host, executor
        coin = floor.target.collateral
        self.venue = AaveVenue(floor.chain, floor.market, (), floor.keeper, coin)
        self.acts = ActStore(store, "drill")

    async def view(self, user: bytes) -> MarketView:
        return await self.venue.view([user], await self.floor.chain.head())

    async def close(self, user: bytes, price_ppm: int) -> Line:
        """Let the policy close one account at the present price."""
        before = health = await self.floor.health(user)
        predicted = realised = closes = 0
        why = "the policy saw no task"
        for _ in range(ROUNDS):
            view = await self.view(user)
            outcome = await self.host.outcome(view)
            acts = [one for one in outcome.decisions if isinstance(one, Act)]
            if not acts:
                skips = [one.why for one in outcome.decisions if isinstance(one, Skip)]
                why = outcome.fault or "; ".join(skips) or why
                break
            why = act_fault(view, acts[0])
            if why:
                break
            cap = fee_cap_of(most_profit(view, acts[0]), coin_price_of(self.venue))
            begun = Begun(acts[0], view.view, cap)
            done = await execute(self.executor, self.venue, begun, self.floor.keeper, self.acts)
            if not done.succeeded:
                why = f"{done.outcomes[-1].status.value}: {done.outcomes[-1].detail}"
                break
            closes += 1
            await self.floor.anvil.mine(QUIET_BLOCKS)
            predicted, realised = predicted + done.predicted, realised + done.realised
            health, why = await self.floor.health(user), acts[0].why
            if health >= PPM:
                break
        healed = closes > 0 and health > before
        name = "0x" + user.hex()
        return Line(name, healed, price_ppm, closes, predicted, realised, before, health, why)


async def drill(
    target: Target, spec: PolicySpec, cache: Path, progress: Progress = silent
) -> Drill:
    """Return the report of a drill on a copy of a chain.

    Args:
        target: what to copy and whom to liquidate.
        spec: the policy; it needs no swap to act, seized collateral is counted at the price.
        cache: where the local chain's binary is kept.
        progress: told (label, accounts done).

    Raises:
        LocalError: there is nobody to liquidate, or the copy cannot be made.
    """
    binary = await trio.to_thread.run_sync(ensure_anvil, cache)
    copy = AnvilSpec(target.chain, block_time_s=None, extra=("--fork-url", target.url))
    async with run_anvil(binary, copy) as anvil:
        chain = EvmChain(target.chain, [anvil.url], Depth(1), attempt_s=20)
        try:
            floor = _Floor(anvil, chain, target)
            await floor.prepare()
            users = await floor.borrowers()
            if not users:
                raise LocalError(
                    "nobody owes anything here", where=f"pool 0x{target.market.pool.hex()}",
                    remedy="check --pool and --from-block",
                )  # fmt: skip
            lines = await _fall(floor, spec, users, anvil.key(9), progress)
        finally:
            await chain.aclose()
    liquidated = sum(line.liquidated for line in lines)
    return Drill(len(users), liquidated, tuple(lines))


async def _fall(
    floor: _Floor, spec: PolicySpec, users: Sequence[bytes], key: bytes, progress: Progress
) -> list[Line]:
    """Lower the price step by step until every account was closed."""
    store, host = Store(":memory:"), PolicyHost(spec)
    keys = {(floor.market.chain, Lane.URGENT): lambda: key}
    chains = {floor.market.chain: floor.chain}
    executor = Executor(Ledger(store), chains, Mode.LIVE, keys, poll_s=0.02)
    done: dict[bytes, Line] = {}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(executor.run)
        await nursery.start(host.run)
        session = _Session(floor, host, executor, store)
        price_ppm = PPM
        for _ in range(MAX_STEPS):
            for user in users:
                closed = user in done and done[user].liquidated
                if closed or await floor.health(user) >= PPM:
                    continue
                done[user] = await session.close(user, price_ppm)
                progress("accounts", sum(line.liquidated for line in done.values()))
            if all(user in done and done[user].liquidated for user in users):
                break
            price_ppm = price_ppm * (PPM - FALL_PPM) // PPM
            await floor.fall(price_ppm)
        nursery.cancel_scope.cancel()
    store.close()
    never = "never fell below a health of 1"
    return [
        done.get(user, Line("0x" + user.hex(), False, price_ppm, 0, 0, 0, 0, 0, never))
        for user in users
    ]
