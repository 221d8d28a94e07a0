"""The main job end to end: real chains, real processes, the very commands an operator types."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keeper.devnet.chains import ensure_anvil
from keeper.errors import FlowkeeperError
from tests.support.shared import ROOT

pytestmark = [pytest.mark.anvil, pytest.mark.libp2p]
LIMIT_S = 280


@pytest.fixture(scope="module", autouse=True)
def _anvil() -> None:
    try:
        ensure_anvil(Path.home() / ".cache" / "flowkeeper")
    except FlowkeeperError as error:
        pytest.skip(f"no anvil: {error}")


def up(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run one devnet; return its exit status and report."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "keeper",
            "devnet",
            "up",
            "--json",
            "--dir",
            str(folder),
            *arguments,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    lines = done.stdout.strip().splitlines()
    assert lines, done.stderr
    last = json.loads(lines[-1])
    assert "report" in last, done.stderr + "\n".join(lines[-5:])
    return done.returncode, last["report"]


def left_behind(folder: Path) -> list[str]:
    """Return command lines of processes that still work in the devnet's folder or its chains."""
    control = json.loads((folder / "devnet.json").read_text())
    ports = [url.rsplit(":", 1)[1] for url in control["chains"].values()]
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (OSError, ValueError):
            continue
        mine = entry.name == str(os.getpid())
        if not mine and (str(folder) in line or any(f"--port {port} " in line for port in ports)):
            found.append(line)
    return found


def test_collateral_on_one_chain_secures_positions_on_another(tmp_path: Path) -> None:
    status, report = up(tmp_path / "net")
    assert report["failed"] == []
    assert status == 0
    assert report["liquidatable"] == report["liquidated"] == report["claims_paid"] > 0
    assert report["healthy_touched"] == report["double_executions"] == 0
    assert report["conserved"] is True
    assert report["transactions_per_task"] == 1
    assert report["keeper_restarts"] == 1
    assert left_behind(tmp_path / "net") == []


def test_without_a_shock_nothing_is_liquidated_under_another_seed(tmp_path: Path) -> None:
    status, report = up(tmp_path / "net", "--scenario", "calm", "--seed", "2", "--traders", "20")
    assert (status, report["failed"]) == (0, [])
    assert report["tasks_executed"] == report["liquidatable"] == 0


def test_seven_keepers_under_a_third_seed(tmp_path: Path) -> None:
    status, report = up(tmp_path / "net", "-n", "7", "--seed", "3", "--traders", "30")
    assert (status, report["failed"]) == (0, [])
    assert report["keepers"] == 7
    assert report["liquidated"] == report["liquidatable"] > 0


def test_two_of_four_keepers_down_seal_nothing_until_they_return(tmp_path: Path) -> None:
    status, report = up(tmp_path / "net", "--scenario", "quorum-lost")
    assert status == 0, report
    assert report["sealed_without_quorum"] == 0
    assert report["ready_without_quorum"] == 0
    assert "no_sealed_view" in report["reasons"]
    assert report["tasks_executed"] == 0


def test_collateral_moves_by_flows_over_three_chains(tmp_path: Path) -> None:
    status, report = up(tmp_path / "net", "--scenario", "flows")
    assert (status, report["failed"]) == (0, [])
    assert [route["makers"] for route in report["routes"]] == [["near"], ["over", "on"], ["far"]]
    assert report["liquidated"] == ["twin"]
    assert report["order"]["delivered"] == 1
    assert left_behind(tmp_path / "net") == []
