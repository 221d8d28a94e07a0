"""Limits of the circuit breakers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BreakerParameters:
    """Limits of the circuit breakers.

    Args:
        oracle_age_s, divergence_ppm, confidence_ppm: price older, further from its 5-minute mean,
            or less certain than this is not trusted.
        state_soft_age_s, state_hard_age_s: reduce-only above the first, no initial-margin value
            above the second.
        lane_capacity, lane_rate: token bucket per lane and direction, µUSD and µUSD per second.
        outflow_window_s, outflow_retained_ppm, outflow_begin: net outflow per asset and venue:
            trips when less than the share is left after the window, above a beginning amount.
        negative_gate_blocks: withdrawals stop this long after an account below zero was seen.
        cascade_ppm, cascade_probe_ppm: alarm slope, and the price moves it is probed up to; the
            depth that a slope is compared with is that of each underlying.
        insurance_ppm, insurance_probe_ppm, bad_debt_begin: bad debt at the probe drop over the
            insurance fund; less than the last, in µUSD, never trips.
        step_ppm, step_delay_s, step_expiry_s: a parameter's largest step, least delay, life.
        slow_window_ppm: share of a window's liquidations that goes on while they are slowed.
        slow_initial_ppm: what a new credit needs on top, of its limit, while increasing is slowed.
        hold_s: a price, state age, cascade or exposure must be good for so long before its breaker
            lets go: every change is a transaction on every chain.
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
    outflow_window_s: int
    outflow_retained_ppm: int
    outflow_begin: int
    negative_gate_blocks: int
    cascade_ppm: int
    cascade_probe_ppm: int
    insurance_ppm: int
    insurance_probe_ppm: int
    bad_debt_begin: int
    step_ppm: int
    step_delay_s: int
    step_expiry_s: int
    slow_window_ppm: int
    slow_initial_ppm: int
    hold_s: int
    grace_s: int
    class_cap_ppm: tuple[int, ...]
