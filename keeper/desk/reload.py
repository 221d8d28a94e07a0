"""A policy's settings, followed while the node runs: keeper.toml changes, a new child takes over.

    [policy.KIND] of keeper.toml ─▶ only updatable fields differ? ─▶ PolicyHost.reload ─▶ swapped

The host replays the last views on the old child and the new one and swaps only if the new one
answers; anything else leaves the old one at work, and says why.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
import trio

from keeper import config
from keeper.errors import ConfigError
from policies.child import PolicyFault
from policies.discover import describe, fields_of
from policies.host import PolicyHost

log = structlog.get_logger(__name__)

LOOK_S = 2.0


async def follow_settings(host: PolicyHost, home: Path, kind: str) -> None:
    """Reload a host whenever its section of `keeper.toml` changes, until cancelled."""
    seen = _stamp(home)
    while True:
        await trio.sleep(LOOK_S)
        stamp = _stamp(home)
        if stamp != seen:
            seen = stamp
            await apply_settings(host, home, kind)


def _stamp(home: Path) -> tuple[int, int]:
    """Return what changes when the file is written; zeros while it is being replaced."""
    try:
        found = (home / "keeper.toml").stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


async def apply_settings(host: PolicyHost, home: Path, kind: str) -> str:
    """Give a host the settings its home's `keeper.toml` holds now; return why not, or nothing."""
    why = await _apply(host, home, kind)
    if why:
        log.warning("settings_not_taken", policy=host.spec.name, kind=kind, error=why)
    return why


async def _apply(host: PolicyHost, home: Path, kind: str) -> str:
    try:
        loaded = await trio.to_thread.run_sync(config.load, home)
        wanted, held = loaded.settings_of(kind), dict(host.spec.config)
        if wanted == held:
            return ""
        about = await trio.to_thread.run_sync(describe, host.spec.target)
    except (ConfigError, PolicyFault) as fault:
        return str(fault)
    fixed = fixed_changes(about["schema"], held, wanted)
    if fixed:
        return f"{', '.join(fixed)} cannot change while the node runs"
    done = await host.reload(wanted)
    if not done.swapped:
        return done.fault
    log.info("settings_taken", policy=host.spec.name, compared=done.compared, differ=done.differ)
    return ""


def fixed_changes(
    schema: Mapping[str, Any], held: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[str]:
    """Return the fields that differ and are not marked updatable."""
    fields = fields_of(schema)
    return sorted(
        name
        for name in {*held, *wanted}
        if held.get(name) != wanted.get(name) and not fields.get(name, {}).get("updatable")
    )
