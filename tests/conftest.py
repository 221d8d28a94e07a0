"""Fixtures every test may ask for, and `--update`, which rewrites golden files.

Hypothesis draws the same examples on every machine. Tests that measure real time between processes
(`CROWDED`) are tried up to three times: another program on the same two cores is no fault of ours.
A second try is said in the output.
"""

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from _pytest.runner import runtestprotocol

from tests.support.anvil import anvil_binary

__all__ = ["anvil_binary", "golden"]

hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same")

CROWDED = ("integration/hostile", "test_p2p_processes", "test_policy_host")
TRIES = 3

_GOLDEN = Path(__file__).parent / "vectors" / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag; golden files change only by it, in their own commit."""
    parser.addoption("--update", action="store_true", help="rewrite golden files")


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Try a test that measures real time again when it fails."""
    if not isinstance(item, pytest.Function) or not any(w in item.nodeid for w in CROWDED):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(1, TRIES + 1):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if attempt == TRIES or not any(report.failed for report in reports):
            break
        print(f"\n{item.nodeid} failed on try {attempt}, tried again")
        item._initrequest()  # fresh fixtures, as pytest makes them for a first run
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, bytes], None]:
    """Return `check(name, raw)`: bytes must equal those of tests/vectors/golden/NAME.hex."""

    def check(name: str, raw: bytes) -> None:
        path = _GOLDEN / f"{name}.hex"
        if request.config.getoption("--update"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(_lines(raw.hex())) + "\n")
        assert path.exists(), f"no golden file {path.name}: run pytest with --update"
        assert "".join(path.read_text().split()) == raw.hex(), f"{name} has other bytes than before"

    return check


def _lines(text: str, width: int = 96) -> list[str]:
    return [text[at : at + width] for at in range(0, len(text), width)]
