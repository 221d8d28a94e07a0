"""`[bridges.NAME]` of `keeper.toml`: which bridges this keeper knows, by kind.

    kind = "hyperlane"   a warp route that keepers validate and deliver   settings_hyperlane.py
    kind = "ccip"        a token's pools, messages signed by keepers      settings_ccip.py

A lane is in one section: counted twice, it would have twice the room it has.
"""

from collections.abc import Mapping
from typing import Any

from keeper.errors import ConfigError
from keeper.route.bridges.hyperlane import Hyperlane
from keeper.route.bridges.port import Bridge
from keeper.route.bridges.settings_ccip import token_of
from keeper.route.bridges.settings_hyperlane import fits, route_of


def bridges_of(
    sections: Mapping[str, Mapping[str, Any]], verifier: bytes, where: str
) -> tuple[Bridge, ...]:
    """Return every configured bridge, in the order of the sections' names.

    Args:
        sections: by name.
        verifier: who can break what keepers sign for, 32 bytes.
        where: the file, for an error.

    Raises:
        ConfigError: a key is unknown or missing, a value is impossible, or sections do not fit.
    """
    found: list[Bridge] = []
    for name, row in sorted(sections.items()):
        try:
            bridge = _bridge(row, verifier)
            _apart(found, bridge)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            said = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise ConfigError(
                f"[bridges.{name}]: {said}", where=where, remedy="docs/routing.md shows a section"
            ) from error
        found.append(bridge)
    return tuple(found)


def _bridge(row: Mapping[str, Any], verifier: bytes) -> Bridge:
    if row["kind"] == "hyperlane":
        return route_of(row, verifier)
    if row["kind"] == "ccip":
        return token_of(row, verifier)
    raise ValueError(f"kind {row['kind']!r} is not hyperlane or ccip")


def _apart(before: list[Bridge], bridge: Bridge) -> None:
    """Refuse what cannot stand beside the sections before.

    Raises:
        ValueError: one courier cannot serve both, or a lane would be counted twice.
    """
    for other in before:
        if (
            isinstance(bridge, Hyperlane)
            and isinstance(other, Hyperlane)
            and not fits(other, bridge)
        ):
            raise ValueError("it has other validators or contracts than the routes before")
        taken = {(other.address(crossing), crossing) for crossing in other.crossings()}
        if taken & {(bridge.address(crossing), crossing) for crossing in bridge.crossings()}:
            raise ValueError("a section before has the same lane")
