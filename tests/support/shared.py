"""Published vectors and market data: read beside the repository, never committed."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def shared_path(name: str) -> Path:
    """Return `../shared/NAME`, or skip the test saying why."""
    path = ROOT.parent / "shared" / name
    if not path.exists():
        pytest.skip(f"needs {name} of the shared folder beside the repository")
    return path
