"""How other commands reach a running devnet: one file in its directory, and the price wishes.

devnet.json   pid, chains, keepers        read by `status`, `shock`, `down`, `keeper join`
prices.json   {"ETH-USD": 264000000000}   written by `shock`, taken up by the feeds
"""

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keeper.devnet.cluster import Cluster, address_of_peer
from keeper.errors import ConfigError

CONTROL, PRICES = "devnet.json", "prices.json"


@dataclass(frozen=True, slots=True)
class Control:
    """What `devnet.json` says."""

    folder: Path
    pid: int
    chains: dict[str, str]
    keepers: list[dict[str, Any]]

    @property
    def alive(self) -> bool:
        """Return whether the process that runs the devnet still lives."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def stop(self) -> None:
        """Ask the devnet to end everything it started."""
        os.kill(self.pid, signal.SIGTERM)


def write(cluster: Cluster) -> None:
    """Write the control file of a running devnet."""
    value = {
        "pid": os.getpid(),
        "chains": {str(chain): anvil.url for chain, anvil in cluster.chains.items()},
        "keepers": [
            {
                "index": one.index,
                "home": str(one.home),
                "http_port": one.http_port,
                "address": address_of_peer(one),
            }
            for one in cluster.keepers
        ],
    }
    (cluster.folder / CONTROL).write_text(json.dumps(value, indent=2) + "\n")


def read(folder: Path) -> Control:
    """Read the control file.

    Raises:
        ConfigError: there is no devnet in this directory, or it has ended.
    """
    path = folder / CONTROL
    try:
        value = json.loads(path.read_text())
        control = Control(folder, value["pid"], value["chains"], value["keepers"])
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            "there is no devnet here", where=str(path), remedy="start one with --keep --dir DIR"
        ) from error
    if not control.alive:
        raise ConfigError("the devnet has ended", where=str(path), remedy="start it again")
    return control


def wish(folder: Path, market: str, price_e8: int) -> None:
    """Ask the running feeds to publish a price."""
    (folder / PRICES).write_text(json.dumps({market: price_e8}))


def take_wishes(folder: Path) -> dict[str, int]:
    """Return and remove what was asked for."""
    path = folder / PRICES
    try:
        value = json.loads(path.read_text())
        path.unlink()
    except (OSError, ValueError):
        return {}
    return {str(market): int(price) for market, price in value.items()}
