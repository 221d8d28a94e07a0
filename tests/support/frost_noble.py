"""The development peer @noble/curves, fetched once into .cache/npm; absent node skips a test."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.shared import ROOT

VERSION = "2.4.0"
FOLDER = ROOT / ".cache" / "npm" / "noble"


def install() -> str | None:
    """Fetch the package; return why it is not there, or None."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "needs node and npm"
    if (FOLDER / "node_modules" / "@noble" / "curves" / "package.json").exists():
        return None
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(FOLDER)]
    try:
        result = subprocess.run(
            [*command, f"@noble/curves@{VERSION}"], capture_output=True, timeout=120, check=False
        )
    except subprocess.TimeoutExpired:
        return "npm did not answer in time"
    return None if result.returncode == 0 else f"npm could not fetch @noble/curves {VERSION}"


class Noble:
    """A node process that answers one JSON line with another."""

    def __init__(self, script: str) -> None:
        reason = install()
        if reason is not None:
            pytest.skip(reason)
        path: Path = ROOT / "scripts" / "benches" / script
        self._process = subprocess.Popen(
            ["node", str(path), str(FOLDER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """Return the answer to one request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb, **fields}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()
