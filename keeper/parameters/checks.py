"""What no set of parameters may say, whoever signed it: the code divides and indexes by them.

A set that passes may still be unwise; it cannot make an honest keeper fail.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from keeper.parameters.breakers import BreakerParameters
from keeper.parameters.clearing import ClearingParameters
from keeper.parameters.competition import CompetitionParameters
from keeper.parameters.liquidation import LiquidationParameters
from keeper.parameters.margin import BridgeClass, MarginParameters, RiskGroup
from keeper.parameters.rotation import RotationParameters
from keeper.units import PPM

LARGEST = 2**62
"""No number is larger: sums of a few stay inside 64 bits, and so do the wire's integers."""
MAX_ROWS = 256
"""Underlyings, assets, markets, chains, venues each: a set stays far below one block's gas."""
MAX_DECIMALS = 18
MOST_SEATS = 31
"""The largest committee that agreement and sealing were measured with."""
MOST_PRICE_AGE_S = 300
"""Prices of five minutes are kept for their mean; what is older counts as that old."""
MAX_GRACE_S = 4 * 3600
"""As `Breaker.vy` has it: nobody may hold liquidations back for longer by pausing once."""


def faults(
    margin: MarginParameters,
    liquidation: LiquidationParameters,
    breakers: BreakerParameters,
    clearing: ClearingParameters,
    competition: CompetitionParameters,
    rotation: RotationParameters,
) -> tuple[str, ...]:
    """Return what is impossible in a set, one phrase each; nothing when it can be used."""
    found = [
        f"{name} is {value}"
        for section in (margin, liquidation, breakers, clearing, competition, rotation)
        for name, value in _numbers(section)
        if not (-PPM if name.startswith("scenarios") else 0) <= value <= LARGEST
    ]
    checks = (
        *_margin(margin),
        *_liquidation(liquidation),
        *_breakers(breakers),
        *_clearing(clearing, margin),
        *_competition(competition),
        *_rotation(rotation),
    )
    return (*found, *(text for holds, text in checks if not holds))


def _numbers(value: object, name: str = "") -> Iterator[tuple[str, int]]:
    """Yield every number of a section with the name of its field."""
    if dataclasses.is_dataclass(value):
        for one in dataclasses.fields(value):
            if one.init:
                yield from _numbers(getattr(value, one.name), f"{name}.{one.name}".lstrip("."))
    elif isinstance(value, tuple):
        for item in value:
            yield from _numbers(item, name)
    elif isinstance(value, int):
        yield name, value


Check = tuple[bool, str]


def _distinct(rows: Sequence[object], what: str) -> Check:
    return len(set(rows)) == len(rows) <= MAX_ROWS, f"{what}: repeated, or more than {MAX_ROWS}"


def _positive(section: object, names: Iterable[str]) -> Iterator[Check]:
    for name in names:
        yield getattr(section, name) > 0, f"{name} is not positive"


def _shares(section: object, names: Iterable[str]) -> Iterator[Check]:
    for name in names:
        yield getattr(section, name) <= PPM, f"{name} is above one"


def _margin(m: MarginParameters) -> Iterator[Check]:
    buckets = m.latency.bucket_s
    yield (
        0 < len(buckets) <= MAX_ROWS and list(buckets) == sorted(set(buckets)),
        "latency buckets do not ascend",
    )
    yield _distinct([u.symbol for u in m.underlyings], "underlyings")
    yield _distinct([a.symbol for a in m.assets], "assets")
    yield _distinct([one.symbol for one in m.markets], "markets")
    yield _distinct([c.chain for c in m.chains], "chains")
    yield _distinct([(v.chain, v.venue) for v in m.venues], "venues")
    symbols = {*m.underlying_of, *m.asset_of, *m.market_of}
    yield all(len(one) == 32 for one in symbols), "a symbol has not 32 bytes"
    yield all(len(v.venue) == 20 for v in m.venues), "a venue has not 20 bytes"
    for u in m.underlyings:
        yield u.group in set(RiskGroup), "an underlying is of no risk group"
        yield len(u.jump_ppm) == len(buckets), "an underlying needs one jump per latency bucket"
    held = [(one.underlying, one.decimals) for one in m.assets]
    held += [(one.underlying, one.decimals) for one in m.markets]
    for underlying, decimals in held:
        yield underlying in m.underlying_of, "an asset or a market names no underlying"
        yield decimals <= MAX_DECIMALS, f"more than {MAX_DECIMALS} decimals"
    yield all(a.haircut_ppm <= PPM for a in m.assets), "a haircut is above one"
    for market in m.markets:
        traded = m.underlying_of.get(market.underlying)
        yield traded is None or traded.depth > 0, "a market's underlying has no depth"
        yield (
            0 < market.maintenance_ppm <= market.initial_ppm <= 10 * PPM,
            "a market's ratios are not 0 < maintenance ≤ initial ≤ 10",
        )
    yield all(c.bridge_class in set(BridgeClass) for c in m.chains), "no such bridge class"
    yield {v.chain for v in m.venues} <= set(m.chain_of), "a venue's chain has no parameters"
    yield all(v.local_ppm <= PPM for v in m.venues), "a local fraction is above one"
    yield 0 < len(m.scenarios) <= MAX_ROWS, "there are no scenarios, or too many"
    yield all(len(row) == len(RiskGroup) for row in m.scenarios), "a scenario misses a group"
    yield len(m.bridge_class_ppm) == len(BridgeClass), "bridge_class_ppm misses a class"
    names = ("positive_pnl_ppm", "concentration_floor_ppm", "local_ppm")
    yield from _shares(m, names)
    yield m.watch_health_ppm > PPM, "the watch line is not above healthy"


def _liquidation(one: LiquidationParameters) -> Iterator[Check]:
    yield one.target_health_ppm > PPM, "the target health is not above healthy"
    yield from _positive(one, ("close_factor_ppm", "window_blocks", "public_after_blocks"))
    yield from _shares(one, ("close_factor_ppm", "full_health_ppm", "bonus_max_ppm"))
    yield one.bonus_ppm <= one.bonus_max_ppm, "the bonus is above its cap"


def _breakers(one: BreakerParameters) -> Iterator[Check]:
    yield from _positive(
        one, ("outflow_window_s", "slow_window_ppm", "cascade_probe_ppm", "lane_rate")
    )
    names = ("outflow_retained_ppm", "slow_window_ppm", "cascade_probe_ppm", "insurance_probe_ppm")
    yield from _shares(one, (*names, "step_ppm"))
    yield one.state_soft_age_s <= one.state_hard_age_s, "the soft state age is above the hard one"
    yield one.oracle_age_s < MOST_PRICE_AGE_S, f"a price may be {MOST_PRICE_AGE_S} s old or more"
    yield one.lane_rate < one.lane_capacity, "a lane fills in a second"
    yield len(one.class_cap_ppm) == len(BridgeClass), "class_cap_ppm misses a class"
    yield all(cap <= PPM for cap in one.class_cap_ppm), "a cap of a class is above one"
    yield one.grace_s <= MAX_GRACE_S, f"the grace is above {MAX_GRACE_S} s"


def _clearing(one: ClearingParameters, margin: MarginParameters) -> Iterator[Check]:
    yield from _positive(
        one, ("credit_blocks", "release_blocks", "transfer_blocks", "netting_ticks")
    )
    yield bool(one.settlement_assets), "there is no settlement asset"
    yield set(one.settlement_assets) <= set(margin.asset_of), "a settlement asset is no asset"


def _competition(one: CompetitionParameters) -> Iterator[Check]:
    yield from _positive(one, ("exclusive_blocks", "step_blocks", "ranks", "lapse_blocks"))
    names = ("bond_per_unit", "open_awards", "recent_awards", "reward_ticks")
    yield from _positive(one, names)
    parts = (one.insurance_ppm, one.committee_ppm, one.consistency_ppm, one.protocol_ppm)
    yield sum(parts) == PPM, "the split of a price does not sum to one"


def _rotation(one: RotationParameters) -> Iterator[Check]:
    yield from _positive(one, ("epoch_ticks", "settle_ticks", "ceremony_ticks"))
    yield 4 <= one.seats <= MOST_SEATS, f"seats are not within 4 and {MOST_SEATS}"
