"""What a routing policy may do: one test shows that each limit bites, and what passes them all."""

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from keeper import config
from keeper.config import RoutingLimits
from keeper.errors import ConfigError
from keeper.hashing import keccak
from keeper.plan import Step, StepKind
from keeper.route.bridges.port import Crossing, Terms
from keeper.route.permits import MOST_DECIDED, Board, Permit, Price, Quoted, permit, room
from keeper.route.shipments import REST_MS, Shipment, State
from keeper.route.traffic import lane_now, seen_of
from keeper.units import ChainId
from policies.routing import RoutingConfig
from tests.support.warp_world import AWAY, ENDS, HOME, USDC, WarpWorld

ME, USD, NOW = b"\x0c" * 20, 10**6, 10**9
OUT = Crossing(HOME, AWAY, USDC)
ROUTE = WarpWorld().route
VENUE = ROUTE.address(OUT)
LIMITS = RoutingLimits(1_000, 3_000, 3_600, 2_000, transfers=3, coin_wei=7, deadline_s=60)


def quoted(terms: Terms | None = None, **changes: Any) -> Quoted:
    terms = terms or Terms(value=7)
    lane = lane_now(ROUTE, OUT, terms, seen_of((), terms, (), NOW))
    return Quoted(ROUTE, OUT, replace(lane, **changes), terms, 0)


def shipment(number: int = 1, value: int = 500 * USD, **changes: Any) -> Shipment:
    one = Shipment(
        bytes([number]) * 32, b"task", OUT, VENUE, ROUTE.verifier, 500 * USD, 500 * USD, value,
        NOW - 1, 60_000, 5,
    )  # fmt: skip
    return replace(one, **{"state": State.SENT, **changes})


def board(**changes: Any) -> Board:
    made = Board(
        LIMITS, ME, NOW, {(HOME, USDC): 5_000 * USD, (AWAY, USDC): 0}, {(VENUE, OUT): quoted()},
        {USDC: Price(10**8, 6)}, (), (), lambda _: False, {HOME: 3, AWAY: 4},
    )  # fmt: skip
    return replace(made, **changes)


def step(**changes: Any) -> Step:
    args = {"amount": 900 * USD, "asset": USDC, "destination": AWAY, "least_out": 900 * USD}
    given = {name: value for name, value in (args | changes).items() if value is not None}
    return Step("move", HOME, StepKind.BRIDGE, VENUE, tuple(sorted(given.items())))


def ask(given: Board, *steps: Step, ttl_ms: int = 60_000) -> Permit | str:
    return permit(given, b"task", steps or (step(),), ttl_ms, "because")


def test_what_is_within_all_limits_is_sent() -> None:
    found = ask(board())
    assert isinstance(found, Permit)
    one = found.shipment
    assert (one.amount, one.brings, one.value) == (900 * USD, 900 * USD, 900 * USD)
    assert (one.state, one.first, one.verifier) == (State.WANTED, 4, ROUTE.verifier)
    assert [send.to for send in found.sends] == [ENDS[HOME].token, VENUE]
    assert found.sends[-1].value == 7
    again = ask(board(known=(replace(one, state=State.ARRIVED),)))
    assert isinstance(again, Permit)
    assert again.shipment.id != one.id, "every one has an id of its own"


@pytest.mark.parametrize(
    ("given", "steps", "why"),
    [
        (board(), (step(), step()), "2 steps"),
        (board(), (replace(step(), kind=StepKind.SWAP),), "does not say what to send"),
        (board(), (step(gas=1),), "no 'gas'"),
        (board(), (step(amount=None),), "does not say how much"),
        (board(), (step(recipient=b"\x07" * 20),), "own account"),
        (board(), (step(destination=9),), "chain 9 holds no such asset"),
        (board(), (step(asset=b"x"),), "holds no such asset"),
        (board(), (replace(step(), venue=b"\x07" * 20),), "no configured bridge"),
        (board(first={HOME: 3}), (), "or it is away"),
        (board(quotes={(VENUE, OUT): quoted(Terms(fault="odd"))}), (), "odd"),
        (board(quotes={(VENUE, OUT): quoted(cursed=True)}), (), "cursed"),
        (board(quotes={(VENUE, OUT): replace(quoted(), doubt="late")}), (), "late"),
        (board(stopped=lambda _: True), (), "breaker"),
        (board(leaving={HOME}), (), "another one is leaving"),
        (board(), (step(amount=0),), "0 of 5000000000"),
        (board(), (step(amount=-1),), "-1 of 5000000000"),
        (board(available={(HOME, USDC): 899 * USD, (AWAY, USDC): 0}), (), "of 899000000"),
        (board(quotes={(VENUE, OUT): quoted(capacity=899 * USD)}), (), "has room for 899000000"),
        (board(quotes={(VENUE, OUT): quoted(capacity=900 * USD, queue=1)}), (), "has room for"),
        (board(quotes={(VENUE, OUT): quoted(p95_ms=60_001)}), (), "over the deadline of 60000"),
        (board(quotes={(VENUE, OUT): quoted(Terms(fee_ppm=3_001))}), (), "over 3000 ppm"),
        (board(quotes={(VENUE, OUT): quoted(Terms(fee_fixed=3 * USD))}), (), "over 3000 ppm"),
        (board(quotes={(VENUE, OUT): replace(quoted(), coin_cost=3 * USD)}), (), "over 3000 ppm"),
        (board(quotes={(VENUE, OUT): replace(quoted(), coin_cost=None)}), (), "is not known"),
        (board(quotes={(VENUE, OUT): quoted(Terms(fee_ppm=1))}), (), "brings 899999100"),
        (board(), (step(least_out=0),), "at least"),
        (board(), (step(least_out=None),), "at least"),
        (board(), (step(least_out=900 * USD + 1),), "is asked for"),
        (board(quotes={(VENUE, OUT): quoted(Terms(value=8))}), (), "asks 8 wei, over 7"),
        (board(prices={}), (), "no price"),
        (
            board(prices={USDC: Price(10**8 * 10 // 9 + 1, 6)}),
            (),
            "are left of 1000 USD a transfer",
        ),
        (board(known=[shipment(at) for at in range(3)]), (), "3 transfers are under way"),
        (board(known=[shipment(value=1_101 * USD)]), (), "left of 2000 USD behind one verifier"),
        (
            board(known=[shipment(at, state=State.ARRIVED) for at in range(5)]),
            (),
            "left of 3000 USD in 3600 s",
        ),
        (
            board(known=[shipment(1, 0, state=State.DROPPED, ended_ms=NOW - REST_MS + 1)]),
            (),
            "came to nothing; next in 1 ms",
        ),
        (
            board(known=[shipment(1, 0, state=State.ARRIVED)] * MOST_DECIDED),
            (),
            f"{MOST_DECIDED} transfers were tried",
        ),
    ],
)
def test_every_limit_bites(given: Board, steps: tuple[Step, ...], why: str) -> None:
    found = ask(given, *steps)
    assert isinstance(found, str)
    assert why in found


def test_what_is_shown_of_a_lane_is_what_may_go_over_it() -> None:
    dear = Price(3 * 10**8 + 1, 6)
    for given in (
        board(),
        board(prices={USDC: dear}),
        board(known=[shipment()]),
        board(known=[shipment(at, state=State.ARRIVED) for at in range(4)]),
        board(known=[shipment(value=1_900 * USD)]),
        board(quotes={(VENUE, OUT): quoted(capacity=7)}),
        board(leaving={HOME}),
        board(prices={}),
        board(known=[shipment(at) for at in range(3)]),
        board(quotes={(VENUE, OUT): quoted(p95_ms=60_001)}),
        board(quotes={(VENUE, OUT): quoted(Terms(value=8))}),
    ):
        most = room(given, given.quotes[VENUE, OUT])
        rich = replace(given, available={(HOME, USDC): 10**12, (AWAY, USDC): 0})
        assert not isinstance(ask(rich, step(amount=most + 1, least_out=1)), Permit)
        fits = ask(rich, step(amount=most, least_out=1))
        assert isinstance(fits, Permit) is (most > 0), fits


def test_limits_end_where_they_should() -> None:
    old = [shipment(at, state=State.ARRIVED, decided_ms=NOW - 3_600_000) for at in range(9)]
    assert isinstance(ask(board(known=old)), Permit), "before the window"
    other = shipment(value=10**12, verifier=keccak(b"others"), decided_ms=0)
    assert isinstance(ask(board(known=[other])), Permit), "behind another verifier"
    dropped = shipment(value=10**12, state=State.DROPPED, ended_ms=NOW - REST_MS)
    assert isinstance(ask(board(known=[dropped])), Permit), "it never left"
    assert isinstance(ask(board(), ttl_ms=59_999), str), "the policy's own deadline"
    assert isinstance(permit(board(), b"x" * 65, (step(),), 60_000, ""), str)
    twice = [replace(dropped, id=bytes([at]) * 32) for at in range(2)]
    assert "next in 15000 ms" in str(ask(board(known=twice))), "ever longer"
    back = [*twice, shipment(3, 0, state=State.ARRIVED)]
    assert isinstance(ask(board(known=back)), Permit), "until one gets through"


def test_limits_are_read_and_checked(tmp_path: Path) -> None:
    def read(text: str) -> config.Config:
        made = config.render(
            mode="off", password_file="", p2p_port=0, bootstrap=(), http_port=1,
            endpoints={ChainId(1): ("http://x",)},
        )  # fmt: skip
        (tmp_path / "keeper.toml").write_text(made + text)
        return config.load(tmp_path)

    assert read("").routing == RoutingLimits()
    section = "[routing]\ntransfer_usd = 5\n[policy.routing]\nfloor = 7\n"
    found = read(section)
    assert (found.routing.transfer_usd, found.routing.window_usd) == (5, 50_000)
    assert found.settings_of("routing") == {"floor": 7}
    for bad in ("transfer_usd = 0", "window_s = 1.5", "transfers = 65", "window_s = 700000",
                "other = 1", 'cost_ppm = "7"', "coin_wei = -1", "transfers = true"):  # fmt: skip
        with pytest.raises(ConfigError):
            read(f"[routing]\n{bad}\n")


def test_the_pages_section_is_what_a_node_reads() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "routing.md").read_text()
    found = [tomllib.loads(text) for text in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)]
    (section,) = [row for row in found if "routing" in row]
    assert section["routing"].keys() == {one.name for one in fields(RoutingLimits)}
    assert RoutingLimits(**section["routing"]) == RoutingLimits()
    assert set(section["policies"]) == set(section["policy"]) <= config.KINDS
    RoutingConfig(**section["policy"]["routing"])
