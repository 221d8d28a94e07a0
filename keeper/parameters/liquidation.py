"""How much of a position is closed at once, for what bonus, how fast."""

from dataclasses import dataclass


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
