"""What `keeper policy new` writes: a package that works, is tested, and passes its own checks.

NAME/pyproject.toml          entry point in `keeper.policies`
NAME/NAME.py                 a policy of the wished kind
NAME/config.json             its configuration
NAME/test_NAME.py            a test that runs it and checks it
NAME/README.md               the next five commands
"""

import keyword
from pathlib import Path

from policies.api import Kind

_PROJECT = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{dist}"
version = "0.1.0"
description = "A {kind} policy for Flowkeeper."
requires-python = ">=3.11"
dependencies = ["flowkeeper"]

[project.entry-points."keeper.policies"]
{name} = "{name}:{title}"

[tool.setuptools]
py-modules = ["{name}"]
"""

_POLICY = '''"""{title}: a {kind} policy.

A policy is a pure function of the view: no clock but `view.now_ms`, no chance but `view.seed`, no
memory but `state`.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import msgspec

from policies.api import {imports}
{more}

class {title}Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator may set."""

    share_ppm: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            le=1_000_000,
            description="{share}",
            extra_json_schema={{"updatable": True}},
        ),
    ] = 500_000


class {title}:
    """{summary}"""

    manifest: ClassVar[Manifest] = Manifest(
        kind=Kind.{upper}, config={title}Config, budget_ms=50, wants=("accounts", "tasks")
    )

    def __init__(self, config: {title}Config) -> None:
        self.config = config

    def decide(self, view: MarketView, state: bytes) -> tuple[Sequence[Decision], bytes]:
        """Return one decision per open task."""
{body}
'''

_BIDDING = '''        inner = Liquidation(LiquidationConfig(bid_share_ppm=self.config.share_ppm))
        decisions, state = inner.decide(view, state)
        return [self._patient(view, one) for one in decisions], state

    def _patient(self, view: MarketView, decision: Decision) -> Decision:
        """Leave closes that a quarter more in gas would turn into a loss."""
        if isinstance(decision, Act) and decision.profit * 4 < decision.price * 5:
            return Skip(decision.task, f"the margin over the price is thin: {decision.profit}")
        return decision
'''

_WATCHING = """        health = {account.account: account.health_ppm for account in view.accounts}
        return [
            Skip(task.task, f"health {health.get(task.account, 0)} ppm, not mine to act on")
            for task in sorted(view.tasks, key=lambda one: one.task)
        ], state
"""

_TEST = '''"""The policy decides, and is a policy: pure, quick, described."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_the_checks_pass() -> None:
    """The same question the operator asks before a promotion."""
    target = f"{{HERE / '{name}.py'}}:{title}"
    command = [sys.executable, "-m", "keeper", "policy", "check", target]
    command += ["--config", str(HERE / "config.json"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["ok"]
'''

_README = """# {name}

A {kind} policy for Flowkeeper.

    keeper policy check {name}.py:{title}            is it pure, quick and described?
    keeper policy schema {name}.py:{title}           what an operator may set
    keeper policy backtest RECORD --policy {name}.py:{title} --vs liquidation
    pip install -e . && keeper policy list           now it has a name
    keeper policy promote {name} --to shadow         decide on live snapshots, send nothing

`decide` in `{name}.py` is the place to start.
"""


def files_of(name: str, kind: Kind) -> dict[str, str]:
    """Return path → text of a new package.

    Raises:
        ValueError: the name cannot be a module.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or not name.islower():
        raise ValueError(f"{name!r} is not a lower-case Python name, such as half_close")
    title = "".join(part.capitalize() for part in name.split("_"))
    bids = kind is Kind.LIQUIDATION
    words = {
        "name": name,
        "dist": name.replace("_", "-"),
        "kind": kind.value,
        "upper": kind.name,
        "title": title,
        "imports": "Act, Decision, Kind, Manifest, MarketView, Skip"
        if bids
        else "Decision, Kind, Manifest, MarketView, Skip",
        "more": "from policies.liquidation import Liquidation, LiquidationConfig\n" if bids else "",
        "share": "Share of the profit to bid." if bids else "Share of the funds to use.",
        "summary": "Bids like the built-in, but leaves thin margins to others."
        if bids
        else "Looks at every task and leaves it: the place to start from.",
        "body": (_BIDDING if bids else _WATCHING).rstrip(),
    }
    return {
        "pyproject.toml": _PROJECT.format(**words),
        f"{name}.py": _POLICY.format(**words),
        "config.json": '{"share_ppm": 600000}\n',
        f"test_{name}.py": _TEST.format(**words),
        "README.md": _README.format(**words),
    }


def write(folder: Path, name: str, kind: Kind) -> list[Path]:
    """Write a new package into `folder/name` and return its files.

    Raises:
        ValueError: the name cannot be a module.
        FileExistsError: the folder is there already.
    """
    files = files_of(name, kind)
    root = folder / name
    root.mkdir(parents=True)
    paths = []
    for file, text in files.items():
        path = root / file
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths
