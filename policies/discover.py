"""Finding policies: names from the entry-point group, or a path; no plug-in code runs here.

    [project.entry-points."keeper.policies"]
    half_close = "acme_policies.half:HalfClose"

What a policy says of itself (its manifest) is asked in a child process with the worker's limits, so
even `list` and `schema` never import a stranger's code into this one.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from policies.child import PolicyFault, PolicySpec, search_path

GROUP = "keeper.policies"
DESCRIBE_S = 20.0


@dataclass(frozen=True, slots=True)
class Found:
    """One installed policy."""

    name: str
    target: str
    distribution: str
    version: str


def installed() -> tuple[Found, ...]:
    """Return the installed policies by name, without importing any."""
    found = []
    for point in entry_points(group=GROUP):
        dist = point.dist
        found.append(
            Found(
                point.name,
                point.value,
                dist.name if dist is not None else "",
                dist.version if dist is not None else "",
            )
        )
    return tuple(sorted(found, key=lambda one: one.name))


def resolve(name: str) -> tuple[str, str]:
    """Return (name, target) of an installed name, a `module:Class` or a `path.py:Class`.

    Raises:
        LookupError: nothing of that name is installed, and it is not a path.
    """
    place, colon, kind = name.rpartition(":")
    if colon and place.endswith(".py"):
        path = Path(place).resolve()
        if not path.is_file():
            raise LookupError(f"there is no file {path}")
        return kind.lower(), f"{path}:{kind}"
    if colon:
        return kind.lower(), name
    known = {one.name: one.target for one in installed()}
    if name not in known:
        raise LookupError(
            f"no policy {name!r} is installed (known: {', '.join(known)});"
            " give a name, module:Class or path/to/file.py:Class"
        )
    return name, known[name]


def spec_of(
    name: str, config: Mapping[str, Any] | None = None, budget_ms: int = 0, mem_mb: int = 0
) -> PolicySpec:
    """Return the spec of a policy by name or path.

    Raises:
        LookupError: there is none.
    """
    label, target = resolve(name)
    return PolicySpec(label, target, dict(config or {}), budget_ms, mem_mb)


_DESCRIBE = (
    "import sys,os;sys.path[:]=sys.argv[1].split(os.pathsep);"
    "from policies.worker import describe;describe(sys.argv[2])"
)


def describe(target: str) -> dict[str, Any]:
    """Return what a policy says of itself: manifest and the JSON schema of its configuration.

    Raises:
        PolicyFault: it cannot be loaded.
    """
    try:
        done = subprocess.run(  # noqa: S603  our own interpreter; the target is an argument
            [sys.executable, "-S", "-s", "-P", "-B", "-c", _DESCRIBE, search_path(target), target],
            capture_output=True,
            env={"PYTHONHASHSEED": "0"},
            timeout=DESCRIBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PolicyFault("boot", f"did not load within {DESCRIBE_S:g} s") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise PolicyFault("boot", last[0] if last else f"exit status {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def fields_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a configuration schema's fields: name → default, range, description, updatable."""
    found: Mapping[str, Any] = body_of(schema).get("properties", {})
    return found


def body_of(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the object a schema describes, behind its reference."""
    if "$ref" not in schema:
        return schema
    found: Mapping[str, Any] = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    return found
