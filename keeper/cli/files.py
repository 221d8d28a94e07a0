"""JSON files of somebody else's: bounded in size and depth, whole numbers only."""

import json
import re
from itertools import accumulate
from pathlib import Path
from typing import Any

from keeper.errors import ConfigError

MAX_BYTES = 1 << 21
"""Of a file: more than the largest plan there can be."""
MAX_DEPTH = 16
"""Of lists and objects: some times what a plan has. The parser recurses on the C stack, and how far
it may go is whatever a library last set: it is counted before."""
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def read_json(path: Path) -> Any:
    """Return what a file says.

    Raises:
        ConfigError: it cannot be read, is no JSON, has a fraction, or is too large or too deep.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        text = raw.decode()
        if _depth(raw) > MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} lists and objects in each other")
        return json.loads(text, parse_float=_fraction, parse_constant=_fraction)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read as JSON: {error}", where=str(path)) from error


def _depth(raw: bytes) -> int:
    """Return how deep brackets go, those in texts not counted; exact as far as it is JSON."""
    return max(accumulate(_STEPS.get(byte, 0) for byte in _TEXT.sub(b"", raw)), default=0)


def _fraction(text: str) -> int:
    raise ValueError(f"{text[:80]} is no whole number")
