"""A file of somebody else's is refused before the parser recurses into it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keeper.cli.files import MAX_BYTES, MAX_DEPTH, read_json
from keeper.errors import ConfigError


@pytest.fixture
def deep() -> Iterator[None]:
    """Let Python recurse further than its stack reaches, as some libraries do."""
    usual = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    yield
    sys.setrecursionlimit(usual)


@pytest.mark.usefixtures("deep")
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "in each other"),
        ('{"a": ' * 100_000, "in each other"),
        ('["]]]]", ' * 100_000, "in each other"),
        ('["\\"]]]]", ' * 100_000, "in each other"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "in each other"),
        ("]" * 100 + "[" * 100_000, "it$"),
        ('"' + "[" * 100_000, "it$"),
        ('\\"' + "[" * 100_000, "it$"),
        (" " * MAX_BYTES + "5", "bytes"),
        ("[1.5]", "no whole number"),
        ("[Infinity]", "no whole number"),
        ("9" * 5_000, "it$"),
        ("", "it$"),
    ],
    ids=range(13),
)
def test_a_hostile_file_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "it").write_text(text)
    with pytest.raises(ConfigError, match=f"cannot be read as JSON.*{why}"):
        read_json(tmp_path / "it")


@pytest.mark.parametrize(
    "value",
    [[[]] * 3_000, {"[[{{": "{" * 100, 'a"]\\': ['"', "\\"]}, 5, "é", [1 << 300], None],
)
def test_an_honest_file_reads_back(tmp_path: Path, value: object) -> None:
    deepest: object = value
    for _ in range(MAX_DEPTH - 2):
        deepest = [deepest]
    for one in (value, deepest):
        for ascii_only in (True, False):
            (tmp_path / "it").write_text(json.dumps(one, ensure_ascii=ascii_only))
            assert read_json(tmp_path / "it") == one
    (tmp_path / "it").write_bytes(b"\xff")
    with pytest.raises(ConfigError):
        read_json(tmp_path / "it")
