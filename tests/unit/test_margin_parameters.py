"""Parameter sets: canonical bytes, what no set may say, and how far a set may move."""

import dataclasses
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from keeper.parameters import (
    AssetParameters,
    MarketParameters,
    Parameters,
    UnderlyingParameters,
    VenueParameters,
)
from keeper.parameters.steps import refused_change, refused_step, wait_s
from keeper.units import PPM, ChainId, symbol

BASE = Parameters.devnet()
LIMITS = BASE.breakers


def changed(section: str, **fields: Any) -> Parameters:
    return replace(BASE, **{section: replace(getattr(BASE, section), **fields)})


def market(**fields: Any) -> Parameters:
    first, *rest = BASE.margin.markets
    return changed("margin", markets=(replace(first, **fields), *rest))


def test_a_set_survives_its_bytes() -> None:
    raw = BASE.encode()
    assert Parameters.decode(raw) == BASE
    assert Parameters.decode(raw).digest == BASE.digest
    assert changed("margin", leg_cost=1).digest != BASE.digest


def test_bytes_that_are_not_canonical_are_refused() -> None:
    raw = BASE.encode()
    version, body = msgpack.unpackb(raw)
    for broken in (b"", b"\xc1", raw[:-1], raw + b"\0", msgpack.packb([1, body]), b"\x91" * 5_000):
        with pytest.raises(ValueError, match="parameters"):
            Parameters.decode(broken)
    body[0][0][0] = list(map(float, body[0][0][0]))
    with pytest.raises(ValueError, match="expected int"):
        Parameters.decode(msgpack.packb([version, body]))


IMPOSSIBLE: list[tuple[Parameters, str]] = [
    (changed("liquidation", window_blocks=0), "window_blocks"),
    (changed("clearing", netting_ticks=0), "netting_ticks"),
    (changed("competition", bond_per_unit=0), "bond_per_unit"),
    (changed("competition", reward_ticks=0), "reward_ticks"),
    (changed("competition", insurance_ppm=0), "split"),
    (changed("breakers", outflow_window_s=-1), "outflow_window_s"),
    (changed("breakers", class_cap_ppm=(PPM,)), "class_cap_ppm"),
    (changed("breakers", grace_s=5 * 3600), "grace"),
    (changed("breakers", lane_rate=10**15), "lane"),
    (changed("margin", scenarios=()), "scenario"),
    (changed("margin", scenarios=((1, 2),)), "scenario"),
    (changed("margin", scenarios=((-PPM - 1, 0, 0),)), "scenarios"),
    (changed("margin", bridge_class_ppm=(1,)), "bridge_class_ppm"),
    (changed("margin", underlyings=()), "underlying"),
    (changed("margin", assets=BASE.margin.assets * 2), "assets"),
    (changed("margin", watch_health_ppm=PPM), "watch"),
    (changed("margin", leg_cost=2**63), "leg_cost"),
    (changed("margin", venues=(VenueParameters(ChainId(7), b"\1" * 20, 1),)), "venue"),
    (changed("clearing", settlement_assets=(symbol("GOLD"),)), "settlement"),
    (market(maintenance_ppm=0), "maintenance"),
    (market(initial_ppm=10_000), "maintenance"),
    (market(decimals=60), "decimals"),
    (market(symbol=b"short"), "32 bytes"),
]


@pytest.mark.parametrize(("wrong", "word"), IMPOSSIBLE)
def test_what_no_set_may_say(wrong: Parameters, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Parameters.decode(wrong.encode())


def numbers(value: object) -> int:
    if dataclasses.is_dataclass(value):
        fields = [one.name for one in dataclasses.fields(value) if one.init]
        return sum(numbers(getattr(value, name)) for name in fields)
    return sum(map(numbers, value)) if isinstance(value, tuple) else isinstance(value, int)


def grown(value: Any, factor: int) -> Any:
    """Return a value whose every number is multiplied; names stay."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [one.name for one in dataclasses.fields(value) if one.init]
        kept = {"decimals", "group", "chain", "bridge_class"}
        kept |= {"initial_ppm"} if factor > 100 else set()
        return replace(
            value,
            **{n: grown(getattr(value, n), factor) for n in names if n not in kept},
        )
    if isinstance(value, tuple):
        return tuple(grown(item, factor) for item in value)
    return value * factor // 100 if isinstance(value, int) else value


def test_every_number_may_move_by_a_step_and_none_by_more() -> None:
    assert numbers(BASE) > 150
    assert refused_change(BASE, BASE) is None
    assert refused_change(BASE, grown(BASE, 110)) is None
    assert refused_change(BASE, grown(BASE, 92)) is None
    for factor in (80, 130):
        refused = refused_change(BASE, grown(BASE, factor))
        assert refused is not None
        assert "larger" in refused


def test_a_step_names_the_number_that_moves_too_far() -> None:
    far = market(maintenance_ppm=36_000)
    assert refused_change(BASE, far) == (
        "margin.markets[0].maintenance_ppm: a step from 30000 to 36000 is larger than 3000"
    )
    loose = changed("breakers", step_ppm=PPM)
    assert "step_ppm" in str(refused_change(BASE, loose))  # the limits in force judge it


def test_a_rate_may_leave_zero_by_a_tenth_of_a_percent() -> None:
    assert refused_change(BASE, changed("margin", local_ppm=1_000)) is None
    assert refused_change(BASE, changed("margin", local_ppm=1_001)) is not None
    assert refused_step(0, 1, LIMITS) is not None


@pytest.mark.parametrize(
    "other",
    [
        market(symbol=symbol("ETH-EUR")),
        market(decimals=9),
        market(initial_ppm=BASE.margin.markets[0].initial_ppm + 1),
        changed("margin", markets=BASE.margin.markets[:-1]),
        changed("margin", markets=BASE.margin.markets[::-1]),
        changed("margin", scenarios=(*BASE.margin.scenarios, (-PPM, -PPM, -PPM))),
        changed("margin", venues=(VenueParameters(ChainId(31337), b"\1" * 20, PPM),)),
        changed("clearing", settlement_assets=(symbol("WETH"),)),
    ],
)
def test_names_and_tables_stay(other: Parameters) -> None:
    assert refused_change(BASE, other) is not None


def test_a_market_may_be_listed() -> None:
    margin = BASE.margin
    more = changed(
        "margin",
        underlyings=(
            *margin.underlyings,
            UnderlyingParameters(symbol("GOLD"), 1, (1,) * 6, 1, 1, 1, 10**12),
        ),
        assets=(*margin.assets, AssetParameters(symbol("XAU"), symbol("GOLD"), 6, 300_000)),
        markets=(
            *margin.markets,
            MarketParameters(symbol("GOLD-USD"), symbol("GOLD"), 8, 200_000, 100_000, 1),
        ),
    )
    assert Parameters.decode(more.encode()) == more
    assert refused_change(BASE, more) is None


@pytest.mark.parametrize(
    ("now", "wait"),
    [(0, 259_200), (259_199, 1), (259_200, 0), (280_800, 0), (280_801, None), (10**9, None)],
)
def test_a_proposal_waits_and_expires(now: int, wait: int | None) -> None:
    assert wait_s(0, now, LIMITS) == wait


@pytest.mark.parametrize(
    ("new", "refused"), [(1_101, True), (899, True), (1_100, False), (900, False)]
)
def test_a_number_moves_by_a_share_of_itself(new: int, refused: bool) -> None:
    assert (refused_step(1_000, new, LIMITS) is not None) == refused
