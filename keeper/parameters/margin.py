"""The margin model's numbers: what moves prices, how fast, and what is held against it.

underlyings ─┬─ assets (haircut)    chains ── latency buckets ─▶ λ(asset, L)
             └─ markets (ratios)    scenarios, offsets, watch line
"""

from dataclasses import dataclass, field
from enum import IntEnum

from keeper.units import ChainId


class BridgeClass(IntEnum):
    """Who can steal or censor on the way between chains, best first (after L2BEAT's classes)."""

    CANONICAL = 0
    OPTIMISTIC = 1
    BONDED = 2
    MULTISIG = 3


class RiskGroup(IntEnum):
    """Underlyings that a scenario moves together."""

    MAJOR = 0
    ALT = 1
    STABLE = 2


@dataclass(frozen=True, slots=True)
class LatencyParameters:
    """How a time to act becomes a bucket: L is rounded up to the next of `bucket_s`.

    A time above the last bucket has no price: its λ is 100 %.
    """

    bucket_s: tuple[int, ...]
    k: int
    """λ = J(L) + k · max(σ_ewma, 2 σ_long) · √L."""


@dataclass(frozen=True, slots=True)
class UnderlyingParameters:
    """What moves a price, and how fast.

    Args:
        jump_ppm: the floor J, one per latency bucket.
        sigma_ewma_ppm: volatility per √minute of the epoch before.
        sigma_long_ppm: volatility per √minute of the long run.
        basis_ppm: what a pair of opposite positions may diverge.
        depth: µUSD of forced trades that move the price by a factor e, 0 where nothing is traded.
            It is set by governance and moves in steps: the depth of a pool can be lent for a block.
    """

    symbol: bytes
    group: int
    jump_ppm: tuple[int, ...]
    sigma_ewma_ppm: int
    sigma_long_ppm: int
    basis_ppm: int
    depth: int


@dataclass(frozen=True, slots=True)
class AssetParameters:
    """An asset held or owed. Its price's market is its own symbol."""

    symbol: bytes
    underlying: bytes
    decimals: int
    haircut_ppm: int


@dataclass(frozen=True, slots=True)
class MarketParameters:
    """A perpetual market.

    Args:
        initial_ppm: to open (IMR).
        maintenance_ppm: to keep (MMR).
        concentration: 10**-6 ppm per square root of a size unit.
    """

    symbol: bytes
    underlying: bytes
    decimals: int
    initial_ppm: int
    maintenance_ppm: int
    concentration: int


@dataclass(frozen=True, slots=True)
class ChainParameters:
    """How long a chain keeps value out of reach, and who guards the way."""

    chain: ChainId
    finality_s: int
    bridge_p95_s: int
    execution_s: int
    bridge_class: int


@dataclass(frozen=True, slots=True)
class VenueParameters:
    """A venue that liquidates by its own state: it must keep `local_ppm` of its own MMR itself."""

    chain: ChainId
    venue: bytes
    local_ppm: int


@dataclass(frozen=True, slots=True)
class MarginParameters:
    """The margin model's numbers (docs/margin.md).

    Args:
        positive_pnl_ppm: weight of a profit that is not realised, for the initial margin.
        concentration_floor_ppm: share of the flat ratio to which concentration is added.
        leg_cost: µUSD a keeper needs to close one perp or debt leg.
        local_ppm: local fraction of venues not listed; 0 for venues cleared by credit.
        bridge_class_ppm: surcharge on hedged notional over chains, by the worst class on the way.
        scenarios: shock ppm by risk group (major, alt, stable), 16 rows.
        initial_scenario_ppm: weight of the worst loss for the initial requirement.
        watch_health_ppm: accounts below are in the watch tree.
    """

    latency: LatencyParameters
    underlyings: tuple[UnderlyingParameters, ...]
    assets: tuple[AssetParameters, ...]
    markets: tuple[MarketParameters, ...]
    chains: tuple[ChainParameters, ...]
    venues: tuple[VenueParameters, ...]
    scenarios: tuple[tuple[int, ...], ...]
    initial_scenario_ppm: int
    bridge_class_ppm: tuple[int, ...]
    positive_pnl_ppm: int
    concentration_floor_ppm: int
    leg_cost: int
    local_ppm: int
    watch_health_ppm: int
    underlying_of: dict[bytes, UnderlyingParameters] = field(
        init=False, repr=False, compare=False, hash=False
    )
    asset_of: dict[bytes, AssetParameters] = field(
        init=False, repr=False, compare=False, hash=False
    )
    market_of: dict[bytes, MarketParameters] = field(
        init=False, repr=False, compare=False, hash=False
    )
    chain_of: dict[ChainId, ChainParameters] = field(
        init=False, repr=False, compare=False, hash=False
    )
    local_of: dict[tuple[ChainId, bytes], int] = field(
        init=False, repr=False, compare=False, hash=False
    )

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "underlying_of", {u.symbol: u for u in self.underlyings})
        put(self, "asset_of", {a.symbol: a for a in self.assets})
        put(self, "market_of", {m.symbol: m for m in self.markets})
        put(self, "chain_of", {c.chain: c for c in self.chains})
        put(self, "local_of", {(v.chain, v.venue): v.local_ppm for v in self.venues})
