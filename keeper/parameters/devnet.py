"""Values that are safe for a devnet only."""

from collections.abc import Sequence

from keeper.parameters.breakers import BreakerParameters
from keeper.parameters.clearing import ClearingParameters
from keeper.parameters.competition import CompetitionParameters
from keeper.parameters.liquidation import LiquidationParameters
from keeper.parameters.margin import (
    AssetParameters,
    BridgeClass,
    ChainParameters,
    LatencyParameters,
    MarginParameters,
    MarketParameters,
    RiskGroup,
    UnderlyingParameters,
)
from keeper.parameters.rotation import RotationParameters
from keeper.units import PPM, ChainId, symbol

_USD = PPM
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


def margin(chains: Sequence[int]) -> MarginParameters:
    """Return the margin model's numbers over some chains."""

    def underlying(
        text: str, group: RiskGroup, ewma: int, long: int, depth: int
    ) -> UnderlyingParameters:
        stable = group is RiskGroup.STABLE
        jumps = _STABLE_JUMPS if stable else _MAJOR_JUMPS
        basis = 1_000 if stable else 5_000
        return UnderlyingParameters(
            symbol(text), int(group), jumps, ewma, long, basis, depth * _USD
        )

    return MarginParameters(
        latency=LatencyParameters((60, 300, 1_200, 3_600, 14_400, 86_400), 5),
        underlyings=(
            underlying("BTC", RiskGroup.MAJOR, 500, 900, 200_000_000),
            underlying("ETH", RiskGroup.MAJOR, 600, 1_200, 100_000_000),
            underlying("SOL", RiskGroup.ALT, 900, 1_800, 20_000_000),
            underlying("USD", RiskGroup.STABLE, 10, 10, 0),
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


LIQUIDATION = LiquidationParameters(
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
BREAKERS = BreakerParameters(
    oracle_age_s=120,
    divergence_ppm=100_000,
    confidence_ppm=20_000,
    state_soft_age_s=60,
    state_hard_age_s=600,
    lane_capacity=1_000_000 * _USD,
    lane_rate=1_000 * _USD,
    outflow_window_s=3_600,
    outflow_retained_ppm=700_000,
    outflow_begin=100_000 * _USD,
    negative_gate_blocks=50,
    cascade_ppm=1_000_000,
    cascade_probe_ppm=300_000,
    insurance_ppm=1_000_000,
    insurance_probe_ppm=50_000,
    bad_debt_begin=1_000 * _USD,
    step_ppm=100_000,
    step_delay_s=259_200,
    step_expiry_s=21_600,
    slow_window_ppm=250_000,
    slow_initial_ppm=250_000,
    hold_s=10,
    grace_s=300,
    class_cap_ppm=(1_000_000, 500_000, 300_000, 150_000),
)
CLEARING = ClearingParameters(
    settlement_assets=(symbol("USDC"),),
    credit_blocks=120,
    release_blocks=120,
    transfer_blocks=120,
    netting_ticks=4,
    transfer_minimum=10_000,
)
COMPETITION = CompetitionParameters(
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
ROTATION = RotationParameters(
    seats=31, epoch_ticks=60, settle_ticks=20, ceremony_ticks=240, barred_ticks=2_400
)
