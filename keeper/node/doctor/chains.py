"""The chains: endpoints that answer and agree, contracts that are there, bond and gas.

every endpoint ─▶ Sample ─┬▶ reachable, right chain, quick?      judged alone
└▶ same hash at a common height, lag?  judged together
best endpoint  ─▶ code, bond, balances, nonces, breaker          what a node will meet
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any

import trio
from eth_abi.exceptions import DecodingError
from eth_utils.address import to_checksum_address

from keeper.config import Config
from keeper.contracts import decode_result, encode_call
from keeper.errors import FlowkeeperError, RemoteFault
from keeper.execute.intent import Lane
from keeper.execute.lane_keys import lane_address
from keeper.keys import Keys
from keeper.margin.breaker import EVERYWHERE, Action, Level
from keeper.network import ChainSpec, NetworkSpec
from keeper.node.doctor.finding import Finding, bad, fine, odd
from keeper.units import ChainId
from keeper.venue.bonds import BondStatus

ASK_S = 10.0
"""How long one endpoint may take for one answer before it counts as silent."""
SLOW_S = 1.0
"""Two ticks: an endpoint this slow makes every observation late."""
MOST_LAG = 5
"""Blocks that endpoints of one chain may lie apart."""
GAS = 500_000
"""More than any transaction a keeper sends needs."""
FEW = 20
"""Transactions whose gas an account should hold."""

_ODD = (TypeError, ValueError, KeyError)
"""What reading an answer of another shape raises."""

Ask = Callable[[str, str, Sequence[Any]], Awaitable[Any]]
"""(endpoint, method, params) → result, or RemoteFault."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one endpoint said; `why` where it did not."""

    url: str
    took_s: float = math.inf
    chain: int = 0
    number: int = 0
    timestamp: int = 0
    why: str = ""


def shown(url: str) -> str:
    """Return an address without the user, password and path that may hold a secret."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.split('@')[-1].split('/')[0]}" if rest else url


def endpoints(chain: ChainId, samples: Sequence[Sample]) -> list[Finding]:
    """Judge the endpoints of one chain, each alone."""
    check, found = f"chain_{chain}", []
    for one in samples:
        name = shown(one.url)
        remedy = f"start it, or take it out of [chains.{chain}]: a node starts when all answer"
        if not one.why and one.chain != chain:
            found.append(bad(check, f"{name} serves chain {one.chain}, not {chain}", remedy))
        elif one.why:
            found.append(bad(check, f"{name} does not answer: {one.why}", remedy))
        elif one.took_s > SLOW_S:
            said = f"{name} takes {one.took_s:.1f} s for an answer"
            found.append(odd(check, said, "use an endpoint nearer by"))
        else:
            said = f"{name}: block {one.number}, {one.took_s * 1000:.0f} ms"
            found.append(fine(check, said))
    return found


def agreement(chain: ChainId, hashes: Mapping[str, str], samples: Sequence[Sample]) -> Finding:
    """Judge the endpoints of one chain against each other.

    Args:
        chain: its id.
        hashes: endpoint → hash of one block that all should have.
        samples: of the endpoints that answered.
    """
    check = f"chain_{chain}_agreement"
    if len(hashes) < 2:
        return odd(
            check,
            "one endpoint alone says what is final",
            f"add two endpoints of others to [chains.{chain}], or a [light_client.{chain}]",
        )
    if len(set(hashes.values())) > 1:
        rows = "; ".join(f"{shown(url)}: {seen[:12]}…" for url, seen in hashes.items())
        return bad(check, f"endpoints disagree on a block: {rows}", "find out which one lies")
    lowest, highest = (f(samples, key=lambda one: one.number) for f in (min, max))
    lag = highest.number - lowest.number
    if lag > MOST_LAG:
        return odd(check, f"{shown(lowest.url)} lags {lag} blocks behind", "use another endpoint")
    return fine(check, f"{len(hashes)} endpoints agree, at most {lag} blocks apart")


def contracts(chain: ChainId, sizes: Mapping[str, int]) -> Finding:
    """Judge whether every contract of the descriptor has code."""
    absent = sorted(name for name, size in sizes.items() if size == 0)
    if absent:
        return bad(
            f"chain_{chain}_contracts",
            f"there is no code at {', '.join(absent)}",
            "copy network.json again, or mend the endpoint: it may serve another network",
        )
    return fine(f"chain_{chain}_contracts", f"{len(sizes)} contracts")


def breakers(chain: ChainId, levels: Mapping[Action, int], paused: bool) -> Finding:
    """Judge what the chain's breaker holds back everywhere."""
    held = [
        f"{action.name.lower()} {Level(level).name.lower()}"
        for action, level in sorted(levels.items())
        if 0 < level <= Level.CURSED
    ]
    said = "; ".join((["paused by governance"] if paused else []) + held)
    if said:
        return odd(f"chain_{chain}_breaker", said, "see why: keeper breaker list HOME/tick")
    return fine(f"chain_{chain}_breaker", "nothing is held back")


def gas(chain: ChainId, lane: str, address: bytes, balance: int, price: int, live: bool) -> Finding:
    """Judge whether an account can pay for its transactions."""
    check, one = f"chain_{chain}_gas", max(1, price * GAS)
    said = f"{lane} 0x{address.hex()} can pay for {balance // one} transactions"
    remedy = f"send coins of chain {chain} to {to_checksum_address(address)}"
    if balance < one:
        return (bad if live else odd)(check, said, remedy)
    return odd(check, said, remedy) if balance < FEW * one else fine(check, said)


def nonces(chain: ChainId, lane: str, mined: int, pending: int, running: bool) -> Finding | None:
    """Judge whether transactions of an earlier life still wait; None where nothing is odd."""
    if pending <= mined or running:
        return None
    return odd(
        f"chain_{chain}_nonces",
        f"{pending - mined} transactions of {lane} wait to be mined",
        "start the node: it goes on with them; keeper tx list shows them",
    )


def bond(status: BondStatus, amount: int, least: int) -> Finding:
    """Judge the keeper's bond on the hub."""
    match status:
        case BondStatus.ACTIVE if amount >= least:
            return fine("bond", f"{amount / 10**18:g} at stake")
        case BondStatus.ACTIVE:
            return odd(
                "bond",
                f"{amount / 10**18:g} at stake, below the minimum {least / 10**18:g}",
                "keeper bond post",
            )
        case BondStatus.NONE:
            return odd("bond", "no bond: this node can only follow", "keeper bond join")
        case BondStatus.LEAVING:
            return odd("bond", "this keeper is leaving", "keeper bond status")
        case BondStatus.JAILED:
            return odd("bond", "this keeper is jailed for no-shows", "wait: keeper bond status")
        case BondStatus.TOMBSTONED:
            return bad("bond", "this keeper equivocated and is out for ever", "make a new home")


@dataclass(slots=True)
class Seen:
    """Findings about chains, and the newest timestamp of each that answered."""

    found: list[Finding] = field(default_factory=list)
    heads: list[int] = field(default_factory=list)


async def examine(
    settings: Config, spec: NetworkSpec, mine: Keys | None, running: bool, ask: Ask
) -> Seen:
    """Measure and judge every chain, all at once."""
    seen = Seen()
    parts: dict[ChainId, Seen] = {}

    async def one(chain: ChainSpec) -> None:
        parts[chain.id] = await _chain(settings, spec, chain, mine, running, ask)

    async with trio.open_nursery() as nursery:
        for chain in spec.chains:
            nursery.start_soon(one, chain)
    for _, part in sorted(parts.items()):
        seen.found += part.found
        seen.heads += part.heads
    return seen


async def _chain(
    settings: Config,
    spec: NetworkSpec,
    chain: ChainSpec,
    mine: Keys | None,
    running: bool,
    ask: Ask,
) -> Seen:
    samples: dict[str, Sample] = {}

    async def sample(url: str) -> None:
        samples[url] = await _sample(url, ask)

    async with trio.open_nursery() as nursery:
        for url in settings.endpoints.get(chain.id, ()):
            nursery.start_soon(sample, url)
    ordered = [samples[url] for url in settings.endpoints.get(chain.id, ())]
    seen = Seen(endpoints(chain.id, ordered))
    works = [one for one in ordered if not one.why and one.chain == chain.id]
    if not works:
        return seen
    seen.heads.append(median_low(one.timestamp for one in works))
    best = min(works, key=lambda one: one.took_s).url

    async def call(method: str, *params: Any) -> Any:
        return await ask(best, method, params)

    try:
        seen.found.append(agreement(chain.id, await _hashes(works, ask), works))
        seen.found += await _contents(spec, chain, mine, settings.mode == "live", running, call)
    except (FlowkeeperError, DecodingError, ArithmeticError, *_ODD) as error:
        said = f"{shown(best)} answers oddly: {type(error).__name__} {error}"
        seen.found.append(bad(f"chain_{chain.id}", said, "use another endpoint"))
    return seen


async def _sample(url: str, ask: Ask) -> Sample:
    start = trio.current_time()
    try:
        number = int(await ask(url, "eth_chainId", ()), 16)
        took = trio.current_time() - start
        block = await ask(url, "eth_getBlockByNumber", ("latest", False))
        return Sample(url, took, number, int(block["number"], 16), int(block["timestamp"], 16))
    except RemoteFault as fault:
        return Sample(url, why=str(fault))
    except _ODD as error:
        return Sample(url, why=f"no answer of an EVM chain ({type(error).__name__})")


async def _hashes(works: Sequence[Sample], ask: Ask) -> dict[str, str]:
    common = max(0, min(one.number for one in works) - 1)
    found = {}
    for one in works:
        block = await ask(one.url, "eth_getBlockByNumber", (hex(common), False))
        found[one.url] = str(block["hash"])
    return found


Call = Callable[..., Awaitable[Any]]


async def _read(call: Call, at: bytes, name: str, function: str, *args: object) -> tuple[Any, ...]:
    data = "0x" + encode_call(name, function, *args).hex()
    raw = await call("eth_call", {"to": to_checksum_address(at), "data": data}, "latest")
    return decode_result(name, function, bytes.fromhex(raw[2:]))


async def _contents(
    spec: NetworkSpec, chain: ChainSpec, mine: Keys | None, live: bool, running: bool, call: Call
) -> list[Finding]:
    sizes = {
        name: len(await call("eth_getCode", to_checksum_address(at), "latest")) // 2 - 1
        for name, at in chain.contracts
    }
    found = [contracts(chain.id, sizes)]
    at = chain.contract("Breaker")
    if at is not None and sizes["Breaker"]:
        levels = {}
        for action in Action:
            (levels[action],) = await _read(call, at, "Breaker", "level", EVERYWHERE, int(action))
        (paused,) = await _read(call, at, "Breaker", "paused", EVERYWHERE)
        found.append(breakers(chain.id, levels, paused))
    if mine is None:
        return found
    price = int(await call("eth_gasPrice"), 16)
    for lane in Lane:
        address = lane_address(mine.operator, lane)
        who = to_checksum_address(address)
        balance = int(await call("eth_getBalance", who, "latest"), 16)
        found.append(gas(chain.id, lane.value, address, balance, price, live))
        mined, pending = [
            int(await call("eth_getTransactionCount", who, tag), 16)
            for tag in ("latest", "pending")
        ]
        waiting = nonces(chain.id, lane.value, mined, pending, running)
        found += [waiting] if waiting is not None else []
    bonds = chain.contract("Bonds")
    if chain.id == spec.hub and bonds is not None and sizes["Bonds"]:
        ((amount, _, _, _, status),) = await _read(call, bonds, "Bonds", "stake", mine.address)
        least = (await _read(call, bonds, "Bonds", "parameters"))[0]
        found.append(bond(BondStatus(status), amount, least))
    return found
