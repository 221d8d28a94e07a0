"""`[bridges.*]` of `keeper.toml`: what a route needs, and sections that are none."""

import copy
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keeper.errors import ConfigError
from keeper.hashing import keccak
from keeper.keys import address_of
from keeper.route.bridges.ccip_committee import CCIP_FRAME
from keeper.route.bridges.ccip_lane import Ccip
from keeper.route.bridges.hyperlane import Hyperlane
from keeper.route.bridges.multisig import FRAME
from keeper.route.bridges.origins import origins_of
from keeper.route.bridges.port import Bridge, Crossing
from keeper.route.bridges.settings import bridges_of
from keeper.units import ChainId, symbol

VERIFIER = keccak(b"network")
KEY = keccak(b"an operator")
ME = "0x" + address_of(KEY).hex()


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


def read(**sections: dict[str, Any]) -> tuple[Bridge, ...]:
    return bridges_of(sections, VERIFIER, "keeper.toml")


def test_a_section_is_a_route() -> None:
    (route,) = read(usdc=section())
    assert isinstance(route, Hyperlane)
    usdc = symbol("USDC")
    assert route.crossings() == (Crossing(ChainId(1), ChainId(10), usdc),
                                 Crossing(ChainId(10), ChainId(1), usdc))  # fmt: skip
    assert route.end(ChainId(1)).token == b"\x15" * 20
    assert route.end(ChainId(10)).token == b""
    assert (route.timing.p50_ms, route.timing.p95_ms) == (30_000, 60_000)
    assert (route.verifier, route.threshold) == (VERIFIER, 3)
    assert [(end.chain, end.first_block) for end in route.ends] == [(1, 7), (10, 0)]
    assert read() == ()


def test_two_routes_share_a_courier_or_are_refused() -> None:
    other = section()
    other["asset"], other["chains"]["1"]["first_block"] = "WETH", 3
    other["chains"]["1"]["router"] = word(0x31)
    mine = section()
    mine["validators"][0] = other["validators"][0] = ME
    found = read(usdc=mine, weth=other)
    assert len(found) == 2
    here, there = (origin.watch for origin in origins_of(found, KEY))
    assert (here.chain, here.start, there.chain, there.start) == (1, 3, 10, 0)
    assert origins_of(found, keccak(b"stranger")) == ()
    for where, key, value in (
        ("chains", "10", {**other["chains"]["10"], "hook": word(0x66)}),
        ("", "threshold", 2),
    ):
        odd = copy.deepcopy(other)
        (odd[where] if where else odd)[key] = value
        with pytest.raises(ConfigError, match=r"\[bridges.weth\]: it has other"):
            read(usdc=mine, weth=odd)


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
        (_with("wormhole", "kind"), "is not hyperlane or ccip"),
        (_with("3", "threshold"), "threshold is a whole number"),
        (_with(True, "threshold"), "threshold is a whole number"),
        (_with(2.5, "chains", "1", "domain"), "domain is a whole number"),
        (_with(-1, "chains", "1", "first_block"), "first_block is a whole number"),
        (_with("0x" + "00" * 20, "chains", "1", "hook"), "is no address"),
        (_with(0, "p95_s"), "p50_s is above 0"),
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


TOKEN = f"""
kind = "ccip"
asset = "USDC"
decimals = 6
signers = ["{word(4)}", "{word(2)}", "{word(3)}", "{word(1)}"]
threshold = 3
tag = "0x4b454550"
p95_s = 1200
p50_s = 900
[chains.1]
selector = 5009297550715157269
router = "{word(0x41)}"
on_ramp = "{word(0x42)}"
off_ramp = "{word(0x43)}"
registry = "{word(0x44)}"
rmn = "{word(0x45)}"
resolver = "{word(0x46)}"
verifier = "{word(0x47)}"
token = "{word(0x48)}"
pool = "{word(0x49)}"
lock_box = "{word(0x4A)}"
[chains.10]
selector = 3734403246176062136
router = "{word(0x51)}"
on_ramp = "{word(0x52)}"
off_ramp = "{word(0x53)}"
registry = "{word(0x54)}"
rmn = "{word(0x55)}"
resolver = "{word(0x56)}"
verifier = "{word(0x57)}"
token = "{word(0x58)}"
pool = "{word(0x59)}"
"""


def token() -> dict[str, Any]:
    return tomllib.loads(TOKEN)


def test_a_section_of_ccip_is_a_token_on_its_chains() -> None:
    (found,) = bridges_of({"usdc": token()}, VERIFIER, "keeper.toml")
    assert isinstance(found, Ccip)
    here, there = found.ends
    names = ("router", "on_ramp", "off_ramp", "registry", "rmn", "resolver", "verifier")
    for end, first in ((here, 0x41), (there, 0x51)):
        held = [getattr(end, name) for name in (*names, "token", "pool")]
        assert held == [bytes([first + place]) * 20 for place in range(9)]
    assert (here.selector, here.lock_box, there.lock_box) == (
        5_009_297_550_715_157_269, b"\x4a" * 20, b"",
    )  # fmt: skip
    committee = found.committee
    assert (committee.tag, committee.threshold) == (b"KEEP", 3)
    assert committee.signers == tuple(bytes([place]) * 20 for place in (1, 2, 3, 4))
    assert (found.decimals, found.verifier, found.timing.p50_ms) == (6, VERIFIER, 900_000)
    assert len(found.crossings()) == 2


def test_every_kind_is_a_bridge_and_one_courier_follows_those_that_a_key_signs_for() -> None:
    ccip, hyperlane = read(a=token(), b=section())
    assert isinstance(ccip, Ccip)
    assert isinstance(hyperlane, Hyperlane)
    assert origins_of([ccip, hyperlane], KEY) == ()
    routed, signed = section(), token()
    routed["validators"][2] = signed["signers"][1] = ME
    both = origins_of(read(a=signed, b=routed), KEY)
    assert [(one.watch.chain, one.watch.frame, one.watch.start) for one in both] == [
        (1, FRAME, 7), (10, FRAME, 0), (1, CCIP_FRAME, 0), (10, CCIP_FRAME, 0),
    ]  # fmt: skip
    assert {one.watch.keepers for one in both} == {4}
    assert {one.watch.chain for one in origins_of(read(a=token(), b=routed), KEY)} == {1, 10}
    assert {one.watch.frame for one in origins_of(read(a=signed, b=section()), KEY)} == {CCIP_FRAME}
    assert read() == ()
    broken = token()
    del broken["tag"]
    with pytest.raises(ConfigError, match=r"\[bridges.a\]: tag is missing"):
        read(a=broken, b=section())


def test_a_lane_is_in_one_section() -> None:
    for row in (token(), section()):
        with pytest.raises(ConfigError, match=r"\[bridges.b\]: a section before has the same lane"):
            bridges_of({"a": row, "b": row}, VERIFIER, "keeper.toml")
        other = copy.deepcopy(row)
        other["asset"] = "WETH"
        assert len(bridges_of({"a": row, "b": other}, VERIFIER, "keeper.toml")) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without("signers"), "signers is missing"),
        (_without("chains", "10", "resolver"), "resolver is missing"),
        (_without("decimals"), "decimals is missing"),
        (_with(37, "decimals"), "decimals is at most 36"),
        (_with(6.0, "decimals"), "decimals is a whole number"),
        (_with(5, "threshold"), "at least as many"),
        (_with(0, "threshold"), "at least as many"),
        (_with([word(1)] * 4, "signers"), "signers are different"),
        (_with("KEEP", "tag"), "non-hexadecimal"),
        (_with("0x4b4545", "tag"), "is not 4 bytes"),
        (_with("0x00000000", "tag"), "is not 4 bytes"),
        (_with("0x12", "chains", "1", "pool"), "is no address"),
        (_with("0x" + "00" * 20, "chains", "1", "rmn"), "is no address"),
        (_with("0x" + "00" * 20, "chains", "1", "lock_box"), "is no address"),
        (_with(0, "chains", "1", "selector"), "is no number of a chain"),
        (_with(1 << 64, "chains", "1", "selector"), "is no number of a chain"),
        (_with(3_734_403_246_176_062_136, "chains", "1", "selector"), "selector of its own"),
        (_without("chains", "10"), "at least two chains"),
        (_with({}, "chains"), "at least two chains"),
        (_with(1, "hook"), "unknown key 'hook'"),
        (_with(1, "chains", "1", "hook"), "unknown key 'hook'"),
        (_with(1201, "p50_s"), "at most p95_s"),
    ],
)
def test_a_section_of_ccip_that_cannot_be_used_says_why(
    change: Callable[[dict[str, Any]], None], said: str
) -> None:
    row = token()
    change(row)
    with pytest.raises(ConfigError, match=said):
        bridges_of({"usdc": row}, VERIFIER, "keeper.toml")


def test_the_page_shows_sections_that_can_be_used() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "routing.md").read_text()
    blocks = [text.split("```")[0] for text in page.split("```toml\n")[1:]]
    shown: dict[str, dict[str, Any]] = {}
    for text in blocks:
        found = tomllib.loads(text.replace("0x…", word(7)))
        shown |= found.get("bridges", {})
    for row in shown.values():
        for key in ("validators", "signers"):
            if key in row:
                row[key] = [word(place) for place in range(1, len(row[key]) + 1)]
    kinds = [type(one) for one in bridges_of(shown, VERIFIER, "docs")]
    assert kinds == [Hyperlane, Ccip]
