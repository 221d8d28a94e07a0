"""The ladder a policy climbs on a node: off → shadow → dry → live, one rung at a time.

Only two lines of `keeper.toml` are changed, and the rest of the file, comments included, is left as
the operator wrote it. The change is written beside the file and moved over it.
"""

import re
from collections.abc import Callable
from pathlib import Path

from keeper.config import KINDS, MODES, load
from keeper.errors import ConfigError

_MODE = re.compile(r'^(mode\s*=\s*)"[^"]*"', re.MULTILINE)


def promote_home(
    home: Path, kind: str, policy: str, to: str, checked: Callable[[], bool]
) -> dict[str, str]:
    """Set the policy of a kind and the mode of a node's home; return what was and what is.

    Args:
        home: of the node.
        kind: of the policy.
        policy: its name as the node will resolve it.
        to: the wished mode.
        checked: whether the policy passes its checks; asked only beyond shadow.

    Raises:
        ConfigError: a kind no node runs, an unknown mode, a skipped rung, or failing checks.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"{policy} is of kind {kind}, which no node runs",
            where="keeper.toml",
            remedy=f"a node runs policies of kind {', '.join(sorted(KINDS))}",
        )
    if to not in MODES:
        raise ConfigError(f"unknown mode {to!r}", where="--to", remedy=f"one of {', '.join(MODES)}")
    before = load(home)
    here, there = MODES.index(before.mode), MODES.index(to)
    if there > here + 1:
        raise ConfigError(
            f"{before.mode} to {to} skips {MODES[here + 1]}",
            where=str(home),
            remedy=f"promote it to {MODES[here + 1]} first and look at what it does",
        )
    if there > MODES.index("shadow") and not checked():
        raise ConfigError(
            f"{policy} does not pass its checks",
            where="keeper policy check",
            remedy="mend what the check names; shadow needs no check",
        )
    path = home / "keeper.toml"
    text = _MODE.sub(rf'\g<1>"{to}"', path.read_text(encoding="utf-8"), count=1)
    text = _with_policy(text, kind, policy)
    beside = path.with_suffix(".toml.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
    after = load(home)
    return {
        "kind": kind,
        "policy": after.policies[kind],
        "was": before.mode,
        "mode": after.mode,
    }


def _with_policy(text: str, kind: str, policy: str) -> str:
    line = f'{kind} = "{policy}"'
    head, section, tail = text.partition("[policies]\n")
    if not section:
        return f"{text.rstrip()}\n\n[policies]\n{line}\n"
    body, bracket, rest = tail.partition("\n[")
    known = re.compile(rf"^{kind}\s*=.*$", re.MULTILINE)
    body = known.sub(lambda _: line, body, count=1) if known.search(body) else f"{line}\n{body}"
    return head + section + body + bracket + rest
