"""js-libp2p, the development peer: fetched once into `.cache/npm`, pinned; absent node skips."""

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".cache" / "npm" / "libp2p"
PACKAGES = (
    "libp2p@3.3.11",
    "@chainsafe/libp2p-noise@17.0.0",
    "@chainsafe/libp2p-yamux@8.0.1",
    "@libp2p/gossipsub@17.1.1",
    "@libp2p/tcp@11.0.28",
    "@libp2p/identify@4.1.14",
    "@libp2p/ping@3.1.13",
)
POLYFILL = """Promise.withResolvers ??= function () {
  let resolve, reject; const promise = new Promise((a, b) => { resolve = a; reject = b })
  return { promise, resolve, reject } }
"""


def missing() -> str:
    """Return why js-libp2p cannot run here, or nothing after making sure that it can."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "needs node and npm"
    if not (HOME / "node_modules" / "libp2p").exists():
        HOME.mkdir(parents=True, exist_ok=True)
        (HOME / "package.json").write_text('{"private": true, "type": "module"}')
        command = ["npm", "install", "--no-audit", "--no-fund", "--save-exact", *PACKAGES]
        done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"npm could not fetch js-libp2p: {done.stderr[-200:]}"
    (HOME / "polyfill.mjs").write_text(POLYFILL)
    (HOME / "node.mjs").write_text((ROOT / "tests" / "support" / "p2p_js.mjs").read_text())
    return ""


REDIAL_S = 0.2
"""Pause before another try: nodes that all dial at once drop handshakes."""


class JsNode:
    """One js-libp2p process."""

    def __init__(self, seed: bytes, port: int, *topics: str) -> None:
        self.process = subprocess.Popen(
            ["node", "--import", "./polyfill.mjs", "node.mjs", seed.hex(), str(port), *topics],
            cwd=HOME,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, **order: Any) -> None:
        """Send an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """Return the next line it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the js node ended"
        value: dict[str, Any] = json.loads(line)
        return value

    def until(self, key: str) -> dict[str, Any]:
        """Return the next line that has a key."""
        while key not in (value := self.read()):
            assert "error" not in value, value
        return value

    def dial(self, address: str, tries: int = 5) -> None:
        """Connect it; a crowded machine resets a connection now and then."""
        for left in reversed(range(tries)):
            self.tell(dial=address)
            while not (value := self.read()).keys() & {"dialled", "error"}:
                pass
            if "dialled" in value:
                return
            assert left, value
            time.sleep(REDIAL_S)

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
