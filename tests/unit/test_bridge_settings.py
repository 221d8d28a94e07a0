"""`[bridges.*]` of `keeper.toml`: what a route needs, and sections that are none."""

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keeper.errors import ConfigError
from keeper.hashing import keccak
from keeper.route.bridges.port import Crossing
from keeper.route.bridges.settings import Routes, routes_of
from keeper.units import ChainId, symbol

VERIFIER = keccak(b"network")


def word(number: int) -> str:
    return "0x" + f"{number:02x}" * 20


SECTION = f"""
kind = "hyperlane"
asset = "USDC"
validators = ["{word(1)}", "{word(2)}", "{word(3)}", "{word(4)}"]
threshold = 3
p95_s = 60
[chains.1]
domain = 1
router = "{word(0x11)}"
mailbox = "{word(0x12)}"
hook = "{word(0x13)}"
module = "{word(0x14)}"
token = "{word(0x15)}"
first_block = 7
[chains.10]
domain = 10
router = "{word(0x21)}"
mailbox = "{word(0x22)}"
hook = "{word(0x23)}"
module = "{word(0x24)}"
"""


def section() -> dict[str, Any]:
    return tomllib.loads(SECTION)


def read(**sections: dict[str, Any]) -> Routes | None:
    return routes_of(sections, VERIFIER, "keeper.toml")


def test_a_section_is_a_route() -> None:
    found = read(usdc=section())
    assert found is not None
    (route,) = found.routes
    usdc = symbol("USDC")
    assert route.crossings() == (Crossing(ChainId(1), ChainId(10), usdc),
                                 Crossing(ChainId(10), ChainId(1), usdc))  # fmt: skip
    assert route.end(ChainId(1)).token == b"\x15" * 20
    assert route.end(ChainId(10)).token == b""
    assert (route.timing.p50_ms, route.timing.p95_ms) == (30_000, 60_000)
    assert (route.verifier, route.threshold) == (VERIFIER, 3)
    assert found.first_blocks == ((1, 7), (10, 0))
    assert read() is None


def test_two_routes_share_a_courier_or_are_refused() -> None:
    other = section()
    other["asset"], other["chains"]["1"]["first_block"] = "WETH", 3
    other["chains"]["1"]["router"] = word(0x31)
    found = read(usdc=section(), weth=other)
    assert found is not None
    assert len(found.routes) == 2
    assert found.first_blocks[0] == (1, 3)
    for where, key, value in (
        ("chains", "10", {**other["chains"]["10"], "hook": word(0x66)}),
        ("", "threshold", 2),
    ):
        odd = copy.deepcopy(other)
        (odd[where] if where else odd)[key] = value
        with pytest.raises(ConfigError, match=r"\[bridges.weth\]: it has other"):
            read(usdc=section(), weth=odd)


def _without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        for name in path[:-1]:
            row = row[name]
        del row[path[-1]]

    return change


def _with(value: object, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        for name in path[:-1]:
            row = row[name]
        row[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("threshold"), "threshold is missing"),
        (_without("chains", "10", "hook"), "hook is missing"),
        (_with("ccip", "kind"), "is not hyperlane"),
        (_with(5, "threshold"), "at least as many"),
        (_with([word(1), word(1)], "validators"), "different"),
        (_with("0x12", "chains", "1", "router"), "is no address"),
        (_with(1, "chains", "10", "domain"), "domain of its own"),
        (_without("chains", "10"), "at least two chains"),
        (_with(1, "speed"), "unknown key 'speed'"),
        (_with(1, "chains", "1", "speed"), "unknown key 'speed'"),
        (_with(90, "p50_s"), "at most p95_s"),
    ],
)
def test_a_section_that_cannot_be_used_says_why(
    change: Callable[[dict[str, Any]], None], said: str
) -> None:
    row = section()
    change(row)
    with pytest.raises(ConfigError, match=said):
        read(usdc=row)


def test_the_page_shows_a_section_that_can_be_used() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "routing.md"
    text = page.read_text().split("```toml\n")[1].split("```")[0]
    shown = tomllib.loads(text.replace("0x…", word(7)))
    for row in shown["bridges"].values():
        row["validators"] = [word(place) for place in range(len(row["validators"]))]
    assert routes_of(shown["bridges"], VERIFIER, "docs") is not None
