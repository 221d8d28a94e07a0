"""The main job: collateral on one chain secures positions on another, prices fall, keepers clear.

deposits on the hub ─▶ certified credit ─▶ positions at the venue
shock ─▶ tasks ─▶ bids ─▶ awards ─▶ liquidations ─▶ transfers on the hub     (a keeper is killed)
some close ─▶ their result is cleared ─▶ certified withdrawals
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import trio

from keeper.devnet.cluster import Cluster
from keeper.devnet.feeds import Feeds, markets_of
from keeper.devnet.ledgers import read_chains, read_store
from keeper.devnet.scenarios.report import Story, make_report, unhealthy
from keeper.devnet.traders import Desk, Trader, make_traders
from keeper.errors import LocalError
from keeper.units import PPM, symbol

MARKET = "ETH-USD"
CLOSERS = 5
WITHDRAW_PPM = 200_000
QUIET_POLLS = 4
POLL_S = 0.5

Say = Callable[[str], None]
Seen = Mapping[int, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Options:
    """What varies: seed, traders, shock in ppm, a recorded series, whether a keeper is killed."""

    seed: int = 1
    traders: int = 60
    shock_ppm: int = -120_000
    prices: tuple[int, ...] = ()
    kill: bool = True


async def run(cluster: Cluster, options: Options, say: Say) -> dict[str, Any]:
    """Play the scenario on a running cluster and return its report."""
    feeds = Feeds(cluster, markets_of(cluster))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeds.run)
        report = await _play(cluster, feeds, options, say)
        nursery.cancel_scope.cancel()
    return report


async def _play(cluster: Cluster, feeds: Feeds, options: Options, say: Say) -> dict[str, Any]:
    await cluster.wait("a sealed view", all_sealed, 60)
    say(f"views are sealed; {options.traders} traders deposit and ask for credit")
    price = feeds.prices[MARKET]
    traders = make_traders(cluster, options.seed, options.traders, price)
    desk = Desk(cluster, traders)
    await desk.fund()
    await desk.deposit_and_ask()
    await until(f"{len(traders)} certified credits", lambda: _credited(desk), 60)
    say("credit is certified and applied; positions are opened")
    opened = await desk.open()
    last = max(sent.block for sent in opened)
    await cluster.wait("a cut with all positions", cut_passed(desk.venue.id, last), 60)
    story = await _shock(cluster, feeds, options, say)
    story = await _settle_down(cluster, options, story, say)
    closers = _closers(traders, story)
    say(f"{len(closers)} traders close and withdraw")
    story = await _leave(cluster, desk, closers, story)
    await quiet(cluster, "everything cleared", 60)
    say("reading chains and stores")
    facts = await read_chains(cluster)
    stores = [await read_store(one) for one in cluster.keepers]
    return make_report(cluster, facts, stores, story)


def all_sealed(seen: Seen) -> bool:
    """Return whether every keeper has a sealed view."""
    return all(value.get("sealed_view", 0) > 0 for value in seen.values())


def cut_passed(chain: int, block: int) -> Callable[[Seen], bool]:
    """Return what asks whether every keeper's cut of a chain has passed a block."""
    return lambda seen: all(
        value.get("cut", {}).get(str(chain), 0) >= block for value in seen.values()
    )


async def _credited(desk: Desk) -> bool:
    return await desk.credited() == len(desk.traders)


async def _polls() -> AsyncIterator[None]:
    while True:
        yield
        await trio.sleep(POLL_S)


async def until(what: str, holds: Callable[[], Any], seconds: float) -> None:
    """Wait until something holds.

    Raises:
        LocalError: it did not in time.
    """
    with trio.move_on_after(seconds):
        async for _ in _polls():
            if await holds():
                return
    raise LocalError(f"{what} did not happen in {seconds:g} s")


async def _shock(cluster: Cluster, feeds: Feeds, options: Options, say: Say) -> Story:
    """Move the price; return what the scenario itself expects of it."""
    if options.prices:
        say(f"replaying {len(options.prices)} prices")
        for price in options.prices:
            await feeds.set(MARKET, price)
    elif options.shock_ppm:
        say(f"{MARKET} moves by {options.shock_ppm * 100 / PPM:+.1f} %")
        await feeds.move(MARKET, options.shock_ppm)
    else:
        return Story(0, frozenset(), 0, (0, 0))
    block = await cluster.hub.rpc.call("eth_getBlockByNumber", ["latest", False])
    facts = await read_chains(cluster)
    prices = {symbol(name): price for name, price in feeds.prices.items()}
    sick = unhealthy(cluster, facts, prices)
    say(f"{len(sick)} accounts are below maintenance")
    return Story(int(block["timestamp"], 16), sick, 0, (0, 0))


async def _settle_down(cluster: Cluster, options: Options, story: Story, say: Say) -> Story:
    """Kill and restart a keeper in the middle of the work; wait until everything is done."""
    if options.kill:
        victim = cluster.keepers[-1]
        await trio.sleep(2.0)
        say(f"keeper {victim.index} is killed")
        victim.kill()
        if victim.process is not None:
            await victim.process.wait()
        await trio.sleep(2.0)
        await victim.start()
        story = replace(story, restarts=story.restarts + 1)
        say(f"keeper {victim.index} is started again; work went on")
    await quiet(cluster, "liquidations and claims", 120)
    return story


async def quiet(cluster: Cluster, what: str, seconds: float) -> None:
    """Wait until no keeper has anything open for a while."""
    calm = 0

    def idle(seen: Seen) -> bool:
        nonlocal calm
        busy = any(
            value.get(name, 1)
            for value in seen.values()
            for name in ("unhealthy", "tasks", "awards", "outstanding", "unsettled")
        )
        calm = 0 if busy else calm + 1
        return calm >= QUIET_POLLS

    await cluster.wait(what, idle, seconds)


def _closers(traders: list[Trader], story: Story) -> list[Trader]:
    """Return a few traders that nothing happened to, winners and losers alike."""
    well = [one for one in traders if one.account not in story.liquidatable and one.on_hub]
    shorts = [one for one in well if one.size < 0][: CLOSERS // 2]
    longs = [one for one in well if one.size > 0][: CLOSERS - len(shorts)]
    return shorts + longs


async def _leave(cluster: Cluster, desk: Desk, closers: list[Trader], story: Story) -> Story:
    """Close, wait until the result is cleared, ask back a part of the deposit and get it."""
    before = await desk.tokens_of(closers)
    closed = await desk.close(closers)
    last = max(sent.block for sent in closed)
    await cluster.wait("a cut with the closes", cut_passed(desk.venue.id, last), 60)
    await quiet(cluster, "their results cleared", 60)
    await desk.ask_back(closers, WITHDRAW_PPM)
    asked = sum(one.on_hub * WITHDRAW_PPM // PPM for one in closers)

    async def paid() -> bool:
        return sum(await desk.tokens_of(closers)) - sum(before) >= asked

    await until("certified withdrawals", paid, 120)
    got = sum(await desk.tokens_of(closers)) - sum(before)
    return replace(story, withdrawn=(asked, got))
