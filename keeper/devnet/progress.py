"""What a person sees while a devnet works: steps as lines, and what happens now on one moving line.

    12.4 s  credit is certified and applied; positions are opened
    view 41 · sealed 41 · 61 accounts · 12 unhealthy · 4 tasks · 8 awards · 3 on their way

A machine gets the same as JSON lines.
"""

import json
import sys
import time
from typing import Any

import trio
from rich.console import Console
from rich.status import Status

from keeper.devnet.cluster import Cluster


class Progress:
    """Prints steps and the moving line."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json, self._began = as_json, time.monotonic()
        self._console = Console(stderr=as_json, highlight=False)
        self._status: Status | None = None
        if not as_json and self._console.is_terminal:
            self._status = self._console.status("starting")

    def __enter__(self) -> "Progress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        """Print one step."""
        elapsed = time.monotonic() - self._began
        if self._as_json:
            self._line({"elapsed_s": round(elapsed, 1), "step": text})
        else:
            self._console.print(f"{elapsed:7.1f} s  {text}")

    def _line(self, value: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()

    async def watch(self, cluster: Cluster) -> None:
        """Show what happens now, once a second, until cancelled."""
        last = -1
        while True:
            await trio.sleep(1.0)
            seen = [await one.status() for one in cluster.keepers]
            alive = [value for value in seen if value is not None and "final_view" in value]
            if not alive:
                continue
            top = max(alive, key=lambda value: value["final_view"])
            if top["final_view"] == last:
                continue
            last = top["final_view"]
            self._show(top, len(alive))

    def _show(self, top: dict[str, Any], alive: int) -> None:
        names = ("accounts", "unhealthy", "tasks", "awards", "outstanding")
        counts = {name: top.get(name, 0) for name in names}
        if self._as_json:
            self._line(
                {
                    "view": top["final_view"],
                    "sealed": top["sealed_view"],
                    "keepers": alive,
                    **counts,
                }
            )
        elif self._status is not None:
            words = " · ".join(f"{count} {name}" for name, count in counts.items())
            view, sealed = top["final_view"], top["sealed_view"]
            self._status.update(f"view {view} · sealed {sealed} · {alive} keepers · {words}")
