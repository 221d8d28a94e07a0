"""`keeper route pools`: Uniswap v3 pools as their chains have them now, as rows of a graph file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import trio
import typer

from keeper import config, network
from keeper.chain.evm import EvmChain
from keeper.chain.port import BlockRef, Chain, Level
from keeper.cli.output import JsonFlag, print_json, print_table
from keeper.errors import ConfigError, RemoteFault
from keeper.network import ChainSpec, NetworkSpec
from keeper.reasons import Reason
from keeper.route.files import graph_of, plain_lane, plain_swap
from keeper.route.graph import Graph, TickSwap
from keeper.route.reader import read_ticks
from keeper.settle.terms import read_address
from keeper.units import ChainId, symbol_text
from keeper.venue.abi import answers, calldata


def pools(
    pool: Annotated[list[str], typer.Option(help="A pool, as chain:0x…; may be repeated.")],
    home: Annotated[Path, typer.Option(help="The node's home.")] = Path(),
    graph: Annotated[
        Path | None, typer.Option(help="A graph file whose ways are kept, as of `route lanes`.")
    ] = None,
    latency_s: Annotated[
        int, typer.Option("--latency", min=0, help="Seconds until a swap is final.")
    ] = 15,
    as_json: JsonFlag = False,
) -> None:
    """Read Uniswap v3 pools at a final block; their tokens must be the network's.

    With --json this is a graph file for `keeper route quote --graph`.
    """
    settings = config.load(home.resolve())
    spec = network.load(settings.network_file)
    wanted = [_place(text, spec, settings) for text in pool]
    try:
        known = Graph() if graph is None else graph_of(graph.read_text("utf-8"), str(graph))
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=str(graph)) from error
    found = trio.run(_read, settings, wanted, latency_s * 1000)
    if as_json:
        here = {(swap.chain, swap.venue) for swap in found}
        kept = [swap for swap in known.swaps if (swap.chain, swap.venue) not in here]
        swaps = [plain_swap(swap) for swap in (*kept, *found)]
        print_json({"swaps": swaps, "lanes": [plain_lane(lane) for lane in known.lanes]})
        return
    rows = [
        (
            "0x" + swap.venue.hex(),
            swap.chain,
            "/".join(symbol_text(asset) for asset in swap.assets),
            f"{swap.fee_ppm} ppm",
            len(swap.book.crossings),
            swap.book.tick,
        )
        for swap in found
    ]
    print_table(("pool", "chain", "assets", "fee", "ticks with liquidity", "tick now"), rows)


def _place(text: str, spec: NetworkSpec, settings: config.Config) -> tuple[ChainSpec, bytes]:
    chain, _, venue = text.partition(":")
    try:
        found = spec.chain(ChainId(int(chain))), read_address(venue)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{text!r} is no pool of a chain of this network",
            where="--pool",
            remedy="write chain:0x…, as 1:0x88e6…5640",
        ) from error
    if found[0].id not in settings.endpoints:
        raise ConfigError(
            f"no endpoint for chain {chain}", where="keeper.toml", remedy=f"add [chains.{chain}]"
        )
    return found


async def _read(
    settings: config.Config, wanted: Sequence[tuple[ChainSpec, bytes]], latency_ms: int
) -> tuple[TickSwap, ...]:
    names = {spec.id for spec, _ in wanted}
    chains = {name: EvmChain(name, settings.endpoints[name]) for name in sorted(names)}
    try:
        return await read_pools(chains, wanted, latency_ms)
    finally:
        for chain in chains.values():
            await chain.aclose()


async def read_pools(
    chains: Mapping[ChainId, Chain],
    wanted: Sequence[tuple[ChainSpec, bytes]],
    latency_ms: int,
) -> tuple[TickSwap, ...]:
    """Return pools as they are at the newest final block of each chain.

    Raises:
        ConfigError: a pool trades a token that the descriptor does not name.
        RemoteFault: a chain cannot be read, or what is there is no such pool.
    """
    at: dict[ChainId, BlockRef] = {}
    for name, chain in chains.items():
        at[name] = (await chain.head(Level.FINAL)).ref
    found = []
    for spec, venue in wanted:
        chain, block = chains[spec.id], at[spec.id]
        book = await read_ticks(chain, venue, block)
        first, second = [
            await _asset(chain, spec, venue, name, block) for name in ("token0", "token1")
        ]
        found.append(TickSwap(spec.id, venue, (first, second), book, latency_ms))
    return tuple(found)


async def _asset(chain: Chain, spec: ChainSpec, venue: bytes, name: str, at: BlockRef) -> bytes:
    raw = await chain.call(venue, calldata(f"{name}()"), at)
    try:
        (text,) = answers(("address",), raw)
    except ValueError as error:
        where = f"0x{venue.hex()} on chain {chain.id}"
        raise RemoteFault(where, Reason.REVERTED, f"it names no {name}") from error
    token = bytes.fromhex(text.removeprefix("0x"))
    for one in spec.tokens:
        if one.address == token:
            return one.asset
    raise ConfigError(
        f"pool 0x{venue.hex()} trades {text}, no token of chain {spec.id}",
        where="network.json",
        remedy="a route moves only what the network names",
    )
