"""Whatever a policy asks for: no cap, no exposure limit and no deadline is ever exceeded."""

import random
from dataclasses import replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from keeper.config import RoutingLimits
from keeper.plan import Step, StepKind
from keeper.route import permits
from keeper.route.bridges.hyperlane import Hyperlane
from keeper.route.bridges.port import Crossing, Terms, Timing
from keeper.route.permits import USD, Board, Permit, Price, Quoted, permit
from keeper.route.shipments import NOTHING, Shipment, State, stocks
from keeper.route.traffic import lane_now, seen_of
from keeper.units import ChainId
from tests.support.warp_world import AWAY, ENDS, HOME, USDC

ME = b"\x0c" * 20
PRICE = Price(3 * 10**8, 6)
BRIDGES = tuple(
    Hyperlane(
        USDC,
        [replace(end, router=bytes([place]) * 19 + bytes([end.chain])) for end in ENDS.values()],
        (b"\x01" * 20,), 1, verifier=bytes([place % 2]) * 32, timing=Timing(1_000, 20_000 * place),
    )
    for place in (1, 2, 3)
)  # fmt: skip
PLACES = ((HOME, USDC), (AWAY, USDC))
Act = tuple[int, int, int, int, int, int, int, int]


def drawn_limits(chance: random.Random) -> RoutingLimits:
    return RoutingLimits(
        transfer_usd=chance.randint(300, 3_000),
        window_usd=chance.randint(1_000, 9_000),
        window_s=chance.randint(1, 600),
        exposure_usd=chance.randint(1_000, 6_000),
        transfers=chance.randint(1, 5),
        deadline_s=chance.choice([30, 50, 90, 90, 90, 90]),
        cost_ppm=chance.choice([1, 100, 10_000]),
        coin_wei=chance.choice([0, 3, 3, 3]),
    )


def drawn_act(chance: random.Random) -> Act:
    """Return what a policy may ask for: half of it within most limits."""
    return (
        chance.randint(0, 3),
        chance.randint(0, 1),
        chance.choice([chance.randint(1, 900) * 10**6] * 4 + [chance.randint(-5, 5)]),
        chance.randint(1, 1_001_000),
        chance.choice([90_000] * 3 + [30_000, 1_000]),
        chance.choice([0, 0, 100, 4_000]),
        chance.choice([10**11 + at for at in range(5)] + [500 * 10**6, 0]),
        chance.randint(0, 3),
    )


class World:
    """Balances, shipments and a clock; the policy asks for anything, in any order."""

    def __init__(self, kept: RoutingLimits) -> None:
        self.limits, self.now = kept, 10**6
        self.balances = dict.fromkeys(PLACES, 4_000 * 10**6)
        self.known: list[Shipment] = []
        self.sent: list[tuple[int, Shipment]] = []

    def board(self, quotes: dict[tuple[bytes, Crossing], Quoted]) -> Board:
        rows = stocks(self.balances, self.known, {}, {})
        return Board(
            self.limits, ME, self.now, {place: one.available for place, one in rows.items()},
            quotes, {USDC: PRICE}, self.known, (), lambda _: False, {HOME: 1, AWAY: 1},
        )  # fmt: skip

    def ask(self, act: Act) -> None:
        which, way, amount, least_ppm, ttl_ms, fee_ppm, room, after = act
        least = amount * least_ppm // 10**6
        bridge = BRIDGES[which % 3]
        crossing = bridge.crossings()[way]
        terms = Terms(0, fee_ppm, which, room)
        lane = lane_now(bridge, crossing, terms, seen_of((), terms, (), self.now))
        venue = bridge.address(crossing)
        coin = (0, 10**4, 0, 10**4, None)[room % 5]
        quoted = Quoted(bridge, crossing, lane, terms, coin)
        args = {"amount": amount, "asset": USDC, "destination": crossing.destination}
        named = tuple((args | {"least_out": least}).items())
        step = Step("move", crossing.origin, StepKind.BRIDGE, venue, named)
        found = permit(self.board({(venue, crossing): quoted}), b"t", [step], ttl_ms, "")
        if isinstance(found, Permit):
            one = found.shipment
            assert lane.p95_ms <= min(ttl_ms, self.limits.deadline_s * 1000)
            assert 0 < one.amount <= min(room, self.balances[one.origin])
            assert max(least, 1) <= one.brings <= one.amount
            assert coin is not None, "what it costs is known"
            cost = one.amount - one.brings + coin
            assert cost * 10**6 <= one.amount * self.limits.cost_ppm
            assert sum(send.value for send in found.sends) <= self.limits.coin_wei
            self.known.append(one)
            self.sent.append((self.now, one))
        self.checked()
        self.end(after)
        self.now += 10_000 * after

    def end(self, how: int) -> None:
        """Let the oldest that is open come to an end, or not."""
        place = next((at for at, one in enumerate(self.known) if one.open), None)
        if place is None or how == 0:
            return
        one = self.known[place]
        state = (State.SENT, State.ARRIVED, State.DROPPED)[how - 1]
        if one.state is State.SENT and state is State.DROPPED:
            return
        if one.state is State.WANTED and state is not State.DROPPED:
            self.balances[one.origin] -= one.amount
        if state is State.ARRIVED:
            self.balances[one.destination] += one.brings
        self.known[place] = replace(
            one, state=state, ended_ms=0 if state is State.SENT else self.now
        )

    def checked(self) -> None:
        """Count everything again, from what was sent."""
        limits, going = self.limits, [one for one in self.known if one.open]
        dollars = [(at, -(-3 * one.amount // 1)) for at, one in self.sent]  # µUSD at 3 USD each
        assert all(value <= limits.transfer_usd * USD for _, value in dollars)
        assert len(going) <= limits.transfers
        for bridge in BRIDGES:
            behind = sum(3 * one.amount for one in going if one.verifier == bridge.verifier)
            assert behind <= limits.exposure_usd * USD
        dropped = {one.id for one in self.known if one.state is State.DROPPED}
        for now, _ in self.sent:
            window = sum(
                3 * one.amount for at, one in self.sent
                if now - limits.window_s * 1000 < at <= now and one.id not in dropped
            )  # fmt: skip
            assert window <= limits.window_usd * USD
        assert all(one >= 0 for one in self.balances.values()), "nothing is spent twice"


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**64))
def test_no_cap_no_exposure_and_no_deadline_is_exceeded(seed: int) -> None:
    chance = random.Random(seed)
    world = World(drawn_limits(chance))
    for _ in range(25):
        world.ask(drawn_act(chance))
    event(f"{min(len(world.known), 9)} permitted")


def _act(amount: int = 900 * 10**6, after: int = 0) -> Act:
    return (0, 0, amount, 10**6, 60_000, 0, 3_000 * 10**6, after)


@pytest.mark.parametrize(
    ("name", "broken", "kept"),
    [
        ("sent_since", (0, 0), RoutingLimits(3_000, 3_000)),
        ("exposure", 0, RoutingLimits(3_000, exposure_usd=3_000)),
    ],
    ids=["window", "exposure"],
)
def test_the_laws_bite(
    name: str, broken: object, kept: RoutingLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = World(kept)
    for _ in range(2):
        sound.ask(_act())
    assert len(sound.known) == 1
    monkeypatch.setattr(permits.shipments, name, lambda *_: broken)
    world = World(kept)
    world.ask(_act())
    with pytest.raises(AssertionError):
        world.ask(_act())


def test_what_the_world_needs_is_permitted() -> None:
    world = World(RoutingLimits())
    world.ask(_act(after=2))
    world.ask(_act())
    assert [one.state for one in world.known] == [State.ARRIVED, State.WANTED]
    assert stocks(world.balances, world.known, {world.known[1].id: NOTHING}, {})[PLACES[0]]
    assert ChainId(1) == HOME
