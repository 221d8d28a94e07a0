"""A node's home as `keeper init` leaves it, with sections of bridges."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keeper import config
from keeper.network import ChainSpec, NetworkSpec, Token
from keeper.units import ChainId


def write_home(
    home: Path,
    network: bytes,
    endpoints: Mapping[ChainId, str],
    bridges: Mapping[str, Mapping[str, Any]],
    tokens: Mapping[ChainId, Token] | None = None,
) -> None:
    """Write `keeper.toml` and the network's file.

    Args:
        home: where.
        network: its id.
        endpoints: by chain.
        bridges: sections, by name.
        tokens: what the network's file names, one a chain at most.
    """
    text = config.render(
        mode="off", password_file="", p2p_port=0, bootstrap=(), http_port=1,
        endpoints={chain: (url,) for chain, url in endpoints.items()},
    )  # fmt: skip
    for name, row in bridges.items():
        text += f"[bridges.{name}]\n" + _lines({key: row[key] for key in row if key != "chains"})
        for chain, body in row["chains"].items():
            text += f"[bridges.{name}.chains.{chain}]\n" + _lines(body)
    (home / "keeper.toml").write_text(text)
    named = {chain: (token,) for chain, token in (tokens or {}).items()}
    specs = tuple(ChainSpec(chain, (), named.get(chain, ())) for chain in sorted(endpoints))
    spec = NetworkSpec(network, 1_700_000_000_000, 500, specs[0].id, specs)
    (home / "network.json").write_text(json.dumps(spec.to_json()))


def _lines(row: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in row.items())
