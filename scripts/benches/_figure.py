"""One measured figure is one JSON line: name, value, unit, goal, ok."""

import json
import sys


def figure(name: str, value: float, unit: str, goal: str = "", ok: bool = True) -> bool:
    """Print one figure and return `ok`."""
    line = {"name": name, "value": round(value, 6), "unit": unit, "goal": goal, "ok": ok}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    return ok


def at_most(name: str, value: float, unit: str, limit: float) -> bool:
    """Print a figure that should not exceed a limit."""
    return figure(name, value, unit, f"<= {limit:g}", value <= limit)


def at_least(name: str, value: float, unit: str, limit: float) -> bool:
    """Print a figure that should not fall below a limit."""
    return figure(name, value, unit, f">= {limit:g}", value >= limit)
