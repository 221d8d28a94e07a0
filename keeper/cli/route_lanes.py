"""`keeper route lanes`: the configured bridges' lanes as their contracts have them now."""

from pathlib import Path
from typing import Annotated

import trio
import typer

from keeper import config, network
from keeper.chain.evm import EvmChain
from keeper.cli.output import JsonFlag, print_json, print_table
from keeper.errors import ConfigError
from keeper.route.bridges.port import UNBOUNDED, Bridge, Terms
from keeper.route.bridges.settings import bridges_of
from keeper.route.files import plain_lane
from keeper.route.graph import Lane
from keeper.route.reader import read_lanes
from keeper.units import ChainId, symbol_text


def lanes(
    home: Annotated[Path, typer.Option(help="The node's home.")] = Path(),
    as_json: JsonFlag = False,
) -> None:
    """Ask every configured bridge what it takes now, and whether it is sound.

    With --json this is a graph file for `keeper route quote --graph`.
    """
    settings = config.load(home.resolve())
    where = str(settings.home / "keeper.toml")
    spec = network.load(settings.network_file)
    bridges = bridges_of(settings.bridges, spec.id, where)
    if not bridges:
        raise ConfigError(
            "no bridges are configured", where=where, remedy="docs/routing.md shows a section"
        )
    joined = sorted({crossing.origin for bridge in bridges for crossing in bridge.crossings()})
    missing = [chain for chain in joined if chain not in settings.endpoints]
    if missing:
        raise ConfigError(
            f"no endpoint for chain {missing[0]}", where=where, remedy=f"add [chains.{missing[0]}]"
        )
    found = trio.run(_read, settings, bridges, joined)
    if as_json:
        print_json({"lanes": [plain_lane(lane) for lane, _ in found]})
        return
    names = [bridge.name for bridge in bridges for _ in bridge.crossings()]
    rows = [(name, *_row(lane, terms)) for name, (lane, terms) in zip(names, found, strict=True)]
    columns = ("bridge", "asset", "from", "to", "fee", "coin (wei)", "room", "p95", "state")
    print_table(columns, rows, "Lanes")


async def _read(
    settings: config.Config, bridges: tuple[Bridge, ...], joined: list[ChainId]
) -> tuple[tuple[Lane, Terms], ...]:
    chains = {chain: EvmChain(chain, settings.endpoints[chain]) for chain in joined}
    try:
        return await read_lanes(chains, bridges)
    finally:
        for chain in chains.values():
            await chain.aclose()


def _row(lane: Lane, terms: Terms) -> tuple[str | int, ...]:
    room = "no limit" if lane.room >= UNBOUNDED else lane.room
    fee = f"{lane.fee_ppm} ppm + {lane.fee_fixed}"
    state = f"cursed: {terms.fault}" if terms.fault else "sound"
    return (
        symbol_text(lane.asset), lane.origin, lane.destination, fee, terms.value, room,
        f"{lane.p95_ms / 1000:g} s", state,
    )  # fmt: skip
