"""`keeper join`: one more keeper joins a local devnet that was started with --keep."""

from pathlib import Path
from typing import Annotated

import trio
import typer
from eth_utils.address import to_checksum_address

from keeper import home as home_folder
from keeper import network
from keeper.chain.http import HttpRpc
from keeper.cli.bond import BOND, join_bond
from keeper.cli.output import console
from keeper.cli.run import run
from keeper.devnet import control
from keeper.devnet.chains import free_port, mnemonic_key
from keeper.devnet.cluster import KEEPER_FUNDS_WEI, LANE_FUNDS_WEI, PASSWORD
from keeper.devnet.wallet import Send, Wallet
from keeper.execute.intent import Lane
from keeper.execute.lane_keys import lane_address
from keeper.keys import Keys
from keeper.units import ChainId
from p2p.frost.keyfile import QUICK

app = typer.Typer()

FUNDER = 1
"""Mnemonic account that pays for joiners: the deployer's nonces belong to the feeds."""


@app.command()
def join(
    folder: Annotated[Path, typer.Argument(help="Directory of a devnet started with --keep.")],
    name: Annotated[str, typer.Option(help="Name of the new home inside it.")] = "joiner",
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Make keys, put a bond at stake, sync and verify the certified state, and follow it.

    A seat in the committee comes with the next epoch; until then the node follows every certified
    view, checks every seal, and serves snapshots and proofs. Stop it with Ctrl-C.
    """
    running = control.read(folder)
    home = folder / name
    if not (home / "keeper.toml").exists():
        keys = _make(running, home)
        trio.run(_fund, running, keys)
        join_bond(home, to_checksum_address(keys.address[::-1]), BOND)
        console(err=True).print(f"{to_checksum_address(keys.address)} is bonded; following")
    run(home=home, log_level=log_level, quick_keys=True)


def _make(running: control.Control, home: Path) -> Keys:
    return home_folder.make(
        home,
        running.folder / "network.json",
        {ChainId(int(chain)): (url,) for chain, url in running.chains.items()},
        PASSWORD,
        mode="live",
        p2p_port=free_port(),
        http_port=free_port(),
        bootstrap=(running.keepers[0]["address"],),
        password_file=running.folder / "password",
        work=QUICK,
    )


async def _fund(running: control.Control, keys: Keys) -> None:
    spec = network.load(running.folder / "network.json")
    for chain in spec.chains:
        rpc = HttpRpc(running.chains[str(chain.id)])
        sends = [
            Send(
                lane_address(keys.operator, lane),
                value=KEEPER_FUNDS_WEI if lane is Lane.URGENT else LANE_FUNDS_WEI,
                gas=21_000,
            )
            for lane in Lane
        ]
        try:
            await Wallet(rpc, chain.id, mnemonic_key(FUNDER)).send(*sends)
        finally:
            await rpc.aclose()
