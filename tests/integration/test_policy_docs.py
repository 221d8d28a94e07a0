"""The commands of docs/policies.md run as they are written."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from keeper.cli.policy import app
from keeper.config import KINDS
from keeper.desk.settings import venues_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")


def test_the_pages_commands_run(tmp_path: Path) -> None:
    lines = ["date,unix,low,high,open,close"]
    for minute in range(120):
        price, after = 2_000 - 5 * minute, 1_995 - 5 * minute
        lines.append(f"-,{1_700_000_000 + 60 * minute},{after},{price},{price},{after}")
    (tmp_path / "series.csv").write_text("\n".join(lines) + "\n")
    script = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
    assert script.count("keeper policy") >= 6
    folder = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_every_built_in_check_and_verb_is_on_the_page() -> None:
    from policies.check import check_policy
    from policies.discover import installed

    for found in installed():
        assert f"`{found.name}`" in PAGE
    source = Path(check_policy.__code__.co_filename).read_text()
    for name in re.findall(r'judge\("([a-z -]+)"', source):
        assert f"| {name} |" in PAGE
    for verb in app.registered_commands:
        assert verb.callback is not None
        name = (verb.name or verb.callback.__name__).rstrip("_")
        assert f"keeper policy {name}" in PAGE or f"`{name}" in PAGE, name


def test_the_pages_sections_are_what_a_node_reads() -> None:
    text = "\n".join(re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
    found = tomllib.loads(text.replace('"0x…"', '"0x' + "12" * 20 + '"'))
    assert {one.name for one in venues_of(found["venues"], "the page")} == {"aave", "perp"}
    assert set(found["policies"]) == set(found["policy"]) <= KINDS
