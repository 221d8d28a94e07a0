"""`keeper init`: a new node home with a commented configuration and sealed keys."""

import os
from pathlib import Path
from typing import Annotated

import typer
from eth_utils.address import to_checksum_address

from keeper import home as home_folder
from keeper.cli.output import JsonFlag, print_json, print_rows
from keeper.errors import ConfigError
from keeper.execute.intent import Lane
from keeper.execute.lane_keys import lane_address
from keeper.units import ChainId
from p2p.frost.keyfile import QUICK, SAFE
from p2p.identity import peer_id_text

app = typer.Typer()


def parse_endpoints(values: list[str]) -> dict[ChainId, tuple[str, ...]]:
    """Return endpoints per chain of `CHAIN=URL` texts.

    Raises:
        ConfigError: a text has another form.
    """
    found: dict[ChainId, tuple[str, ...]] = {}
    for value in values:
        chain, equals, url = value.partition("=")
        if not equals or not chain.isdigit() or not url:
            raise ConfigError(
                f"{value!r} is no endpoint",
                where="--rpc",
                remedy="write CHAIN=URL, for instance 31501=http://127.0.0.1:8545",
            )
        found[ChainId(int(chain))] = (*found.get(ChainId(int(chain)), ()), url)
    return found


@app.command()
def init(
    home: Annotated[Path, typer.Argument(help="Directory to make; it must not exist or be empty.")],
    network_file: Annotated[
        Path, typer.Option("--network", help="network.json of the network to join.")
    ],
    rpc: Annotated[list[str], typer.Option(help="CHAIN=URL of an endpoint; repeat for more.")],
    mode: Annotated[str, typer.Option(help="off, shadow, dry or live.")] = "shadow",
    p2p_port: Annotated[int, typer.Option(help="TCP port for other keepers.")] = 4001,
    http_port: Annotated[int, typer.Option(help="Port of health and status.")] = 9640,
    bootstrap: Annotated[
        list[str] | None, typer.Option(help="Address of a keeper to start from; repeat for more.")
    ] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File whose first line opens the keys.")
    ] = None,
    quick_keys: Annotated[
        bool, typer.Option(help="Cheap key files, for devnets whose keys guard nothing.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a node home: configuration, network descriptor and sealed keys.

    Keys are never overwritten. Afterwards: fund the printed addresses, `keeper bond join`, then
    `keeper run`.
    """
    made = home_folder.make(
        home,
        network_file,
        parse_endpoints(rpc),
        _password(password_file),
        mode=mode,
        p2p_port=p2p_port,
        http_port=http_port,
        bootstrap=tuple(bootstrap or ()),
        password_file=password_file,
        work=QUICK if quick_keys else SAFE,
    )
    value = {
        "home": str(home),
        "address": to_checksum_address(made.address),
        "peer": peer_id_text(made.peer_id),
        "lanes": {
            lane.value: to_checksum_address(lane_address(made.operator, lane)) for lane in Lane
        },
    }
    if as_json:
        print_json(value)
    else:
        print_rows("A keeper was made", value.items())


def _password(password_file: Path | None) -> str:
    if password_file is not None:
        if not password_file.exists():
            raise ConfigError("there is no such file", where=str(password_file))
        return password_file.read_text().splitlines()[0].strip()
    if "KEEPER_PASSWORD" in os.environ:
        return os.environ["KEEPER_PASSWORD"]
    return str(typer.prompt("Password for the keys", hide_input=True, confirmation_prompt=True))
