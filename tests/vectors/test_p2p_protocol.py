"""docs/protocol.md shows the bytes that the code makes."""

import re
from pathlib import Path

import pytest

from p2p.verdicts import POINTS
from tests.support.p2p_examples import examples

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"


@pytest.mark.parametrize("name", examples())
def test_example_bytes_are_current(name: str) -> None:
    section = DOCUMENT.read_text().split(f"\n#### {name}\n", 1)
    assert len(section) == 2, f"docs/protocol.md has no example of {name}"
    found = re.search(r"```\n([0-9a-f\n]+)```", section[1])
    assert found is not None
    assert bytes.fromhex(found.group(1).replace("\n", "")) == examples()[name]


def test_every_reason_with_points_is_listed() -> None:
    text = DOCUMENT.read_text()
    assert not [reason for reason in POINTS if f"`{reason.value}`" not in text]
