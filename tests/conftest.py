"""Fixtures every test may ask for, and `--update`, which rewrites golden files."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.anvil import anvil_binary

__all__ = ["anvil_binary", "golden"]

_GOLDEN = Path(__file__).parent / "vectors" / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag; golden files change only by it, in their own commit."""
    parser.addoption("--update", action="store_true", help="rewrite golden files")


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
