"""Amounts of the pool model against Uniswap v3's own quoter and router, to the wei."""

import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import pytest
import trio
from typer.testing import CliRunner, Result

from keeper import config
from keeper.chain.evm import EvmChain
from keeper.chain.finality import Depth
from keeper.cli.main import app
from keeper.errors import ConfigError, RemoteFault
from keeper.network import ChainSpec, NetworkSpec, Token
from keeper.route.files import graph_of, plain_lane
from keeper.route.reader import read_ticks
from keeper.route.ticks import TickBook, sell, sqrt_ratio, tick_at
from keeper.units import ChainId, symbol
from tests.support.anvil import anvil_binary, chain_of
from tests.support.policy_contracts import (
    CORE,
    LATER,
    MOST,
    Contract,
    Uniswap,
    Workshop,
    deploy_uniswap,
)
from tests.support.route_markets import lane as lane_of

pytestmark = [pytest.mark.anvil, pytest.mark.npm]
__all__ = ["anvil_binary"]
CHAIN = ChainId(31778)
POOL = "artifacts/contracts/UniswapV3Pool.sol/UniswapV3Pool.json"
WHOLE = 887_272


@dataclass
class Dex:
    shop: Workshop
    chain: EvmChain
    uniswap: Uniswap
    tokens: tuple[Contract, Contract]

    async def pool(self, fee: int, price: tuple[int, int], positions: Any) -> Contract:
        """Open a pool at token 1 per token 0, with positions (lower, upper, amount of each)."""
        first, second = self.tokens
        ends = (first.address, second.address, fee)
        root = isqrt((price[0] << 192) // price[1])
        await self.uniswap.positions.tx("createAndInitializePoolIfNecessary", *ends, root)
        for low, high, left, right in positions:
            order = (*ends, low, high, left, right, 0, 0, self.shop.me, LATER)
            await self.uniswap.positions.tx("mint", order)
        return self.shop.at(CORE, POOL, await self.uniswap.factory.call("getPool", *ends))

    async def read(self, pool: Contract, **limits: int) -> TickBook:
        return await read_ticks(self.chain, pool.raw, (await self.chain.head()).ref, **limits)

    async def quoted(self, fee: int, amount: int, down: bool) -> tuple[int, int]:
        """Return (bought, price after) of the real quoter."""
        sold, got = self.tokens if down else self.tokens[::-1]
        order = (sold.address, got.address, amount, fee, 0)
        found = await self.uniswap.quoter.call("quoteExactInputSingle", order)
        return int(found[0]), int(found[1])

    async def agree(self, book: TickBook, amounts: list[int]) -> int:
        """Compare both directions at every amount; return the most ticks crossed."""
        crossed = 0
        for amount in amounts:
            for down in (True, False):
                mine = sell(book, amount, down)
                theirs = await self.quoted(book.fee_ppm, amount, down)
                assert (mine.brought, mine.sqrt_price) == theirs, (amount, down)
                crossed = max(crossed, mine.crossed)
        return crossed


@asynccontextmanager
async def dex_of(binary: Path) -> AsyncIterator[Dex]:
    async with chain_of(binary, CHAIN) as anvil:
        chain = EvmChain(CHAIN, [anvil.url], Depth(1), attempt_s=10)
        shop = Workshop(anvil)
        try:
            left, right = await shop.token("A", 18), await shop.token("B", 6)
            if int(left.address, 16) > int(right.address, 16):
                left, right = right, left
            uniswap = await deploy_uniswap(shop, left.address)
            for token in (left, right):
                await token.tx("mint", 10**40)
                for spender in (uniswap.positions, uniswap.router):
                    await token.tx("approve", spender.address, MOST)
            yield Dex(shop, chain, uniswap, (left, right))
        finally:
            await chain.aclose()


async def test_amounts_equal_the_real_quoter_to_the_wei(anvil_binary: Path) -> None:
    async with dex_of(anvil_binary) as dex:
        chance = random.Random(3)
        crossed = []
        for fee, spacing, price in (
            (500, 10, (2000 * 10**6, 10**18)),
            (3000, 60, (1, 1)),
            (10_000, 200, (3, 10**9)),
        ):
            unit = isqrt(10**36 * price[1] // price[0])
            other = unit * price[0] // price[1]
            here = tick_at(isqrt((price[0] << 192) // price[1]))
            edge = WHOLE // spacing * spacing
            places = [(-edge, edge, unit // 50, other // 50)]
            for _ in range(9):
                half = chance.randint(1, 300) * spacing
                middle = (here + chance.randint(-8000, 8000)) // spacing * spacing
                places.append((middle - half, middle + half, unit * 3, other * 3))
            pool = await dex.pool(fee, price, places)
            book = await dex.read(pool, window=WHOLE)
            sizes = [1, 2, 1000, 10**30]
            for most in (unit, other):
                sizes += [int(most * 10 ** chance.uniform(-7, 1.5)) + 1 for _ in range(4)]
            crossed.append(await dex.agree(book, sizes))
        assert min(crossed) >= 6, crossed


async def test_a_swap_pays_what_was_computed_and_leaves_the_state_computed(
    anvil_binary: Path,
) -> None:
    async with dex_of(anvil_binary) as dex:
        places = [(-6000, 6000, 10**24, 10**24), (-60, 120, 10**24, 10**24)]
        pool = await dex.pool(3000, (1, 1), places)
        for amount, down in ((10**22, True), (5 * 10**23, False), (10**24, True), (7, False)):
            book = await dex.read(pool)
            computed = sell(book, amount, down)
            sold, got = dex.tokens if down else dex.tokens[::-1]
            before = await got.call("balanceOf", dex.shop.me)
            order = (sold.address, got.address, 3000, dex.shop.me, LATER, amount, 0, 0)
            await dex.uniswap.router.tx("exactInputSingle", order)
            assert await got.call("balanceOf", dex.shop.me) - before == computed.brought
            assert (await pool.call("slot0"))[0] == computed.sqrt_price

        # a price on a tick belongs to the range below it after a fall, and above it after a rise
        for tick, behind in ((-60, -61), (-120, -120), (-60, -60), (120, 120)):
            down = tick < 0 and behind != -60
            sold, got = dex.tokens if down else dex.tokens[::-1]
            ends = (sold.address, got.address, 3000, dex.shop.me, LATER)
            await dex.uniswap.router.tx("exactInputSingle", (*ends, 10**26, 0, sqrt_ratio(tick)))
            book = await dex.read(pool, window=WHOLE)
            assert (book.sqrt_price, book.tick) == (sqrt_ratio(tick), behind)
            await dex.agree(book, [1, 10**18, 10**23])


async def test_a_small_window_promises_less_and_a_wrong_state_other_amounts(
    anvil_binary: Path,
) -> None:
    async with dex_of(anvil_binary) as dex:
        pool = await dex.pool(500, (1, 1), [(-50_000, 50_000, 10**24, 10**24)])
        whole, small = await dex.read(pool, window=60_000), await dex.read(pool, window=2_600)
        amount = 10**25
        mine, short = sell(whole, amount, True), sell(small, amount, True)
        assert short.paid < mine.paid <= amount
        assert 0 < short.brought < mine.brought == (await dex.quoted(500, amount, True))[0]
        thin = replace(whole, fee_ppm=501)
        assert sell(thin, 10**20, True).brought != (await dex.quoted(500, 10**20, True))[0]
        with pytest.raises(RemoteFault, match="no Uniswap v3 pool"):
            await read_ticks(dex.chain, dex.tokens[0].raw, (await dex.chain.head()).ref)
        with pytest.raises(RemoteFault, match="more than 1"):
            await dex.read(pool, window=60_000, most=1)


async def test_pools_are_read_into_a_graph_and_quoted_to_the_wei(
    anvil_binary: Path, tmp_path: Path
) -> None:
    async with dex_of(anvil_binary) as dex:
        places = [(-6000, 6000, 10**24, 10**24), (-60, 120, 10**24, 10**24)]
        pool = await dex.pool(3000, (1, 1), places)
        await dex.shop.anvil.mine(3)
        text = config.render(
            mode="off", password_file="", p2p_port=0, bootstrap=(), http_port=1,
            endpoints={CHAIN: (dex.shop.anvil.url,)},
        )  # fmt: skip
        (tmp_path / "keeper.toml").write_text(text)
        names = zip((symbol("AAA"), symbol("BBB")), dex.tokens, strict=True)
        tokens = tuple(Token(name, token.raw, 18) for name, token in names)
        graph, lane = tmp_path / "graph.json", {"lanes": [plain_lane(lane_of(1))]}

        async def run(*words: str) -> Result:
            call = partial(CliRunner().invoke, app, ["route", *words])
            return await trio.to_thread.run_sync(call)

        async def pools(known: tuple[Token, ...]) -> Result:
            spec = NetworkSpec(bytes(32), 1, 500, CHAIN, (ChainSpec(CHAIN, (), known),))
            (tmp_path / "network.json").write_text(json.dumps(spec.to_json()))
            graph.write_text(json.dumps(lane))
            at = ("--pool", f"{CHAIN}:{pool.address}", "--home", str(tmp_path))
            return await run("pools", *at, "--graph", str(graph), "--json")

        stranger = await pools(tokens[:1])
        assert isinstance(stranger.exception, ConfigError)
        assert "no token of chain" in str(stranger.exception)
        graph.write_text((await pools(tokens)).output)
        kept = graph_of(graph.read_text(), "graph")
        assert kept.lanes == (lane_of(1),)
        for down in (True, False):
            start, end = ("AAA", "BBB") if down else ("BBB", "AAA")
            words = ["--from", f"{CHAIN}:{start}", "--to", f"{CHAIN}:{end}"]
            found = await run(
                "quote", "--graph", str(graph), *words, "--amount", str(10**22), "--json"
            )
            assert found.exit_code == 0, found.output
            bought, _ = await dex.quoted(3000, 10**22, down)
            assert json.loads(found.output)["plan"]["delivered"] == bought
