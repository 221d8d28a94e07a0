"""What governance set on chain for one epoch: every number that all keepers must share.

    Parameters ─┬─ margin        underlyings, assets, markets, chains, venues, latency, scenarios
                ├─ liquidation   target, close factor, bonus, dust, windows
                ├─ breakers      the limits that stop contagion
                ├─ clearing      lives of decisions, netting
                └─ competition   windows, locks, reserve, split
    encode() ── canonical msgpack (arrays in field order) ── digest = keccak

Keepers compare the digest, never a local file; `config` of the agreement binds it. A volatility is
part of the signed set and is never computed from a keeper's own ticks. Rates are ppm, money is
µUSD, times are seconds. The values of `Parameters.devnet` are safe for a devnet only.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from types import GenericAlias
from typing import Any, get_args, get_type_hints

import msgpack

from keeper.hashing import keccak
from keeper.units import PPM, ChainId, symbol

VERSION = 1


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


# --- margin ---------------------------------------------------------------------------------------


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
    """

    symbol: bytes
    group: int
    jump_ppm: tuple[int, ...]
    sigma_ewma_ppm: int
    sigma_long_ppm: int
    basis_ppm: int


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


# --- liquidation ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LiquidationParameters:
    """How much is closed, for what bonus, how fast.

    Args:
        target_health_ppm: a partial liquidation ends here (2 % above healthy).
        close_factor_ppm, full_health_ppm: largest share closed at once while health is above.
        full_value: µUSD; a smaller position is closed whole.
        dust_value: µUSD; a smaller rest is not left behind.
        bonus_ppm, bonus_slope_ppm, bonus_max_ppm: bonus at health 1, its growth per unit of
            violation, its cap.
        window_blocks, window_value: per market, µUSD of notional that may be closed per window.
        public_after_blocks: then anyone may liquidate without a certificate.
    """

    target_health_ppm: int
    close_factor_ppm: int
    full_health_ppm: int
    full_value: int
    dust_value: int
    bonus_ppm: int
    bonus_slope_ppm: int
    bonus_max_ppm: int
    window_blocks: int
    window_value: int
    public_after_blocks: int


# --- breakers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BreakerParameters:
    """Limits of the circuit breakers.

    Args:
        oracle_age_s, divergence_ppm, confidence_ppm: price older, further from its 5-minute mean,
            or less certain than this is not trusted.
        state_soft_age_s, state_hard_age_s: reduce-only above the first, no initial-margin value
            above the second.
        lane_capacity, lane_rate: token bucket per lane and direction, µUSD and µUSD per second.
        day_limit, big_transfer, big_delay_s: 24 h governor per lane, and the delay of a big one.
        outflow_window_s, outflow_retained_ppm, outflow_begin: net outflow per asset and venue:
            trips when less than the share is left after the window, above a beginning amount.
        negative_gate_blocks: withdrawals stop this long after an account below zero was seen.
        cascade_ppm, cascade_probe_ppm: alarm slope, and the price drops it is probed up to.
        insurance_ppm, insurance_probe_ppm: bad debt at the probe drop over the insurance fund.
        step_ppm, step_delay_s, step_expiry_s: a parameter's largest step, least delay, life.
        grace_s: no liquidation this long after an un-pause.
        class_cap_ppm: largest share of all collateral reachable over each bridge class.
    """

    oracle_age_s: int
    divergence_ppm: int
    confidence_ppm: int
    state_soft_age_s: int
    state_hard_age_s: int
    lane_capacity: int
    lane_rate: int
    day_limit: int
    big_transfer: int
    big_delay_s: int
    outflow_window_s: int
    outflow_retained_ppm: int
    outflow_begin: int
    negative_gate_blocks: int
    cascade_ppm: int
    cascade_probe_ppm: int
    insurance_ppm: int
    insurance_probe_ppm: int
    step_ppm: int
    step_delay_s: int
    step_expiry_s: int
    grace_s: int
    class_cap_ppm: tuple[int, ...]


# --- clearing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClearingParameters:
    """How one margin account is kept over many chains (docs/clearing.md).

    Args:
        settlement_assets: assets that count at par for transfers, the first is used first.
        credit_blocks, release_blocks, transfer_blocks: life of a decision, in blocks of its chain
            after the cut.
        netting_ticks: realised results are netted over this many ticks before they move.
        transfer_minimum: µUSD; a smaller result waits until it has grown.
    """

    settlement_assets: tuple[bytes, ...]
    credit_blocks: int
    release_blocks: int
    transfer_blocks: int
    netting_ticks: int
    transfer_minimum: int


# --- competition ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CompetitionParameters:
    """How keepers win tasks and what they put at stake (docs/competition.md).

    Args:
        reserve_ppm: least price of a task, as a share of the bonus it pays.
        start_blocks: blocks from the chain's head to the first block of an award's window.
        exclusive_blocks, step_blocks: rank 0's window; each later rank's head start.
        ranks: keepers named in one award, at most.
        lock_minimum, lock_price_ppm, lock_value_ppm: bond locked by an award: the largest of a
            minimum, a share of its price, a share of the value to close.
        lapse_blocks: blocks after `openAt` in which an award may still be executed; then it is
            voided, so that a fresh task can be made.
        bond_per_unit: smallest units of the bond's coin that are worth 1 µUSD.
        no_reveal_penalty: µUSD, for a commitment that is not opened.
        jail_after: no-shows of one keeper in an epoch after which it no longer competes.
        open_awards: exclusive awards one keeper may hold at once.
        recent_awards, share_ppm, rival_ppm: a keeper that won more than the share of the last
            awards yields to a rival whose bid is within this distance of its own.
        standing_health_ppm: accounts below may be bid for before they are liquidatable.
        insurance_ppm, committee_ppm, consistency_ppm, protocol_ppm: split of a task's price.
        reward_ticks: ticks between two payments of rewards.
        gas_allowance: µUSD of gas that one execution may cost; half of what is saved is kept.
    """

    reserve_ppm: int
    start_blocks: int
    exclusive_blocks: int
    step_blocks: int
    ranks: int
    lock_minimum: int
    lock_price_ppm: int
    lock_value_ppm: int
    lapse_blocks: int
    bond_per_unit: int
    no_reveal_penalty: int
    jail_after: int
    open_awards: int
    recent_awards: int
    share_ppm: int
    rival_ppm: int
    standing_health_ppm: int
    insurance_ppm: int
    committee_ppm: int
    consistency_ppm: int
    protocol_ppm: int
    reward_ticks: int
    gas_allowance: int


# --- the whole ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parameters:
    """Everything governance set for one epoch."""

    margin: MarginParameters
    liquidation: LiquidationParameters
    breakers: BreakerParameters
    clearing: ClearingParameters
    competition: CompetitionParameters

    def encode(self) -> bytes:
        """Return the canonical bytes: version, then sections as arrays in field order."""
        packed: bytes = msgpack.packb([VERSION, _plain(self)])
        return packed

    @classmethod
    def decode(cls, raw: bytes) -> "Parameters":
        """Return the parameters of canonical bytes.

        Raises:
            ValueError: the bytes are not canonical, or of another version.
        """
        try:
            version, body = msgpack.unpackb(raw, use_list=False)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise ValueError(f"parameters do not decode: {error}") from error
        if version != VERSION:
            raise ValueError(f"parameters have version {version}, not {VERSION}")
        value = _typed(cls, body)
        if not isinstance(value, Parameters) or value.encode() != raw:
            raise ValueError("parameters are not in canonical form")
        return value

    @property
    def digest(self) -> bytes:
        """Keccak of the canonical bytes: what keepers compare."""
        return keccak(self.encode())

    @classmethod
    def devnet(cls, chains: Sequence[int] = (31337, 31338)) -> "Parameters":
        """Return values that are safe for a devnet only."""
        return cls(
            _devnet_margin(chains),
            _DEVNET_LIQUIDATION,
            _DEVNET_BREAKERS,
            _DEVNET_CLEARING,
            _DEVNET_COMPETITION,
        )


def _plain(value: object) -> object:
    """Return the value as nested lists of integers, bytes and text."""
    if dataclasses.is_dataclass(value):
        return [_plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, int) else value


def _typed(kind: Any, value: Any) -> Any:
    """Return nested tuples as the dataclasses and scalars of a type."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        names = [f.name for f in dataclasses.fields(kind) if f.init]
        if not isinstance(value, tuple) or len(value) != len(names):
            raise ValueError(f"{kind.__name__} needs {len(names)} fields")
        items = zip(names, value, strict=True)
        return kind(**{name: _typed(hints[name], item) for name, item in items})
    if isinstance(kind, GenericAlias):
        if not isinstance(value, tuple):
            raise ValueError("expected an array")
        return tuple(_typed(get_args(kind)[0], item) for item in value)
    base = getattr(kind, "__supertype__", kind)
    if type(value) is not base:
        raise ValueError(f"expected {base.__name__}, not {type(value).__name__}")
    return value


# --- devnet defaults ------------------------------------------------------------------------------

_MAJOR_JUMPS = (20_000, 40_000, 50_000, 60_000, 80_000, 120_000)
_STABLE_JUMPS = (1_000, 2_000, 3_000, 4_000, 8_000, 12_000)
_SCENARIOS = (
    *((sign * 15_000, sign * 25_000, 0) for sign in (1, -1)),
    *((sign * 30_000, sign * 50_000, 0) for sign in (1, -1)),
    *((sign * 50_000, sign * 75_000, 0) for sign in (1, -1)),
    *((sign * 50_000, -sign * 75_000, 0) for sign in (1, -1)),
    *((sign * 50_000, 0, 0) for sign in (1, -1)),
    *((0, sign * 75_000, 0) for sign in (1, -1)),
    *((sign * 60_000, sign * 90_000, 0) for sign in (1, -1)),
    (-50_000, -75_000, -50_000),
    (0, 0, -50_000),
)


def _devnet_margin(chains: Sequence[int]) -> MarginParameters:
    def underlying(text: str, group: RiskGroup, ewma: int, long: int) -> UnderlyingParameters:
        stable = group is RiskGroup.STABLE
        jumps = _STABLE_JUMPS if stable else _MAJOR_JUMPS
        basis = 1_000 if stable else 5_000
        return UnderlyingParameters(symbol(text), int(group), jumps, ewma, long, basis)

    return MarginParameters(
        latency=LatencyParameters((60, 300, 1_200, 3_600, 14_400, 86_400), 5),
        underlyings=(
            underlying("BTC", RiskGroup.MAJOR, 500, 900),
            underlying("ETH", RiskGroup.MAJOR, 600, 1_200),
            underlying("SOL", RiskGroup.ALT, 900, 1_800),
            underlying("USD", RiskGroup.STABLE, 10, 10),
        ),
        assets=(
            AssetParameters(symbol("USDC"), symbol("USD"), 6, 0),
            AssetParameters(symbol("WETH"), symbol("ETH"), 18, 50_000),
            AssetParameters(symbol("WBTC"), symbol("BTC"), 8, 50_000),
        ),
        markets=(
            MarketParameters(symbol("ETH-USD"), symbol("ETH"), 8, 50_000, 30_000, 50_000),
            MarketParameters(symbol("BTC-USD"), symbol("BTC"), 8, 50_000, 30_000, 200_000),
            MarketParameters(symbol("SOL-USD"), symbol("SOL"), 8, 100_000, 50_000, 10_000),
        ),
        chains=tuple(
            ChainParameters(ChainId(chain), 2, 30, 10, BridgeClass.CANONICAL) for chain in chains
        ),
        venues=(),
        scenarios=_SCENARIOS,
        initial_scenario_ppm=1_500_000,
        bridge_class_ppm=(2_000, 5_000, 10_000, 20_000),
        positive_pnl_ppm=900_000,
        concentration_floor_ppm=800_000,
        leg_cost=100_000,
        local_ppm=0,
        watch_health_ppm=1_200_000,
    )


_USD = PPM
_DEVNET_LIQUIDATION = LiquidationParameters(
    target_health_ppm=1_020_000,
    close_factor_ppm=500_000,
    full_health_ppm=950_000,
    full_value=2_000 * _USD,
    dust_value=1_000 * _USD,
    bonus_ppm=5_000,
    bonus_slope_ppm=200_000,
    bonus_max_ppm=25_000,
    window_blocks=30,
    window_value=10_000_000 * _USD,
    public_after_blocks=300,
)
_DEVNET_BREAKERS = BreakerParameters(
    oracle_age_s=120,
    divergence_ppm=100_000,
    confidence_ppm=20_000,
    state_soft_age_s=60,
    state_hard_age_s=600,
    lane_capacity=1_000_000 * _USD,
    lane_rate=1_000 * _USD,
    day_limit=10_000_000 * _USD,
    big_transfer=1_000_000 * _USD,
    big_delay_s=86_400,
    outflow_window_s=3_600,
    outflow_retained_ppm=700_000,
    outflow_begin=100_000 * _USD,
    negative_gate_blocks=50,
    cascade_ppm=1_000_000,
    cascade_probe_ppm=300_000,
    insurance_ppm=1_000_000,
    insurance_probe_ppm=50_000,
    step_ppm=100_000,
    step_delay_s=259_200,
    step_expiry_s=21_600,
    grace_s=300,
    class_cap_ppm=(1_000_000, 500_000, 300_000, 150_000),
)
_DEVNET_CLEARING = ClearingParameters(
    settlement_assets=(symbol("USDC"),),
    credit_blocks=120,
    release_blocks=120,
    transfer_blocks=120,
    netting_ticks=4,
    transfer_minimum=10_000,
)
_DEVNET_COMPETITION = CompetitionParameters(
    reserve_ppm=50_000,
    start_blocks=2,
    exclusive_blocks=10,
    step_blocks=4,
    ranks=4,
    lock_minimum=10 * _USD,
    lock_price_ppm=1_000_000,
    lock_value_ppm=2_000,
    lapse_blocks=60,
    bond_per_unit=400_000_000,
    no_reveal_penalty=5 * _USD,
    jail_after=3,
    open_awards=64,
    recent_awards=32,
    share_ppm=600_000,
    rival_ppm=50_000,
    standing_health_ppm=1_050_000,
    insurance_ppm=600_000,
    committee_ppm=150_000,
    consistency_ppm=150_000,
    protocol_ppm=100_000,
    reward_ticks=120,
    gas_allowance=2 * _USD,
)
